"""The path of a project: a first revision, rows, a second one, back and forth, on one database and on several."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, text

import microorm
from microorm import Databases, Field, Registry, field
from microorm.errors import MigrationError, UnknownAlias
from microorm.migrations import Migrations, Step, write_environment

pytestmark = pytest.mark.backends("sqlite-file", "postgresql", "mariadb")


class Split:
    """`shop.Event` lives on the alias `other`, all else on `default`."""

    def allow_migrate(self, alias: str, label: str, model: Any = None, **hints: Any) -> bool:
        return (alias == "other") == (label == "shop.Event")

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "other" if model.__name__ == "Event" else None

    db_for_read = db_for_write


@pytest.fixture
def split(url: str, other_url: str) -> Any:
    """Two databases, between which a router parts the tables."""
    with Databases({"default": url, "other": other_url}, routers=[Split()]) as databases:
        yield databases


def base_of(databases: Databases) -> Any:
    class Base(microorm.Model, registry=Registry(databases), app="shop", abstract=True):
        pass

    return Base


def first(base: Any) -> Any:
    class Book(base):
        title: Field[str] = field(max_length=40)

    class Event(base):
        text: Field[str]

    return Book, Event


def second(base: Any) -> Any:
    class Book(base):
        title: Field[str] = field(max_length=80)
        pages: Field[int] = field(default=0)

    class Event(base):
        text: Field[str]
        level: Field[int] = field(default=1, index=True)

    return Book, Event


def tables(databases: Databases, alias: str) -> set[str]:
    with databases.engine(alias).connect() as connection:
        return set(inspect(connection).get_table_names())


def test_each_database_gets_the_tables_that_are_its_own(split: Databases, folder: Path) -> None:
    base = base_of(split)
    first(base)
    migrations = Migrations(folder, base.__options__.registry)
    made = migrations.make("first")
    assert made is not None
    assert made.name == "0001_first.py"
    assert migrations.migrate() != []
    assert tables(split, "default") == {"book", "alembic_version"}
    assert tables(split, "other") == {"event", "alembic_version"}
    assert migrations.check() == []


def test_rows_are_there_after_the_second_revision(split: Databases, folder: Path) -> None:
    old = base_of(split)
    Book, Event = first(old)
    migrations = Migrations(folder, old.__options__.registry)
    migrations.make("first")
    migrations.migrate()
    Book(title="Dune").save()
    Event(text="opened").save()
    new = base_of(split)
    Book, Event = second(new)
    migrations = Migrations(folder, new.__options__.registry)
    assert migrations.make("second") is not None
    assert [(step.alias, step.revision, step.down) for step in migrations.plan()] == [
        ("default", "0002", False),
        ("other", "0002", False),
    ]
    migrations.migrate()
    assert [(book.title, book.pages) for book in Book.objects] == [("Dune", 0)]
    assert [(event.text, event.level) for event in Event.objects] == [("opened", 1)]
    assert migrations.check() == []
    assert migrations.make("third") is None


def test_up_and_down_and_up_again(split: Databases, folder: Path) -> None:
    base = base_of(split)
    first(base)
    migrations = Migrations(folder, base.__options__.registry)
    migrations.make("first")
    migrations.migrate()
    steps = migrations.migrate("base")
    assert [(step.alias, step.revision, step.down) for step in steps] == [
        ("default", "0001", True),
        ("other", "0001", True),
    ]
    assert tables(split, "default") == tables(split, "other") == {"alembic_version"}
    migrations.migrate("+1")
    assert migrations.check() == []
    assert migrations.migrate() == []


def test_one_alias_goes_ahead_and_the_other_follows(split: Databases, folder: Path) -> None:
    base = base_of(split)
    first(base)
    migrations = Migrations(folder, base.__options__.registry)
    migrations.make("first")
    assert [step.alias for step in migrations.migrate(using="other")] == ["other"]
    (revision,) = migrations.show()
    assert revision.applied == {"default": False, "other": True}
    assert (revision.id, revision.message, revision.down, revision.path.name) == (
        "0001",
        "first",
        (),
        "0001_first.py",
    )
    assert [each.text for each in migrations.check()] == ["'default' is at 'base', and the newest is '0001'"]
    with pytest.raises(MigrationError, match="'default' is at 'base', and the newest revision is '0001'"):
        migrations.make("second")
    migrations.migrate()
    assert migrations.check() == []


def test_a_revision_between_is_reached_from_above_and_from_below(split: Databases, folder: Path) -> None:
    base = base_of(split)
    first(base)
    migrations = Migrations(folder, base.__options__.registry)
    migrations.make("first")
    migrations.make("by hand", empty=True)
    migrations.make("once more", empty=True)
    migrations.migrate("0001", using="default")
    migrations.migrate(using="other")
    steps = migrations.migrate("0002")
    assert sorted((step.alias, step.revision, step.down) for step in steps) == [
        ("default", "0002", False),
        ("other", "0003", True),
    ]


def test_a_new_alias_catches_up_from_the_start(url: str, other_url: str, folder: Path) -> None:
    with Databases(url) as databases:
        base = base_of(databases)
        first(base)
        migrations = Migrations(folder, base.__options__.registry)
        migrations.make("first")
        migrations.migrate()
    with Databases({"default": url, "other": other_url}, routers=[Split()]) as databases:
        base = base_of(databases)
        first(base)
        migrations = Migrations(folder, base.__options__.registry)
        assert [(step.alias, step.revision) for step in migrations.migrate()] == [("other", "0001")]
        assert tables(databases, "other") == {"event", "alembic_version"}


def test_two_aliases_of_one_database_migrate_once(url: str, folder: Path) -> None:
    with Databases({"default": url, "other": url}, routers=[Split()]) as databases:
        base = base_of(databases)
        first(base)
        migrations = Migrations(folder, base.__options__.registry)
        migrations.make("first")
        assert [step.alias for step in migrations.migrate()] == ["default"]
        assert tables(databases, "default") == {"book", "event", "alembic_version"}
        assert migrations.show()[0].applied == {"default": True, "other": True}
        assert migrations.check() == []


def test_what_one_database_lacks_is_said_for_it_alone(
    databases: Databases, anew: Callable[[], Any], migrations: Callable[[Any], Migrations]
) -> None:
    old = anew()
    first(old)
    migrations(old).make("first")
    migrations(old).migrate()
    with databases.connection("other") as connection:
        connection.execute(text("ALTER TABLE book ADD COLUMN pages BIGINT"))
        connection.commit()
    new = anew()

    class Book(new):
        title: Field[str] = field(max_length=40)
        pages: Field[int | None] = field(default=None)

    class Event(new):
        text: Field[str]

    made = migrations(new).make("pages")
    assert made is not None
    assert "if on(alias='default'):" in made.read_text()
    migrations(new).migrate()
    assert [
        each for each in migrations(new).compare() if "pages" in each.text and "missing" in each.text
    ] == []
    migrations(new).migrate("-1")


def test_fake_notes_that_it_is_there(split: Databases, folder: Path) -> None:
    base = base_of(split)
    first(base)
    base.__options__.registry.create_all()
    migrations = Migrations(folder, base.__options__.registry)
    migrations.make("first")
    with pytest.raises(
        MigrationError,
        match="'default' is at 'base', and has tables that no revision made to its end: 'book'",
    ):
        migrations.migrate()
    assert migrations.show()[0].applied == {"default": False, "other": False}
    migrations.migrate(fake=True)
    assert migrations.show()[0].applied == {"default": True, "other": True}
    assert migrations.check() == []


def test_tables_that_migrations_keep_are_not_made_or_dropped_by_others(
    split: Databases, folder: Path
) -> None:
    base = base_of(split)
    first(base)
    registry = base.__options__.registry
    migrations = Migrations(folder, registry)
    migrations.make("first")
    migrations.migrate()
    registry.create_all()
    with pytest.raises(
        microorm.ConfigurationError, match="are made and dropped by migrations, which are at '0001'"
    ):
        registry.drop_all()

    class Later(base):
        text: Field[str]

    with pytest.raises(
        microorm.ConfigurationError, match="the tables of 'default' are made and dropped by migrations"
    ):
        registry.create_all()
    assert "later" not in tables(split, "default")


def test_an_unknown_alias_or_revision_changes_nothing(split: Databases, folder: Path) -> None:
    base = base_of(split)
    first(base)
    migrations = Migrations(folder, base.__options__.registry)
    migrations.make("first")
    with pytest.raises(UnknownAlias, match="no database named 'othr'"):
        migrations.migrate(using="othr")
    for move in (migrations.migrate, migrations.plan, migrations.sql):
        with pytest.raises(MigrationError, match="no revision '0007'.*known: '0001'"):
            move("0007")
    with pytest.raises(MigrationError, match="no revision '0007'"):
        migrations.migrate("0007", fake=True)
    assert tables(split, "default") == set()


def test_a_folder_without_an_environment_is_no_history(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match=r"it has no env\.py"):
        Migrations(tmp_path)


def test_what_is_there_is_not_overwritten(folder: Path) -> None:
    (folder / "env.py").write_text("mine")
    with pytest.raises(MigrationError, match="is there already"):
        write_environment(folder)
    assert (folder / "env.py").read_text() == "mine"


def test_progress_is_told_step_by_step(split: Databases, folder: Path) -> None:
    base = base_of(split)
    first(base)
    migrations = Migrations(folder, base.__options__.registry)
    migrations.make("first")
    told: list[Step] = []
    done = migrations.migrate(progress=told.append)
    assert done == told
    assert [(step.alias, step.message) for step in told] == [("default", "first"), ("other", "first")]
    assert all(step.seconds > 0 for step in told)


@pytest.mark.backends("postgresql")
def test_a_revision_may_leave_its_transaction(url: str, folder: Path) -> None:
    """As `CREATE INDEX CONCURRENTLY` wants."""
    with Databases(url) as databases:
        base = base_of(databases)
        first(base)
        migrations = Migrations(folder, base.__options__.registry)
        migrations.make("first")
        made = migrations.make("index", empty=True)
        assert made is not None
        body = (
            "upgrade() -> None:\n"
            "    with op.get_context().autocommit_block():\n"
            '        op.create_index("ix_title", "book", ["title"], postgresql_concurrently=True)\n'
        )
        made.write_text(made.read_text().replace("upgrade() -> None:\n    pass\n", body, 1))
        migrations.migrate()
        assert [each.text for each in migrations.compare()] == ["the index 'ix_title' of 'book' is left over"]
