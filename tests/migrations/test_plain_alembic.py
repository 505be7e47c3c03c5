"""alembic's own command works on a folder of migrations, for all databases."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forks import ForkedProgram
from tests.programs import Program

pytestmark = pytest.mark.slow

MODELS = """
from microorm import Field, Model, field


class Book(Model):
    title: Field[str] = field(max_length=40)
    {more}


class Event(Model):
    text: Field[str]
"""
ROUTERS = """
class Archive:
    def allow_migrate(self, alias, label, model=None, **hints):
        return (alias == "archive") == (label == "shop.Event")
"""
PYPROJECT = """
[tool.microorm]
apps = ["shop"]
databases = { default = "sqlite:///shop.db", archive = "sqlite:///archive.db" }
routers = ["shop.routers.Archive"]
"""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """A project of two databases with a router between them, as `microorm init` leaves it."""
    with ForkedProgram(tmp_path) as program:
        models = MODELS.format(more="")
        program.write({"shop/models.py": models, "shop/routers.py": ROUTERS, "pyproject.toml": PYPROJECT})
        program.run("init")
        yield program


def tables(program: Program) -> list[set[str]]:
    """The tables of each database, without the version table."""
    found = []
    for name in ("shop.db", "archive.db"):
        with sqlite3.connect(program.folder / name) as connection:
            rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        connection.close()
        found.append({name for (name,) in rows if not name.startswith(("sqlite_", "alembic_"))})
    return found


def test_its_commands_run_on_every_database(program: Program) -> None:
    def alembic(*arguments: str, status: int = 0) -> str:
        out, err, done = program.python("-m", "alembic", *arguments)
        assert done == status, f"{arguments}: {out}{err}"
        return out + err

    alembic("revision", "--autogenerate", "-m", "first", "--rev-id", "0001")
    alembic("upgrade", "head")
    assert tables(program) == [{"book"}, {"event"}]
    assert "No new upgrade operations detected" in alembic("check")
    before = program.files()
    alembic("revision", "--autogenerate", "-m", "nothing")
    assert program.files() == before
    assert alembic("current").count("0001 (head)") == 2
    assert "<base> -> 0001 (head), first" in alembic("history")
    script = alembic("upgrade", "head", "--sql")
    assert script.index("-- default (sqlite)") < script.index("CREATE TABLE book")
    assert script.index("CREATE TABLE book") < script.index("-- archive (sqlite)")
    assert script.index("-- archive (sqlite)") < script.index("CREATE TABLE event")
    assert script.count("CREATE TABLE book") == script.count("CREATE TABLE event") == 1

    program.write({"shop/models.py": MODELS.format(more="pages: Field[int] = field(default=0)")})
    changes = alembic("check", status=255)
    assert "New upgrade operations detected" in changes
    assert "('fill_column', 'book', 'pages', 0)" in changes
    alembic("downgrade", "base")
    assert tables(program) == [set(), set()]
    assert alembic("current") == ""
