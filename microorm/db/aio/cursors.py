"""Cursors: what statements run on in awaited calls, where the driver's own would take more calls than it needs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import PoolProxiedConnection

from microorm.db.aio import calls

_CLOSED = ("connection closed", "no active connection")


class AiosqliteCursor:
    """A cursor on a connection of aiosqlite, which runs a SELECT and reads its rows in one call of the driver's thread.

    The cursor of SQLAlchemy's adapter makes one call for the statement, one for the rows, and one before for itself. It is
    opened for the first statement that is not a SELECT.
    """

    __slots__ = ("_connection", "_cursor", "_rows")

    def __init__(self, connection: PoolProxiedConnection) -> None:
        self._connection = connection
        self._cursor: Any = None
        self._rows: list[Any] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened(), name)

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        """Run *sql*; read the rows of a SELECT."""
        if sql.startswith("SELECT"):
            self._rows = calls.wait(self._read(sql, parameters))
        else:
            self._rows = None
            self._run("execute", sql, parameters)
        return self

    def executemany(self, sql: str, rows: Sequence[Any]) -> None:
        """Run *sql* once for each of *rows*."""
        self._rows = None
        self._run("executemany", sql, rows)

    def fetchall(self) -> Sequence[Any]:
        """Return the rows of the last statement that were not returned before."""
        if self._rows is None:
            rows: Sequence[Any] = self._opened().fetchall()
            return rows
        rows, self._rows = self._rows, []
        return rows

    def fetchone(self) -> Any:
        """Return the next row of the last statement, or None."""
        if self._rows is None:
            return self._opened().fetchone()
        return self._rows.pop(0) if self._rows else None

    def close(self) -> None:
        """Forget the rows, and close the cursor of the adapter if it was opened."""
        self._rows = None
        if self._cursor is not None:
            self._cursor.close()

    def _run(self, method: str, sql: str, parameters: Any) -> None:
        try:
            getattr(self._opened(), method)(sql, parameters)
        except BaseException:
            # The traceback refers to this object. Freed after the connection has gone to another task, SQLite's cursor
            # would let the event loop wait until that one's statement is done.
            self._cursor = None
            raise

    def _opened(self) -> Any:
        if self._cursor is None:
            self._cursor = self._connection.cursor()
        return self._cursor

    async def _read(self, sql: str, parameters: Any) -> list[Any]:
        driver: Any = self._connection.driver_connection
        try:
            rows: Iterable[Any] = await driver.execute_fetchall(sql, parameters)
        except ValueError as error:
            if str(error).lower() in _CLOSED:  # as the adapter has it
                raise sqlite3.OperationalError(str(error)) from error
            raise
        return rows if isinstance(rows, list) else list(rows)


class AwaitedCursor:
    """A driver's cursor for asyncio, which is used synchronously in an awaited call."""

    __slots__ = ("_cursor",)

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def execute(self, sql: str, parameters: Any = ()) -> AwaitedCursor:
        """Run *sql*."""
        calls.wait(self._cursor.execute(sql, parameters))
        return self

    def fetchall(self) -> Sequence[Any]:
        """Return the rows that were not returned before."""
        rows: Sequence[Any] = calls.wait(self._cursor.fetchall())
        return rows
