"""A stream that is closed while its task is cancelled again and again, as frameworks on anyio do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from microorm import Databases, Field, Model, Registry, field
from microorm.signals import connection_created
from tests.aio.test_cancellation import settled
from tests.pools import aunreturned


@pytest.mark.backends(
    "sqlite-file", "postgresql"
)  # on MariaDB a stream that is not read to its end costs its connection
def test_a_stream_closed_by_a_cancelled_task_keeps_its_connection(databases: Databases) -> None:
    """It is back in the pool, and no other has to be opened."""

    class Visit(Model, registry=Registry(databases)):
        page: Field[str]

    Visit.__schema__.registry.create_all()
    Visit.objects.bulk_create([Visit(page=str(number)) for number in range(10)])
    opened = 0

    def count(**named: Any) -> None:
        nonlocal opened
        opened += 1

    async def read(begun: asyncio.Event) -> None:
        stream = Visit.objects.iterate(chunk=2)
        try:
            async for _ in stream:
                begun.set()
                await asyncio.Event().wait()
        finally:
            await stream.aclose()

    async def main() -> None:
        for _ in range(3):
            begun = asyncio.Event()
            task = asyncio.create_task(read(begun))
            await begun.wait()
            while not task.done():
                task.cancel()
                await asyncio.sleep(0)
            with suppress(asyncio.CancelledError):
                await task
            while await aunreturned(databases):
                await asyncio.sleep(0)
        assert len(await Visit.objects.aall()) == 10
        await databases.aclose()

    connection_created.connect(count)
    try:
        asyncio.run(main())
    finally:
        connection_created.disconnect(count)
    assert opened == 1


def test_a_generator_that_is_left_in_a_block_around_a_stream_gives_up_its_connection_silently(
    databases: Any, Base: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It cannot await a rollback any more, so the connection is dropped."""

    class Item(Base):  # type: ignore[misc]
        name: Field[str] = field(max_length=20)

    async def items() -> AsyncIterator[Any]:
        async with databases.atomic():
            async for item in Item.objects.iterate(2):
                yield item

    async def main() -> None:
        await Item.__schema__.registry.acreate_all()
        await Item.objects.abulk_create([Item(name=f"{number}") for number in range(9)])
        async for _ in items():
            break
        assert await settled(databases) == 0
        assert await Item.objects.acount() == 9

    asyncio.run(main())
    assert [each.getMessage() for each in caplog.records if each.name.startswith("sqlalchemy")] == []
