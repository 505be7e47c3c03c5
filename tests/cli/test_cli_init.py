"""`microorm init` writes what is missing, once, and keeps what is there."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from microorm.errors import MigrationError


def write(folder: Path) -> list[Path]:
    """What the migrations do: refuse, or write."""
    if (folder / "env.py").exists():
        raise MigrationError(f"there is an environment in {folder} already")
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text("x")
    return [folder / "env.py"]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microorm.cli.init.write_environment", write)


@pytest.fixture
def empty(invoke: Any, tmp_path: Path) -> Path:
    """A folder of a package with models, without a pyproject.toml."""
    (tmp_path / "pyproject.toml").unlink()
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "models.py").touch()
    return tmp_path


def test_a_new_project_gets_all_of_it(invoke: Any, empty: Path) -> None:
    done = invoke("init")
    assert (done.stderr, done.exit_code) == ("", 0)
    assert done.stdout == (
        "wrote migrations/env.py\n"
        "wrote [tool.microorm], [tool.alembic] to pyproject.toml\n"
        "applications: shop\n"
        "next: microorm makemigrations -m first\n"
    )
    assert tomllib.loads((empty / "pyproject.toml").read_text())["tool"] == {
        "microorm": {"apps": ["shop"], "databases": {"default": "sqlite:///shop.db"}},
        "alembic": {"script_location": "%(here)s/migrations", "prepend_sys_path": ["%(here)s"]},
    }


def test_twice_changes_nothing(invoke: Any, empty: Path) -> None:
    invoke("init")
    before = (empty / "pyproject.toml").read_bytes()
    done = invoke("init")
    assert (done.stdout, done.exit_code) == ("", 1)
    assert done.stderr == f"microorm: there is an environment in {empty / 'migrations'} already\n"
    assert (empty / "pyproject.toml").read_bytes() == before


def test_files_in_the_way_leave_pyproject_alone(invoke: Any, empty: Path) -> None:
    (empty / "migrations").mkdir()
    (empty / "migrations" / "env.py").write_text("mine")
    assert invoke("init").exit_code == 1
    assert not (empty / "pyproject.toml").exists()
    assert (empty / "migrations" / "env.py").read_text() == "mine"


def test_a_section_that_is_there_is_left(invoke: Any, tmp_path: Path) -> None:
    before = (tmp_path / "pyproject.toml").read_bytes()
    done = invoke("init")
    assert done.stdout.splitlines()[1:3] == [
        "wrote [tool.alembic] to pyproject.toml",
        "left [tool.microorm] of pyproject.toml as it is",
    ]
    after = (tmp_path / "pyproject.toml").read_bytes()
    assert after.startswith(before)
    assert after.count(b"[tool.microorm]") == 1


def test_it_works_in_the_folder_that_it_is_told(invoke: Any, empty: Path, monkeypatch: Any) -> None:
    (empty / "elsewhere").mkdir()
    monkeypatch.chdir(empty / "elsewhere")
    assert invoke("--project", str(empty), "init", "db/moves").exit_code == 0
    tables = tomllib.loads((empty / "pyproject.toml").read_text())["tool"]
    assert tables["microorm"]["migrations"] == "db/moves"
    assert tables["alembic"]["script_location"] == "%(here)s/db/moves"
    assert (empty / "db" / "moves" / "env.py").exists()


def test_a_broken_pyproject_is_told_and_kept(invoke: Any, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool\n")
    done = invoke("init")
    assert done.exit_code == 1
    assert done.stderr.startswith(f"microorm: {tmp_path / 'pyproject.toml'}:1: this is not TOML: ")
    assert [path.name for path in tmp_path.iterdir()] == ["pyproject.toml"]
