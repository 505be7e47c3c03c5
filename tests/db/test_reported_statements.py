"""Statements are reported to watchers: on SQLAlchemy's `Connection` by events of the engine, else by the channel."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine

from microorm import Databases, Field
from microorm.db.aio import twins
from microorm.db.engines.events import count_added, report_statements, stop_reporting
from microorm.instrumentation import STATEMENT, Step, add_watcher, remove_watcher, watchers
from microorm.testing import count_statements


class Owner:
    """What a `Database` is to the events of its engine."""

    alias = "default"

    def announced(self) -> bool:
        return True


@contextmanager
def heard() -> Iterator[list[str]]:
    statements: list[str] = []

    def watch(step: Step) -> None:
        if step.kind == STATEMENT:
            statements.append(step.details["sql"])

    add_watcher(watch)
    try:
        yield statements
    finally:
        remove_watcher(watch)


def send(engine: Engine, sql: str) -> None:
    with engine.connect() as connection:
        connection.exec_driver_sql(sql)


def test_an_engine_is_listened_to_once_and_for_good() -> None:
    """SQLAlchemy's lists of listeners must not change while other threads may use them."""
    engine, owner = create_engine("sqlite://"), Owner()
    report_statements(engine, owner)
    assert count_added(engine, "before_cursor_execute") == len(engine.dispatch.before_cursor_execute) == 0
    for _ in range(3):
        with heard():
            pass
        assert count_added(engine, "before_cursor_execute") == len(engine.dispatch.before_cursor_execute) == 1
    send(engine, "SELECT 1")
    with heard() as statements:
        send(engine, "SELECT 2")
        stop_reporting(engine, owner)
        stop_reporting(engine, owner)
        send(engine, "SELECT 3")
    assert statements == ["SELECT 2"]
    engine.dispose()


def test_an_engine_that_is_made_while_statements_are_watched_is_listened_to() -> None:
    """Such as that of another event loop."""
    engine, owner = create_engine("sqlite://"), Owner()
    with heard() as statements:
        report_statements(engine, owner)
        send(engine, "SELECT 1")
    assert statements == ["SELECT 1"]
    engine.dispose()


def test_a_database_is_not_kept_alive_by_its_engine() -> None:
    engine, owner = create_engine("sqlite://"), Owner()
    gone = weakref.ref(owner)
    with heard() as statements:
        report_statements(engine, owner)
        del owner
        gc.collect()
        assert gone() is None
        send(engine, "SELECT 1")
    assert statements == []
    engine.dispose()


def test_what_a_watcher_raises_stops_the_statement() -> None:
    engine, owner = create_engine("sqlite://"), Owner()
    report_statements(engine, owner)

    def refuse(step: Step) -> None:
        raise LookupError(step.details["sql"])

    add_watcher(refuse)
    try:
        with pytest.raises(LookupError, match="CREATE"):
            send(engine, "CREATE TABLE a (b)")
    finally:
        remove_watcher(refuse)
    with pytest.raises(Exception, match="no such table"):
        send(engine, "SELECT * FROM a")
    engine.dispose()
    assert watchers == []


def test_two_aliases_of_one_engine_each_count_its_statements(sqlite_url: str) -> None:
    engine = create_engine(sqlite_url)
    with Databases({"default": engine, "other": engine}) as databases:
        for using in databases.aliases:
            with count_statements(using, databases) as counted, databases.connection(using) as connection:
                connection.exec_driver_sql("SELECT 1")
            assert counted.statements == ["SELECT 1"]
    engine.dispose()


@pytest.mark.backends("sqlite-memory")
def test_a_statement_keeps_its_fast_way_while_it_is_watched(
    databases: Databases, Base: Any, registry: Any
) -> None:
    with heard(), databases.atomic():
        transaction = databases.transaction(databases.database("default"))
        assert transaction is not None
        assert transaction.cursor is not None


@pytest.mark.backends("sqlite-file")
def test_a_count_that_a_coroutine_begins_sees_what_is_awaited_and_what_is_not(
    databases: Databases, Base: Any, registry: Any
) -> None:
    class Book(Base):
        title: Field[str]

    def save() -> None:
        with count_statements("default", databases) as counted:
            thread = threading.Thread(target=lambda: Book.objects.count())
            thread.start()
            thread.join()
            Book.objects.count()
        found.append(counted.count)

    found: list[int] = []
    registry.create_all()
    save()
    asyncio.run(twins.run(save))
    assert found == [2, 2]
