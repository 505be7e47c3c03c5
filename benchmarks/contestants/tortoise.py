"""Tortoise: the same jobs awaited on one event loop that is kept between them."""

# mypy: ignore-errors
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import URL
from tortoise import Tortoise as Setup
from tortoise import connections, fields
from tortoise.models import Model
from tortoise.signals import Signals
from tortoise.transactions import in_transaction

from benchmarks.awaited import AsyncContestant
from benchmarks.contestant import SENDS, counting
from benchmarks.databases import server_of, set_by
from benchmarks.table import Row

APP = {"models": [__name__], "default_connection": "default"}
NO_SENDER = "its signals live in its models only"


class Item(Model):
    id = fields.BigIntField(primary_key=True)
    name = fields.CharField(max_length=100)
    amount = fields.BigIntField()
    score = fields.FloatField()
    note = fields.CharField(max_length=200, null=True)
    level = fields.BigIntField(db_index=True)

    class Meta:
        table = "item"


class Tortoise(AsyncContestant):
    name = "tortoise"
    packages = ("tortoise-orm", "aiosqlite", "asyncpg")
    lacks = dict.fromkeys(SENDS, NO_SENDER) | {"insert_receiver": "its receivers are coroutine functions"}

    async def aopen(self, url: URL) -> None:
        config = {"connections": {"default": _connection(url)}, "apps": {"models": APP}}
        await Setup.init(config=config)

    async def aclose(self) -> None:
        await Setup.close_connections()

    async def aplain(self, sql: str, rows: Sequence[Row]) -> list[Row]:
        connection = connections.get("default")
        if rows:
            await connection.execute_many(sql, list(rows))
            return []
        return [tuple(row) for row in (await connection.execute_query(sql))[1]]

    def atransaction(self) -> Any:
        return in_transaction()

    async def ainsert(self, records: Sequence[Any]) -> list[int]:
        keys = []
        for record in records:
            item = Item(**record)
            await item.save()
            keys.append(item.id)
        return keys

    def insert_alone_heard(self, records: Sequence[Any]) -> list[int]:
        # Its save() calls receivers after the row is committed, unless a block is open.
        async def work() -> list[int]:
            keys = []
            for record in records:
                async with in_transaction():
                    item = Item(**record)
                    await item.save()
                keys.append(item.id)
            return keys

        return self.run(work())

    async def abulk(self, records: Sequence[Any]) -> None:
        await Item.bulk_create([Item(**record) for record in records])

    async def aget(self, keys: Sequence[int]) -> list[Any]:
        return [await Item.get(id=key) for key in keys]

    def get_pk(self, keys: Sequence[int]) -> list[Any]:
        async def work() -> list[Any]:
            return [await Item.get(pk=key) for key in keys]

        return self.run(work())

    async def aload(self) -> list[Any]:
        return await Item.all()

    async def aby_level(self, levels: Sequence[int]) -> list[list[Any]]:
        return [await Item.filter(level=level) for level in levels]

    async def achange(self, keys: Sequence[int]) -> None:
        for key in keys:
            item = await Item.get(id=key)
            item.amount += 1
            await item.save()

    async def adelete(self, instances: Sequence[Any]) -> None:
        for item in instances:
            await item.delete()

    def listen(self) -> Callable[[], int]:
        receiver, calls = counting()

        async def heard(sender: Any, instance: Any, created: Any, using_db: Any, update_fields: Any) -> None:
            receiver(sender=sender, instance=instance, created=created)

        Item.register_listener(Signals.post_save, heard)

        def stop() -> int:
            Item._listeners[Signals.post_save].clear()
            return calls()

        return stop

    listen_async = listen


def _connection(url: URL) -> Any:
    if url.get_backend_name() == "sqlite":
        return f"sqlite://{url.database or ':memory:'}"
    credentials = {"database": url.database, "server_settings": set_by(url), **server_of(url)}
    return {"engine": "tortoise.backends.asyncpg", "credentials": credentials}
