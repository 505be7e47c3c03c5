"""Deferred fields: when they are loaded, and how saves treat them."""

import copy
import pickle
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from microorm import (
    Field,
    FieldError,
    ForeignKey,
    LazyLoadError,
    Model,
    TransactionError,
    UnsavedError,
    field,
    foreign_key,
)
from microorm.signals import post_delete, post_init, post_save, pre_bulk_create, pre_init, pre_save
from microorm.sql.hydration import MAX_SUBSETS
from microorm.testing import no_lazy_loads

MEMORY = pytest.mark.backends("sqlite-memory")

ALL = {"id", "title", "pages", "price", "tags"}


def loaded(instance: Any) -> set[str]:
    """Return the names of the fields that *instance* has values for."""
    return set(instance.__dict__)


def verbs(sent: list[str]) -> list[str]:
    return [each.split()[0] for each in sent]


@pytest.fixture
def book(Book, registry):
    """A book that was loaded with its title only."""
    registry.create_all("other")
    Book(title="x", pages=7, price=Decimal("1.50"), tags=["a"]).save()
    return Book.objects.only("title").get()


# Which fields are loaded


def test_only_loads_these_fields_and_the_key(Book, shelf, wire):
    with wire.record() as sent:
        found = [*shelf.only("title", Book.pages), Book.objects.only("title", Book.pages).get(title="a")]
    assert [loaded(each) for each in found] == [{"id", "title", "pages"}] * 6
    assert [(each.title, each.pages) for each in found] == [*zip("abcde", range(1, 6), strict=True), ("a", 1)]
    assert not any("price" in each or "tags" in each for each in sent)
    assert all(type(each) is Book for each in found)


@pytest.mark.parametrize(
    ("choose", "names"),
    [
        (lambda q: q.only(), {"id"}),
        (lambda q: q.only("id"), {"id"}),
        (lambda q: q.defer("price", "tags"), {"id", "title", "pages"}),
        (lambda q: q.defer(), ALL),
        (lambda q: q.defer("id", "title"), ALL - {"title"}),
        (lambda q: q.defer("title").defer("pages"), ALL - {"title", "pages"}),
        (lambda q: q.only("title", "pages").defer("pages"), {"id", "title"}),
        (lambda q: q.defer("pages").only("pages"), {"id", "pages"}),
        (lambda q: q.only("title").only("pages"), {"id", "pages"}),
        (lambda q: q.only(*ALL), ALL),
    ],
)
@MEMORY
def test_defer_takes_away_and_only_begins_anew(Book, shelf, choose, names):
    first, by_key = choose(shelf).first(), choose(Book.objects).get(title="a")
    assert loaded(first) == loaded(by_key) == names
    assert (first, first.changes()) == (by_key, {})


def test_every_end_loads_the_fields_that_were_asked_for(Book, shelf):
    query = shelf.only("title")
    ends = [
        query.first(),
        query[2],
        query.filter(Book.pages > 4).get(),
        query.filter(title="a").one_or_none(),
        query.distinct().all()[0],
        query.limit(1).all()[0],
        next(iter(query)),
    ]
    assert [loaded(each) for each in ends] == [{"id", "title"}] * len(ends)
    assert (query.count(), query.distinct().count(), query.exists()) == (5, 5, True)
    assert [column.name for column in query.statement.selected_columns] == ["id", "title"]


@MEMORY
@pytest.mark.parametrize("method", ["only", "defer"])
def test_what_is_no_field_is_refused_before_anything_is_sent(Book, Base, wire, method):
    class Other(Base):
        title: Field[str]

    choose = getattr(Book.objects, method)
    with wire.record() as sent:
        with pytest.raises(FieldError, match="Book has no field 'titel'; nearest: 'title'"):
            choose("titel")
        for wrong in (Other.title, Book.pages + 1, "author.name", "id; DROP TABLE book", ["title"], None, 3):
            with pytest.raises(FieldError):
                choose(wrong)
    assert sent == []


@MEMORY
@pytest.mark.parametrize("method", ["only", "defer"])
def test_what_a_path_leads_to_is_refused(Base, registry, method):
    """Except the key at its end, which is a column of the model itself."""

    class Author(Base):
        name: Field[str]

    class Story(Base):
        title: Field[str]
        author: ForeignKey[Author] = foreign_key()

    registry.create_all("default")
    choose = getattr(Story.objects, method)
    with pytest.raises(FieldError, match=r"'name' is a column of <path Story.author>"):
        choose(Story.author.name)
    with pytest.raises(FieldError, match=r"<path Story.author> is a path to other rows"):
        choose(Story.author)
    Story(title="t", author=Author(name="a").save()).save()
    for named in ("author", "author_id", Story.author.id, Story.author_id):
        story = choose(named).get()
        assert ("author_id" in loaded(story)) is (method == "only")
        assert (story.author.name, story.title, story.changes()) == ("a", "t", {})


@MEMORY
def test_update_fields_of_a_foreign_key_are_told_by_its_name(Base, registry, listen):

    class Author(Base):
        name: Field[str]

    class Story(Base):
        title: Field[str]
        author: ForeignKey[Author] = foreign_key()
        pages: Field[int] = field(default=0)

    registry.create_all("default")
    Story(title="t", author=Author(name="a").save()).save()
    heard = []
    listen(post_save, lambda update_fields, **others: heard.append(update_fields), sender=Story)
    Story.objects.only("author").get().save()
    late = Story.objects.only("title").get()
    late.author = Author(name="b").save()
    late.save()
    late.pages = 3
    late.save()
    assert heard == [{"author"}, {"author", "title"}, None]  # the last save has all fields
    assert Story.objects.get().author.name == "b"


@MEMORY
def test_the_functions_for_subsets_are_bounded_in_number(registry, Base):
    class Wide(Base):
        __annotations__ = {f"f{number}": Field[int] for number in range(8)}

    registry.create_all("default")
    Wide(**{f"f{number}": number for number in range(8)}).save()
    for bits in range(1, 200):
        names = [f"f{number}" for number in range(8) if bits & 1 << number]
        found = Wide.objects.only(*names).order_by("id").all()[0]
        assert [found.__dict__[name] for name in names] == [int(name[1]) for name in names]
    assert len(Wide.__schema__.builders) <= MAX_SUBSETS


# Reading a deferred value


def test_a_deferred_value_is_loaded_by_one_statement_when_it_is_read(Book, book, wire):
    with wire.record() as sent:
        assert book.price == Decimal("1.50")
        assert book.price == Decimal("1.50")
    assert len(sent) == 1
    assert "price" in sent[0]
    assert "title" not in sent[0]
    assert "pages" not in sent[0]
    assert loaded(book) == {"id", "title", "price"}
    assert (book.changed_fields, book.changes()) == (frozenset(), {})
    assert (book.tags, book.pages) == (["a"], 7)
    assert book.changes() == {}
    book.tags.append("b")
    assert book.changes() == {"tags": (["a"], ["a", "b"])}


def test_what_was_never_saved_still_reads_none(Book):
    """A field without a value is not deferred."""
    book = Book(title="x")
    del book.title
    assert (book.id, book.title) == (None, None)
    assert object.__new__(Book).title is None


def test_a_deleted_attribute_is_not_loaded_again(book, wire):
    del book.title
    with wire.record() as sent:
        assert book.title is None
    assert sent == []


def test_a_deferred_value_comes_from_the_row_that_was_loaded(Book, book, databases):
    """From its alias, whatever the routing is now, and by its key, even if the key of the instance has changed."""
    Book.objects.using("other").create(id=book.id, title="there", pages=8)
    with databases.using("other"):
        assert book.pages == 7
    book.id = None
    assert book.price == Decimal("1.50")
    book.id = 99
    assert book.tags == ["a"]
    assert book.changed_fields == {"id"}
    far = Book.objects.using("other").only("title").get()
    assert (far.pages, far._state.db) == (8, "other")


def test_a_row_that_is_gone_is_said_and_leaves_the_instance_as_it_was(Book, book):
    Book.objects.delete()
    for name in ("pages", "tags"):
        with pytest.raises(Book.DoesNotExist, match=rf"no Book with id={book.id} in 'default'"):
            getattr(book, name)
    assert loaded(book) == {"id", "title"}
    assert (book.title, book.changes()) == ("x", {})


def test_what_was_loaded_late_in_a_block_is_undone_with_it(Book, book, databases, undone):
    """As after a refresh, since what the block has read may be rolled back."""
    with undone():
        Book.objects.update(pages=8, price=Decimal(2))
        assert book.pages == 8
        with databases.atomic():
            assert book.price == 2
    assert loaded(book) == {"id", "title"}
    assert (book.pages, book.price, book.changes()) == (7, Decimal("1.50"), {})


def test_what_was_loaded_late_and_set_since_stays_set(book, undone):
    with undone():
        assert book.pages == 7
        book.pages = 9
    assert book.pages == 9
    assert book.changes() == {"pages": (7, 9)}


def test_a_doomed_block_loads_nothing_late(book, databases):
    with pytest.raises(TransactionError):
        with databases.atomic():
            databases.transaction(databases.database("default")).doom(ValueError("x"))
            with pytest.raises(TransactionError, match="doomed"):
                assert book.pages
    assert book.pages == 7


def test_a_lazy_load_can_be_refused(Book, book, wire):
    with wire.record() as sent:
        with no_lazy_loads():
            with pytest.raises(LazyLoadError, match=rf"Book\.pages of Book\(id={book.id}\) is not loaded"):
                assert book.pages
            assert book.title == "x"
            assert Book.objects.only("title").get() == book
    assert len(sent) == 1
    assert book.pages == 7


def test_values_of_every_kind_are_loaded_late_as_they_would_be_at_once(Base, registry):
    class Thing(Base):
        at: Field[datetime]
        long: Field[timedelta]
        blob: Field[bytes]
        notes: Field[dict[str, Any]]
        rate: Field[float | None]

    registry.create_all("default")
    moment = datetime(2020, 1, 2, 3, 4, 5, 678901, UTC)
    Thing(at=moment, long=timedelta(microseconds=7), blob=b"\x00\xff", notes={"a": [1]}, rate=None).save()
    whole, lazy = Thing.objects.get(), Thing.objects.only().get()
    for name in ("at", "long", "blob", "notes", "rate"):
        assert getattr(lazy, name) == getattr(whole, name)
        some = Thing.objects.only(name).order_by("id").get()
        assert (getattr(some, name), some.changes()) == (getattr(whole, name), {})
    assert (lazy.changes(), lazy.at.tzinfo) == ({}, UTC)


def test_a_composite_key_finds_a_deferred_value(Base, registry):
    class Seat(Base):
        row: Field[int] = field(primary_key=True)
        place: Field[str] = field(primary_key=True, max_length=3)
        taken: Field[bool] = field(default=False)

    registry.create_all("default")
    Seat(row=1, place="a", taken=True).save()
    Seat(row=1, place="b").save()
    seats = Seat.objects.only().order_by("place").all()
    assert [seat.pk for seat in seats] == [(1, "a"), (1, "b")]
    assert [seat.taken for seat in seats] == [True, False]


# Saving


@pytest.mark.parametrize("raw", [False, True])
def test_a_save_writes_the_fields_that_are_there(Book, book, stored, wire, listen, raw):
    """By an UPDATE of these, which the signals report as `update_fields`, with the model as sender."""
    heard = []

    def hear(signal, sender, instance, update_fields, raw, **kwargs):
        heard.append((sender, update_fields, raw, kwargs.get("created")))

    for signal in (pre_save, post_save):
        listen(signal, hear, sender=Book)
    Book.objects.update(pages=8)
    book.title, book.tags = "y", ["z"]
    assert book.changes() == {"title": ("x", "y"), "tags": (["a"], ["z"])}
    with wire.record() as sent:
        book.save(raw=raw)
    assert verbs(sent) == ["UPDATE"]
    assert "pages" not in sent[0]
    names = frozenset({"title", "tags"})
    assert heard == [(Book, names, raw, None), (Book, names, raw, False)]
    assert stored(Book, "title", "pages", "price", "tags") == [("y", 8, Decimal("1.50"), ["z"])]
    assert (book.changes(), loaded(book)) == ({}, {"id", "title", "tags"})
    assert book.pages == 8


def test_a_deferred_value_that_was_read_is_written_too(Book, book, stored, wire):
    assert book.pages == 7
    Book.objects.update(pages=8, price=None)
    with wire.record() as sent:
        book.save()
    assert verbs(sent) == ["UPDATE"]
    assert stored(Book, "pages", "price") == [(7, None)]


def test_a_save_of_a_row_that_is_gone_updates_nothing(Book, book, stored):
    """It is not inserted, since its other values are unknown."""
    Book.objects.delete()
    book.title = "y"
    with pytest.raises(Book.NotUpdated):
        book.save()
    assert stored(Book) == []
    assert (book.title, book.changes()) == ("y", {"title": ("x", "y")})


def test_a_save_elsewhere_loads_what_is_missing_first(Book, book, stored, wire, listen):
    """One SELECT from the old alias, then UPDATE and INSERT in the new one."""
    heard = []
    listen(
        post_save,
        lambda update_fields, created, using, **kwargs: heard.append((update_fields, created, using)),
        sender=Book,
    )
    with wire.record() as sent:
        book.save(using="other")
    assert verbs(sent) == ["SELECT", "UPDATE", "INSERT"]
    assert heard == [(None, True, "other")]
    assert stored(Book, alias="other") == stored(Book)
    assert (loaded(book), book.changes(), book._state.db) == (ALL, {}, "other")
    with wire.record() as sent:
        book.save()
    assert verbs(sent) == ["UPDATE"]
    assert heard[1:] == [(None, False, "other")]


def test_a_save_elsewhere_inside_a_using_block_loads_from_where_the_row_is(Book, book, databases, stored):
    with databases.using("other"):
        book.save()
    assert stored(Book, alias="other") == stored(Book)


def test_a_copy_made_by_taking_the_key_away_has_all_values(Book, book, stored):
    book.id = None
    book.title = "y"
    book.save()
    assert stored(Book, "title", "pages", "tags") == [("x", 7, ["a"]), ("y", 7, ["a"])]


def test_a_save_under_another_key_has_all_values(Book, book, stored):
    book.id = 50
    book.save()
    assert stored(Book, "id", "pages") == [(Book.objects.first().id, 7), (50, 7)]


def test_a_forced_insert_has_all_values(Book, book, stored):
    Book.objects.defer("pages").get().save(using="other", force_insert=True)
    assert stored(Book, alias="other") == stored(Book)


def test_an_instance_put_back_to_adding_has_all_values(Book, book, stored):
    book._state.adding = True
    book.title = "y"
    book.save()
    assert stored(Book, "title", "pages") == [("y", 7)]
    assert loaded(book) == ALL


def test_a_forced_update_writes_what_is_there(Book, book, stored, wire):
    Book.objects.update(pages=8)
    with wire.record() as sent:
        book.save(force_update=True)
    assert verbs(sent) == ["UPDATE"]
    assert stored(Book, "pages") == [8]


def test_a_save_of_nothing_but_the_key_is_a_whole_one(Book, book, stored, wire, listen):
    """An empty `update_fields` would write nothing."""
    bare, heard = Book.objects.only().get(), []
    listen(post_save, lambda update_fields, **kwargs: heard.append(update_fields), sender=Book)
    with wire.record() as sent:
        bare.save()
    assert verbs(sent) == ["SELECT", "UPDATE"]
    assert heard == [None]
    assert stored(Book, "title", "pages") == [("x", 7)]


def test_update_fields_that_are_deferred_are_loaded_to_be_written(Book, book, stored, wire):
    book.save(update_fields=["title"])
    Book.objects.using("other").create(id=book.id, title="there", pages=8)
    with wire.record() as sent:
        book.save(using="other", update_fields=["pages", Book.tags])
    assert verbs(sent) == ["SELECT", "UPDATE"]
    assert stored(Book, "title", "pages", "tags", alias="other") == [("there", 7, ["a"])]


def test_an_expression_may_be_assigned_to_a_deferred_field(Book, book, stored):
    book.pages = Book.pages + 1
    book.save()
    assert stored(Book, "title", "pages", "tags") == [("x", 8, ["a"])]
    assert (book.pages, book.changes(), loaded(book)) == (8, {}, {"id", "title", "pages"})


def test_a_save_in_a_block_that_is_rolled_back_leaves_the_fields_deferred(Book, book, undone, stored):
    with undone():
        book.title, book.pages = "y", 9
        book.save()
        assert book.changes() == {}
    assert book.changes() == {"title": ("x", "y"), "pages": (7, 9)}
    assert (book.tags, loaded(book)) == (["a"], {"id", "title", "pages", "tags"})
    book.save()
    assert stored(Book, "title", "pages") == [("y", 9)]


def test_on_update_fills_a_deferred_field_at_a_save_that_is_not_raw(Base, registry, stored):
    """Raw saves leave it deferred."""

    class Note(Base):
        text: Field[str]
        stamp: Field[int] = field(default=0, on_update=lambda: 5)

    registry.create_all("default")
    Note(text="a").save()
    Note.objects.update(stamp=1)
    Note.objects.only("text").get().save(raw=True)
    assert stored(Note, "stamp") == [1]
    note = Note.objects.only("text").get()
    note.save()
    assert (stored(Note, "stamp"), note.stamp, note.changes()) == ([5], 5, {})


def test_receivers_may_read_deferred_values_and_are_told_no_change(Book, book, listen):
    heard = []

    def read(instance, **kwargs):
        heard.append((instance.pages, instance.changes()))

    listen(pre_save, lambda instance, **kwargs: instance.price, sender=Book)
    listen(post_save, read, sender=Book)
    book.title = "y"
    book.save()
    assert heard == [(7, {"title": ("x", "y")})]
    assert book.changes() == {}
    assert loaded(book) == {"id", "title", "price", "pages"}


def test_a_receiver_is_told_of_a_deferred_field_that_was_assigned(Book, book, listen):
    heard = []
    listen(post_save, lambda instance, **kwargs: heard.append(instance.changes()), sender=Book)
    book.pages = 9
    book.save()
    assert heard == [{"pages": (7, 9)}]


def test_an_assigned_field_is_compared_with_its_stored_value(Book, book, wire, stored):
    """Which is loaded once; its own value is no change, and without the row the old value is unknown."""
    book.pages = 7
    assert book.changes() == {}
    with wire.record() as sent:
        assert book.changed_fields == frozenset()
        book.pages, book.tags = 8, ["b"]
        assert book.changes() == {"pages": (7, 8), "tags": (["a"], ["b"])}
        book.pages = 7
        assert book.changes() == {"tags": (["a"], ["b"])}
    assert verbs(sent) == ["SELECT"]
    book.save(update_fields=book.changed_fields)
    assert stored(Book, "pages", "tags") == [(7, ["b"])]
    gone = Book.objects.only("title").get()
    Book.objects.delete()
    gone.pages = 9
    assert gone.changes() == {"pages": (None, 9)}


def test_where_lazy_loads_are_refused_the_changes_of_an_assigned_field_are(book):
    book.pages = 9
    with no_lazy_loads(), pytest.raises(LazyLoadError, match=r"Book\.pages of .* is not loaded"):
        book.changes()


def test_wrong_values_are_told_and_nothing_is_written(Book, book, stored):
    book.pages = "many"
    with pytest.raises(FieldError, match=r"Book\.pages must be int"):
        book.save()
    assert stored(Book, "pages") == [7]
    assert book.pages == "many"


def test_an_expression_as_key_is_refused_as_ever(Book, book, stored):
    book.id = Book.id + 1
    with pytest.raises(FieldError, match="must be a value, not an expression"):
        book.save()
    assert len(stored(Book)) == 1


# The rest of an instance's life


def test_a_refresh_loads_what_is_not_deferred(Book, book, wire):
    Book.objects.update(title="y", pages=8)
    with wire.record() as sent:
        book.refresh_from_db()
    assert "pages" not in sent[0]
    assert (book.title, loaded(book), book.changes()) == ("y", {"id", "title"}, {})
    book.refresh_from_db(fields=["pages"])
    assert (book.pages, loaded(book), book.changes()) == (8, {"id", "title", "pages"}, {})
    book.price = Decimal(3)
    book.refresh_from_db()
    assert (book.price, book.changes()) == (Decimal("1.50"), {})
    assert book.tags == ["a"]


def test_a_refresh_of_no_field_asks_for_the_row_all_the_same(Book, book):
    book.refresh_from_db(fields=[])
    Book.objects.delete()
    with pytest.raises(Book.DoesNotExist):
        book.refresh_from_db(fields=[])


def test_a_refresh_from_elsewhere_moves_the_deferred_values_there(Book, book):
    Book.objects.using("other").create(id=book.id, title="there", pages=8)
    book.refresh_from_db(using="other")
    assert (book.title, book.pages) == ("there", 8)


def test_a_deleted_instance_knows_what_it_had_and_no_more(Book, book, stored):
    assert book.delete() == (1, {Book.__schema__.label: 1})
    assert stored(Book) == []
    with pytest.raises(Book.DoesNotExist):
        assert book.pages
    with pytest.raises(Book.DoesNotExist):
        book.save()
    with pytest.raises(UnsavedError):
        book.refresh_from_db()


def test_receivers_of_a_delete_can_read_all_fields(Book, book, listen, stored):
    heard = []
    listen(post_delete, lambda sender, instance, **kwargs: heard.append((sender, instance.pages)), Book)
    pages = Book.objects.get().pages
    assert book.delete() == (1, {Book.__schema__.label: 1})
    assert heard == [(Book, pages)]
    assert (stored(Book), book.pages) == ([], pages)


def test_a_bulk_create_of_such_instances_writes_all_values(Book, shelf, registry, listen, stored):
    registry.create_all("other")
    heard = []
    listen(pre_bulk_create, lambda objects, **kwargs: heard.append(len(objects)), sender=Book)
    Book.objects.using("other").bulk_create([*shelf.only("title")[:2], *shelf.defer("tags")[2:]])
    assert stored(Book, alias="other") == stored(Book)
    assert heard == [5]


@pytest.mark.parametrize(
    "twin",
    [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))],
    ids=["copy", "deepcopy", "pickle"],
)
@MEMORY
def test_a_twin_loads_and_saves_as_the_original_would(Book, book, twin, monkeypatch, wire, stored):
    monkeypatch.setattr(sys.modules[__name__], "Book", Book, raising=False)
    Book.__module__, Book.__qualname__ = __name__, "Book"  # pickle looks it up by this name
    book.title = "y"
    other = twin(book)
    assert other == book
    assert hash(other) == hash(book)
    assert repr(other) == repr(book) == f"Book(id={book.id}, title='y')"
    assert (loaded(other), other.changes()) == ({"id", "title"}, {"title": ("x", "y")})
    with wire.record() as sent:
        other.save()
    assert verbs(sent) == ["UPDATE"]
    assert (other.pages, other.tags) == (7, ["a"])
    assert loaded(book) == {"id", "title"}
    assert stored(Book, "title", "pages") == [("y", 7)]


@MEMORY
def test_the_listeners_of_init_are_given_the_fields_that_were_loaded(Book, shelf, listen, way):
    before, after = [], []
    listen(pre_init, lambda args, kwargs, **others: before.append((args, kwargs)), sender=Book)
    listen(post_init, lambda instance, **others: after.append(loaded(instance)), sender=Book)
    found = [Book.objects.only("title").get(title="a"), shelf.only("title").first()]
    assert [(args, set(kwargs)) for args, kwargs in before] == [((), {"id", "title"})] * 2
    assert after == [{"id", "title"}] * 2
    assert [each.pages for each in found] == [1, 1]
    assert [each.changes() for each in found] == [{}, {}]


@MEMORY
def test_an_instance_without_an_alias_is_read_from_where_it_is_routed(Book, book, databases):
    book._state.db = None
    assert book.pages == 7
    assert issubclass(Book, Model)


def test_many_objects_written_at_once_are_completed_by_one_statement(Book, shelf, wire) -> None:
    with wire.record() as sent:
        assert Book.objects.bulk_update(Book.objects.defer("title", "pages").all(), ["title"]) == 5
    assert len([each for each in sent if each.startswith("SELECT")]) == 2
    partial = Book.objects.only("title").all()
    for each in partial:
        each.id = None
    with wire.record() as sent:
        Book.objects.bulk_create(partial)
    assert len([each for each in sent if each.startswith("SELECT") and "last_insert" not in each]) == 1
    assert sorted(Book.objects.scalars(Book.pages)) == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


@MEMORY
def test_in_a_readonly_block_they_are_completed_to_be_written_elsewhere(Book, shelf, registry, databases):
    """A block on the alias that the rows come from, which are only read."""
    registry.create_all("other")
    with databases.atomic(readonly=True):
        Book.objects.using("other").bulk_create(Book.objects.only("title").all())
    assert Book.objects.using("other").count() == Book.objects.count() == 5


def test_one_of_many_whose_row_is_gone_is_told(Book, shelf) -> None:
    found = Book.objects.only("title").all()
    Book.objects.filter(pk=found[2].id).delete()
    with pytest.raises(Book.DoesNotExist, match=f"no Book with id={found[2].id} in 'default'"):
        Book.objects.bulk_update(found, ["pages"])
