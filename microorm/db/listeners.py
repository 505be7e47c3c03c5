"""Listeners: whether the program listens to an engine, so that its statements run through SQLAlchemy's `Connection`."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Engine

from microorm.db.events import count_added

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
            self._lists = [each for pair in lists for each in pair if each.__class__ is not tuple]  # () never changes
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
