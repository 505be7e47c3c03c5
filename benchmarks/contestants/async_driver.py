"""The plain drivers for asyncio: aiosqlite and psycopg, and tuples; the floor the others are measured against.

Connections are in autocommit; one is kept, and a few more for tasks that run at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import aiosqlite
import psycopg
from sqlalchemy import URL

from benchmarks.awaited import AsyncContestant
from benchmarks.contestant import counting
from benchmarks.contestants.driver import Driver
from benchmarks.contestants.postgresql import RETURNING, Psycopg
from benchmarks.databases import libpq
from benchmarks.table import POSTGRESQL, SELECT, SQLITE, Row

SERVING = 5
"""How many connections serve tasks that run at once; SQLAlchemy's pool keeps as many."""


class AsyncDriver(AsyncContestant):
    name = "driver"
    packages: ClassVar[tuple[str, ...]] = ("aiosqlite",)
    takes = "rows"
    insert_one = SQLITE.insert
    by_key = Driver.by_key
    by_one_level = Driver.by_one_level
    update_one = Driver.update_one
    delete_one = Driver.delete_one
    begin = "BEGIN IMMEDIATE"
    heard: Callable[..., Any] | None = None
    heard_async: Callable[..., Awaitable[Any]] | None = None
    connections: list[Any]
    execute: Callable[..., Awaitable[Any]]

    async def aopen(self, url: URL) -> None:
        self.connections = []
        one: Any = await self._connect(url)
        self.cursor = await one.cursor()
        self.execute = self.cursor.execute
        self.serving: asyncio.Queue[Any] = asyncio.Queue()
        for _ in range(SERVING if url.database else 0):
            self.serving.put_nowait(await self._connect(url))

    async def _connect(self, url: URL) -> Any:
        connection = await aiosqlite.connect(url.database or ":memory:", isolation_level=None)
        self.connections.append(connection)
        return connection

    async def aclose(self) -> None:
        for connection in self.connections:
            await connection.close()

    async def aplain(self, sql: str, rows: Sequence[Row]) -> list[Row]:
        if rows:
            async with self.atransaction():
                await self.cursor.executemany(sql, rows)
            return []
        await self.execute(sql)
        return [tuple(row) for row in await self.cursor.fetchall()] if self.cursor.description else []

    @asynccontextmanager
    async def atransaction(self) -> AsyncIterator[None]:
        await self.execute(self.begin)
        yield
        await self.execute("COMMIT")

    async def ainsert(self, rows: Sequence[Row]) -> list[Any]:
        add, receiver, async_receiver, keys = self._add, self.heard, self.heard_async, []
        for row in rows:
            keys.append(await add(row))
            if receiver is not None:
                receiver(instance=row, created=True)
            if async_receiver is not None:
                await async_receiver(instance=row, created=True)
        return keys

    async def _add(self, row: Row) -> Any:
        return (await self.execute(self.insert_one, row)).lastrowid

    async def _fetch(self, connection: Any, sql: str, values: Row) -> Sequence[Row]:
        # One call to the driver's thread; execute and fetchall would be two.
        rows: Sequence[Row] = await connection.execute_fetchall(sql, values)
        return rows

    async def abulk(self, rows: Sequence[Row]) -> None:
        await self.cursor.executemany(self.insert_one, rows)

    async def aget(self, keys: Sequence[int]) -> list[Any]:
        connection, fetch, sql = self.connections[0], self._fetch, self.by_key
        return [(await fetch(connection, sql, (key,)))[0] for key in keys]

    async def aserve(self, keys: Sequence[int]) -> list[Any]:
        serving, fetch, sql, found = self.serving, self._fetch, self.by_key, []
        for key in keys:
            connection = await serving.get()
            found.append((await fetch(connection, sql, (key,)))[0])
            serving.put_nowait(connection)
        return found

    async def aload(self) -> Sequence[Any]:
        return await self._fetch(self.connections[0], SELECT, ())

    async def aby_level(self, levels: Sequence[int]) -> list[Any]:
        connection, fetch, sql = self.connections[0], self._fetch, self.by_one_level
        return [await fetch(connection, sql, (level,)) for level in levels]

    async def achange(self, keys: Sequence[int]) -> None:
        connection, fetch, select = self.connections[0], self._fetch, self.by_key
        execute, update = self.execute, self.update_one
        for key in keys:
            row = (await fetch(connection, select, (key,)))[0]
            await execute(update, (row[2] + 1, key))

    async def adelete(self, instances: Sequence[Row]) -> None:
        execute, sql = self.execute, self.delete_one
        for row in instances:
            await execute(sql, (row[0],))

    def listen(self) -> Callable[[], int]:
        self.heard, calls = counting()

        def stop() -> int:
            self.heard = None
            return calls()

        return stop

    def listen_async(self) -> Callable[[], int]:
        receiver, calls = counting()

        async def heard(**kwargs: Any) -> None:
            receiver(**kwargs)

        self.heard_async = heard

        def stop() -> int:
            self.heard_async = None
            return calls()

        return stop

    def row(self, instance: Row) -> Row:
        return tuple(instance)


class AsyncPsycopg(AsyncDriver):
    packages = ("psycopg",)
    insert_one = RETURNING
    by_key = Psycopg.by_key
    by_one_level = Psycopg.by_one_level
    update_one = Psycopg.update_one
    delete_one = Psycopg.delete_one
    begin = "BEGIN"

    async def aopen(self, url: URL) -> None:
        self.connections, self.serving = [], asyncio.Queue()
        connection = await self._connect(url)
        self.cursor = connection.cursor()
        self.execute = self.cursor.execute
        self.connections[0] = self.cursor
        for _ in range(SERVING):
            self.serving.put_nowait((await self._connect(url)).cursor())

    async def _connect(self, url: URL) -> Any:
        connection = await psycopg.AsyncConnection.connect(**libpq(url), autocommit=True)
        self.connections.append(connection)
        return connection

    async def _add(self, row: Row) -> Any:
        await self.execute(RETURNING, row)
        return (await self.cursor.fetchone())[0]

    async def _fetch(self, connection: Any, sql: str, values: Row) -> Sequence[Row]:
        await connection.execute(sql, values)
        rows: Sequence[Row] = await connection.fetchall()
        return rows

    async def abulk(self, rows: Sequence[Row]) -> None:
        await self.cursor.executemany(POSTGRESQL.insert, rows)
