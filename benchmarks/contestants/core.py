"""SQLAlchemy Core at its quickest: statements built once, values bound, the compiled form from its cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import starmap
from typing import Any

from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    Double,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    create_engine,
    delete,
    insert,
    select,
    update,
)

from benchmarks.contestant import SENDS, Contestant, counting
from benchmarks.contestants.mapper import Item
from benchmarks.table import Row, run_plainly
from benchmarks.workloads import KEYS

item = Table(
    "item",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", String(100), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("score", Double, nullable=False),
    Column("note", String(200)),
    Column("level", BigInteger, nullable=False),
)
INSERT = insert(item)
ALL = select(item)
BY_KEY = ALL.where(item.c.id == bindparam("key"))
BY_LEVEL = ALL.where(item.c.level == bindparam("level"))
UPDATE = update(item).where(item.c.id == bindparam("key")).values(amount=bindparam("amount"))
DELETE = delete(item).where(item.c.id == bindparam("key"))
OBJECTS = select(*item.c["name", "amount", "score", "note", "level", "id"])
OBJECT_BY_KEY = OBJECTS.where(item.c.id == bindparam("key"))
OBJECTS_BY_LEVEL = OBJECTS.where(item.c.level == bindparam("level"))
READS = {"get", "get_inside", "get_pk", "get_pk_inside", "load", "filter", "filter_expression"}
NO_SIGNALS = "Core has no signals"


class Core(Contestant):
    name = "core"
    packages = ("sqlalchemy",)
    lacks = dict.fromkeys(("insert_heard", *SENDS), NO_SIGNALS)

    def open(self, url: URL) -> None:
        self.engine = create_engine(url, isolation_level="AUTOCOMMIT")
        self.begin = "BEGIN IMMEDIATE" if url.get_backend_name() == "sqlite" else "BEGIN"
        # One connection, kept: checking one out for each statement would cost several microseconds more.
        self.connection = self.engine.connect()

    def close(self) -> None:
        self.connection.close()
        self.engine.dispose()

    def plain(self, sql: str, rows: Sequence[Row]) -> list[Row]:
        raw: Any = self.connection.connection.dbapi_connection
        return run_plainly(raw, sql, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.connection.exec_driver_sql(self.begin)
        yield
        self.connection.exec_driver_sql("COMMIT")

    def insert(self, records: Sequence[Any]) -> list[int]:
        execute: Any = self.connection.execute
        return [execute(INSERT, record).inserted_primary_key[0] for record in records]

    def insert_alone_heard(self, records: Sequence[Any]) -> list[int]:
        keys = []
        for record in records:
            with self.transaction():
                keys += self.insert([record])
                self.heard(instance=record, created=True)
        return keys

    def insert_alone_on_commit(self, records: Sequence[Any]) -> list[int]:
        keys = []
        for record in records:
            keys += self.insert([record])
            self.heard(instance=record, created=True)
        return keys

    def bulk(self, records: Sequence[Any]) -> None:
        self.connection.execute(INSERT, records)

    def get(self, keys: Sequence[int]) -> list[Any]:
        execute = self.connection.execute
        return [execute(BY_KEY, {"key": key}).one() for key in keys]

    def load(self) -> Sequence[Any]:
        return self.connection.execute(ALL).all()

    def by_level(self, levels: Sequence[int]) -> list[Sequence[Any]]:
        execute = self.connection.execute
        return [execute(BY_LEVEL, {"level": level}).all() for level in levels]

    def change(self, keys: Sequence[int]) -> None:
        execute = self.connection.execute
        for key in keys:
            row = execute(BY_KEY, {"key": key}).one()
            execute(UPDATE, {"key": key, "amount": row.amount + 1})

    def delete(self, instances: Sequence[Any]) -> None:
        execute = self.connection.execute
        for row in instances:
            execute(DELETE, {"key": row.id})

    def listen(self) -> Callable[[], int]:
        # There are no signals: an application over Core calls its function after the statement.
        self.heard, calls = counting()
        return calls


class CoreObjects(Core):
    """Core's rows turned into the mapper's objects, as an application over Core does it."""

    name = "core_objects"
    lacks = dict.fromkeys(set(KEYS) - READS, "as core does it")

    def get(self, keys: Sequence[int]) -> list[Any]:
        execute = self.connection.execute
        return [Item(*execute(OBJECT_BY_KEY, {"key": key}).one()) for key in keys]

    def load(self) -> list[Any]:
        return list(starmap(Item, self.connection.execute(OBJECTS)))

    def by_level(self, levels: Sequence[int]) -> list[Sequence[Any]]:
        execute = self.connection.execute
        return [list(starmap(Item, execute(OBJECTS_BY_LEVEL, {"level": level}))) for level in levels]
