"""Pony: a `db_session` for each job, flushed after each object so that each is written one by one."""

# mypy: ignore-errors
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pony.orm import Database, Optional, PrimaryKey, Required, commit, db_session, flush, select
from sqlalchemy import URL

from benchmarks.contestant import SENDS, Contestant, counting
from benchmarks.databases import libpq
from benchmarks.table import Row

NO_SENDER = "its hooks are methods, not signals"


class Pony(Contestant):
    name = "pony"
    packages = ("pony",)
    lacks = dict.fromkeys(SENDS, NO_SENDER)

    def open(self, url: URL) -> None:
        self.held: Any = None
        self.database = database = Database()

        class Item(database.Entity):
            _table_ = "item"
            id = PrimaryKey(int, auto=True)
            name = Required(str, 100)
            amount = Required(int, size=64)
            score = Required(float)
            note = Optional(str, 200, nullable=True)
            level = Required(int, size=64, index=True)

        if url.get_backend_name() == "sqlite":
            database.bind(provider="sqlite", filename=url.database or ":memory:")
        else:
            database.bind(provider="postgres", **libpq(url))
        database.generate_mapping(check_tables=False)
        self.model = Item

    def close(self) -> None:
        self.database.disconnect()

    @db_session
    def plain(self, sql: str, rows: Sequence[Row]) -> list[Row]:
        connection = self.database.get_connection()  # which has begun a transaction
        if rows:
            connection.executemany(sql, rows)
            return []
        return [tuple(row) for row in connection.execute(sql).fetchall()]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self.held is None:
            self._enter()
        yield
        self._leave()

    def _enter(self) -> None:
        self.held = db_session(immediate=True)
        self.held.__enter__()

    def _leave(self) -> None:
        session, self.held = self.held, None
        session.__exit__()

    def insert(self, records: Sequence[Any]) -> list[int]:
        keys = []
        for record in records:
            item = self.model(**record)
            flush()
            keys.append(item.id)
        return keys

    def insert_alone(self, records: Sequence[Any]) -> list[int]:
        keys = []
        with db_session:
            for record in records:
                item = self.model(**record)
                commit()
                keys.append(item.id)
        return keys

    def insert_alone_on_commit(self, records: Sequence[Any]) -> list[int]:
        # It has no hook for this: an application calls its function after commit().
        keys = []
        with db_session:
            for record in records:
                item = self.model(**record)
                commit()
                self.heard(instance=item, created=True)
                keys.append(item.id)
        return keys

    def bulk(self, records: Sequence[Any]) -> None:
        for record in records:
            self.model(**record)

    @db_session
    def get(self, keys: Sequence[int]) -> list[Any]:
        return [self.model[key] for key in keys]

    @db_session
    def load(self) -> list[Any]:
        return list(self.model.select())

    @db_session
    def by_level(self, levels: Sequence[int]) -> list[list[Any]]:
        item = self.model
        return [list(item.select().filter(level=level)) for level in levels]

    @db_session
    def by_expression(self, levels: Sequence[int]) -> list[list[Any]]:
        item = self.model
        return [list(select(each for each in item if each.level == level)) for level in levels]

    def change(self, keys: Sequence[int]) -> None:
        for key in keys:
            item = self.model[key]
            item.amount += 1
            flush()

    @db_session
    def change_alone(self, keys: Sequence[int]) -> None:
        for key in keys:
            item = self.model[key]
            item.amount += 1
            commit()

    def fetch(self, keys: Sequence[int]) -> list[Any]:
        # An object lives in the session that loaded it, so the session of the coming transaction opens here.
        self._enter()
        return [self.model[key] for key in keys]

    def delete(self, instances: Sequence[Any]) -> None:
        for item in instances:
            item.delete()
            flush()

    def delete_alone(self, instances: Sequence[Any]) -> None:
        for item in instances:
            item.delete()
            commit()
        self._leave()

    def listen(self) -> Callable[[], int]:
        receiver, calls = counting()

        def after_insert(instance: Any) -> None:
            receiver(sender=self.model, instance=instance, created=True)

        self.model.after_insert = after_insert

        def stop() -> int:
            del self.model.after_insert
            return calls()

        return stop

    def listen_on_commit(self) -> Callable[[], int]:
        self.heard, calls = counting()
        return calls
