"""Listeners for the events of an engine, which can be removed while other threads use the engine.

SQLAlchemy's own cannot: a thread that goes through the list of listeners fails when it changes. So one function for each
event is added to SQLAlchemy's list and stays there; it calls the listeners of that moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from sqlalchemy import Engine, event

Listener = Callable[..., object]


class EngineEvents:
    """The listeners of one engine, which is all that refers to this object."""

    __slots__ = ("__weakref__", "_listeners")

    def __init__(self) -> None:
        self._listeners: dict[str, tuple[Listener, ...]] = {}

    def __contains__(self, name: str) -> bool:
        """Whether SQLAlchemy's list for the event *name* has the function that calls the listeners."""
        return name in self._listeners

    def add(self, engine: Engine, name: str, listener: Listener) -> None:
        """Call *listener* at the event *name* of *engine*."""
        known = self._listeners.get(name)
        self._listeners[name] = (*(known or ()), listener)
        if known is None:

            def call(*arguments: Any) -> None:
                for each in self._listeners[name]:
                    each(*arguments)

            event.listen(engine, name, call)

    def remove(self, name: str, listener: Listener) -> None:
        """Stop calling *listener*."""
        self._listeners[name] = tuple(each for each in self._listeners[name] if each != listener)


_events: WeakKeyDictionary[Engine, ReferenceType[EngineEvents]] = WeakKeyDictionary()


def add_listener(engine: Engine, name: str, listener: Listener) -> None:
    """Call *listener* at the event *name* of *engine*, whichever thread causes it."""
    if (events := _known(engine)) is None:
        events = EngineEvents()
        _events[engine] = ref(events)
    events.add(engine, name, listener)


def remove_listener(engine: Engine, name: str, listener: Listener) -> None:
    """Stop calling *listener* at the event *name* of *engine*."""
    if (events := _known(engine)) is not None:
        events.remove(name, listener)


def count_added(engine: Engine, name: str) -> int:
    """Return how many functions in SQLAlchemy's list for the event *name* of *engine* are from here."""
    events = _known(engine)
    return int(events is not None and name in events)


def _known(engine: Engine) -> EngineEvents | None:
    known = _events.get(engine)
    return None if known is None else known()
