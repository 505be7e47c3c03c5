"""Projects to run commands on: in this process with databases of their own, or as whole programs."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from microorm import Databases, Registry
from microorm.apps import Apps
from microorm.cli import main
from microorm.cli.invocation import Invocation
from microorm.migrations import Difference, Revision, Step
from tests.programs import Program

SECTION = "[tool.microorm]\ndatabases = { default = 'sqlite:///shop.db', archive = 'sqlite:///archive.db' }\n"
MODELS = """
from microorm import Field, ForeignKey, Model, foreign_key


class Author(Model):
    name: Field[str]


class Book(Model):
    title: Field[str]
    author: ForeignKey[Author] = foreign_key(on_delete="cascade")
"""

Invoke = Callable[..., Result]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """A project of one application and two databases."""
    program = Program(tmp_path)
    program.write({"pyproject.toml": f"{SECTION}apps = ['shop']\n", "shop/models.py": MODELS})
    return program


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Invoke]:
    """Runs a command in this process, on a project of two databases without models."""
    (tmp_path / "pyproject.toml").write_text(SECTION)
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    path = list(sys.path)
    registry = Registry(Databases())

    def invoke(*arguments: str, **environment: str) -> Result:
        invocation = Invocation(apps=Apps(registry))
        return CliRunner().invoke(main, arguments, obj=invocation, env=environment, catch_exceptions=False)

    yield invoke
    sys.path[:] = path
    assert registry.databases.aliases == (), "a command left its databases configured"


class FakeMigrations:
    """Migrations that remember what they were asked, and answer what a test wants."""

    calls: Sequence[Any] = ()
    answer: Any = None

    def __init__(self, folder: Path, registry: Any) -> None:
        self.made_of = (folder, registry)
        type(self).calls = [*self.calls, ("made", folder.name, registry.databases.aliases)]

    def _call(self, *call: Any) -> Any:
        type(self).calls = [*self.calls, call]
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def make(self, message: str, *, renames: Sequence[str] = (), empty: bool = False) -> Path | None:
        return self._call("make", message, tuple(renames), empty)

    def plan(self, revision: str = "head", *, alias: str | None = None) -> list[Step]:
        return self._call("plan", revision, alias)

    def migrate(
        self, revision: str = "head", *, alias: str | None = None, fake: bool = False, progress: Any = None
    ) -> list[Step]:
        steps = self._call("migrate", revision, alias, fake)
        for step in steps:
            progress(step)
        return steps

    def sql(self, revision: str = "head", *, alias: str | None = None) -> str:
        return self._call("sql", revision, alias)

    def show(self) -> list[Revision]:
        return self._call("show")

    def check(self) -> list[Difference]:
        return self._call("check")

    def merge(self, message: str) -> Path:
        return self._call("merge", message)


@pytest.fixture
def migrations(monkeypatch: pytest.MonkeyPatch) -> type[FakeMigrations]:
    """Takes the place of the migrations: set its `answer`, and look at its `calls`."""

    class Fake(FakeMigrations):
        pass

    monkeypatch.setattr("microorm.cli.history.Migrations", Fake)
    return Fake
