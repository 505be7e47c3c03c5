"""Awaited contestants: libraries for asyncio, on an event loop that each of them keeps; and the list of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, TypeVar

from sqlalchemy import URL

from benchmarks.contestant import ASYNCPG, OURS, Contestant
from benchmarks.table import Row

T = TypeVar("T")

AWAITED_HOUSE = {
    "driver": ("async_driver", "AsyncDriver"),
    "core": ("async_sqlalchemy", "AsyncCore"),
    OURS: ("async_microorm", "AsyncMicroORM"),
}
AWAITED_PEERS = {
    "async_session": ("async_sqlalchemy", "Session"),
    "piccolo": ("piccolo", "Piccolo"),
    "tortoise": ("tortoise", "Tortoise"),
}
AWAITED_BY_DATABASE = {
    "postgresql": {"driver": ("async_driver", "AsyncPsycopg"), ASYNCPG: ("async_asyncpg", "AsyncAsyncpg")}
}
"""Classes that stand in for others on one database, or take part there only."""


class AsyncContestant(Contestant):
    """A library whose calls are awaited: the methods in `a…`, which do what those without it do for a contestant.

    The others run them on the event loop, one for each call.
    """

    runner: asyncio.Runner

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run *coroutine* on the event loop that is kept, and return its result."""
        return self.runner.run(coroutine)

    def open(self, url: URL) -> None:
        self.runner = asyncio.Runner()
        self.run(self.aopen(url))

    def close(self) -> None:
        self.run(self.aclose())
        self.runner.close()

    def plain(self, sql: str, rows: Sequence[Row]) -> list[Row]:
        return self.run(self.aplain(sql, rows))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        async def enter() -> AbstractAsyncContextManager[Any]:
            block = self.atransaction()  # here, since some look for the loop, or for what its context has
            await block.__aenter__()
            return block

        block = self.run(enter())
        yield

        async def leave() -> None:
            await block.__aexit__(None, None, None)

        self.run(leave())

    def insert(self, records: Sequence[Any]) -> list[int]:
        return self.run(self.ainsert(records))

    def insert_alone(self, records: Sequence[Any]) -> list[int]:
        return self.run(self.ainsert_alone(records))

    def bulk(self, records: Sequence[Any]) -> None:
        self.run(self.abulk(records))

    def get(self, keys: Sequence[int]) -> list[Any]:
        return self.run(self.aget(keys))

    def load(self) -> Sequence[Any]:
        return self.run(self.aload())

    def by_level(self, levels: Sequence[int]) -> Sequence[Sequence[Any]]:
        return self.run(self.aby_level(levels))

    def change(self, keys: Sequence[int]) -> None:
        self.run(self.achange(keys))

    def delete(self, instances: Sequence[Any]) -> None:
        self.run(self.adelete(instances))

    async def aopen(self, url: URL) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError

    async def aplain(self, sql: str, rows: Sequence[Row]) -> list[Row]:
        raise NotImplementedError

    def atransaction(self) -> AbstractAsyncContextManager[Any]:
        raise NotImplementedError

    async def ainsert(self, records: Sequence[Any]) -> list[int]:
        raise NotImplementedError

    async def ainsert_alone(self, records: Sequence[Any]) -> list[int]:
        return await self.ainsert(records)

    async def abulk(self, records: Sequence[Any]) -> None:
        raise NotImplementedError

    async def aget(self, keys: Sequence[int]) -> list[Any]:
        raise NotImplementedError

    async def aserve(self, keys: Sequence[int]) -> list[Any]:
        """Load one row for each key, as one of many tasks that do so at once."""
        return await self.aget(keys)

    async def aload(self) -> Sequence[Any]:
        raise NotImplementedError

    async def aby_level(self, levels: Sequence[int]) -> Sequence[Sequence[Any]]:
        raise NotImplementedError

    async def achange(self, keys: Sequence[int]) -> None:
        raise NotImplementedError

    async def adelete(self, instances: Sequence[Any]) -> None:
        raise NotImplementedError

    def listen_async(self) -> Callable[[], int]:
        """Connect one receiver that is a coroutine function; return as `listen` does."""
        raise NotImplementedError
