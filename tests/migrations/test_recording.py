"""The SQL for SQLite, which changes a table by building it anew, is whole and does what the migration does."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

import microorm
from microorm import Databases, Field, Registry, field
from microorm.migrations import Migrations


@pytest.fixture
def databases(sqlite_url: str) -> Any:
    with Databases(sqlite_url) as databases:
        yield databases


def history(databases: Databases, folder: Path, length: int) -> Migrations:
    """The migrations of a book whose title has *length*."""

    class Base(microorm.Model, registry=Registry(databases), app="shop", abstract=True):
        pass

    body = {
        "__annotations__": {"title": Field[str]},
        "title": field(max_length=length),
        "__module__": __name__,
    }
    type(Base)("Book", (Base,), body)
    return Migrations(folder, Base.__options__.registry)


def test_a_script_does_what_the_migration_does(databases: Databases, folder: Path, tmp_path: Path) -> None:
    first = history(databases, folder, 40)
    first.make("first")
    first.migrate()
    second = history(databases, folder, 80)
    second.make("second")
    whole, rest, back = second.sql(), second.sql("0001:head"), second.sql("0002:0001")
    assert [script.count("CREATE TABLE book ") for script in (whole, rest)] == [1, 0]
    file = tmp_path / "test.db"
    with sqlite3.connect(file) as connection:
        connection.execute("INSERT INTO book (title) VALUES ('Dune')")
    for script, expected in ((rest, []), (back, ["'default' is at '0001', and the newest is '0002'"])):
        with sqlite3.connect(file) as connection:
            connection.executescript(script)
            assert connection.execute("SELECT id, title FROM book").fetchall() == [(1, "Dune")]
        connection.close()
        assert [each.text for each in second.check()] == expected
    assert first.compare() == []
