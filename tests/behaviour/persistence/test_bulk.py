"""Bulk writes: all rows or none, few statements, and keys in the order of the objects."""

import asyncio
import random
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, literal, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from microorm import (
    Field,
    ForeignKey,
    InvalidValue,
    Model,
    TransactionError,
    UnsavedError,
    field,
    foreign_key,
    muted,
)
from microorm.persistence.bulk import ROWS_PER_STATEMENT, WORTH_IT
from microorm.signals import post_bulk_create, post_save, post_update, pre_bulk_create, pre_save, pre_update

MEMORY = pytest.mark.backends("sqlite-memory")


class Broken(Exception):
    """The error of failing receivers."""


@pytest.fixture
def heard(Book, listen):
    """The arguments of all bulk signals that receivers of `Book` have got, in order."""
    heard: list[dict[str, Any]] = []
    for signal in (pre_bulk_create, post_bulk_create):
        listen(signal, lambda **kwargs: heard.append(kwargs), sender=Book)
    return heard


@MEMORY
@pytest.mark.parametrize("way", ["driver"])
def test_thousands_of_rows_are_inserted_several_at_a_time(Book, wire):
    """By one statement that is compiled once; fewer rows are not worth it, unless many were inserted before."""
    some, many = WORTH_IT - 1, ROWS_PER_STATEMENT + 1
    with wire.record() as sent:
        Book.objects.bulk_create([Book(title="t") for _ in range(some)])
    assert [each.split("(")[0] for each in sent if "INSERT" in each] == ["many INSERT INTO book "]
    with wire.record() as sent:
        Book.objects.bulk_create([Book(title="t") for _ in range(many)])
    several, rest = (each for each in sent if "INSERT" in each)
    assert several.startswith("many INSERT INTO book ")
    assert several.count("?") == ROWS_PER_STATEMENT * rest.count("?")


def test_keys_and_state_come_back_in_order(Book, wire, stored):
    """The list is returned; each object has the key of its own row and no changes."""
    Book(title="before").save()
    titles = [f"t{number}" for number in range(20)]
    random.Random(7).shuffle(titles)
    books = [Book(title=title, tags=[title]) for title in titles]
    with wire.record() as sent:
        made = Book.objects.bulk_create(books)
    assert len(sent) <= 2
    assert made == books
    assert all(mine is its for mine, its in zip(made, books, strict=True))
    assert stored(Book, "id", "title")[1:] == [(book.id, book.title) for book in books]
    assert [book.id for book in books] == sorted(book.id for book in books)
    for book in books:
        assert (book.changes(), book._state.adding, book._state.db) == ({}, False, "default")
    books[3].tags.append("more")
    assert books[3].changed_fields == {"tags"}
    books[3].save(update_fields=["tags"])
    assert Book.objects.get(id=books[3].id).tags == [books[3].title, "more"]


def test_hundreds_of_rows_go_over_in_batches(Book, wire, stored):
    """A statement has at most `batch_size` rows."""
    books = [Book(title=f"t{number}", pages=number) for number in range(700)]
    Book.objects.bulk_create(books[:500])
    with wire.record() as sent:
        Book.objects.bulk_create(iter(books[500:]), batch_size=70)
    assert sum("INSERT" in each for each in sent) == 3
    assert stored(Book, "id", "title", "pages") == [(book.id, book.title, book.pages) for book in books]


@pytest.mark.parametrize("size", [None, 2])
def test_what_the_database_makes_is_read_back(Base, registry, stored, wire, size):
    """Server defaults of each row, for generated and for given keys."""

    class Event(Base):
        name: Field[str] = field(max_length=9)
        rank: Field[int] = field(server_default="7")
        note: Field[str | None] = field(server_default="none", max_length=9)

    class Token(Model[UUID], registry=registry):
        name: Field[str] = field(max_length=9)
        rank: Field[int] = field(server_default="7")

    registry.create_all("default")
    for model in (Event, Token):
        given = [model(name=f"n{number}") for number in range(5)]
        given[1].rank, given[3].rank = 1, 3
        model.objects.bulk_create(given, batch_size=size)
        assert [each.rank for each in given] == [7, 1, 7, 3, 7]
        assert [each.changes() for each in given] == [{}] * 5
        for each in given:
            assert model.objects.get(pk=each.pk).name == each.name
    events = [Event(name="a"), Event(name="b")]
    events[0].note = None
    Event.objects.bulk_create(events)
    assert [event.note for event in events] == [None, "none"]


def test_rows_with_and_without_a_key_mix(Book, wire, stored):
    """Rows with a key are inserted first, so that their keys are not generated for others; in two statements."""
    books = [Book(title=f"t{number}") for number in range(10)]
    for book in books[::2]:
        book.id = 100 + int(book.title[1:])
    with wire.record() as sent:
        Book.objects.bulk_create(books)
    assert sum("INSERT" in each for each in sent) == 2
    assert sorted(stored(Book, "id", "title")) == sorted((book.id, book.title) for book in books)
    made = [book.id for book in books[1::2]]
    assert made == sorted(made)
    # The second of these has the key that the database would generate next.
    taker = Book(title="second")
    taker.id = max(stored(Book, "id")) + 1
    assert len({book.id for book in Book.objects.bulk_create([Book(title="first"), taker])}) == 2


def test_keys_made_here_natural_and_composite_ones_are_inserted_as_they_are(Base, registry, stored, wire):
    """In one statement."""

    class Token(Model[UUID], registry=registry):
        pass

    class Pair(Base):
        left: Field[int] = field(primary_key=True)
        right: Field[int] = field(primary_key=True)

    registry.create_all("default")
    tokens = [Token() for _ in range(9)]
    keys = [token.id for token in tokens]
    with wire.record() as sent:
        Token.objects.bulk_create(tokens)
        Pair.objects.bulk_create([Pair(left=number % 3, right=number) for number in range(9)])
    assert len(sent) == 2
    assert ([token.id for token in tokens], sorted(stored(Token))) == (keys, sorted(keys))
    assert len(stored(Pair)) == 9
    assert all(not token._state.adding for token in tokens)


def test_rows_of_nothing_but_a_made_key(registry, stored):
    """Not every database can insert several rows of DEFAULT VALUES."""

    class Number(Model, registry=registry):
        pass

    registry.create_all("default")
    numbers = Number.objects.bulk_create([Number() for _ in range(3)])
    assert [number.id for number in numbers] == stored(Number)
    assert len(set(stored(Number))) == 3


def test_expressions_are_inserted_and_read_back(Base, registry, undone, stored):
    """One by one, beside the other rows; also expressions of a default or of on_update."""

    class Event(Base):
        name: Field[str] = field(max_length=9)
        level: Field[int] = field(default=literal(3) + 4)
        stamp: Field[int] = field(on_update=lambda: literal(20) + 1)
        rank: Field[int] = field(server_default="7")

    registry.create_all("default")
    events = [Event(name="a", level=1), Event(name=func.lower("B")), Event(name="c")]
    events[0].id = 40
    expressions = [event.level for event in events]
    with undone():
        Event.objects.bulk_create(events)
        assert [(event.name, event.level, event.stamp, event.rank) for event in events] == [
            ("a", 1, 21, 7),
            ("b", 7, 21, 7),
            ("c", 7, 21, 7),
        ]
    assert all(mine is its for mine, its in zip([event.level for event in events], expressions, strict=True))
    Event.objects.bulk_create(events)
    assert sorted(stored(Event, "name", "level", "stamp")) == [("a", 1, 21), ("b", 7, 21), ("c", 7, 21)]
    assert [event.changes() for event in events] == [{}] * 3
    assert [Event.objects.get(id=event.id) for event in events] == events


def test_no_objects_are_no_work(Book, heard, wire):
    """No SQL and no signal."""
    with wire.everything() as sent:
        assert Book.objects.bulk_create([]) == []
    assert (sent, heard) == ([], [])


@MEMORY
def test_wrong_arguments_are_errors_before_anything(Base, registry, Book, heard, wire, databases):
    """Instances of other models, other objects, an invalid batch size; no block is doomed."""

    class Other(Base):
        pass

    registry.create_all("default")
    book = Book(title="x")
    with wire.record() as sent, databases.atomic():
        for objects, name in (([book, Other()], "Other"), (["x"], "str"), ([None], "NoneType")):
            with pytest.raises(
                TypeError, match=f"^bulk_create\\(\\) of Book takes instances of it, not of {name}$"
            ):
                Book.objects.bulk_create(objects)
        for size in (0, -1, 2.0, "3", True):
            with pytest.raises(ValueError, match=r"^batch_size= must be a positive int, not ") as raised:
                Book.objects.bulk_create([book], batch_size=size)
            assert str(raised.value).endswith(repr(size))
        with pytest.raises(TypeError):
            Book.objects.bulk_create(book)
        assert Book.objects.count() == 0
    assert (heard, len(sent), book._state.adding) == ([], 1, True)


@MEMORY
def test_a_value_that_does_not_fit_names_its_object(Book, databases, stored):
    """InvalidValue with a note; nothing was written, and no block is doomed."""
    books = [Book(title="a"), Book(title="b"), Book(title="x" * 41, pages="many")]
    with databases.atomic():
        with pytest.raises(InvalidValue) as raised:
            Book.objects.bulk_create(books)
        Book(title="kept").save()
    assert set(raised.value.problems) == {"title", "pages"}
    assert raised.value.__notes__ == ["in object 2 of bulk_create()"]
    books[2] = Book(title="c")
    books[2].id = Book.id + 1
    with pytest.raises(InvalidValue, match=r"^Book\.id is the primary key, and must be a value"):
        Book.objects.bulk_create(books)
    books[2].id = None
    assert [book.id for book in books] == [None] * 3
    assert stored(Book, "title") == ["kept"]


def test_a_refused_row_takes_all_along(Base, registry, databases, stored):
    """The instances are as before; an open block is doomed, unless the write was in a nested one."""

    class Event(Base):
        name: Field[str] = field(max_length=9, unique=True)
        rank: Field[int] = field(server_default="7")

    registry.create_all("default")
    Event(name="taken").save()
    events = [Event(name=name) for name in ("a", "b", "taken", "c")]
    before = [dict(vars(event)) for event in events]
    for size in (None, 1):
        with pytest.raises(IntegrityError):
            Event.objects.bulk_create(events, batch_size=size)
        assert [dict(vars(event)) for event in events] == before
        with databases.atomic():
            with pytest.raises(IntegrityError), databases.atomic():
                Event.objects.bulk_create(events, batch_size=size)
            assert [dict(vars(event)) for event in events] == before
        with pytest.raises(TransactionError), databases.atomic(), pytest.raises(IntegrityError):
            Event.objects.bulk_create(events, batch_size=size)
        assert all(event._state.adding and event._state.db is None for event in events)
    assert stored(Event, "name") == ["taken"]
    events[2].name = "free"
    Event.objects.bulk_create(events)
    assert stored(Event, "name") == ["taken", "a", "b", "free", "c"]


def test_a_rollback_restores_the_instances(Base, registry, undone, stored):
    """Keys, server and on_update values, and state; values set by the caller stay."""

    class Event(Base):
        name: Field[str] = field(max_length=9)
        rank: Field[int] = field(server_default="7")
        stamp: Field[int] = field(on_update=lambda: 5)

    registry.create_all("default")
    events = [Event(name="a"), Event(name="b"), Event(name="c")]
    events[1].id = 77
    before = [dict(vars(event)) for event in events]
    with undone():
        Event.objects.bulk_create(events)
        assert [(event.rank, event.stamp) for event in events] == [(7, 5)] * 3
        events[2].rank = 8
    assert [dict(vars(event)) for event in events] == [*before[:2], {**before[2], "rank": 8}]
    assert [event._state.adding for event in events] == [True] * 3
    assert stored(Event) == []


@MEMORY
def test_receivers_get_exactly_these_arguments(Book, listen, heard):
    """One call before and one after; no signals of single saves."""
    single = []
    for signal in (pre_save, post_save):
        listen(signal, lambda **kwargs: single.append(kwargs), sender=Book)
    keys = []
    listen(pre_bulk_create, lambda objects, **kwargs: keys.append([each.id for each in objects]), sender=Book)
    listen(
        post_bulk_create, lambda objects, **kwargs: keys.append([each.id for each in objects]), sender=Book
    )
    books = [Book(title="a"), Book(title="b")]
    Book.objects.bulk_create(books)
    assert heard == [
        {"signal": pre_bulk_create, "sender": Book, "objects": books, "using": "default"},
        {"signal": post_bulk_create, "sender": Book, "objects": books, "using": "default"},
    ]
    assert heard[0]["objects"][0] is books[0]
    assert (keys, single) == ([[None, None], [1, 2]], [])


@MEMORY
def test_what_a_receiver_changes_is_written(Book, listen, stored):
    """As for a single save."""

    def change(objects, **kwargs):
        for each in objects:
            each.title = each.title.upper()
        objects.clear()

    listen(pre_bulk_create, change, sender=Book)
    assert len(Book.objects.bulk_create([Book(title="a"), Book(title="b")])) == 2
    assert stored(Book, "title") == ["A", "B"]


@MEMORY
@pytest.mark.parametrize("signal", [pre_bulk_create, post_bulk_create])
def test_an_error_in_a_receiver_undoes_all(Book, listen, databases, stored, signal):
    """And dooms the open block."""

    def fail(**kwargs):
        raise Broken

    listen(signal, fail, sender=Book)
    books = [Book(title="a"), Book(title="b")]
    with pytest.raises(Broken):
        Book.objects.bulk_create(books)
    with pytest.raises(TransactionError), databases.atomic(), pytest.raises(Broken):
        Book.objects.bulk_create(books)
    assert [(book.id, book._state.adding) for book in books] == [(None, True)] * 2
    assert stored(Book) == []
    with databases.atomic(), muted(signal):
        with pytest.raises(InvalidValue):
            Book.objects.bulk_create([Book(title=3)])
        Book.objects.bulk_create(books)
    assert stored(Book, "title") == ["a", "b"]


@MEMORY
def test_a_receiver_that_hides_an_error_creates_nothing(Book, databases, listen, stored):

    def hide(**kwargs):
        with pytest.raises(DBAPIError), databases.connection() as connection:
            connection.execute(text("SELECT * FROM nowhere"))

    for signal in (pre_bulk_create, post_bulk_create):
        listen(signal, hide, sender=Book)
        with pytest.raises(TransactionError):
            Book.objects.bulk_create([Book(title="x")])
        signal.disconnect(hide, sender=Book)
    assert stored(Book) == []


@MEMORY
def test_receivers_of_the_commit_get_copies(Book, listen, undone, databases):
    """With their keys; not after a rollback."""
    told = []

    def note(objects, **kwargs):
        told.append([(each.id, each.title) for each in objects])

    listen(post_bulk_create, note, sender=Book, delivery="on_commit")
    books = [Book(title="a"), Book(title="b")]
    with databases.atomic():
        Book.objects.bulk_create(books)
        books[0].title = "later"
        assert told == []
    with undone():
        Book.objects.bulk_create([Book(title="never")])
    assert told == [[(1, "a"), (2, "b")]]


@MEMORY
@pytest.mark.sync_only("calls without await, on a loop of its own")
def test_on_a_running_loop_async_receivers_are_an_error_before_anything_ran(Book, listen, wire, databases):
    """For bulk_create and bulk_update; the block stays usable."""
    ran = []

    async def receive(**kwargs):
        ran.append(1)

    listen(post_bulk_create, receive, sender=Book)
    listen(post_update, receive, sender=Book)

    async def main():
        with databases.atomic():
            with pytest.raises(RuntimeError, match="on a running event loop"):
                Book.objects.bulk_create([Book(title="x")])
            with pytest.raises(RuntimeError, match="on a running event loop"):
                Book.objects.update(pages=3)
            return Book.objects.count()

    with wire.record() as sent:
        assert asyncio.run(main()) == 0
    assert (len(sent), ran) == (1, [])
    Book.objects.bulk_create([Book(title="x")])
    Book.objects.update(pages=3)
    assert ran == [1, 1]


@MEMORY
def test_many_rows_on_another_alias_than_the_open_block_are_noted(Book, registry, databases, listen, caplog):
    registry.create_all("other")
    listen(pre_update, lambda **kwargs: None, sender=Book)
    query = Book.objects.using("other")
    for write in (lambda: query.bulk_create([Book(title="x")]), lambda: query.update(pages=3)):
        caplog.clear()
        with databases.atomic():
            write()
        assert [record.getMessage() for record in caplog.records] == [
            "a write to 'other' inside a block on 'default' is not part of the block: it is committed separately"
        ]
    with databases.atomic("other", readonly=True):
        for write in (lambda: query.bulk_create([Book(title="x")]), lambda: query.update(pages=3)):
            with pytest.raises(TransactionError, match="^the block on 'other' is read-only$"):
                write()
        assert query.count() == 1


@MEMORY
def test_the_same_instance_twice_is_an_error(Book, wire):
    """It could have only one key; nothing is sent."""
    book = Book(title="x")
    with (
        wire.everything() as sent,
        pytest.raises(ValueError, match=r"^bulk_create\(\) was given one object twice, at 0 and 2$"),
    ):
        Book.objects.bulk_create([book, Book(title="x"), book])
    assert sent == []
    assert (book.id, book._state.adding) == (None, True)


@pytest.mark.parametrize("size", [None, 4])
def test_progress_is_told_after_each_batch(Book, stored, databases, size):
    """The number of rows that are written, but not committed yet, and the total."""
    done = []

    def progress(count, total):
        done.append((count, total, databases.database("default").is_memory or len(stored(Book))))

    hidden = databases.database("default").is_memory  # a reader would wait for the open block there
    books = [Book(title=f"t{number}") for number in range(10)]
    Book.objects.bulk_create(books, batch_size=size, progress=progress)
    assert done == [(count, 10, hidden) for count in ([10] if size is None else [4, 8, 10])]
    with pytest.raises(TypeError, match=r"^progress= takes a function of two numbers, not 3$"):
        Book.objects.bulk_create([Book(title="x")], progress=3)
    assert Book.objects.bulk_create([], progress=progress) == []


def test_an_error_in_the_last_batch_or_of_the_callers_function_undoes_all(Book, databases, stored):
    """Rows written before it and the instances, too; an open block is doomed."""
    taken = Book(title="taken").save()

    def fail(done, total):
        if done == total:
            raise Broken

    def keyed(title, key):
        book = Book(title=title)
        book.id = key
        return book

    refused = [keyed("a", taken.id + 2), keyed("b", taken.id + 1), keyed("c", taken.id)]
    fine = [Book(title=title) for title in "abc"]
    for books, progress, error in ((refused, None, IntegrityError), (fine, fail, Broken)):
        before = [(dict(vars(book)), book._state.adding) for book in books]
        with pytest.raises(error):
            Book.objects.bulk_create(books, batch_size=1, progress=progress)
        assert [(dict(vars(book)), book._state.adding) for book in books] == before
        with pytest.raises(TransactionError), databases.atomic(), pytest.raises(error):
            Book.objects.bulk_create(books, batch_size=1, progress=progress)
        assert [(dict(vars(book)), book._state.adding) for book in books] == before
        assert stored(Book, "title") == ["taken"]


def test_a_callers_function_that_hides_an_error_creates_nothing(Book, databases, stored):

    def hide(done, total):
        with pytest.raises(DBAPIError), databases.connection() as connection:
            connection.execute(text("SELECT * FROM nowhere"))

    for size in (1, None):
        with pytest.raises(TransactionError):
            Book.objects.bulk_create([Book(title="x"), Book(title="y")], batch_size=size, progress=hide)
    assert stored(Book) == []


def test_each_object_can_have_its_own_signals(Book, listen, stored, heard):
    """Those of a save that inserts, with exactly its arguments, in place of the bulk signals."""
    told = []

    def before(**kwargs):
        told.append(kwargs)
        assert (kwargs["instance"].id, kwargs["instance"]._state.adding) == (None, True)
        kwargs["instance"].title += "!"

    def after(**kwargs):
        told.append(kwargs)
        assert (kwargs["instance"]._state.adding, kwargs["instance"]._state.db) == (False, "default")
        assert kwargs["instance"].changed_fields == frozenset(Book.__schema__.names)
        assert Book.objects.filter(id=kwargs["instance"].id).count() == 1

    listen(pre_save, before, sender=Book)
    listen(post_save, after, sender=Book)
    books = [Book(title=title) for title in "abc"]
    Book.objects.bulk_create(books, batch_size=2, signals="each")
    told_before = {
        "signal": pre_save,
        "sender": Book,
        "raw": False,
        "using": "default",
        "update_fields": None,
    }
    told_after = {**told_before, "signal": post_save, "created": True}
    assert told == [
        *({**told_before, "instance": book} for book in books),
        *({**told_after, "instance": book} for book in books),
    ]
    assert stored(Book, "id", "title") == [
        (book.id, f"{title}!") for book, title in zip(books, "abc", strict=True)
    ]
    assert [book.changes() for book in books] == [{}] * 3
    assert heard == []


@MEMORY
@pytest.mark.parametrize("signal", [pre_save, post_save])
def test_an_error_in_a_receiver_of_one_object_undoes_all_of_them(Book, listen, databases, stored, signal):

    def fail(instance, **kwargs):
        if instance.title == "b":
            raise Broken

    listen(signal, fail, sender=Book)
    books = [Book(title=title) for title in "abc"]
    with pytest.raises(Broken):
        Book.objects.bulk_create(books, signals="each")
    with pytest.raises(TransactionError), databases.atomic(), pytest.raises(Broken):
        Book.objects.bulk_create(books, signals="each")
    assert [(book.id, book._state.adding, book.changed_fields) for book in books] == [
        (None, True, frozenset(vars(book))) for book in books
    ]
    assert stored(Book) == []
    Book.objects.bulk_create(books)
    assert stored(Book, "title") == ["a", "b", "c"]


@MEMORY
def test_each_objects_receivers_of_the_commit_wait_for_it(Book, listen, undone, databases):
    """After a rollback they are not called."""
    told = []
    listen(
        post_save,
        lambda instance, created, **kwargs: told.append((instance.id, created)),
        sender=Book,
        delivery="on_commit",
    )
    with undone():
        Book.objects.bulk_create([Book(title="never")], signals="each")
    with databases.atomic():
        Book.objects.bulk_create([Book(title="a"), Book(title="b")], signals="each")
        assert told == []
    assert told == [(1, True), (2, True)]


def test_objects_refer_to_what_was_saved_meanwhile(Base, registry, stored):
    """Foreign keys are read from related instances at the write; if one has no key, nothing is written."""

    class Author(Base):
        name: Field[str] = field(max_length=9)

    class Essay(Base):
        title: Field[str] = field(max_length=9)
        author: ForeignKey[Author | None] = foreign_key(default=None)

    registry.create_all("default")
    author = Author(name="a").save()
    essays = [Essay(title="x", author=author), Essay(title="y", author=author)]
    Essay.objects.bulk_create(essays)
    assert stored(Essay, "author_id") == [author.id] * 2
    other = Author(name="b").save()
    for essay in essays:
        essay.author = other
    assert Essay.objects.bulk_update(essays, ["author"]) == 2
    assert stored(Essay, "author_id") == [other.id] * 2
    other.id = None
    for write in (
        lambda: Essay.objects.bulk_create([Essay(title="z", author=author), *essays]),
        lambda: Essay.objects.bulk_update(essays, [Essay.title]),
    ):
        with pytest.raises(UnsavedError) as raised:
            write()
        assert raised.value.__notes__[0].startswith("in object ")
    assert stored(Essay, "title") == ["x", "y"]
