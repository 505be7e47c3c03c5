"""A revision that fails leaves every database at a revision that the error names, and can be tried again."""

from pathlib import Path
from textwrap import dedent

import pytest
from sqlalchemy import inspect, text

import microorm
from microorm import Databases, Field, Registry, field
from microorm.errors import MigrationError
from microorm.migrations import Migrations

pytestmark = pytest.mark.backends("sqlite-file", "postgresql", "mariadb")


def begun(databases: Databases, folder: Path) -> Migrations:
    """A history whose first revision is applied to all databases."""

    class Base(microorm.Model, registry=Registry(databases), app="shop", abstract=True):
        pass

    class Book(Base):
        title: Field[str] = field(max_length=40)

    migrations = Migrations(folder, Base.__options__.registry)
    migrations.make("first")
    migrations.migrate()
    return migrations


def revise(migrations: Migrations, body: str) -> Path:
    """A revision by hand, whose upgrade is *body*."""
    made = migrations.make("by hand", empty=True)
    assert made is not None
    upgrade, _, downgrade = made.read_text().partition("def downgrade()")
    head = upgrade[: upgrade.index("def upgrade()")] + "from microorm.migrations import on\n\n\n"
    body = "def upgrade() -> None:\n" + "".join(f"    {line}\n" for line in dedent(body).strip().splitlines())
    made.write_text(f"{head}{body}\n\ndef downgrade(){downgrade}")
    return made


def columns(databases: Databases, alias: str) -> set[str]:
    with databases.engine(alias).connect() as connection:
        return {each["name"] for each in inspect(connection).get_columns("book")}


HALF = """
    op.add_column("book", sa.Column("pages", sa.BigInteger()))
    op.execute("UPDATE book SET pages = 1")
    if on(alias="other"):
        op.execute("UPDATE nothing SET pages = 1")
"""


def test_each_database_is_at_a_revision_that_the_error_names(
    databases: Databases, folder: Path, backend: str
) -> None:
    migrations = begun(databases, folder)
    revise(migrations, HALF)
    with pytest.raises(MigrationError) as caught:
        migrations.migrate()
    said = str(caught.value)
    assert said.startswith("revision '0002' failed on 'other': ")
    assert "'other' is at '0001'" in said
    assert "'default' is at '0002'" in said
    assert "\n" not in said
    assert caught.value.at == {"default": ("0002",), "other": ("0001",)}
    assert columns(databases, "default") == {"id", "title", "pages"}
    if backend == "mariadb":
        assert (
            "2 statements of '0002' stay done, since MariaDB undoes no change of a table: ALTER TABLE book"
            in said
        )
    else:
        assert columns(databases, "other") == {"id", "title"}
    assert [each.applied for each in migrations.show()] == [
        {"default": True, "other": True},
        {"default": True, "other": False},
    ]


@pytest.mark.backends("sqlite-file", "postgresql")
def test_a_revision_that_is_mended_goes_on_where_it_failed(databases: Databases, folder: Path) -> None:
    migrations = begun(databases, folder)
    made = revise(migrations, HALF)
    with pytest.raises(MigrationError):
        migrations.migrate()
    made.write_text(made.read_text().replace("UPDATE nothing", "UPDATE book"))
    assert [(step.alias, step.revision) for step in migrations.migrate()] == [("other", "0002")]
    assert columns(databases, "other") == {"id", "title", "pages"}


@pytest.mark.backends("mariadb")
def test_mariadb_says_what_an_earlier_run_may_have_left(databases: Databases, folder: Path) -> None:
    migrations = begun(databases, folder)
    revise(migrations, HALF)
    with pytest.raises(MigrationError):
        migrations.migrate()
    with pytest.raises(MigrationError, match=r"Duplicate column.*nothing of '0002' was done in this run"):
        migrations.migrate()


def test_an_error_in_python_is_told_with_its_kind(databases: Databases, folder: Path) -> None:
    migrations = begun(databases, folder)
    revise(migrations, 'raise LookupError("no such shelf")')
    with pytest.raises(
        MigrationError, match="revision '0002' failed on 'default': LookupError: no such shelf"
    ):
        migrations.migrate()


@pytest.mark.backends("sqlite-file")
def test_rows_that_would_refer_to_nothing_are_not_committed(databases: Databases, folder: Path) -> None:
    class Base(microorm.Model, registry=Registry(databases), app="shop", abstract=True):
        pass

    class Author(Base):
        name: Field[str]

    class Book(Base):
        author: microorm.ForeignKey[Author] = microorm.foreign_key()

    migrations = Migrations(folder, Base.__options__.registry)
    migrations.make("first")
    migrations.migrate()
    Book(author=Author(name="Ursula").save()).save()
    revise(migrations, 'op.execute("DELETE FROM author")')
    with pytest.raises(
        MigrationError, match=r"row 1 of 'book' would refer to no row of 'author'.*'default' is at '0001'"
    ):
        migrations.migrate()
    assert Author.objects.count() == 1


@pytest.mark.backends("sqlite-file")
def test_a_database_that_cannot_be_reached_is_named(tmp_path: Path, folder: Path) -> None:
    missing = tmp_path / "nowhere" / "shop.db"
    with Databases({"default": f"sqlite:///{missing}"}) as databases:
        migrations = Migrations(folder, Registry(databases))
        for ask in (migrations.migrate, migrations.show, migrations.check, migrations.plan):
            with pytest.raises(
                MigrationError, match="'default' cannot be reached: OperationalError: unable to open"
            ):
                ask()


@pytest.mark.backends("postgresql", "mariadb")
def test_a_server_that_is_not_there_is_named(backend: str, folder: Path) -> None:
    driver = {"postgresql": "postgresql+psycopg", "mariadb": "mariadb+pymysql"}[backend]
    with Databases({"default": f"{driver}://nobody:secret@127.0.0.1:1/none"}) as databases:
        with pytest.raises(MigrationError, match="'default' cannot be reached: ") as caught:
            Migrations(folder, Registry(databases)).migrate()
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_foreign_keys_are_checked_again_after_a_migration(
    databases: Databases, folder: Path, backend: str
) -> None:
    begun(databases, folder)
    if backend == "sqlite-file":
        for _ in range(3):
            with databases.connection() as connection:
                assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
                assert connection.execute(text("PRAGMA busy_timeout")).scalar() == 5000


def test_a_step_that_was_undone_is_not_told(databases: Databases, folder: Path, backend: str) -> None:
    migrations = begun(databases, folder)
    revise(migrations, 'op.add_column("book", sa.Column("pages", sa.BigInteger()))')
    revise(migrations, "1 / 0")
    told: list[str] = []
    with pytest.raises(MigrationError, match="ZeroDivisionError"):
        migrations.migrate(using="default", progress=lambda step: told.append(step.revision))
    assert told == ([] if backend == "sqlite-file" else ["0002"])


def test_an_interrupt_says_where_it_stands(databases: Databases, folder: Path) -> None:
    migrations = begun(databases, folder)
    revise(migrations, "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt) as caught:
        migrations.migrate()
    assert "'default' is at '0001'" in caught.value.__notes__[0]


@pytest.mark.backends("sqlite-file")
def test_what_cannot_be_done_somewhere_is_begun_nowhere(databases: Databases, folder: Path) -> None:
    migrations = begun(databases, folder)
    migrations.migrate("base", using="other")
    with pytest.raises(MigrationError, match="'other' is at 'base': Relative revision"):
        migrations.migrate("-1")
    assert migrations.show()[0].applied == {"default": True, "other": False}
    for wrong in ("", ":0001", "0001:"):
        with pytest.raises(MigrationError, match="no revision ''"):
            migrations.sql(wrong)
    with pytest.raises(MigrationError, match="no revision ''"):
        migrations.migrate("")
