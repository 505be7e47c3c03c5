"""A table or a column that is missing: the error of the database says what to do, whichever way the statement went."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from microorm import Databases, Field, Registry, field

TABLE = [
    "if a model has this table: create_all() creates it, or `microorm migrate` where migrations create the tables"
]
COLUMN = [
    "if a model has this column: the table was created without it, and create_all() does not change a table; `microorm check` "
    "lists all differences, `microorm makemigrations` and `microorm migrate` remove them"
]


def notes_of(act: Callable[[], Any]) -> list[str]:
    with pytest.raises(DBAPIError) as caught:
        act()
    return getattr(caught.value, "__notes__", [])


def test_a_missing_table_is_noted(Base: Any) -> None:
    class Missing(Base):
        name: Field[str]

    assert notes_of(Missing(name="a").save) == TABLE
    assert notes_of(Missing.objects.all) == TABLE
    assert notes_of(lambda: list(Missing.objects.iterate())) == TABLE
    assert notes_of(lambda: Missing.objects.bulk_create([Missing(name="a"), Missing(name="b")])) == TABLE


def test_a_missing_column_is_noted(Book: Any, databases: Databases) -> None:
    book = Book(title="a").save()
    with databases.connection("default") as connection:
        connection.execute(text("ALTER TABLE book DROP COLUMN pages"))
    assert notes_of(Book(title="b").save) == COLUMN
    book.pages = 2
    assert notes_of(book.save) == COLUMN
    assert notes_of(Book.objects.all) == COLUMN
    assert notes_of(lambda: Book.objects.filter(title="a").update(pages=1)) == COLUMN


def test_other_errors_have_no_note(Base: Any, registry: Registry) -> None:
    class Unique(Base):
        name: Field[str] = field(max_length=40, unique=True)

    registry.create_all("default")
    Unique(name="no such table").save()
    with pytest.raises(IntegrityError) as caught:
        Unique(name="no such table").save()
    assert not hasattr(caught.value, "__notes__")
