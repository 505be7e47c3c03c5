"""The commands on a history: make, migrate, show, check; on several databases, each of which gets its own tables."""

from pathlib import Path
from typing import Any

import pytest

import microorm
from microorm import Databases, Field, Registry, field
from microorm.errors import MigrationError, UnknownAlias
from microorm.migrations import Migrations, Step, write_environment
from tests.migrations.shop import (
    Split,
    columns,
    define,
    execute,
    history,
    migrated,
    new_base,
    revise,
    tables,
)

TITLE = (Field[str], field(max_length=40))


def first(base: Any) -> Any:
    return define(base, "Book", {"title": TITLE}), define(base, "Event", {"text": Field[str]})


def second(base: Any) -> Any:
    title = (Field[str], field(max_length=80))
    level = (Field[int], field(default=1, index=True))
    book = define(base, "Book", {"title": title, "pages": (Field[int], field(default=0))})
    return book, define(base, "Event", {"text": Field[str], "level": level})


def made(databases: Databases, folder: Path) -> Migrations:
    """A history whose first revision is not applied."""
    base = new_base(databases)
    first(base)
    migrations = history(base, folder)
    assert migrations.make("first") is not None
    return migrations


def short(steps: list[Step]) -> list[tuple[str, str, bool]]:
    return [(step.alias, step.revision, step.down) for step in steps]


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_two_databases_go_from_revision_to_revision_and_back(split: Databases, folder: Path) -> None:
    old = new_base(split)
    Book, Event = first(old)
    migrations = history(old, folder)
    path = migrations.make("first")
    assert path is not None
    assert path.name == "0001_first.py"
    assert short(migrations.migrate()) == [("default", "0001", False), ("other", "0001", False)]
    assert tables(split, "default") == {"book", "alembic_version"}
    assert tables(split, "other") == {"event", "alembic_version"}
    assert migrations.check() == []
    Book(title="Dune").save()
    Event(text="opened").save()

    new = new_base(split)
    Book, Event = second(new)
    migrations = history(new, folder)
    assert migrations.make("second") is not None
    planned = [("default", "0002", False), ("other", "0002", False)]
    assert short(migrations.plan()) == planned
    assert short(migrations.migrate()) == planned
    assert [(book.title, book.pages) for book in Book.objects] == [("Dune", 0)]
    assert [(event.text, event.level) for event in Event.objects] == [("opened", 1)]
    assert migrations.check() == []
    assert migrations.make("third") is None

    steps = migrations.migrate("base")
    reverted = [("0002", True), ("0001", True)]
    assert short(steps) == [(alias, *each) for alias in ("default", "other") for each in reverted]
    assert tables(split, "default") == tables(split, "other") == {"alembic_version"}
    migrations.migrate("+2")
    assert migrations.check() == []
    assert migrations.migrate() == []


@pytest.mark.backends("sqlite-file")
def test_one_alias_goes_ahead_and_the_other_follows(split: Databases, folder: Path) -> None:
    migrations = made(split, folder)
    assert [step.alias for step in migrations.migrate(using="other")] == ["other"]
    (revision,) = migrations.show()
    assert revision.applied == {"default": False, "other": True}
    assert (revision.id, revision.message, revision.down) == ("0001", "first", ())
    assert revision.path.name == "0001_first.py"
    behind = "'default' is at 'base', and the newest revision is '0001'"
    assert [each.text for each in migrations.check()] == [behind]
    with pytest.raises(MigrationError, match=behind):
        migrations.make("second")
    migrations.migrate()
    assert migrations.check() == []


@pytest.mark.backends("sqlite-file")
def test_a_revision_between_is_reached_from_above_and_from_below(split: Databases, folder: Path) -> None:
    migrations = made(split, folder)
    migrations.make("by hand", empty=True)
    migrations.make("once more", empty=True)
    migrations.migrate("0001", using="default")
    migrations.migrate(using="other")
    assert sorted(short(migrations.migrate("0002"))) == [("default", "0002", False), ("other", "0003", True)]


@pytest.mark.backends("sqlite-file")
def test_a_new_alias_catches_up_from_the_start(url: str, other_url: str, folder: Path) -> None:
    with Databases(url) as databases:
        made(databases, folder).migrate()
    with Databases({"default": url, "other": other_url}, routers=[Split()]) as databases:
        base = new_base(databases)
        first(base)
        assert short(history(base, folder).migrate()) == [("other", "0001", False)]
        assert tables(databases, "other") == {"event", "alembic_version"}


@pytest.mark.backends("sqlite-file")
def test_two_aliases_of_one_database_migrate_once(url: str, folder: Path) -> None:
    with Databases({"default": url, "other": url}, routers=[Split()]) as databases:
        migrations = made(databases, folder)
        assert [step.alias for step in migrations.migrate()] == ["default"]
        assert tables(databases, "default") == {"book", "event", "alembic_version"}
        assert migrations.show()[0].applied == {"default": True, "other": True}
        assert migrations.check() == []


@pytest.mark.backends("sqlite-file")
def test_what_one_database_lacks_is_added_to_it_alone(databases: Databases, folder: Path) -> None:
    made(databases, folder).migrate()
    execute(databases, "ALTER TABLE book ADD COLUMN pages BIGINT", using="other")
    new = new_base(databases)
    define(new, "Book", {"title": TITLE, "pages": (Field[int | None], field(default=None))})
    define(new, "Event", {"text": Field[str]})
    migrations = history(new, folder)
    path = migrations.make("pages")
    assert path is not None
    assert "if on(alias='default'):" in path.read_text()
    migrations.migrate()
    assert "pages" in columns(databases, "default")
    migrations.migrate("-1")
    assert "pages" not in columns(databases, "default")
    assert "pages" in columns(databases, "other")


@pytest.mark.backends("sqlite-file")
def test_fake_records_a_revision_where_its_tables_exist(split: Databases, folder: Path) -> None:
    migrations = made(split, folder)
    migrations.registry.create_all()
    with pytest.raises(
        MigrationError,
        match="'default' is at 'base', but has tables of the history: 'book'; .* fake=True or --fake",
    ):
        migrations.migrate()
    assert migrations.show()[0].applied == {"default": False, "other": False}
    migrations.migrate(fake=True)
    assert migrations.show()[0].applied == {"default": True, "other": True}
    assert migrations.check() == []


@pytest.mark.backends("sqlite-file")
def test_create_all_and_drop_all_do_not_change_migrated_tables(split: Databases, folder: Path) -> None:
    migrations = made(split, folder)
    migrations.migrate()
    registry = migrations.registry
    registry.create_all()
    with pytest.raises(microorm.ConfigurationError, match="are managed by migrations, which are at '0001'"):
        registry.drop_all()

    class Later(microorm.Model, registry=registry, app="shop"):
        text: Field[str]

    with pytest.raises(
        microorm.ConfigurationError, match="the tables of 'default' are managed by migrations"
    ):
        registry.create_all()
    assert "later" not in tables(split, "default")


@pytest.mark.backends("sqlite-file")
def test_an_unknown_alias_or_revision_changes_nothing(split: Databases, folder: Path) -> None:
    migrations = made(split, folder)
    with pytest.raises(UnknownAlias, match="no database named 'othr'"):
        migrations.migrate(using="othr")
    for move in (migrations.migrate, migrations.plan, migrations.sql):
        with pytest.raises(MigrationError, match="no revision '0007'.*known: '0001'"):
            move("0007")
    with pytest.raises(MigrationError, match="no revision '0007'"):
        migrations.migrate("0007", fake=True)
    for wrong in ("", ":0001", "0001:"):
        with pytest.raises(MigrationError, match="no revision ''"):
            migrations.sql(wrong)
    with pytest.raises(MigrationError, match="no revision ''"):
        migrations.migrate("")
    assert tables(split, "default") == set()


@pytest.mark.backends("sqlite-file")
def test_a_plan_that_fails_on_one_database_is_begun_on_none(split: Databases, folder: Path) -> None:
    migrations = made(split, folder)
    migrations.migrate(using="default")
    with pytest.raises(MigrationError, match="'other' is at 'base': Relative revision"):
        migrations.migrate("-1")
    assert migrations.show()[0].applied == {"default": True, "other": False}


@pytest.mark.backends("sqlite-file")
def test_progress_is_called_after_each_step(split: Databases, folder: Path) -> None:
    steps: list[Step] = []
    assert made(split, folder).migrate(progress=steps.append) == steps
    assert [(step.alias, step.message) for step in steps] == [("default", "first"), ("other", "first")]
    assert all(step.seconds > 0 for step in steps)


@pytest.mark.backends("postgresql")
def test_a_revision_may_leave_its_transaction(database: Databases, folder: Path) -> None:
    """As `CREATE INDEX CONCURRENTLY` requires."""
    base = new_base(database)
    first(base)
    migrations = migrated(base, folder, "first")
    revise(
        migrations,
        "with op.get_context().autocommit_block():",
        '    op.create_index("ix_title", "book", ["title"], postgresql_concurrently=True)',
    )
    migrations.migrate()
    assert [each.text for each in migrations.compare()] == [
        "the index 'ix_title' of 'book' is not in the models"
    ]


def test_a_new_folder_has_an_environment_a_template_and_no_revision(tmp_path: Path) -> None:
    folder = tmp_path / "db" / "migrations"
    written = write_environment(folder)
    assert [path.name for path in written] == ["env.py", "script.py.mako"]
    assert {path.name for path in folder.iterdir()} == {"env.py", "script.py.mako", "versions"}
    compile(written[0].read_text(), "env.py", "exec")


@pytest.mark.parametrize("name", ["env.py", "script.py.mako", "versions"])
def test_an_existing_file_is_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(MigrationError, match=f"{name}' already exists"):
        write_environment(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_folder_without_an_environment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match=r"it has no env\.py"):
        Migrations(tmp_path)


def test_any_message_makes_a_revision_that_can_be_read(folder: Path) -> None:
    messages = ['rename "title"', "back\\slash \\n", 'three """ quotes', "two\nlines", "it's"]
    with Databases("sqlite://") as databases:
        migrations = Migrations(folder, Registry(databases))
        for message in messages:
            migrations.make(message, empty=True)
        assert [revision.message for revision in migrations.show()] == messages
