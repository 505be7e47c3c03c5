"""A shell completes what the project has, and nothing where it cannot be read."""

from typing import Any

import click
import pytest

from microorm.cli import main
from microorm.cli.completion import aliases, revisions

PARAMETER = click.Option(["--x"])


@pytest.fixture
def context(tmp_path) -> click.Context:
    (tmp_path / "pyproject.toml").write_text(
        "[tool.microorm]\ndatabases = { default = 'sqlite://', archive = 'sqlite://' }\n"
    )
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / "b.py").write_text('revision: str = "3f2a"\ndown_revision = "3f00"\n')
    (versions / "a.py").write_text("revision = '3f00'\ndown_revision = None\nraise RuntimeError\n")
    context = click.Context(main)
    context.params["start"] = tmp_path
    return context


def test_aliases_and_revisions_are_read_not_imported(context: click.Context) -> None:
    assert aliases(context, PARAMETER, "") == ["default", "archive"]
    assert aliases(context, PARAMETER, "a") == ["archive"]
    assert revisions(context, PARAMETER, "") == ["head", "base", "3f00", "3f2a"]
    assert revisions(context, PARAMETER, "3f2") == ["3f2a"]


def test_a_project_that_cannot_be_read_completes_nothing(context: click.Context, tmp_path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.microorm\n")
    assert aliases(context, PARAMETER, "") == []
    assert revisions(context, PARAMETER, "") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "word", "found"),
    [
        ("microorm mig", "1", ["migrate"]),
        ("microorm migrate --alias a", "3", ["archive"]),
        ("microorm signals --model shop.", "3", ["shop.Author", "shop.Book"]),
    ],
)
def test_the_shell_asks_the_program(program: Any, words: str, word: str, found: list[str]) -> None:
    program.write({"shop/__init__.py": "print('noise')\n"})
    out, err, _ = program.run(_MICROORM_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=word)
    assert (out.splitlines(), err) == ([f"plain,{each}" for each in found], "")
