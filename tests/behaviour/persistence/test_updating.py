"""`Query.update` and `bulk_update`: their statements and signals."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Literal
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from microorm import (
    CrossDatabaseRelation,
    Field,
    FieldError,
    ForeignKey,
    InvalidValue,
    TransactionError,
    UnsavedError,
    field,
    foreign_key,
)
from microorm.signals import post_save, post_update, pre_save, pre_update

MEMORY = pytest.mark.backends("sqlite-memory")


class Broken(Exception):
    """The error of failing receivers."""


def test_update_sets_values_and_expressions_in_all_rows_of_the_query(Book, shelf, wire, stored):
    """By one statement; it returns the number of rows, changed or not."""
    with wire.record() as sent:
        assert Book.objects.filter(Book.pages > 3).update(title="z", price=None) == 2
        assert Book.objects.filter(title="z").update(title="z") == 2
        assert Book.objects.exclude(price=None).update(pages=Book.pages * 10, tags=["t"]) == 2
        assert Book.objects.filter(title="nobody").update(pages=0) == 0
        assert Book.objects.order_by("title").update(price=Decimal("1.5")) == 5
    assert [each.split()[0] for each in sent] == ["UPDATE"] * 5
    assert stored(Book, "title", "pages") == [("a", 1), ("b", 20), ("c", 30), ("z", 4), ("z", 5)]
    assert Book.objects.get(title="b").tags == ["t"]


@MEMORY
def test_update_refuses_what_it_cannot_do(Book, wire):
    """Before any SQL."""
    with wire.everything() as sent:
        for query in (Book.objects[:1], Book.objects[1:], Book.objects.limit(3), Book.objects.distinct()):
            for method, end in (("update", lambda q: q.update(pages=1)), ("delete", lambda q: q.delete())):
                with pytest.raises(TypeError) as raised:
                    end(query)
                assert str(raised.value) == (
                    f"{method}() cannot be used on a query that is limited or distinct"
                )
        with pytest.raises(TypeError, match=r"^update\(\) needs at least one value$"):
            Book.objects.update()
        with pytest.raises(InvalidValue) as wrong:
            Book.objects.update(pages="many", title=None, price=Decimal(1))
        assert set(wrong.value.problems) == {"pages", "title"}
        with pytest.raises(
            FieldError, match=r"^Book\.id is the primary key, which an update does not change$"
        ):
            Book.objects.update(id=3)
        with pytest.raises(FieldError, match="^Book has no field 'pk'"):
            Book.objects.update(pk=3)
    assert sent == []


@MEMORY
def test_an_update_of_many_tells_its_own_signals(Book, shelf, listen, databases):
    """With query, values and alias, and the count afterwards, in one transaction."""
    heard: list[dict[str, Any]] = []
    listen(pre_update, lambda **kwargs: heard.append(kwargs), sender=Book)
    listen(post_update, lambda **kwargs: heard.append(kwargs), sender=Book)
    query = Book.objects.filter(Book.pages > 3)
    assert query.update(pages=9) == 2
    told = {"sender": Book, "query": query, "values": {"pages": 9}, "using": "default"}
    assert heard == [{"signal": pre_update, **told}, {"signal": post_update, **told, "count": 2}]

    def fail(**kwargs):
        raise Broken

    for signal in (pre_update, post_update):
        listen(signal, fail, sender=Book)
        with pytest.raises(Broken):
            query.update(pages=10)
        with pytest.raises(TransactionError), databases.atomic(), pytest.raises(Broken):
            query.update(pages=10)
        signal.disconnect(fail, sender=Book)
    assert Book.objects.filter(pages=9).count() == 2


@MEMORY
def test_a_receiver_that_hides_an_error_updates_nothing(Book, shelf, listen, databases):

    def hide(**kwargs):
        with pytest.raises(DBAPIError), databases.connection() as connection:
            connection.execute(text("SELECT * FROM nowhere"))

    told = []
    listen(pre_update, hide, sender=Book)
    listen(post_update, lambda **kwargs: told.append(1), sender=Book)
    with pytest.raises(TransactionError, match="is doomed"):
        Book.objects.update(pages=9)
    pre_update.disconnect(hide, sender=Book)
    listen(post_update, hide, sender=Book)
    with pytest.raises(TransactionError, match="was rolled back"):
        Book.objects.update(pages=9)
    assert (told, Book.objects.filter(pages=9).count()) == ([1], 0)


@MEMORY
def test_a_receiver_changes_neither_the_update_nor_what_others_are_told(Book, shelf, listen):
    """Each signal has its own copy of the values."""
    told = []

    def change(values, **kwargs):
        told.append(dict(values))
        values.clear()

    listen(pre_update, change, sender=Book)
    listen(post_update, change, sender=Book)
    assert Book.objects.filter(title="a").update(pages=9) == 1
    assert told == [{"pages": 9}] * 2
    assert Book.objects.get(title="a").pages == 9


def test_fields_of_many_objects_are_written_by_their_keys(Book, shelf, stored, wire):
    """Each object has its own values; only the named fields are written, and then count as loaded."""
    books = shelf.all()
    for book in books:
        book.title, book.pages, book.price = book.title * 2, book.pages * 10, Decimal(book.pages)
        book.tags.append(book.title)
    with wire.record() as sent:
        assert Book.objects.bulk_update(reversed(books), ["title", Book.tags, Book.price]) == 5
    assert {each.removeprefix("many ").split()[0] for each in sent} == {"UPDATE"}
    assert stored(Book, "title", "pages", "price", "tags") == [
        (title * 2, pages, Decimal(pages), [title * 2]) for pages, title in enumerate("abcde", start=1)
    ]
    assert [book.changed_fields for book in books] == [{"pages"}] * 5
    books[0].tags.append("more")
    assert books[0].changed_fields == {"pages", "tags"}


def test_what_fills_itself_is_written_where_it_is_named(Base, registry, stored):
    """As in a save with `update_fields`."""

    class Event(Base):
        name: Field[str] = field(max_length=9)
        stamp: Field[int] = field(on_update=lambda: next(numbers))

    numbers = iter(range(100))
    registry.create_all("default")
    events = [Event(name=name).save() for name in "ab"]
    Event.objects.bulk_update(events, ["name"])
    assert stored(Event, "stamp") == [0, 1]
    Event.objects.bulk_update(events, ["name", "stamp"])
    assert stored(Event, "stamp") == [event.stamp for event in events] == [2, 3]


def test_composite_keys_and_expressions(Base, registry, stored):
    """The result of an expression is read."""

    class Pair(Base):
        left: Field[int] = field(primary_key=True)
        right: Field[int] = field(primary_key=True)
        note: Field[str] = field(default="", max_length=9)
        count: Field[int] = field(default=3)

    registry.create_all("default")
    pairs = Pair.objects.bulk_create([Pair(left=1, right=number) for number in range(4)])
    gone = Pair(left=2, right=2, note="gone")
    lost = Pair(left=2, right=3, count=Pair.count + 1)
    for pair in pairs[:3]:
        pair.note = f"n{pair.right}"
    pairs[1].count = Pair.count + Pair.right
    assert Pair.objects.bulk_update([gone, *pairs, lost], ["note", "count"]) == 4
    assert stored(Pair, "right", "note", "count") == [(0, "n0", 3), (1, "n1", 4), (2, "n2", 3), (3, "", 3)]
    assert pairs[1].count == 4
    assert [pair.changes() for pair in pairs] == [{}] * 4
    assert (gone._state.adding, lost._state.adding) == (True, True)
    assert lost.changed_fields == {"left", "right", "note", "count"}


def test_an_object_whose_row_is_gone_is_not_counted_and_stays_as_it_was(Book, shelf, stored):
    """The number of existing rows is returned."""
    books = shelf.all()
    Book.objects.filter(title="b").delete()
    for book in books:
        book.pages = 9
    assert Book.objects.bulk_update(books, ["pages"]) == 4
    assert [book.changed_fields for book in books] == [set(), {"pages"}, set(), set(), set()]
    assert stored(Book, "pages") == [9] * 4


def test_rows_that_have_the_values_already_are_counted(Book, shelf):
    books = shelf.all()
    for size in (None, 2):
        assert Book.objects.bulk_update(books, ["pages", "title"], batch_size=size) == 5


def test_progress_of_an_update_is_told_after_each_batch(Book, shelf):
    done: list[tuple[int, int]] = []
    Book.objects.bulk_update(shelf.all(), ["pages"], batch_size=2, progress=lambda *told: done.append(told))
    assert done == [(2, 5), (4, 5), (5, 5)]


def test_an_error_in_the_last_batch_or_of_the_callers_function_undoes_the_update(
    Base, registry, databases, stored
):
    """For rows and instances; an open block is doomed."""

    class Tag(Base):
        name: Field[str] = field(max_length=9, unique=True)
        stamp: Field[int] = field(on_update=lambda: next(numbers))

    def fail(done: int, total: int) -> None:
        if done == total:
            raise Broken

    numbers = iter(range(100))
    registry.create_all("default")
    tags = [Tag(name=name).save() for name in "abc"]
    for names, progress, error in (("xyx", None, IntegrityError), ("xyz", fail, Broken)):
        for tag, name in zip(tags, names, strict=True):
            tag.name = name
        before = [(dict(vars(tag)), tag.changes()) for tag in tags]
        with pytest.raises(error):
            Tag.objects.bulk_update(tags, ["name", "stamp"], batch_size=1, progress=progress)
        with pytest.raises(TransactionError), databases.atomic(), pytest.raises(error):
            Tag.objects.bulk_update(tags, ["name", "stamp"], batch_size=1, progress=progress)
        assert [(dict(vars(tag)), tag.changes()) for tag in tags] == before
        assert stored(Tag, "name", "stamp") == [("a", 0), ("b", 1), ("c", 2)]


def test_a_rollback_makes_what_was_written_changed_again(Book, shelf, undone, stored):
    books = shelf.all()
    for book in books:
        book.pages = 9
    with undone():
        Book.objects.bulk_update(books, ["pages"])
        assert [book.changed_fields for book in books] == [set()] * 5
    assert [book.changes() for book in books] == [{"pages": (number, 9)} for number in range(1, 6)]
    assert Book.objects.bulk_update(books, ["pages"]) == 5
    assert stored(Book, "pages") == [9] * 5


def test_values_that_were_not_loaded_are_not_overwritten_by_nothing(Book, shelf, stored):
    """A deferred field of an instance is loaded first."""
    books = Book.objects.only("title").order_by("title").all()
    for book in books:
        book.title = book.title.upper()
    assert Book.objects.bulk_update(books, ["title", "price"]) == 5
    assert stored(Book, "title", "price")[:2] == [("A", None), ("B", Decimal(2))]


@MEMORY
def test_an_update_of_many_objects_sends_no_signal(Book, shelf, listen):
    """Neither those of single saves nor `pre_update` and `post_update`."""
    told = []
    books = shelf.all()
    for signal in (pre_update, post_update, pre_save, post_save):
        listen(signal, lambda **kwargs: told.append(1), sender=Book)
    Book.objects.bulk_update(books, ["pages"])
    assert told == []


@MEMORY
def test_objects_that_cannot_be_updated_are_errors_before_anything(
    Base, registry, Book, shelf, wire, databases
):
    """No block is doomed."""

    class Other(Base):
        pass

    books = shelf.all()
    twin = Book.objects.get(id=books[0].id)
    update = Book.objects.bulk_update
    cases: list[tuple[Any, type[Exception], str]] = [
        (
            lambda: update([*books, Book(title="x")], ["pages"]),
            UnsavedError,
            "object 5 of bulk_update() has no key, and an update needs one",
        ),
        (
            lambda: update([Other()], ["pages"]),
            TypeError,
            "bulk_update() of Book takes instances of it, not of Other",
        ),
        (
            lambda: update([*books, books[1]], ["pages"]),
            ValueError,
            "bulk_update() was given one object twice, at 1 and 5",
        ),
        (
            lambda: update([*books, twin], ["pages"]),
            ValueError,
            "object 5 of bulk_update() has the same key as object 0: Book(id=1)",
        ),
        (lambda: update(books, []), ValueError, "bulk_update() needs at least one field"),
        (lambda: update(books, "pages"), TypeError, "fields must be a list of names or columns, not 'pages'"),
        (lambda: update(books, ["pags"]), FieldError, "Book has no field 'pags'; nearest: 'pages'"),
        (lambda: update([], ["pags"]), FieldError, "Book has no field 'pags'; nearest: 'pages'"),
        (
            lambda: update(books, [Book.id]),
            FieldError,
            "Book.id is the primary key, which an update does not change",
        ),
        (
            lambda: update(books, ["pages"], batch_size=0),
            ValueError,
            "batch_size= must be a positive int, not 0",
        ),
        (
            lambda: update(books, ["pages"], progress=3),
            TypeError,
            "progress= takes a function of two numbers, not 3",
        ),
    ]
    for query in (Book.objects.filter(pages=3), Book.objects.filter(Book.pages > 3), Book.objects[:3]):
        message = "bulk_update() finds rows by their keys; the query cannot have conditions or a limit"
        with pytest.raises(TypeError) as refused:
            query.bulk_update(books, ["pages"])
        assert str(refused.value) == message
    with wire.record() as sent, databases.atomic():
        for call, error, message in cases:
            with pytest.raises(error) as raised:
                call()
            assert (type(raised.value), str(raised.value)) == (error, message)
        books[3].pages = "many"
        with pytest.raises(InvalidValue, match="^Book.pages must be int") as unfit:
            update(books, ["pages"])
        assert unfit.value.__notes__ == ["in object 3 of bulk_update()"]
        books[3].id = Book.id + 1
        with pytest.raises(InvalidValue, match="needs a value, not an expression"):
            update(books, ["title"])
        assert update([], ["pages"]) == 0
    assert sent == []


@MEMORY
def test_relations_are_updated_by_instance_or_key_and_once(Base, registry, databases, listen, stored):
    """Receivers get the declared name."""

    class Author(Base):
        name: Field[str] = field(max_length=9)

    class Essay(Base):
        author: ForeignKey[Author | None] = foreign_key(default=None)

    registry.create_all()
    told = []
    listen(pre_update, lambda values, **kwargs: told.append(values), sender=Essay)
    author, far = Author(name="a").save(), Author(name="b").save(using="other")
    Essay().save()
    assert Essay.objects.update(author=author) == 1
    assert Essay.objects.update(author_id=author.id) == 1
    assert Essay.objects.filter(Essay.author.name == "a").update(author=None) == 1
    assert told == [{"author": author}, {"author": author.id}, {"author": None}]
    with pytest.raises(TypeError, match=r"^update\(\) got two values for Essay\.author$"):
        Essay.objects.update(author=author, author_id=author.id)
    with pytest.raises(UnsavedError):
        Essay.objects.update(author=Author(name="c"))
    with pytest.raises(CrossDatabaseRelation):
        Essay.objects.update(author=far)
    with pytest.raises(FieldError, match="is a column of another table"):
        Essay.objects.update(author=Author.id)
    assert stored(Essay, "author_id") == [None]


def test_values_of_every_kind_come_back_from_an_update_of_many(Base, registry, wire, stored):
    """As from a save, NULL included; by few statements on MariaDB, whose driver would send one for each row."""

    class Colour(Enum):
        RED = "red"
        BLUE = "blue"

    class Every(Base):
        number: Field[int | None] = field(default=None)
        ratio: Field[float | None] = field(default=None)
        flag: Field[bool | None] = field(default=None)
        text: Field[str | None] = field(default=None)
        raw: Field[bytes | None] = field(default=None)
        price: Field[Decimal | None] = field(default=None, max_digits=15, decimal_places=4)
        moment: Field[datetime | None] = field(default=None)
        day: Field[date | None] = field(default=None)
        hour: Field[time | None] = field(default=None)
        lasted: Field[timedelta | None] = field(default=None)
        token: Field[UUID | None] = field(default=None)
        colour: Field[Colour | None] = field(default=None)
        choice: Field[Literal["a", "b"] | None] = field(default=None)
        tags: Field[list[Any] | None] = field(default=None)

    values = [
        {
            "number": 2**63 - 1,
            "ratio": 1e300,
            "flag": True,
            "text": "naïve % ' \\ 🦉",
            "raw": bytes(range(256)),
            "price": Decimal("12345678901.2345"),
            "moment": datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC),
            "day": date(1, 1, 1),
            "hour": time(23, 59, 59, 999999),
            "lasted": timedelta(days=-3, microseconds=7),
            "token": UUID(int=2**127 + 5),
            "colour": Colour.BLUE,
            "choice": "b",
            "tags": [1, "é", None, {"a": 1.5}],
        },
        {},
        {
            "number": -(2**63),
            "ratio": 0.1,
            "flag": False,
            "text": "",
            "raw": b"",
            "price": Decimal("-0.0001"),
            "moment": datetime(2024, 1, 1, tzinfo=UTC),
            "day": date(9999, 12, 31),
            "hour": time(0),
            "lasted": timedelta(0),
            "token": UUID(int=0),
            "colour": Colour.RED,
            "choice": "a",
            "tags": [],
        },
    ]
    registry.create_all("default")
    rows = Every.objects.bulk_create([Every(**values[2 - number % 3]) for number in range(240)])
    names = [name for name in Every.__schema__.names if name != "id"]
    for number, row in enumerate(rows):
        for name in names:
            setattr(row, name, values[number % 3].get(name))
    with wire.record() as sent:
        assert Every.objects.bulk_update(rows, names) == 240
    assert len(sent) <= (3 if "CASE" in sent[0] else 240)
    assert stored(Every, *names) == [
        tuple(values[number % 3].get(name) for name in names) for number in range(240)
    ]


def test_the_result_of_an_expression_fits_its_field_or_nothing_is_written(
    Base, registry, databases, stored, subtests
):
    """SQLite would store it; there the results are checked as values are."""

    class Item(Base):
        title: Field[str] = field(max_length=20)
        price: Field[Decimal] = field(max_digits=8, decimal_places=2)
        count: Field[int]
        span: Field[timedelta]

    registry.create_all()
    for name in ("title", "price", "count", "span"):
        Item.objects.delete()
        with subtests.test(name):
            check_fits(Item, databases, stored, name)


def check_fits(Item: Any, databases: Any, stored: Any, name: str) -> None:
    small = Item(title="a", price=Decimal(0), count=0, span=timedelta(0)).save()
    item = Item(title="ab", price=Decimal(1), count=4, span=timedelta(1)).save()
    unfit = {
        "title": Item.title + "x" * 19,
        "price": Item.price * 10**7,
        "count": Item.count * 2**62,
        "span": Item.span * 10**11,
    }[name]
    setattr(item, name, unfit)
    writes = (
        item.save,
        lambda: Item.objects.bulk_update([small, item], [name]),
        lambda: Item.objects.update(**{name: unfit}),
    )
    for write in writes:
        with pytest.raises(InvalidValue if databases.database("default").is_sqlite else DBAPIError) as raised:
            write()
        if databases.database("default").is_sqlite:
            assert str(raised.value).startswith(f"Item.{name} must be ")
    assert getattr(item, name) is unfit
    assert stored(Item, "title", "price", "count") == [("a", 0, 0), ("ab", 1, 4)]
    fit = {
        "title": Item.title + "x" * 18,
        "price": Item.price * 999999,
        "count": Item.count * 2**60,
        "span": Item.span * 1000,
    }[name]
    assert Item.objects.update(**{name: fit}) == 2


def test_a_result_that_does_not_fit_undoes_a_block_of_updates(Base, registry, databases, stored):
    class Item(Base):
        title: Field[str] = field(max_length=3)

    registry.create_all()
    Item.objects.bulk_create([Item(title="a"), Item(title="abc")])
    with (
        pytest.raises(InvalidValue if databases.database("default").is_sqlite else DBAPIError),
        databases.atomic(),
    ):
        Item.objects.filter(title="a").update(title=Item.title + "b")
        Item.objects.update(title=Item.title + "c")
    assert stored(Item, "title") == ["a", "abc"]
