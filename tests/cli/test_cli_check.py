"""`microorm check`: a line and status 1 where models and databases differ."""

from typing import Any

from microorm.migrations import Difference


def test_differences_are_lines_and_status_1(invoke: Any, migrations: Any) -> None:
    migrations.answer = [
        Difference("default", "book: no column 'price'"),
        Difference("archive", "no table 'book'"),
    ]
    done = invoke("check")
    assert done.stdout == "default: book: no column 'price'\narchive: no table 'book'\n"
    assert (done.stderr, done.exit_code) == ("", 1)


def test_agreement_is_status_0(invoke: Any, migrations: Any) -> None:
    migrations.answer = []
    done = invoke("check")
    assert (done.stdout, done.exit_code) == ("models and databases agree\n", 0)
