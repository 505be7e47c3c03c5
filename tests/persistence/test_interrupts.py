"""Interrupts in the middle of a plain write leave each instance in a state that is true."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Integer, event
from sqlalchemy.exc import StatementError
from sqlalchemy.types import TypeDecorator

import microorm
from microorm import ConfigurationError, Databases, Field, ModelError, Registry, TransactionError, field
from microorm.db.snapshots import SnapshotLog


@pytest.fixture
def databases(sqlite_url: str) -> Any:
    with Databases(sqlite_url) as databases:
        yield databases


@pytest.fixture
def Book(databases: Databases) -> Any:
    class Book(microorm.Model, registry=Registry(databases)):
        title: Field[str]

    Book.__schema__.registry.create_all()
    return Book


@pytest.mark.parametrize("written", ["save", "delete"])
def test_an_interrupt_in_a_plain_write_dooms_the_block(
    Book: Any, databases: Databases, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    book = Book(title="kept").save() if written == "delete" else Book(title="new")

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(TransactionError), databases.atomic():
        with monkeypatch.context() as patched:
            patched.setattr(SnapshotLog, "record", interrupted)
            with pytest.raises(KeyboardInterrupt):
                getattr(book, written)()
    assert Book.objects.count() == (1 if written == "delete" else 0)
    assert (book.pk is None) is (written == "save")


def test_a_disposed_engine_has_no_spare_left(Book: Any, databases: Databases) -> None:
    Book(title="warm").save()
    databases.engine().dispose()
    file = Path(databases.engine().url.database or "")
    for each in file.parent.glob(f"{file.name}*"):
        each.unlink()
    Book.__schema__.registry.create_all()
    Book(title="after").save()
    with databases.atomic():
        assert [book.title for book in Book.objects] == ["after"]


def test_who_hears_of_connections_hears_of_lone_statements(Book: Any, databases: Databases) -> None:
    Book(title="before").save()
    heard: list[Any] = []

    def hear(connection: Any) -> None:
        heard.append(connection)

    event.listen(databases.engine(), "engine_connect", hear)
    Book(title="after").save()
    assert len(heard) == 1


class Refusing(TypeDecorator[int]):
    """Takes no value."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        raise ZeroDivisionError("not this one")


def test_what_a_type_raises_is_the_same_for_one_row_and_for_many(databases: Databases) -> None:
    class Odd(microorm.Model, registry=Registry(databases)):
        value: Field[int] = field(type_=Refusing())

    Odd.__schema__.registry.create_all()
    for write in (lambda: Odd(value=1).save(), lambda: Odd.objects.bulk_create([Odd(value=1), Odd(value=2)])):
        with pytest.raises(StatementError, match="not this one"):
            write()


def test_the_driver_begins_no_transactions_of_its_own(sqlite_url: str) -> None:
    databases = Databases({"default": {"url": sqlite_url, "connect_args": {"isolation_level": "DEFERRED"}}})
    with pytest.raises(
        ConfigurationError,
        match="^the connect_args of database 'default' set 'isolation_level' to 'DEFERRED'; leave it out",
    ):
        databases.engine()


def test_a_model_that_sets_attributes_in_its_own_way_is_loaded_past_it(databases: Databases) -> None:
    class Frozen(microorm.Model, registry=Registry(databases)):
        title: Field[str]

        def __setattr__(self, name: str, value: Any) -> None:
            if name in ("title", "id"):
                raise AttributeError("read only")
            super().__setattr__(name, value)

    Frozen.__schema__.registry.create_all()
    Frozen.objects.bulk_create([Frozen(title="a")])
    assert [each.title for each in Frozen.objects] == ["a"]


def test_a_name_that_python_reads_otherwise_is_refused() -> None:
    with pytest.raises(ModelError, match="Python reads this name as 'fi'"):
        type(microorm.Model)(
            "Odd", (microorm.Model,), {"__annotations__": {"\ufb01": Field[int]}}, registry=Registry()
        )
