"""Blocks: `atomic()` as a context manager and as a decorator commits everything in it or nothing."""

import asyncio
import contextlib
import contextvars
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError, OperationalError

from microorm import Field, ScopeWarning, TransactionError, TransactionSharedError, field
from microorm.db.atomic import Atomic
from microorm.db.blocks import end_scopes
from microorm.db.context import ReceiverScope, innermost, open_scopes
from tests.pools import unreturned

HOW_TO_GO_ON = "; to go on after such an error, put what may raise it into an atomic() of its own"

ENDED = r"^this block has already ended, together with the surrounding block$"


@pytest.fixture
def Book(Base: Any, registry: Any) -> Any:
    """A model with a table on both aliases; titles are unique."""

    class Book(Base):
        title: Field[str] = field(max_length=40, unique=True)

    registry.create_all()
    return Book


@pytest.fixture
def titles(Book: Any) -> Callable[..., list[str]]:
    """Return a function that returns the stored titles of an alias."""
    return lambda alias="default": [book.title for book in Book.objects.using(alias).order_by("title")]


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """Check that a test leaves no block open."""
    yield
    assert innermost() is None


memory = pytest.mark.backends("sqlite-memory")


def test_a_block_is_committed_at_its_end(databases: Any, Book: Any, titles: Any) -> None:
    with databases.atomic() as nothing:
        assert nothing is None
        book = Book(title="a").save()
    assert titles() == ["a"]
    assert (book.id, book._state.adding, book._state.db) == (Book.objects.get().id, False, "default")


def test_an_exception_undoes_the_block_and_goes_on(databases: Any, Book: Any, titles: Any) -> None:
    """Any exception is raised unchanged; rows and instances are as before, and later work succeeds."""
    for error in (LookupError("lost"), KeyboardInterrupt(), GeneratorExit(), SystemExit(1)):
        book = Book(title="a")
        with pytest.raises(type(error)) as caught, databases.atomic():
            book.save()
            raise error
        assert caught.value is error
        assert (book.id, book._state.adding, book._state.db) == (None, True, None)
        assert titles() == []
    assert book.save().id
    assert titles() == ["a"]


def test_an_inner_block_is_undone_alone(databases: Any, Book: Any, titles: Any, way: str) -> None:
    """Writes before and after it in the outer block are committed."""
    first, second, third = (Book(title=title) for title in "abc")
    with databases.atomic():
        first.save()
        with pytest.raises(LookupError), databases.atomic():
            second.save()
            first.title = "changed"
            first.save()
            raise LookupError
        assert first.changes() == {"title": ("a", "changed")}
        third.save()
        with databases.atomic(), databases.atomic():
            Book(title="d").save()
    assert titles() == ["a", "c", "d"]
    assert (second.id, second._state.adding) == (None, True)
    assert third.id is not None


def test_an_outer_block_undoes_the_inner_ones_that_ended_well(
    databases: Any, Book: Any, titles: Any, way: str
) -> None:
    """At every depth."""
    books = [Book(title=title) for title in "abc"]
    with pytest.raises(LookupError), databases.atomic():
        with databases.atomic():
            books[0].save()
            with databases.atomic():
                books[1].save()
            books[2].save()
        raise LookupError
    assert titles() == []
    assert [book.id for book in books] == [None] * 3
    with databases.atomic():
        with pytest.raises(LookupError), databases.atomic():
            with databases.atomic():
                books[0].save()
            raise LookupError
        books[1].save()
    assert titles() == ["b"]
    assert [book._state.adding for book in books] == [True, False, True]


def test_a_block_without_savepoint_joins_the_one_around_it(databases: Any, Book: Any, titles: Any) -> None:
    """Only the outer block commits or rolls back."""
    with databases.atomic():
        Book(title="a").save()
        with databases.atomic(savepoint=False):
            Book(title="b").save()
        Book(title="c").save()
    assert titles() == ["a", "b", "c"]
    with databases.atomic(savepoint=False):
        Book(title="d").save()
    assert titles() == ["a", "b", "c", "d"]


def test_an_exception_in_a_joined_block_dooms_the_one_around_it(
    databases: Any, Book: Any, titles: Any
) -> None:
    """Even if the exception is caught, the rollback is reported."""
    error, book = LookupError("lost"), Book(title="a")
    with pytest.raises(TransactionError) as caught, databases.atomic():
        book.save()
        with contextlib.suppress(LookupError), databases.atomic(savepoint=False):
            raise error
        with pytest.raises(TransactionError) as refused:
            Book(title="b").save()
    assert str(refused.value) == ("the block on 'default' is doomed by an earlier error: LookupError('lost')")
    assert refused.value.__cause__ is error
    assert str(caught.value) == (
        "the block on 'default' was rolled back because of an earlier error: LookupError('lost')"
    )
    assert caught.value.__cause__ is error
    assert (titles(), book.id) == ([], None)


def test_a_savepoint_around_a_joined_block_confines_it(databases: Any, Book: Any, titles: Any) -> None:
    """The nearest block with a savepoint is rolled back."""
    with databases.atomic():
        Book(title="a").save()
        with pytest.raises(TransactionError), databases.atomic():
            with contextlib.suppress(LookupError), databases.atomic(savepoint=False):
                Book(title="b").save()
                raise LookupError
        Book(title="c").save()
    assert titles() == ["a", "c"]


def test_a_database_error_dooms_the_block(databases: Any, Book: Any, titles: Any, way: str) -> None:
    """Every later statement, reads included, and a normal end raise an error whose cause is the first error."""
    Book(title="a").save()
    lost = Book(title="b")
    with pytest.raises(TransactionError) as caught, databases.atomic():
        lost.save()
        with pytest.raises(IntegrityError) as refused:
            Book(title="a").save()
        for statement in (
            lambda: Book.objects.count(),
            lambda: Book.objects.get(title="a"),
            lambda: Book(title="c").save(),
            lambda: databases.atomic().__enter__(),
            lambda: databases.connection("default").__enter__(),
        ):
            with pytest.raises(
                TransactionError, match="^the block on 'default' is doomed by an earlier"
            ) as after:
                statement()
            assert after.value.__cause__ is refused.value
            assert str(after.value).endswith(HOW_TO_GO_ON)
    assert caught.value.__cause__ is refused.value
    assert str(caught.value).endswith(HOW_TO_GO_ON)
    assert str(caught.value).startswith(
        "the block on 'default' was rolled back because of an earlier error: IntegrityError("
    )
    assert titles() == ["a"]
    assert (lost.id, lost._state.adding) == (None, True)
    assert lost.save().id


def test_an_exception_out_of_a_doomed_block_goes_on_as_it_is(databases: Any, Book: Any, titles: Any) -> None:
    """It is not replaced by a TransactionError."""
    Book(title="a").save()
    with pytest.raises(LookupError) as caught, databases.atomic():
        Book(title="b").save()
        with contextlib.suppress(IntegrityError):
            Book(title="a").save()
        raise LookupError("mine")
    assert caught.value.args == ("mine",)
    assert titles() == ["a"]


def test_a_nested_block_is_the_way_to_catch_and_go_on(
    databases: Any, Book: Any, titles: Any, way: str
) -> None:
    """The error dooms only the nested block."""
    Book(title="a").save()
    with databases.atomic():
        Book(title="b").save()
        with pytest.raises(IntegrityError), databases.atomic():
            Book(title="c").save()
            Book(title="a").save()
        with pytest.raises(TransactionError) as caught, databases.atomic():
            with contextlib.suppress(IntegrityError):
                Book(title="a").save()
        assert isinstance(caught.value.__cause__, IntegrityError)
        Book(title="d").save()
    assert titles() == ["a", "b", "d"]


@memory
def test_a_durable_block_is_the_outermost(databases: Any, Book: Any, titles: Any) -> None:
    """Inside another block of the alias it raises an error before any SQL; the outer block continues."""
    with databases.atomic():
        Book(title="a").save()
        for options in ({}, {"savepoint": False}, {"readonly": True}):
            with pytest.raises(TransactionError) as caught:
                databases.atomic(durable=True, **options).__enter__()
            assert str(caught.value) == "a durable block on 'default' cannot be inside another"
        with databases.atomic("other", durable=True):
            Book(title="there").save(using="other")
        Book(title="b").save()
    with databases.atomic(durable=True), databases.atomic():
        Book(title="c").save()
    assert (titles(), titles("other")) == (["a", "b", "c"], ["there"])


@memory
def test_a_block_may_be_a_decorator(databases: Any, Book: Any, titles: Any) -> None:
    """Without parentheses, with them and with arguments; on functions, methods and callable objects."""
    atomic = databases.atomic

    @atomic
    def bare(title: str, *, fail: bool = False) -> str:
        """Save it."""
        assert len(list(open_scopes(databases))) == 1
        Book(title=title).save()
        if fail:
            raise LookupError
        return title

    @atomic()
    def called(title: str) -> str:
        return bare.__wrapped__(title)

    class Shop:
        @atomic("default", durable=True)
        def method(self, title: str) -> str:
            return bare.__wrapped__(title)

        @atomic
        @staticmethod
        def static(title: str) -> str:
            return bare.__wrapped__(title)

        @atomic
        def __call__(self, title: str) -> str:
            return bare.__wrapped__(title)

    of_instance = atomic("default")(functools.partial(bare.__wrapped__, "f"))
    assert [
        bare("a"), called("b"), Shop().method("c"), Shop.static("d"), Shop()("e"), of_instance()
    ] == ["a", "b", "c", "d", "e", "f"]  # fmt: skip
    assert (bare.__name__, bare.__doc__) == ("bare", "Save it.")
    with pytest.raises(LookupError):
        bare("g", fail=True)
    assert titles() == ["a", "b", "c", "d", "e", "f"]


@memory
def test_a_decorated_function_opens_a_block_at_each_call(databases: Any, Book: Any, titles: Any) -> None:
    """Recursive calls are nested; an inner block is rolled back alone."""

    @databases.atomic
    def descend(depth: int) -> None:
        Book(title=str(depth)).save()
        if depth == 3:
            raise LookupError
        if depth < 3:
            with contextlib.suppress(LookupError):
                descend(depth + 1)

    descend(1)
    descend(4)
    assert titles() == ["1", "2", "4"]


@memory
def test_one_block_object_can_be_entered_again_and_in_itself(databases: Any, Book: Any, titles: Any) -> None:
    """What it does depends on what is open at each entry."""
    block = databases.atomic()
    for title in "ab":
        with block:
            Book(title=title).save()
            with pytest.raises(LookupError), block:
                Book(title="lost").save()
                with block:
                    Book(title="lost, too").save()
                raise LookupError
    assert titles() == ["a", "b"]


class Awaiting:
    """A callable whose call returns a coroutine."""

    async def __call__(self) -> None: ...

    def __repr__(self) -> str:
        return "<awaiting>"


class Yielding:
    """A callable whose call returns a generator."""

    def __call__(self) -> Iterator[int]:
        yield 1

    def __repr__(self) -> str:
        return "<yielding>"


async def coroutine() -> None: ...


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@memory
@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (
            generator,
            "atomic() cannot decorate {}: it is a generator function, which runs after the call; write `with atomic():` inside it",
        ),
        (
            Yielding(),
            "atomic() cannot decorate {}: it is a generator function, which runs after the call; write `with atomic():` inside it",
        ),
        (
            async_generator,
            "atomic() cannot decorate {}: it is a generator function, which runs after the call; write `async with atomic():` inside it",
        ),
        (5, "atomic() decorates functions, not {}"),
        ("archive", "atomic() decorates functions, not {}"),
    ],
)
def test_what_does_its_work_after_it_has_returned_is_not_decorated(
    databases: Any, function: Any, problem: str
) -> None:
    """The block would end before the function has run."""
    with pytest.raises(TypeError) as caught:
        databases.atomic()(function)
    assert str(caught.value) == problem.format(repr(function))


@memory
def test_a_generator_left_open_shares_the_fate_of_the_block_around_it(
    databases: Any, Book: Any, titles: Any, way: str
) -> None:
    """It is committed with it. Closing the generator later is silent; resuming it raises an error."""

    def work(title: str) -> Iterator[Any]:
        with databases.atomic():
            yield Book(title=title).save()

    closed, run_on = work("a"), work("b")
    with databases.atomic():
        first = next(closed)
        second = next(run_on)
        Book(title="c").save()
    closed.close()
    with pytest.raises(TransactionError, match=ENDED):
        next(run_on)
    assert titles() == ["a", "b", "c"]
    assert (first._state.adding, second._state.adding) == (False, False)


@memory
@pytest.mark.parametrize("depth", [1, 2])
def test_a_generator_left_open_is_undone_with_the_block_around_it(
    databases: Any, Book: Any, titles: Any, way: str, depth: int
) -> None:
    """Rows and instances of all its blocks are restored."""
    books = [Book(title=title) for title in "abcd"]

    def work(book: Any) -> Iterator[None]:
        with databases.atomic():
            book.save()
            yield

    generators = [work(book) for book in books[1:3]]
    with contextlib.suppress(LookupError), databases.atomic():
        with contextlib.ExitStack() as stack:
            if depth == 2:
                stack.enter_context(databases.atomic())
            books[0].save()
            for each in generators:
                next(each)
            books[3].save()
            if depth == 2:
                stack.close()
            raise LookupError
    assert titles() == []
    assert [(book.id, book._state.adding) for book in books] == [(None, True)] * 4
    for each in generators:
        each.close()
    with databases.atomic():
        books[0].save()
    assert titles() == ["a"]


@memory
def test_a_doomed_block_left_open_dooms_the_one_around_it(
    databases: Any, Book: Any, titles: Any, way: str
) -> None:
    """The rollback is reported, although the generator was never resumed."""
    Book(title="a").save()

    def work() -> Iterator[None]:
        with databases.atomic():
            with contextlib.suppress(IntegrityError):
                Book(title="a").save()
            yield

    generator = work()
    with pytest.raises(TransactionError) as caught, databases.atomic():
        Book(title="b").save()
        next(generator)
    assert isinstance(caught.value.__cause__, IntegrityError)
    generator.close()
    assert titles() == ["a"]


@memory
@pytest.mark.parametrize("outermost", [True, False])
def test_a_block_left_open_that_cannot_be_released_dooms_the_one_around_it(
    databases: Any, Book: Any, titles: Any, way: str, outermost: bool
) -> None:
    """The database has lost the savepoint, and so possibly more."""
    book = Book(title="a")

    def work() -> Iterator[None]:
        with databases.atomic():
            book.save()
            yield

    generator = work()
    with contextlib.ExitStack() as stack:
        if not outermost:
            stack.enter_context(contextlib.suppress(TransactionError))
            stack.enter_context(databases.atomic())
        with pytest.raises(TransactionError) as caught, databases.atomic():
            next(generator)
            with databases.connection() as connection:
                connection.connection.driver_connection.rollback()
    assert isinstance(caught.value.__cause__, OperationalError)
    assert "no such savepoint" in str(caught.value.__cause__)
    generator.close()
    assert (titles(), book._state.adding) == ([], True)
    assert book.save().id


@memory
def test_an_async_generator_closed_by_another_task_ends_its_block(
    databases: Any, Book: Any, titles: Any
) -> None:
    """Even if the other task is not in the block, which is warned of."""

    async def work() -> AsyncIterator[None]:
        with databases.atomic():
            Book(title="a").save()
            yield

    async def main() -> None:
        generator = work()

        async def begin() -> None:
            await anext(generator)

        await asyncio.create_task(begin())
        with pytest.warns(ScopeWarning, match="^the block on 'default' was left in another context"):
            await asyncio.create_task(generator.aclose())

    asyncio.run(main())
    Book(title="b").save()
    assert titles() == ["b"]


@memory
def test_a_task_that_inherited_a_block_ends_it_by_leaving_it(databases: Any, Book: Any, titles: Any) -> None:
    """For the task that has opened it as well, which then saves outside of it, and cannot leave it again."""
    block = databases.atomic()

    async def leave() -> None:
        block.__exit__(None, None, None)

    async def main() -> None:
        with pytest.raises(TransactionError, match=ENDED), block:
            Book(title="a").save()
            await asyncio.create_task(leave())
            Book(title="b").save()

    asyncio.run(main())
    assert titles() == ["a", "b"]


@memory
def test_leaving_what_was_not_entered_is_an_error(databases: Any) -> None:
    """An exception that is already raised is not replaced."""
    block = databases.atomic()
    with pytest.raises(TransactionError, match=ENDED):
        block.__exit__(None, None, None)
    assert block.__exit__(LookupError, LookupError(), None) is None


@memory
def test_two_aliases_are_two_transactions(databases: Any, Book: Any, titles: Any) -> None:
    """The inner commit is final, whatever the outer block does."""
    with pytest.raises(LookupError), databases.atomic():
        Book(title="here").save()
        with databases.atomic("other"):
            Book(title="there").save(using="other")
        raise LookupError
    assert (titles(), titles("other")) == ([], ["there"])
    with databases.atomic():
        Book(title="a").save()
        with pytest.raises(LookupError), databases.atomic("other"):
            Book(title="a").save(using="other")
            raise LookupError
    assert (titles(), titles("other")) == (["a"], ["there"])


@memory
def test_the_alias_is_the_current_one(databases: Any, Book: Any) -> None:
    """That of a `using()` block or running receiver at the time of entry, not that of the surrounding block."""

    def inner() -> list[str]:
        return [scope.alias for scope in open_scopes(databases) if scope.kind == "block"]

    block = databases.atomic()
    with databases.using("other"), block:
        assert inner() == ["other"]
    with databases.atomic("other"), block:
        assert inner() == ["default", "other"]
    with databases.using("other"), ReceiverScope(databases, "default"), block:
        assert inner() == ["default"]
    with ReceiverScope(databases, "default"), databases.using("other"), databases.atomic(None):
        assert inner() == ["other"]
    with ReceiverScope(databases, "other"):
        assert databases.atomic(inner)() == ["other"]


def test_a_thread_has_its_own_blocks(databases: Any, Book: Any, titles: Any) -> None:
    """Two threads use the same decorated function and block object independently."""
    in_block, done = threading.Event(), threading.Event()
    shared = databases.atomic(readonly=True)
    depths: list[int] = []

    def work() -> None:
        with shared:
            depths.append(len(list(open_scopes(databases))))
            in_block.set()
            done.wait()

    thread = threading.Thread(target=work)
    thread.start()
    in_block.wait()
    assert list(open_scopes(databases)) == []
    with shared:
        depths.append(len(list(open_scopes(databases))))
    done.set()
    thread.join()
    assert depths == [1, 1]
    Book(title="a").save()
    assert titles() == ["a"]


@memory
def test_a_thread_in_a_copied_context_is_refused_while_the_owner_lives(
    databases: Any, Book: Any, titles: Any
) -> None:
    """TransactionSharedError; the block stays usable. After its thread has ended, another becomes the owner."""
    answers: list[Any] = []

    def attempt() -> None:
        try:
            answers.append(Book(title="b").save().title)
        except TransactionSharedError as error:
            answers.append(str(error))

    def run(function: Callable[[], Any]) -> None:
        thread = threading.Thread(target=contextvars.copy_context().run, args=[function])
        thread.start()
        thread.join()

    with databases.atomic():
        Book(title="a").save()
        run(attempt)
        Book(title="c").save()
    assert answers == ["the open block on 'default' belongs to another thread"]
    context = contextvars.copy_context()
    block = databases.atomic()
    thread = threading.Thread(target=context.run, args=[block.__enter__])
    thread.start()
    thread.join()
    context.run(attempt)
    assert answers[1:] == ["b"]
    context.run(block.__exit__, None, None, None)
    assert titles() == ["a", "b", "c"]


@memory
def test_a_child_task_cannot_use_the_block_that_it_inherits(databases: Any, Book: Any, titles: Any) -> None:
    """TransactionSharedError before any signal; other aliases, and blocks of its own, are usable."""

    async def attempt() -> list[str]:
        answers = []
        for act in (
            lambda: Book(title="b").save(),
            lambda: Book.objects.count(),
            lambda: databases.atomic().__enter__(),
            lambda: databases.atomic(savepoint=False).__enter__(),
            lambda: databases.on_commit(print),
            lambda: databases.connection().__enter__(),
        ):
            with pytest.raises(TransactionSharedError) as caught:
                act()
            answers.append(str(caught.value))
        Book(title="there").save(using="other")
        return answers

    async def main() -> None:
        with databases.atomic():
            Book(title="a").save()
            answers = await asyncio.gather(attempt())
            Book(title="c").save()
        assert answers == [["the open block on 'default' belongs to another task"] * 6]

    asyncio.run(main())
    assert (titles(), titles("other")) == (["a", "c"], ["there"])


@pytest.mark.servers_only
def test_tasks_that_take_turns_have_transactions_of_their_own(databases: Any, Book: Any, titles: Any) -> None:
    """Neither sees the other's uncommitted rows, nor is rolled back with it."""

    async def work(title: str, mine: asyncio.Event, theirs: asyncio.Event, *, fail: bool) -> list[str]:
        with contextlib.suppress(LookupError), databases.atomic():
            Book(title=title).save()
            mine.set()
            await theirs.wait()
            seen = titles()
            await asyncio.sleep(0)
            if fail:
                raise LookupError
        return seen

    async def main() -> list[list[str]]:
        one, two = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(work("a", one, two, fail=False), work("b", two, one, fail=True))

    assert asyncio.run(main()) == [["a"], ["b"]]
    assert titles() == ["a"]


@memory
def test_tasks_in_the_block_of_their_thread_cannot_nest_in_each_other(
    databases: Any, Book: Any, titles: Any
) -> None:
    """They share the block of the thread, but not a block that one of them has opened in it."""

    async def nest(opened: asyncio.Event, done: asyncio.Event) -> None:
        with databases.atomic():
            Book(title="a").save()
            opened.set()
            await done.wait()
            Book(title="b").save()

    async def main() -> str:
        opened, done = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(nest(opened, done))
        await opened.wait()
        with pytest.raises(TransactionSharedError) as caught:
            Book(title="c").save()
        done.set()
        await task
        Book(title="d").save()
        return str(caught.value)

    with databases.atomic():
        text = asyncio.run(main())
        Book(title="e").save()
    assert text == "another task has opened a block inside the open block on 'default'"
    assert titles() == ["a", "b", "d", "e"]


@memory
def test_a_block_works_on_a_running_loop(databases: Any, Book: Any, titles: Any) -> None:
    """As in a notebook."""

    async def main() -> list[str]:
        with databases.atomic():
            Book(title="a").save()
            await asyncio.sleep(0)
            with contextlib.suppress(LookupError), databases.atomic():
                Book(title="b").save()
                await asyncio.sleep(0)
                raise LookupError
        return titles()

    assert asyncio.run(main()) == ["a"]


@memory
def test_a_block_inherited_through_a_fork_ends_without_a_word(
    databases: Any, Book: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection belongs to the parent, which continues to use it."""
    block = databases.atomic()
    block.__enter__()
    book = Book(title="a").save()
    (opened,) = open_scopes(databases)
    with monkeypatch.context() as child:
        child.setattr("microorm.db.owners._Process.token", object())
        opened.transaction.owner.after_fork()
        with pytest.raises(TransactionSharedError, match="belongs to another process"):
            Book(title="b").save()
        assert block.__exit__(None, None, None) is None
    assert list(open_scopes(databases)) == []
    assert not book._state.adding
    opened.transaction.roll_back()
    assert Book.objects.count() == 0


@memory
def test_what_was_left_open_can_be_ended(databases: Any, Book: Any, titles: Any) -> None:
    """Inner blocks are rolled back with outer ones; only aliases of blocks that were open are returned."""
    using, first, second = databases.using("other"), databases.atomic(), databases.atomic()
    other, over = databases.atomic("other"), databases.atomic()
    for each in (using, over):
        each.__enter__()
    scopes = set(open_scopes(databases))
    over.__exit__(None, None, None)
    with databases.using("default"):
        first.__enter__()
        book = Book(title="a").save()
        second.__enter__()
    other.__enter__()
    scopes |= set(open_scopes(databases))
    assert sorted(end_scopes(scopes)) == ["default", "other"]
    assert end_scopes(scopes) == []
    assert list(open_scopes(databases)) == []
    assert book._state.adding
    assert titles() == []


@memory
def test_an_inner_block_left_open_is_undone_alone(databases: Any, Book: Any, titles: Any) -> None:
    """A surrounding block of the caller stays open; a joined block dooms it."""
    with databases.atomic():
        Book(title="a").save()
        before = set(open_scopes(databases))
        databases.atomic().__enter__()
        Book(title="b").save()
        assert end_scopes(set(open_scopes(databases)) - before) == ["default"]
        Book(title="c").save()
    assert titles() == ["a", "c"]
    with pytest.raises(TransactionError) as caught, databases.atomic():
        before = set(open_scopes(databases))
        databases.atomic(savepoint=False).__enter__()
        Book(title="d").save()
        end_scopes(set(open_scopes(databases)) - before)
    assert str(caught.value.__cause__) == "the block on 'default' was left open"
    assert titles() == ["a", "c"]


@memory
def test_a_block_that_cannot_begin_is_not_open(databases: Any, Book: Any, titles: Any) -> None:
    """The error of the database or the routing is raised, and the next block works."""

    def fail(*_: Any) -> None:
        raise LookupError("no BEGIN")

    event.listen(databases.engine(), "begin", fail)
    with pytest.raises(LookupError, match="no BEGIN"):
        databases.atomic().__enter__()
    assert innermost() is None
    assert unreturned(databases) == 0
    event.remove(databases.engine(), "begin", fail)
    with databases.atomic():
        Book(title="a").save()
    assert titles() == ["a"]


@memory
def test_an_atomic_block_says_what_it_is(databases: Any) -> None:
    """The context manager is an `Atomic`."""
    block = databases.atomic("other")
    assert isinstance(block, Atomic)
    assert block.owner is databases
