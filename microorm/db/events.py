"""Listeners for the events of an engine, which can be removed while other threads use the engine.

SQLAlchemy's own cannot: a thread that goes through the list of listeners fails when it changes. So one function for each
event is added to SQLAlchemy's list and stays there; it calls the listeners of that moment.

If the program listens to an engine, its statements run through SQLAlchemy's `Connection`: `EngineListeners` tells.

`Observers` see every statement. Those on SQLAlchemy's `Connection` are reported by an event of the engine. A
transaction that was open before reports the statements on its driver's cursor by a `WatchedCursor`.
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


Observer = Callable[[str], object]


class Observers:
    """The functions to call with each statement to one database."""

    __slots__ = ("_engine", "told")

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self.told: list[Observer] = []

    def add(self, engine: Engine, observer: Observer) -> None:
        """Call *observer* with the text of each statement that is sent through *engine* from now on."""
        if self._engine is not engine:
            add_listener(engine, "before_cursor_execute", self._before_cursor_execute)
            self._engine = engine
        self.told.append(observer)

    def remove(self, observer: Observer) -> None:
        """Stop calling *observer*."""
        self.told.remove(observer)

    def close(self) -> None:
        """Stop listening to the engine."""
        engine, self._engine = self._engine, None
        if engine is not None:
            remove_listener(engine, "before_cursor_execute", self._before_cursor_execute)

    def tell(self, statement: str) -> None:
        """Call all observers with *statement*, which is about to be sent."""
        for observer in tuple(self.told):
            observer(statement)

    def watched(self, cursor: Any) -> Any:
        """Return the driver's *cursor*, wrapped so that its statements are observed; None stays None."""
        return cursor if cursor is None or cursor.__class__ is WatchedCursor else WatchedCursor(cursor, self)

    def _before_cursor_execute(self, connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        self.tell(statement)


class WatchedCursor:
    """A driver's cursor whose statements are observed."""

    __slots__ = ("_cursor", "_observers")

    def __init__(self, cursor: Any, observers: Observers) -> None:
        self._cursor = cursor
        self._observers = observers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def execute(self, statement: str, *parameters: Any) -> Any:
        """Report *statement* to the observers, and send it."""
        self._observers.tell(statement)
        return self._cursor.execute(statement, *parameters)

    def executemany(self, statement: str, parameters: Any) -> Any:
        """Report *statement* to the observers once, and send it for each of *parameters*."""
        self._observers.tell(statement)
        return self._cursor.executemany(statement, parameters)
