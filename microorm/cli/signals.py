"""Signals: the command that lists who listens to what."""

from __future__ import annotations

import json

import click

from microorm.cli import arguments, completion
from microorm.cli.audience import Listener, labels_known, listeners
from microorm.cli.invocation import Invocation
from microorm.cli.output import NOTHING, print_table, shown
from microorm.errors import nearest

COLUMNS = ("signal", "receiver", "sender", "where", "delivery", "weak", "dispatch_uid", "async", "options")


@click.command()
@click.option(
    "--model",
    "label",
    metavar="LABEL",
    shell_complete=completion.labels,
    help="Only the receivers that hear of this model, as app.Model.",
)
@arguments.as_json
@click.pass_obj
def command(invocation: Invocation, label: str | None, as_json: bool) -> None:
    """List who listens to which signal, in order.

    The applications are set up first, so that their receivers are connected. The receivers of one signal stand in the
    order in which they run: sync before async, then as they were connected; those delivered "on_commit" wait for the
    commit. The sender is "*" for every sender; a label that no model has yet is marked "(waits)".

    The signals are those of microorm.signals, and each Signal that a loaded module has at its top level.

    \b
    Examples:
      microorm signals
      microorm signals --model shop.Book
      microorm signals --json

    \b
    Exit status:
      0  the receivers were listed, or there are none
      1  no model has the label, or a module of the project raises
    """
    invocation.set_up()
    try:
        found = listeners(invocation.registry, label)
    except LookupError:
        near = nearest(label, labels_known(invocation.registry))
        raise click.ClickException(f"no model is labelled {label!r}{near}") from None
    if as_json:
        click.echo(json.dumps([each.as_dict() for each in found], indent=2))
    elif found:
        print_table(COLUMNS, [_row(each) for each in found])
    else:
        click.echo("no receivers")


def _row(listener: Listener) -> tuple[str, ...]:
    sender = "*" if listener.sender is None else listener.sender
    options = [name for name in ("subclasses", "skip_raw") if getattr(listener, name)]
    return (
        listener.signal,
        listener.receiver,
        f"{sender} (waits)" if listener.waiting else sender,
        f"{shown(listener.file)}:{listener.line}" if listener.file else NOTHING,
        listener.delivery,
        "weak" if listener.weak else "strong",
        listener.dispatch_uid or NOTHING,
        "async" if listener.is_async else "sync",
        ",".join(options) or NOTHING,
    )
