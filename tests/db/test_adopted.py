"""`adopted`: models use a connection of the program, and do not end its transaction."""

from typing import Any

import pytest
from sqlalchemy import text

import microorm
from microorm import Databases, Field, TransactionError, field
from microorm.db.blocks import adopted, forbidden


@pytest.fixture
def Book(Base: Any, registry: microorm.Registry) -> Any:
    class Book(Base):
        title: Field[str] = field(max_length=40)

    registry.create_all()
    return Book


def test_what_models_write_is_the_lenders_to_commit(Book: Any, databases: Databases) -> None:
    with databases.engine("other").connect() as connection:
        connection.begin()
        with adopted(databases, ("other",), connection):
            Book(title="Dune").save()  # to the adopted alias, which is the current one
            assert connection.execute(text("SELECT title FROM book")).scalars().all() == ["Dune"]
            assert Book.objects.count() == 1
        connection.rollback()
    assert Book.objects.using("other").count() == 0


def test_blocks_in_it_are_savepoints(Book: Any, databases: Databases) -> None:
    with databases.engine().connect() as connection:
        connection.begin()
        with adopted(databases, ("default",), connection):
            Book(title="kept").save()
            with pytest.raises(LookupError, match="enough"), databases.atomic():
                Book(title="undone").save()
                raise LookupError("enough")
        connection.commit()
    assert [book.title for book in Book.objects] == ["kept"]


def test_instances_are_put_back_after_an_error(Book: Any, databases: Databases) -> None:
    book = Book(title="Dune")
    with databases.engine().connect() as connection:
        connection.begin()
        with pytest.raises(LookupError, match="enough"), adopted(databases, ("default",), connection):
            book.save()
            raise LookupError("enough")
        connection.rollback()
    assert book.pk is None
    assert book._state.adding


def test_functions_run_when_the_lender_has_committed(Book: Any, databases: Databases) -> None:
    told: list[str] = []
    with databases.engine().connect() as connection:
        with adopted(databases, ("default",), connection):
            connection.begin()
            databases.on_commit(lambda: told.append("done"))
            connection.commit()
            assert told == []
        assert told == ["done"]


def test_what_is_closed_is_reached_by_nothing(Book: Any, databases: Databases) -> None:
    book = Book(title="Dune").save()
    with forbidden(databases, "for a test", but=("other",)):
        for use in (
            book.save,
            book.delete,
            Book.objects.all,
            lambda: Book.objects.get(pk=1),
            book.refresh_from_db,
        ):
            with pytest.raises(TransactionError, match="'default' cannot be used: for a test"):
                use()
        with pytest.raises(TransactionError), databases.connection():
            pass
        with pytest.raises(TransactionError), databases.atomic():
            book.save()
        assert Book.objects.using("other").count() == 0
    assert Book.objects.count() == 1
