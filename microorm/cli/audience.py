"""Audience: every signal that can be found, and who listens to it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from microorm import signals
from microorm.dispatch.receivers import Connection
from microorm.dispatch.signal import Signal
from microorm.registry import Registry
from microorm.signals import ModelSignal


@dataclass(frozen=True)
class Listener:
    """One receiver of one signal.

    *sender* is a label, the name of a class, or what else it is; None for every sender. *waiting*: no model has the
    label yet. *dispatch_uid* is None where there is none.
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
    subclasses: bool
    skip_raw: bool

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)


def named_signals() -> dict[str, Signal]:
    """The signals by name: those of `microorm.signals`, then those bound to a name in any module loaded by now.

    One that several modules have imported has the name that it has in a module called `signals`, else in the
    alphabetically first.
    """
    found = {name: value for name, value in vars(signals).items() if _is_signal(value)}
    known = {id(signal) for signal in found.values()}
    for name, signal in sorted(_bound_signals(), key=_preference):
        if id(signal) not in known:
            known.add(id(signal))
            found[name] = signal
    return found


def _is_signal(value: object) -> bool:
    return issubclass(
        type(value), Signal
    )  # isinstance would ask the object, and some objects import when asked


def _bound_signals() -> Iterator[tuple[str, Signal]]:
    for module, loaded in list(sys.modules.items()):
        if module.partition(".")[0] == "microorm":
            continue
        for name, value in list(getattr(loaded, "__dict__", {}).items()):
            if _is_signal(value):
                yield f"{module}.{name}", value


def _preference(named: tuple[str, Signal]) -> tuple[bool, str]:
    module = named[0].rpartition(".")[0]
    return module.rpartition(".")[2] != "signals", named[0]


def listeners(registry: Registry, label: str | None = None) -> list[Listener]:
    """Who listens to what, signal by signal, in the order in which they run.

    With *label* only those who hear the signals of that model, or wait for it; `LookupError` for one that nobody
    knows.
    """
    named = named_signals()
    if label is None:
        return [
            each for name, signal in named.items() for each in (*_all(name, signal), *_waiting(name, signal))
        ]
    model = registry.models.get(label)
    found = []
    for name, signal in named.items():
        if isinstance(signal, ModelSignal):
            found += [] if model is None else _all(name, signal, model)
            found += [each for each in _waiting(name, signal) if each.sender == label]
    if model is None and not found:
        raise LookupError(label)
    return found


def labels_known(registry: Registry) -> list[str]:
    """The labels of models, and those that receivers wait for."""
    waiting = [
        label
        for signal in named_signals().values()
        if isinstance(signal, ModelSignal)
        for label, _ in signal.waiting
    ]
    return list(dict.fromkeys([*registry.models, *waiting]))


def _all(name: str, signal: Signal, model: Any = None) -> list[Listener]:
    """The receivers of *signal*, those that *model* has if it is given; sync before async, as they run."""
    connections = [each for each in signal.receivers if model is None or signal._matches(each, model)]
    connections.sort(key=lambda each: each.is_async)
    return [_listener(name, each, _sender(each), waiting=False) for each in connections]


def _waiting(name: str, signal: Signal) -> list[Listener]:
    if not isinstance(signal, ModelSignal):
        return []
    return [_listener(name, each, label, waiting=True) for label, each in signal.waiting]


def _listener(name: str, connection: Connection, sender: str | None, *, waiting: bool) -> Listener:
    options = connection.options
    return Listener(
        signal=name,
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
    )


def _sender(connection: Connection) -> str | None:
    if connection.wildcard:
        return None
    sender = connection.sender
    schema = vars(sender).get("__schema__") if isinstance(sender, type) else None
    if schema is not None:
        return str(schema.label)
    return f"{sender.__module__}.{sender.__qualname__}" if isinstance(sender, type) else repr(sender)
