"""Connections of event loops: how few calls a statement takes, and how tasks hand them to each other."""

import asyncio
import gc
import os
from collections import Counter
from collections.abc import Callable
from contextvars import copy_context
from pathlib import Path
from time import monotonic
from typing import Any

import aiosqlite
import pytest

from microorm import Databases, Field, Model, Registry, field
from microorm.db.aio.idle import LoopConnections
from microorm.db.pool import TRUSTED
from tests.aio.test_cancellation import settled

TASKS = 20


@pytest.fixture
def Part(Base: Any) -> Any:
    class Part(Base):  # type: ignore[misc]
        name: Field[str] = field(max_length=20)

    return Part


@pytest.mark.backends("sqlite-file")
def test_a_select_and_its_rows_take_one_call_of_the_thread_of_aiosqlite(
    databases: Any, Part: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: Counter[str] = Counter()

    def counting(kind: type, name: str) -> None:
        method: Callable[..., Any] = getattr(kind, name)

        def counted(*args: Any, **named: Any) -> Any:
            called[name] += 1
            return method(*args, **named)

        monkeypatch.setattr(kind, name, counted)

    async def main() -> None:
        await Part.__schema__.registry.acreate_all()
        key = (await Part(name="a").asave()).id
        counting(aiosqlite.Connection, "execute_fetchall")
        counting(aiosqlite.Connection, "cursor")
        for name in ("execute", "fetchall", "fetchone", "fetchmany"):
            counting(aiosqlite.Cursor, name)
        for _ in range(10):
            assert (await Part.objects.aget(id=key)).name == "a"
        assert called == {"execute_fetchall": 10}
        assert [part.name for part in await Part.objects.filter(id=key).aall()] == ["a"]
        assert not await Part.objects.filter(name="b").aexists()
        assert await Part.objects.acount() == 1

    asyncio.run(main())


def test_many_tasks_at_once_get_what_they_ask_for_and_leave_nothing(databases: Any, Part: Any) -> None:
    async def work(start: int) -> list[str]:
        return [(await Part.objects.aget(id=key)).name for key in range(1 + start, 101, TASKS)]

    async def main() -> None:
        await Part.__schema__.registry.acreate_all()
        await Part.objects.abulk_create([Part(name=f"part {number}") for number in range(1, 101)])
        found = await asyncio.gather(*(work(start) for start in range(TASKS)))
        assert found == [
            [f"part {number}" for number in range(1 + start, 101, TASKS)] for start in range(TASKS)
        ]
        assert await settled(databases) == 0

    asyncio.run(main())


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_a_task_waits_for_the_only_connection_and_gets_it(url: str) -> None:
    databases = Databases({"default": {"url": url, "pool_size": 1, "max_overflow": 0}})

    class Part(Model, registry=Registry(databases)):
        name: Field[str] = field(max_length=20)

    async def main() -> None:
        await Part.__schema__.registry.acreate_all()
        async with databases.atomic():
            waiting = [asyncio.create_task(Part.objects.acount(), context=outside) for _ in range(3)]
            await asyncio.sleep(0.03)  # so that one of them waits for the pool by now, if it is quick
            waiting[1].cancel()
            await Part(name="a").asave()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [found[0], found[2]] == [1, 1]
        assert isinstance(found[1], asyncio.CancelledError)
        assert await Part.objects.acount() == 1
        await databases.aclose()

    outside = copy_context()
    asyncio.run(main())
    databases.close()


def test_a_task_that_is_cancelled_as_it_is_handed_a_connection_leaves_it_for_the_next() -> None:
    """The connection is an object that is only passed on."""
    connection: Any = object()

    async def main() -> None:
        idle = LoopConnections(0)
        idle._max_idle = 1
        first, second = (asyncio.create_task(idle._handed()) for _ in range(2))
        await asyncio.sleep(0)
        assert idle.keep(connection, None, monotonic() + TRUSTED)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await second == (connection, None, pytest.approx(monotonic() + TRUSTED, abs=60))
        assert idle._idle == []

    asyncio.run(main())


def test_a_task_that_is_handed_no_connection_goes_to_the_pool() -> None:
    async def main() -> None:
        assert await LoopConnections(0)._handed() is None

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="the system does not list open files")
def test_loops_that_are_closed_as_they_are_leave_no_open_files(databases: Any, Part: Any) -> None:
    """Their connections cannot be awaited any more; they are dropped when the next loop begins."""

    async def work() -> None:
        await asyncio.gather(*(Part.objects.acount() for _ in range(3)))

    def open_files() -> int:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(work())
        loop.close()
        del loop
        gc.collect()
        return len(os.listdir("/dev/fd"))

    Part.__schema__.registry.create_all()
    open_files()
    assert open_files() == open_files() == open_files()
    databases.close()  # drops those of the last loop, whose warnings belong to this test
    gc.collect()
