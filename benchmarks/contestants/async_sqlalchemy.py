"""SQLAlchemy on asyncio: Core's `AsyncConnection`, at its quickest, and the ORM's `AsyncSession`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import URL, event, insert, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from benchmarks.awaited import AsyncContestant
from benchmarks.contestant import counting
from benchmarks.contestants.core import ALL, BY_KEY, BY_LEVEL, DELETE, INSERT, NO_SIGNALS, UPDATE
from benchmarks.contestants.sqlalchemy_orm import Item
from benchmarks.table import Row


def on_asyncio(url: URL) -> URL:
    """Return *url* with the driver for asyncio; psycopg is one for both."""
    return url.set(drivername="sqlite+aiosqlite") if url.get_backend_name() == "sqlite" else url


async def run_plainly(connection: Any, sql: str, rows: Sequence[Row]) -> list[Row]:
    """Run SQL on an `AsyncConnection`; return its rows."""
    result = await connection.exec_driver_sql(sql, list(rows) or None)
    return [tuple(row) for row in result] if result.returns_rows else []


class AsyncCore(AsyncContestant):
    """Statements built once, values bound, the compiled form from its cache, on one connection that is kept."""

    name = "core"
    packages = ("sqlalchemy",)
    lacks = dict.fromkeys(("insert_receiver", "insert_async_receiver"), NO_SIGNALS)

    async def aopen(self, url: URL) -> None:
        self.engine = create_async_engine(on_asyncio(url), isolation_level="AUTOCOMMIT")
        self.begin = "BEGIN IMMEDIATE" if url.get_backend_name() == "sqlite" else "BEGIN"
        self.connection = await self.engine.connect()

    async def aclose(self) -> None:
        await self.connection.close()
        await self.engine.dispose()

    async def aplain(self, sql: str, rows: Sequence[Row]) -> list[Row]:
        return await run_plainly(self.connection, sql, rows)

    @asynccontextmanager
    async def atransaction(self) -> AsyncIterator[None]:
        await self.connection.exec_driver_sql(self.begin)
        yield
        await self.connection.exec_driver_sql("COMMIT")

    async def ainsert(self, records: Sequence[Any]) -> list[int]:
        execute: Any = self.connection.execute
        return [(await execute(INSERT, record)).inserted_primary_key[0] for record in records]

    async def abulk(self, records: Sequence[Any]) -> None:
        await self.connection.execute(INSERT, records)

    async def aget(self, keys: Sequence[int]) -> list[Any]:
        execute = self.connection.execute
        return [(await execute(BY_KEY, {"key": key})).one() for key in keys]

    async def aserve(self, keys: Sequence[int]) -> list[Any]:
        found = []
        for key in keys:
            async with self.engine.connect() as connection:
                found.append((await connection.execute(BY_KEY, {"key": key})).one())
        return found

    async def aload(self) -> Sequence[Any]:
        return (await self.connection.execute(ALL)).all()

    async def aby_level(self, levels: Sequence[int]) -> list[Sequence[Any]]:
        execute = self.connection.execute
        return [(await execute(BY_LEVEL, {"level": level})).all() for level in levels]

    async def achange(self, keys: Sequence[int]) -> None:
        execute = self.connection.execute
        for key in keys:
            row = (await execute(BY_KEY, {"key": key})).one()
            await execute(UPDATE, {"key": key, "amount": row.amount + 1})

    async def adelete(self, instances: Sequence[Any]) -> None:
        execute = self.connection.execute
        for row in instances:
            await execute(DELETE, {"key": row.id})


class Session(AsyncContestant):
    """One session for each job, flushed or committed after each object; a session for each row of tasks at once."""

    name = "async_session"
    packages = ("sqlalchemy",)
    lacks = dict.fromkeys(("insert_async_receiver",), "its events call no coroutine functions")

    async def aopen(self, url: URL) -> None:
        self.engine = create_async_engine(on_asyncio(url))
        self.session = AsyncSession(self.engine, expire_on_commit=False)
        # As in the contestant without asyncio: what is only read needs no transaction.
        self.on_sqlite = url.get_backend_name() == "sqlite"
        self.reading = (
            self.engine if self.on_sqlite else create_async_engine(url, isolation_level="AUTOCOMMIT")
        )
        self.reader = self.outside = AsyncSession(self.reading, expire_on_commit=False)

    async def aclose(self) -> None:
        for session in (self.session, self.outside):
            await session.close()
        for engine in (self.engine, self.reading):
            await engine.dispose()

    async def aplain(self, sql: str, rows: Sequence[Row]) -> list[Row]:
        async with self.engine.begin() as connection:
            return await run_plainly(connection, sql, rows)

    @asynccontextmanager
    async def atransaction(self) -> AsyncIterator[None]:
        if self.on_sqlite:  # it would begin at the first write only
            await (await self.session.connection()).exec_driver_sql("BEGIN IMMEDIATE")
        self.reader = self.session
        try:
            yield
        finally:
            self.reader = self.outside
        await self.session.commit()
        await self.session.close()

    async def ainsert(self, records: Sequence[Any]) -> list[int]:
        session, keys = self.session, []
        for record in records:
            item = Item(**record)
            session.add(item)
            await session.flush()
            keys.append(item.id)
        return keys

    async def ainsert_alone(self, records: Sequence[Any]) -> list[int]:
        keys = []
        async with self.session as session:
            for record in records:
                item = Item(**record)
                session.add(item)
                await session.commit()
                keys.append(item.id)
        return keys

    async def abulk(self, records: Sequence[Any]) -> None:
        # No object is made; without NULLs rendered, each change between rows with and without a note is a statement.
        await self.session.execute(insert(Item), records, execution_options={"render_nulls": True})

    async def aget(self, keys: Sequence[int]) -> list[Any]:
        async with self.reader as session:
            return [await session.get_one(Item, key) for key in keys]

    async def aserve(self, keys: Sequence[int]) -> list[Any]:
        found = []
        for key in keys:
            async with AsyncSession(self.reading, expire_on_commit=False) as session:
                found.append(await session.get_one(Item, key))
        return found

    async def aload(self) -> list[Any]:
        async with self.reader as session:
            return list(await session.scalars(select(Item)))

    async def aby_level(self, levels: Sequence[int]) -> list[list[Any]]:
        async with self.reader as session:
            return [list(await session.scalars(select(Item).filter_by(level=level))) for level in levels]

    async def achange(self, keys: Sequence[int]) -> None:
        session = self.session
        for key in keys:
            item = await session.get_one(Item, key)
            item.amount += 1
            await session.flush()

    async def adelete(self, instances: Sequence[Any]) -> None:
        session = self.session
        for item in instances:
            await session.delete(item)
            await session.flush()

    def listen(self) -> Callable[[], int]:
        receiver, calls = counting()
        event.listen(Item, "after_insert", receiver)

        def stop() -> int:
            event.remove(Item, "after_insert", receiver)
            return calls()

        return stop
