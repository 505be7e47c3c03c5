"""microorm awaited: the model of the other contestant, by its methods for coroutines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import URL

from benchmarks.awaited import AsyncContestant
from benchmarks.contestant import counting
from benchmarks.contestants.microorm import MicroORM
from microorm.signals import post_save


class AsyncMicroORM(AsyncContestant, MicroORM):  # type: ignore[misc] # it returns lists where sequences will do
    plain = MicroORM.plain  # the database in memory is one for both

    async def aopen(self, url: URL) -> None:
        MicroORM.open(self, url)

    async def aclose(self) -> None:
        await self.databases.aclose()

    @asynccontextmanager
    async def atransaction(self) -> AsyncIterator[None]:
        async with self.databases.atomic():
            yield

    async def ainsert(self, records: Sequence[Any]) -> list[int]:
        item = self.model
        return [(await item(**record).asave()).id for record in records]

    async def abulk(self, records: Sequence[Any]) -> None:
        item = self.model
        await item.objects.abulk_create([item(**record) for record in records])

    async def aget(self, keys: Sequence[int]) -> list[Any]:
        objects = self.model.objects
        return [await objects.aget(id=key) for key in keys]

    async def aload(self) -> list[Any]:
        loaded: list[Any] = await self.model.objects.aall()
        return loaded

    async def aby_level(self, levels: Sequence[int]) -> list[list[Any]]:
        objects = self.model.objects
        return [await objects.filter(level=level).aall() for level in levels]

    async def achange(self, keys: Sequence[int]) -> None:
        objects = self.model.objects
        for key in keys:
            item = await objects.aget(id=key)
            item.amount += 1
            await item.asave()

    async def adelete(self, instances: Sequence[Any]) -> None:
        for item in instances:
            await item.adelete()

    def listen_async(self) -> Callable[[], int]:
        receiver, calls = counting()

        async def heard(sender: Any, **kwargs: Any) -> None:
            receiver(sender, **kwargs)

        post_save.connect(heard, sender=self.model)

        def stop() -> int:
            post_save.disconnect(heard, sender=self.model)
            return calls()

        return stop
