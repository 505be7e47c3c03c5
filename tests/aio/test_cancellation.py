"""Cancellation: a task may be cancelled at any await, and rows, instances, hooks and connections stay in order."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest

from microorm import Field, TransactionError, field, muted
from microorm.signals import post_save, pre_save


class CancelAt:
    """An awaitable that awaits *coroutine* and cancels the current task at await number *at*; *awaits* counts them.

    *but*: cancel all tasks but this one, as `asyncio.run` does at its end.
    """

    def __init__(self, coroutine: Any, at: int, times: int = 1, but: Any = None) -> None:
        self.coroutine, self.at, self.times, self.but, self.awaits = coroutine, at, times, but, 0

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self.coroutine.__await__()
        step, argument = steps.send, None
        while True:
            try:
                future = step(argument)
            except StopIteration as stop:
                return stop.value
            self.awaits += 1
            task = asyncio.current_task()
            assert task is not None
            if self.at <= self.awaits < self.at + self.times:
                for each in [task] if self.but is None else asyncio.all_tasks() - {self.but}:
                    each.cancel()
            try:
                argument, step = (yield future), steps.send
            except BaseException as error:  # noqa: BLE001 it is thrown into the coroutine
                argument, step = error, steps.throw


class World:
    """A model with receivers of each kind, and the operations that are cancelled."""

    def __init__(self, databases: Any, Base: Any) -> None:
        self.databases = databases
        self.committed: list[str] = []

        class Note(Base):  # type: ignore[misc]
            title: Field[str] = field(max_length=60, unique=True)

        self.Note = Note
        self.receivers = [self.before, self.at_once, self.count, self.later]
        pre_save.connect(self.before, sender=Note)
        post_save.connect(self.at_once, sender=Note)
        post_save.connect(self.count, sender=Note)
        post_save.connect(self.later, sender=Note, delivery="on_commit")

    async def before(self, sender: Any, instance: Any, **kwargs: Any) -> None:
        await asyncio.sleep(0)

    async def at_once(self, sender: Any, instance: Any, **kwargs: Any) -> None:
        await self.Note.objects.acount()
        await asyncio.sleep(0)

    def count(self, sender: Any, instance: Any, **kwargs: Any) -> None:
        self.Note.objects.count()

    async def later(self, sender: Any, instance: Any, **kwargs: Any) -> None:
        self.committed.append(instance.title)
        await asyncio.sleep(0)

    async def save(self, notes: list[Any]) -> None:
        await notes[0].asave()

    async def silent_save(self, notes: list[Any]) -> None:
        with muted([pre_save, post_save]):
            await notes[0].asave()

    async def get_or_create(self, notes: list[Any]) -> None:
        await self.Note.objects.aget_or_create(title=notes[0].title)

    async def bulk_create(self, notes: list[Any]) -> None:
        await self.Note.objects.abulk_create(notes)

    async def nested(self, notes: list[Any]) -> None:
        async with self.databases.atomic():
            await notes[0].asave()
            async with self.databases.atomic():
                await notes[1].asave()
            await notes[2].asave()

    async def stream(self, notes: list[Any]) -> None:
        async for _ in self.Note.objects.iterate(2):
            await asyncio.sleep(0)

    def expected(self, job: str, notes: list[Any]) -> list[list[str]]:
        """Return the titles that may be stored afterwards: none or all of them."""
        number = {"stream": 0, "bulk_create": 4, "nested": 3}.get(job, 1)
        return [[], sorted(note.title for note in notes[:number])]


JOBS = ["save", "silent_save", "get_or_create", "bulk_create", "nested", "stream"]


async def settled(databases: Any) -> int:
    """Return how many connections are checked out and not idle, once those of dropped streams are closed."""
    database = databases.database("default").asynchronous
    for _ in range(200):
        used = database.engine.pool.checkedout() - len(database.idle_connections._idle)
        if not used:
            break
        await asyncio.sleep(0.01)
    return int(used)


async def walk(world: World, name: str, times: int, *, all_tasks: bool) -> tuple[int, int]:
    """Cancel the job *name* at each of its awaits in turn; return how often that was, and how often it was stored.

    Twice at two awaits, or with all other tasks, it is cancelled from every second await on.
    """
    main = asyncio.current_task() if all_tasks else None
    job: Callable[[list[Any]], Awaitable[None]] = getattr(world, name)
    cancelled = stored = 0
    while True:
        at = 1 + cancelled * (2 if all_tasks or times > 1 else 1)
        notes = [world.Note(title=f"{name} {at} {number}") for number in range(4)]
        world.committed.clear()
        cancelling = CancelAt(job(notes), at, times, main)

        async def body(awaited: Any = cancelling) -> None:
            await awaited

        task = asyncio.create_task(body())
        await asyncio.wait([task])
        assert task.cancelled() or task.exception() is None, task.exception()
        assert await settled(world.databases) == 0
        found = await world.Note.objects.filter(world.Note.title.like(f"{name} {at} %")).ascalars(
            world.Note.title
        )
        assert sorted(found) in world.expected(name, notes)
        if name not in ("silent_save", "get_or_create"):
            assert sorted(note.title for note in notes if note.pk is not None) == sorted(found)
        if name not in ("silent_save", "bulk_create"):
            assert sorted(world.committed) == sorted(found)
        assert all(note._row_state.adding for note in notes if note.pk is None)
        stored += task.cancelled() and bool(found)
        if not task.cancelled() and cancelling.awaits < at:
            return cancelled, stored
        cancelled += 1


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize(
    ("times", "all_tasks"),
    [(1, False), pytest.param(2, False, marks=pytest.mark.slow), (1, True)],
    ids=["once", "twice", "end of the loop"],
)
def test_a_task_that_is_cancelled_at_any_await_leaves_everything_in_order(
    databases: Any, Base: Any, name: str, times: int, all_tasks: bool
) -> None:
    """All of its rows are stored or none, and the instances, the functions after the commit and the pool agree with that.

    Only a statement outside a block may have been done while its instance stays as it was.
    """
    world = World(databases, Base)

    async def main() -> tuple[int, int]:
        await world.Note.__schema__.registry.acreate_all()
        for number in range(5):
            await world.Note(title=f"kept {number}").asave()
        return await walk(world, name, times, all_tasks=all_tasks)

    cancelled, stored = asyncio.run(main())
    assert cancelled > (times == 1 and not all_tasks)
    assert stored < cancelled
    assert world.Note.objects.filter(world.Note.title.like("kept %")).count() == 5


async def outlives(world: World, at: int) -> tuple[bool, int]:
    """Cancel a savepoint at its await *at*; return whether the block around it was committed, and the number of awaits."""
    Note, atomic = world.Note, world.databases.atomic
    inner = Note(title=f"inner {at}")

    async def savepoint() -> None:
        async with atomic():
            await inner.asave()
            await asyncio.sleep(0)

    cancelling, committed = CancelAt(savepoint(), at), True
    try:
        async with atomic():
            await Note(title=f"outer {at}").asave()
            try:
                await cancelling
            except asyncio.CancelledError:
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()
            await Note(title=f"after {at}").asave()
    except TransactionError:
        committed = False
    found = await Note.objects.filter(Note.title.like(f"% {at}")).ascalars(Note.title)
    assert len(found) in ((2, 3) if committed else (0,))
    assert (inner.pk is not None) == (f"inner {at}" in found)
    assert await settled(world.databases) == 0
    return committed, cancelling.awaits


def test_a_cancelled_savepoint_leaves_the_block_around_it_usable(databases: Any, Base: Any) -> None:
    """At whichever await; on MariaDB, whose driver cannot stop a statement, the block is rolled back in some cases."""
    world = World(databases, Base)

    async def main() -> list[bool]:
        await world.Note.__schema__.registry.acreate_all()
        outcomes, awaits = [], 1
        while awaits >= len(outcomes):
            committed, awaits = await outlives(world, len(outcomes) + 1)
            outcomes.append(committed)
        return outcomes

    outcomes = asyncio.run(main())
    assert len(outcomes) > 4
    assert outcomes.count(True) > 4
    assert all(outcomes) or databases.database("default").dialect == "mariadb"


def test_a_time_out_in_a_block_is_a_time_out(databases: Any, Base: Any) -> None:
    """`asyncio.timeout` recognises its own cancellation, also where a commit or a rollback was under way."""
    world = World(databases, Base)

    async def main() -> None:
        await world.Note.__schema__.registry.acreate_all()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), databases.atomic():
                await world.Note(title="late").asave()
                await asyncio.sleep(5)
        assert await world.Note.objects.acount() == 0
        assert await settled(databases) == 0

    asyncio.run(main())


@pytest.mark.backends("postgresql")
def test_a_cancelled_statement_is_stopped_on_the_server(databases: Any, Base: Any) -> None:
    """No session of the program goes on with it."""
    world = World(databases, Base)

    async def main() -> int:
        await world.Note.__schema__.registry.acreate_all()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), databases.atomic():
                await world.Note.objects.araw("SELECT id, title FROM note, pg_sleep(20)")
        active = await world.Note.objects.araw(
            "SELECT count(*) AS id, '' AS title FROM pg_stat_activity"
            " WHERE application_name = current_schema() AND query LIKE '%pg_sleep(20)%' AND pid <> pg_backend_pid()"
            " AND state = 'active'"
        )
        return int(active[0].id)

    assert asyncio.run(main()) == 0
