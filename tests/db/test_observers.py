"""Observers: which functions are called with each statement, and how a cursor is wrapped."""

import sqlite3

import pytest
from sqlalchemy import create_engine

from microorm.db.events import Observers, WatchedCursor, count_added


def test_an_engine_is_listened_to_once_and_for_good() -> None:
    """SQLAlchemy's lists of listeners must not change while other threads may use them."""
    observers, engine = Observers(), create_engine("sqlite://")
    heard: list[str] = []
    assert count_added(engine, "before_cursor_execute") == len(engine.dispatch.before_cursor_execute) == 0
    for _ in range(3):
        observers.add(engine, heard.append)
        observers.remove(heard.append)
        assert count_added(engine, "before_cursor_execute") == len(engine.dispatch.before_cursor_execute) == 1
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        observers.add(engine, heard.append)
        connection.exec_driver_sql("SELECT 2")
    assert heard == ["SELECT 2"]
    observers.add(engine, heard.append)
    observers.close()
    observers.close()
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 3")
    assert heard == ["SELECT 2"]
    engine.dispose()


def test_another_engine_is_listened_to_in_its_turn() -> None:
    observers, heard = Observers(), list[str]()
    for text in ("SELECT 1", "SELECT 2"):
        engine = create_engine("sqlite://")
        observers.add(engine, heard.append)
        with engine.connect() as connection:
            connection.exec_driver_sql(text)
        observers.remove(heard.append)
        observers.close()
        engine.dispose()
    assert heard == ["SELECT 1", "SELECT 2"]


def test_an_observer_may_leave_while_it_is_told() -> None:
    observers, heard = Observers(), list[str]()

    def once(statement: str) -> None:
        heard.append(statement)
        observers.remove(once)

    engine = create_engine("sqlite://")
    observers.add(engine, once)
    observers.add(engine, heard.append)
    observers.tell("SELECT 1")
    observers.tell("SELECT 2")
    assert heard == ["SELECT 1", "SELECT 1", "SELECT 2"]
    observers.close()


def test_a_watched_cursor_tells_and_does_what_the_drivers_does() -> None:
    observers, heard = Observers(), list[str]()
    observers.told.append(heard.append)
    connection = sqlite3.connect(":memory:")
    cursor = observers.watched(connection.cursor())
    assert isinstance(cursor, WatchedCursor)
    cursor.execute("CREATE TABLE a (b)")
    cursor.executemany("INSERT INTO a VALUES (?)", [(1,), (2,)])
    assert cursor.rowcount == 2
    cursor.execute("SELECT b FROM a WHERE b > ?", (1,))
    assert cursor.fetchall() == [(2,)]
    assert [each.split()[0] for each in heard] == ["CREATE", "INSERT", "SELECT"]
    with pytest.raises(sqlite3.OperationalError):
        cursor.execute("SELECT nothing")
    connection.close()


def test_a_cursor_is_watched_once() -> None:
    observers = Observers()
    cursor = observers.watched(object())
    assert observers.watched(cursor) is cursor
    assert observers.watched(None) is None
