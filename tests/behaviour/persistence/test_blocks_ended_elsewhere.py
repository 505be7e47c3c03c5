"""A block whose transaction was ended through its connection raises an error, and values read in it are restored."""

from typing import Any

import pytest

from microorm import Field, Registry, TransactionError, field
from microorm.db.engines.engine import Database
from microorm.signals import post_save


@pytest.fixture
def Book(Base: Any, registry: Any) -> Any:
    """A model with a table on `default`."""

    class Book(Base):
        title: Field[str] = field(default="")
        pages: Field[int] = field(default=0)

    registry.create_all("default")
    return Book


@pytest.mark.parametrize("end", ["rollback", "commit", "close"])
def test_a_block_ended_through_its_connection_is_an_error(databases: Any, Book: Any, end: str) -> None:
    """The rollback is reported, and no `on_commit` function runs for a row that may be gone."""
    told: list[str] = []
    book = Book(title="a")

    def notify(**kwargs: Any) -> None:
        told.append("receiver")

    post_save.connect(notify, sender=Book, delivery="on_commit")
    with pytest.raises(TransactionError) as caught:
        with databases.atomic():
            book.save()
            databases.on_commit(lambda: told.append("hook"))
            with databases.connection() as connection:
                getattr(connection, end)()
    assert "the transaction of the block on 'default' was ended through its connection" in str(caught.value)
    assert told == []
    assert (book.pk, book._state.adding) == (None, True)
    assert Book.objects.count() == (1 if end == "commit" else 0)
    assert Book(title="later").save().pk is not None


def test_no_statement_follows_in_a_block_that_was_ended(databases: Any, Book: Any) -> None:
    with pytest.raises(TransactionError) as caught:
        with databases.atomic():
            with databases.connection() as connection:
                connection.rollback()
            Book(title="a").save()
    assert (
        str(caught.value.__cause__)
        == "the transaction of the block on 'default' was ended through its connection"
    )
    assert Book.objects.count() == 0


def test_an_outer_block_is_ended_with_the_inner_one(databases: Any, Book: Any) -> None:
    with pytest.raises(TransactionError):
        with databases.atomic():
            Book(title="a").save()
            with pytest.raises(TransactionError):
                with databases.atomic(), databases.connection() as connection:
                    connection.rollback()
    assert Book.objects.count() == 0


def test_what_was_read_in_a_block_is_undone_with_it(databases: Any, Book: Any) -> None:
    """The key is removed, although the refresh has replaced it by an equal one."""
    Book.objects.bulk_create([Book(title="first") for _ in range(300)])
    book = Book(title="a")
    with pytest.raises(LookupError):
        with databases.atomic():
            book.save()
            assert book.pk > 256  # not a small int, which Python caches
            book.refresh_from_db()
            raise LookupError
    assert (book.pk, book._state.adding, book._state.db) == (None, True, None)
    other = Book(title="other").save()
    book.save()
    assert sorted({each.title for each in Book.objects}) == ["a", "first", "other"]
    assert book.pk != other.pk


def test_a_refresh_of_an_update_that_is_rolled_back_counts_as_it_was(databases: Any, Book: Any) -> None:
    book = Book(title="a", pages=9).save()
    with pytest.raises(LookupError):
        with databases.atomic():
            Book.objects.filter(id=book.id).update(pages=1077)
            book.refresh_from_db()
            assert book.pages == 1077
            raise LookupError
    assert book.pages == 9
    assert book.changed_fields == frozenset()


@pytest.mark.backends("mariadb")
def test_a_block_is_not_committed_by_making_a_table(databases: Any, Book: Any) -> None:
    """MariaDB commits when a table is created; inside a block this is refused before any SQL."""
    registry = Registry(databases)
    with databases.atomic():
        Book(title="a").save()
        for make in (registry.create_all, registry.drop_all):
            with pytest.raises(TransactionError) as caught:
                make("default")
            assert str(caught.value) == (
                "'default' would commit the open block, since MariaDB commits when tables are created or dropped"
            )
    assert Book.objects.count() == 1


@pytest.mark.backends("sqlite-memory")
def test_a_block_on_databases_that_were_closed_meanwhile_is_an_error(databases: Any, Book: Any) -> None:
    """Another thread may close them; a block does not continue on the old connections."""
    database = databases._databases["default"]
    with databases.atomic():
        databases._databases["default"] = other = Database("default", "sqlite://", lambda *_: None)
        with pytest.raises(TransactionError) as caught:
            Book(title="a").save()
        assert str(caught.value) == "the databases were closed while a block was open on 'default'"
        databases._databases["default"] = database
    other.close()
