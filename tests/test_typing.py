"""The types are a feature: mypy --strict and pyright infer what the pages promise, and refuse what is wrong.

The files `typing/accepts*.py` pass both; in `typing/rejects*.py` the marked lines fail, with the errors that the mark
names, and no others do.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "tests" / "typing").glob("*.py"))
REJECTS = [path for path in FILES if path.name.startswith("rejects")]

Found = set[
    tuple[str, int, str]
]  # file, line, rule; of these files alone, since `make types` checks the rest


def run(*command: str) -> str:
    """The output of a checker that came to a verdict."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def mypy() -> Found:
    output = run("mypy", "--output=json", *map(str, FILES))
    errors = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    judged = [e for e in errors if e["severity"] == "error" and Path(e["file"]).parent.name == "typing"]
    return {(Path(e["file"]).name, e["line"], e["code"]) for e in judged}


def pyright() -> Found:
    output = run("pyright", "--outputjson", "--pythonpath", sys.executable, *map(str, FILES))
    errors = [e for e in json.loads(output)["generalDiagnostics"] if e["severity"] == "error"]
    return {(Path(e["file"]).name, e["range"]["start"]["line"] + 1, e.get("rule", "")) for e in errors}


def marked(checker: str) -> Found:
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
@pytest.mark.timeout(600)
def test_the_checkers_accept_and_reject_what_is_promised(checker) -> None:
    found, expected = checker(), marked(checker.__name__)
    assert len(expected) > 30
    assert sorted(found - expected) == []
    assert sorted(expected - found) == []


def test_every_mark_names_both_checkers() -> None:
    marks = [line for path in REJECTS for line in path.read_text().splitlines() if "# error:" in line]
    assert [
        line for line in marks if not re.search(r"# error: mypy\[[\w,-]+\] pyright\[[\w,-]+\]$", line)
    ] == []
