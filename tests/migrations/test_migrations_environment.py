"""What `env.py` runs: signals around each migration, models on its connection, SQL that is printed without one."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func

import microorm
from microorm import Databases, Field, Registry, TransactionError, field
from microorm.apps import AppConfig, Apps
from microorm.errors import MigrationError
from microorm.migrations import Migrations
from microorm.migrations.environment import Request, default_for_rows, known_tables
from microorm.migrations.report import Step
from microorm.migrations.targets import labels_by_table
from microorm.signals import post_migrate, post_save, pre_migrate
from tests.migrations.shop import define, define_book, execute, history, migrated, new_base, revise

SERVERS = {
    "default": "postgresql+psycopg://nobody@127.0.0.1:1/none",
    "other": "mariadb+pymysql://nobody@127.0.0.1:1/none",
}
CALL = "from tests.migrations.test_migrations_environment import SHELF; SHELF()"


class Shelf:
    """Called by revisions: puts a book of *model* on the shelf, in a block of its own."""

    model: Any = None
    book: Any = None

    def __call__(self) -> None:
        databases = self.model.__schema__.registry.databases
        with databases.atomic():
            self.book = self.model(title="Dune").save()
        assert self.model.objects.count() == 1

    @classmethod
    def rename(cls) -> None:
        cls.model.objects.update(title="changed")


SHELF = Shelf()


@pytest.fixture
def shop(databases: Databases, folder: Path) -> tuple[Any, Migrations]:
    """A model `Book` on two aliases, and a first revision that is not applied."""
    base = new_base(databases)
    book = define_book(base)
    migrations = history(base, folder)
    migrations.make("first")
    return book, migrations


@pytest.fixture
def sent() -> Iterator[list[Any]]:
    """What `pre_migrate` and `post_migrate` sent."""
    sent: list[tuple[str, Any, str, Any]] = []

    def before(sender: Any, using: str, plan: Any, **kwargs: Any) -> None:
        sent.append(("pre", sender, using, plan))

    def after(sender: Any, using: str, plan: Any, **kwargs: Any) -> None:
        sent.append(("post", sender, using, plan))

    pre_migrate.connect(before, weak=False)
    post_migrate.connect(after, weak=False)
    yield sent
    pre_migrate.disconnect(before)
    post_migrate.disconnect(after)


@pytest.mark.backends("sqlite-file")
def test_signals_are_sent_before_and_after_each_database_even_without_steps(shop: Any, sent: Any) -> None:
    _, migrations = shop
    migrations.migrate()
    sender = migrations.registry
    assert sent == [
        ("pre", sender, "default", [("0001", False)]),
        ("post", sender, "default", [("0001", False)]),
        ("pre", sender, "other", [("0001", False)]),
        ("post", sender, "other", [("0001", False)]),
    ]
    sent.clear()
    migrations.migrate(using="other")
    assert [(when, plan) for when, _, _, plan in sent] == [("pre", []), ("post", [])]
    sent.clear()
    migrations.migrate("base", using="other")
    assert [plan for _, _, _, plan in sent if plan] == [[("0001", True)]] * 2


@pytest.mark.backends("sqlite-file")
def test_commands_that_only_read_send_no_signals(shop: Any, sent: Any) -> None:
    _, migrations = shop
    for command in (migrations.plan, migrations.show, migrations.check, migrations.sql):
        command()
    migrations.make("nothing", empty=True)
    assert sent == []


@pytest.mark.backends("sqlite-file")
def test_an_error_of_a_receiver_stops_the_migration(shop: Any) -> None:
    _, migrations = shop

    def refuse(**kwargs: Any) -> None:
        raise LookupError("not today")

    pre_migrate.connect(refuse)
    try:
        with pytest.raises(LookupError, match="not today"):
            migrations.migrate()
    finally:
        pre_migrate.disconnect(refuse)
    assert migrations.show()[0].applied == {"default": False, "other": False}


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_models_use_the_connection_that_migrates(shop: Any) -> None:
    Book, migrations = shop
    saved: list[tuple[str, str]] = []

    def note(instance: Any, using: str, **kwargs: Any) -> None:
        saved.append((instance.title, using))

    post_save.connect(note, sender=Book)
    revise(migrations, CALL)
    try:
        SHELF.model = Book
        migrations.migrate()
    finally:
        post_save.disconnect(note, sender=Book)
    assert saved == [("Dune", "default"), ("Dune", "other")]
    for alias in ("default", "other"):
        assert [book.title for book in Book.objects.using(alias)] == ["Dune"]


@pytest.mark.backends("sqlite-file", "postgresql")
def test_what_models_wrote_is_rolled_back_with_a_failed_revision(shop: Any) -> None:
    Book, migrations = shop
    migrations.migrate()
    revise(migrations, CALL, "1 / 0")
    SHELF.model = Book
    with pytest.raises(MigrationError, match="ZeroDivisionError"):
        migrations.migrate()
    assert Book.objects.using("default").count() == 0
    assert SHELF.book.pk is None


@pytest.mark.backends("sqlite-file")
def test_options_of_the_project_override_those_of_microorm(shop: Any, folder: Path) -> None:
    _, migrations = shop
    (folder / "env.py").write_text(
        "from microorm import migrations\n\nmigrations.run(version_table='my_versions')\n"
    )
    migrations.migrate()
    assert execute(migrations.registry.databases, "SELECT version_num FROM my_versions") == [("0001",)]
    revise(migrations, "1 / 0")
    with pytest.raises(MigrationError, match="'default' is at '0001'"):  # read from the same table
        migrations.migrate()


@pytest.mark.backends("sqlite-memory")
def test_a_database_in_memory_is_migrated_where_it_is(shop: Any) -> None:
    Book, migrations = shop
    migrations.migrate()
    Book(title="Dune").save()
    assert migrations.check() == []


@pytest.fixture
def printed(sqlite_url: str, folder: Path) -> Iterator[Migrations]:
    """Two revisions, the second of which rebuilds a table on SQLite; only the first is applied."""
    with Databases({"default": sqlite_url, "other": "sqlite://"}) as databases:
        base = new_base(databases)
        define_book(base)
        migrated(base, folder, "first")
        base = new_base(databases)
        title = (Field[str], field(max_length=80))
        define(base, "Volume", {"title": title, "pages": (Field[int], field(default=3))}, table="book")
        migrations = history(base, folder)
        migrations.make("second")
        yield migrations


def on_servers(migrations: Migrations) -> Migrations:
    """The same history and models, for servers that do not answer."""
    base = new_base(Databases(SERVERS))
    title = (Field[str], field(max_length=80))
    define(base, "Volume", {"title": title, "pages": (Field[int], field(default=3))}, table="book")
    return history(base, migrations.folder)


def test_the_sql_of_the_history_is_printed_for_each_database(printed: Migrations) -> None:
    before = [each.applied for each in printed.show()]
    for migrations, dialects in (
        (printed, ("sqlite", "sqlite")),
        (on_servers(printed), ("postgresql", "mariadb")),
    ):
        sql = migrations.sql()
        for alias, dialect in zip(("default", "other"), dialects, strict=True):
            assert sql.count(f"-- {alias} ({dialect})") == 1
        assert sql.count("CREATE TABLE book") == 2
        assert sql.count("UPDATE book SET pages=3") == 2
        assert "0002" in sql
    assert [each.applied for each in printed.show()] == before


@pytest.mark.parametrize("server", [False, True])
def test_a_part_of_the_sql_is_printed_for_one_alias(printed: Migrations, server: bool) -> None:
    migrations = on_servers(printed) if server else printed
    up = migrations.sql("0001:head", using="other")
    assert "-- default" not in up
    assert "CREATE TABLE book (" not in up
    assert "pages" in up
    assert "pages" in migrations.sql("0002:0001", using="default")
    assert migrations.sql("0002:base", using="default").count("DROP TABLE") >= 1


def test_the_printed_sql_of_sqlite_does_what_the_migration_does(printed: Migrations, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "by-hand.db", isolation_level=None) as connection:
        connection.executescript(printed.sql("0001", using="default"))
        connection.execute("INSERT INTO book (title) VALUES ('Dune')")
        connection.executescript(printed.sql("0001:0002", using="default"))
        assert connection.execute("SELECT id, title, pages FROM book").fetchall() == [(1, "Dune", 3)]
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0002",)]
        connection.executescript(printed.sql("0002:base", using="default"))
        assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'book'").fetchall() == []
    connection.close()


def test_what_a_rebuilt_table_keeps_is_in_the_printed_sql(printed: Migrations) -> None:
    revise(
        printed,
        "op.execute('CREATE INDEX small ON book (lower(title))')",
        "op.execute('CREATE TRIGGER t AFTER INSERT ON book BEGIN SELECT 1; END')",
    )
    revise(printed, "with op.batch_alter_table('book') as b: b.alter_column('title', type_=sa.Text())")
    with sqlite3.connect(":memory:", isolation_level=None) as connection:
        connection.executescript(printed.sql(using="default"))
        names = connection.execute(
            "SELECT name FROM sqlite_master WHERE name IN ('small', 't') ORDER BY name"
        )
        assert names.fetchall() == [("small",), ("t",)]
    connection.close()


def test_models_reach_no_database_while_sql_is_printed(printed: Migrations) -> None:
    printed.migrate()
    book = printed.registry.models["shop.Volume"]
    book(title="Dune").save()
    revise(printed, CALL.replace("SHELF()", "SHELF.rename()"))
    Shelf.model = book
    assert "UPDATE book SET title='changed'" in printed.sql("0002:0003", using="default")
    migrations = on_servers(printed)
    Shelf.model = migrations.registry.models["shop.Volume"]
    for alias in SERVERS:
        with pytest.raises(TransactionError, match="SQL is printed, not executed"):
            migrations.sql("0002:0003", using=alias)
    assert [each.title for each in book.objects] == ["Dune"]


class Size(Enum):
    """A size."""

    S = "s"


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Databases("sqlite://") as databases:

        class Book(microorm.Model, registry=Registry(databases), app="shop"):
            size: Field[Size] = field(default=Size.S)
            pages: Field[int]
            tags: Field[list[str]] = field(default_factory=list)
            at: Field[datetime] = field(default_factory=lambda: datetime.now(UTC))
            note: Field[str | None] = field(default=None)
            made: Field[datetime] = field(server_default=func.now())

        yield Book.__schema__.registry


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("size", (True, "s")),
        ("tags", (True, [])),
        ("pages", (False, None)),
        ("at", (False, None)),  # differs by row
        ("note", (False, None)),
        ("made", (False, None)),
        ("nothing", (False, None)),
    ],
)
def test_rows_get_a_default_that_is_the_same_for_all(registry: Registry, column: str, value: Any) -> None:
    assert default_for_rows(registry, "book", column) == value
    assert default_for_rows(registry, "nothing", column) == (False, None)


def test_before_the_first_revision_no_table_is_known(registry: Registry, folder: Path) -> None:
    migrations = Migrations(folder, registry)
    assert known_tables(migrations._history(), registry) == frozenset()
    migrations.make("first")
    history = migrations._history()
    assert known_tables(history, registry) == {"book"}
    assert history.labels == labels_by_table(registry) == {"book": "shop.Book"}


def test_applications_with_models_are_the_senders(registry: Registry) -> None:
    apps = Apps(registry)
    assert Request(registry, apps).senders() == [registry]
    shop, other = AppConfig("shop"), AppConfig("other")
    apps.configs = {"shop": shop, "other": other}
    assert Request(registry, apps).senders() == [shop]
    assert Request(registry).senders() == [registry]


def test_a_step_is_kept_and_passed_on(registry: Registry) -> None:
    steps: list[Step] = []
    request = Request(registry, progress=steps.append)
    step = Step("default", "0001", "first", down=False)
    request.add(step)
    assert request.steps == steps == [step]
