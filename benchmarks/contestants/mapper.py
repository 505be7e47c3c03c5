"""A hand-written mapper: what a careful person writes over the driver when there is no ORM.

One dataclass, one function per job, no checks, no change tracking, nothing that a rollback would restore.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Any

from benchmarks.contestant import Contestant
from benchmarks.receivers import counting, ignoring
from benchmarks.table import INSERT, SELECT, Row, run_plainly


@dataclass(slots=True)
class Item:
    name: str
    amount: int
    score: float
    note: str | None
    level: int
    id: int | None = None


COLUMNS = "name, amount, score, note, level, id"
ALL = SELECT.replace("id, name, amount, score, note, level", COLUMNS)
BY_KEY = f"{ALL} WHERE id = ?"
BY_LEVEL = f"{ALL} WHERE level = ?"
UPDATE = "UPDATE item SET name = ?, amount = ?, score = ?, note = ?, level = ? WHERE id = ?"


class Heard:
    """The smallest signal worth the name: weak references, called in the order they were connected."""

    def __init__(self) -> None:
        self.receivers: list[weakref.ref[Callable[..., Any]]] = []

    def connect(self, receiver: Callable[..., Any]) -> None:
        self.receivers.append(weakref.ref(receiver))

    def disconnect(self, receiver: Callable[..., Any]) -> None:
        self.receivers.remove(weakref.ref(receiver))

    def send(self, sender: Any, **kwargs: Any) -> list[Any]:
        answers = []
        for reference in self.receivers:
            receiver = reference()
            if receiver is not None:
                answers.append((receiver, receiver(sender=sender, **kwargs)))
        return answers


class Mapper(Contestant):
    name = "mapper"

    def open(self, path: Path | None) -> None:
        self.connection = sqlite3.connect(path or ":memory:", isolation_level=None)
        self.saved = Heard()

    def close(self) -> None:
        self.connection.close()

    def plain(self, sql: str, rows: Sequence[Row]) -> list[Row]:
        return run_plainly(self.connection, sql, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def save(self, item: Item) -> Item:
        values = (item.name, item.amount, item.score, item.note, item.level)
        created = item.id is None
        if created:
            item.id = self.connection.execute(INSERT, values).lastrowid
        else:
            self.connection.execute(UPDATE, (*values, item.id))
        if self.saved.receivers:
            self.saved.send(Item, instance=item, created=created)
        return item

    def insert(self, records: Sequence[Any]) -> list[Any]:
        return [self.save(Item(**record)).id for record in records]

    def bulk(self, records: Sequence[Any]) -> None:
        items = [Item(**record) for record in records]
        self.connection.executemany(
            INSERT, [(item.name, item.amount, item.score, item.note, item.level) for item in items]
        )

    def one(self, key: int) -> Item:
        return Item(*self.connection.execute(BY_KEY, (key,)).fetchone())

    def get(self, keys: Sequence[int]) -> list[Any]:
        return [self.one(key) for key in keys]

    def load(self) -> list[Any]:
        return list(starmap(Item, self.connection.execute(ALL)))

    def by_level(self, levels: Sequence[int]) -> list[list[Any]]:
        execute = self.connection.execute
        return [list(starmap(Item, execute(BY_LEVEL, (level,)))) for level in levels]

    def change(self, keys: Sequence[int]) -> None:
        for key in keys:
            item = self.one(key)
            item.amount += 1
            self.save(item)

    def delete(self, instances: Sequence[Item]) -> None:
        for item in instances:
            self.connection.execute("DELETE FROM item WHERE id = ?", (item.id,))
            item.id = None

    def listen(self) -> Callable[[], int]:
        receiver, calls = counting()
        self.saved.connect(receiver)

        def stop() -> int:
            self.saved.disconnect(receiver)
            return calls()

        return stop

    def sender(self, receivers: int) -> Callable[[], Any]:
        signal, listening, instance = Heard(), ignoring(receivers), object()
        for receiver in listening:
            signal.connect(receiver)

        def send(alive: Any = listening) -> list[Any]:
            return signal.send(Item, instance=instance, created=True)

        return send
