"""The plain driver: `sqlite3` and tuples; the floor the others are measured against."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL

from benchmarks.contestant import Contestant, counting, ignoring
from benchmarks.table import SELECT, SQLITE, Row, run_plainly

BY_KEY = f"{SELECT} WHERE id = ?"
BY_LEVEL = f"{SELECT} WHERE level = ?"


class Driver(Contestant):
    name = "driver"
    takes = "rows"
    insert_one = SQLITE.insert
    by_key = BY_KEY
    by_one_level = BY_LEVEL
    update_one = "UPDATE item SET amount = ? WHERE id = ?"
    delete_one = "DELETE FROM item WHERE id = ?"
    begin = "BEGIN IMMEDIATE"
    heard: Callable[..., None] | None = None
    connection: Any
    execute: Callable[..., Any]

    def open(self, url: URL) -> None:
        self.connection = sqlite3.connect(url.database or ":memory:", isolation_level=None)
        self.execute = self.connection.execute

    def close(self) -> None:
        self.connection.close()

    def plain(self, sql: str, rows: Sequence[Row]) -> list[Row]:
        return run_plainly(self.connection, sql, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.execute(self.begin)
        yield
        self.execute("COMMIT")

    def insert(self, rows: Sequence[Row]) -> list[Any]:
        execute, sql = self.execute, self.insert_one
        if self.heard is None:
            return [execute(sql, row).lastrowid for row in rows]
        receiver, keys = self.heard, []
        for row in rows:
            keys.append(execute(sql, row).lastrowid)
            receiver(instance=row, created=True)
        return keys

    def add(self, row: Row) -> Any:
        return self.execute(self.insert_one, row).lastrowid

    def insert_alone_heard(self, rows: Sequence[Row]) -> list[Any]:
        execute, begin, add, receiver, keys = self.execute, self.begin, self.add, self.heard, []
        assert receiver is not None
        for row in rows:
            execute(begin)
            keys.append(add(row))
            receiver(instance=row, created=True)
            execute("COMMIT")
        return keys

    def bulk(self, rows: Sequence[Row]) -> None:
        self.connection.executemany(self.insert_one, rows)

    def get(self, keys: Sequence[int]) -> list[Any]:
        execute, sql = self.execute, self.by_key
        return [execute(sql, (key,)).fetchone() for key in keys]

    def load(self) -> list[Any]:
        loaded: list[Any] = self.execute(SELECT).fetchall()
        return loaded

    def by_level(self, levels: Sequence[int]) -> list[list[Any]]:
        execute, sql = self.execute, self.by_one_level
        return [execute(sql, (level,)).fetchall() for level in levels]

    def change(self, keys: Sequence[int]) -> None:
        execute, select, update = self.execute, self.by_key, self.update_one
        for key in keys:
            row = execute(select, (key,)).fetchone()
            execute(update, (row[2] + 1, key))

    def delete(self, instances: Sequence[Row]) -> None:
        execute, sql = self.execute, self.delete_one
        for row in instances:
            execute(sql, (row[0],))

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
