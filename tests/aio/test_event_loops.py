"""Event loops: many of them, one after the other, and calls that are deep in a recursion."""

import asyncio
import gc
import threading
from typing import Any

import pytest

from microorm import Field, TransactionError, field
from microorm.db.aio import twins
from microorm.signals import post_save
from tests.pools import aunreturned, unreturned


@pytest.fixture
def Book(Base: Any, registry: Any) -> Any:
    class Book(Base):  # type: ignore[misc]
        title: Field[str] = field(max_length=40)

    registry.create_all()
    return Book


def test_nothing_is_kept_of_event_loops_that_have_ended(databases: Any, Book: Any) -> None:
    """Neither their engines nor the listeners of these."""

    async def main() -> None:
        await Book(title="a").asave()

    kept = []
    for _ in range(4):
        asyncio.run(main())
        asynchronous = databases.database("default").asynchronous
        kept.append((len(asynchronous.engines), len(asynchronous._added)))
    assert kept == [(0, 0)] * 4
    assert Book.objects.count() == 4


def test_a_lost_connection_is_that_of_its_event_loop(databases: Any, Book: Any) -> None:
    """The idle connections of another loop stay open, and those of the loop are still known to be lost."""
    database = databases.awaited(databases.database("default"))

    def engines() -> int:
        return id(database.engine.pool)

    async def main() -> tuple[bool, bool, bool]:
        before = await twins.run(engines)
        await twins.run(database.note_lost)

        def elsewhere() -> bool:
            async def other() -> bool:
                await Book(title="a").asave()
                pool = await twins.run(engines)
                await twins.run(databases.drop_lost_connections)
                return pool == await twins.run(engines)

            return asyncio.run(other())

        same = await asyncio.to_thread(elsewhere)
        lost = databases.lost_in_coroutines()
        await twins.run(databases.drop_lost_connections)
        return same, lost, before != await twins.run(engines)

    assert asyncio.run(main()) == (True, True, True)
    assert not databases.lost_in_coroutines()


@pytest.mark.backends("sqlite-file", "sqlite-memory")
def test_closing_the_connections_of_coroutines_makes_no_event_loop(
    databases: Any, Book: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in the thread that closes, where Python 3.12 warns of it, nor in another."""
    made = []

    def get_event_loop() -> Any:
        if asyncio._get_running_loop() is None and threading.current_thread() is threading.main_thread():
            made.append("a loop")
        return asyncio.get_running_loop()

    async def receiver(**kwargs: Any) -> None:
        await Book.objects.acount()

    post_save.connect(receiver, sender=Book, delivery="on_commit")
    Book(title="a").save()
    stopped = [driver for driver in gc.get_objects() if type(driver).__module__ == "aiosqlite.core"]
    assert stopped
    monkeypatch.setattr(asyncio, "get_event_loop", get_event_loop)
    databases.close()
    assert made == []
    for driver in stopped:
        driver._thread.join(10)
        assert not driver._thread.is_alive()


@pytest.mark.parametrize("way", ["with", "async with"])
def test_a_stream_gives_its_connection_back_at_the_end_of_its_block(
    databases: Any, Book: Any, way: str
) -> None:
    for title in "abc":
        Book(title=title).save()

    async def main() -> int:
        async with Book.objects.iterate(1) as books:
            async for _ in books:
                break
        return await aunreturned(databases)

    if way == "with":
        with Book.objects.iterate(1) as books:
            next(books)
        assert list(books) == []
        assert unreturned(databases) == 0
    else:
        assert asyncio.run(main()) == 0


def test_a_stream_is_read_on_the_event_loop_that_has_begun(databases: Any, Book: Any) -> None:
    """Elsewhere it is an error that says so, and the stream goes on."""
    for title in "abc":
        Book(title=title).save()

    async def main() -> list[str]:
        stream = Book.objects.order_by("title").iterate(1)
        books = aiter(stream)
        found = [(await anext(books)).title]

        async def elsewhere() -> None:
            async for _ in stream:
                raise AssertionError

        with pytest.raises(TransactionError, match="on another event loop"):
            await asyncio.to_thread(asyncio.run, elsewhere())
        with pytest.raises(TransactionError, match="read by `async for`"):
            next(stream)
        return found + [book.title async for book in books]

    assert asyncio.run(main()) == list("abc")


@pytest.mark.backends("sqlite-memory", "postgresql")
def test_a_recursion_error_does_not_spoil_later_calls(databases: Any, Book: Any) -> None:
    """Nor does a call that succeeds deep in a recursion leave less room for the next."""

    async def save_another(sender: Any, instance: Any, **kwargs: Any) -> None:
        depth = int(instance.title)
        if depth:
            await Book(title=str(depth - 1)).asave()

    async def main() -> int:
        post_save.connect(save_another, sender=Book)
        await Book(title="8").asave()
        for _ in range(3):
            with pytest.raises(RecursionError):
                await Book(title="100000").asave()
        for _ in range(20):
            await Book(title="8").asave()
        return int(await Book.objects.acount())

    assert asyncio.run(main()) == 9 * 21
