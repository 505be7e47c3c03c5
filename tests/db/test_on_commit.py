"""`on_commit`: functions run after the outermost commit of an alias, and never after a rollback."""

import contextlib
import functools
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from microorm import AfterCommitError, Field, TransactionError, UnknownAlias, field
from microorm.db.context import ReceiverScope, innermost

pytestmark = pytest.mark.backends("sqlite-memory")


@pytest.fixture
def Book(Base: Any, registry: Any) -> Any:
    """A model with a table on both aliases; titles are unique."""

    class Book(Base):
        title: Field[str] = field(max_length=40, unique=True)

    registry.create_all()
    return Book


@pytest.fixture
def ran() -> list[Any]:
    """A list in which the functions of a test record their calls."""
    return []


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """Check that a test leaves no block open."""
    yield
    assert innermost() is None


def test_with_nothing_open_it_runs_at_once(databases: Any, ran: list[Any]) -> None:
    """Errors are raised to the caller; those of a robust function are logged."""
    assert databases.on_commit(lambda: ran.append(1)) is None
    assert ran == [1]
    with pytest.raises(LookupError, match="mine"):
        databases.on_commit(functools.partial(fail, "mine"))
    databases.on_commit(functools.partial(fail, "mine"), None, True)
    databases.on_commit(functools.partial(fail, "mine"), robust=True)


def fail(message: str) -> None:
    raise LookupError(message)


def test_it_waits_for_the_outermost_commit_in_order(databases: Any, Book: Any, ran: list[Any]) -> None:
    """When they run, no block is open, and the rows are committed."""
    with databases.atomic():
        databases.on_commit(lambda: ran.append("first"))
        with databases.atomic():
            databases.on_commit(lambda: ran.append("second"))
            with databases.atomic(savepoint=False):
                databases.on_commit(lambda: ran.append("third"))
        Book(title="a").save()
        databases.on_commit(lambda: ran.append((Book.objects.count(), innermost())))
        assert ran == []
    assert ran == ["first", "second", "third", (1, None)]
    with databases.atomic():
        pass
    assert len(ran) == 4


def test_a_rollback_drops_them_for_good(databases: Any, ran: list[Any]) -> None:
    """A later transaction does not run them."""
    with contextlib.suppress(LookupError), databases.atomic():
        databases.on_commit(lambda: ran.append(1))
        raise LookupError
    with databases.atomic():
        databases.on_commit(lambda: ran.append(2))
    assert ran == [2]


def test_a_savepoint_drops_those_that_were_given_in_it(databases: Any, ran: list[Any]) -> None:
    """And those of the blocks inside it; those of the surrounding block stay."""
    with databases.atomic():
        databases.on_commit(lambda: ran.append("a"))
        with contextlib.suppress(LookupError), databases.atomic():
            databases.on_commit(lambda: ran.append("lost"))
            with databases.atomic():
                databases.on_commit(lambda: ran.append("lost, too"))
            with databases.atomic(savepoint=False):
                databases.on_commit(lambda: ran.append("lost as well"))
            raise LookupError
        databases.on_commit(lambda: ran.append("b"))
        with databases.atomic():
            databases.on_commit(lambda: ran.append("c"))
            with contextlib.suppress(LookupError), databases.atomic():
                databases.on_commit(lambda: ran.append("lost"))
                raise LookupError
    assert ran == ["a", "b", "c"]


def test_a_doomed_block_runs_none(databases: Any, Book: Any, ran: list[Any]) -> None:
    Book(title="a").save()
    with pytest.raises(TransactionError), databases.atomic():
        databases.on_commit(lambda: ran.append(1))
        with contextlib.suppress(IntegrityError):
            Book(title="a").save()
        databases.on_commit(lambda: ran.append(2))
    with databases.atomic():
        pass
    assert ran == []


def test_all_run_and_the_first_error_is_raised_after_the_commit(
    databases: Any, Book: Any, ran: list[Any]
) -> None:
    """The row is committed, and the instance stays saved; further errors are notes."""
    book = Book(title="a")
    with pytest.raises(AfterCommitError, match="first") as caught, databases.atomic():
        book.save()
        databases.on_commit(functools.partial(fail, "first"))
        databases.on_commit(lambda: ran.append(1))
        databases.on_commit(functools.partial(fail, "second"))
    assert isinstance(caught.value.__cause__, LookupError)
    (note,) = caught.value.__notes__
    assert note.endswith("failed as well: LookupError('second')")
    assert ran == [1]
    assert (book._state.adding, Book.objects.get().title) == (False, "a")
    with databases.atomic():
        pass
    assert ran == [1]


def test_a_robust_one_is_logged(databases: Any, ran: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    """And the other functions run."""
    caplog.set_level(logging.DEBUG, logger="microorm.transactions")

    def notify() -> None:
        fail("gone")

    with databases.atomic():
        databases.on_commit(notify, robust=True)
        databases.on_commit(lambda: ran.append(1))
    assert ran == [1]
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("microorm.transactions", "ERROR")
    assert record.getMessage().endswith("notify failed: gone")
    assert record.exc_info is not None


def test_what_a_function_opens_and_gives_is_its_own(databases: Any, Book: Any, ran: list[Any]) -> None:
    """Functions registered in a block of its own run at the commit of that block; without a block, at once."""

    def first() -> None:
        ran.append("first")
        with databases.atomic():
            Book(title="a").save()
            databases.on_commit(lambda: ran.append("inner"))
        databases.on_commit(lambda: ran.append("at once"))

    with databases.atomic():
        databases.on_commit(first)
        databases.on_commit(lambda: ran.append("second"))
    assert ran == ["first", "inner", "at once", "second"]
    assert Book.objects.count() == 1


def test_each_alias_has_its_own(databases: Any, ran: list[Any]) -> None:
    """By name; without an open block on that alias, at once."""
    with databases.atomic():
        databases.on_commit(lambda: ran.append("there"), using="other")
        assert ran == ["there"]
        databases.on_commit(lambda: ran.append("here"), using="default")
        with databases.atomic("other"):
            databases.on_commit(lambda: ran.append("here, later"), "default")
            databases.on_commit(lambda: ran.append("there, soon"), "other")
        assert ran == ["there", "there, soon"]
    assert ran == ["there", "there, soon", "here", "here, later"]


def test_without_a_name_it_is_the_current_alias(databases: Any, ran: list[Any]) -> None:
    """The innermost of open block, `using()` block and running receiver."""
    with databases.atomic("other"):
        databases.on_commit(lambda: ran.append("block"))
        with databases.using("default"):
            databases.on_commit(lambda: ran.append("using"))
            assert ran == ["using"]
            with ReceiverScope(databases, "other"):
                databases.on_commit(lambda: ran.append("receiver"))
                with ReceiverScope(databases, "default"):
                    databases.on_commit(lambda: ran.append("inner receiver"))
    assert ran == ["using", "inner receiver", "block", "receiver"]


def test_what_cannot_be_called_or_run_is_refused(databases: Any) -> None:
    """TypeError; an unknown alias is UnknownAlias."""
    for function in (5, None, "name"):
        with pytest.raises(TypeError) as caught:
            databases.on_commit(function)
        assert str(caught.value) == f"on_commit() needs a function, not {function!r}"
    with pytest.raises(UnknownAlias, match=r"^no database named 'othre'; configured: .*; nearest: 'other'$"):
        databases.on_commit(print, using="othre")


def test_each_thread_has_its_own(databases: Any, ran: list[Any]) -> None:
    """A function does not wait for a block of another thread."""
    with databases.atomic(readonly=True):
        databases.on_commit(lambda: ran.append("mine"))
        thread = threading.Thread(target=databases.on_commit, args=[lambda: ran.append("at once")])
        thread.start()
        thread.join()
        assert ran == ["at once"]
    assert ran == ["at once", "mine"]
