"""The revisions in a folder are read, and what is wrong with one is told by its file."""

from pathlib import Path

import pytest

from microorm import Databases, Registry
from microorm.errors import MigrationError
from microorm.migrations import Migrations


@pytest.fixture
def migrations(folder: Path, sqlite_url: str) -> Migrations:
    return Migrations(folder, Registry(Databases(sqlite_url)))


def copy_of(path: Path, revision: str, name: str) -> Path:
    """A second revision beside the one in *path*."""
    other = path.with_name(name)
    old = f"revision = '{path.name[:4]}'"
    other.write_text(path.read_text().replace(old, f"revision = '{revision}'", 1))
    return other


def test_numbers_go_on(migrations: Migrations) -> None:
    made = [migrations.make(message, empty=True) for message in ("first", "second thoughts", "third")]
    assert [path.name for path in made if path] == [
        "0001_first.py",
        "0002_second_thoughts.py",
        "0003_third.py",
    ]
    assert [each.down for each in migrations.show()] == [(), ("0001",), ("0002",)]


def test_two_heads_are_told_and_joined(migrations: Migrations) -> None:
    migrations.make("first", empty=True)
    second = migrations.make("second", empty=True)
    assert second is not None
    copy_of(second, "0003", "0003_other.py")
    for refused in (migrations.migrate, migrations.plan, lambda: migrations.make("x")):
        with pytest.raises(
            MigrationError, match="the history has 2 heads, '0002' and '0003', which no revision joins"
        ):
            refused()
    joined = migrations.merge("both")
    assert joined.name == "0004_both.py"
    migrations.migrate()
    assert migrations.check() == []
    with pytest.raises(MigrationError, match="one head, '0004', and nothing to join"):
        migrations.merge("again")


def test_two_files_of_one_revision_are_told(migrations: Migrations) -> None:
    first = migrations.make("first", empty=True)
    assert first is not None
    copy_of(first, "0001", "0001_other.py")
    with pytest.raises(MigrationError, match="Revision 0001 is present more than once"):
        migrations.migrate()


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("def upgrade(:\n", r"0001_first\.py:\d+ cannot be read: SyntaxError"),
        ("raise KeyError('shelf')\n", r"0001_first\.py:\d+ cannot be read: KeyError: 'shelf'"),
        ("import nothing_of_this_name\n", r"0001_first\.py:\d+ cannot be read: ModuleNotFoundError"),
    ],
)
def test_a_broken_revision_is_told_by_file_and_line(migrations: Migrations, broken: str, told: str) -> None:
    first = migrations.make("first", empty=True)
    assert first is not None
    first.write_text(first.read_text() + broken)
    with pytest.raises(MigrationError, match=told):
        migrations.migrate()


def test_a_revision_that_follows_none_that_is_there_is_told(migrations: Migrations) -> None:
    first = migrations.make("first", empty=True)
    assert first is not None
    first.write_text(first.read_text().replace("down_revision = None", "down_revision = '0000'"))
    with pytest.raises(MigrationError, match="0000"):
        migrations.migrate()


def test_a_database_that_is_at_a_revision_of_nobodys_is_told(migrations: Migrations) -> None:
    first = migrations.make("first", empty=True)
    second = migrations.make("second", empty=True)
    assert first is not None
    assert second is not None
    migrations.migrate()
    second.unlink()
    with pytest.raises(MigrationError, match="'0002'"):
        migrations.show()
    with pytest.raises(MigrationError, match="'0002'"):
        migrations.migrate()
