"""`microorm inspect` writes models to stdout or to a new file, and changes nothing."""

import sqlite3
from pathlib import Path

import pytest

from tests.programs import Program

TABLES = "CREATE TABLE author (id INTEGER PRIMARY KEY, name TEXT NOT NULL); CREATE TABLE tag (id INTEGER PRIMARY KEY)"


@pytest.fixture
def tables(project: Program) -> None:
    with sqlite3.connect("archive.db") as connection:
        connection.executescript(TABLES)
    connection.close()


def test_it_writes_the_models_of_the_named_tables_to_stdout(invoke, tables):
    result = invoke("inspect", "--alias", "archive", "author")
    assert result.exit_code == 0
    assert "class Author(Model):\n    name: Field[str]\n" in result.stdout
    assert "Tag" not in result.stdout


def test_it_writes_a_new_file_and_does_not_replace_one(invoke, tables):
    result = invoke("inspect", "--alias", "archive", "--unmanaged", "--output", "models.py")
    assert result.stdout == "wrote models.py\n"
    text = Path("models.py").read_text()
    assert "class Tag(Model, managed=False):" in text
    compile(text, "models.py", "exec")
    again = invoke("inspect", "--alias", "archive", "--output", "models.py")
    assert (again.exit_code, again.stderr) == (
        1,
        "microorm: 'models.py' exists; remove it, or name another file\n",
    )
    assert Path("models.py").read_text() == text


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--alias", "archive", "autor"), "the database has no table or view 'autor'; nearest: 'author'"),
        (("--alias", "archiv"), "archiv"),
        ((), "'default' has no tables: there is no file 'shop.db'"),
    ],
)
def test_what_cannot_be_read_is_one_line_on_stderr(invoke, tables, arguments, problem):
    result = invoke("inspect", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert problem in result.stderr
    assert result.stderr.count("\n") == 1
    assert not Path("shop.db").exists()
