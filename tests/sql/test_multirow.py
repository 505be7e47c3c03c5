"""Multi-row INSERTs on PostgreSQL: the keys are the rows' own, the values what one INSERT of each would store."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

import pytest
from psycopg import ClientCursor, Cursor
from sqlalchemy import event
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.exc import IntegrityError
from sqlalchemy.types import Enum, String

from microorm import Databases, Field, Model, Registry, TransactionError, field
from microorm.sql import batches as multirow
from microorm.sql.batches import multirow_insert
from microorm.sql.statements import plans_of
from microorm.testing import count_statements


class Traced(Cursor[Any]):
    """A cursor that tells what it sends."""

    heard: ClassVar[list[str]] = []

    def execute(self, query: Any, *args: Any, **options: Any) -> Any:
        self.heard.append(str(query))
        return super().execute(query, *args, **options)


pytestmark = pytest.mark.backends("postgresql")


@pytest.fixture
def Book(Base: Any, registry: Any) -> Any:
    """A model with a table on `default`; titles are unique."""

    class Book(Base):
        title: Field[str] = field(max_length=40, unique=True)
        pages: Field[int | None]

    registry.create_all("default")
    return Book


def found(databases: Any, Book: Any, names: tuple[str, ...]) -> Any:
    """What would insert rows of *names* in a block."""
    schema = Book.__schema__
    with (
        databases.atomic(),
        databases.channel(databases.database("default"), writes=True) as it,
    ):
        return multirow_insert(schema, plans_of(schema, it.database), it, names)


def test_the_rows_are_numbered_and_inserted_in_this_order(databases: Any, Book: Any) -> None:
    made = found(databases, Book, ("title", "pages"))
    table = Book.__table__.name
    assert made._text(2) == (
        f"INSERT INTO {table} (title, pages) SELECT v0, v1 FROM "
        "(VALUES ($1::VARCHAR, $2::BIGINT, 0), ($3::VARCHAR, $4::BIGINT, 1)) "
        "AS given (v0, v1, place) ORDER BY place RETURNING id"
    )


def test_each_instance_gets_the_key_of_its_row(
    databases: Any, Book: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over many statements, of which the last has fewer rows."""
    monkeypatch.setattr(multirow, "MAX_VALUES", 20)
    books = [Book(title=f"{number}", pages=number if number % 3 else None) for number in range(57)]
    with databases.atomic(), count_statements("default", databases) as counted:
        Book.objects.bulk_create(books)
    assert sum(each.startswith("INSERT") for each in counted.statements) == 6
    assert [each.id for each in books] == sorted(each.id for each in books)
    stored = {book.id: (book.title, book.pages) for book in Book.objects}
    assert stored == {book.id: (book.title, book.pages) for book in books}
    assert [book.changes() for book in books] == [{}] * 57


def test_rows_are_stored_as_one_by_one(databases: Any, Base: Any, registry: Any) -> None:
    """Values and NULL of every type, also where all rows have NULL, from which a server concludes no type."""

    class Thing(Base):
        flag: Field[bool | None]
        number: Field[int | None]
        share: Field[float | None]
        price: Field[Decimal | None] = field(max_digits=8, decimal_places=2)
        name: Field[str | None] = field(max_length=10)
        body: Field[bytes | None]
        data: Field[dict[str, Any] | None]
        code: Field[UUID | None]
        day: Field[date | None]
        moment: Field[datetime | None]

    registry.create_all("default")
    full = {
        "flag": True,
        "number": 2**31 - 1,
        "share": 0.1,
        "price": Decimal("12.50"),
        "name": "a%s $1 ?",
        "body": b"\0\xff",
        "data": {"a": [1, None, "ü"]},
        "code": UUID(int=7),
        "day": date(2024, 2, 29),
        "moment": datetime(2024, 2, 29, 12, 30, 1, 5, tzinfo=UTC) + timedelta(0),
    }
    empty = dict.fromkeys(full)
    small = {**full, "number": 1, "flag": False}
    names = tuple(full)
    assert found(databases, Thing, names) is not None
    for group in ([full, empty, small], [empty, empty], [full]):
        Thing.objects.delete()
        many = Thing.objects.bulk_create([Thing(**values) for values in group])
        single = [Thing(**values).save() for values in group]
        for left, right in zip(many, single, strict=True):
            one, other = Thing.objects.get(id=left.id), Thing.objects.get(id=right.id)
            assert [getattr(one, name) for name in names] == [getattr(other, name) for name in names]


def test_a_cast_never_cuts_a_text() -> None:
    """A cast to VARCHAR(3) would, where the column refuses."""
    dialect = psycopg.dialect()
    assert multirow._placeholder(0, String(3), dialect) == "$::VARCHAR"
    assert multirow._placeholder(0, Enum("a", "b", native_enum=False), dialect) == "$::VARCHAR"


def test_a_row_that_is_refused_undoes_all_and_dooms_the_block(databases: Any, Book: Any) -> None:
    Book(title="5", pages=1).save()
    books = [Book(title=f"{number}", pages=1) for number in range(8)]
    with pytest.raises(TransactionError), databases.atomic():
        with pytest.raises(IntegrityError) as caught:
            Book.objects.bulk_create(books)
        assert "[SQL parameters hidden due to hide_parameters=True]" in str(caught.value)
        with pytest.raises(TransactionError):
            Book.objects.count()
    assert [each.id for each in books] == [None] * 8
    assert [each.title for each in Book.objects] == ["5"]


def test_who_listens_hears_sqlalchemys_way(databases: Any, Book: Any) -> None:
    heard: list[str] = []
    event.listen(databases.engine(), "before_cursor_execute", lambda *given: heard.append(given[2]))
    assert found(databases, Book, ("title", "pages")) is None
    books = Book.objects.bulk_create([Book(title=f"{number}", pages=1) for number in range(3)])
    assert sum(each.startswith("INSERT") for each in heard) == 1
    assert [each.id for each in books] == [each.id for each in Book.objects.order_by("title")]


def test_no_more_texts_are_kept_than_that(databases: Any, Book: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multirow, "MAX_TEXTS", 2)
    made = found(databases, Book, ("title", "pages"))
    assert made is found(databases, Book, ("title", "pages"))
    for count in range(1, 6):
        made._text(count)
        assert len(made._texts) <= 2


def test_rows_with_keys_of_their_own_need_none_back(databases: Any, Base: Any, registry: Any) -> None:
    class Word(Base):
        text: Field[str] = field(max_length=10, primary_key=True)
        count: Field[int]

    registry.create_all("default")
    Word.objects.bulk_create([Word(text=each, count=1) for each in "abc"])
    assert found(databases, Word, ("text", "count")).made == []
    assert [each.text for each in Word.objects.order_by("text")] == ["a", "b", "c"]


@pytest.mark.parametrize(("factory", "raw"), [(Traced, True), (ClientCursor, False)])
def test_the_cursor_that_somebody_chose_is_used(url: str, factory: Any, raw: bool) -> None:
    """One that traces hears of all; one that puts the values into the text goes on to."""
    Traced.heard.clear()
    with Databases({"default": {"url": url, "connect_args": {"cursor_factory": factory}}}) as databases:
        registry = Registry(databases)

        class Book(Model, registry=registry):
            title: Field[str] = field(max_length=40)

        registry.create_all()
        assert (found(databases, Book, ("title",)) is not None) is raw
        books = Book.objects.bulk_create([Book(title=f"{number}") for number in range(3)])
        assert sum("INSERT" in each for each in Traced.heard) == int(raw)
        assert [each.id for each in books] == [each.id for each in Book.objects.order_by("title")]
