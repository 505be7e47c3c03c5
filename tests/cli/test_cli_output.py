"""Tables are lines with tabs in a pipe and drawn on a terminal; an error is one line that names its place."""

import linecache
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from microorm import ConfigurationError, ModelError
from microorm.cli.output import display_path, format_error, print_table
from microorm.errors import MigrationError
from microorm.project import Project, read_project

ROWS = [("a", "first\tline\nand more"), ("[bold]b[/]", ":smile:")]


def test_in_a_pipe_a_row_is_a_line(capsys, monkeypatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    print_table(("one", "two"), ROWS, {"a": "red"})
    assert capsys.readouterr().out == "one\ttwo\na\tfirst line and more\n[bold]b[/]\t:smile:\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_name_cannot_steer_the_terminal(capsys, monkeypatch, terminal: bool) -> None:
    """A file has a name of any bytes; those that are no text are surrogates, which cannot be printed."""
    monkeypatch.setenv("FORCE_COLOR", "1" if terminal else "")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    print_table(("one",), [("\x1b[2Ja\udcff\u202e",)])
    assert r"\x1b[2Ja\udcff\u202e" in capsys.readouterr().out


@pytest.mark.parametrize("no_color", [False, True])
def test_on_a_terminal_a_table_is_drawn(capsys, monkeypatch, no_color: bool) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    else:
        monkeypatch.delenv("NO_COLOR", raising=False)
    print_table(("one", "two"), ROWS, {"a": "red"})
    drawn = capsys.readouterr().out
    assert "\t" not in drawn
    assert "[bold]b[/]" in drawn
    assert ":smile:" in drawn
    assert ("\x1b[31ma" in drawn) is not no_color


def test_on_a_terminal_a_column_without_a_value_is_left_out(capsys, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    print_table(("one", "two", "three"), [("a", "-", "b"), ("c", "-", "-")])
    drawn = capsys.readouterr().out
    assert "one" in drawn
    assert "two" not in drawn
    assert "three" in drawn


def test_where_a_table_is_too_wide_no_word_is_broken(capsys, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    rows = [("shop.signals.refuse_debts", "shop.Customer", "-"), ("shop.signals.note", "-", "-")]
    print_table(("receiver", "sender", "options"), rows)
    assert capsys.readouterr().out == (
        "receiver  shop.signals.refuse_debts\nsender    shop.Customer\n\nreceiver  shop.signals.note\n"
    )
    print_table(("revision", "message"), [("0001", "the books have prices and the authors have names")])
    assert "  the books have prices and  " in capsys.readouterr().out  # wrapped between words


def test_a_path_is_relative_to_the_working_directory(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert display_path(tmp_path / "a" / "b.py") == "a/b.py"
    assert display_path(Path("/elsewhere/b.py")) == "/elsewhere/b.py"


# Errors.


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "pyproject.toml").write_text("[tool.microorm]\ndatabases = { default = 'sqlite://' }\n")
    return read_project(tmp_path)


def raised(project: Project, source: str, file: str = "shop/models.py") -> BaseException:
    """The error that *source* raises as a file of the project."""
    path = project.folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    linecache.checkcache()
    with pytest.raises(Exception) as caught:
        exec(compile(source, str(path), "exec"), {})
    return caught.value


def test_the_notes_of_an_error_are_in_its_line() -> None:
    error = OperationalError("SELECT", {}, Exception("no such table: book"))
    error.add_note("create\nit")
    assert format_error(error, None) == "OperationalError: no such table: book; create it"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "\nimport json\n\njson.loads('[')\n",
            "4: JSONDecodeError: Expecting value: line 1 column 2 (char 1)",
        ),
        ("raise ValueError('a\\nb')", "1: ValueError: a b"),
        ("raise ValueError", "1: ValueError"),
        ("from microorm import ModelError\nraise ModelError('a field')", "2: ModelError: a field"),
        ("a = 1\nb = = 2\n", "2: SyntaxError: invalid syntax"),
    ],
)
def test_a_module_that_raises_is_named_with_its_line(project: Project, source: str, message: str) -> None:
    error = raised(project, source)
    file = f"{project.folder}/shop/models.py"
    assert format_error(error, project) == f"shop.models, {file}:{message}"
    if isinstance(error, SyntaxError):
        assert format_error(error, None) == f"{file}:{message}"


def test_a_package_is_named_as_it_is_imported(project: Project) -> None:
    error = raised(project, "1 / 0", "shop/__init__.py")
    assert format_error(error, project).startswith(f"shop, {project.folder}/shop/__init__.py:1: ZeroDivision")


def test_errors_of_configuration_and_migrations_have_no_place(project: Project) -> None:
    error = raised(project, "from microorm import ConfigurationError\nraise ConfigurationError('wrong')")
    assert format_error(error, project) == "wrong"
    assert format_error(MigrationError("one\ntwo"), project) == "one\ntwo"
    assert format_error(ConfigurationError("wrong"), None) == "wrong"
    assert format_error(ModelError("a field"), None) == "a field"


def test_env_py_is_named_only_if_it_raises_itself(project: Project) -> None:
    error = raised(project, "import json\njson.loads('')", "migrations/env.py")
    assert "env.py" not in format_error(error, project)
    error = raised(project, "1 / 0", "migrations/env.py")
    place = f"migrations.env, {project.folder}/migrations/env.py:1"
    assert format_error(error, project) == f"{place}: ZeroDivisionError: division by zero"


def test_an_error_of_a_database_comes_without_the_statement(project: Project) -> None:
    engine = create_engine("sqlite://")
    with engine.connect() as connection, pytest.raises(OperationalError) as caught:
        connection.execute(text("SELECT geheim FROM nowhere"))
    engine.dispose()
    assert format_error(caught.value, project) == "OperationalError: no such table: nowhere"


def test_code_of_an_environment_inside_the_folder_is_not_the_projects(
    project: Project, monkeypatch: Any
) -> None:
    error = raised(project, "1 / 0", "venv/lib/site-packages/x.py")
    assert "x.py:1" in format_error(error, None), "unexpected, so its last line is named"
    monkeypatch.setattr(sys, "prefix", str(project.folder / "env"))
    for file in ("venv/lib/site-packages/x.py", "env/lib/x.py"):
        assert format_error(raised(project, "1 / 0", file), project).startswith(
            f"{project.folder}/{file}:1: "
        )


def test_an_error_without_a_traceback_is_its_class_and_message() -> None:
    assert format_error(KeyError("a"), None) == "KeyError: 'a'"
    assert format_error(OSError(13, "Permission denied", "x"), None) == (
        "PermissionError: [Errno 13] Permission denied: 'x'"
    )
