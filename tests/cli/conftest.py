"""Projects to run commands on: in this process, with a registry of their own for each run, or as whole programs."""

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from microorm import Databases, Model, Registry
from microorm.apps import Apps
from microorm.cli import main
from microorm.cli.program import Invocation
from microorm.migrations import Difference, Revision, Step
from tests.programs import Program

SECTION = "[tool.microorm]\ndatabases = { default = 'sqlite:///shop.db', archive = 'sqlite:///archive.db' }\n"
SHOP = f"{SECTION}apps = ['shop']\n"
# `clibase` is not a module of the project: `invoke` makes it, so that the models get a registry of their own.
MODELS = """from clibase import Base
from microorm import Field, ForeignKey, foreign_key


class Author(Base):
    name: Field[str]


class Book(Base):
    title: Field[str]
    author: ForeignKey[Author] = foreign_key(on_delete="cascade")
"""

Invoke = Callable[..., Result]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """A project of two databases without models, in the working directory."""
    monkeypatch.chdir(tmp_path)
    project = Program(tmp_path)
    project.write({"pyproject.toml": SECTION})
    return project


@pytest.fixture
def shop(project: Program) -> Program:
    """The project with an application of two models, for commands in this process."""
    project.write({"pyproject.toml": SHOP, "shop/models.py": MODELS})
    return project


@pytest.fixture
def program(project: Program) -> Program:
    """The same, for whole programs."""
    models = MODELS.replace("from clibase import Base", "from microorm import Model as Base")
    project.write({"pyproject.toml": SHOP, "shop/models.py": models})
    return project


@pytest.fixture
def invoke(project: Program, monkeypatch: pytest.MonkeyPatch) -> Iterator[Invoke]:
    """Runs a command on the project as a new process would, but in this one, and forgets its modules, also after the test."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file may change twice in a second
    path, modules = list(sys.path), set(sys.modules)

    def forget() -> None:
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if name == "clibase" or str(project.folder) in _places_of(sys.modules[name]):
                del sys.modules[name]

    def invoke(*arguments: str, given: str | None = None, **environment: str) -> Result:
        registry = Registry(Databases())

        class Base(Model, registry=registry, abstract=True):
            pass

        sys.modules["clibase"] = ModuleType("clibase")
        vars(sys.modules["clibase"])["Base"] = Base
        importlib.invalidate_caches()
        try:
            done = CliRunner().invoke(
                main,
                arguments,
                input=given,
                obj=Invocation(apps=Apps(registry)),
                env=environment,
                catch_exceptions=False,
            )
        finally:
            forget()
        assert registry.databases.aliases == (), "the command left its databases configured"
        return done

    yield invoke
    forget()


def _places_of(module: ModuleType) -> str:
    """Return the file of *module*, or the folders of a package without one, as text."""
    return f"{getattr(module, '__file__', '')} {getattr(module, '__path__', '')}"


class FakeMigrations:
    """Migrations that remember what they were asked, and answer what a test wants."""

    calls: Sequence[Any] = ()
    answer: Any = None

    def __init__(self, folder: Path, registry: Any) -> None:
        type(self).calls = [*self.calls, ("made", folder.name, registry.databases.aliases)]

    def _call(self, *call: Any) -> Any:
        type(self).calls = [*self.calls, call]
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def make(self, message: str, *, renames: Sequence[str] = (), empty: bool = False) -> Path | None:
        return self._call("make", message, tuple(renames), empty)

    def plan(self, revision: str = "head", *, using: str | None = None) -> list[Step]:
        return self._call("plan", revision, using)

    def migrate(
        self, revision: str = "head", *, using: str | None = None, fake: bool = False, progress: Any = None
    ) -> list[Step]:
        steps = self._call("migrate", revision, using, fake)
        for step in steps:
            progress(step)
        return steps

    def sql(self, revision: str = "head", *, using: str | None = None) -> str:
        return self._call("sql", revision, using)

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

    monkeypatch.setattr("microorm.migrations.Migrations", Fake)
    return Fake
