"""Drivers whose calls fail on demand: connections and cursors of the real drivers, which raise before or after a call."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import psycopg
import pymysql
import pymysql.cursors
from sqlalchemy import Engine, event

ERRORS = ("error", "lost", KeyboardInterrupt, SystemExit, MemoryError)


class Faults:
    """Counts the calls of the driver; the call number *at* fails, *after* it was made or before.

    *error*: a class, or "error" for the driver's OperationalError, or "lost" for a connection that is lost.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.at = self.depth = 0
        self.after = False
        self.error: Any = None
        self.counting = False

    def arm(self, at: int, error: Any = None, *, after: bool = False) -> None:
        """Count from now on, and let the call number *at* fail; 0 for none."""
        self.calls.clear()
        self.at, self.error, self.after, self.counting = at, error, after, True

    def disarm(self) -> None:
        """Let no call fail from now on."""
        self.counting = False

    def call(self, name: str, owner: Any, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call *function* of the driver for the connection *owner*, or fail."""
        if not self.counting or self.depth:  # a call that the driver makes itself is a part of the other
            return function(*arguments, **named)
        self.calls.append(name)
        fails = len(self.calls) == self.at
        if fails and not self.after:
            raise self._failure(owner)
        self.depth += 1
        try:
            result = function(*arguments, **named)
        finally:
            self.depth -= 1
        if fails:
            raise self._failure(owner)
        return result

    def _failure(self, owner: Any) -> BaseException:
        if self.error not in ("error", "lost"):
            failure: BaseException = self.error("made to fail")
            return failure
        lost = self.error == "lost"
        if isinstance(owner, sqlite3.Connection):
            if lost:
                sqlite3.Connection.close(owner)
                return sqlite3.ProgrammingError("Cannot operate on a closed database.")
            return sqlite3.OperationalError("made to fail")
        if isinstance(owner, psycopg.Connection):
            if lost:
                owner.pgconn.finish()
            return psycopg.OperationalError("made to fail")
        if lost:
            owner._force_close()
        return pymysql.err.OperationalError(2013 if lost else 1105, "made to fail")


def failing(base: Any, names: tuple[str, ...], faults: Faults, owner: Callable[[Any], Any]) -> Any:
    """Return a subclass of *base* whose methods *names* are calls of *faults*."""

    def method(name: str) -> Any:
        real = getattr(base, name)

        def call(self: Any, *arguments: Any, **named: Any) -> Any:
            return faults.call(f"{base.__name__}.{name}", owner(self), real, self, *arguments, **named)

        return call

    return type(base.__name__, (base,), {name: method(name) for name in names})


CURSOR = ("execute", "executemany", "fetchone", "fetchmany", "fetchall", "close")


def install(engine: Engine, faults: Faults) -> None:
    """Let the new connections of *engine* be of drivers that fail."""
    kind = engine.dialect.name
    if kind == "sqlite":
        cursor = failing(sqlite3.Cursor, CURSOR, faults, lambda self: self.connection)
        base = failing(sqlite3.Connection, ("commit", "rollback", "close"), faults, lambda self: self)
        opened = faults.call

        class Connection(base):  # type: ignore[misc]
            def cursor(self, *arguments: Any) -> Any:
                return opened("Connection.cursor", self, sqlite3.Connection.cursor, self, cursor)

        def connect(dialect: Any, record: Any, arguments: Any, named: dict[str, Any]) -> Any:
            named["factory"] = Connection

    elif kind == "postgresql":
        names = ("commit", "rollback", "close", "cursor", "set_autocommit")
        made = failing(psycopg.Connection, names, faults, lambda self: self)
        made.autocommit = property(
            psycopg.Connection.autocommit.fget, lambda self, value: self.set_autocommit(value)
        )

        def connect(dialect: Any, record: Any, arguments: Any, named: dict[str, Any]) -> Any:
            connection = made.connect(*arguments, **named)
            for which in ("cursor_factory", "server_cursor_factory"):
                base = getattr(connection, which)
                setattr(connection, which, failing(base, CURSOR, faults, lambda self: self.connection))
            return connection

    else:
        cursor = failing(pymysql.cursors.Cursor, CURSOR, faults, lambda self: self.connection)
        names = ("commit", "rollback", "close", "cursor", "autocommit")
        made = failing(pymysql.connections.Connection, names, faults, lambda self: self)

        def connect(dialect: Any, record: Any, arguments: Any, named: dict[str, Any]) -> Any:
            return made(*arguments, **named, cursorclass=cursor)

    event.listen(engine, "do_connect", connect)
