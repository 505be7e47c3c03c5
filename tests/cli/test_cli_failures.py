"""An error is one line: the place in the project, the class, the message, and no secret."""

import linecache
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from microorm import ConfigurationError, ModelError
from microorm.cli.failures import failure_text
from microorm.errors import MigrationError
from microorm.project import Project, read_project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "pyproject.toml").write_text("[tool.microorm]\ndatabases = { default = 'sqlite://' }\n")
    return read_project(tmp_path)


def raised(
    project: Project, source: str, file: str = "models.py", name: str = "shop.models"
) -> BaseException:
    """What *source* raises when it is run as a module of the project."""
    path = project.folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    linecache.checkcache()
    with pytest.raises(Exception) as caught:
        exec(compile(source, str(path), "exec"), {"__name__": name})
    return caught.value


def test_a_module_that_raises_is_named_with_its_line(project: Project) -> None:
    error = raised(project, "\nimport json\n\njson.loads('[')\n")
    place = f"shop.models, {project.folder}/models.py:4"
    assert (
        failure_text(error, project) == f"{place}: JSONDecodeError: Expecting value: line 1 column 2 (char 1)"
    )
    error = raised(project, "raise ValueError('a\\nb')")
    assert failure_text(error, project) == f"shop.models, {project.folder}/models.py:1: ValueError: a b"
    error = raised(project, "raise ValueError")
    assert failure_text(error, project) == f"shop.models, {project.folder}/models.py:1: ValueError"


def test_a_model_that_is_wrong_is_named_with_its_line(project: Project) -> None:
    error = raised(project, "from microorm import ModelError\nraise ModelError('a field')")
    assert failure_text(error, project) == f"shop.models, {project.folder}/models.py:2: ModelError: a field"


def test_a_module_that_cannot_be_compiled_is_named_too(project: Project) -> None:
    file = project.folder / "shop" / "models.py"
    with pytest.raises(SyntaxError) as caught:
        compile("a = 1\nb = = 2\n", str(file), "exec")
    found = failure_text(caught.value, project)
    assert found == f"shop.models, {file}:2: SyntaxError: invalid syntax"
    assert failure_text(caught.value, None) == f"{file}:2: SyntaxError: invalid syntax"


def test_configuration_and_migrations_speak_for_themselves(project: Project) -> None:
    error = raised(project, "from microorm import ConfigurationError\nraise ConfigurationError('wrong')")
    assert failure_text(error, project) == "wrong"
    assert failure_text(MigrationError("one\ntwo"), project) == "one\ntwo"
    assert failure_text(ConfigurationError("wrong"), None) == "wrong"
    assert failure_text(ModelError("a field"), None) == "a field"


def test_that_env_py_calls_microorm_goes_without_saying(project: Project) -> None:
    error = raised(project, "import json\njson.loads('')", "migrations/env.py", "env_py")
    assert "env.py" not in failure_text(error, project)
    error = raised(project, "1 / 0", "migrations/env.py", "env_py")
    place = f"env_py, {project.folder}/migrations/env.py:1"
    assert failure_text(error, project) == f"{place}: ZeroDivisionError: division by zero"


def test_what_a_database_says_comes_without_the_statement(project: Project) -> None:
    engine = create_engine("sqlite://")
    with engine.connect() as connection, pytest.raises(OperationalError) as caught:
        connection.execute(text("SELECT geheim FROM nowhere"))
    engine.dispose()
    assert failure_text(caught.value, project) == "OperationalError: no such table: nowhere"


def test_code_of_an_environment_inside_is_not_the_projects(project: Project, monkeypatch: Any) -> None:
    error = raised(project, "1 / 0", "venv/lib/site-packages/x.py", "x")
    assert "x.py:1" in failure_text(error, None), "unforeseen, so the last line is told"
    monkeypatch.setattr(sys, "prefix", str(project.folder / "env"))
    for file in ("venv/lib/site-packages/x.py", "env/lib/x.py"):
        assert not failure_text(raised(project, "1 / 0", file, "x"), project).startswith("x, ")


def test_what_nobody_has_foreseen_has_its_line() -> None:
    assert failure_text(KeyError("a"), None) == "KeyError: 'a'"
    assert failure_text(OSError(13, "Permission denied", "x"), None) == (
        "PermissionError: [Errno 13] Permission denied: 'x'"
    )
