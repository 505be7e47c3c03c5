"""Output: tables for a reader at a terminal, and tab-separated lines for everybody else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

NOTHING = "-"
_SHORT = 16
_NO_STYLES: Mapping[str, str] = {}


def console() -> Console:
    """What writes to stdout; in colour on a terminal alone, and not where NO_COLOR is set."""
    return Console(highlight=False, markup=False, emoji=False)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], styles: Mapping[str, str] = _NO_STYLES
) -> None:
    """Print *rows* under *columns*; to a pipe as lines of cells with tabs between, the columns first.

    *styles* gives cells that have a certain text a colour. At a terminal, where room is short, a column without a
    value is left out.
    """
    screen = console()
    if not screen.is_terminal:
        for row in (columns, *rows):
            click.echo("\t".join(" ".join(cell.split()) for cell in row))
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    filled = [(name, cells) for name, *cells in zip(columns, *rows, strict=True) if {*cells} - {NOTHING}]
    for name, cells in filled:
        table.add_column(name, no_wrap=max(map(len, (name, *cells))) <= _SHORT)
    for row in zip(*(cells for _, cells in filled), strict=True):
        table.add_row(*(Text(cell, style=styles.get(cell, ""), overflow="fold") for cell in row))
    screen.print(table)


def shown(path: Path | str) -> str:
    """*path* as a reader would type it: from the working directory, where it is below that."""
    path = Path(path)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
