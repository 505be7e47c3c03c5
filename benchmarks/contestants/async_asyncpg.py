"""asyncpg and tuples: the driver by which Piccolo and Tortoise reach PostgreSQL, to tell it from what they add."""

# mypy: ignore-errors
from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from itertools import count
from typing import Any, ClassVar

import asyncpg
from sqlalchemy import URL

from benchmarks.contestant import ASYNCPG
from benchmarks.contestants.async_driver import SERVING, AsyncDriver, AsyncPsycopg
from benchmarks.contestants.postgresql import RETURNING
from benchmarks.databases import server_of, set_by
from benchmarks.table import POSTGRESQL, Row


def _numbered(sql: str) -> str:
    numbers = count(1)
    return re.sub(re.escape(POSTGRESQL.mark), lambda mark: f"${next(numbers)}", sql)


class AsyncAsyncpg(AsyncDriver):
    name = ASYNCPG
    packages: ClassVar[tuple[str, ...]] = ("asyncpg",)
    insert_one = _numbered(RETURNING)
    by_key = _numbered(AsyncPsycopg.by_key)
    by_one_level = _numbered(AsyncPsycopg.by_one_level)
    update_one = _numbered(AsyncPsycopg.update_one)
    delete_one = _numbered(AsyncPsycopg.delete_one)
    begin = AsyncPsycopg.begin

    async def aopen(self, url: URL) -> None:
        self.connections, self.serving = [], asyncio.Queue()
        connection = await self._connect(url)
        for _ in range(SERVING):
            self.serving.put_nowait(await self._connect(url))

        async def execute(sql: str, values: Row = ()) -> Any:
            return await connection.execute(sql, *values)

        self.execute = execute

    async def _connect(self, url: URL) -> Any:
        connection = await asyncpg.connect(
            database=url.database, server_settings=set_by(url), **server_of(url)
        )
        self.connections.append(connection)
        return connection

    async def aplain(self, sql: str, rows: Sequence[Row]) -> list[Row]:
        if rows:
            async with self.atransaction():
                await self.connections[0].executemany(_numbered(sql), rows)
            return []
        return [tuple(row) for row in await self.connections[0].fetch(sql)]

    async def _add(self, row: Row) -> Any:
        return await self.connections[0].fetchval(self.insert_one, *row)

    async def _fetch(self, connection: Any, sql: str, values: Row) -> Sequence[Row]:
        return await connection.fetch(sql, *values)

    async def abulk(self, rows: Sequence[Row]) -> None:
        await self.connections[0].executemany(_numbered(POSTGRESQL.insert), rows)
