"""When an awaited error has been handled, nothing is left of it for the collector, which runs in the thread of the event loop.

On SQLite, to free a cursor waits for the statement that runs on its connection, which another task may have by then.
"""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import AsyncExitStack
from traceback import walk_tb
from typing import Any

import aiosqlite
import pytest
from sqlalchemy.exc import IntegrityError

from microorm import Field, field
from microorm.db.aio.cursors import AiosqliteCursor
from tests.aio.test_cancellation import settled


@pytest.fixture
def Part(Base: Any) -> Any:
    class Part(Base):  # type: ignore[misc]
        name: Field[str] = field(max_length=20, unique=True)

    return Part


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Keep the collector from hiding what is left."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("blocks_around", range(3))
def test_an_awaited_error_that_was_handled_leaves_no_instance(
    databases: Any, Part: Any, uncollected: None, blocks_around: int
) -> None:
    async def attempt(method: str) -> weakref.ref[Any]:
        part = Part(name="a")
        try:
            async with AsyncExitStack() as blocks:
                for _ in range(blocks_around):
                    await blocks.enter_async_context(databases.atomic())
                if method == "asave":
                    await part.asave()
                else:
                    await Part.objects.abulk_create([part, Part(name="b")])
        except IntegrityError:
            return weakref.ref(part)
        pytest.fail("no error")

    async def main() -> None:
        await Part.__schema__.registry.acreate_all()
        await Part(name="a").asave()
        for method in ("asave", "abulk_create"):
            assert (await attempt(method))() is None
        assert await settled(databases) == 0

    asyncio.run(main())


@pytest.mark.backends("sqlite-file")
@pytest.mark.parametrize("method", ["acreate", "abulk_create"])
def test_an_awaited_error_refers_to_no_cursor_of_sqlite(databases: Any, Part: Any, method: str) -> None:
    async def main() -> None:
        await Part.__schema__.registry.acreate_all()
        await Part(name="a").asave()
        with pytest.raises(IntegrityError) as caught:
            if method == "acreate":
                await Part.objects.acreate(name="a")
            else:
                await Part.objects.abulk_create([Part(name="a"), Part(name="b")])
        errors = (caught.value, caught.value.__cause__)
        frames = [frame for error in errors if error is not None for frame, _ in walk_tb(error.__traceback__)]
        names = {frame.f_code.co_name for frame in frames}
        assert {"_write", "execute" if method == "acreate" else "executemany"} <= names
        held = [each for frame in frames for each in frame.f_locals.values()]
        cursors = [each for each in held if isinstance(each, AiosqliteCursor)]
        assert cursors or method == "abulk_create"  # which has the cursor in no variable
        assert [each for each in cursors if each._cursor is not None] == []
        assert [each for each in held if isinstance(each, (aiosqlite.Cursor, sqlite3.Cursor))] == []

    asyncio.run(main())
