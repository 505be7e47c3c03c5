"""The SQL of a migration is written without asking any database, and does what the migration does."""

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from microorm import Field, Model, field
from microorm.migrations import Migrations

pytestmark = pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
Anew = Callable[[], type[Model]]


@pytest.fixture
def history(anew: Anew, migrations: Any) -> Migrations:
    """Two revisions, the second of which builds a table anew on SQLite; only the first is applied."""
    old: Any = anew()

    class Book(old):
        title: Field[str] = field(max_length=40)

    first: Migrations = migrations(old)
    first.make("first")
    first.migrate()
    new: Any = anew()

    class Volume(new, table="book"):
        title: Field[str] = field(max_length=80)
        pages: Field[int] = field(default=3)

    second: Migrations = migrations(new)
    second.make("second")
    return second


def test_the_whole_history_is_written_for_each_database(history: Migrations, backend: str) -> None:
    sql = history.sql()
    dialect = backend.partition("-")[0]
    assert sql.count(f"-- default ({dialect})") == sql.count(f"-- other ({dialect})") == 1
    assert sql.count("CREATE TABLE book") == 2
    assert "UPDATE book SET pages=3" in sql
    assert "0002" in sql


def test_a_part_of_it_for_one_alias(history: Migrations) -> None:
    up = history.sql("0001:head", alias="other")
    assert "-- default" not in up
    assert "CREATE TABLE book (" not in up
    assert "pages" in up
    down = history.sql("0002:0001", alias="default")
    assert "pages" in down
    assert history.sql("0002:base", alias="default").count("DROP TABLE") >= 1


def test_nothing_is_changed_by_it(history: Migrations) -> None:
    before = [each.applied for each in history.show()]
    history.sql()
    assert [each.applied for each in history.show()] == before


@pytest.mark.backends("sqlite-file")
def test_the_sql_of_sqlite_does_what_the_migration_does(history: Migrations, tmp_path: Any) -> None:
    with sqlite3.connect(tmp_path / "by-hand.db", isolation_level=None) as connection:
        connection.executescript(history.sql("0001", alias="default"))
        connection.execute("INSERT INTO book (title) VALUES ('Dune')")
        connection.executescript(history.sql("0001:0002", alias="default"))
        assert connection.execute("SELECT id, title, pages FROM book").fetchall() == [(1, "Dune", 3)]
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0002",)]
        connection.executescript(history.sql("0002:base", alias="default"))
        assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'book'").fetchall() == []
    connection.close()
