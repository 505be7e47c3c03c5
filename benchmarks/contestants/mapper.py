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
from typing import Any

from sqlalchemy import URL

from benchmarks.contestant import Contestant, counting, ignoring
from benchmarks.table import SELECT, SQLITE, Row, run_plainly


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
    insert_one = SQLITE.insert
    by_key = BY_KEY
    by_one_level = BY_LEVEL
    update_one = UPDATE
    delete_one = "DELETE FROM item WHERE id = ?"
    begin = "BEGIN IMMEDIATE"
    connection: Any
    execute: Callable[..., Any]
    executemany: Callable[..., Any]

    def open(self, url: URL) -> None:
        self.saved = Heard()
        self.connect(url)

    def connect(self, url: URL) -> None:
        self.connection = sqlite3.connect(url.database or ":memory:", isolation_level=None)
        self.execute, self.executemany = self.connection.execute, self.connection.executemany

    def close(self) -> None:
        self.connection.close()

    def plain(self, sql: str, rows: Sequence[Row]) -> list[Row]:
        return run_plainly(self.connection, sql, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.execute(self.begin)
        try:
            yield
        except BaseException:
            self.execute("ROLLBACK")
            raise
        self.execute("COMMIT")

    def add(self, values: Row) -> int:
        key: int = self.execute(self.insert_one, values).lastrowid
        return key

    def save(self, item: Item) -> Item:
        values = (item.name, item.amount, item.score, item.note, item.level)
        created = item.id is None
        if created:
            item.id = self.add(values)
        else:
            self.execute(self.update_one, (*values, item.id))
        if self.saved.receivers:
            self.saved.send(Item, instance=item, created=created)
        return item

    def insert(self, records: Sequence[Any]) -> list[Any]:
        return [self.save(Item(**record)).id for record in records]

    def insert_alone_heard(self, records: Sequence[Any]) -> list[Any]:
        keys = []
        for record in records:
            with self.transaction():
                keys.append(self.save(Item(**record)).id)
        return keys

    def bulk(self, records: Sequence[Any]) -> None:
        items = [Item(**record) for record in records]
        self.executemany(
            self.insert_one, [(item.name, item.amount, item.score, item.note, item.level) for item in items]
        )

    def one(self, key: int) -> Item:
        return Item(*self.execute(self.by_key, (key,)).fetchone())

    def get(self, keys: Sequence[int]) -> list[Any]:
        return [self.one(key) for key in keys]

    def load(self) -> list[Any]:
        return list(starmap(Item, self.execute(ALL)))

    def by_level(self, levels: Sequence[int]) -> list[list[Any]]:
        execute, sql = self.execute, self.by_one_level
        return [list(starmap(Item, execute(sql, (level,)))) for level in levels]

    def change(self, keys: Sequence[int]) -> None:
        for key in keys:
            item = self.one(key)
            item.amount += 1
            self.save(item)

    def delete(self, instances: Sequence[Item]) -> None:
        for item in instances:
            self.execute(self.delete_one, (item.id,))
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
