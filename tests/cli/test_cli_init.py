"""`microorm init` writes the files of migrations and the sections of pyproject.toml, and keeps existing ones."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from microorm.cli.init import find_apps
from microorm.project import read_project

ALEMBIC = {"script_location": "%(here)s/migrations", "prepend_sys_path": ["%(here)s"]}
MICROORM = {"apps": ["shop"], "databases": {"default": "sqlite:///shop.db"}}


@pytest.fixture
def file(invoke: Any, tmp_path: Path) -> Path:
    """The pyproject.toml, not there yet, of a folder with a package of models."""
    (tmp_path / "pyproject.toml").unlink()
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "models.py").touch()
    return tmp_path / "pyproject.toml"


def tool(file: Path) -> Any:
    return tomllib.loads(file.read_text())["tool"]


def test_a_new_project_gets_all_of_it(invoke: Any, file: Path) -> None:
    done = invoke("init")
    assert (done.stderr, done.exit_code) == ("", 0)
    assert done.stdout == (
        "wrote migrations/env.py\n"
        "wrote migrations/script.py.mako\n"
        "added [tool.microorm] to pyproject.toml\n"
        "added [tool.alembic] to pyproject.toml\n"
        "applications: shop\n"
        "next: microorm makemigrations -m first\n"
    )
    assert file.read_text() == (
        "[tool.microorm]\n"
        'apps = ["shop"]\n'
        'databases = { default = "sqlite:///shop.db" }\n'
        "\n"
        "[tool.alembic]\n"
        'script_location = "%(here)s/migrations"\n'
        'prepend_sys_path = ["%(here)s"]\n'
    )
    assert {path.name for path in (file.parent / "migrations").iterdir()} == {
        "env.py",
        "script.py.mako",
        "versions",
    }


def test_a_second_time_is_an_error_and_changes_nothing(invoke: Any, file: Path) -> None:
    invoke("init")
    before = file.read_bytes()
    done = invoke("init")
    assert (done.stdout, done.exit_code) == ("", 1)
    assert done.stderr == f"microorm: '{file.parent}/migrations/env.py' already exists\n"
    assert file.read_bytes() == before


def test_a_file_in_the_way_leaves_pyproject_alone(invoke: Any, file: Path) -> None:
    (file.parent / "migrations").mkdir()
    (file.parent / "migrations" / "env.py").write_text("mine")
    assert invoke("init").exit_code == 1
    assert not file.exists()
    assert (file.parent / "migrations" / "env.py").read_text() == "mine"


@pytest.mark.parametrize(
    "before",
    [
        "",
        "[project]\nname = 'x'\n",
        "[project]\nname = 'x'  # without an end of line",
        "[project]\r\nname = 'x'\r\n",
        "# only a comment\n\n\n",
        "[project]\nname = 'x'\n\n[tool.other]\nx = 1\n",
    ],
)
def test_existing_text_stays_byte_for_byte(invoke: Any, file: Path, before: str) -> None:
    file.write_bytes(before.encode())
    assert invoke("init").exit_code == 0
    after = file.read_bytes().decode()
    assert after.startswith(before)
    assert after.count("\r\n") == (after.count("\n") if "\r\n" in before else 0)
    assert before == "" or "\n\n[tool.microorm]\n" in after.replace("\r\n", "\n")
    assert tool(file) == tomllib.loads(before).get("tool", {}) | {"microorm": MICROORM, "alembic": ALEMBIC}
    assert read_project(file).databases.keys() == {"default"}


@pytest.mark.parametrize(
    "before",
    [
        "tool = { other = 1 }\n",
        "tool.other.x = 1\n[project]\nname = 'x'\n",
        "[tool.other]\nx = 1\n\n[project]\nname = 'x'\n",
        "[tool.other]\nx = 1\n\n[project]\nname = 'x'\n\n[tool.more]\ny = 2\n",
        "[[tool.other]]\nx = 1\n[[tool.other]]\nx = 2\n",
    ],
)
def test_existing_tables_keep_their_values_however_they_are_written(
    invoke: Any, file: Path, before: str
) -> None:
    file.write_text(before)
    assert invoke("init").exit_code == 0
    expected = tomllib.loads(before)
    expected["tool"] |= {"microorm": MICROORM, "alembic": ALEMBIC}
    assert tomllib.loads(file.read_text()) == expected


def test_an_existing_section_is_kept(invoke: Any, tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    before = file.read_text()
    done = invoke("init")
    assert done.stdout.splitlines()[2:] == [
        "kept [tool.microorm] in pyproject.toml",
        "added [tool.alembic] to pyproject.toml",
        "next: microorm makemigrations -m first",
    ]
    assert file.read_text().startswith(before)
    assert file.read_text().count("[tool.microorm]") == 1


def test_sections_given_by_dotted_keys_are_kept(invoke: Any, file: Path) -> None:
    before = "[tool]\nmicroorm.databases = { a = 'sqlite://' }\nalembic.script_location = 'x'\n\n\n"
    file.write_text(before)
    lines = invoke("init").stdout.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["wrote", "wrote", "kept", "kept", "next:"]
    assert file.read_text() == before


def test_the_folder_may_have_another_name(invoke: Any, file: Path, monkeypatch: Any) -> None:
    """Also with the signs that have a meaning to alembic and to microorm, and from another working directory."""
    (file.parent / "elsewhere").mkdir()
    monkeypatch.chdir(file.parent / "elsewhere")
    assert invoke("--project", str(file.parent), "init", 'db/a%b$ "c"').exit_code == 0
    assert tool(file)["alembic"]["script_location"] == '%(here)s/db/a%%b$ "c"'
    assert read_project(file).migrations == file.parent / "db" / 'a%b$ "c"'
    assert (file.parent / "db" / 'a%b$ "c"' / "env.py").exists()


def test_an_absolute_folder_is_written_relative_to_pyproject(invoke: Any, file: Path) -> None:
    assert invoke("init", str(file.parent / "moves")).exit_code == 0
    assert tool(file)["alembic"]["script_location"] == "%(here)s/moves"
    assert tool(file)["microorm"]["migrations"] == "moves"


def test_a_configured_folder_is_used_and_no_other(invoke: Any, file: Path) -> None:
    file.write_text("[tool.microorm]\ndatabases = { a = 'sqlite://' }\nmigrations = 'db/moves'\n")
    done = invoke("init", "others")
    assert done.stderr == f"microorm: {file}: tool.microorm.migrations: is 'db/moves', not 'others'\n"
    assert not (file.parent / "others").exists()
    assert invoke("init", "db/moves").exit_code == 0
    assert tool(file)["alembic"]["script_location"] == "%(here)s/db/moves"


@pytest.mark.parametrize(
    ("before", "message"),
    [("[tool\n", "not valid TOML: "), ("tool = 3\n", "tool: must be a table, not a number")],
)
def test_a_broken_pyproject_is_one_line_and_kept(invoke: Any, file: Path, before: str, message: str) -> None:
    file.write_text(before)
    done = invoke("init")
    assert (done.stdout, done.exit_code) == ("", 1)
    assert done.stderr.startswith(f"microorm: {file}: {message}")
    assert done.stderr.count("\n") == 1
    assert file.read_text() == before
    assert not (file.parent / "migrations").exists()


def test_a_missing_folder_is_an_error(invoke: Any, tmp_path: Path) -> None:
    done = invoke("--project", "nowhere", "init")
    assert (done.stderr, done.exit_code) == (f"microorm: no such folder: '{tmp_path}/nowhere'\n", 1)


def test_applications_are_packages_with_models(invoke: Any, file: Path) -> None:
    folder = file.parent
    for name in ("b", "a", "tests", "no-name"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()
        (folder / name / "models.py").touch()
    (folder / "c" / "models").mkdir(parents=True)
    (folder / "c" / "__init__.py").touch()
    (folder / "c" / "models" / "__init__.py").touch()
    (folder / "plain").mkdir()
    (folder / "plain" / "__init__.py").touch()
    (folder / "loose").mkdir()
    (folder / "loose" / "models.py").touch()
    assert find_apps(folder) == ["a", "b", "c", "shop"]
    assert "applications: a, b, c, shop" in invoke("init").stdout
    assert tool(file)["microorm"]["databases"] == {"default": "sqlite:///a.db"}


def test_no_application_is_not_an_error(invoke: Any, file: Path) -> None:
    (file.parent / "shop" / "models.py").unlink()
    assert "applications: none found; add them to 'apps' in [tool.microorm]\n" in invoke("init").stdout
    assert tool(file)["microorm"] == {"apps": [], "databases": {"default": "sqlite:///data.db"}}
