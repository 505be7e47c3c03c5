"""The SQL of a migration is written without asking any database, and does what the migration does."""

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from microorm import Field, Model, TransactionError, field
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
    up = history.sql("0001:head", using="other")
    assert "-- default" not in up
    assert "CREATE TABLE book (" not in up
    assert "pages" in up
    down = history.sql("0002:0001", using="default")
    assert "pages" in down
    assert history.sql("0002:base", using="default").count("DROP TABLE") >= 1


def test_nothing_is_changed_by_it(history: Migrations) -> None:
    before = [each.applied for each in history.show()]
    history.sql()
    assert [each.applied for each in history.show()] == before


@pytest.mark.backends("sqlite-file")
def test_the_sql_of_sqlite_does_what_the_migration_does(history: Migrations, tmp_path: Any) -> None:
    with sqlite3.connect(tmp_path / "by-hand.db", isolation_level=None) as connection:
        connection.executescript(history.sql("0001", using="default"))
        connection.execute("INSERT INTO book (title) VALUES ('Dune')")
        connection.executescript(history.sql("0001:0002", using="default"))
        assert connection.execute("SELECT id, title, pages FROM book").fetchall() == [(1, "Dune", 3)]
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0002",)]
        connection.executescript(history.sql("0002:base", using="default"))
        assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'book'").fetchall() == []
    connection.close()


def by_hand(history: Migrations, body: str) -> None:
    """A revision whose upgrade is *body*."""
    made = history.make("by hand", empty=True)
    assert made is not None
    head = made.read_text().partition("def upgrade()")[0]
    made.write_text(f"{head}def upgrade() -> None:\n    {body}\n\n\ndef downgrade() -> None:\n    pass\n")


def test_models_reach_no_database_while_sql_is_written(history: Migrations, backend: str) -> None:
    history.migrate()
    book = history.registry.models["shop.Volume"]
    book(title="Dune").save()
    History.model = book
    by_hand(history, "from tests.migrations.test_migrations_recording import History; History.change()")
    if backend == "sqlite-file":
        assert "UPDATE book SET title='changed'" in history.sql("0002:0003", using="default")
    else:
        with pytest.raises(TransactionError, match="SQL is written, and no database is asked"):
            history.sql("0002:0003")
    assert [each.title for each in book.objects] == ["Dune"]


class History:
    """Called by a revision."""

    model: Any = None

    @classmethod
    def change(cls) -> None:
        cls.model.objects.update(title="changed")


@pytest.mark.backends("sqlite-file")
def test_what_a_rebuilt_table_keeps_is_in_the_sql_too(history: Migrations) -> None:
    by_hand(
        history,
        "op.execute('CREATE INDEX small ON book (lower(title))');"
        " op.execute('CREATE TRIGGER t AFTER INSERT ON book BEGIN SELECT 1; END')",
    )
    by_hand(history, "with op.batch_alter_table('book') as b: b.alter_column('title', type_=sa.Text())")
    with sqlite3.connect(":memory:", isolation_level=None) as connection:
        connection.executescript(history.sql(using="default"))
        names = connection.execute(
            "SELECT name FROM sqlite_master WHERE name IN ('small', 't') ORDER BY name"
        )
        assert names.fetchall() == [("small",), ("t",)]
    connection.close()
