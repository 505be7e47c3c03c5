"""A revision that fails leaves every database at a revision that the error names; a difference is one plain line."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.operations.ops import (
    AddColumnOp,
    AlterColumnOp,
    CreateIndexOp,
    CreateTableCommentOp,
    CreateTableOp,
    CreateUniqueConstraintOp,
    DropColumnOp,
    DropConstraintOp,
    DropIndexOp,
    DropTableOp,
    ModifyTableOps,
    UpgradeOps,
)

import microorm
from microorm import Databases, Field, Registry
from microorm.errors import MigrationError
from microorm.migrations import Migrations
from microorm.migrations.operations import ChangePrimaryKeyOp
from microorm.migrations.report import describe
from tests.migrations.shop import columns, define_book, execute, migrated, new_base, revise

ADD = 'op.add_column("book", sa.Column("pages", sa.BigInteger()))'
HALF = (
    ADD,
    'op.execute("UPDATE book SET pages = 1")',
    'if on(alias="other"):',
    '    op.execute("UPDATE nothing SET pages = 1")',
)


@pytest.fixture
def migrations(databases: Databases, folder: Path) -> Migrations:
    """A history whose first revision is applied to both databases."""
    base = new_base(databases)
    define_book(base)
    return migrated(base, folder, "first")


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_the_error_names_the_revision_of_each_database_and_migrate_goes_on(
    migrations: Migrations, databases: Databases, backend: str
) -> None:
    made = revise(migrations, *HALF)
    with pytest.raises(MigrationError) as caught:
        migrations.migrate()
    message = str(caught.value)
    assert message.startswith("revision '0002' failed on 'other': ")
    assert "'other' is at '0001'" in message
    assert "'default' is at '0002'" in message
    assert "\n" not in message
    assert caught.value.at == {"default": ("0002",), "other": ("0001",)}
    assert columns(databases, "default") == {"id", "title", "pages"}
    assert [each.applied["other"] for each in migrations.show()] == [True, False]
    if backend == "mariadb":
        assert "MariaDB has committed 2 statements of '0002': ALTER TABLE book" in message
        with pytest.raises(
            MigrationError, match=r"Duplicate column.*MariaDB has committed nothing of '0002' in this run"
        ):
            migrations.migrate()
        return
    assert columns(databases, "other") == {"id", "title"}
    made.write_text(made.read_text().replace("UPDATE nothing", "UPDATE book"))
    assert [(step.alias, step.revision) for step in migrations.migrate()] == [("other", "0002")]
    assert columns(databases, "other") == {"id", "title", "pages"}


@pytest.mark.backends("sqlite-file", "postgresql")
def test_a_step_that_was_rolled_back_is_not_reported(migrations: Migrations, backend: str) -> None:
    revise(migrations, ADD)
    revise(migrations, 'raise LookupError("no such shelf")')
    steps: list[str] = []
    with pytest.raises(MigrationError, match="'0003' failed on 'default': LookupError: no such shelf"):
        migrations.migrate(using="default", progress=lambda step: steps.append(step.revision))
    assert steps == ([] if backend == "sqlite-file" else ["0002"])


@pytest.mark.backends("sqlite-file", "postgresql")
def test_an_interrupt_has_a_note_of_where_each_database_is(migrations: Migrations) -> None:
    revise(migrations, "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt) as caught:
        migrations.migrate()
    assert "'default' is at '0001'" in caught.value.__notes__[0]


@pytest.mark.backends("sqlite-file")
def test_references_to_missing_rows_are_not_committed(databases: Databases, folder: Path) -> None:
    base: Any = new_base(databases)

    class Author(base):
        name: Field[str]

    class Book(base):
        author: microorm.ForeignKey[Author] = microorm.foreign_key()

    migrations = migrated(base, folder, "first")
    Book(author=Author(name="Ursula").save()).save()
    revise(migrations, 'op.execute("DELETE FROM author")')
    with pytest.raises(
        MigrationError,
        match=r"row 1 of 'book' would refer to a missing row of 'author'.*'default' is at '0001'",
    ):
        migrations.migrate()
    assert Author.objects.count() == 1


@pytest.mark.backends("sqlite-file")
def test_after_a_migration_the_settings_of_sqlite_are_as_before(
    migrations: Migrations, databases: Databases
) -> None:
    for _ in range(3):
        assert execute(databases, "PRAGMA foreign_keys") == [(1,)]
        assert execute(databases, "PRAGMA busy_timeout") == [(5000,)]


def test_a_database_that_cannot_be_reached_is_named(tmp_path: Path, folder: Path) -> None:
    missing = tmp_path / "shop.db"
    missing.mkdir()  # SQLite cannot open a folder
    with Databases({"default": f"sqlite:///{missing}"}) as databases:
        migrations = Migrations(folder, Registry(databases))
        for ask in (migrations.migrate, migrations.show, migrations.check, migrations.plan):
            with pytest.raises(
                MigrationError, match="'default' cannot be reached: OperationalError: unable to open"
            ):
                ask()


@pytest.mark.parametrize("driver", ["postgresql+psycopg", "mariadb+pymysql"])
def test_a_server_that_is_not_there_is_named_without_its_password(driver: str, folder: Path) -> None:
    with Databases({"default": f"{driver}://nobody:secret@127.0.0.1:1/none"}) as databases:
        with pytest.raises(MigrationError, match="'default' cannot be reached: ") as caught:
            Migrations(folder, Registry(databases)).migrate()
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("operation", "text"),
    [
        (CreateTableOp("book", []), "the table 'book' is missing"),
        (DropTableOp("book"), "the table 'book' is not in the models"),
        (AddColumnOp("book", sa.Column("a", sa.Integer)), "the column 'book.a' is missing"),
        (DropColumnOp("book", "a"), "the column 'book.a' is not in the models"),
        (AlterColumnOp("book", "a", modify_nullable=True), "the column 'book.a' differs in its nullability"),
        (
            AlterColumnOp("book", "a", modify_type=sa.Text(), modify_server_default=None, modify_comment="x"),
            "the column 'book.a' differs in its type and default and comment",
        ),
        (CreateIndexOp("ix", "book", ["a"]), "the index 'ix' of 'book' is missing"),
        (DropIndexOp("ix", "book"), "the index 'ix' of 'book' is not in the models"),
        (CreateUniqueConstraintOp("uq", "book", ["a"]), "the constraint 'uq' of 'book' is missing"),
        (
            DropConstraintOp("uq", "book", type_="unique"),
            "the constraint 'uq' of 'book' is not in the models",
        ),
        (
            ChangePrimaryKeyOp("book", ("id",), ("a", "b")),
            "the primary key of 'book' is 'id', but 'a', 'b' in the models",
        ),
        (CreateTableCommentOp("book", "x"), "the comment of 'book' differs"),
    ],
)
def test_a_difference_is_one_plain_line(operation: Any, text: str) -> None:
    assert list(describe(UpgradeOps([operation]))) == [text]
    assert list(describe(UpgradeOps([ModifyTableOps("book", [operation])]))) == [text]
