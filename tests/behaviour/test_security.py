"""Security: no string that a caller passes reaches SQL as SQL. What names nothing is refused before any SQL; values are bound."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import func, text
from sqlalchemy.exc import DBAPIError, StatementError

from microorm import (
    ConfigurationError,
    Databases,
    Field,
    FieldError,
    ForeignKey,
    InvalidValue,
    ManyToMany,
    MicroormError,
    Related,
    field,
    foreign_key,
    many_to_many,
    related,
)
from tests.behaviour.hostile import CORPUS, MARK, SHAPES, UNFIT
from tests.behaviour.wire import ONE_WAY

# What the paths of JSON have no way to say: a clear error.
UNREACHABLE = {"sqlite": '"', "mariadb": "-"}


class Shop:
    """Models with a row each, and what holds them."""

    def __init__(self, databases: Any, registry: Any, author: Any, book: Any, tag: Any) -> None:
        self.databases, self.registry = databases, registry
        self.Author, self.Book, self.Tag = author, book, tag
        self.author = author(name="Ursula").save()
        self.book = book(title="Lathe", author=self.author).save()
        self.books = book.objects


@pytest.fixture
def shop(databases: Any, registry: Any, Base: Any) -> Shop:
    class Author(Base):
        name: Field[str]
        books: Related["Book"] = related("author")

    class Tag(Base):
        name: Field[str] = field(max_length=40)

    class Book(Base):
        title: Field[str]
        isbn: Field[str | None] = field(default=None, max_length=40, unique=True)
        pages: Field[int] = field(default=0)
        extra: Field[dict[str, Any]] = field(default_factory=dict)
        author: ForeignKey[Author] = foreign_key()
        tags: ManyToMany[Tag] = many_to_many()

    registry.create_all("default")
    return Shop(databases, registry, Author, Book, Tag)


SOME = pytest.mark.backends("sqlite-memory", "mariadb")  # what is refused before any SQL
APART = pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")  # a file holds what memory does

Place = Callable[[Shop, str], Any]

NAMES: dict[str, Place] = {
    "order_by": lambda shop, name: shop.books.order_by(name).all(),
    "group_by": lambda shop, name: shop.books.group_by(name).values("title"),
    "having": lambda shop, name: shop.books.having(name).values("title"),
    "values": lambda shop, name: shop.books.values("title", name),
    "scalars": lambda shop, name: shop.books.scalars(name),
    "only": lambda shop, name: shop.books.only(name).all(),
    "defer": lambda shop, name: shop.books.defer(name).all(),
    "select_related": lambda shop, name: shop.books.select_related(name).all(),
    "select_related, further": lambda shop, name: shop.books.select_related(f"author.{name}").all(),
    "prefetch_related": lambda shop, name: shop.books.prefetch_related(name).all(),
    "prefetch_related, further": lambda shop, name: shop.books.prefetch_related(f"tags.{name}").all(),
    "filter": lambda shop, name: shop.books.filter(**{name: 1}).all(),
    "filter by a bare string": lambda shop, name: shop.books.filter(name).all(),
    "exclude": lambda shop, name: shop.books.exclude(**{name: 1}).all(),
    "exclude by a bare string": lambda shop, name: shop.books.exclude(name).all(),
    "get": lambda shop, name: shop.books.get(**{name: 1}),
    "get by a bare string": lambda shop, name: shop.books.get(name),
    "create": lambda shop, name: shop.books.create(title="x", author=shop.author, **{name: 1}),
    "the constructor": lambda shop, name: shop.Book(title="x", author=shop.author, **{name: 1}),
    "get_or_create": lambda shop, name: shop.books.get_or_create(**{name: 1}),
    "get_or_create, defaults": lambda shop, name: shop.books.get_or_create({name: 1}, title="Lathe"),
    "update_or_create": lambda shop, name: shop.books.update_or_create(**{name: 1}),
    "update_or_create, defaults": lambda shop, name: shop.books.update_or_create({name: 1}, title="Lathe"),
    "create_defaults": lambda shop, name: shop.books.update_or_create({}, {name: 1}, title="Lathe"),
    "update": lambda shop, name: shop.books.update(**{name: 1}),
    "aggregate of a string": lambda shop, name: shop.books.aggregate(total=name),
    "update_fields": lambda shop, name: shop.book.save(update_fields=[name]),
    "update_fields, a bare string": lambda shop, name: shop.book.save(update_fields=name),
    "refresh_from_db": lambda shop, name: shop.book.refresh_from_db(fields=[name]),
    "bulk_update": lambda shop, name: shop.books.bulk_update([shop.book], [name]),
    "on_conflict": lambda shop, name: shop.books.bulk_create([new(shop)], on_conflict=name),
    "unique_fields": lambda shop, name: shop.books.bulk_create(
        [new(shop)], on_conflict="update", unique_fields=[name]
    ),
    "upserted update_fields": lambda shop, name: shop.books.bulk_create(
        [new(shop)], on_conflict="update", unique_fields=["isbn"], update_fields=[name]
    ),
    "signals": lambda shop, name: shop.books.bulk_create([new(shop)], signals=name),
    "for_update": lambda shop, name: shop.books.for_update(of=[name]).all(),
    "for_update, a bare string": lambda shop, name: shop.books.for_update(of=name).all(),
    "explain": lambda shop, name: shop.books.explain(format=name),
    "a path": lambda shop, name: shop.Book.author.__getattr__(name),
    "a related query": lambda shop, name: shop.author.books.filter(**{name: 1}).all(),
    "a related order": lambda shop, name: shop.author.books.order_by(name).all(),
    "limit": lambda shop, name: shop.books.limit(name).all(),
    "offset": lambda shop, name: shop.books.offset(name).all(),
    "slice": lambda shop, name: shop.books[name:],
    "index": lambda shop, name: shop.books[name],
    "a key": lambda shop, name: shop.books.get(pk=name),
    "keys": lambda shop, name: shop.books.in_bulk([name]),
    "a related key": lambda shop, name: shop.books.filter(author=name).all(),
    "a number": lambda shop, name: shop.books.filter(pages=name).all(),
    "batch_size": lambda shop, name: shop.books.bulk_create([new(shop)], batch_size=name),
    "chunk": lambda shop, name: list(shop.books.iterate(chunk=name)),
}
ALIASES: dict[str, Place] = {
    "query.using": lambda shop, alias: shop.books.using(alias).all(),
    "save": lambda shop, alias: shop.book.save(using=alias),
    "delete": lambda shop, alias: shop.book.delete(using=alias),
    "refresh_from_db": lambda shop, alias: shop.book.refresh_from_db(using=alias),
    "create": lambda shop, alias: shop.books.using(alias).create(title="x", author=shop.author),
    "create_all": lambda shop, alias: shop.registry.create_all(alias),
    "drop_all": lambda shop, alias: shop.registry.drop_all(alias),
    "engine": lambda shop, alias: shop.databases.engine(alias),
    "on_commit": lambda shop, alias: shop.databases.on_commit(lambda: None, using=alias),
    "using": lambda shop, alias: shop.databases.using(alias).__enter__(),
    "connection": lambda shop, alias: shop.databases.connection(alias).__enter__(),
    "atomic": lambda shop, alias: shop.databases.atomic(alias).__enter__(),
}
VALUES: dict[str, Place] = {
    "create": lambda shop, value: shop.books.create(title=value, author=shop.author),
    "save": lambda shop, value: shop.Book(title=value, author=shop.author).save(),
    "bulk_create": lambda shop, value: shop.books.bulk_create([shop.Book(title=value, author=shop.author)]),
    "update": lambda shop, value: shop.books.update(title=value),
    "filter": lambda shop, value: shop.books.filter(title=value).all(),
    "get_or_create": lambda shop, value: shop.books.get_or_create(title=value),
    "JSON": lambda shop, value: shop.books.update(extra={"a": value}),
    "through_defaults": lambda shop, value: shop.book.tags.add(1, through_defaults={value: 1}),
    "a key of JSON": lambda shop, value: shop.books.update(extra={value: 1}),
}


def new(shop: Shop) -> Any:
    return shop.Book(title="new", isbn="1", author=shop.author)


@ONE_WAY
@SOME
def test_a_string_that_names_nothing_is_refused_before_any_sql(shop, stored, wire):
    """Only known names reach SQL. The error is Python's or ours, never the database's."""
    before = stored(shop.Book)
    assert not_refused(wire.everything, shop, NAMES, CORPUS) == []
    assert stored(shop.Book) == before
    with shop.databases.atomic():
        assert shop.books.for_update().get() == shop.book


@SOME
def test_a_string_that_is_no_alias_is_refused_before_any_sql(shop, wire):
    """`UnknownAlias`, and `ConfigurationError` for what cannot be one."""
    assert not_refused(wire.everything, shop, ALIASES, CORPUS) == []
    for name in CORPUS:
        if not name.isidentifier():
            with pytest.raises(ConfigurationError):
                Databases({name: "sqlite://"})


@ONE_WAY
@APART
def test_values_are_bound_and_come_back_as_they_were(shop, wire):
    """In conditions, writes, expressions, JSON and in SQL of one's own, whatever is in them.

    Each value meets what is most used, and a third of the rest, which all bind alike; the last three meet all.
    """
    with wire.everything() as sent, shop.databases.atomic():
        for number, value in enumerate(SHAPES):
            made = assert_written_and_found(shop, value)
            ends = (assert_expressions, assert_related, assert_upserted_and_changed)
            for end in ends if len(SHAPES) - number <= 3 else ends[number % 3 : number % 3 + 1]:
                end(shop, made, value)
            assert books_of(shop, value).delete()[0] >= 1
    assert [statement for statement in sent if MARK in str(statement)] == []
    assert shop.books.all() == [shop.book]


@ONE_WAY
@APART
def test_keys_of_json_are_bound(shop, wire):
    """Or a clear error, where the database has no way to say them."""
    Book, dialect = shop.Book, shop.databases.engine("default").dialect.name
    extra = dict.fromkeys(SHAPES, "x")
    shop.books.update(extra={"a": extra, **extra})
    refused = []
    with wire.everything() as sent:
        for value in SHAPES:
            try:
                assert shop.books.filter(Book.extra[value].as_string() == "x").count() == 1
                assert shop.books.filter(Book.extra["a"][value].as_string() == "x").count() == 1
                assert shop.books.scalars(Book.extra["a", value].as_string()) == ["x"]
            except StatementError as error:
                refused.append((value, type(error.orig)))
    assert [statement for statement in sent if MARK in str(statement)] == []
    assert all(UNREACHABLE[dialect] in value and kind is ValueError for value, kind in refused)


def books_of(shop: Shop, value: str) -> Any:
    return shop.books.filter(shop.Book.title.in_([value, value + value]))


def assert_written_and_found(shop: Shop, value: str) -> Any:
    """By the ends of a query that are most used; returns a book of that title."""
    Book, books, short = shop.Book, shop.books, value[:40]
    made = books.create(title=value, isbn=short, author=shop.author, extra={"a": {value: value}})
    assert books.get(title=value) == made == books.get(Book.title == value)
    assert books.filter(Book.title.in_([value])).all() == [made]
    assert books.exclude(Book.title == value).filter(pk=made.pk).all() == []
    assert made in books.filter(Book.title.contains(value, autoescape=True)).all()
    assert Book.objects.get(pk=made.pk).extra == {"a": {value: value}}
    found = Book.objects.raw("SELECT * FROM book WHERE title = :title", {"title": value})
    assert found == [made]
    return made


def assert_expressions(shop: Shop, made: Any, value: str) -> None:
    """In expressions, labels and the values of an update."""
    Book, books, short = shop.Book, shop.books, value[:40]
    assert made in books.filter(Book.title.startswith(value, autoescape=True)).all()
    assert books.filter(title=value).update(title=Book.title + value) == 1
    assert books.filter(isbn=short).update(title=value) == 1
    assert books.filter(Book.title == value).order_by(func.coalesce(Book.isbn, value)).all() == [made]
    row = books.filter(Book.title == value).aggregate(**{value: func.max(Book.title)})
    assert row._asdict() == {value: value}
    (labelled,) = books.filter(pk=made.pk).values(func.lower(value), Book.title)
    assert labelled.title == value


def assert_upserted_and_changed(shop: Shop, made: Any, value: str) -> None:
    """By what writes many rows, or writes a row that may be there."""
    Book, books, short = shop.Book, shop.books, value[:40]
    assert books.get_or_create({"title": "not"}, isbn=short, author=shop.author) == (made, False)
    assert books.update_or_create({"title": value}, isbn=short) == (made, False)
    upsert = Book(title=value, isbn=short, author=shop.author)
    books.bulk_create([upsert], on_conflict="update", unique_fields=["isbn"], update_fields=["title"])
    assert upsert.pk == made.pk
    made.title = value + value
    assert books.bulk_update([made], ["title"]) == 1
    assert books.get(title=value + value) == made


def assert_related(shop: Shop, made: Any, value: str) -> None:
    """In a save, and in what is related."""
    Book, Tag, books, short = shop.Book, shop.Tag, shop.books, value[:40]
    shop.author.name = value
    shop.author.save(update_fields=["name"])
    assert books.filter(Book.author.name == value, title=value).all() == [made]
    tag = Tag(name=short).save()
    made.tags.add(tag)
    assert books.filter(Book.tags.name == short).prefetch_related("tags").all() == [made]
    made.tags.clear()
    tag.delete()


def test_what_no_database_takes_is_refused_before_any_sql(shop, wire):
    """NUL and lone surrogates, in values and in conditions."""
    Book = shop.Book
    assert not_refused(wire.record, shop, VALUES, UNFIT) == []
    for value in UNFIT:
        with wire.everything() as sent, pytest.raises((InvalidValue, StatementError, ValueError)):
            shop.books.filter(Book.extra[value].as_string() == "x").all()
        assert [statement for statement in sent if MARK in str(statement)] == []


@APART
def test_parameters_of_raw_sql_are_values_whatever_their_names(shop, wire):
    """A name that the SQL has not is an error, or left out; it never becomes a part of the SQL."""
    with wire.everything() as sent:
        for name in CORPUS:
            with suppress(TypeError, ValueError, StatementError):
                found = shop.Book.objects.raw(
                    "SELECT * FROM book WHERE title = :title", {"title": "Lathe", name: 1}
                )
                assert found == [shop.book]
    assert [statement for statement in sent if MARK in str(statement)] == []


@ONE_WAY
def test_labels_are_quoted(shop):
    """The caller's own labels are identifiers of the statement and nothing more."""
    unknown = []
    for label in SHAPES:
        if len(label) < 60:
            try:
                assert shop.books.scalars(shop.Book.title.label(label)) == ["Lathe"]
            except DBAPIError:
                unknown.append(label)
    # MariaDB has no identifiers of such characters.
    mariadb = shop.databases.engine("default").dialect.name == "mariadb"
    assert unknown == [label for label in SHAPES if mariadb and max(label) > "\uffff"]


def test_sql_as_text_is_no_condition(shop, wire):
    """Expressions of columns alone; the door to SQL of one's own is `raw`."""
    sql = text(f"1 = 1 OR {MARK}")
    with wire.everything() as sent:
        for use in ("filter", "exclude", "order_by", "group_by", "having", "values", "scalars", "get"):
            with pytest.raises((TypeError, FieldError)):
                getattr(shop.books, use)(sql)
    assert sent == []


def not_refused(record: Any, shop: Shop, places: dict[str, Place], corpus: Sequence[str]) -> list[Any]:
    """The places and strings for which there was no clear error, or SQL before it."""
    return [
        (name, each[:60], found)
        for name, place in places.items()
        for each in corpus
        if (found := _problem(record, place, shop, each)) is not None
    ]


def _problem(record: Any, place: Place, shop: Shop, given: str) -> Any:
    try:
        with record() as sent:
            place(shop, given)
    except (MicroormError, TypeError, ValueError, AttributeError, IndexError) as error:
        return sent or (None if str(error) else "an empty message")
    except Exception as error:  # noqa: BLE001 - whatever else it is, it is told
        return error
    return "no error"
