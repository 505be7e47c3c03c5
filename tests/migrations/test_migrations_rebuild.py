"""Tables that SQLite rebuilds keep what they have, and a value that cannot be converted changes nothing."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from microorm import Databases, Field, field
from microorm.errors import MigrationError
from microorm.migrations import Migrations
from tests.migrations.shop import define, execute, history, migrated, new_base, revise

pytestmark = pytest.mark.backends("sqlite-file")

BOOK = "CREATE TABLE book (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, {columns})"
FAITHFUL = (
    r"title VARCHAR(40) DEFAULT '\:memory' NOT NULL CONSTRAINT plain CHECK (title <> '\:file'), pages INTEGER NOT NULL,"
    " note TEXT CHECK (note COLLATE NOCASE <> 'x'), size INTEGER GENERATED ALWAYS AS (length(title || ')')) STORED"
)


def prepared(databases: Databases, folder: Path, *statements: str) -> Migrations:
    """Apply a first revision, and execute *statements*."""
    migrations = migrated(models(databases, int), folder, "first")
    execute(databases, *statements)
    return migrations


def models(databases: Databases, kind: Any, **pages: Any) -> Any:
    base = new_base(databases)
    define(
        base, "Book", {"title": (Field[str], field(max_length=40)), "pages": (Field[kind], field(**pages))}
    )
    return base


def found(databases: Databases) -> list[Any]:
    return [
        execute(databases, f"SELECT {what}")
        for what in ("sql FROM sqlite_master", "* FROM book", "* FROM alembic_version")
    ]


def test_what_stands_in_the_ddl_stays(database: Databases, folder: Path) -> None:
    migrations = prepared(
        database,
        folder,
        "DROP TABLE book",
        BOOK.format(columns=FAITHFUL),
        "CREATE INDEX newest ON book (pages DESC, title COLLATE NOCASE)",
        "INSERT INTO book (title, pages) VALUES ('Dune', 412)",
    )
    revise(migrations, "with op.batch_alter_table('book') as b: b.alter_column('pages', type_=sa.Double())")
    migrations.migrate()
    assert execute(database, "SELECT title, pages, size FROM book") == [("Dune", 412.0, 5)]
    execute(database, "INSERT INTO book (pages, note) VALUES (1, 'y')")
    assert execute(database, "SELECT title FROM book WHERE pages = 1") == [(":memory",)]
    for values in (r"('\:file', 1, 'y')", "('a', 1, 'X')"):
        with pytest.raises(IntegrityError, match="CHECK"):
            execute(database, f"INSERT INTO book (title, pages, note) VALUES {values}")
    assert (
        "pages DESC, title COLLATE NOCASE"
        in execute(database, "SELECT sql FROM sqlite_master WHERE name = 'newest'")[0][0]
    )
    assert "note" not in [row[0] for row in execute(database, "SELECT name FROM sqlite_master")]


def test_an_unnamed_check_goes_with_its_column(database: Databases, folder: Path) -> None:
    migrations = prepared(
        database,
        folder,
        "DROP TABLE book",
        BOOK.format(columns="title VARCHAR(40) NOT NULL, pages INTEGER NOT NULL CHECK (pages > 0)"),
        "CREATE INDEX by_pages ON book (pages)",
        "CREATE INDEX by_title ON book (title)",
    )
    revise(migrations, "with op.batch_alter_table('book') as b: b.drop_column('pages')")
    migrations.migrate()
    execute(database, "INSERT INTO book (title) VALUES ('Dune')")
    names = execute(database, "SELECT name FROM sqlite_master WHERE name LIKE 'by%'")
    assert names == [("by_title",)]


def test_constraints_without_names_stay_and_can_be_dropped(database: Databases, folder: Path) -> None:
    prepared(
        database,
        folder,
        "DROP TABLE book",
        BOOK.format(
            columns="title VARCHAR(40) NOT NULL UNIQUE, pages INTEGER NOT NULL,"
            " above INTEGER REFERENCES book (id) ON DELETE CASCADE, next INTEGER REFERENCES book ON DELETE SET NULL"
        ),
        "INSERT INTO book (title, pages, above) VALUES ('Dune', 1, 1)",
    )
    text = "with op.batch_alter_table('book') as b: b.alter_column('pages', type_=sa.Double())"
    revise(history(models(database, float), folder), text)
    history(models(database, float), folder).migrate()
    (sql,) = execute(database, "SELECT sql FROM sqlite_master WHERE name = 'book'")[0]
    assert "FOREIGN KEY(above) REFERENCES book (id) ON DELETE CASCADE" in sql
    assert "FOREIGN KEY(next) REFERENCES book (id) ON DELETE SET NULL" in sql
    with pytest.raises(IntegrityError, match="UNIQUE"):
        execute(database, "INSERT INTO book (title, pages) VALUES ('Dune', 2)")
    migrations = migrated(models(database, float), folder, "without them")
    assert migrations.check() == []
    execute(database, "INSERT INTO book (title, pages) VALUES ('Dune', 2)")


def test_a_renamed_column_is_renamed_in_everything_that_names_it(database: Databases, folder: Path) -> None:
    migrations = prepared(
        database,
        folder,
        "DROP TABLE book",
        BOOK.format(columns="title VARCHAR(40) NOT NULL CHECK (title <> ''), pages INTEGER NOT NULL"),
        "CREATE VIEW titles AS SELECT title FROM book",
        "CREATE TABLE log (what TEXT)",
        "CREATE TRIGGER note AFTER INSERT ON book BEGIN INSERT INTO log VALUES (new.title); END",
        "INSERT INTO book (title, pages) VALUES ('Dune', 1)",
    )
    revise(
        migrations, "with op.batch_alter_table('book') as b: b.alter_column('title', new_column_name='name')"
    )
    migrations.migrate()
    assert (
        execute(database, "SELECT name FROM book") == execute(database, "SELECT * FROM titles") == [("Dune",)]
    )
    execute(database, "INSERT INTO book (name, pages) VALUES ('Emma', 1)")
    assert execute(database, "SELECT what FROM log") == [("Dune",), ("Emma",)]
    with pytest.raises(IntegrityError, match="CHECK"):
        execute(database, "INSERT INTO book (name, pages) VALUES ('', 1)")


@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        (int, "'abc'", "no integer"),
        (int, "'1.7'", "no integer"),
        (bool, "'7'", "neither"),
        (float, "x'31'", "no number"),
    ],
)
def test_a_value_that_cannot_be_converted_is_named_and_nothing_changes(
    database: Databases, folder: Path, kind: Any, value: str, why: str
) -> None:
    migrated(models(database, str, max_length=9), folder, "first")
    execute(database, f"INSERT INTO book (title, pages) VALUES ('Dune', '1'), ('Emma', {value})")
    migrations = history(models(database, kind), folder)
    assert migrations.make("numbers") is not None
    before = found(database)
    with pytest.raises(MigrationError, match=f"of 'book.pages' in the row 2, cannot become .*{why}"):
        migrations.migrate()
    assert found(database) == before
    execute(database, "UPDATE book SET pages = '1' WHERE id = 2")
    migrations.migrate()
    assert migrations.check() == []
    assert execute(database, "SELECT pages FROM book") == [(1,), (1,)]


def test_a_null_in_a_column_that_becomes_required_is_named(database: Databases, folder: Path) -> None:
    migrated(models(database, int | None, default=None), folder, "first")
    execute(database, "INSERT INTO book (title, pages) VALUES ('Dune', 1), ('Emma', NULL)")
    migrations = history(models(database, int), folder)
    migrations.make("required")
    before = found(database)
    with pytest.raises(
        MigrationError, match="None, of 'book.pages' in the row 2, cannot become INTEGER NOT NULL"
    ):
        migrations.migrate()
    assert found(database) == before


def test_a_conversion_in_python_is_not_printed_as_sql(database: Databases, folder: Path) -> None:
    migrated(models(database, str, max_length=9), folder, "first")
    history(models(database, str, max_length=5), folder).make("shorter")
    migrations = history(models(database, str, max_length=5), folder)
    assert "INSERT INTO _alembic_tmp_book" in migrations.sql("0001:0002")
    migrations.migrate()
    migrations = history(models(database, int), folder)
    migrations.make("numbers")
    with pytest.raises(MigrationError, match="converted in Python"):
        migrations.sql("0002:0003")
    migrations.migrate()
