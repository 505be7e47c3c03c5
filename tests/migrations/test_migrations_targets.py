"""One database is one target: it is locked while it is migrated, gets its own operations, and loses nothing."""

import datetime
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.operations.ops import AddColumnOp, CreateForeignKeyOp, ExecuteSQLOp, RenameTableOp
from sqlalchemy import Column, Integer, make_url, select
from sqlalchemy.exc import IntegrityError, OperationalError

import microorm
from microorm import (
    ConfigurationError,
    Databases,
    Field,
    ForeignKey,
    Registry,
    UnknownAlias,
    field,
    foreign_key,
)
from microorm.errors import MigrationError
from microorm.migrations import Migrations, on
from microorm.migrations.targets import changed_tables, identity, locked, targets
from tests.forks import ForkedProgram
from tests.migrations.shop import columns, define, define_book, execute, history, migrated, new_base, revise
from tests.migrations.worker import after, before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("postgresql+psycopg://app:pw@localhost/shop", "postgresql+psycopg://owner@127.0.0.1:5432/shop"),
        ("mysql+pymysql://a@LOCALHOST:3306/shop", "mariadb+pymysql://b@[::1]/shop"),
        ("sqlite:///shop.db", "sqlite:///./shop.db"),
        (
            "postgresql+psycopg://localhost/shop?application_name=reports",
            "postgresql+psycopg://localhost/shop",
        ),
        ("sqlite:///file:/x?vfs=memdb&uri=true", "sqlite:///file:/x?vfs=memdb&uri=true"),
    ],
)
def test_two_urls_of_one_database_are_equal(one: str, other: str) -> None:
    assert identity(make_url(one)) == identity(make_url(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("postgresql+psycopg://localhost/shop", "postgresql+psycopg://localhost/archive"),
        ("postgresql+psycopg://localhost/shop", "postgresql+psycopg://localhost:5433/shop"),
        (
            "postgresql+psycopg://localhost/shop?options=-csearch_path%3Da",
            "postgresql+psycopg://localhost/shop?options=-csearch_path%3Db",
        ),
        ("postgresql+psycopg://localhost/shop", "mariadb+pymysql://localhost/shop"),
        ("sqlite:///shop.db", "sqlite:///archive.db"),
    ],
)
def test_urls_of_two_databases_differ(one: str, other: str) -> None:
    assert identity(make_url(one)) != identity(make_url(other))


class Archive:
    def allow_migrate(self, alias: str, label: str, model: Any = None, **hints: Any) -> bool | None:
        return alias == "archive" if label == "shop.Old" else None


def test_a_target_holds_what_the_routers_say(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    other = f"sqlite:///{tmp_path / 'archive.db'}"
    with Databases({"default": url, "again": url, "archive": other}, routers=[Archive()]) as databases:

        class Old(microorm.Model, registry=Registry(databases), app="shop"):
            text: Field[str]

        registry = Old.__schema__.registry
        shop, archive = targets(registry, {"gone": "shop.Gone"})
        assert (shop.aliases, archive.aliases) == (("default", "again"), ("archive",))
        assert (shop.allows("old"), archive.allows("old")) == (False, True)
        assert shop.allows("gone")
        assert shop.allows("a table without a label")
        assert shop.at(("0002",)) == "'default' is at '0002'"
        assert repr(shop) == "<Target 'default', 'again'>"
        assert [each.aliases for each in targets(registry, {}, "again")] == [("default", "again")]
        with pytest.raises(UnknownAlias):
            targets(registry, {}, "archiv")


def test_routers_are_asked_by_label_for_a_model_that_was_deleted() -> None:
    with Databases("sqlite://", routers=[Archive()]) as databases:
        (target,) = targets(Registry(databases), {"old": "shop.Old"})
        assert not target.allows("old")


def test_without_a_database_there_is_no_target() -> None:
    with pytest.raises(ConfigurationError, match="no database is configured"):
        targets(Registry(Databases()), {})


# Locks

ROWS = [(1, "Dune", 1), (2, "Emma", 2), (3, "Solaris", 2)]


def prepared(databases: Databases, folder: Path) -> Migrations:
    """Two revisions; the database is at the first, and has rows."""
    migrated(before(new_base(databases)), folder, "first")
    execute(
        databases,
        "INSERT INTO author (name) VALUES ('Herbert'), ('Austen')",
        "INSERT INTO book (title, author_id) VALUES ('Dune', 1), ('Emma', 2), ('Solaris', 2)",
    )
    migrations = history(after(new_base(databases)), folder)
    migrations.make("second")
    return migrations


def books(databases: Databases, migrations: Migrations) -> list[tuple[Any, ...]]:
    table = migrations.registry.metadata.tables["book"]
    with databases.connection() as connection:
        rows = connection.execute(select(table.c.id, table.c.title, table.c.author_id).order_by(table.c.id))
        return [tuple(row) for row in rows]


@pytest.mark.slow
@pytest.mark.backends("sqlite-file", "postgresql")
def test_after_a_kill_at_any_statement_migrate_goes_on(database: Databases, url: str, folder: Path) -> None:
    """Ten statements, since what one of them had left behind is there before those that follow."""
    migrations = prepared(database, folder)
    worker = ("-m", "tests.migrations.worker", str(folder), url)
    with ForkedProgram(folder) as program:
        out, err, status = program.python(*worker)
        assert (err, status) == ("", 0)
        statements = int(out)
        assert statements > 15
        for statement in {1, statements - 1, statements, *range(3, statements, statements // 8)}:
            migrations.migrate("0001")
            out, err, status = program.python(*worker, str(statement))
            assert status == -signal.SIGKILL
            assert books(database, migrations) == ROWS
            migrations.migrate()
            assert migrations.check() == []
            assert books(database, migrations) == ROWS


@pytest.mark.slow
@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_processes_that_migrate_at_once_take_turns(database: Databases, url: str, folder: Path) -> None:
    migrations = prepared(database, folder)
    with ForkedProgram(folder) as program:
        ended = program.at_once([("-m", "tests.migrations.worker", str(folder), url)] * 4)
    assert [(err, status) for _, err, status in ended] == [("", 0)] * 4
    assert migrations.check() == []
    assert books(database, migrations) == ROWS


@pytest.mark.backends("postgresql", "mariadb")
def test_a_lock_that_is_not_released_is_an_error(database: Databases) -> None:
    (target,) = targets(Registry(database), {})
    engine = database.engine()
    with engine.connect() as other, engine.connect() as connection:
        with (
            locked(target, other),
            pytest.raises(
                MigrationError,
                match=r"another process has been migrating 'default' for at least 0\.1 seconds",
            ),
            locked(target, connection, max_wait=0.1),
        ):
            pass
        with locked(target, connection, max_wait=0.1):
            pass


@pytest.mark.backends("sqlite-file")
def test_on_sqlite_another_writer_is_waited_for(database: Databases, folder: Path) -> None:
    migrations = prepared(database, folder)
    (target,) = targets(migrations.registry, {})
    with (
        database.engine().connect() as other,
        database.engine().connect() as connection,
        locked(target, connection, max_wait=0.1),
    ):
        other.exec_driver_sql("INSERT INTO author (name) VALUES ('Lem')")
        with pytest.raises(OperationalError, match="database is locked"):
            connection.begin()
        other.rollback()
    migrations.migrate()
    assert migrations.check() == []


# Operations on the databases that hold the table


@pytest.fixture
def applied(split: Databases, folder: Path) -> Migrations:
    """A history whose first revision is applied: `book` on `default`, `event` on `other`."""
    base = new_base(split)
    define_book(base)
    define(base, "Event", {"text": (Field[str], field(max_length=40))})
    return migrated(base, folder, "first")


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_operations_and_sql_run_on_the_databases_that_they_are_for(
    applied: Migrations, split: Databases, backend: str
) -> None:
    other = "postgresql" if backend != "postgresql" else "sqlite"
    revise(
        applied,
        'op.add_column("book", sa.Column("pages", sa.Integer()))',
        'op.create_index("ix_text", "event", ["text"])',
        'with op.batch_alter_table("event") as batch:',
        '    batch.add_column(sa.Column("level", sa.Integer()))',
        '    batch.create_index(batch.f("ix_level"), ["level"])',
        'kind = op.create_table("event_kind", sa.Column("name", sa.String(9), primary_key=True))',
        'op.bulk_insert(kind, [{"name": "a"}])',
        'if on(table="book"):',
        "    op.execute(\"INSERT INTO book (title) VALUES ('by table')\")",
        'if on(alias=("other", "gone")):',
        "    op.execute(\"INSERT INTO event (text) VALUES ('by alias')\")",
        'if on(alias="gone"):',
        '    op.execute("INSERT INTO nothing VALUES (1)")',
        f'if on(dialect="{other}"):',
        '    op.execute("INSERT INTO nothing VALUES (1)")',
        'if on(dialect=("mysql", "postgresql", "sqlite"), table="event"):',
        "    op.execute(\"INSERT INTO event (text) VALUES ('by dialect')\")",
    )
    applied.migrate()
    assert columns(split, "default", "book") == {"id", "title", "pages"}
    assert columns(split, "other", "event") == {"id", "text", "level"}
    for alias in split.aliases:  # no model has had the table: it is on all databases
        assert execute(split, "SELECT name FROM event_kind", using=alias) == [("a",)]
    assert execute(split, "SELECT title FROM book") == [("by table",)]
    events = execute(split, "SELECT text FROM event ORDER BY id", using="other")
    assert events == [("by alias",), ("by dialect",)]


@pytest.mark.backends("sqlite-file")
def test_rows_for_a_table_that_was_not_created_are_skipped(applied: Migrations, split: Databases) -> None:
    made = revise(
        applied,
        'shelf = op.create_table("shelf", sa.Column("name", sa.String(9), primary_key=True))',
        'op.bulk_insert(shelf, [{"name": "a"}])',
    )
    made.write_text(made.read_text().replace("labels = {}", "labels = {'shelf': 'shop.Event'}"))
    applied.migrate()
    assert execute(split, "SELECT name FROM shelf", using="other") == [("a",)]
    with pytest.raises(OperationalError, match="no such table"):
        execute(split, "SELECT name FROM shelf")


def test_outside_a_migration_on_is_an_error() -> None:
    with pytest.raises(MigrationError, match="no migration is running"):
        on(alias="default")
    with pytest.raises(TypeError, match=r"on\(\) needs at least one of alias=, table="):
        on()


@pytest.mark.parametrize(
    ("operation", "tables"),
    [
        (AddColumnOp("book", Column("x", Integer)), {"book"}),
        (CreateForeignKeyOp("fk", "book", "author", ["a"], ["id"]), {"book"}),
        (RenameTableOp("book", "volume"), {"book", "volume"}),
        (ExecuteSQLOp("SELECT 1"), set()),
    ],
)
def test_the_tables_that_an_operation_changes_are_known(operation: Any, tables: set[str]) -> None:
    assert set(changed_tables(operation)) == tables


class Given:
    """`shop.Event` lives where it is *given*."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def allow_migrate(self, alias: str, label: str, model: Any = None, **hints: Any) -> bool:
        return alias == (self.alias if label == "shop.Event" else "default")


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_a_table_that_a_router_moves_is_created_once_on_every_database(
    url: str, other_url: str, fresh_url: Callable[[], str], folder: Path
) -> None:
    def of(databases: Databases) -> Migrations:
        base = new_base(databases)
        define_book(base)
        define(base, "Event", {"text": (Field[str], field(max_length=40, index=True))})
        return history(base, folder)

    with Databases({"default": url, "other": other_url}, routers=[Given("default")]) as databases:
        of(databases).make("first")
        of(databases).migrate()
        execute(databases, "INSERT INTO event (text) VALUES ('kept')")
    with Databases({"default": url, "other": other_url}, routers=[Given("other")]) as databases:
        made = of(databases).make("events move")
        assert made is not None
        assert "if on(missing='event'):" in made.read_text()
        of(databases).migrate()
        assert of(databases).check() == []
        assert execute(databases, "SELECT text FROM event") == [("kept",)]  # its rows stay where they were
        of(databases).migrate("base")
    with Databases({"default": fresh_url(), "other": fresh_url()}, routers=[Given("other")]) as databases:
        of(databases).migrate()
        assert of(databases).check() == []
        of(databases).migrate("base")


# Tables that SQLite rebuilds

CHILD = """
CREATE TABLE child (
    id INTEGER PRIMARY KEY,
    book_id INTEGER NOT NULL REFERENCES book (id) ON DELETE CASCADE
)
"""
REBUILT = pytest.mark.backends("sqlite-file")


def rebuilt(databases: Databases, folder: Path, *between: str, **options: Any) -> None:
    """Create the table `book`, with rows; execute *between*; lengthen the title, for which SQLite rebuilds the table."""
    old, new = new_base(databases), new_base(databases)
    define_book(old, **options)
    migrated(old, folder, "first")
    execute(databases, "INSERT INTO book (title) VALUES ('Dune'), ('Emma'), ('Solaris')", *between)
    define_book(new, 80)
    migrated(new, folder, "longer")


@REBUILT
def test_rows_that_refer_to_the_table_and_its_counter_stay(database: Databases, folder: Path) -> None:
    rebuilt(
        database,
        folder,
        CHILD,
        "INSERT INTO child (book_id) VALUES (1), (2), (2)",
        "DELETE FROM book WHERE id > 2",
    )
    assert execute(database, "SELECT book_id FROM child ORDER BY id") == [(1,), (2,), (2,)]
    assert execute(database, "PRAGMA foreign_key_check") == []
    execute(database, "DELETE FROM book WHERE id = 2")
    assert execute(database, "SELECT book_id FROM child") == [(1,)]
    execute(database, "INSERT INTO book (title) VALUES ('new')")
    assert execute(database, "SELECT max(id) FROM book") == [(4,)]  # a key is not used twice


@REBUILT
def test_an_empty_table_keeps_its_counter(database: Databases, folder: Path) -> None:
    rebuilt(database, folder, "DELETE FROM book")
    execute(database, "INSERT INTO book (title) VALUES ('new')")
    assert execute(database, "SELECT max(id) FROM book") == [(4,)]


@REBUILT
def test_triggers_views_and_indexes_on_expressions_stay(database: Databases, folder: Path) -> None:
    rebuilt(
        database,
        folder,
        "CREATE TABLE log (title TEXT)",
        "CREATE TRIGGER note AFTER INSERT ON book BEGIN INSERT INTO log VALUES (new.title); END",
        "CREATE VIEW titles AS SELECT title FROM book",
        "CREATE UNIQUE INDEX small ON book (lower(title))",
    )
    execute(database, "INSERT INTO book (title) VALUES ('new')")
    assert execute(database, "SELECT title FROM log") == [("new",)]
    assert execute(database, "SELECT count(*) FROM titles") == [(4,)]
    query = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql LIKE '%lower%'"
    assert execute(database, query) == [("small",)]


@REBUILT
def test_unnamed_checks_collations_and_table_options_stay(database: Databases, folder: Path) -> None:
    rebuilt(
        database,
        folder,
        "DROP TABLE book",
        "CREATE TABLE book (id INTEGER NOT NULL PRIMARY KEY, title VARCHAR(40) NOT NULL,"
        " note VARCHAR(40) COLLATE NOCASE, CHECK (title <> '')) WITHOUT ROWID",
    )
    with pytest.raises(IntegrityError, match="CHECK constraint failed"):
        execute(database, "INSERT INTO book (id, title) VALUES (1, '')")
    with pytest.raises(OperationalError, match="no such column"):
        execute(database, "SELECT rowid FROM book")


@REBUILT
def test_a_collation_stays(database: Databases, folder: Path) -> None:
    old, new = new_base(database), new_base(database)
    define_book(old)
    migrated(old, folder, "first")
    execute(
        database,
        "DROP TABLE book",
        "CREATE TABLE book (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,"
        " title VARCHAR(40) COLLATE NOCASE NOT NULL)",
        "INSERT INTO book (title) VALUES ('Dune')",
    )
    title = (Field[str], field(max_length=40))
    define(new, "Book", {"title": title, "pages": (Field[int], field(default=0))})
    migrated(new, folder, "pages")
    assert execute(database, "SELECT title FROM book WHERE title = 'DUNE'") == [("Dune",)]


@REBUILT
def test_an_index_that_a_revision_drops_is_not_restored(database: Databases, folder: Path) -> None:
    rebuilt(database, folder, index=True)
    query = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    assert execute(database, query) == []


@REBUILT
def test_a_table_that_refers_to_itself_is_rebuilt(database: Databases, folder: Path) -> None:
    def node(base: Any, length: int) -> Any:
        class Node(base):
            name: Field[str] = field(max_length=length)
            above: ForeignKey["Node | None"] = foreign_key(default=None)

        return base

    migrated(node(new_base(database), 40), folder, "first")
    execute(database, "INSERT INTO node (name, above_id) VALUES ('root', NULL), ('leaf', 1)")
    migrations = migrated(node(new_base(database), 80), folder, "longer")
    assert execute(database, "SELECT name, above_id FROM node ORDER BY id") == [("root", None), ("leaf", 1)]
    assert migrations.check() == []


# Columns without a value


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_a_required_column_without_a_default_is_refused_if_there_are_rows(
    database: Databases, folder: Path
) -> None:
    old, new = new_base(database), new_base(database)
    define_book(old)
    migrated(old, folder, "first")
    day = (Field[datetime.date], field(default_factory=datetime.date.today))
    define(new, "Book", {"title": (Field[str], field(max_length=40)), "day": day})
    migrations = history(new, folder)
    made = migrations.make("days")
    assert made is not None
    assert "# book.day is required and has no default" in made.read_text()
    execute(database, "INSERT INTO book (title) VALUES ('Dune')")
    with pytest.raises(
        MigrationError, match=r"'book\.day' is required and has no default for the rows that 'book'"
    ):
        migrations.migrate()
    assert columns(database, "default") == {"id", "title"}
    execute(database, "DELETE FROM book")
    migrations.migrate()
    assert migrations.check() == []
