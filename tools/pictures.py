"""The pictures of the README: a recording of the demo, and the way of a save; `make pictures` draws them.

The recording is that of the demo's own output, as a terminal shows it, without the questions but the first.
"""

import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "pictures"
DEMO, SAVE = FOLDER / "demo.svg", FOLDER / "save.svg"
SHOWN_QUESTIONS = 1
FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
THEME = TerminalTheme(
    (24, 26, 31),
    (204, 208, 214),
    [(40, 44, 52), (224, 108, 117), (152, 195, 121), (229, 192, 123), (97, 175, 239), (198, 120, 221),
     (86, 182, 194), (171, 178, 191)],
)  # fmt: skip


def record() -> str:
    """Run the demo as on a terminal, and return what it prints, with the codes of its styles."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    settings = {"PYTHONPATH": path, "FORCE_COLOR": "1", "COLUMNS": "80"}
    settings |= {"TERM": "xterm-256color", "PYTHONUTF8": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "examples.flights"]
        done = subprocess.run(command, cwd=folder, env=os.environ | settings, capture_output=True, check=True)
    return done.stdout.decode()


def beginning(output: str) -> Iterator[Text]:
    """Yield the lines up to the end of the questions that are shown."""
    questions = 0
    for line in output.splitlines():
        text = Text.from_ansi(line.rstrip())
        questions += text.plain.endswith("?")
        if questions > SHOWN_QUESTIONS:
            return
        yield text


def demo(output: str) -> str:
    """Return the recording of *output* as SVG, which loads no font from elsewhere."""
    console = Console(
        record=True, width=82, file=io.StringIO(), color_system="truecolor", force_terminal=True
    )
    console.print("[bold green]$[/] make demo")
    for line in beginning(output):
        console.print(line, soft_wrap=True)
    drawn = console.export_svg(title="make demo", theme=THEME, unique_id="demo")
    return FONT_FACE.sub("", drawn)


@dataclass(frozen=True)
class Step:
    """A step of a save: in which column it is shown, and in which colour."""

    column: int
    title: str
    text: str
    kind: str


STEPS = (
    Step(0, "book.save()", "arguments are checked, routers pick the alias", "yours"),
    Step(1, "BEGIN", "only if there is a receiver; a lone row commits by itself", "database"),
    Step(2, "pre_save", "receivers may change values, and veto by an error", "receiver"),
    Step(1, "INSERT or UPDATE", "values are checked first, all of them", "database"),
    Step(2, "post_save", "receivers run inside the transaction: an error undoes the row", "receiver"),
    Step(1, "COMMIT", "events for durable receivers are committed with the row", "database"),
    Step(
        2, "post_save, on_commit", "receivers run only now, never for a row that was rolled back", "receiver"
    ),
    Step(2, "post_save, durable", "a relay calls them until they succeed, after a crash, too", "receiver"),
)
COLUMNS = ("your program", "database", "receivers")
COLORS = {"yours": "#2b6cb0", "database": "#4a5568", "receiver": "#2f855a"}
WIDTH, HEIGHT, GAP, LEFT, TOP = 300, 58, 16, 20, 56
FOOT = (
    "An error in any step before the commit rolls everything back:",
    "the row, what receivers have written, and the instance in your hands.",
)


def save() -> str:
    """Return the way of a save as SVG: its steps from top to bottom, in three columns."""
    width = 2 * LEFT + 3 * WIDTH + 2 * GAP
    bottom = TOP + len(STEPS) * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 52}" role="img" '
        'font-family="system-ui, sans-serif">',
        "<title>The way of a save</title>",
        f'<rect width="{width}" height="{bottom + 52}" rx="10" fill="#f7fafc"/>',
    ]
    for column, title in enumerate(COLUMNS):
        x = left(column) + WIDTH / 2
        parts.append(
            f'<text x="{x:g}" y="36" text-anchor="middle" font-size="17" fill="#2d3748">{title}</text>'
        )
        parts.append(f'<path d="M{x:g} {TOP - 8} V{bottom - GAP}" stroke="#cbd5e0" stroke-dasharray="3 5"/>')
    for number, step in enumerate(STEPS):
        parts += box(step, TOP + number * (HEIGHT + GAP))
    for number, line in enumerate(FOOT):
        parts.append(
            f'<text x="{LEFT}" y="{bottom + 16 + 20 * number}" font-size="14" fill="#2d3748">{line}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def left(column: int) -> int:
    """Return where a column begins."""
    return LEFT + column * (WIDTH + GAP)


def box(step: Step, y: int) -> Iterator[str]:
    """Yield one step, as a box with two lines or three of text."""
    x = left(step.column)
    yield f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="7" fill="{COLORS[step.kind]}"/>'
    yield (
        f'<text x="{x + 12}" y="{y + 20}" font-size="14" font-weight="600" fill="#fff" '
        f'font-family="ui-monospace, monospace">{escape(step.title)}</text>'
    )
    for number, line in enumerate(wrapped(step.text)):
        yield f'<text x="{x + 12}" y="{y + 36 + 14 * number}" font-size="12" fill="#edf2f7">{escape(line)}</text>'


def wrapped(text: str, most: int = 46) -> list[str]:
    """Return *text* as at most two lines."""
    first, rest = "", text.split()
    while rest and len(first) + len(rest[0]) < most:
        first = f"{first} {rest.pop(0)}".strip()
    return [line for line in (first, " ".join(rest)) if line]


def main() -> None:
    """Draw both."""
    FOLDER.mkdir(exist_ok=True)
    DEMO.write_text(demo(record()), encoding="utf-8")
    SAVE.write_text(save(), encoding="utf-8")


if __name__ == "__main__":
    main()
