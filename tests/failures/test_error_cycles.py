"""When an error has been handled, nothing is left of it: no instance, no cursor, no connection in use.

A traceback refers to frames, and these to instances and connections. If one of them referred to the error, only the
garbage collector would end that, in whatever thread it runs; on SQLite that thread may wait for the file that this
one has locked.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import func, literal
from sqlalchemy.exc import DBAPIError

from microorm import MicroormError, signals
from microorm.signals import post_delete, post_save, pre_save
from tests.pools import unreturned


@pytest.fixture(autouse=True)
def uncollected() -> Iterator[None]:
    """Keep the collector from hiding what is left."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def refuse(**kwargs: Any) -> None:
    """Fail, as a receiver."""
    raise LookupError("no")


def save(Book: Any, book: Any) -> None:
    book.save()


def save_an_expression(Book: Any, book: Any) -> None:
    book.title = func.coalesce(literal("taken"), "")
    book.save()


def create_many(Book: Any, book: Any) -> None:
    Book.objects.bulk_create([book])


def save_an_invalid_value(Book: Any, book: Any) -> None:
    book.title = 1
    book.save()


def update_none(Book: Any, book: Any) -> None:
    book.id = 1000
    book.save(force_update=True)


def heard(signal: Any) -> Callable[[Any, Any], None]:
    def save_heard(Book: Any, book: Any) -> None:
        book.title = "new"
        signal.connect(refuse, sender=Book)
        try:
            book.save()
            book.delete()
        finally:
            signal.disconnect(refuse, Book)

    save_heard.__name__ = next(name for name, each in vars(signals).items() if each is signal)
    return save_heard


WAYS = [
    save,
    save_an_expression,
    create_many,
    save_an_invalid_value,
    update_none,
    *map(heard, (pre_save, post_save, post_delete)),
]


@pytest.mark.parametrize("fail", WAYS, ids=lambda fail: fail.__name__)
def test_a_handled_error_leaves_no_instance(databases: Any, Book: Any, fail: Any) -> None:
    Book(title="taken").save()

    def attempt(blocks_around: int) -> weakref.ref[Any]:
        book = Book(title="taken")
        try:
            with ExitStack() as blocks:
                for _ in range(blocks_around):
                    blocks.enter_context(databases.atomic())
                fail(Book, book)
        except (LookupError, MicroormError, DBAPIError):
            return weakref.ref(book)
        pytest.fail("no error")

    for blocks_around in range(3):
        assert attempt(blocks_around)() is None
        assert unreturned(databases) == 0


@pytest.mark.parametrize("method", ["get_or_create", "update_or_create"])
def test_lost_races_leave_nothing(databases: Any, Book: Any, method: str) -> None:
    """The error of an INSERT that came second is handled inside."""
    tried: list[weakref.ref[Any]] = []
    found: list[tuple[str, bool]] = []
    start = threading.Barrier(4)

    def note(instance: Any, **kwargs: Any) -> None:
        tried.append(weakref.ref(instance))

    def create() -> None:
        start.wait()
        for title in "abcdef":
            book, created = getattr(Book.objects, method)(title=title)
            found.append((book.title, created))

    pre_save.connect(note, sender=Book)
    try:
        threads = [threading.Thread(target=create) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        pre_save.disconnect(note, Book)
    assert sorted(title for title, created in found if created) == list("abcdef")
    assert len(found) == 24
    assert [each() for each in tried if each() is not None] == []
    assert unreturned(databases) == 0
