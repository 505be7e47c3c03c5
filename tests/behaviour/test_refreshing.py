"""Loading and refreshing: what an instance knows of its row (CONTRACT G2 to G5, I20; DESIGN 3)."""

import copy
from decimal import Decimal
from typing import Any

import pytest

from microorm import Field, FieldError, InvalidValue, UnsavedError, field
from microorm.signals import post_init, pre_init

MEMORY = pytest.mark.backends("sqlite-memory")


def test_a_refresh_takes_all_values_from_the_row(Book, wire):
    """I20: by one statement; what the caller set is gone, and nothing counts as changed."""
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
    """I20: names or columns; what was set stays, and so does what it is compared with."""
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
    """I20, N9: `_state.db`, `using=`, or the block; and the instance is there from then on."""
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
def test_an_instance_that_was_never_loaded_may_be_refreshed_by_its_key(Book):
    """I20: then it is a loaded one."""
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
    """I20: DoesNotExist says what was asked."""
    book = Book(title="x").save()
    Book.objects.delete()
    book.title = "mine"
    with pytest.raises(Book.DoesNotExist, match=rf"^no Book with id={book.id} in 'default'$"):
        book.refresh_from_db()
    assert (book.title, book.changes(), book._state.db) == ("mine", {"title": ("x", "mine")}, "default")


@MEMORY
def test_wrong_arguments_of_a_refresh_are_errors_before_any_sql(Book, wire):
    """I20."""
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
            assert str(raised.value) == f"fields wants a list of names or columns, not {given!r}"
        for names in (["titel"], ["author__name"], [3]):
            with pytest.raises(FieldError, match="^Book has no field"):
                book.refresh_from_db(fields=names)
        for instance in (wrong, expression):
            with pytest.raises(InvalidValue):
                instance.refresh_from_db()
    assert sent == []


@MEMORY
def test_a_composite_key_is_refreshed_by_all_of_it(Base, registry):
    """I20: and a key of another name."""

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
    """I20."""
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
class TestInit:
    """`pre_init` and `post_init` when rows are loaded."""

    @pytest.fixture
    def heard(self, Book, listen):
        heard: list[Any] = []

        def before(**kwargs):
            heard.append({**kwargs, "kwargs": dict(kwargs["kwargs"])})

        def after(instance, **kwargs):
            heard.append(
                {**kwargs, "instance": instance, "state": (instance._state.adding, instance._state.db)}
            )

        Book(title="x", tags=["a"]).save()
        listen(pre_init, before, sender=Book)
        listen(post_init, after, sender=Book)
        return heard

    @pytest.mark.parametrize("how", ["get", "all", "expression", "raw"])
    def test_loading_tells_both_with_the_row_and_the_state_set(self, Book, heard, how):
        """G3, G4: `args=()`, `kwargs` is the row, `_state` is set before post_init."""
        (book,) = {
            "get": lambda: [Book.objects.get(title="x")],
            "all": Book.objects.all,
            "expression": Book.objects.filter(Book.pages < 5).all,
            "raw": lambda: Book.objects.raw("SELECT * FROM book"),
        }[how]()
        row = {"id": 1, "title": "x", "pages": 0, "price": None, "tags": ["a"]}
        assert heard == [
            {"signal": pre_init, "sender": Book, "args": (), "kwargs": row},
            {"signal": post_init, "sender": Book, "instance": book, "state": (False, "default")},
        ]
        assert heard[1]["instance"] is book
        assert (vars(book), book.changes()) == (row, {})
        book.tags.append("b")
        assert book.changes() == {"tags": (["a"], ["a", "b"])}

    def test_a_receiver_may_edit_the_row(self, Book, listen):
        """G2: `kwargs` is live; what it changes counts as changed."""

        def edit(kwargs, **rest):
            kwargs["title"] = kwargs["title"].upper()

        Book(title="x").save()
        listen(pre_init, edit, sender=Book)
        book = Book.objects.get()
        assert (book.title, book.changes()) == ("X", {"title": ("x", "X")})

    def test_a_refresh_makes_no_instance_and_tells_nobody(self, Book, heard):
        """G5."""
        book = Book.objects.get()
        heard.clear()
        book.refresh_from_db()
        book.refresh_from_db(fields=["title"])
        assert (heard, book.tags) == ([], ["a"])

    def test_a_receiver_of_another_model_changes_nothing(self, Book, listen):
        """G4, A11: rows are loaded the careful way, and are the same."""
        heard = []
        Book(title="x", tags=["a"]).save()
        listen(post_init, lambda **kwargs: heard.append(1), sender=int)
        book = Book.objects.get(title="x")
        assert (heard, book.title, book.tags, book.changes(), book._state.db) == (
            [],
            "x",
            ["a"],
            {},
            "default",
        )


@MEMORY
def test_a_copy_knows_what_was_loaded(Book):
    """DESIGN 3: a copy's JSON is its own when it is deep."""
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
