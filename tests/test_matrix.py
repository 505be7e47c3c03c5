"""Which interpreters `make matrix` finds."""

import tomllib
from pathlib import Path

from tools.matrix import ROOT, VERSIONS, interpreters


def command(path: Path, *, status: int = 0) -> Path:
    """Write a command that ends with *status*."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nexit {status}\n")
    path.chmod(0o755)
    return path


def test_an_interpreter_is_found_on_the_path_and_then_in_pyenv(tmp_path: Path) -> None:
    """The newest of pyenv's; a command on the path that does not run, as pyenv's own, does not count."""
    path, pyenv = tmp_path / "bin", tmp_path / "pyenv"
    on_path = command(path / "python3.11")
    command(path / "python3.13", status=127)
    for version in ("3.11.9", "3.13.9", "3.13.0"):
        command(pyenv / "versions" / version / "bin" / "python")
    newest = command(pyenv / "versions" / "3.13.10" / "bin" / "python")
    (pyenv / "versions" / "3.14.0").mkdir()
    assert interpreters(str(path), pyenv) == {"3.11": on_path, "3.12": None, "3.13": newest, "3.14": None}


def test_the_classifiers_name_versions_that_are_tried() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [line.rpartition(" ")[2] for line in project["classifiers"] if "Python :: 3." in line]
    assert named == ["3.11", "3.12", "3.13"]
    assert set(named) <= set(VERSIONS)
    assert project["requires-python"] == f">={named[0]}"
