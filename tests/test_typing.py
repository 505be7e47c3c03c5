"""The types are a feature: mypy --strict and pyright infer what the pages promise, and refuse what is wrong.

The files `typing/accepts*.py` pass both; in `typing/rejects*.py` the marked lines fail, with the errors that the mark
names, and no others do. So does the shop of the tutorial, but for its page of mistakes.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import pages

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "tests" / "typing").glob("*.py"))
REJECTS = [path for path in FILES if path.name.startswith("rejects")]

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]

Found = dict[tuple[str, int, str], str]  # file, line and rule, and what the checker says


def run(*command: str) -> str:
    """The output of a checker that came to a verdict."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=2000
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def mypy() -> Found:
    """All that mypy finds in what `make types` checks, and in these files."""
    files = sorted({*PROJECT["mypy"]["files"], *map(str, FILES)})
    output = run("mypy", "--output=json", *files)
    errors = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    judged = [error for error in errors if error["severity"] == "error"]
    return {(Path(e["file"]).name, e["line"], e["code"]): e["message"] for e in judged}


def pyright() -> Found:
    """All that pyright finds in what `make types` checks, and in these files."""
    files = sorted({*PROJECT["pyright"]["include"], *map(str, FILES)})
    output = run("pyright", "--outputjson", "--pythonpath", sys.executable, *files)
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
        for number, line in enumerate((ROOT / path).read_text().splitlines(), start=1)
        for rule in rules(line)
    }


@pytest.mark.parametrize("checker", [mypy, pyright])
@pytest.mark.timeout(300)
def test_the_checkers_accept_and_reject_what_is_promised(checker) -> None:
    """In one run over all that is to be accepted, the package itself among it, and all that is to be rejected."""
    found, expected = checker(), marked(checker.__name__)
    assert len(expected) > 30
    assert {where: said for where, said in found.items() if where not in expected} == {}
    assert sorted(expected - found.keys()) == []


@pytest.mark.parametrize("checker", ["mypy --strict .", f"pyright --pythonpath {sys.executable}"])
@pytest.mark.timeout(300)
def test_the_checkers_accept_the_shop_of_the_tutorial_as_it_is_printed(
    checker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They find mistakes in `wrong.py` alone, whose values are wrong on purpose. The tests are printed without types."""
    monkeypatch.chdir(tmp_path)
    pages.write("shop/__init__.py", "")
    printed = [block for page in pages.TUTORIAL for block in pages.blocks(page) if block.language == "python"]
    for block in printed:
        pages.write(block.title, block.text)
    pages.write("pyrightconfig.json", json.dumps({"extraPaths": [str(ROOT)]}))
    pages.write("mypy.ini", "[mypy]\nexclude = ^tests/")
    done = subprocess.run(
        [sys.executable, "-m", *checker.split()],
        env=os.environ | {"MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=2000,
    )
    found = [line for line in done.stdout.splitlines() if re.search(r":\d+: error|:\d+ - error", line)]
    assert len(found) >= 3, done.stdout + done.stderr
    assert [line for line in found if "wrong.py" not in line] == []


def test_every_mark_names_both_checkers() -> None:
    marks = [
        line for path in REJECTS for line in (ROOT / path).read_text().splitlines() if "# error:" in line
    ]
    assert [
        line for line in marks if not re.search(r"# error: mypy\[[\w,-]+\] pyright\[[\w,-]+\]$", line)
    ] == []
