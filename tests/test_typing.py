"""The types are a feature: mypy --strict and pyright infer what the pages promise, and refuse what is wrong.

The files `typing/accepts*.py` pass both; in `typing/rejects*.py` the marked lines fail, with the errors that the mark
names, and no others do. So does the shop of the tutorial, but for its page of mistakes.
"""

import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import checkers, pages

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "tests" / "typing").glob("*.py"))
REJECTS = [path for path in FILES if path.name.startswith("rejects")]
WRONG = "wrong.py"
"""The page of mistakes, whose values are wrong on purpose."""

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]

Found = dict[tuple[str, int, str], str]  # file, line and rule, and what the checker says


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shop of the tutorial, as it is printed; its tests are printed without types."""
    monkeypatch.chdir(tmp_path)
    pages.write("shop/__init__.py", "")
    printed = [block for page in pages.TUTORIAL for block in pages.blocks(page) if block.language == "python"]
    for block in printed:
        pages.write(block.title, block.text)
    monkeypatch.setenv("MYPYPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    paths = {"extraPaths": [str(ROOT)]}
    as_a_reader = paths | {"root": ".", "reportUnusedImport": "none"}  # who does not switch that on
    settings = PROJECT["pyright"] | paths | {"include": ["."], "executionEnvironments": [as_a_reader]}
    pages.write("pyrightconfig.json", json.dumps(settings))
    return tmp_path


def programs(folder: Path) -> list[Path]:
    """The files of the shop that have types."""
    return sorted(path for path in folder.rglob("*.py") if path.parent.name != "tests")


def mypy(folder: Path) -> Found:
    """All that mypy finds in what `make types` checks, in these files, and in the shop, which is in *folder*."""
    checked = [ROOT / name for name in PROJECT["mypy"]["files"]]
    files = sorted({*checked, *FILES, *programs(folder)})
    output = checkers.mypy("--output=json", *map(str, files))
    errors = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    judged = [error for error in errors if error["severity"] == "error"]
    return {(Path(e["file"]).name, e["line"], e["code"]): e["message"] for e in judged}


def pyright(folder: Path) -> Found:
    """All that pyright finds in the same."""
    checked = [ROOT / name for name in PROJECT["pyright"]["include"]]
    files = sorted({*checked, *FILES, *programs(folder)})
    output = checkers.pyright("--outputjson", *map(str, files), folder=folder)
    errors = [e for e in json.loads(output)["generalDiagnostics"] if e["severity"] == "error"]
    return {
        (Path(e["file"]).name, e["range"]["start"]["line"] + 1, e.get("rule", "")): e["message"]
        for e in errors
    }


def marked(checker: str) -> set[tuple[str, int, str]]:
    """What the marks in `rejects.py` say that the checker finds."""

    def rules(line: str) -> Iterator[str]:
        for found in re.findall(rf"# error:.*\b{checker}\[([\w,-]+)\]", line):
            yield from found.split(",")

    return {
        (path.name, number, rule)
        for path in REJECTS
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        for rule in rules(line)
    }


@pytest.mark.parametrize("checker", [mypy, pyright])
@pytest.mark.timeout(300)
def test_the_checkers_accept_and_reject_what_is_promised(
    checker: Callable[[Path], Found], shop: Path
) -> None:
    """In one run over all that is to be accepted, the package itself and the tutorial among it, and all that is to be rejected."""
    assert len(programs(shop)) > 10
    found, expected = checker(shop), marked(checker.__name__)
    assert len(expected) > 30
    mistakes = {where for where in found if where[0] == WRONG}
    assert len(mistakes) >= 2, "they find those of the tutorial"
    assert {where: found[where] for where in found.keys() - expected - mistakes} == {}
    assert sorted(expected - found.keys()) == []


def test_every_mark_names_both_checkers() -> None:
    marks = [line for path in REJECTS for line in path.read_text().splitlines() if "# error:" in line]
    assert [
        line for line in marks if not re.search(r"# error: mypy\[[\w,-]+\] pyright\[[\w,-]+\]$", line)
    ] == []
