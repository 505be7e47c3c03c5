"""A folder of migrations begins with two files and an empty folder, and is not written over another."""

from pathlib import Path

import pytest

from microorm import Databases, Registry
from microorm.errors import MigrationError
from microorm.migrations import Migrations, write_environment


def test_what_is_written(tmp_path: Path) -> None:
    written = write_environment(tmp_path / "db" / "migrations")
    assert [path.name for path in written] == ["env.py", "script.py.mako"]
    assert {path.name for path in (tmp_path / "db" / "migrations").iterdir()} == {
        "env.py",
        "script.py.mako",
        "versions",
    }
    compile(written[0].read_text(), "env.py", "exec")


@pytest.mark.parametrize("name", ["env.py", "script.py.mako", "versions"])
def test_nothing_is_written_where_something_is_there(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(MigrationError, match=f"{name}' is there already"):
        write_environment(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "message", ['rename "title"', "back\\slash \\n", 'three """ quotes', "two\nlines", "it's"]
)
def test_any_message_makes_a_revision_that_can_be_read(tmp_path: Path, message: str) -> None:
    write_environment(tmp_path)
    migrations = Migrations(tmp_path, Registry(Databases("sqlite://")))
    migrations.make(message, empty=True)
    (revision,) = migrations.show()
    assert revision.message == message
