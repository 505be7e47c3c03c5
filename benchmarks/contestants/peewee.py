"""peewee: models of its signals extension only where a receiver listens, plain ones elsewhere."""

# mypy: ignore-errors
from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from peewee import BigIntegerField, CharField, DoubleField, Model, PostgresqlDatabase, SqliteDatabase
from playhouse.signals import Model as SignalModel
from playhouse.signals import post_save
from sqlalchemy import URL

from benchmarks.contestant import SENDS, Contestant, counting
from benchmarks.databases import libpq
from benchmarks.table import Row, run_plainly

NO_SENDER = "its signals live in its models only"


class Peewee(Contestant):
    name = "peewee"
    packages = ("peewee",)
    lacks = dict.fromkeys(SENDS, NO_SENDER)

    def open(self, url: URL) -> None:
        self.database = _database(url)
        self.database.connect()
        self.quiet = self.model = self._model(Model)
        self.telling = self._model(SignalModel)

    def _model(self, parent: Any) -> Any:
        class Item(parent):
            name = CharField(max_length=100)
            amount = BigIntegerField()
            score = DoubleField()
            note = CharField(max_length=200, null=True)
            level = BigIntegerField(index=True)

            class Meta:
                database = self.database
                table_name = "item"

        return Item

    def close(self) -> None:
        self.database.close()

    def plain(self, sql: str, rows: Sequence[Row]) -> list[Row]:
        return run_plainly(self.database.connection(), sql, rows)

    def transaction(self) -> AbstractContextManager[Any]:
        return self.database.atomic()

    def insert(self, records: Sequence[Any]) -> list[int]:
        keys = []
        for record in records:
            item = self.model(**record)
            item.save()
            keys.append(item.id)
        return keys

    def insert_alone_heard(self, records: Sequence[Any]) -> list[int]:
        # Its save() calls receivers after the row is committed, unless a block is open.
        keys = []
        for record in records:
            with self.database.atomic():
                keys += self.insert([record])
        return keys

    def bulk(self, records: Sequence[Any]) -> None:
        items = [self.model(**record) for record in records]
        # SQLite's limit on variables asks for batches; 100 rows is what peewee's documentation shows.
        self.model.bulk_create(items, batch_size=100)

    def get(self, keys: Sequence[int]) -> list[Any]:
        return [self.model.get_by_id(key) for key in keys]

    def load(self) -> list[Any]:
        return list(self.model.select())

    def by_level(self, levels: Sequence[int]) -> list[list[Any]]:
        item = self.model
        return [list(item.select().where(item.level == level)) for level in levels]

    def change(self, keys: Sequence[int]) -> None:
        for key in keys:
            item = self.model.get_by_id(key)
            item.amount += 1
            item.save()

    def delete(self, instances: Sequence[Any]) -> None:
        for item in instances:
            item.delete_instance()

    def listen(self) -> Callable[[], int]:
        receiver, calls = counting()
        self.model = self.telling
        post_save.connect(receiver, name="counting", sender=self.telling)

        def stop() -> int:
            post_save.disconnect(name="counting", sender=self.telling)
            self.model = self.quiet
            return calls()

        return stop


def _database(url: URL) -> Any:
    if url.get_backend_name() == "sqlite":
        return SqliteDatabase(url.database or ":memory:")
    options = libpq(url)
    return PostgresqlDatabase(options.pop("dbname"), **options)
