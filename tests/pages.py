"""Pages as programs: what test_docs.py runs of them, and what a page does while it runs.

The blocks of a page are one program, in which each line stands where it stands on the page:

- ```python``` is run as it is.
- A block with a title, such as ```python title="shop/models.py"```, is written to this file; with the title
  "shop/models.py (continued)" it is added to the end.
- ```text title="Output"``` is compared with what the program has printed since the last such block.
- On pages whose commands are run, ```console``` is run line by line, and what follows a line is compared with its output;
  `...` stands for any text. Commands that need a network, or never end, are not run: `NOT_RUN`.
"""

import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TUTORIAL = sorted((DOCS / "tutorial").glob("*.md"))
COMMANDS_ARE_RUN = {
    DOCS / "index.md",
    DOCS / "existing-databases.md",
    *TUTORIAL,
    *(DOCS / "recipes").glob("*.md"),
}
NOT_RUN = re.compile(
    r"python3? -m venv |pip install |\. |uvicorn |microorm relay --transport |faststream run |celery "
)
OUTPUT = "Output"
CONTINUED = " (continued)"
FENCE = re.compile(r"```(\w*)(?: title=\"([^\"]+)\")?(?: hl_lines=\"[\d -]+\")?")


@dataclass
class Block:
    """A fenced block: *start* is the number of its first line in the page."""

    language: str
    title: str
    start: int
    lines: list[str]

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of *page*. A fence that cannot be read has its whole line as language."""
    found: list[Block] = []
    inside = False
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        if line.startswith("```"):
            if not inside:
                fence = FENCE.fullmatch(line.rstrip())
                language, title = (fence[1], fence[2] or "") if fence else (line, "")
                found.append(Block(language, title, number + 1, []))
            inside = not inside
        elif inside:
            found[-1].lines.append(line)
    assert not inside, f"a block of {page} is never closed"
    return found


def program(page: Path) -> str:
    """Return the program of *page*, so that a traceback names the page's lines; an empty one if it has nothing to run."""
    lines = [""] * len(page.read_text().splitlines())
    found = blocks(page)
    for block in found:
        if call := call_of(block, commands=page in COMMANDS_ARE_RUN):
            lines[block.start - 1] = call
            lines[0] = "from tests import pages as _pages"  # the title stands there
        elif block.language == "python":
            lines[block.start - 1 : block.start - 1 + len(block.lines)] = block.lines
    if any(block.title == OUTPUT for block in found):
        lines[0] += "; _pages.record()"
    return "\n".join(lines)


def call_of(block: Block, *, commands: bool) -> str:
    """Return the call that does what *block* shows, on one line, or nothing."""
    if block.title == OUTPUT:
        return f"_pages.printed({block.text!r})"
    if block.title:
        return f"_pages.write({block.title!r}, {block.text!r})"
    if block.language == "console" and commands:
        return f"_pages.run({block.text!r})"
    return ""


# What follows is called by these programs.

_printed = io.StringIO()


def record() -> None:
    """Keep what the program prints from now on."""
    sys.stdout = _printed


def printed(expected: str) -> None:
    """Compare *expected* with what was printed since the last call."""
    shown = _printed.getvalue()
    _printed.seek(0)
    _printed.truncate()
    assert matches(expected, shown), f"the page shows\n{expected}\nand this was printed\n{shown}"


def write(title: str, text: str) -> None:
    """Write *text* to the file *title*, or add it to the end."""
    path = Path(title.removesuffix(CONTINUED))
    path.parent.mkdir(parents=True, exist_ok=True)
    if title.endswith(CONTINUED):
        text = f"{path.read_text()}\n\n{text}"
    path.write_text(text)


def run(console: str) -> None:
    """Run the commands of *console*, and compare what they print with what it shows below each."""
    for command, expected in commands_of(console):
        if NOT_RUN.match(command):
            continue
        shown, status = _forked(command) or _started(command)
        assert status == 0, f"$ {command}\n{shown}"
        assert not expected or matches(expected, shown), (
            f"$ {command}\nthe page shows\n{expected}\nand it printed\n{shown}"
        )


def _started(command: str) -> tuple[str, int]:
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=300, env=environment())
    return done.stdout + done.stderr, done.returncode


def _forked(command: str) -> tuple[str, int] | None:
    """Run a program of Python as a fork of this one, which starts in a tenth of the time; None where that is not the same."""
    plain = re.fullmatch(r"(microorm|python) [^|&;<>$`*?\\]+", command)
    forks = sys.modules.get("tests.forks")
    microorm = sys.modules.get("microorm")
    if not plain or not forks or not microorm:
        return None
    if microorm.default_databases.aliases or list(microorm.default_registry.models):
        return None  # the page has some of its own
    name, *arguments = shlex.split(command)
    program = ["-m", "microorm", *arguments] if name == "microorm" else [forks.FILE, *arguments]
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "out"), Path(folder, "err")
        child = forks.start(program, files, environment())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return files[0].read_text() + files[1].read_text(), status


def commands_of(console: str) -> Iterator[tuple[str, str]]:
    """Yield each command, and the output below it."""
    for part in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        yield command, expected


def matches(expected: str, shown: str) -> bool:
    """Return whether *shown* is *expected*, in which `...` stands for any text; a tab is as good as some spaces."""
    # Several in a row, such as the dots of pytest, are one: each more would multiply the time of a mismatch.
    parts = re.split(r"(?:^\.\.\.\n| ?\.\.\. ?)+", _stripped(expected), flags=re.MULTILINE)
    pattern = ".*".join(map(re.escape, parts))
    return re.fullmatch(pattern, _stripped(shown), re.DOTALL) is not None


def environment() -> dict[str, str]:
    """Return an environment in which `python` and `microorm` are those of the tests, and output has no colours.

    A reader has pytest and our plugin; that of pytest-asyncio warns where it is not configured.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}  # xdist's
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    return kept | {"PATH": path, "NO_COLOR": "1", "COLUMNS": "100", "PYTEST_ADDOPTS": "-p no:asyncio"}


def _stripped(text: str) -> str:
    return "\n".join(re.sub(r"\s+", " ", line).rstrip() for line in text.strip().splitlines())
