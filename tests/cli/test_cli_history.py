"""The commands reach the migrations of the project, set up, and refuse an alias before anything is done."""

from typing import Any

import pytest

from microorm.errors import MigrationError

UNKNOWN = "microorm: no database named 'archiv'; configured: 'archive', 'default'; nearest: 'archive'\n"


def test_the_migrations_are_those_of_the_project(invoke: Any, migrations: Any) -> None:
    migrations.answer = []
    assert invoke("show").exit_code == 0
    assert migrations.calls == [("made", "migrations", ("default", "archive")), ("show",)]


@pytest.mark.parametrize("command", ["migrate", "sql"])
def test_a_wrong_alias_is_told_before_anything_is_done(invoke: Any, migrations: Any, command: str) -> None:
    done = invoke(command, "--alias", "archiv")
    assert (done.stdout, done.stderr, done.exit_code) == ("", UNKNOWN, 1)
    assert migrations.calls == ()


@pytest.mark.parametrize("command", ["migrate", "show", "sql", "check", "merge"])
def test_what_the_migrations_refuse_is_told(invoke: Any, migrations: Any, command: str) -> None:
    migrations.answer = MigrationError("two heads: 'a', 'b'")
    done = invoke(command)
    assert (done.stdout, done.stderr, done.exit_code) == ("", "microorm: two heads: 'a', 'b'\n", 1)
