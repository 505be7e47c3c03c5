"""Tasks of one event loop: none of them stops the loop to wait for the block of another."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from microorm import Databases, Field, TransactionSharedError, field
from microorm.db.owners import held_by_tasks

sqlite = pytest.mark.backends("sqlite-file", "sqlite-memory")
file = pytest.mark.backends("sqlite-file")


@pytest.fixture
def Book(Base: Any, registry: Any) -> Any:
    class Book(Base):
        title: Field[str] = field(max_length=40)

    registry.create_all()
    return Book


@contextlib.asynccontextmanager
async def held(databases: Any, Book: Any, **options: Any) -> AsyncIterator[None]:
    """Run the block while another task, 'holder', holds one open and waits."""
    opened, done = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        with databases.atomic(**options):
            Book.objects.count() if options else Book(title="held").save()
            opened.set()
            await done.wait()

    task = asyncio.create_task(hold(), name="holder")
    await opened.wait()
    try:
        yield
    finally:
        done.set()
        await task


@sqlite
@pytest.mark.parametrize(
    "write",
    [
        lambda databases, Book: Book(title="b").save(),
        lambda databases, Book: Book.objects.update(title="b"),
        lambda databases, Book: Book.objects.bulk_create([Book(title="b")]),
        lambda databases, Book: Book.objects.create(title="b"),
        lambda databases, Book: databases.atomic(Book.objects.count)(),
    ],
    ids=["save", "update", "bulk_create", "create", "atomic"],
)
def test_a_write_that_would_wait_for_a_block_of_the_same_loop_is_refused_at_once(
    databases: Any, Book: Any, write: Callable[[Any, Any], Any]
) -> None:
    """SQLite would make it wait until 'database is locked', and the loop with it. Later writes succeed."""

    async def main() -> str:
        async with held(databases, Book):
            with pytest.raises(TransactionSharedError) as caught:
                write(databases, Book)
        write(databases, Book)
        return str(caught.value)

    text = asyncio.run(main())
    assert text.startswith("'default' is locked by the block that the task 'holder' has open while it awaits")
    assert text.endswith("book.asave()` for `book.save()`, and write `async with atomic():`")


@file
def test_a_file_can_be_read_meanwhile(databases: Any, Book: Any) -> None:
    """As the last commit left it; and other databases can be written."""

    async def main() -> None:
        async with held(databases, Book):
            assert Book.objects.count() == 0
            Book(title="there").save(using="other")
        assert Book.objects.count() == 1

    asyncio.run(main())


@pytest.mark.backends("sqlite-memory")
def test_a_database_in_memory_cannot(databases: Any, Book: Any) -> None:
    async def main() -> None:
        async with held(databases, Book):
            for read in (
                Book.objects.count,
                lambda: list(Book.objects.iterate()),
                databases.connection().__enter__,
            ):
                with pytest.raises(TransactionSharedError, match="^'default' is locked by the block"):
                    read()
        assert Book.objects.count() == 1

    asyncio.run(main())


@file
def test_a_block_for_reading_locks_nothing(databases: Any, Book: Any) -> None:
    async def main() -> None:
        async with held(databases, Book, readonly=True):
            Book(title="a").save()
        async with held(databases, Book):
            with databases.atomic(readonly=True):
                assert Book.objects.count() == 1

    asyncio.run(main())


@file
def test_a_thread_waits_for_the_block_of_a_task(databases: Any, Book: Any) -> None:
    """Since the loop goes on, and with it the task that holds the block."""

    async def main() -> None:
        async with held(databases, Book):
            waiting = asyncio.create_task(asyncio.to_thread(Book(title="later").save))
            await asyncio.sleep(0)
        await waiting
        assert [book.title for book in Book.objects.order_by("id")] == ["held", "later"]

    asyncio.run(main())


@file
def test_only_what_would_stop_the_loop_is_refused(databases: Any, Book: Any, url: str) -> None:
    """A task of another loop waits, and one that has locked the database itself gets the error of the database."""

    def write() -> None:
        with pytest.raises(OperationalError, match="locked"), impatient.atomic():
            pass

    async def elsewhere() -> None:
        write()

    async def main() -> None:
        async with held(databases, Book):
            await asyncio.to_thread(asyncio.run, elsewhere())
        with databases.atomic():
            write()

    with Databases({"default": {"url": url, "connect_args": {"timeout": 0}}}) as impatient:
        asyncio.run(main())


@file
def test_a_task_writes_in_its_own_block_and_after_it(databases: Any, Book: Any) -> None:
    async def main() -> None:
        with databases.atomic():
            Book(title="a").save()
            await asyncio.sleep(0)
            Book(title="b").save()
        Book(title="c").save()
        assert Book.objects.count() == 3

    asyncio.run(main())


@file
def test_a_block_that_was_dropped_while_it_was_open_is_forgotten(databases: Any, Book: Any) -> None:
    """With the task that opened it, and its context."""

    async def forget() -> None:
        databases.atomic().__enter__()

    async def save() -> None:
        Book(title="a").save()

    async def main() -> None:
        await asyncio.create_task(forget())

    asyncio.run(main())
    gc.collect()
    asyncio.run(save())
    assert Book.objects.count() == 1
    assert held_by_tasks == {}
