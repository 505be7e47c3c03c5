"""Projects to run commands on: in this process with databases of their own, or as whole programs."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from microorm import Databases, Registry
from microorm.apps import Apps
from microorm.cli import main
from microorm.cli.invocation import Invocation
from microorm.migrations import Difference, Revision, Step

ROOT = Path(__file__).parent.parent.parent
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


@dataclass
class Program:
    """A project in *folder*, and the command line run on it as a whole program."""

    folder: Path

    def write(self, files: dict[str, str]) -> None:
        """Write files, each with the packages that it lies in."""
        for name, text in files.items():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.parent != self.folder:
                (file.parent / "__init__.py").touch()
            file.write_text(text)

    def run(self, *arguments: str, given: str = "", **environment: str) -> tuple[str, str, int]:
        """Run `microorm` with *arguments*: output, errors, exit status."""
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "microorm", *arguments],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": path} | environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout, done.stderr, done.returncode

    def files(self) -> dict[str, bytes]:
        """What is there, but for what Python leaves behind."""
        files = [
            file for file in self.folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts
        ]
        return {file.relative_to(self.folder).as_posix(): file.read_bytes() for file in files}


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
