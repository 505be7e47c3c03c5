"""Signals: the command that lists the receivers of every signal of the program."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import click

from microorm.cli.graph import FORMATS, WRITERS, Graph
from microorm.cli.output import EMPTY, display_path, print_table
from microorm.cli.program import Invocation, completer, json_option
from microorm.dispatch.receivers import Connection
from microorm.errors import nearest
from microorm.registry import Registry
from microorm.signals import ModelSignal
from microorm.tracing.names import find_signals

COLUMNS = ("signal", "receiver", "sender", "where", "delivery", "weak", "dispatch_uid", "async", "options")


@dataclass(frozen=True)
class ReceiverInfo:
    """One receiver of one signal, as `--json` prints it.

    *sender* is the label of a model, the name of another class or the `repr` of an object; None means every sender.
    *waiting* says that no model with this label is defined yet.
    """

    signal: str
    receiver: str
    sender: str | None
    waiting: bool
    file: str | None
    line: int | None
    delivery: str
    weak: bool
    dispatch_uid: str | None
    is_async: bool
    robust: bool
    subclasses: bool
    skip_raw: bool

    def row(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        sender = "*" if self.sender is None else self.sender
        options = [name for name in ("robust", "subclasses", "skip_raw") if getattr(self, name)]
        return (
            self.signal,
            self.receiver,
            f"{sender} (waiting)" if self.waiting else sender,
            f"{display_path(self.file)}:{self.line}" if self.file else EMPTY,
            self.delivery,
            "weak" if self.weak else "strong",
            self.dispatch_uid or EMPTY,
            "async" if self.is_async else "sync",
            ",".join(options) or EMPTY,
        )


def _labels(invocation: Invocation) -> Iterable[str]:
    invocation.set_up()
    return invocation.registry.models


@click.command()
@click.option(
    "--model",
    "label",
    metavar="LABEL",
    shell_complete=completer(_labels),
    help="Only the receivers of this model's signals, for example shop.Book.",
)
@click.option("--graph", is_flag=True, help="Draw senders, signals and receivers instead.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    metavar="FORMAT",
    help="How to write the graph: mermaid (the default), dot for Graphviz, or svg, which Graphviz's program makes.",
)
@json_option
@click.pass_obj
def signals(
    invocation: Invocation, label: str | None, graph: bool, format_: str | None, as_json: bool
) -> None:
    """List the receivers of each signal.

    Sets up the applications first, which connects their receivers. Lists the signals of microorm.signals and every
    other Signal that a loaded module has at its top level. The receivers of a signal are listed in the order in which
    they run: synchronous ones first, then as connected; those with delivery "on_commit" run after the commit. The
    sender is "*" for every sender; "(waiting)" marks the label of a model that is not defined.

    A graph leads from each sender to its signals, and from these to the receivers. The arrow is dotted to one that
    runs after the commit, and thick to a durable one.

    \b
    Examples:
      microorm signals
      microorm signals --model shop.Book
      microorm signals --json
      microorm signals --graph > signals.mmd
      microorm signals --graph --format svg > signals.svg

    \b
    Exit status:
      0  the receivers were listed, or there are none
      1  no model has the label, a module of the project raises, or Graphviz is not installed
    """
    if graph and as_json:
        raise click.UsageError("--graph and --json cannot be combined")
    if format_ is not None and not graph:
        raise click.UsageError("--format is for --graph")
    invocation.set_up()
    found = list(find_receivers(invocation.registry, label))
    if label is not None and not found and label not in invocation.registry.models:
        waiting = [each.sender for each in find_receivers(invocation.registry) if each.waiting]
        near = nearest(label, filter(None, [*invocation.registry.models, *waiting]))
        raise click.ClickException(f"no model is labelled {label!r}{near}")
    if graph:
        click.echo(WRITERS[format_ or "mermaid"](Graph(found)))
    elif as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=2))
    elif found:
        print_table(COLUMNS, [each.row() for each in found])
    else:
        click.echo("no receivers")


def find_receivers(registry: Registry, label: str | None = None) -> Iterator[ReceiverInfo]:
    """Yield the receivers in the order in which they run, by signal; with *label* only those of that model."""
    model = registry.models.get(label) if label is not None else None
    for name, signal in find_signals().items():
        waiting = signal.waiting if isinstance(signal, ModelSignal) else ()
        connections = signal.receivers
        if label is not None:
            waiting = tuple(pair for pair in waiting if pair[0] == label)
            has_model = model is not None and isinstance(signal, ModelSignal)
            connections = tuple(each for each in connections if has_model and signal._matches(each, model))
        for connection in sorted(connections, key=lambda each: each.is_async):
            yield _receiver_info(name, connection, _sender_name(connection), waiting=False)
        for sender, connection in waiting:
            yield _receiver_info(name, connection, sender, waiting=True)


def _receiver_info(signal: str, connection: Connection, sender: str | None, *, waiting: bool) -> ReceiverInfo:
    options = connection.options
    return ReceiverInfo(
        signal=signal,
        receiver=f"{connection.module}.{connection.qualname}",
        sender=sender,
        waiting=waiting,
        file=connection.file,
        line=connection.line,
        delivery=options.get("delivery", "immediate"),
        weak=connection.weak,
        dispatch_uid=str(connection.dispatch_uid) if connection.dispatch_uid else None,
        is_async=connection.is_async,
        subclasses="subclasses" in options,
        skip_raw="skip_raw" in options,
        robust="robust" in options,
    )


def _sender_name(connection: Connection) -> str | None:
    if connection.wildcard:
        return None
    sender = connection.sender
    if not isinstance(sender, type):
        return repr(sender)
    schema = vars(sender).get("__schema__")
    return str(schema.label) if schema is not None else f"{sender.__module__}.{sender.__qualname__}"
