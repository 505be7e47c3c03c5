"""Models that a program defines again, or in a registry that it drops, are freed, with all that was made for them."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import microorm
from microorm import Field, ForeignKey, Model, Registry, foreign_key
from microorm.signals import post_save

pytestmark = pytest.mark.backends("sqlite-memory")


@pytest.fixture(autouse=True)
def defined_again() -> Iterator[None]:
    """Ignore the warning that a model is defined again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def told(**kwargs: Any) -> None:
    """Receive a signal."""


def define(registry: Registry, *, tables: bool) -> Any:
    """Define a model, write, read, change and delete its rows, and return it."""

    class Book(Model, registry=registry):
        title: Field[str]
        pages: Field[int]

    if tables:
        registry.create_all("default")
    post_save.connect(told, sender=Book)
    book = Book(title="a", pages=1).save()
    book.pages = 2
    book.save()
    Book.objects.bulk_create([Book(title="b", pages=3)])
    assert len(Book.objects.filter(Book.pages > 1).all()) == 2
    assert Book.objects.get(id=book.id).title == "a"
    Book.objects.filter(pages=2).update(pages=4)
    book.refresh_from_db()
    book.delete()
    Book.objects.filter(Book.pages > 1).delete()
    return Book


def define_related(registry: Registry, *, tables: bool) -> Any:
    """Define two models, filter one along its relation to the other, and return it."""

    class Author(Model, registry=registry):
        name: Field[str]

    class Work(Model, registry=registry):
        author: ForeignKey[Author] = foreign_key(on_delete="cascade")

    if tables:
        registry.create_all("default")
    author = Author(name="a").save()
    Work(author=author).save()
    assert Work.objects.filter(Work.author.name == "a").count() == 1
    author.delete()
    return Work


@pytest.mark.parametrize("shared", [True, False], ids=["one registry", "a registry for each"])
def test_a_model_that_is_replaced_or_dropped_is_freed(databases: microorm.Databases, shared: bool) -> None:
    """The databases, which stay, refer to no statement that was compiled for it."""
    common = Registry(databases)
    models = []
    for number in range(6):
        registry = common if shared else Registry(databases)
        models.append(weakref.ref(define(registry, tables=number == 0)))
    del registry
    databases.engine().clear_compiled_cache()  # SQLAlchemy's, of the last 500 statements
    gc.collect()
    assert [number for number, model in enumerate(models) if model() is not None] == ([5] if shared else [])


def test_statements_of_a_closed_database_are_freed(databases: microorm.Databases) -> None:
    """The model, which stays, refers to no database that was closed."""
    model = define(Registry(databases), tables=True)
    database = weakref.ref(databases.database("default"))
    databases.close()
    gc.collect()
    assert database() is None
    assert model.__schema__.plans == {}


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False], ids=["one registry", "a registry for each"])
def test_related_models_are_freed_but_for_the_last(databases: microorm.Databases, shared: bool) -> None:
    """Python keeps the last 128 types such as `ForeignKey[Author]`, and that is all."""
    common = Registry(databases)
    models = []
    for number in range(160):
        registry = common if shared else Registry(databases)
        models.append(weakref.ref(define_related(registry, tables=number == 0)))
    databases.engine().clear_compiled_cache()
    gc.collect()
    assert sum(model() is not None for model in models) <= 130


@pytest.mark.slow
def test_saves_loads_and_deletes_leave_no_objects_behind(databases: microorm.Databases) -> None:
    """With receivers, in blocks and outside."""
    Book = define(Registry(databases), tables=True)
    post_save.connect(told, sender=Book)

    def work(number: int) -> int:
        for each in range(number):
            book = Book(title=f"{each}", pages=each).save()
            with databases.atomic():
                Book.objects.get(id=book.id).save()
            book.delete()
        gc.collect()
        return len(gc.get_objects())

    before, after = work(200), work(1500)
    assert (
        after - before < 750
    )  # one that stays of each save would be 1,500; threads of other tests make some, too
