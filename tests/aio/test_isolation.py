"""Isolation: the open transaction belongs to a task, and no connection is shared, leaked or left half-open."""

import asyncio
import random
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest
import sqlalchemy as sa

from microorm import Databases, Field, TransactionError, TransactionSharedError, field
from tests.aio.test_cancellation import settled

VIEWS = {
    "postgresql": "SELECT count(*) AS id, '' AS owner, 0 AS number FROM pg_stat_activity"
    " WHERE application_name = current_schema() AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'",
    "mariadb": "SELECT count(*) AS id, '' AS owner, 0 AS number FROM information_schema.innodb_trx"
    " JOIN information_schema.processlist ON id = trx_mysql_thread_id WHERE db = database()",
}
"""The SQL by which a server counts the transactions that are open in this database, besides the one that asks."""


@pytest.fixture
def databases(url: str, other_url: str) -> Iterator[Databases]:
    """Two aliases, for whose connections and locks tasks wait as long as it takes, however slow the machine is."""
    patience: dict[str, Any] = {"pool_timeout": 60}
    if url.startswith("sqlite"):
        patience = {"connect_args": {"timeout": 60}}
    urls = {"default": url, "other": other_url}
    with Databases({alias: {"url": each, **patience} for alias, each in urls.items()}) as databases:
        yield databases


@pytest.fixture
def Entry(Base: Any) -> Any:
    class Entry(Base):  # type: ignore[misc]
        owner: Field[str] = field(max_length=20)
        number: Field[int]

    return Entry


class Crowd:
    """Tasks that write in nested blocks, of which some fail, some time out and some are cancelled from outside.

    *stored*: how many rows of each are committed. *kept*: how many its last block would commit.
    """

    def __init__(self, databases: Any, Entry: Any, seed: int) -> None:
        self.databases, self.Entry, self.random = databases, Entry, random.Random(seed)
        self.stored: dict[str, int] = {}
        self.kept: dict[str, int] = {}

    async def work(self, owner: str) -> None:
        """Write in three blocks. One whose time is over may have been committed a moment before, as a whole."""
        chance = random.Random(f"{owner} {self.random.random()}")
        for number in (0, 10, 20):
            self.stored.setdefault(owner, 0)
            self.kept[owner] = 0
            try:
                async with asyncio.timeout(chance.choice([0.02, 30, 30])), self.databases.atomic():
                    await self.write(owner, number, chance)
            except LookupError:
                continue
            except TimeoutError:
                found = await self.Entry.objects.filter(owner=owner).acount()
                assert found - self.stored[owner] in (0, self.kept[owner])
                self.stored[owner] = found
                continue
            self.stored[owner] += self.kept[owner]

    async def write(self, owner: str, number: int, chance: random.Random) -> None:
        """Write a row, and one in each of two savepoints, of which some fail."""
        await self.Entry(owner=owner, number=number).asave()
        kept = 1
        for step in (1, 2):
            try:
                async with self.databases.atomic():
                    await self.Entry(owner=owner, number=number + step).asave()
                    await asyncio.sleep(chance.random() / 500)
                    mine = await self.Entry.objects.filter(owner=owner).acount()
                    assert mine == self.stored[owner] + kept + 1  # and nothing of another task
                    if chance.random() < 0.3:
                        raise KeyError(owner)
                kept += 1
            except KeyError:
                continue
        if chance.random() < 0.2:
            raise LookupError(owner)
        self.kept[owner] = kept


async def open_transactions(databases: Any, Entry: Any) -> int:
    """Return how many transactions the server sees, once it has noticed which connections were dropped; 0 on SQLite."""
    view, found = VIEWS.get(databases.database("default").dialect), 0
    for _ in range(30 if view else 0):
        (row,) = await Entry.objects.araw(view)
        found = row.id
        if not found:
            break
        await asyncio.sleep(
            0.15
        )  # MariaDB's view is a copy, which is not made anew while it is read more often
    return int(found)


@pytest.mark.parametrize("tasks", [15, pytest.param(50, marks=pytest.mark.slow)])
def test_tasks_do_not_see_or_leave_anything_of_each_other(databases: Any, Entry: Any, tasks: int) -> None:
    """Nested blocks in many tasks at once, with errors, time-outs and cancellations at random moments."""
    crowd = Crowd(databases, Entry, seed=tasks)

    async def main() -> None:
        await Entry.__schema__.registry.acreate_all()
        running = {
            f"task {number}": asyncio.create_task(crowd.work(f"task {number}")) for number in range(tasks)
        }
        cancelled = set()
        for owner, task in running.items():
            await asyncio.sleep(crowd.random.random() / 100)
            if crowd.random.random() < 0.3 and task.cancel():
                cancelled.add(owner)
        await asyncio.wait(running.values())
        for owner, task in running.items():
            assert task.cancelled() or task.exception() is None, task.exception()
            found = await Entry.objects.filter(owner=owner).acount()
            committed = {0, crowd.kept.get(owner, 0)} if task.cancelled() else {0}
            assert found - crowd.stored.get(owner, 0) in committed
        assert await settled(databases) == 0
        assert await open_transactions(databases, Entry) == 0
        async with databases.atomic():
            await Entry(owner="last", number=0).asave()

    asyncio.run(main())
    assert Entry.objects.filter(owner="last").count() == 1


def test_a_child_task_cannot_use_the_block_of_its_parent(databases: Any, Entry: Any) -> None:
    """It would share the connection. Outside the block it may write."""

    async def main() -> int:
        await Entry.__schema__.registry.acreate_all()
        async with databases.atomic():
            await Entry(owner="parent", number=1).asave()
            child = asyncio.create_task(Entry(owner="child", number=1).asave())
            with pytest.raises(TransactionSharedError, match=r"belongs to another task$"):
                await child
            with pytest.raises(TransactionSharedError):
                await asyncio.gather(*[Entry.objects.acount() for _ in range(3)])
            await Entry(owner="parent", number=2).asave()
        await asyncio.gather(*[Entry(owner="child", number=number).asave() for number in range(5)])
        return int(await Entry.objects.acount())

    assert asyncio.run(main()) == 7


def test_a_synchronous_call_in_an_awaited_block_is_refused(databases: Any, Entry: Any) -> None:
    """It would need the connection that the event loop serves. The block goes on."""

    async def main() -> int:
        await Entry.__schema__.registry.acreate_all()
        async with databases.atomic():
            await Entry(owner="a", number=1).asave()
            for use in (
                Entry(owner="b", number=1).save,
                Entry.objects.count,
                lambda: Entry.objects.bulk_create([Entry(owner="b", number=1)]),
                lambda: databases.atomic().__enter__(),
                lambda: databases.connection().__enter__(),
            ):
                with pytest.raises(
                    TransactionError, match=r"has to be awaited: write `await book.asave\(\)`"
                ):
                    use()
            await Entry(owner="a", number=2).asave()
        return int(await Entry.objects.acount())

    assert asyncio.run(main()) == 2


def test_the_block_of_a_task_that_has_ended_goes_to_the_next(databases: Any, Entry: Any) -> None:
    """As the fixtures of pytest-asyncio and anyio need it: set up, test and clean-up run in tasks of one context."""
    context = copy_context()

    async def set_up() -> Any:
        await Entry.__schema__.registry.acreate_all()
        block = databases.atomic()
        await block.__aenter__()
        await Entry(owner="fixture", number=1).asave()
        return block

    async def use() -> int:
        await Entry(owner="test", number=1).asave()
        return int(await Entry.objects.acount())

    async def clean_up(block: Any) -> None:
        await block.__aexit__(LookupError, LookupError(), None)

    async def main() -> tuple[int, int]:
        block = await asyncio.create_task(set_up(), context=context)
        seen = await asyncio.create_task(use(), context=context)
        await asyncio.create_task(clean_up(block), context=context)
        assert await settled(databases) == 0
        return seen, await Entry.objects.acount()

    assert asyncio.run(main()) == (2, 0)


@pytest.mark.parametrize("times", [3])
def test_an_event_loop_that_ends_leaves_no_connection_behind(databases: Any, Entry: Any, times: int) -> None:
    """The next one opens its own, and the synchronous engine is not touched by any."""
    closed = []

    async def main(number: int) -> int:
        await Entry(owner="loop", number=number).asave()
        asynchronous = databases.database("default").asynchronous
        closed.append((asynchronous.engine.pool, asynchronous.idle_connections))
        return int(await Entry.objects.acount())

    Entry.__schema__.registry.create_all()
    assert [asyncio.run(main(number)) for number in range(times)] == [1, 2, 3]
    assert len({id(pool) for pool, _ in closed}) == times
    for pool, idle in closed:
        assert (pool.checkedout(), pool.checkedin(), idle._idle) == (0, 0, [])
    assert Entry.objects.count() == 3


def test_an_alias_is_used_by_coroutines_and_threads_at_once(databases: Any, Entry: Any) -> None:
    """A database in memory is one for both. No increment is lost."""

    def add(owner: str) -> None:
        for _ in range(10):
            with databases.atomic():
                entry = Entry.objects.for_update().get(owner="counter")
                entry.number += 1
                entry.save()

    async def aadd() -> None:
        for _ in range(10):
            async with databases.atomic():
                entry = await Entry.objects.for_update().aget(owner="counter")
                entry.number += 1
                await entry.asave()

    async def main() -> None:
        await asyncio.gather(*[asyncio.to_thread(add, "x") for _ in range(2)], *[aadd() for _ in range(3)])

    Entry.__schema__.registry.create_all()
    Entry(owner="counter", number=0).save()
    asyncio.run(main())
    assert Entry.objects.get(owner="counter").number == 50


def test_an_awaited_connection_is_that_of_the_block(databases: Any, Entry: Any) -> None:
    """Its statements belong to the transaction; outside a block each is committed."""

    async def main() -> list[str]:
        await Entry.__schema__.registry.acreate_all()
        insert = sa.insert(Entry.__table__)
        with pytest.raises(LookupError):
            async with databases.atomic(), databases.aconnection() as connection:
                await connection.execute(insert, {"owner": "lost", "number": 1})
                raise LookupError
        async with databases.atomic():
            async with databases.aconnection() as connection:
                await connection.execute(insert, {"owner": "block", "number": 1})
            assert await Entry.objects.acount() == 1
        async with databases.aconnection("default") as connection:
            await connection.execute(insert, {"owner": "alone", "number": 1})
        assert await settled(databases) == 0
        return list(await Entry.objects.order_by(Entry.id).ascalars(Entry.owner))

    assert asyncio.run(main()) == ["block", "alone"]
