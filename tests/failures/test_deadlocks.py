"""Deadlocks: the database ends one of two transactions, and MariaDB rolls back all of it with its savepoints.

Which one is ended is determined: on PostgreSQL the one that checks for deadlocks at once, on MariaDB the one that has
changed fewer rows.
"""

import threading
from collections.abc import Callable, Iterator
from time import sleep
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

import microorm
from microorm import TransactionError

pytestmark = pytest.mark.servers_only

DEADLOCK = r"(?i)deadlock"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE pid = :id AND wait_event_type = 'Lock'"


@pytest.fixture
def impatient_url(backend: str, url: str) -> str:
    """A URL whose connections check for deadlocks as soon as they wait."""
    if backend == "mariadb":
        return url
    address = make_url(url)
    options = f"{address.query['options']} -cdeadlock_timeout=1ms"
    return address.update_query_dict({"options": options}).render_as_string(hide_password=False)


@pytest.fixture
def databases(impatient_url: str, on_its_way: Any) -> Iterator[microorm.Databases]:
    """The alias `default`, whose transactions are ended."""
    with microorm.Databases(impatient_url) as databases:
        yield on_its_way(databases)


@pytest.fixture
def cross(backend: str, url: str, find_server: Any, books: Any) -> Iterator[Callable[[], None]]:
    """Make another transaction that has changed the second book wait for the first, which the test has changed."""
    engine = create_engine(url, poolclass=NullPool)
    server = find_server(backend)
    other = engine.connect()
    backend_id = other.scalar(text("SELECT pg_backend_pid()")) if backend == "postgresql" else None
    # By key and one by one: a search would lock the rows that it reads.
    change = text("UPDATE book SET pages = pages + 100 WHERE id = :id")
    other.execute(change, [{"id": book.id} for book in books[1:]])
    errors: list[BaseException] = []

    def wait_for_the_first() -> None:
        try:
            other.execute(change, {"id": books[0].id})
            other.commit()
        except BaseException as error:  # noqa: BLE001 shown below, by the thread that can fail the test
            errors.append(error)

    thread = threading.Thread(target=wait_for_the_first)

    def cross() -> None:
        thread.start()
        # PostgreSQL checks once per wait, so the deadlock must exist by then; MariaDB always detects it.
        while backend_id and thread.is_alive() and server._run(WAITING, id=backend_id) != [1]:
            sleep(0.005)

    yield cross
    if thread.ident is not None:
        thread.join()
    other.close()
    assert errors == []


@pytest.fixture
def books(Book: Any) -> list[Any]:
    """The two books in conflict, and others that make the other transaction the larger one."""
    return [Book(title=title).save() for title in ("first", "second", *"abcdefgh")]


def pages(Book: Any) -> list[int]:
    """Return the stored pages of the two books."""
    return [Book.objects.get(title=title).pages for title in ("first", "second")]


def test_a_deadlock_undoes_the_block(
    databases: Any, Book: Any, books: Any, cross: Any, titles: Any, look: Any
) -> None:
    """Completely, and with an error; then the same block succeeds."""
    first, second, *_ = books
    new, ran = Book(title="new"), []
    first.pages = second.pages = 1
    before = [look(each) for each in (first, second, new)]
    with pytest.raises(TransactionError, match="was rolled back") as caught, databases.atomic():
        databases.on_commit(lambda: ran.append("committed"))
        new.save()
        first.save()
        cross()
        with pytest.raises(OperationalError, match=DEADLOCK) as deadlock:
            second.save()
        assert not deadlock.value.connection_invalidated
        with pytest.raises(TransactionError, match="^the block on 'default' is doomed by an earlier error: "):
            Book(title="half").save()
    assert caught.value.__cause__ is deadlock.value
    assert [look(each) for each in (first, second, new)] == before
    assert not {"new", "half"} & set(titles())
    assert ran == []
    with databases.atomic():
        new.save()
        first.save()
        second.save()
    assert pages(Book) == [1, 1]
    assert "new" in titles()


def test_a_deadlock_that_goes_on_as_it_is(
    databases: Any, Book: Any, books: Any, cross: Any, titles: Any
) -> None:
    """If it is not caught, it leaves the block unchanged, so that the program can recognize it and try again."""
    first, second, *_ = books
    first.pages = second.pages = 1
    with pytest.raises(OperationalError, match=DEADLOCK), databases.atomic(), databases.atomic():
        first.save()
        Book(title="new").save()
        cross()
        second.save()
    assert first.changes() == {"pages": (0, 1)}
    assert "new" not in titles()


@pytest.mark.parametrize("by_sql", [False, True])
def test_a_deadlock_in_a_nested_block_leaves_no_half(
    databases: Any, backend: str, Book: Any, books: Any, cross: Any, titles: Any, look: Any, by_sql: bool
) -> None:
    """PostgreSQL rolls back to the savepoint; MariaDB has lost it, and the outer block is doomed."""
    first, second, *_ = books
    new, inner, ran = Book(title="new"), Book(title="inner"), []
    first.pages = 1
    before = [look(each) for each in (first, new, inner)]

    def block() -> None:
        with databases.atomic():
            databases.on_commit(lambda: ran.append("outer"))
            new.save()
            first.save()
            with pytest.raises(OperationalError, match=DEADLOCK), databases.atomic():
                inner.save()
                cross()
                if by_sql:
                    with databases.connection() as connection:
                        connection.execute(text(f"UPDATE book SET pages = 1 WHERE id = {second.id}"))
                else:
                    second.pages = 1
                    second.save()
            assert look(inner) == before[2]
            if backend == "mariadb":
                with pytest.raises(TransactionError, match="is doomed by an earlier error: .*[Dd]eadlock"):
                    Book(title="half").save()
            else:
                Book(title="after").save()

    if backend == "mariadb":
        with pytest.raises(TransactionError, match="was rolled back") as caught:
            block()
        assert isinstance(caught.value.__cause__, OperationalError)
        assert [look(each) for each in (first, new, inner)] == before
        assert not {"new", "inner", "after", "half"} & set(titles())
        assert ran == []
    else:
        block()
        assert {"new", "after"} <= set(titles())
        assert "inner" not in titles()
        assert ran == ["outer"]
    Book(title="later").save()
    with databases.atomic():
        inner.save()
    assert {"inner", "later"} <= set(titles())
