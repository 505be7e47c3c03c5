"""One run: the project is read once, its databases are configured and closed."""

from pathlib import Path

import pytest

from microorm import Databases, Field, ForeignKey, Model, Registry, UnknownAlias, foreign_key
from microorm.apps import Apps
from microorm.cli.invocation import Invocation
from microorm.project import read_project


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "pyproject.toml"
    file.write_text("[tool.microorm]\ndatabases = { default = 'sqlite://' }\n")
    monkeypatch.syspath_prepend(tmp_path)
    return file


def test_the_project_is_looked_for_once(file: Path) -> None:
    invocation = Invocation()
    invocation.start = file
    assert invocation.known_project is None
    assert invocation.project == read_project(file)
    file.unlink()
    assert invocation.project is invocation.known_project


def test_a_project_that_is_passed_is_not_looked_for(file: Path, tmp_path: Path) -> None:
    project = read_project(file)
    invocation = Invocation(project)
    invocation.start = tmp_path / "nowhere"
    assert invocation.project is project
    invocation.check_alias("default")
    invocation.check_alias(None)
    with pytest.raises(
        UnknownAlias, match="^no database named 'defaul'; configured: 'default'; nearest: 'default'$"
    ):
        invocation.check_alias("defaul")


def test_what_was_configured_here_is_closed_here(file: Path) -> None:
    with Databases() as databases:
        apps = Apps(Registry(databases))
        invocation = Invocation(read_project(file), apps)
        invocation.close()
        invocation.set_up()
        assert apps.ready
        assert invocation.registry.databases is databases
        assert databases.aliases == ("default",)
        invocation.set_up()
        invocation.close()
        assert databases.aliases == ()


def test_what_was_configured_before_stays_open(file: Path) -> None:
    """A program that runs a command in its own process goes on with its databases."""
    with Databases() as databases:
        apps = Apps(Registry(databases))
        read_project(file).set_up(apps)
        invocation = Invocation(read_project(file), apps)
        invocation.set_up()
        invocation.close()
        assert databases.aliases == ("default",)


def test_models_that_wait_for_a_name_are_made(file: Path) -> None:
    with Databases() as databases:
        registry = Registry(databases)

        class Book(Model, registry=registry):
            author: ForeignKey["Writer"] = foreign_key(on_delete="cascade")

        class Writer(Model, registry=registry):
            name: Field[str]

        assert len(registry.models) < 2
        Invocation(read_project(file), Apps(registry)).set_up()
        assert {model.__name__ for model in registry.models.values()} == {"Book", "Writer"}
