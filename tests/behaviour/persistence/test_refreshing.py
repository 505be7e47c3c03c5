"""Loading and refreshing: values, loaded state and alias of an instance."""

import copy
from decimal import Decimal

import pytest

from microorm import Field, FieldError, InvalidValue, Model, UnsavedError, field

MEMORY = pytest.mark.backends("sqlite-memory")


def test_a_refresh_takes_all_values_from_the_row(Book, wire):
    """By one statement; values set by the caller are replaced, and nothing counts as changed."""
    book = Book(title="x", pages=1, price=Decimal("1.50"), tags=["a"]).save()
    Book.objects.update(title="y", pages=2, price=None, tags=["b"])
    book.pages = 99
    book.tags.append("z")
    with wire.record() as sent:
        assert book.refresh_from_db() is None
    assert [each.split()[0] for each in sent] == ["SELECT"]
    assert (book.title, book.pages, book.price, book.tags) == ("y", 2, None, ["b"])
    assert (book.changes(), book._state.adding, book._state.db) == ({}, False, "default")
    book.tags.append("c")
    assert book.changes() == {"tags": (["b"], ["b", "c"])}


def test_a_refresh_of_some_fields_leaves_the_others(Book):
    """By names or columns; other fields keep their values and their loaded values."""
    book = Book(title="x", pages=1, tags=["a"]).save()
    Book.objects.update(title="y", pages=2, tags=["b"])
    book.title = "mine"
    book.refresh_from_db(fields=["pages", Book.tags])
    assert (book.title, book.pages, book.tags) == ("mine", 2, ["b"])
    assert book.changes() == {"title": ("x", "mine")}
    book.refresh_from_db(fields=(name for name in ["title"]))
    assert (book.title, book.changes()) == ("y", {})


@MEMORY
def test_a_refresh_reads_where_the_row_is_unless_told_otherwise(Book, registry, databases):
    """From `_state.db`, `using=`, or the `using()` block, which becomes the alias of the instance."""
    registry.create_all("other")
    book = Book(title="here").save()
    book.save(using="other")
    Book.objects.using("other").update(title="there")
    book.refresh_from_db()
    assert (book.title, book._state.db) == ("there", "other")
    book.refresh_from_db(using="default")
    assert (book.title, book._state.db) == ("here", "default")
    with databases.using("other"):
        book.refresh_from_db()
    assert (book.title, book._state.db) == ("there", "other")


@MEMORY
def test_an_instance_that_was_never_loaded_is_refreshed_from_where_it_is_routed(registry, databases):
    """Routers are asked, with the instance as a hint; then the home of the model counts."""
    asked = []

    class Ask:
        def db_for_read(self, model, **hints):
            asked.append((model, hints))

    class Note(Model, registry=registry, database="other"):
        text: Field[str]

    registry.create_all("other")
    key = Note(text="x").save().id
    twin = Note(text="?")
    twin.id = key
    databases.routers = (Ask(),)
    twin.refresh_from_db()
    assert (twin.text, twin._state.db) == ("x", "other")
    assert asked == [(Note, {"instance": twin, "in_atomic": False})]
    twin.refresh_from_db()
    assert len(asked) == 1


@MEMORY
def test_an_instance_that_was_never_loaded_may_be_refreshed_by_its_key(Book):
    """It then counts as loaded."""
    key = Book(title="x", pages=5).save().id
    twin = Book(title="?")
    twin.id = key
    twin.refresh_from_db()
    assert (twin.title, twin.pages, twin.changes(), twin._state.adding) == ("x", 5, {}, False)
    part = Book(title="?", pages=0)
    part.id = key
    part.refresh_from_db(fields=["pages"])
    assert (part.title, part.pages) == ("?", 5)
    assert part.changed_fields == {"id", "title", "price", "tags"}


def test_a_refresh_of_a_row_that_is_gone_leaves_the_instance(Book):
    """DoesNotExist names the key."""
    book = Book(title="x").save()
    Book.objects.delete()
    book.title = "mine"
    with pytest.raises(Book.DoesNotExist, match=rf"^no Book with id={book.id} in 'default'$"):
        book.refresh_from_db()
    assert (book.title, book.changes(), book._state.db) == ("mine", {"title": ("x", "mine")}, "default")


@MEMORY
def test_wrong_arguments_of_a_refresh_are_errors_before_any_sql(Book, wire):
    book = Book(title="x").save()
    wrong = Book(title="x")
    wrong.id = "7"
    expression = Book(title="x")
    expression.id = Book.id + 1
    with wire.record() as sent:
        with pytest.raises(UnsavedError, match="^Book has no key, and a refresh needs one$"):
            Book(title="x").refresh_from_db()
        for given in ("title", b"title", Book.title):
            with pytest.raises(TypeError) as raised:
                book.refresh_from_db(fields=given)
            assert str(raised.value) == f"fields must be a list of names or columns, not {given!r}"
        for names in (["titel"], ["author__name"], [3]):
            with pytest.raises(FieldError, match="^Book has no field"):
                book.refresh_from_db(fields=names)
        for instance in (wrong, expression):
            with pytest.raises(InvalidValue):
                instance.refresh_from_db()
    assert sent == []


@MEMORY
def test_a_composite_key_is_refreshed_by_all_of_it(Base, registry):
    """Also a key with another name."""

    class Pair(Base):
        left: Field[int] = field(primary_key=True)
        right: Field[str] = field(primary_key=True, max_length=5)
        text: Field[str]

    registry.create_all("default")
    Pair(left=1, right="a", text="1a").save()
    pair = Pair(left=1, right="b", text="1b").save()
    pair.text = "?"
    pair.refresh_from_db()
    assert pair.text == "1b"
    pair.right = "c"
    with pytest.raises(Pair.DoesNotExist, match="^no Pair with left=1, right='c' in 'default'$"):
        pair.refresh_from_db()


def test_a_refresh_sees_what_the_open_block_wrote(Book, databases, undone):
    book = Book(title="x").save()
    twin = Book.objects.get(id=book.id)
    with undone():
        book.title = "y"
        book.save()
        twin.refresh_from_db()
        assert twin.title == "y"
    twin.refresh_from_db()
    assert twin.title == "x"


@MEMORY
def test_a_refresh_may_be_made_in_a_readonly_block(Book, databases):
    book = Book(title="x").save()
    Book.objects.update(title="y")
    with databases.atomic(readonly=True):
        book.refresh_from_db()
    assert book.title == "y"


def test_a_copy_knows_what_was_loaded(Book):
    """A deep copy has JSON values of its own."""
    book = Book(title="x", tags=["a"]).save()
    loaded = Book.objects.get(id=book.id)
    loaded.title = "y"
    twin = copy.deepcopy(loaded)
    twin.tags.append("b")
    assert twin.changes() == {"title": ("x", "y"), "tags": (["a"], ["a", "b"])}
    assert loaded.changes() == {"title": ("x", "y")}
    shallow = copy.copy(loaded)
    assert (shallow, shallow.changes(), shallow.tags is loaded.tags) == (loaded, loaded.changes(), True)
    twin.save()
    assert (loaded.changes(), Book.objects.get().tags) == ({"title": ("x", "y")}, ["a", "b"])
