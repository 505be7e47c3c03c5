"""Values in expressions: checked, bound and read back as those of the field, or refused before any SQL."""

import enum
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    Date,
    DateTime,
    Double,
    LargeBinary,
    and_,
    any_,
    case,
    cast,
    func,
    literal,
    select,
    tuple_,
)

from microorm import Field, FieldError, ForeignKey, InvalidValue, UnsavedError, field, foreign_key
from microorm.testing import count_statements


class State(enum.Enum):
    OPEN = "open"
    DONE = "done"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


NO_SQL = pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")  # what is refused before any
NOON = datetime(2024, 7, 1, 12, tzinfo=timezone(timedelta(hours=2)))
YEAR = timedelta(days=365)


@pytest.fixture
def Author(Base: Any) -> Any:
    class Author(Base):
        name: Field[str] = field(max_length=9)
        code: Field[int] = field(unique=True)

    return Author


@pytest.fixture
def Book(Base: Any, registry: Any, Author: Any) -> Any:
    class Book(Base):
        title: Field[str] = field(default="a", max_length=9)
        title_1: Field[str] = field(default="", max_length=9)
        pages: Field[int] = field(default=7)
        price: Field[Decimal] = field(default=Decimal("1.10"), max_digits=8, decimal_places=2)
        rate: Field[Decimal] = field(default=Decimal("0.3333"), max_digits=8, decimal_places=4)
        ratio: Field[float] = field(default=0.5)
        open: Field[bool] = field(default=True)
        state: Field[State] = field(default=State.OPEN)
        level: Field[Level] = field(default=Level.LOW)
        at: Field[datetime] = field(default=NOON)
        day: Field[date] = field(default=date(2024, 2, 28))
        took: Field[timedelta] = field(default=timedelta(hours=36))
        uid: Field[UUID | None] = field(default=None)
        data: Field[dict[str, Any] | None] = field(default=None)
        author: ForeignKey[Author | None] = foreign_key()
        editor: ForeignKey[Author | None] = foreign_key(to_field="code")

    registry.create_all("default")
    ada = Author(name="Ada", code=9).save()
    Book(author=ada, editor=ada).save()
    Book(author=None, editor=None, title="b", pages=-7).save()
    return Book


WRONG: dict[str, Any] = {
    "a number for text": lambda b: b.title == 0,
    "false for text": lambda b: b.title == False,  # noqa: E712 SQL's false
    "true for a number": lambda b: b.pages == True,  # noqa: E712 SQL's true
    "a number among texts": lambda b: b.title.in_(["a", 0]),
    "a number for a function's text": lambda b: func.lower(b.title) == 0,
    "a number in text": lambda b: b.title.contains(0),
    "a pattern for a date": lambda b: b.day.like("2024%"),
    "text for a number": lambda b: b.pages > "1 or so",
    "too large a number": lambda b: b.pages.between(0, 2**70),
    "too large a number for a result": lambda b: b.pages + 1 < 2**70,
    "text for a UUID": lambda b: b.uid != "text",
    "a date for a moment": lambda b: b.at > date(2024, 1, 1),
    "a naive moment": lambda b: func.coalesce(b.at, NOON) < NOON.replace(tzinfo=None),
    "a value for a member": lambda b: b.state == "open",
    "another type of column": lambda b: b.title == b.pages,
    "in a case": lambda b: case((b.state == "open", 1), else_=2) == 1,
    "in a branch": lambda b: case((b.pages > 1, "open"), else_=b.state) == State.OPEN,
    "in a sub-select": lambda b: b.id.in_(select(b.id).where(b.title == 0)),
    "in a row": lambda b: tuple_(b.id, b.title).in_([(1, 2)]),
    "at the end of a path": lambda b: b.author.name == 0,
    "an instance of another model": lambda b: b.id == b.__test_author__,
    "an instance for no key": lambda b: b.pages.in_([b.__test_author__]),
}


@pytest.mark.filterwarnings(
    "ignore::sqlalchemy.exc.SADeprecationWarning"
)  # SQLAlchemy warns of some operators
@NO_SQL
def test_a_wrong_operand_is_an_error_before_any_sql(Book: Any, Author: Any, registry: Any, subtests) -> None:
    Book.__test_author__ = Author.objects.get()
    for what, condition in WRONG.items():
        with subtests.test(what), count_statements(databases=registry.databases) as sent:
            for method in (Book.objects.filter, Book.objects.exclude):
                with pytest.raises(InvalidValue):
                    method(condition(Book)).delete()
            with pytest.raises(InvalidValue):
                Book.objects.order_by(case((condition(Book), 1), else_=2)).values("id")
            with pytest.raises(FieldError):  # a column of a path is refused as such
                Book.objects.update(title=case((condition(Book), "x"), else_="y"))
        assert sent.count == 0, what


@pytest.mark.backends("postgresql", "mariadb")
def test_a_sub_select_may_be_compared_as_a_whole(Book: Any) -> None:
    others = select(Book.pages).where(Book.title == "b").scalar_subquery()
    assert Book.objects.filter(Book.pages == any_(others)).scalars("title") == ["b"]
    with pytest.raises(InvalidValue):
        Book.objects.filter(Book.title == any_(others))


def test_the_error_names_the_field_as_that_of_a_keyword_does(Book: Any) -> None:
    with pytest.raises(InvalidValue) as by_keyword:
        Book.objects.filter(title=0)
    with pytest.raises(InvalidValue) as by_expression:
        Book.objects.filter(Book.title == 0)
    assert str(by_expression.value) == str(by_keyword.value)
    assert by_expression.value.problems == by_keyword.value.problems


def test_an_instance_stands_for_the_key_that_the_column_refers_to(Book: Any, Author: Any) -> None:
    ada = Author.objects.get()
    for condition in (
        Book.author_id == ada,
        Book.editor_id == ada,
        Book.author_id.in_([ada]),
        Book.author.id == ada,
    ):
        assert Book.objects.filter(condition).scalars("title") == ["a"]
    assert Author.objects.filter(Author.id == ada).count() == 1
    assert Book.objects.update(author_id=case((Book.pages < 0, ada), else_=None)) == 2
    assert Book.objects.get(Book.author_id == ada).title == "b"
    with pytest.raises(UnsavedError):
        Book.objects.filter(Book.author_id == Author(name="x", code=1))


def test_a_query_in_a_list_is_a_subquery_of_its_keys(Book: Any, Author: Any, registry: Any) -> None:
    Author(name="Bob", code=2).save()
    adas = Author.objects.filter(name="Ada")
    for query in (adas, adas.order_by("id")[:1], Author.objects.filter(Author.id > 0).distinct()):
        with count_statements(databases=registry.databases) as sent:
            assert Book.objects.filter(Book.author_id.in_(query)).scalars("title") == ["a"]
        assert sent.count == 1
    assert Book.objects.exclude(Book.author_id.in_(adas)).scalars("title") == ["b"]
    assert Book.objects.filter(Book.id.in_(Book.objects.filter(Book.pages < 0))).scalars("title") == ["b"]
    with pytest.raises(FieldError, match="refers to Author.code"):
        Book.objects.filter(Book.editor_id.in_(adas))
    for one in (lambda: Book.author_id == adas, lambda: case((Book.pages > 1, adas), else_=1) == 1):
        with pytest.raises(FieldError, match="use it with in_"):
            Book.objects.filter(one())


BRANCHES: dict[str, tuple[str, Any]] = {
    "a member": ("state", State.DONE),
    "a number's member": ("level", Level.HIGH),
    "a document": ("data", {"x": [1]}),
    "a UUID": ("uid", UUID(int=5)),
    "a moment of another zone": ("at", NOON + YEAR),
    "a date": ("day", date(1999, 1, 1)),
    "a duration": ("took", timedelta(microseconds=-1)),
    "a decimal": ("price", Decimal("9.5")),
}


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
def test_a_value_in_a_branch_is_that_of_the_column(Book: Any, subtests, undone) -> None:
    for what, (name, value) in BRANCHES.items():
        with subtests.test(what), undone():
            check_branch(Book, name, value)


def check_branch(Book: Any, name: str, value: Any) -> None:
    column, books = getattr(Book, name), Book.objects.order_by("id")
    other = books[0].__dict__[name]
    branch = case((Book.pages < 0, value), else_=column)
    assert books.scalars(branch) == books.scalars(branch.label("x")) == [other, value]
    assert books.scalars(func.nullif(branch, value)) == [other, None]
    if name != "data":
        assert books.filter(branch == value).scalars("title") == ["b"]
    assert Book.objects.update(**{name: branch}) == 2
    assert books.scalars(name) == [other, value]
    book = books[0]
    setattr(book, name, func.coalesce(literal(None), value))
    assert getattr(book.save(), name) == value


def test_values_that_nothing_decides_about_come_back_as_they_are(Book: Any) -> None:
    first = Book.objects.order_by("id")[:1]
    for value in (NOON, timedelta(days=3), State.DONE, UUID(int=7), {"a": 1}, date(2024, 1, 1), time(1, 2)):
        assert first.scalars(case((Book.pages > 0, value), else_=value)) == [value]


def test_the_same_expression_serves_several_fields(Book: Any) -> None:
    one = case((Book.pages > 0, 1), else_=2)
    assert Book.objects.update(price=one, pages=one) == 2
    assert [tuple(row) for row in Book.objects.order_by("id").values("price", "pages")] == [(1, 1), (2, 2)]
    shared = Book.pages == 1
    assert [Book.objects.filter(shared).count(), Book.objects.filter(and_(shared, shared)).count()] == [1, 1]


def test_a_value_too_long_for_its_field_is_refused_where_it_is_written_alone(Book: Any) -> None:
    assert Book.objects.filter(case((Book.pages > 0, "x" * 20), else_=Book.title) == "x" * 20).count() == 1
    with pytest.raises(InvalidValue, match="at most 9"):
        Book.objects.update(title=case((Book.pages > 0, "x" * 20), else_=Book.title))


def test_a_column_may_be_named_as_a_parameter_would_be(Book: Any) -> None:
    assert Book.objects.filter(title="a").update(title_1="y") == 1
    assert Book.objects.filter(Book.title == "a").update(title_1="z") == 1
    book = Book.objects.get(title="a")
    book.pages, book.title_1 = case((Book.title == "a", 3), else_=4), "q"
    assert (book.save().pages, book.title_1) == (3, "q")
    fresh = Book(title=func.substr(literal("abc"), 1), title_1="n", author=None, editor=None).save()
    assert (fresh.title, fresh.title_1, Book.objects.get(title="abc").id) == ("abc", "n", fresh.id)


RESULTS: dict[str, tuple[Any, Any]] = {
    "a member and a number": (lambda b: b.level + 1, 2),
    "a sum of members": (lambda b: func.sum(b.level).over(), 2),
    "the greatest member and a number": (lambda b: func.max(b.level).over() + 1, 2),
    "decimals of different places": (lambda b: b.price * b.rate, Decimal("0.36663")),
    "a decimal and a value of more places": (lambda b: b.price * Decimal("0.33333"), Decimal("0.366663")),
    "a number and a decimal": (lambda b: b.pages * b.price, Decimal("7.70")),
    "a sum of decimals": (lambda b: b.price + b.price + b.price, Decimal("3.30")),
    "a quotient as float": (lambda b: cast(b.price, Double) / 4, 0.275),
    "a quotient rounded down": (lambda b: -b.pages // 2, -4),
    "a moment and a duration": (
        lambda b: b.at + timedelta(days=40, microseconds=1),
        NOON + timedelta(40, 0, 1),
    ),
    "a moment and a column": (lambda b: b.at - b.took, NOON - timedelta(hours=36)),
    "a column and a moment": (lambda b: b.took + b.at, NOON + timedelta(hours=36)),
    "moments": (lambda b: b.at - (NOON - timedelta(microseconds=3)), timedelta(microseconds=3)),
    "a moment and a column of them": (lambda b: NOON + YEAR - b.at, YEAR),
    "a date and days": (lambda b: b.day + timedelta(days=2), date(2024, 3, 1)),
    "a date less days": (lambda b: b.day - timedelta(days=59), date(2023, 12, 31)),
    "dates": (lambda b: b.day - date(2024, 3, 1), timedelta(days=-2)),
    "a duration and a number": (lambda b: b.took / 8, timedelta(hours=4.5)),
    "a number and a duration": (lambda b: b.pages * b.took, timedelta(hours=252)),
}


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
def test_arithmetic_has_the_same_result_on_every_database(Book: Any, subtests) -> None:
    """As a column, and in a condition where it may stand there."""
    for what, (make, result) in RESULTS.items():
        with subtests.test(what):
            of_all = "sum of members" in what or "greatest" in what
            first = Book.objects if of_all else Book.objects.filter(Book.pages > 0)
            assert first.scalars(make(Book))[0] == result
            if not of_all:
                assert first.filter(make(Book) == result).count() == 1
                assert first.exclude(make(Book) == result).count() == 0


UNDEFINED: dict[str, Any] = {
    "a date and hours": lambda b: b.day + timedelta(hours=30),
    "a date and a number": lambda b: b.day + 1,
    "a moment and a number": lambda b: b.at - 1,
    "a moment and a date": lambda b: b.at - b.day,
    "a decimal and a float": lambda b: b.price * 1.5,
    "a float and a decimal": lambda b: cast(b.price, b.ratio.type) * Decimal("1.5"),
    "a quotient of decimals": lambda b: b.price / 3,
    "a quotient of integers": lambda b: b.pages / b.pages,
    "a remainder of decimals": lambda b: b.price % 1,
    "text and a number": lambda b: b.title + 1,
    "a condition and a number": lambda b: b.open + 1,
    "a sum of texts": lambda b: func.sum(b.title),
    "bytes": lambda b: cast(b.title, LargeBinary) + b"x",
    "bytes that are joined": lambda b: cast(b.title, LargeBinary).concat(b"x"),
    "a power of a decimal": lambda b: b.price**2,
    "bits of an integer": lambda b: b.pages.bitwise_or(3),
    "bits of integers that may be negative": lambda b: b.pages.bitwise_and(b.pages),
    "a number of unknown kind, rounded down": lambda b: func.floor(b.ratio) // 2,
    "bytes in a text function": lambda b: func.concat(cast(b.title, LargeBinary), b"x"),
    "a date made of a text value": lambda b: cast("2024-01-01", Date),
    "a moment made of a value with a time zone": lambda b: cast(NOON, DateTime),
    "a date made of a number": lambda b: cast(b.pages, Date),
    "a negative date": lambda b: -b.day,
}


@NO_SQL
@pytest.mark.filterwarnings(
    "ignore::sqlalchemy.exc.SADeprecationWarning"
)  # SQLAlchemy warns of some operators
def test_arithmetic_that_differs_is_an_error_before_any_sql(Book: Any, registry: Any, subtests) -> None:
    for what, expression in UNDEFINED.items():
        with subtests.test(what), count_statements(databases=registry.databases) as sent:
            with pytest.raises(FieldError):
                Book.objects.scalars(expression(Book))
            with pytest.raises(FieldError):
                Book.objects.order_by(expression(Book))
        assert sent.count == 0, what


def test_an_expression_of_another_kind_is_not_written(Book: Any) -> None:
    for name, value in {
        "day": Book.at,
        "title": Book.pages,
        "pages": Book.price * 2,
        "took": Book.pages,
    }.items():
        with pytest.raises(InvalidValue, match=f"Book.{name} must be "):
            Book.objects.update(**{name: value})
    assert Book.objects.update(price=Book.price / 3) == 2
    assert Book.objects.filter(price=Decimal("0.37")).count() == 2


def test_an_update_of_several_columns_uses_what_they_were(Book: Any) -> None:
    assert Book.objects.update(title=Book.title_1, title_1=Book.title, pages=Book.pages + 1) == 2
    assert [tuple(row) for row in Book.objects.order_by("id").values("title", "title_1", "pages")] == [
        ("", "a", 8),
        ("", "b", -6),
    ]


def test_a_row_that_is_inserted_has_no_columns_for_its_expressions(Book: Any, registry: Any) -> None:
    """MariaDB would take the default of the column, so an upsert would overwrite the row."""
    known = Book.objects.order_by("id")[0]
    with count_statements(databases=registry.databases) as sent:
        for attempt in (
            lambda: Book(pages=Book.pages + 1, author=None, editor=None).save(),
            lambda: Book.objects.bulk_create([Book(pages=Book.pages + 1, author=None, editor=None)]),
        ):
            with pytest.raises(FieldError, match="a row that is inserted has no pages"):
                attempt()
        known.pages = Book.pages + 1
        with pytest.raises(FieldError, match="a row that is inserted has no pages"):
            Book.objects.bulk_create([known], on_conflict="update", unique_fields=["id"])
    assert sent.count == 0
    assert Book.objects.order_by("id").scalars("pages") == [7, -7]
