"""Output: tables, paths, and errors in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING

import click
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from microorm.errors import ConfigurationError, MicroormError, MigrationError
from microorm.messages import printable
from microorm.project import Project

if TYPE_CHECKING:
    from rich.console import Console

EMPTY = "-"
SHELL_CODE = "<shell>"
_MAX_UNWRAPPED = 16
_PADDING = "  "
_PACKAGE = Path(__file__).parent.parent


def console() -> Console:
    """Return a console for stdout, in colour on a terminal unless NO_COLOR is set."""
    from rich.console import Console  # noqa: PLC0415 most commands print plain lines, and start faster

    return Console(highlight=False, markup=False, emoji=False)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], styles: Mapping[str, str] | None = None
) -> None:
    """Print a table on a terminal, without empty columns, elsewhere lines with tabs; *styles* maps cells to colours.

    If the terminal is too narrow, so that words would be broken, each row is a list of its cells.
    """
    screen = console()
    styles = styles or {}
    if not screen.is_terminal:
        for row in (columns, *rows):
            click.echo("\t".join(one_line(cell) for cell in row))
        return
    filled = [(name, cells) for name, *cells in zip(columns, *rows, strict=True) if {*cells} - {EMPTY}]
    if sum(_narrowest(name, cells) + len(_PADDING) + 1 for name, cells in filled) > screen.width:
        width = max(len(name) for name, _ in filled)
        for number, row in enumerate(zip(*(cells for _, cells in filled), strict=True)):
            lines = [
                f"{name:{width}}{_PADDING}{cell}"
                for (name, _), cell in zip(filled, row, strict=True)
                if cell != EMPTY
            ]
            click.echo("\n".join(["", *lines] if number else lines))
        return
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 as in console()
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, len(_PADDING), 0, 0))
    for name, cells in filled:
        table.add_column(name, no_wrap=max(map(len, (name, *cells))) <= _MAX_UNWRAPPED)
    for row in zip(*(cells for _, cells in filled), strict=True):
        table.add_row(*(Text(one_line(cell), style=styles.get(cell, ""), overflow="fold") for cell in row))
    screen.print(table)


def _narrowest(name: str, cells: Iterable[str]) -> int:
    """Return how wide the column *name* must be at least, so that no word is broken, nor a short cell."""
    words = [word for cell in cells for word in ([cell] if len(cell) <= _MAX_UNWRAPPED else cell.split())]
    return max(map(len, [name, *words]))


def display_path(path: Path | str) -> str:
    """Return *path* relative to the working directory if it is inside it."""
    path = Path(path)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def one_line(text: str) -> str:
    """Return *text* with each run of white space replaced by one space, and other characters that are not shown by escapes."""
    return printable(" ".join(text.split()))


def format_error(error: BaseException, project: Project | None) -> str:
    """Return the class, the message and the notes of *error*, and the line of *project* that raised it or called what did.

    A `MigrationError` may have several lines; every other error is put into one.
    """
    if isinstance(error, MigrationError):
        return str(error)
    if isinstance(error, ConfigurationError):
        return one_line(str(error))
    message = str(error.orig if isinstance(error, DBAPIError) and error.orig is not None else error)
    if isinstance(error, SyntaxError) and error.filename:
        message, place = error.msg, (error.filename, error.lineno)
        location = _location(*place, project) or "{}:{}: ".format(*place)
    else:
        places = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
        # Every revision is run by the project's env.py, which counts only if it raises the error itself.
        own = [place for place in places if Path(place[0]).name != "env.py" or place is places[-1]]
        location = next(filter(None, (_location(*place, project) for place in reversed(own))), "")
        if not location:
            if isinstance(error, MicroormError):
                return one_line(message)
            if places and not isinstance(error, (SQLAlchemyError, OSError)):  # unexpected
                location = "{}:{}: ".format(*places[-1])
    notes = getattr(error, "__notes__", ())
    return one_line("; ".join([location + ": ".join(filter(None, [type(error).__name__, message])), *notes]))


def _location(file: str, line: int | None, project: Project | None) -> str:
    """Return the module, the file and the line, or nothing for a file that is not the project's own."""
    path = Path(file)
    if file == SHELL_CODE:
        return f"{file}:{line}: "
    if project is None or not path.is_relative_to(project.folder):
        return ""
    parts = path.relative_to(project.folder).with_suffix("").parts
    installed = {"site-packages", "dist-packages"} & {*parts} or path.is_relative_to(sys.prefix)
    if installed or path.is_relative_to(_PACKAGE):
        return ""
    return f"{'.'.join(parts).removesuffix('.__init__')}, {file}:{line}: "
