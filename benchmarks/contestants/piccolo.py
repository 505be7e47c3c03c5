"""Piccolo: its queries awaited on one event loop that is kept between them, with its pool where it has one."""

# mypy: ignore-errors
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from piccolo.columns import BigInt, DoublePrecision, Serial, Varchar
from piccolo.engine.postgres import PostgresEngine
from piccolo.engine.sqlite import SQLiteEngine, TransactionType
from piccolo.table import Table
from sqlalchemy import URL

from benchmarks.awaited import AsyncContestant
from benchmarks.contestant import SENDS, counting
from benchmarks.databases import server_of, set_by

NO_SIGNALS = "it has no signals"
BATCH = 100


class Piccolo(AsyncContestant):
    name = "piccolo"
    packages = ("piccolo", "aiosqlite", "asyncpg")
    lacks = dict.fromkeys(("insert_heard", "insert_receiver", "insert_async_receiver", *SENDS), NO_SIGNALS)
    lacks_in_memory = "it opens a connection for each statement outside a transaction"

    async def aopen(self, url: URL) -> None:
        if url.get_backend_name() == "sqlite":
            self.engine = SQLiteEngine(path=url.database or ":memory:")
            self.begun = {"transaction_type": TransactionType.immediate}
        else:
            self.engine = PostgresEngine(config=_config(url))
            self.begun = {}
            await self.engine.start_connection_pool()
        self.item = _table(self.engine)

    async def aclose(self) -> None:
        if isinstance(self.engine, PostgresEngine):
            await self.engine.close_connection_pool()

    def atransaction(self) -> Any:
        return self.engine.transaction(**self.begun)

    async def ainsert(self, records: Sequence[Any]) -> list[int]:
        keys = []
        for record in records:
            item = self.item(**record)
            await item.save()
            keys.append(item.id)
        return keys

    def insert_alone_heard(self, records: Sequence[Any]) -> list[int]:
        async def work() -> list[int]:
            keys = []
            for record in records:
                async with self.engine.transaction(**self.begun):
                    item = self.item(**record)
                    await item.save()
                    self.heard(instance=item, created=True)
                keys.append(item.id)
            return keys

        return self.run(work())

    def insert_alone_on_commit(self, records: Sequence[Any]) -> list[int]:
        async def work() -> list[int]:
            keys = []
            for record in records:
                item = self.item(**record)
                await item.save()
                self.heard(instance=item, created=True)
                keys.append(item.id)
            return keys

        return self.run(work())

    async def abulk(self, records: Sequence[Any]) -> None:
        items = [self.item(**record) for record in records]
        # It makes one statement of all, and both databases limit the number of parameters.
        for start in range(0, len(items), BATCH):
            await self.item.insert(*items[start : start + BATCH])

    async def aget(self, keys: Sequence[int]) -> list[Any]:
        item = self.item
        return [await item.objects().get(item.id == key) for key in keys]

    async def aload(self) -> list[Any]:
        return await self.item.objects()

    async def aby_level(self, levels: Sequence[int]) -> list[list[Any]]:
        item = self.item
        return [await item.objects().where(item.level == level) for level in levels]

    async def achange(self, keys: Sequence[int]) -> None:
        for key in keys:
            item = await self.item.objects().get(self.item.id == key)
            item.amount += 1
            await item.save()

    async def adelete(self, instances: Sequence[Any]) -> None:
        for item in instances:
            await item.remove()

    def listen(self) -> Callable[[], int]:
        # It has no signals: an application calls its function after the statement.
        self.heard, calls = counting()
        return calls


def _config(url: URL) -> dict[str, Any]:
    return {**server_of(url), "database": url.database, "server_settings": set_by(url)}


def _table(engine: Any) -> type[Table]:
    class Item(Table, db=engine, tablename="item"):
        id = Serial(primary_key=True)
        name = Varchar(length=100)
        amount = BigInt()
        score = DoublePrecision()
        note = Varchar(length=200, null=True, default=None)
        level = BigInt(index=True)

    return Item
