"""Cursors: what statements run on in awaited calls, where the driver's own would take more calls than it needs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import PoolProxiedConnection

from microorm.db.aio.greenlets import await_only
from microorm.db.context import awaited_call

_CLOSED = ("connection closed", "no active connection")


class AiosqliteCursor:
    """A cursor on a connection of aiosqlite, which makes one call of the driver's thread for a statement without RETURNING.

    That of SQLAlchemy's adapter makes one for a SELECT and one for its rows, and for all others goes through a lock, although
    each connection serves one task at a time.
    """

    __slots__ = ("_cursor", "_driver", "_rows")

    def __init__(self, connection: PoolProxiedConnection) -> None:
        self._driver: Any = connection.driver_connection
        self._cursor: Any = None  # the driver's, on which statements run that are no SELECT
        self._rows: list[Any] = []

    @property
    def lastrowid(self) -> int:
        """The key of the row that was inserted last."""
        return int(self._cursor.lastrowid)

    @property
    def rowcount(self) -> int:
        """How many rows the last statement that is no SELECT has changed."""
        return -1 if self._cursor is None else int(self._cursor.rowcount)

    def execute(self, sql: str, parameters: Any = ()) -> AiosqliteCursor:
        """Run *sql*; read its rows."""
        self._rows = await_only(
            self._read(sql, parameters) if sql.startswith("SELECT") else self._write(sql, parameters)
        )
        return self

    def executemany(self, sql: str, rows: Sequence[Any]) -> None:
        """Run *sql* once for each of *rows*."""
        self._rows = await_only(self._write(sql, rows, many=True))

    def fetchall(self) -> Sequence[Any]:
        """Return the rows of the last statement that were not returned before."""
        rows, self._rows = self._rows, []
        return rows

    def fetchone(self) -> Any:
        """Return the next row of the last statement, or None."""
        return self._rows.pop(0) if self._rows else None

    def close(self) -> None:
        """Forget the rows, and close the driver's cursor where that can be awaited."""
        self._rows = []
        cursor, self._cursor = self._cursor, None
        if cursor is not None and awaited_call() is not None:
            await_only(cursor.close())

    async def _read(self, sql: str, parameters: Any) -> list[Any]:
        try:
            return _listed(await self._driver.execute_fetchall(sql, parameters))
        except ValueError as error:
            raise _adapted(error)  # noqa: B904 it has its cause

    async def _write(self, sql: str, parameters: Any, *, many: bool = False) -> list[Any]:
        """Run *sql* on the driver's cursor, which is made by its first statement; return the rows of RETURNING."""
        cursor = self._cursor
        try:
            on = self._driver if cursor is None else cursor
            self._cursor = await (on.executemany if many else on.execute)(sql, parameters)
            return [] if self._cursor.description is None else _listed(await self._cursor.fetchall())
        except BaseException as error:
            # The traceback refers to this object. Freed after the connection has gone to another task, SQLite's cursor
            # would let the event loop wait until that one's statement is done.
            self._cursor = None
            if isinstance(error, ValueError):
                raise _adapted(error)  # noqa: B904 it has its cause
            raise


def _listed(rows: Iterable[Any]) -> list[Any]:
    return rows if isinstance(rows, list) else list(rows)


def _adapted(error: ValueError) -> Exception:
    """Return *error* as SQLAlchemy's adapter has it: a closed connection is an error of the database."""
    if str(error).lower() not in _CLOSED:
        return error
    adapted = sqlite3.OperationalError(str(error))
    adapted.__cause__ = error
    return adapted


class PsycopgCursor:
    """A cursor of psycopg for asyncio, which is used synchronously in an awaited call, and awaits once for each statement."""

    __slots__ = ("_cursor", "_rows")

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self._rows: list[Any] = []

    @property
    def rowcount(self) -> int:
        """How many rows the last statement has returned or changed."""
        return int(self._cursor.rowcount)

    def execute(self, sql: str, parameters: Any = ()) -> PsycopgCursor:
        """Run *sql*; take its rows, which the driver has already."""
        self._rows = await_only(self._run(sql, parameters))
        return self

    def executemany(self, sql: str, rows: Sequence[Any]) -> None:
        """Run *sql* once for each of *rows*."""
        self._rows = []
        await_only(self._cursor.executemany(sql, rows))

    def fetchall(self) -> Sequence[Any]:
        """Return the rows of the last statement that were not returned before."""
        rows, self._rows = self._rows, []
        return rows

    def close(self) -> None:
        """Forget the rows; the driver waits for nothing to close a cursor."""
        self._rows = []
        with suppress(StopIteration):
            self._cursor.close().send(None)

    async def _run(self, sql: str, parameters: Any) -> list[Any]:
        cursor = self._cursor
        await cursor.execute(sql, parameters)
        result = cursor.pgresult
        if result is None or not result.ntuples:
            return []
        rows: list[Any] = await cursor.fetchall()
        return rows
