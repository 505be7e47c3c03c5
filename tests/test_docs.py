"""The pages cannot lie: their Python runs, and the targets, programs and pages they name exist.

The ```python blocks of one page are one program, run in order in an empty directory of its own. A block that is no
program (a signature, a fragment) is fenced as ```text.
"""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from microorm.cli import main
from tools import reference

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *(ROOT / "docs").rglob("*.md")])
LANGUAGES = {"python", "console", "text", "toml", "json", "sql", "makefile"}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[tuple[str, int, list[str]]]:
    """The fenced blocks of a page: language, number of the first line, lines."""
    found: list[tuple[str, int, list[str]]] = []
    inside = False
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        if line.startswith("```"):
            if not inside:
                found.append((line.removeprefix("```").strip(), number + 1, []))
            inside = not inside
        elif inside:
            found[-1][2].append(line)
    assert not inside, f"a block of {name_of(page)} is never closed"
    return found


def program(page: Path) -> str:
    """The Python of a page, each line where it stands there, so that a traceback names the page's lines."""
    lines = [""] * len(page.read_text().splitlines())
    for language, start, code in blocks(page):
        if language == "python":
            lines[start - 1 : start - 1 + len(code)] = code
    return "\n".join(lines)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", [page for page in PAGES if program(page).strip()], ids=name_of)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text(program(page))
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "error", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, f"{name_of(page)}:\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_says_its_language(page: Path) -> None:
    """So that no Python hides from the test above under another name."""
    assert [(start, language) for language, start, _ in blocks(page) if language not in LANGUAGES] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_commands_of_a_page_exist(page: Path) -> None:
    text = page.read_text()
    shown = "\n".join(line for language, _, code in blocks(page) if language == "console" for line in code)
    commands = shown + "\n" + "\n".join(re.findall(r"`([^`\n]+)`", text))
    targets = set(re.findall(r"\bmake ([a-z-]+)", commands))
    assert targets - TARGETS == set()
    spoken = re.findall(r"(?:\$|-m) microorm ((?!-)\S+)", commands) + re.findall(
        r"`microorm ([a-z]+)", commands
    )
    assert {name for name in spoken if name.islower()} - set(main.commands) == set()
    programs = set(re.findall(r"\bpython3? ((?!-)\S+\.py)", commands))
    modules = set(re.findall(r"\bpython3? -m ((?:examples|benchmarks|tests|tools)[\w.]*)", commands))
    assert [program for program in programs if not (ROOT / program).is_file()] == []
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_a_line_of_a_page_keeps_its_number(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Title\n\n```python\na = 1\n```\n\ntext\n\n```console\n$ make test\n```\n\n```python\nb = 2\n```\n"
    )
    assert program(page).splitlines()[3] == "a = 1"
    assert program(page).splitlines()[13] == "b = 2"


@pytest.mark.parametrize("path", reference.PAGES, ids=name_of)
def test_what_a_page_repeats_is_what_is_said_elsewhere(path: Path) -> None:
    """`make docs` writes it."""
    assert path.read_text() == reference.page(path)


def test_the_reference_of_the_command_line_has_every_command() -> None:
    text = (ROOT / "docs" / "command-line.md").read_text()
    assert [name for name in main.commands if f"\n## `microorm {name}`\n" not in text] == []
