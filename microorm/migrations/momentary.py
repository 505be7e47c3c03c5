"""Momentary: what a model says, in the words in which a database would keep it.

A server rewrites a CHECK and a default, so the model's is told to the same server, on a temporary table, and read back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Inspector, MetaData, Table, inspect
from sqlalchemy.schema import CreateTable, SchemaItem

NAME = "microorm_momentary"


@contextmanager
def momentary(connection: Connection, *items: SchemaItem) -> Iterator[Inspector]:
    """Let a table of columns and constraints be there, for as long as it is looked at."""
    # Not by `Table.create`, which makes the types of its columns, too, and not by `Table.drop`, which drops them.
    connection.execute(CreateTable(Table(NAME, MetaData(), *items, prefixes=["TEMPORARY"])))
    try:
        yield inspect(connection)
    finally:
        kind = "TABLE" if connection.dialect.name in ("sqlite", "postgresql") else "TEMPORARY TABLE"
        connection.exec_driver_sql(f"DROP {kind} {NAME}")
