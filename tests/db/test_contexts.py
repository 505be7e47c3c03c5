"""Blocks that are left in another context, thread or task than they were entered in: they end there as anywhere."""

import asyncio
import contextlib
import contextvars
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from microorm import Field, ScopeWarning, field
from microorm.db.context import innermost
from tests.pools import unreturned

file = pytest.mark.backends("sqlite-file")


@pytest.fixture
def Book(Base: Any, registry: Any) -> Any:
    class Book(Base):
        title: Field[str] = field(max_length=40)

    registry.create_all()
    return Book


@pytest.fixture
def stored(databases: Any, Book: Any) -> Callable[[], list[str]]:
    """Return a function that returns what another thread finds: the titles that are committed."""

    def titles() -> list[str]:
        return in_thread(lambda: [book.title for book in Book.objects.order_by("id")])

    return titles


@pytest.fixture(autouse=True)
def nothing_left_open(databases: Any) -> Iterator[None]:
    """Check that a test leaves no block open, and no connection in use."""
    yield
    assert innermost() is None
    assert unreturned(databases) == 0


def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call *function* in a new thread, whose context is empty, and return what it returns."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def in_thread_of_this_context(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call *function* in a new thread in a copy of this context, as `asyncio.to_thread` does."""
    return in_thread(contextvars.copy_context().run, function, *arguments)


def in_copied_context(function: Callable[..., Any], *arguments: Any) -> Any:
    return contextvars.copy_context().run(function, *arguments)


def in_no_context(function: Callable[..., Any], *arguments: Any) -> Any:
    return contextvars.Context().run(function, *arguments)


ELSEWHERE = [in_thread, in_thread_of_this_context, in_copied_context, in_no_context]


def warned(elsewhere: Any) -> Any:
    """Expect the warning where the code that leaves a block is not in it; a copied context has the scopes of the first."""
    if elsewhere in (in_thread, in_no_context):
        return pytest.warns(ScopeWarning, match="^the block on 'default' was left in another context")
    return contextlib.nullcontext()


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
@pytest.mark.parametrize("finished", [False, True])
def test_a_generator_with_a_block_is_ended_wherever_it_is_closed(
    databases: Any, Book: Any, stored: Any, elsewhere: Any, finished: bool
) -> None:
    """Committed at its end, else rolled back. Where it began, what is saved next is stored."""

    def work() -> Iterator[None]:
        with databases.atomic():
            Book(title="in").save()
            yield

    generator = work()
    next(generator)
    with warned(elsewhere):
        elsewhere(list if finished else type(generator).close, generator)
    assert innermost() is None
    Book(title="next").save()
    assert stored() == (["in", "next"] if finished else ["next"])


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
def test_a_stack_closed_elsewhere_ends_the_blocks_in_it(
    databases: Any, Book: Any, stored: Any, elsewhere: Any
) -> None:
    stack = contextlib.ExitStack()
    stack.enter_context(databases.atomic())
    stack.enter_context(databases.atomic())
    Book(title="in").save()
    with warned(elsewhere):
        elsewhere(stack.close)
    Book(title="next").save()
    assert stored() == ["in", "next"]


@pytest.mark.parametrize("elsewhere", ELSEWHERE)
def test_an_inner_block_ended_elsewhere_leaves_the_outer_one_in_use(
    databases: Any, Book: Any, stored: Any, elsewhere: Any
) -> None:
    def work() -> Iterator[None]:
        with databases.atomic():
            Book(title="in").save()
            yield

    with databases.atomic():
        generator = work()
        next(generator)
        with warned(elsewhere):
            elsewhere(generator.close)
        Book(title="outer").save()
    assert stored() == ["outer"]


@file
def test_a_context_manager_entered_and_left_in_two_threads_of_a_pool_ends(
    databases: Any, Book: Any, stored: Any
) -> None:
    """As web frameworks run a dependency that is a generator: each step in a thread, in a copy of the context."""
    committed: list[str] = []

    @contextlib.contextmanager
    def dependency() -> Iterator[None]:
        with databases.atomic():
            Book(title="in").save()
            databases.on_commit(lambda: committed.append("in"))
            yield

    for error in (None, LookupError("no such page")):
        manager = dependency()
        in_thread_of_this_context(manager.__enter__)
        assert innermost() is None
        with pytest.warns(ScopeWarning), contextlib.suppress(LookupError):
            in_thread_of_this_context(manager.__exit__, error and LookupError, error, None)
        Book(title="next").save()
    assert stored() == ["in", "next", "next"]
    assert committed == ["in"]


@file
def test_a_generator_that_the_collector_closes_in_another_thread_is_rolled_back(
    databases: Any, Book: Any, stored: Any
) -> None:
    def work(itself: list[Any]) -> Iterator[None]:
        with databases.atomic():
            Book(title="lost").save()
            yield

    cycle: list[Any] = []
    cycle.append(work(cycle))
    next(cycle[0])
    del cycle
    with pytest.warns(ScopeWarning):
        in_thread(gc.collect)
    Book(title="next").save()
    assert stored() == ["next"]


@file
@pytest.mark.parametrize("finished", [False, True])
def test_an_async_generator_with_a_block_is_ended_by_a_child_of_its_task(
    databases: Any, Book: Any, stored: Any, finished: bool
) -> None:
    async def work() -> AsyncIterator[None]:
        with databases.atomic():
            Book(title="in").save()
            yield

    async def main() -> None:
        generator = work()
        await anext(generator)

        async def end() -> None:
            if finished:
                async for _ in generator:
                    raise AssertionError
            await generator.aclose()

        await asyncio.create_task(end())
        Book(title="next").save()

    asyncio.run(main())
    assert stored() == (["in", "next"] if finished else ["next"])


@file
def test_a_block_left_where_it_was_entered_is_not_warned_of(databases: Any, Book: Any, stored: Any) -> None:
    """Neither in a thread, nor in a task, nor when a generator is closed by the code that uses it."""

    def work(title: str) -> None:
        def hold() -> Iterator[None]:
            with databases.using("default"), databases.atomic():
                Book(title=title).save()
                yield

        list(hold())

    async def main() -> None:
        with databases.using("default"):
            await asyncio.sleep(0)
            await asyncio.to_thread(work, "c")

    work("a")
    in_thread(work, "b")
    asyncio.run(main())
    assert stored() == ["a", "b", "c"]


def test_the_warning_names_the_line_that_leaves(databases: Any, Book: Any) -> None:
    def work() -> Iterator[None]:
        with databases.using("default"):
            yield

    generator = work()
    next(generator)
    with pytest.warns(ScopeWarning) as caught:
        in_no_context(generator.close)
    assert [each.filename for each in caught] == [__file__]


@file
def test_a_warning_that_is_an_error_comes_after_the_end_of_the_block(
    databases: Any, Book: Any, stored: Any
) -> None:
    """Warnings are errors in this suite: the block is committed nevertheless."""
    block = databases.atomic()
    in_copied_context(block.__enter__)
    with pytest.raises(ScopeWarning):
        block.__exit__(None, None, None)
    Book(title="next").save()
    assert stored() == ["next"]


def test_two_threads_may_end_the_blocks_of_each_other(databases: Any, Book: Any, stored: Any) -> None:
    """Of one object, which each thread has entered: each frame ends its own."""
    block = databases.atomic(readonly=True)

    def work() -> Iterator[None]:
        with block:
            assert Book.objects.count() == 0
            yield

    first, second = work(), work()
    barrier = threading.Barrier(2)

    def take(mine: Iterator[None], other: Any) -> None:
        next(mine)
        barrier.wait()
        other.close()

    with pytest.warns(ScopeWarning), ThreadPoolExecutor(2) as pool:
        list(pool.map(take, (first, second), (second, first)))
    Book(title="next").save()
    assert stored() == ["next"]
    assert block.entered == []
