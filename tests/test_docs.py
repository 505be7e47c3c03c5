"""The pages cannot lie: their Python runs, and the targets, programs and pages they name exist.

The blocks of one page are one program, run in order in an empty directory of its own; `tests/pages.py` says how. The chapters
of the tutorial share a directory. A block that is no program (a signature, a fragment) is fenced as ```text.
"""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import microorm
from microorm.cli import main
from tests.forks import ForkedProgram
from tests.pages import CONTINUED, DOCS, ROOT, TUTORIAL, Block, blocks, call_of, commands_of, matches, program
from tools import reference

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *DOCS.rglob("*.md")])
LANGUAGES = {"python", "console", "text", "toml", "json", "sql", "makefile"}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
PROGRAMS = [page for page in PAGES if page not in TUTORIAL and program(page).strip()]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def written_by(page: Path) -> set[str]:
    """The files that *page* has written, and in the tutorial those of all chapters."""
    pages = TUTORIAL if page in TUTORIAL else [page]
    return {block.title.removesuffix(CONTINUED) for each in pages for block in blocks(each)}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedProgram]:
    """Runs programs that find the package imported already."""
    with ForkedProgram(tmp_path_factory.mktemp("forks")) as python:
        yield python


def run(page: Path, folder: Path, python: ForkedProgram) -> None:
    """Run the program of *page* in *folder*."""
    script = folder / "page.py"
    script.write_text(program(page))
    output, errors, status = python.python(str(script))
    assert status == 0, f"{name_of(page)}:\n{output}{errors}"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PROGRAMS, ids=name_of)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, python: ForkedProgram) -> None:
    run(page, tmp_path, python)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_chapters_of_the_tutorial_build_one_program(tmp_path: Path, python: ForkedProgram) -> None:
    assert len(TUTORIAL) == 7
    for page in TUTORIAL:
        run(page, tmp_path, python)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_says_its_language(page: Path) -> None:
    """So that no Python hides from the test above under another name."""
    assert [(each.start, each.language) for each in blocks(page) if each.language not in LANGUAGES] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_commands_of_a_page_exist(page: Path) -> None:
    text = page.read_text()
    shown = "\n".join(each.text for each in blocks(page) if each.language == "console")
    commands = shown + "\n" + "\n".join(re.findall(r"`([^`\n]+)`", text))
    targets = set(re.findall(r"\bmake ([a-z-]+)", commands))
    assert targets - TARGETS == set()
    spoken = re.findall(r"(?:\$|-m) microorm ((?!-)\S+)", commands) + re.findall(
        r"`microorm ([a-z]+)", commands
    )
    assert {name for name in spoken if name.islower()} - set(main.commands) == set()
    programs = set(re.findall(r"\bpython3? ((?!-)\S+\.py)", commands))
    modules = set(re.findall(r"\bpython3? -m ((?:examples|benchmarks|tests|tools)[\w.]*)", commands))
    programs -= written_by(page)
    assert [program for program in programs if not (ROOT / program).is_file()] == []
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", prose) if not re.match(r"[a-z]+:", link)]
    targets = [
        (link, page.parent / path if path else page, anchor)
        for link in links
        for path, _, anchor in [link.partition("#")]
    ]
    assert [link for link, target, _ in targets if not target.exists()] == []
    assert [link for link, target, anchor in targets if anchor and anchor not in anchors(target)] == []


def anchors(page: Path) -> set[str]:
    """The anchors that the repository's host, and the site, make of the headings of *page*."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = [
        re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)
        for title in re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    ]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_installs_the_wheel_of_this_version(page: Path) -> None:
    wheels = set(re.findall(r"microorm-([\w.]+)-py3-none-any\.whl", page.read_text()))
    assert wheels <= {microorm.__version__}


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    """Otherwise a reader of the site never finds it, and the site does not build."""
    navigation = re.findall(
        r"^ +- (?:.*: )?(\S+(?:\.md|/))$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE
    )
    folders = tuple(each for each in navigation if each.endswith("/"))
    names = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert {name for name in names if not name.startswith(folders)} - set(navigation) == set()
    assert len(navigation) == len(set(navigation))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", tmp_path / "site"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    pages = {path.relative_to(tmp_path / "site"): path.read_text() for path in tmp_path.rglob("*.html")}
    assert len(pages) > len(list(DOCS.rglob("*.md")))
    fetched = re.compile(r"<(?:script|img|iframe|link)[^>]* (?:src|href)=\"?(?:https?:)?//[^>]*>")
    assert {path: found for path, text in pages.items() if (found := fetched.findall(text))} == {}
    assert 'id="microorm.Query.bulk_create"' in pages[Path("reference/queries.html")]
    assert 'href="project/examples/requests.py.html"' in pages[Path("requests.html")]
    assert Path("project/examples/requests.py.html") in pages
    for package in (ROOT / "examples").glob("*/__init__.py"):
        shown = pages[Path("project") / package.parent.relative_to(ROOT) / "index.html"]
        files = {path.name for path in package.parent.glob("*.py")} - {package.name}
        assert {name for name in files if f"<code>{name}</code>" not in shown} == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_link_that_names_a_test_leads_to_its_file(page: Path) -> None:
    """So that a promise which a test shows is not left alone when the test is renamed."""
    named = re.findall(r"\[`(test_\w+)`\]\(([^)#\s]+)\)", page.read_text())
    lost = [(test, file) for test, file in named if f"def {test}(" not in (page.parent / file).read_text()]
    assert lost == []


def test_each_promise_of_the_readme_is_shown() -> None:
    """By a test, or by the page of the benchmarks."""
    _, _, rest = (ROOT / "README.md").read_text().partition("\n## What it does that others do not\n")
    rows = re.findall(r"^\| (.*) \| (.*) \|$", rest.partition("\n## ")[0], re.MULTILINE)
    assert len(rows) > 10
    assert [
        promise for promise, shown in rows[1:] if not re.search(r"\]\((tests/|docs/performance)", shown)
    ] == []


def test_a_line_of_a_page_keeps_its_number(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Title\n\n```python\na = 1\n```\n\ntext\n\n```console\n$ make test\n```\n\n```python\nb = 2\n```\n"
    )
    assert program(page).splitlines()[3] == "a = 1"
    assert program(page).splitlines()[13] == "b = 2"
    assert program(page).split() == ["a", "=", "1", "b", "=", "2"]


def test_a_page_writes_its_files_and_shows_what_it_prints(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    shown = (
        '# Title\n\n```python title="a.py"\na = 1\n```\n\n```python title="a.py (continued)"\nb = 2\n```\n\n'
    )
    shown += '```python\nprint(open("a.py").read())\n```\n\n```text title="Output"\n{}\n```\n'
    page.write_text(shown.format("a = 1\n...\nb = 2"))
    run_in_process = [sys.executable, "-c", program(page)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(run_in_process, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page.write_text(shown.format("a = 1"))
    done = subprocess.run(
        [sys.executable, "-c", program(page)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert "AssertionError: the page shows\na = 1\n" in done.stderr


def test_commands_are_run_only_where_a_page_says_so() -> None:
    block = Block("console", "", 1, ["$ ls", "a.py", "$ python a.py"])
    assert call_of(block, commands=False) == ""
    assert call_of(block, commands=True).startswith("_pages.run(")
    assert list(commands_of(block.text)) == [("ls", "a.py\n"), ("python a.py", "")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("microorm nonsense", "no command named 'nonsense'"),
        ("python file.py", "the page shows\nshown\n\nand it printed\nprinted\n"),
        ("python file.py | cat", "the page shows\nshown\n\nand it printed\nprinted\n"),
    ],
)
def test_a_command_that_fails_or_prints_something_else_fails_its_page(
    command: str, said: str, tmp_path: Path, python: ForkedProgram
) -> None:
    (tmp_path / "file.py").write_text("print('printed')")
    script = tmp_path / "page.py"
    script.write_text(f"import microorm\nfrom tests import pages\npages.run('$ {command}\\nshown\\n')\n")
    _, errors, status = python.python(str(script))
    assert (status, said in errors) == (1, True), errors


@pytest.mark.parametrize(
    ("expected", "shown", "same"),
    [
        ("a\nb", "a  \nb\n", True),
        ("a  b", "a\tb", True),
        ("a\nb", "a\nc", False),
        ("a", "a\nb", False),
        ("...\nb", "b", True),
        ("...\nb", "a\na\nb", True),
        ("3 passed in ...", "3 passed in 0.1 s", True),
        ("3 passed in ...", "13 passed in 0.1 s", False),
        ("(a.b)", "(axb)", False),
        (
            ".................. [100%]\n18 passed",
            ".................. [100%]\n" + 5000 * "a " + "17 passed",
            False,
        ),
    ],
)
def test_what_is_shown_matches_what_is_printed(expected: str, shown: str, same: bool) -> None:
    assert matches(expected, shown) is same


@pytest.mark.parametrize("path", reference.PAGES, ids=name_of)
def test_what_a_page_repeats_is_what_is_said_elsewhere(path: Path) -> None:
    """`make docs` writes it."""
    assert path.read_text() == reference.page(path)


def test_the_reference_of_the_command_line_has_every_command() -> None:
    text = (ROOT / "docs" / "command-line.md").read_text()
    assert [name for name in main.commands if f"\n## `microorm {name}`\n" not in text] == []
