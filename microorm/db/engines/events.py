"""Listeners for the events of an engine, which can be removed while other threads use the engine.

SQLAlchemy's own cannot: a thread that goes through the list of listeners fails when it changes. So one function for each
event is added to SQLAlchemy's list and stays there; it calls the listeners of that moment.

If the program listens to an engine, its statements run through SQLAlchemy's `Connection`: `EngineListeners` tells.

Each statement is a step for the watchers of `microorm.instrumentation`: on the driver's cursor by `watched_call`, and on
SQLAlchemy's `Connection` by events of the engine, which is listened to from the first watcher on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from operator import attrgetter
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from sqlalchemy import Connection, Engine, event

from microorm.instrumentation import STATEMENT, Step, before_watching, innermost, watchers

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

            def call(*arguments: Any) -> Any:
                found = None
                for each in self._listeners[name]:
                    if (returned := each(*arguments)) is not None:
                        found = returned
                return found  # the connection, at "do_connect"

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

    __slots__ = ("_dialect", "_empty", "_engine", "_filled", "_lengths", "_present")

    def __init__(self) -> None:
        self._engine: tuple[Any, ...] = ()
        self._dialect: tuple[Any, ...] = ()
        self._empty: list[Any] = []
        self._filled: list[Any] = []
        self._lengths: list[int] = []
        self._present: Present = (False, False)

    def present(self, engine: Engine) -> Present:
        """Return whether there are listeners for statements of *engine*, and whether there are any."""
        of_engine, dialect = _engine_collections(engine.dispatch), engine.dialect
        of_dialect = _dialect_collections(dialect.dispatch)
        if (
            of_engine != self._engine
            or of_dialect != self._dialect
            or any(self._empty)
            or [*map(len, self._filled)] != self._lengths
        ):
            # The lists of the class, which all engines share, and of the engine; () never changes.
            pairs = [(each.parent_listeners, each.listeners) for each in of_engine + of_dialect]
            lists = [each for pair in pairs for each in pair if each.__class__ is not tuple]
            self._filled = [each for each in lists if each]
            self._empty = [each for each in lists if not each]
            self._lengths = [*map(len, self._filled)]
            self._present = count_present(engine)
            self._engine, self._dialect = of_engine, of_dialect
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


class _WatchedEngine:
    """Reports the statements of *database* on SQLAlchemy's `Connection` to the watchers, each as a step."""

    def __init__(self, database: Any) -> None:
        self.database = ref(database)  # which refers to the engine
        self.listening = False

    def listen(self, engine: Engine) -> None:
        """Listen to *engine*, once and for good: SQLAlchemy's lists must not change while other threads use the engine."""
        if not self.listening:
            self.listening = True
            for name, listener in self.listeners():
                add_listener(engine, name, listener)

    def listeners(self) -> list[tuple[str, Listener]]:
        """Return the listeners by event."""
        return [
            ("before_cursor_execute", self._before),
            ("after_cursor_execute", self._after),
            ("handle_error", self._failed),
        ]

    def _before(
        self, connection: Any, cursor: Any, sql: str, parameters: Any, context: Any, many: bool
    ) -> None:
        database: Any = self.database() if watchers else None
        if database is not None and database.announced():  # SQLAlchemy asks questions on the first connection
            # SQLAlchemy calls an INSERT of many rows `many`, too, whose values are those of one statement.
            _statement_step(database, sql, parameters, many=many and isinstance(parameters, list)).begin()

    def _after(self, connection: Any, cursor: Any, sql: str, *others: Any) -> None:
        if (step := self._step()) is not None:  # also if the last watcher has gone meanwhile
            _note_count(step, cursor, sql)
            step.end()

    def _failed(self, context: Any) -> None:
        if context.statement is not None and (step := self._step()) is not None:
            step.end(context.sqlalchemy_exception or context.original_exception)

    def _step(self) -> Step | None:
        """Return the statement that has begun, or None."""
        step = innermost()
        # That of another alias of the engine, if there are two: each ends one.
        return step if step is not None and step.kind is STATEMENT else None


_watched_engines: WeakKeyDictionary[Engine, list[_WatchedEngine]] = WeakKeyDictionary()
_lock = threading.RLock()  # the garbage collector may close a database meanwhile


def report_statements(engine: Engine, database: Any) -> None:
    """Report the statements on the connections of *engine* as those of *database*, as soon as there are watchers."""
    watched = _WatchedEngine(database)
    with _lock:
        _watched_engines.setdefault(engine, []).append(watched)
        if watchers:
            watched.listen(engine)


def stop_reporting(engine: Engine, database: Any) -> None:
    """Undo `report_statements`."""
    with _lock:
        reported = _watched_engines.get(engine, [])
        for watched in [each for each in reported if each.database() is database]:
            reported.remove(watched)
            if watched.listening:
                for name, listener in watched.listeners():
                    remove_listener(engine, name, listener)


def _listen_to_all() -> None:
    with _lock:
        for engine, reported in list(_watched_engines.items()):
            for watched in reported:
                watched.listen(engine)


before_watching.append(_listen_to_all)


def watched_call(
    database: Any, function: Callable[..., Any], cursor: Any, sql: str, parameters: Any, *, many: bool = False
) -> None:
    """Call *function*, the `execute` of the driver's *cursor*, or its `executemany` for *many* rows, as a step."""
    with _statement_step(database, sql, parameters, many=many) as step:
        function(sql, parameters)
        _note_count(step, cursor, sql)


def _statement_step(database: Any, sql: str, parameters: Any, *, many: bool) -> Step:
    step = Step(STATEMENT, (database, parameters), alias=database.alias, sql=sql)
    if many:
        step.details["many"] = len(parameters)
    return step


def _note_count(step: Step, cursor: Any, sql: str) -> None:
    """Note how many rows the statement of *step* has changed. Those of a SELECT are noted when they are read."""
    if not sql.startswith("SELECT") and (count := cursor.rowcount) >= 0:
        step.details["rows"] = count
