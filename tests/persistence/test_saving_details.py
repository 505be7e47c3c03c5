"""Saves: the hints of routers, later receivers, and the error of a doomed block."""

from typing import Any

import pytest

from microorm import Databases, Field, Model, Registry, TransactionError, field
from microorm.signals import post_save


def test_routers_are_asked_with_the_model_and_the_instance(sqlite_url: str) -> None:
    """The model is always passed; the instance for a save, delete or refresh, not for create() and update()."""
    asked: list[tuple[str, Any, Any, bool]] = []

    class Watching:
        def db_for_write(self, model: Any, **hints: Any) -> None:
            asked.append(("write", model, hints.get("instance"), hints["in_atomic"]))

        def db_for_read(self, model: Any, **hints: Any) -> None:
            asked.append(("read", model, hints.get("instance"), hints["in_atomic"]))

    with Databases({"default": sqlite_url}, [Watching()]) as databases:
        registry = Registry(databases)

        class Book(Model, registry=registry):
            title: Field[str] = field(default="")

        registry.create_all()
        book = Book()
        book.save()
        assert [each for each in asked if each[2] is book] == [("write", Book, book, False)]
        asked.clear()
        made = Book.objects.create(title="a")
        assert [(each[0], each[1], each[2]) for each in asked] == [("write", Book, None)]
        asked.clear()
        with databases.atomic():
            book.save()
        assert asked == [("write", Book, book, True)]
        asked.clear()
        Book.objects.update(title="b")
        assert asked == [("write", Book, None, False)]
        asked.clear()
        made.delete()
        assert asked == [("write", Book, made, False)]


def test_an_update_that_found_no_row_dooms_its_block_by_its_own_error(databases: Any, Base: Any) -> None:
    """It is the cause of the TransactionError, even without receivers."""

    class Book(Base):
        title: Field[str] = field(default="")

    Book.__schema__.registry.create_all("default")
    with pytest.raises(TransactionError) as caught:
        with databases.atomic():
            with pytest.raises(Book.NotUpdated) as first:
                Book.objects.create(id=5)._state.adding = True
                gone = Book(title="x")
                gone.id = 77
                gone.save(force_update=True)
    assert caught.value.__cause__ is first.value
    assert str(first.value) == "Book with id=77 is not in 'default'"


def test_receivers_after_a_save_in_a_save_see_the_row_where_it_is(databases: Any, Base: Any) -> None:
    """The alias is kept, and `changes()` still reports what the outer save changed."""

    class Book(Base):
        title: Field[str] = field(default="")
        pages: Field[int] = field(default=0)

    Book.__schema__.registry.create_all("default")
    seen: list[tuple[Any, ...]] = []

    def again(instance: Any, created: bool, **kwargs: Any) -> None:
        if created:
            instance.pages = 7
            instance.save()

    def look(instance: Any, created: bool, **kwargs: Any) -> None:
        seen.append((created, instance._state.db, instance._state.adding, sorted(instance.changed_fields)))

    post_save.connect(again, sender=Book)
    post_save.connect(look, sender=Book)
    book = Book(title="a").save()
    assert seen == [
        (False, "default", False, ["pages"]),
        (True, "default", False, ["id", "pages", "title"]),
    ]
    assert (book._state.db, book.changes()) == ("default", {})
