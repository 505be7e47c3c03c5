"""Piccolo: its queries awaited on one event loop that is kept between them, with its pool where it has one."""

# mypy: ignore-errors
from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from piccolo.columns import BigInt, DoublePrecision, Serial, Varchar
from piccolo.engine.postgres import PostgresEngine
from piccolo.engine.sqlite import SQLiteEngine, TransactionType
from piccolo.table import Table
from sqlalchemy import URL

from benchmarks.contestant import SENDS, Contestant, counting
from benchmarks.databases import server_of, set_by

NO_SIGNALS = "it has no signals"
BATCH = 100


class Piccolo(Contestant):
    name = "piccolo"
    packages = ("piccolo", "aiosqlite", "asyncpg")
    lacks = dict.fromkeys(("insert_heard", *SENDS), NO_SIGNALS)
    lacks_in_memory = "it opens a connection for each statement outside a transaction"

    def open(self, url: URL) -> None:
        self.runner = asyncio.Runner()
        if url.get_backend_name() == "sqlite":
            self.engine = SQLiteEngine(path=url.database or ":memory:")
            self.begun = {"transaction_type": TransactionType.immediate}
        else:
            self.engine = PostgresEngine(config=_config(url))
            self.begun = {}
            self.runner.run(self.engine.start_connection_pool())
        self.item = _table(self.engine)

    def close(self) -> None:
        if isinstance(self.engine, PostgresEngine):
            self.runner.run(self.engine.close_connection_pool())
        self.runner.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        block = self.engine.transaction(**self.begun)
        self.runner.run(block.__aenter__())
        yield
        self.runner.run(block.__aexit__(None, None, None))

    def insert(self, records: Sequence[Any]) -> list[int]:
        async def work() -> list[int]:
            keys = []
            for record in records:
                item = self.item(**record)
                await item.save()
                keys.append(item.id)
            return keys

        return self.runner.run(work())

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

        return self.runner.run(work())

    def insert_alone_on_commit(self, records: Sequence[Any]) -> list[int]:
        async def work() -> list[int]:
            keys = []
            for record in records:
                item = self.item(**record)
                await item.save()
                self.heard(instance=item, created=True)
                keys.append(item.id)
            return keys

        return self.runner.run(work())

    def bulk(self, records: Sequence[Any]) -> None:
        async def work() -> None:
            items = [self.item(**record) for record in records]
            # It makes one statement of all, and both databases limit the number of parameters.
            for start in range(0, len(items), BATCH):
                await self.item.insert(*items[start : start + BATCH])

        self.runner.run(work())

    def get(self, keys: Sequence[int]) -> list[Any]:
        async def work() -> list[Any]:
            item = self.item
            return [await item.objects().get(item.id == key) for key in keys]

        return self.runner.run(work())

    def load(self) -> list[Any]:
        async def work() -> list[Any]:
            return await self.item.objects()

        return self.runner.run(work())

    def by_level(self, levels: Sequence[int]) -> list[list[Any]]:
        async def work() -> list[list[Any]]:
            item = self.item
            return [await item.objects().where(item.level == level) for level in levels]

        return self.runner.run(work())

    def change(self, keys: Sequence[int]) -> None:
        async def work() -> None:
            for key in keys:
                item = await self.item.objects().get(self.item.id == key)
                item.amount += 1
                await item.save()

        self.runner.run(work())

    def delete(self, instances: Sequence[Any]) -> None:
        async def work() -> None:
            for item in instances:
                await item.remove()

        self.runner.run(work())

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
