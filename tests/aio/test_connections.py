"""Connections of event loops: how few calls a statement takes, and how tasks hand them to each other."""

import asyncio
import gc
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import aiosqlite
import pytest
from sqlalchemy.exc import TimeoutError

from microorm import Databases, Field, Model, Registry, field
from microorm.db import routing
from microorm.db.aio import calls
from microorm.db.aio.idle import LoopConnections
from microorm.db.context import routed_aliases
from microorm.db.engines import pool
from microorm.db.engines.pool import TRUSTED
from tests.aio.test_cancellation import settled

TASKS = 20


@pytest.fixture
def Part(Base: Any) -> Any:
    class Part(Base):  # type: ignore[misc]
        name: Field[str] = field(max_length=20)

    return Part


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each method was called of aiosqlite's connections and cursors by which the thread is asked for something."""
    called: Counter[str] = Counter()

    def counting(kind: type, name: str) -> None:
        method: Callable[..., Any] = getattr(kind, name)

        def counted(*args: Any, **named: Any) -> Any:
            called[name] += 1
            return method(*args, **named)

        monkeypatch.setattr(kind, name, counted)

    for name in ("cursor", "execute", "executemany", "execute_fetchall"):
        counting(aiosqlite.Connection, name)
    for name in ("execute", "executemany", "fetchall", "fetchone", "fetchmany", "close"):
        counting(aiosqlite.Cursor, name)
    return called


@pytest.mark.backends("sqlite-file")
def test_a_select_and_its_rows_take_one_call_of_the_thread_of_aiosqlite(
    databases: Any, Part: Any, called: Counter[str]
) -> None:
    async def main() -> None:
        await Part.__schema__.registry.acreate_all()
        key = (await Part(name="a").asave()).id
        called.clear()
        for _ in range(10):
            assert (await Part.objects.aget(id=key)).name == "a"
        assert called == {"execute_fetchall": 10}
        assert [part.name for part in await Part.objects.filter(id=key).aall()] == ["a"]
        assert not await Part.objects.filter(name="b").aexists()
        assert await Part.objects.acount() == 1

    asyncio.run(main())


@pytest.mark.backends("sqlite-file")
def test_a_statement_that_writes_takes_one_call_of_the_thread_of_aiosqlite(
    databases: Any, Part: Any, called: Counter[str]
) -> None:
    async def main() -> None:
        await Part.__schema__.registry.acreate_all()
        async with databases.atomic():
            called.clear()
            for number in range(1, 11):
                part = await Part(name="a").asave()
                assert part.id == number
                part.name = "b"
                await part.asave()
                if number < 10:
                    assert await part.adelete() == (1, {Part.__schema__.label: 1})
            assert called == {"execute": 29}
        assert [part.name for part in await Part.objects.aall()] == ["b"]

    asyncio.run(main())


@pytest.mark.backends("postgresql", "mariadb")
def test_an_idle_connection_of_an_event_loop_does_not_hold_on_to_many_rows(
    databases: Any, Part: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MAX_ROWS", 2)

    async def main() -> None:
        await Part.__schema__.registry.acreate_all()
        await Part.objects.abulk_create([Part(name=f"{number}") for number in range(3)])
        for _ in range(2):
            assert len(await Part.objects.aall()) == 3
        database = databases.database("default").asynchronous
        connection, cursor, deadline = database.idle_connections.take()
        assert cursor is None
        cursor = await calls.run(database.cursor, connection)
        assert database.idle_connections.keep(connection, cursor, deadline)
        assert len(await Part.objects.aall()) == 3

    asyncio.run(main())


def test_a_block_of_a_coroutine_needs_no_look_at_the_scopes_around_it(
    databases: Any, Part: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only routers, `using()` and running receivers do, and synchronous code that is awaited and opens a block itself."""
    looked: list[object] = []

    def look(owner: object) -> tuple[str | None, str | None]:
        looked.append(owner)
        return routed_aliases(owner)

    async def main() -> None:
        await Part.__schema__.registry.acreate_all()
        monkeypatch.setattr(routing, "routed_aliases", look)
        async with databases.atomic():
            await Part(name="a").asave()
            async with databases.atomic():
                await (await Part(name="b").asave()).adelete()
            with databases.using("default"):
                assert looked == []
                assert await Part.objects.acount() == 1
            assert looked != []

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


@pytest.fixture
def Few(fresh_url: Callable[[], str]) -> Iterator[Any]:
    """A model in a database with two connections at most, for which nothing waits for longer than is given here."""
    opened: list[Databases] = []

    def make(patience: float) -> Any:
        options = {"url": fresh_url(), "pool_size": 2, "max_overflow": 0, "pool_timeout": patience}
        opened.append(Databases({"default": options}))

        class Few(Model, registry=Registry(opened[0])):
            name: Field[str] = field(max_length=20)

        return Few

    yield make
    opened[0].close()


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
@pytest.mark.parametrize("trusted", [TRUSTED, 0.01])
def test_tasks_get_few_connections_in_turn(Few: Any, monkeypatch: pytest.MonkeyPatch, trusted: float) -> None:
    """Also where connections go back to the pool all the time."""
    monkeypatch.setattr(pool, "TRUSTED", trusted)
    monkeypatch.setattr("microorm.db.aio.idle.TRUSTED", trusted)
    model, rounds = Few(60), Counter(range(TASKS))
    ahead = 0

    async def work(number: int) -> None:
        nonlocal ahead
        for _ in range(20):
            await model.objects.acount()
            rounds[number] += 1
            ahead = max(ahead, max(rounds.values()) - min(rounds.values()))

    async def main() -> None:
        await model.__schema__.registry.acreate_all()
        await asyncio.gather(*map(work, range(TASKS)))
        await model.__schema__.registry.databases.aclose()

    asyncio.run(main())
    assert ahead <= 10, (
        "each waits for all others once; in the pool, which some are sent to, others may be quicker at times"
    )


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_a_task_that_waits_for_too_long_gets_the_error_of_the_pool(Few: Any) -> None:
    model = Few(0.1)

    async def main() -> None:
        await model.__schema__.registry.acreate_all()
        databases = model.__schema__.registry.databases

        async def hold() -> None:
            async with databases.atomic(readonly=True):
                assert await model.objects.acount() == 0
                await free.wait()

        free = asyncio.Event()
        holding = [asyncio.create_task(hold()) for _ in range(2)]
        waiting = [asyncio.create_task(model.objects.acount()) for _ in range(3)]
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(error, TimeoutError)
            assert "QueuePool limit of size 2 overflow 0 reached, connection timed out" in str(error)
        free.set()
        await asyncio.gather(*holding)
        assert await model.objects.acount() == 0
        await databases.aclose()

    asyncio.run(main())


def test_a_task_that_is_handed_no_connection_goes_to_the_pool() -> None:
    async def main() -> None:
        assert await LoopConnections(-1)._handed() is None  # it may open as many as it likes

    asyncio.run(main())


def held() -> int:
    """How many sockets and connections of SQLite are open; SQLite may close the files of one later."""
    names = Path("/proc/self/fd").iterdir()
    sockets = sum(name.is_socket() for name in names)
    return sockets + sum(isinstance(each, sqlite3.Connection) for each in gc.get_objects())


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not list open files")
def test_loops_that_are_closed_as_they_are_leave_no_open_connections(databases: Any, Part: Any) -> None:
    """Their connections cannot be awaited any more; they are dropped when the next loop begins."""

    async def work() -> None:
        await asyncio.gather(*(Part.objects.acount() for _ in range(3)))

    def leave() -> None:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(work())
        loop.close()

    Part.__schema__.registry.create_all()
    asyncio.run(work())
    gc.collect()
    before = held()
    for _ in range(5):
        leave()
        gc.collect()
    asyncio.run(work())  # drops the connections of the last one, and closes its own
    gc.collect()
    end = monotonic() + 60
    while held() > before and monotonic() < end:  # aiosqlite closes each in its thread
        sleep(0.01)
        gc.collect()
    assert held() <= before
