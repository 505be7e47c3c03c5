"""Signals: the command that lists the receivers of every signal of the program."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import click

from microorm import signals as builtin_signals
from microorm.cli.output import EMPTY, display_path, print_table
from microorm.cli.program import Invocation, completer, json_option
from microorm.dispatch.receivers import Connection
from microorm.dispatch.signal import Signal
from microorm.errors import nearest
from microorm.registry import Registry
from microorm.signals import ModelSignal

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
@json_option
@click.pass_obj
def signals(invocation: Invocation, label: str | None, as_json: bool) -> None:
    """List the receivers of each signal.

    Sets up the applications first, which connects their receivers. Lists the signals of microorm.signals and every
    other Signal that a loaded module has at its top level. The receivers of a signal are listed in the order in which
    they run: synchronous ones first, then as connected; those with delivery "on_commit" run after the commit. The
    sender is "*" for every sender; "(waiting)" marks the label of a model that is not defined.

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
    found = list(find_receivers(invocation.registry, label))
    if label is not None and not found and label not in invocation.registry.models:
        waiting = [each.sender for each in find_receivers(invocation.registry) if each.waiting]
        near = nearest(label, filter(None, [*invocation.registry.models, *waiting]))
        raise click.ClickException(f"no model is labelled {label!r}{near}")
    if as_json:
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


def find_signals() -> dict[str, Signal]:
    """Return the signals by name: those of `microorm.signals`, then those at the top level of all loaded modules."""
    names = {
        f"{module}.{name}": value
        for module, loaded in list(sys.modules.items())
        if module.partition(".")[0] != "microorm"
        for name, value in list(getattr(loaded, "__dict__", {}).items())
        if _is_signal(value)
    }
    found = {name: value for name, value in vars(builtin_signals).items() if _is_signal(value)}
    known = set(map(id, found.values()))
    # Of the modules that have imported a signal, one named `signals` counts, or else the alphabetically first.
    for name in sorted(names, key=lambda name: (name.split(".")[-2] != "signals", name)):
        if id(names[name]) not in known:
            known.add(id(names[name]))
            found[name] = names[name]
    return found


def _is_signal(value: object) -> bool:
    return issubclass(type(value), Signal)  # isinstance() reads `__class__`, and lazy objects import then


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
