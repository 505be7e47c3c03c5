"""SQLite builds a table anew to change it; nothing that belonged to the old one is lost."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

import microorm
from microorm import Databases, Field, ForeignKey, Registry, field, foreign_key
from microorm.migrations import Migrations

CHILD = """
CREATE TABLE child (
    id INTEGER PRIMARY KEY,
    book_id INTEGER NOT NULL REFERENCES book (id) ON DELETE CASCADE
)
"""


@pytest.fixture
def databases(sqlite_url: str) -> Any:
    with Databases(sqlite_url) as databases:
        yield databases


def run(databases: Databases, *statements: str) -> list[Any]:
    rows: list[Any] = []
    with databases.connection() as connection:
        for statement in statements:
            result = connection.execute(text(statement))
            rows = [tuple(row) for row in result] if result.returns_rows else []
        connection.commit()
    return rows


def base_of(databases: Databases) -> Any:
    class Base(microorm.Model, registry=Registry(databases), app="shop", abstract=True):
        pass

    return Base


def book(base: Any, length: int = 40, **options: Any) -> None:
    class Book(base):
        title: Field[str] = field(max_length=length, **options)


def node(base: Any, length: int) -> None:
    class Node(base):
        name: Field[str] = field(max_length=length)
        above: ForeignKey["Node | None"] = foreign_key(default=None)


def lengthened(databases: Databases, folder: Path, *between: str) -> Migrations:
    """The table `book` with rows, changed after *between* so that SQLite has to build it anew."""
    old = base_of(databases)

    book(old)
    migrations = Migrations(folder, old.__options__.registry)
    migrations.make("first")
    migrations.migrate()
    run(databases, "INSERT INTO book (title) VALUES ('Dune'), ('Emma'), ('Solaris')", *between)
    new = base_of(databases)

    book(new, 80)
    migrations = Migrations(folder, new.__options__.registry)
    migrations.make("longer")
    migrations.migrate()
    return migrations


def test_rows_that_refer_to_the_table_stay(databases: Databases, folder: Path) -> None:
    lengthened(databases, folder, CHILD, "INSERT INTO child (book_id) VALUES (1), (2), (2)")
    assert run(databases, "SELECT book_id FROM child ORDER BY id") == [(1,), (2,), (2,)]
    assert run(databases, "PRAGMA foreign_key_check") == []
    run(databases, "DELETE FROM book WHERE id = 2")
    assert run(databases, "SELECT book_id FROM child") == [(1,)]


def test_a_key_that_was_given_is_not_given_again(databases: Databases, folder: Path) -> None:
    lengthened(databases, folder, "DELETE FROM book WHERE id > 1")
    run(databases, "INSERT INTO book (title) VALUES ('new')")
    assert run(databases, "SELECT max(id) FROM book") == [(4,)]


def test_an_empty_table_counts_on_too(databases: Databases, folder: Path) -> None:
    lengthened(databases, folder, "DELETE FROM book")
    run(databases, "INSERT INTO book (title) VALUES ('new')")
    assert run(databases, "SELECT max(id) FROM book") == [(4,)]


def test_triggers_stay(databases: Databases, folder: Path) -> None:
    lengthened(
        databases,
        folder,
        "CREATE TABLE log (title TEXT)",
        "CREATE TRIGGER note AFTER INSERT ON book BEGIN INSERT INTO log VALUES (new.title); END",
    )
    run(databases, "INSERT INTO book (title) VALUES ('new')")
    assert run(databases, "SELECT title FROM log") == [("new",)]


def test_views_stay(databases: Databases, folder: Path) -> None:
    lengthened(databases, folder, "CREATE VIEW titles AS SELECT title FROM book")
    assert run(databases, "SELECT count(*) FROM titles") == [(3,)]


def test_an_index_on_an_expression_stays(databases: Databases, folder: Path) -> None:
    lengthened(databases, folder, "CREATE UNIQUE INDEX small ON book (lower(title))")
    assert run(databases, "SELECT name FROM sqlite_master WHERE type = 'index' AND sql LIKE '%lower%'") == [
        ("small",)
    ]


def test_a_check_without_a_name_stays(databases: Databases, folder: Path) -> None:
    old = base_of(databases)

    book(old)
    migrations = Migrations(folder, old.__options__.registry)
    migrations.make("first")
    migrations.migrate()
    run(
        databases,
        "DROP TABLE book",
        "CREATE TABLE book (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, title VARCHAR(40) NOT NULL,"
        " CHECK (title <> ''))",
    )
    new = base_of(databases)

    book(new, 80)
    migrations = Migrations(folder, new.__options__.registry)
    migrations.make("longer")
    migrations.migrate()
    with pytest.raises(IntegrityError, match="CHECK constraint failed"):
        run(databases, "INSERT INTO book (title) VALUES ('')")


def test_a_collation_stays(databases: Databases, folder: Path) -> None:
    old = base_of(databases)
    book(old)
    migrations = Migrations(folder, old.__options__.registry)
    migrations.make("first")
    migrations.migrate()
    run(
        databases,
        "DROP TABLE book",
        "CREATE TABLE book (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,"
        " title VARCHAR(40) COLLATE NOCASE NOT NULL)",
        "INSERT INTO book (title) VALUES ('Dune')",
    )
    new = base_of(databases)

    class Book(new):
        title: Field[str] = field(max_length=40)
        pages: Field[int] = field(default=0)

    migrations = Migrations(folder, new.__options__.registry)
    migrations.make("pages")
    migrations.migrate()
    assert run(databases, "SELECT title FROM book WHERE title = 'DUNE'") == [("Dune",)]


def test_an_index_that_a_revision_drops_is_gone(databases: Databases, folder: Path) -> None:
    old = base_of(databases)

    book(old, index=True)
    migrations = Migrations(folder, old.__options__.registry)
    migrations.make("first")
    migrations.migrate()
    new = base_of(databases)

    book(new, 80)
    migrations = Migrations(folder, new.__options__.registry)
    migrations.make("longer, without an index")
    migrations.migrate()
    assert run(databases, "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL") == []


def test_a_table_that_refers_to_itself_is_rebuilt(databases: Databases, folder: Path) -> None:
    old = base_of(databases)

    node(old, 40)
    migrations = Migrations(folder, old.__options__.registry)
    migrations.make("first")
    migrations.migrate()
    run(databases, "INSERT INTO node (name, above_id) VALUES ('root', NULL), ('leaf', 1)")
    new = base_of(databases)

    node(new, 80)
    migrations = Migrations(folder, new.__options__.registry)
    migrations.make("longer")
    migrations.migrate()
    assert run(databases, "SELECT name, above_id FROM node ORDER BY id") == [("root", None), ("leaf", 1)]
    assert migrations.check() == []
