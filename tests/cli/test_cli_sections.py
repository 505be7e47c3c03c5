"""What `init` appends, whatever the file looks like."""

import tomllib
from pathlib import Path

import pytest

from microorm.cli.sections import Plan, guessed_apps
from microorm.errors import ConfigurationError
from microorm.project import read_project


def appended(file: Path, folder: str | None = None) -> str:
    plan = Plan(file, folder)
    plan.write()
    return file.read_bytes().decode()


@pytest.mark.parametrize(
    "before", ["[project]\nname = 'x'\n", "[project]\nname = 'x'", "# only a comment\n\n\n"]
)
def test_what_is_there_stays_byte_for_byte(tmp_path: Path, before: str) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text(before)
    after = appended(file)
    assert after.startswith(f"{before.rstrip()}\n")
    assert after.startswith(before)
    assert "\n\n[tool.microorm]\n" in after
    assert read_project(file).databases.keys() == {"default"}
    assert appended(file) == after


def test_line_ends_are_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_bytes(b"[project]\r\nname = 'x'\r\n")
    after = appended(file)
    assert after.count("\n") == after.count("\r\n") > 6


def test_an_empty_file_begins_with_the_section(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.touch()
    assert appended(file).startswith("[tool.microorm]\napps = []\n")


def test_tables_written_otherwise_are_seen(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text("[tool]\nmicroorm.databases = { a = 'sqlite://' }\nalembic.script_location = 'x'\n")
    before = file.read_text()
    plan = Plan(file, None)
    assert plan.text == ""
    assert appended(file) == before
    assert [line.partition(" ")[0] for line in plan.report()] == ["left", "left"]


def test_a_table_in_one_line_takes_no_section(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text("\ntool = { other = 1 }\n")
    with pytest.raises(ConfigurationError) as caught:
        Plan(file, None)
    assert str(caught.value) == f"{file}:2: no section can be appended to a table in one line"


def test_migrations_that_are_elsewhere_already_stay_there(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text("[tool.microorm]\ndatabases = { a = 'sqlite://' }\nmigrations = 'db/moves'\n")
    plan = Plan(file, None)
    assert plan.migrations == tmp_path / "db" / "moves"
    assert tomllib.loads(plan.text)["tool"]["alembic"]["script_location"] == "%(here)s/db/moves"
    assert Plan(file, "db/moves").migrations == plan.migrations
    with pytest.raises(
        ConfigurationError, match="^.*pyproject.toml: the migrations .*'.*moves', not in 'others'$"
    ):
        Plan(file, "others")


def test_a_percent_sign_is_written_as_alembic_reads_it(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "pyproject.toml", 'a%b "c"')
    tables = tomllib.loads(plan.text)["tool"]
    assert tables["microorm"]["migrations"] == 'a%b "c"'
    assert tables["alembic"]["script_location"] == '%(here)s/a%%b "c"'
    absolute = Plan(tmp_path / "pyproject.toml", str(tmp_path / "moves"))
    assert tomllib.loads(absolute.text)["tool"]["alembic"]["script_location"] == f"{tmp_path}/moves"


def test_applications_are_packages_with_models(tmp_path: Path) -> None:
    for name in ("b", "a", "tests", "no-name"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / "models.py").touch()
    (tmp_path / "c" / "models").mkdir(parents=True)
    (tmp_path / "c" / "__init__.py").touch()
    (tmp_path / "c" / "models" / "__init__.py").touch()
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "__init__.py").touch()
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "models.py").touch()
    assert guessed_apps(tmp_path) == ["a", "b", "c"]
    plan = Plan(tmp_path / "pyproject.toml", None)
    assert tomllib.loads(plan.text)["tool"]["microorm"]["databases"] == {"default": "sqlite:///a.db"}


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="^there is no folder '.*nowhere'$"):
        Plan(tmp_path / "nowhere" / "pyproject.toml", None)
