"""A revision does on each database what is that database's own, and knows where it runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.operations.ops import AddColumnOp, CreateForeignKeyOp, ExecuteSQLOp, RenameTableOp
from sqlalchemy import Column, Integer, inspect, text

import microorm
from microorm import Databases, Field, Registry, field
from microorm.errors import MigrationError
from microorm.migrations import Migrations, on
from microorm.migrations.targets import changed_tables

pytestmark = pytest.mark.backends("sqlite-file", "postgresql", "mariadb")


class Split:
    """`shop.Event` lives on the alias `other`, all else on `default`."""

    def allow_migrate(self, alias: str, label: str, model: Any = None, **hints: Any) -> bool:
        return (alias == "other") == (label == "shop.Event")


@pytest.fixture
def migrations(url: str, other_url: str, folder: Path) -> Any:
    """A history whose first revision is applied: `book` on `default`, `event` on `other`."""
    with Databases({"default": url, "other": other_url}, routers=[Split()]) as databases:

        class Base(microorm.Model, registry=Registry(databases), app="shop", abstract=True):
            pass

        class Book(Base):
            title: Field[str] = field(max_length=40)

        class Event(Base):
            text: Field[str] = field(max_length=40)

        migrations = Migrations(folder, Base.__options__.registry)
        migrations.make("first")
        migrations.migrate()
        yield migrations


@pytest.fixture
def revise(migrations: Migrations) -> Callable[..., None]:
    """Writes a revision by hand, whose `upgrade` has the lines given, and migrates."""

    def revise(*lines: str) -> None:
        made = migrations.make("by hand", empty=True)
        assert made is not None
        upgrade = "".join(f"    {line}\n" for line in lines)
        head, _, _ = made.read_text().partition("def upgrade()")
        made.write_text(
            f"{head}from microorm.migrations import on\n\n\ndef upgrade() -> None:\n{upgrade}\n\n"
            "def downgrade() -> None:\n    pass\n"
        )
        migrations.migrate()

    return revise


def columns(migrations: Migrations, alias: str, table: str) -> set[str]:
    with migrations.registry.databases.engine(alias).connect() as connection:
        return {each["name"] for each in inspect(connection).get_columns(table)}


def test_operations_reach_the_database_that_holds_the_table(migrations: Migrations, revise: Any) -> None:
    revise(
        'op.add_column("book", sa.Column("pages", sa.Integer()))',
        'op.create_index("ix_text", "event", ["text"])',
        'with op.batch_alter_table("event") as batch:',
        '    batch.add_column(sa.Column("level", sa.Integer()))',
        '    batch.create_index(batch.f("ix_level"), ["level"])',
    )
    assert "pages" in columns(migrations, "default", "book")
    assert "level" in columns(migrations, "other", "event")


def test_a_table_that_was_not_made_takes_no_rows(migrations: Migrations, revise: Any) -> None:
    revise(
        'event = op.create_table("event_kind", sa.Column("name", sa.String(9), primary_key=True))',
        'op.bulk_insert(event, [{"name": "a"}])',
    )
    for alias in ("default", "other"):  # no model has had it: it is everywhere
        with migrations.registry.databases.connection(alias) as connection:
            assert connection.execute(text("SELECT name FROM event_kind")).scalars().all() == ["a"]


def test_sql_runs_where_it_is_asked_to(migrations: Migrations, revise: Any, backend: str) -> None:
    other = "postgresql" if backend != "postgresql" else "sqlite"
    revise(
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
    with migrations.registry.databases.connection("default") as connection:
        assert connection.execute(text("SELECT title FROM book")).scalars().all() == ["by table"]
    with migrations.registry.databases.connection("other") as connection:
        query = text("SELECT text FROM event ORDER BY id")
        assert connection.execute(query).scalars().all() == ["by alias", "by dialect"]


@pytest.mark.backends("sqlite-file")
def test_outside_a_migration_there_is_no_answer(migrations: Migrations) -> None:
    with pytest.raises(MigrationError, match="no migration is running"):
        on(alias="default")
    with pytest.raises(TypeError, match=r"on\(\) wants alias=, table=, dialect= or missing="):
        on()


@pytest.mark.backends("sqlite-file")
@pytest.mark.parametrize(
    ("operation", "tables"),
    [
        (AddColumnOp("book", Column("x", Integer)), {"book"}),
        (CreateForeignKeyOp("fk", "book", "author", ["a"], ["id"]), {"book"}),
        (RenameTableOp("book", "volume"), {"book", "volume"}),
        (ExecuteSQLOp("SELECT 1"), set()),
    ],
)
def test_the_changed_tables_an_operation_are_known(operation: Any, tables: set[str]) -> None:
    assert set(changed_tables(operation)) == tables


class Given:
    """`shop.Event` lives where it is *given*."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def allow_migrate(self, alias: str, label: str, model: Any = None, **hints: Any) -> bool:
        return alias == (self.alias if label == "shop.Event" else "default")


def test_a_table_that_a_router_moves_is_made_once_on_every_database(
    url: str, other_url: str, fresh_url: Callable[[], str], folder: Path
) -> None:
    def of(databases: Databases) -> Migrations:
        class Base(microorm.Model, registry=Registry(databases), app="shop", abstract=True):
            pass

        class Book(Base):
            title: Field[str] = field(max_length=40)

        class Event(Base):
            text: Field[str] = field(max_length=40, index=True)

        return Migrations(folder, Base.__options__.registry)

    with Databases({"default": url, "other": other_url}, routers=[Given("default")]) as databases:
        of(databases).make("first")
        of(databases).migrate()
        with databases.connection() as connection:
            connection.execute(text("INSERT INTO event (text) VALUES ('kept')"))
            connection.commit()
    with Databases({"default": url, "other": other_url}, routers=[Given("other")]) as databases:
        made = of(databases).make("events move")
        assert made is not None
        assert "if on(missing='event'):" in made.read_text()
        of(databases).migrate()
        assert of(databases).check() == []
        with databases.connection() as connection:  # its rows stay where they were
            assert connection.execute(text("SELECT text FROM event")).scalars().all() == ["kept"]
        of(databases).migrate("base")
        of(databases).migrate()
    with Databases({"default": fresh_url(), "other": fresh_url()}, routers=[Given("other")]) as databases:
        of(databases).migrate()
        assert of(databases).check() == []
        of(databases).migrate("base")
