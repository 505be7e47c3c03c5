"""The program: its commands, its help, and how an error ends."""

import os
import signal
import subprocess
import sys
from importlib import import_module
from typing import Any

import click
import pytest
from click.testing import CliRunner

import microorm
from microorm.cli import main
from microorm.cli.program import COMMANDS
from microorm.errors import MigrationError

MODULES = {name: import_module(f"microorm.cli.{name}") for name in COMMANDS}


def test_the_sentences_are_those_of_the_commands() -> None:
    assert {name: module.command.help.partition("\n")[0] for name, module in MODULES.items()} == COMMANDS
    assert main.list_commands(click.Context(main)) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_teaches(name: str, invoke: Any) -> None:
    """A sentence, examples, exit statuses, and a line for each option."""
    done = invoke(name, "--help")
    assert done.exit_code == 0
    assert COMMANDS[name] in " ".join(done.output.split())
    assert f"  Examples:\n    microorm {name}" in done.output
    assert "  Exit status:\n    0  " in done.output
    options = [each for each in MODULES[name].command.params if isinstance(each, click.Option)]
    assert [each.name for each in options if not each.help] == []


def test_help_needs_no_project_and_no_command(tmp_path, monkeypatch) -> None:
    """Nothing of what the commands want is loaded: not even a broken one would be in the way."""
    monkeypatch.chdir(tmp_path)
    code = (
        "import sys\n"
        "from microorm.cli import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "finally:\n"
        "    print({'alembic', 'rich', 'microorm.migrations', 'microorm.cli.init'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("imported.\nset()\n")
    assert [name for name in COMMANDS if f"  {name} " not in done.stdout] == []


def test_without_a_command_there_is_the_help(invoke: Any) -> None:
    assert invoke().output == invoke("--help").output
    assert invoke("--version").output == f"microorm {microorm.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["migrat"], "no command named 'migrat'; nearest: 'migrate'; 'microorm --help' tells more"),
        (["nonsense"], "no command named 'nonsense'; 'microorm --help' tells more"),
        (["--nonsense"], "no such option"),
        (["show", "--nonsense"], "no such option"),
        (["show", "more"], "got unexpected extra argument "),
        (["merge", "-m"], "option '-m' requires an argument"),
        (
            ["makemigrations"],
            "missing option '-m' / '--message'; 'microorm makemigrations --help' tells more",
        ),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(invoke: Any, arguments: list[str], message: str) -> None:
    done = invoke(*arguments)
    assert (done.stdout, done.exit_code) == ("", 2)
    assert done.stderr.startswith(f"microorm: {message}")
    assert done.stderr.count("\n") == 1
    assert not done.stderr.endswith(".\n")


def test_an_error_is_one_line_unless_it_is_asked_for(invoke: Any, migrations: Any) -> None:
    migrations.answer = MigrationError("two heads: 'a', 'b'\ndefault: at 'a'")
    done = invoke("migrate")
    assert (done.stdout, done.exit_code) == ("", 1)
    assert done.stderr == "microorm: two heads: 'a', 'b'\ndefault: at 'a'\n"
    done = invoke("--traceback", "migrate")
    assert done.exit_code == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert done.stderr.endswith("MigrationError: two heads: 'a', 'b'\ndefault: at 'a'\n")


def test_without_a_configuration_it_says_so(invoke: Any, tmp_path) -> None:
    (tmp_path / "pyproject.toml").unlink()
    for name in COMMANDS.keys() - {"init", "makemigrations"}:
        done = invoke(name)
        assert done.exit_code == 1
        text = f"microorm: no pyproject.toml with [tool.microorm] in {str(tmp_path)!r} or above it\n"
        assert (done.stdout, done.stderr) == ("", text)
    assert list(tmp_path.iterdir()) == []


def test_the_project_may_be_elsewhere(invoke: Any, migrations: Any, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "pyproject.toml").write_text("[tool.microorm]\ndatabases = { far = 'sqlite://' }\n")
    migrations.answer = []
    for path in ("elsewhere", str(folder / "pyproject.toml")):
        migrations.calls = []
        assert invoke("--project", path, "show").exit_code == 0
        assert migrations.calls[0] == ("made", "migrations", ("far",))
    done = invoke("--project", "nowhere", "show")
    assert done.stderr == f"microorm: there is no folder or file {str(tmp_path / 'nowhere')!r}\n"


def test_it_is_a_command_of_another_group(tmp_path, monkeypatch) -> None:
    @click.group()
    def outer() -> None: ...

    outer.add_command(main, "db")
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(outer, ["db", "--version"]).exit_code == 0
    done = CliRunner().invoke(outer, ["db", "show"])
    assert isinstance(done.exception, microorm.ConfigurationError)
    assert main(["--version"], standalone_mode=False) == 0


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
def test_an_interrupt_ends_it_with_130(program: Any) -> None:
    code = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
    out, err, status = program.run("shell", "-c", code)
    assert (out, err.strip(), status) == ("", "", 128 + signal.SIGINT)


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error(program: Any) -> None:
    code = "import sys, os; os.close(1); os.open(os.devnull, os.O_RDONLY)"
    assert program.run("shell", "-c", code)[2] in (0, 1)
