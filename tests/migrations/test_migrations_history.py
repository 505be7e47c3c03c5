"""The revisions in a folder are read in order, and an error names the file."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from microorm import Databases, Registry
from microorm.errors import MigrationError
from microorm.migrations import Migrations
from microorm.migrations.history import name_revisions


@pytest.fixture
def migrations(folder: Path, sqlite_url: str) -> Iterator[Migrations]:
    with Databases(sqlite_url) as databases:
        yield Migrations(folder, Registry(databases))


@pytest.fixture
def revise(migrations: Migrations) -> Callable[[str], Path]:
    """Writes an empty revision."""

    def revise(message: str) -> Path:
        made = migrations.make(message, empty=True)
        assert made is not None
        return made

    return revise


def copy(path: Path, revision: str, name: str) -> None:
    """Write a copy of the revision in *path*, with another identifier."""
    old = f"revision = '{path.name[:4]}'"
    path.with_name(name).write_text(path.read_text().replace(old, f"revision = '{revision}'", 1))


def test_identifiers_are_numbers_that_count(migrations: Migrations, revise: Callable[[str], Path]) -> None:
    names = [revise(message).name for message in ("first", "second thoughts", "third")]
    assert names == ["0001_first.py", "0002_second_thoughts.py", "0003_third.py"]
    assert [each.down for each in migrations.show()] == [(), ("0001",), ("0002",)]


def test_two_heads_are_refused_until_they_are_joined(
    migrations: Migrations, revise: Callable[[str], Path]
) -> None:
    revise("first")
    copy(revise("second"), "0003", "0003_other.py")
    for refused in (migrations.migrate, migrations.plan, lambda: migrations.make("x")):
        with pytest.raises(
            MigrationError, match="the history has 2 heads, '0002' and '0003', which no revision joins"
        ):
            refused()
    assert migrations.merge("both").name == "0004_both.py"
    migrations.migrate()
    assert migrations.check() == []
    with pytest.raises(MigrationError, match="one head, '0004'; nothing to join"):
        migrations.merge("again")


def test_two_files_of_one_revision_are_named_with_the_remedy(
    migrations: Migrations, revise: Callable[[str], Path]
) -> None:
    revise("first")
    pages = revise("pages")
    copy(pages, "0002", "0002_prices.py")
    message = "the revision '0002' is in two files, 0002_pages.py and 0002_prices.py; .*microorm merge"
    for refused in (migrations.migrate, migrations.show, lambda: migrations.merge("both")):
        with pytest.raises(MigrationError, match=message):
            refused()
    pages.with_name("0002_prices.py").unlink()
    copy(pages, "0003", "0003_prices.py")  # the remedy
    assert migrations.merge("both").name == "0004_both.py"
    migrations.migrate()
    assert migrations.check() == []


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("def upgrade(:\n", r"0001_first\.py:\d+ cannot be read: SyntaxError"),
        ("raise KeyError('shelf')\n", r"0001_first\.py:\d+ cannot be read: KeyError: 'shelf'"),
        ("import nothing_of_this_name\n", r"0001_first\.py:\d+ cannot be read: ModuleNotFoundError"),
    ],
)
def test_an_error_of_a_revision_names_file_and_line(
    migrations: Migrations, revise: Callable[[str], Path], broken: str, message: str
) -> None:
    first = revise("first")
    first.write_text(first.read_text() + broken)
    with pytest.raises(MigrationError, match=message):
        migrations.migrate()


@pytest.mark.parametrize("down", ["'0009'", "('0001', '0009')", "'0002'", "5", "['0001', None]"])
def test_a_broken_parent_is_one_line_that_names_the_file(
    migrations: Migrations, revise: Callable[[str], Path], down: str
) -> None:
    revise("first")
    second = revise("second")
    second.write_text(second.read_text().replace("down_revision = '0001'", f"down_revision = {down}"))
    for refused in (migrations.migrate, migrations.show, lambda: migrations.merge("both")):
        with pytest.raises(MigrationError) as caught:
            refused()
        message = str(caught.value)
        assert message.startswith("0002_second.py: down_revision = ")
        assert message.endswith("known: '0001', '0002'")


def test_a_database_at_a_revision_without_a_file_is_refused(
    migrations: Migrations, revise: Callable[[str], Path]
) -> None:
    revise("first")
    second = revise("second")
    migrations.migrate()
    second.unlink()
    for refused in (migrations.show, migrations.migrate, lambda: migrations.make("x")):
        with pytest.raises(MigrationError, match="'0002'"):
            refused()


def test_revisions_are_named_in_order() -> None:
    assert name_revisions(()) == "'base'"
    assert name_revisions(("b", "a")) == "'a' and 'b'"
