"""Instances by the user's own SQL."""

from datetime import UTC, date, datetime
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError

from microorm import Field, FieldError, Model, field

MEMORY = pytest.mark.backends("sqlite-memory")


def titles(found: Any) -> str:
    return "".join(book.title for book in found)


class Colour(Enum):
    """A field's type."""

    RED = "r"
    BLUE = "b"


def test_raw_sql_gives_instances(Book, shelf, databases, backend):
    """In any order of columns; parameters by name; nothing counts as changed."""
    found = Book.objects.raw(
        "SELECT tags, price, id, title, pages FROM book WHERE pages > :least AND title LIKE '%' ORDER BY pages",
        {"least": 2},
    )
    assert titles(found) == "cde"
    assert found == Book.objects.filter(Book.pages > 2).order_by("title").all()
    assert [vars(each) for each in found] == [vars(each) for each in Book.objects.filter(Book.pages > 2)]
    found[0].tags.append("x")
    assert found[0].changes() == {"tags": ([], ["x"])}
    found[0].save()
    assert Book.objects.get(title="c").tags == ["x"]
    with databases.atomic(readonly=True):
        assert len(Book.objects.raw("SELECT * FROM book")) == 5
    for sql, message in (
        ("SELECT id, title FROM book", "raw(): the SQL for Book does not select the column 'pages'"),
        (
            "SELECT book.*, 1 AS odd FROM book",
            "raw(): the SQL selects 'odd', which is not a column of Book",
        ),
    ):
        with pytest.raises(FieldError) as raised:
            Book.objects.raw(sql)
        assert str(raised.value) == message
    with pytest.raises(DBAPIError):
        Book.objects.raw("SELECT * FROM nowhere")


def test_raw_sql_takes_values_as_fields_do(registry):
    """Moments, days, UUIDs and members, as they are stored."""

    class Thing(Model[UUID], registry=registry):
        at: Field[datetime]
        local: Field[datetime] = field(timezone=False)
        day: Field[date]
        colour: Field[Colour]

    registry.create_all("default")
    moment = datetime(2024, 2, 29, 12, 30, 1, 5, tzinfo=UTC)
    thing = Thing(
        at=moment, local=moment.replace(tzinfo=None), day=date(2024, 2, 29), colour=Colour.RED
    ).save()
    early = moment.replace(year=2020)
    Thing(at=early, local=early.replace(tzinfo=None), day=early.date(), colour=Colour.BLUE).save()
    for name in ("id", "at", "local", "day", "colour"):
        found = Thing.objects.raw(
            f"SELECT * FROM thing WHERE {name} = :value", {"value": getattr(thing, name)}
        )
        assert found == [thing], name


def test_raw_sql_that_writes_is_committed(Book, stored):
    """What the SQL does is its own affair; with nothing open it commits by itself."""
    (book,) = Book.objects.raw(
        "INSERT INTO book (title, pages, tags) VALUES ('new', 9, :tags) RETURNING *", {"tags": "[]"}
    )
    assert (book.title, book.tags, stored(Book, "title")[-1]) == ("new", [], "new")


def test_raw_wants_a_str_that_selects(Book, shelf, stored):
    """What gives no rows gives no instances; what the SQL did is its own affair."""
    with pytest.raises(FieldError, match="^raw\\(\\): the SQL for Book selects nothing$"):
        Book.objects.raw("UPDATE book SET pages = 0")
    assert stored(Book, "pages") == [0] * 5
    for wrong in (None, 3, b"SELECT * FROM book"):
        with pytest.raises(TypeError) as raised:
            Book.objects.raw(wrong)
        assert str(raised.value) == f"raw() takes SQL as a str, not {wrong!r}"
