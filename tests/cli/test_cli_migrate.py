"""`microorm migrate` tells of each step, as a plan or when it is done."""

from typing import Any

import pytest

from microorm.errors import MigrationError
from microorm.migrations import Step

STEPS = [
    Step("default", "3f00", "first", down=False, seconds=0.25),
    Step("archive", "3f2a", "second", down=True, seconds=1.5),
]


def test_each_step_is_a_line(invoke: Any, migrations: Any) -> None:
    migrations.answer = STEPS
    done = invoke("migrate", "--alias", "default")
    assert (done.stderr, done.exit_code) == ("", 0)
    assert done.stdout == "default: up 3f00 first (0.25 s)\narchive: down 3f2a second (1.50 s)\n"
    assert migrations.calls[-1] == ("migrate", "head", "default", False)


def test_steps_that_are_only_noted_say_so(invoke: Any, migrations: Any) -> None:
    migrations.answer = STEPS[:1]
    assert invoke("migrate", "3f00", "--fake").stdout == "default: up 3f00 first (0.25 s, noted only)\n"
    assert migrations.calls[-1] == ("migrate", "3f00", None, True)


def test_a_plan_takes_no_step(invoke: Any, migrations: Any) -> None:
    migrations.answer = STEPS
    done = invoke("migrate", "--plan")
    assert done.stdout == (
        "alias\tdirection\trevision\tmessage\ndefault\tup\t3f00\tfirst\narchive\tdown\t3f2a\tsecond\n"
    )
    assert [call[0] for call in migrations.calls] == ["made", "plan"]


@pytest.mark.parametrize("arguments", [[], ["--plan"]])
def test_nothing_to_do_is_said(invoke: Any, migrations: Any, arguments: list[str]) -> None:
    migrations.answer = []
    done = invoke("migrate", *arguments)
    assert (done.stdout, done.exit_code) == ("nothing to do\n", 0)


def test_at_a_terminal_the_steps_stay_and_the_bar_goes(invoke: Any, migrations: Any) -> None:
    migrations.answer = STEPS
    done = invoke("migrate", FORCE_COLOR="1", TERM="xterm", COLUMNS="70")
    assert done.exit_code == 0
    lines = [line.rpartition("\x1b[2K")[2].rstrip() for line in done.stdout.splitlines()]
    assert "default: up 3f00 first (0.25 s)" in lines
    assert "archive: down 3f2a second (1.50 s)" in lines
    assert "migrating" in done.stdout
    assert [call[0] for call in migrations.calls] == ["made", "plan", "migrate"]


def test_what_was_done_before_an_error_was_told(invoke: Any, migrations: Any, monkeypatch: Any) -> None:
    def migrate(self: Any, *args: Any, progress: Any, **kwargs: Any) -> Any:
        progress(STEPS[0])
        raise MigrationError("archive: at 3f00; 3f2a failed")

    monkeypatch.setattr(migrations, "migrate", migrate)
    done = invoke("migrate")
    assert done.stdout == "default: up 3f00 first (0.25 s)\n"
    assert (done.stderr, done.exit_code) == ("microorm: archive: at 3f00; 3f2a failed\n", 1)
