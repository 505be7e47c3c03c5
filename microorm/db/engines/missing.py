"""Missing tables and columns: how each database says so, and the note that says what to do."""

from __future__ import annotations

import re
from typing import Any

_NO_TABLE = ("42P01", "42S02")  # of PostgreSQL and of MariaDB
_NO_COLUMN = ("42703", "42S22")
_NO_TABLE_ON_SQLITE = re.compile("no such table: ")
_NO_COLUMN_ON_SQLITE = re.compile(r"no such column: |table .+ has no column named ")
_TABLE_NOTE = "if a model has this table: create_all() creates it, or `microorm migrate` where migrations create the tables"
_COLUMN_NOTE = (
    "if a model has this column: the table was created without it, and create_all() does not change a table; `microorm check` "
    "lists all differences, `microorm makemigrations` and `microorm migrate` remove them"
)


def lacks_table(error: Any) -> bool:
    """Return whether SQLAlchemy's *error* says that a table does not exist."""
    return _says(error.orig, _NO_TABLE, 1146, _NO_TABLE_ON_SQLITE)


def note_missing(error: Any) -> None:
    """Add a note that says what to do to SQLAlchemy's *error*, if it says that a table or a column does not exist."""
    driver = getattr(error, "orig", None)
    if driver is None:
        return
    note = ""
    if lacks_table(error):
        note = _TABLE_NOTE
    elif _says(driver, _NO_COLUMN, 1054, _NO_COLUMN_ON_SQLITE):
        note = _COLUMN_NOTE
    if note and note not in getattr(error, "__notes__", ()):  # an engine may have two aliases
        error.add_note(note)


def _says(driver: Any, states: tuple[str, str], number: int, text: re.Pattern[str]) -> bool:
    """Return whether an error of the *driver* has one of the *states*, MariaDB's *number*, or the *text* of SQLite."""
    if getattr(driver, "sqlstate", None) in states or driver.args[:1] == (number,):
        return True
    return text.match(str(driver)) is not None
