"""The plain driver: `sqlite3` and tuples; the floor the others are measured against."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.contestant import Contestant
from benchmarks.receivers import counting, ignoring
from benchmarks.table import INSERT, SELECT, Row, run_plainly

BY_KEY = f"{SELECT} WHERE id = ?"
BY_LEVEL = f"{SELECT} WHERE level = ?"


class Driver(Contestant):
    name = "driver"
    takes = "rows"
    heard: Callable[..., None] | None = None

    def open(self, path: Path | None) -> None:
        self.connection = sqlite3.connect(path or ":memory:", isolation_level=None)

    def close(self) -> None:
        self.connection.close()

    def plain(self, sql: str, rows: Sequence[Row]) -> list[Row]:
        return run_plainly(self.connection, sql, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        yield
        self.connection.execute("COMMIT")

    def insert(self, rows: Sequence[Row]) -> list[Any]:
        execute = self.connection.execute
        if self.heard is None:
            return [execute(INSERT, row).lastrowid for row in rows]
        receiver, keys = self.heard, []
        for row in rows:
            keys.append(execute(INSERT, row).lastrowid)
            receiver(instance=row, created=True)
        return keys

    def bulk(self, rows: Sequence[Row]) -> None:
        self.connection.executemany(INSERT, rows)

    def get(self, keys: Sequence[int]) -> list[Any]:
        execute = self.connection.execute
        return [execute(BY_KEY, (key,)).fetchone() for key in keys]

    def load(self) -> list[Any]:
        return self.connection.execute(SELECT).fetchall()

    def by_level(self, levels: Sequence[int]) -> list[list[Any]]:
        execute = self.connection.execute
        return [execute(BY_LEVEL, (level,)).fetchall() for level in levels]

    def change(self, keys: Sequence[int]) -> None:
        execute = self.connection.execute
        for key in keys:
            row = execute(BY_KEY, (key,)).fetchone()
            execute("UPDATE item SET amount = ? WHERE id = ?", (row[2] + 1, key))

    def delete(self, instances: Sequence[Row]) -> None:
        execute = self.connection.execute
        for row in instances:
            execute("DELETE FROM item WHERE id = ?", (row[0],))

    def listen(self) -> Callable[[], int]:
        self.heard, calls = counting()

        def stop() -> int:
            self.heard = None
            return calls()

        return stop

    def sender(self, receivers: int) -> Callable[[], Any]:
        listening, instance = ignoring(receivers), object()

        def send() -> None:
            for receiver in listening:
                receiver(sender=Driver, instance=instance, created=True)

        return send

    def row(self, instance: Row) -> Row:
        return instance
