"""Listeners for the events of an engine, which can be removed while other threads use the engine.

SQLAlchemy's own cannot: a thread that goes through the list of listeners fails when it changes. So one function for each
event is added to SQLAlchemy's list and stays there; it calls the listeners of that moment.

If the program listens to an engine, its statements run through SQLAlchemy's `Connection`: `EngineListeners` tells.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from sqlalchemy import Connection, Engine, event

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


_STATEMENTS = (
    "before_cursor_execute",
    "after_cursor_execute",
    "before_execute",
    "after_execute",
    "engine_connect",
)
_DIALECT = ("do_execute", "do_executemany", "do_execute_no_params", "handle_error")
_TRANSACTIONS = ("savepoint", "release_savepoint", "rollback_savepoint", "commit", "rollback", "begin")

_engine_collections = attrgetter(*_STATEMENTS, *_TRANSACTIONS)
_dialect_collections = attrgetter(*_DIALECT)

Present = tuple[bool, bool]
"""Whether there are listeners for statements; whether there are any, for transactions as well."""


class EngineListeners:
    """Counts the listeners of an engine besides microorm's own.

    They are counted again only after one was added or removed. SQLAlchemy does not tell that, so each question compares
    its collections of listeners, and their lengths, with those of the last count. That takes a third of the time of
    counting, and every transaction asks.
    """

    __slots__ = ("_collections", "_lengths", "_lists", "_present")

    def __init__(self) -> None:
        self._collections: tuple[Any, ...] = ()
        self._lists: list[Any] = []
        self._lengths: list[int] = []
        self._present: Present = (False, False)

    def present(self, engine: Engine) -> Present:
        """Return whether there are listeners for statements of *engine*, and whether there are any."""
        dialect: Any = engine.dialect
        collections = _engine_collections(engine.dispatch) + _dialect_collections(dialect.dispatch)
        if collections != self._collections or [*map(len, self._lists)] != self._lengths:
            # The lists of the class, which all engines share, and of the engine.
            lists = [(each.parent_listeners, each.listeners) for each in collections]
            self._lists = [
                each for pair in lists for each in pair if each.__class__ is not tuple
            ]  # () never changes
            self._lengths = [*map(len, self._lists)]
            self._collections = collections
            self._present = count_present(engine)
        return self._present


def count_present(connection: Connection | Engine) -> Present:
    """Return the same as `EngineListeners.present` for *connection*, which may have listeners of its own."""
    engine = connection.engine
    statements = _more(engine, connection.dispatch, _STATEMENTS) or _more(
        engine, connection.dialect.dispatch, _DIALECT
    )
    return statements, statements or _more(engine, connection.dispatch, _TRANSACTIONS)


def _more(engine: Engine, events: Any, names: tuple[str, ...]) -> bool:
    return any(len(getattr(events, name)) > count_added(engine, name) for name in names)
