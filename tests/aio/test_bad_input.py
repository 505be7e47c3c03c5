"""Bad input in coroutines: each is one clear error, and leaves rows, pool and the next event loop as they were."""

import asyncio
import gc
import logging
import re
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

import microorm
from microorm import (
    ConfigurationError,
    Databases,
    Field,
    FieldError,
    LazyLoadError,
    Model,
    Registry,
    TransactionError,
    TransactionSharedError,
    field,
)
from microorm.db.aio import twins

AWAIT = re.escape(
    "the open block on 'default' was begun by `async with`, so what uses it has to be awaited: "
    "write `await book.asave()` for `book.save()`"
)
SHARED = r"^the open block on 'default' belongs to another task$"
NO_LOOP = (
    r"^save\(\) cannot be awaited here, since no event loop of asyncio is running; call it without await$"
)
MISSING = (
    r"^greenlet is not installed, without which nothing can be awaited; pip install 'microorm\[async\]'$"
)


@pytest.fixture
def Book(Base: Any, registry: Registry) -> Any:
    class Book(Base):
        title: Field[str] = field(max_length=40, unique=True)

    registry.create_all()
    return Book


@pytest.fixture
def run(databases: Databases) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine on a new event loop; at its end no connection is out, and no object warns when it is freed."""

    async def checked(coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await coroutine
        finally:
            gc.collect()
            await asyncio.sleep(0)
            assert await checked_out(databases) == 0

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            return asyncio.run(checked(coroutine))
        finally:
            gc.collect()

    return run


async def checked_out(databases: Databases) -> int:
    """The connections of the running loop that are in use, idle ones apart."""
    database = databases.awaited(databases.database("default"))
    await twins.run(database.idle_connections.clear)
    pool: Any = database.async_engine.pool
    return int(pool.checkedout())


def titles(Book: Any) -> list[str]:
    return sorted(Book.objects.scalars(Book.title))


# Drivers


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Call it with the name of a module that is not installed from then on."""
    kept = {name: module for name, module in sys.modules.items() if name.startswith("microorm.db.aio")}

    def without(name: str) -> None:
        monkeypatch.setitem(sys.modules, name, None)

    yield without
    sys.modules.update(kept)


@pytest.mark.parametrize(
    ("module", "url", "install"),
    [
        ("aiosqlite", "sqlite://", "microorm[async]"),
        ("asyncmy", "mariadb+pymysql://localhost/shop", "microorm[async,mariadb]"),
        ("psycopg", "postgresql+psycopg://localhost/shop", "microorm[postgres]"),
    ],
)
def test_a_driver_that_is_not_installed_is_named_with_its_extra(without, module, url, install) -> None:
    without(module)
    with Databases(url) as databases:

        async def main() -> None:
            async with databases.atomic():
                pass

        with pytest.raises(ConfigurationError) as caught:
            asyncio.run(main())
    assert str(caught.value).startswith("the driver of database 'default' is not installed: ")
    assert str(caught.value).endswith(f"; pip install '{install}'")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_without_greenlet_an_awaited_call_names_the_extra_and_synchronous_code_works(
    without, monkeypatch, sqlite_url
) -> None:
    with Databases(sqlite_url) as databases:
        registry = Registry(databases)

        class Note(Model, registry=registry):
            text: Field[str]

        registry.create_all()
        without("greenlet")
        for name in ("calls", "database"):
            monkeypatch.delitem(sys.modules, f"microorm.db.aio.{name}", raising=False)
            monkeypatch.delattr(f"microorm.db.aio.{name}", raising=False)
        with pytest.raises(ConfigurationError, match=MISSING):
            asyncio.run(Note(text="a").asave())
        with pytest.raises(ConfigurationError, match=MISSING):
            databases.async_engine()
        Note(text="b").save()
        assert Note.objects.scalars(Note.text) == ["b"]


@pytest.mark.parametrize(
    ("url", "instead"),
    [
        ("postgresql+psycopg2://localhost/shop", "; write postgresql+psycopg://, which can"),
        ("oracle+cx_oracle://localhost/shop", ""),
    ],
)
def test_a_driver_that_is_only_synchronous_is_refused_before_it_is_loaded(url, instead) -> None:
    with Databases(url) as databases:

        async def main() -> None:
            async with databases.atomic():
                pass

        with pytest.raises(ConfigurationError) as caught:
            asyncio.run(main())
    scheme = url.partition(":")[0]
    assert str(caught.value) == (
        f"the URL of database 'default' names {scheme!r}, which cannot be awaited{instead}"
    )


@pytest.mark.parametrize(
    ("url", "instead"),
    [
        ("postgresql+asyncpg://localhost/shop", "; write postgresql+psycopg://, which can"),
        ("mysql+aiomysql://localhost/shop", "; write mariadb+pymysql://, which can"),
        ("oracle+oracledb_async://localhost/shop", ""),
    ],
)
def test_another_driver_for_asyncio_is_refused_before_it_is_loaded(url, instead) -> None:
    """How a statement is stopped and a connection dropped is known of three drivers."""
    with Databases(url) as databases, pytest.raises(ConfigurationError) as caught:
        asyncio.run(databases.atomic().__aenter__())
    scheme = url.partition(":")[0]
    assert str(caught.value) == (
        f"the URL of database 'default' names {scheme!r}, which is a driver that microorm does not know how to await{instead}"
    )


def test_an_async_generator_that_is_decorated_is_told_to_write_async_with() -> None:
    async def titles():
        yield "a"

    with pytest.raises(TypeError, match=r"write `async with atomic\(\):` inside it$"):
        microorm.atomic(titles)


# Event loops


@pytest.mark.backends("sqlite-file")
def test_a_coroutine_that_is_driven_by_hand_needs_an_event_loop(databases, Book) -> None:
    coroutine = Book(title="a").asave()
    with pytest.raises(TransactionError, match=NO_LOOP):
        coroutine.send(None)
    found: list[BaseException] = []

    def elsewhere() -> None:
        try:
            Book(title="b").asave().send(None)
        except TransactionError as error:
            found.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert type(found[0]) is TransactionError
    assert re.search(NO_LOOP, str(found[0]))
    assert titles(Book) == []


def test_no_result_depends_on_the_loop_in_which_a_coroutine_or_query_was_made(databases, Book, run) -> None:
    async def made() -> Any:
        await Book(title="b").asave()
        return Book(title="a").asave(), Book.objects.order_by(Book.title), Book.objects.acount()

    async def awaited(saving: Any, query: Any, counting: Any) -> Any:
        await saving
        return [book.title async for book in query], await counting

    parts = run(made())
    assert run(awaited(*parts)) == (["a", "b"], 2)


def test_a_stream_that_another_loop_has_begun_is_at_its_end(databases, Book, run) -> None:
    for title in "abc":
        Book(title=title).save()

    async def begin() -> Any:
        stream = aiter(Book.objects.order_by(Book.title).iterate(1))
        assert (await anext(stream)).title == "a"
        return stream

    async def go_on(stream: Any) -> list[Any]:
        return [book async for book in stream]

    stream = asyncio.run(begin())
    assert run(go_on(stream)) == []
    Book.objects.delete()
    assert titles(Book) == []


def test_a_block_cannot_be_left_on_another_loop(databases, Book, run, caplog) -> None:
    async def begin() -> Any:
        block = databases.atomic()
        await block.__aenter__()
        await Book(title="a").asave()
        return block

    with caplog.at_level(logging.WARNING, "microorm.transactions"):
        block = asyncio.run(begin())
    assert "a block on 'default' was left open, and is rolled back: its event loop has ended" in caplog.text

    async def leave() -> None:
        await block.__aexit__(None, None, None)

    with pytest.raises(
        TransactionError,
        match=r"^this block has already ended, together with the surrounding block, its task or its event loop$",
    ):
        run(leave())
    assert titles(Book) == []


def test_a_block_of_a_loop_that_only_pauses_cannot_be_left_on_another(databases, Book, run) -> None:
    paused, book = asyncio.new_event_loop(), Book(title="a")
    block = databases.atomic()

    async def begin() -> None:
        await block.__aenter__()
        await book.asave()

    async def leave() -> None:
        await block.__aexit__(None, None, None)

    paused.run_until_complete(begin())
    with pytest.raises(
        TransactionError, match=r"^the open block on 'default' belongs to another event loop$"
    ):
        run(leave())
    assert book.pk is None
    paused.run_until_complete(paused.shutdown_asyncgens())
    paused.close()
    assert titles(Book) == []


@pytest.mark.backends(
    "sqlite-file", "sqlite-memory", "postgresql"
)  # asyncmy's transport ends with its loop only
@pytest.mark.filterwarnings("default::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_is_closed_inside_a_block_leaves_no_lock_and_no_warning(databases, Book, run) -> None:
    loop, book = asyncio.new_event_loop(), Book(title="a")

    async def work(inside: asyncio.Event) -> None:
        async with databases.atomic():
            await book.asave()
            inside.set()
            await asyncio.Event().wait()

    async def begin() -> Any:
        inside = asyncio.Event()
        task = asyncio.create_task(work(inside))
        await inside.wait()
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's message is not the matter here
        return task

    task = loop.run_until_complete(begin())
    loop.stop()
    loop.close()
    del task
    gc.collect()
    assert book.pk is None

    async def after() -> list[str]:
        await Book(title="b").asave()
        return [book.title async for book in Book.objects]

    assert run(after()) == ["b"]


# Tasks


def test_a_block_that_a_cancelled_task_leaves_open_is_rolled_back(databases, Book, run, caplog) -> None:
    book = Book(title="a")

    async def work(inside: asyncio.Event) -> None:
        await databases.atomic().__aenter__()
        await book.asave()
        inside.set()
        await asyncio.Event().wait()

    async def main() -> None:
        inside = asyncio.Event()
        task = asyncio.create_task(work(inside), name="reader")
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert book.pk is None
        await Book(title="b").asave()

    with caplog.at_level(logging.WARNING, "microorm.transactions"):
        run(main())
    assert "was left open, and is rolled back: the task 'reader' was cancelled" in caplog.text
    assert titles(Book) == ["b"]


def test_a_cancelled_task_rolls_its_block_back(databases, Book, run) -> None:
    async def main() -> None:
        inside = asyncio.Event()

        async def work() -> None:
            async with databases.atomic():
                await Book(title="a").asave()
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await Book(title="b").asave()

    run(main())
    assert titles(Book) == ["b"]


def test_child_tasks_cannot_use_the_block_that_they_inherit(databases, Book, run) -> None:
    async def gather() -> None:
        async with databases.atomic():
            await asyncio.gather(*[Book(title=title).asave() for title in "ab"])

    with pytest.raises(TransactionSharedError, match=SHARED):
        run(gather())

    async def group() -> None:
        async with databases.atomic():
            await Book(title="c").asave()
            with pytest.raises(ExceptionGroup) as caught:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(Book.objects.acount())
            assert caught.group_contains(TransactionSharedError, match=SHARED)
            await Book(title="d").asave()  # the block of the owner goes on

    run(group())
    assert titles(Book) == ["c", "d"]


def test_tasks_outside_blocks_save_side_by_side(databases, Book, run) -> None:
    async def main() -> int:
        async with asyncio.TaskGroup() as tasks:
            for number in range(10):
                tasks.create_task(Book(title=f"book {number}").asave())
        return await Book.objects.acount()

    assert run(main()) == 10


def test_a_thread_that_inherits_a_block_is_told_to_stay_outside(databases, Book, run) -> None:
    async def inside() -> None:
        async with databases.atomic():
            await asyncio.to_thread(Book(title="a").save)

    with pytest.raises(
        TransactionError,
        match=r"^the open block on 'default' belongs to a task of an event loop, and this is another thread: "
        r"call the function outside the block$",
    ):
        run(inside())

    async def outside() -> None:
        await asyncio.to_thread(Book(title="b").save)

    run(outside())
    assert titles(Book) == ["b"]


# Synchronous and awaited


def test_synchronous_calls_are_refused_inside_an_awaited_block(databases, Book, run) -> None:
    async def main() -> None:
        async with databases.atomic():
            await Book(title="a").asave()
            for call in (
                lambda: Book(title="b").save(),
                lambda: Book.objects.count(),
                lambda: list(Book.objects.iterate()),
                lambda: databases.atomic().__enter__(),
                lambda: databases.connection().__enter__(),
            ):
                with pytest.raises(TransactionError, match=f"^{AWAIT}$"):
                    call()
            await Book(title="c").asave()  # nothing has run, so the block is not doomed

    run(main())
    assert titles(Book) == ["a", "c"]


def test_an_awaited_block_inside_a_synchronous_one_is_a_savepoint_of_it(databases, Book, run) -> None:
    async def main() -> None:
        with databases.atomic():
            Book(title="a").save()
            with pytest.raises(ValueError, match="inner"):
                async with databases.atomic():
                    await Book(title="b").asave()
                    raise ValueError("inner")
            async with databases.atomic():
                await Book(title="c").asave()
            assert [book.title async for book in Book.objects.order_by(Book.title)] == ["a", "c"]
            raise KeyError("outer")

    with pytest.raises(KeyError, match="outer"):
        run(main())
    assert titles(Book) == []


# Streams


@pytest.mark.parametrize("how", ["break", "exception", "dropped", "closed", "break in a block"])
def test_a_stream_that_is_left_early_gives_its_connection_back(databases, Book, run, how) -> None:
    for title in "abc":
        Book(title=title).save()

    async def main() -> None:
        stream = Book.objects.order_by(Book.title).iterate(1)
        if how == "break":
            async for _ in stream:
                break
        elif how == "exception":
            with pytest.raises(ValueError, match="enough"):
                async for _ in stream:
                    raise ValueError("enough")
        elif how == "dropped":
            await anext(aiter(stream))
        elif how == "closed":
            books = aiter(stream)
            await anext(books)
            await stream.aclose()
            assert [book async for book in books] == []
        else:
            async with databases.atomic():
                async for _ in stream:
                    break
                await Book(title="d").asave()
        gc.collect()
        while await checked_out(databases):
            await asyncio.sleep(0.01)
        await Book(title="e").asave()

    run(main())
    assert titles(Book)[-1] == "e"


def test_a_loop_may_end_while_a_stream_is_open(databases, Book) -> None:
    for title in "abc":
        Book(title=title).save()
    kept: list[Any] = []

    async def main() -> None:
        kept.append(aiter(Book.objects.iterate(1)))
        await anext(kept[0])
        async for _ in Book.objects.iterate(1):
            break

    asyncio.run(main())
    gc.collect()
    Book.objects.delete()
    assert titles(Book) == []


# Lost connections


@pytest.mark.servers_only
@pytest.mark.parametrize("inside", [True, False])
def test_a_lost_connection_is_the_drivers_error_and_the_next_call_works(
    backend, databases, Book, run, inside
) -> None:
    which, kill = {
        "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({}, 5000)"),
        "mariadb": ("SELECT connection_id()", "KILL {}"),
    }[backend]

    def lose() -> None:
        with databases.connection() as connection:
            number = connection.scalar(text(which))
        with databases.engine().connect() as other:
            other.execute(text(kill.format(number)))

    async def main() -> None:
        with pytest.raises(DBAPIError) as caught:
            if inside:
                async with databases.atomic():
                    await Book(title="a").asave()
                    await twins.run(lose)
                    await Book(title="b").asave()
            else:
                await Book(title="c").asave()
                await twins.run(lose)
                await Book.objects.acount()
                await Book.objects.acount()
                raise AssertionError("the connection was not lost")
        assert caught.value.connection_invalidated
        assert await checked_out(databases) == 0
        await Book(title="d").asave()

    run(main())
    assert titles(Book) == ["d"] if inside else ["c", "d"]


# Values that are not loaded


def test_aload_names_what_it_does_not_know_and_the_nearest(databases, Book, run) -> None:
    async def main() -> None:
        book = await Book(title="a").asave()
        with pytest.raises(FieldError, match=r"^Book has no field or relation 'titel'; nearest: 'title'$"):
            await book.aload("titel")

    run(main())


def test_a_deferred_field_is_not_loaded_by_itself_in_a_coroutine(databases, Book, run) -> None:
    Book(title="a").save()

    async def main() -> None:
        book = await Book.objects.only("id").aget()
        with pytest.raises(
            LazyLoadError,
            match=r"is not loaded; in a coroutine, await aload\('title'\) of the instance first$",
        ):
            _ = book.title
        assert await book.aload("title") == "a" == book.title

    run(main())
    assert microorm.default_databases.aliases == ()
