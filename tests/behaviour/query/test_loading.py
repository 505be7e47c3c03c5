"""What making instances of rows tells, and what they know of their row."""

from typing import Any

import pytest

from microorm import Field
from microorm.signals import post_init, pre_init

MEMORY = pytest.mark.backends("sqlite-memory")


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
        """`args=()`, `kwargs` is the row, `_state` is set before post_init."""
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
        """`kwargs` is live; what it changes counts as changed."""

        def edit(kwargs, **rest):
            kwargs["title"] = kwargs["title"].upper()

        Book(title="x").save()
        listen(pre_init, edit, sender=Book)
        book = Book.objects.get()
        assert (book.title, book.changes()) == ("X", {"title": ("x", "X")})

    def test_a_refresh_makes_no_instance_and_tells_nobody(self, Book, heard):
        book = Book.objects.get()
        heard.clear()
        book.refresh_from_db()
        book.refresh_from_db(fields=["title"])
        assert (heard, book.tags) == ([], ["a"])

    def test_a_receiver_of_another_model_changes_nothing(self, Base, Book, listen):
        """The signal has receivers, but none of this model."""
        heard = []

        class Other(Base):
            title: Field[str]

        Book(title="x", tags=["a"]).save()
        listen(post_init, lambda **kwargs: heard.append(1), sender=Other)
        book = Book.objects.get(title="x")
        assert (heard, book.title, book.tags, book.changes(), book._state.db) == (
            [],
            "x",
            ["a"],
            {},
            "default",
        )
