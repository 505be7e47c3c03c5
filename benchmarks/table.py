"""Table: the one table every contestant works on, and the rows that go into it.

The DDL is ours, not the contestants', so that all of them write the same columns and keep the same index.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

Row = tuple[Any, ...]
Run = Callable[[str, Sequence[Row]], list[Row]]

COLUMNS = ("name", "amount", "score", "note", "level")
DDL = (
    "CREATE TABLE item (id INTEGER PRIMARY KEY, name VARCHAR(100) NOT NULL, amount BIGINT NOT NULL,"
    " score DOUBLE NOT NULL, note VARCHAR(200), level BIGINT NOT NULL)",
    "CREATE INDEX ix_item_level ON item (level)",
)
INSERT = f"INSERT INTO item ({', '.join(COLUMNS)}) VALUES (?, ?, ?, ?, ?)"
SELECT = f"SELECT id, {', '.join(COLUMNS)} FROM item"
PER_LEVEL = 20


@dataclass(frozen=True)
class Data:
    """What goes in: *size* rows, and the keys and levels that are asked for later."""

    size: int

    @cached_property
    def rows(self) -> list[Row]:
        """The rows without a key, in the order of COLUMNS."""
        return [
            (f"item {i} é", i * 7, i * 0.5, None if i % 3 == 0 else f"note {i}", i % len(self.levels))
            for i in range(self.size)
        ]

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The same rows as keyword arguments."""
        return [dict(zip(COLUMNS, row, strict=True)) for row in self.rows]

    @cached_property
    def levels(self) -> range:
        """Each level there is; every one is worn by PER_LEVEL rows."""
        return range(max(1, self.size // PER_LEVEL))

    @cached_property
    def keys(self) -> list[int]:
        """All keys of a filled table, in an order no cache expects."""
        keys = list(range(1, self.size + 1))
        random.Random(13).shuffle(keys)
        return keys

    @cached_property
    def doomed(self) -> list[int]:
        """The keys to delete; one row in ten stays, so that deleting too much is noticed."""
        return [key for key in self.keys if key % 10]


class Table:
    """The table as the harness sees it, outside the clock and past the contestant's own mapping."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @classmethod
    def in_file(cls, path: Path) -> Table:
        """Reach the file by a connection of our own, so that only committed rows are seen."""

        def run(sql: str, rows: Sequence[Row] = ()) -> list[Row]:
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                return run_plainly(connection, sql, rows)

        run("PRAGMA journal_mode=WAL")
        return cls(run)

    def create(self) -> None:
        for statement in DDL:
            self._run(statement, ())

    def empty(self) -> None:
        self._run("DELETE FROM item", ())

    def fill(self, rows: Iterable[Row]) -> None:
        """Hold exactly *rows*, with the keys 1, 2, 3 and so on."""
        self.empty()
        self._run(INSERT, list(rows))

    def rows(self) -> list[Row]:
        return self._run(f"{SELECT} ORDER BY id", ())


def run_plainly(connection: sqlite3.Connection, sql: str, rows: Sequence[Row] = ()) -> list[Row]:
    """Run one statement on a driver's connection that is in autocommit; return what it yields.

    With *rows* it runs once for each, all in one transaction.
    """
    if not rows:
        return [tuple(row) for row in connection.execute(sql).fetchall()]
    connection.execute("BEGIN")
    connection.executemany(sql, rows)
    connection.execute("COMMIT")
    return []
