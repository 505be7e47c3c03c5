"""The plain driver and the hand-written mapper on PostgreSQL: psycopg, one cursor that is kept.

psycopg prepares a statement by itself once it has been executed five times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from sqlalchemy import URL

from benchmarks.contestants.driver import Driver
from benchmarks.contestants.mapper import Mapper
from benchmarks.databases import libpq
from benchmarks.table import POSTGRESQL, Row

RETURNING = f"{POSTGRESQL.insert} RETURNING id"


def _spelled(sql: str) -> str:
    return sql.replace("?", POSTGRESQL.mark)


class Psycopg(Driver):
    packages = ("psycopg",)
    insert_one = RETURNING
    by_key = _spelled(Driver.by_key)
    by_one_level = _spelled(Driver.by_one_level)
    update_one = _spelled(Driver.update_one)
    delete_one = _spelled(Driver.delete_one)
    begin = "BEGIN"

    def open(self, url: URL) -> None:
        self.connection = psycopg.connect(**libpq(url), autocommit=True)
        self.cursor = self.connection.cursor()
        self.execute = self.cursor.execute

    def insert(self, rows: Sequence[Row]) -> list[Any]:
        execute, receiver, keys = self.execute, self.heard, []
        for row in rows:
            keys.append(execute(RETURNING, row).fetchone()[0])
            if receiver is not None:
                receiver(instance=row, created=True)
        return keys

    def add(self, row: Row) -> Any:
        return self.execute(RETURNING, row).fetchone()[0]

    def bulk(self, rows: Sequence[Row]) -> None:
        self.cursor.executemany(POSTGRESQL.insert, rows)


class PsycopgMapper(Mapper):
    packages = ("psycopg",)
    insert_one = POSTGRESQL.insert
    by_key = _spelled(Mapper.by_key)
    by_one_level = _spelled(Mapper.by_one_level)
    update_one = _spelled(Mapper.update_one)
    delete_one = _spelled(Mapper.delete_one)
    begin = "BEGIN"

    def connect(self, url: URL) -> None:
        self.connection = psycopg.connect(**libpq(url), autocommit=True)
        cursor = self.connection.cursor()
        self.execute, self.executemany = cursor.execute, cursor.executemany

    def add(self, values: Row) -> int:
        key: int = self.execute(RETURNING, values).fetchone()[0]
        return key
