"""Momentary: what a model says, in the words in which a database would keep it.

A server rewrites a CHECK and a default, so the model's is told to the same server, on a temporary table, and read back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Inspector, MetaData, Table, inspect
from sqlalchemy.schema import SchemaItem

NAME = "microorm_momentary"


@contextmanager
def momentary(connection: Connection, *items: SchemaItem) -> Iterator[Inspector]:
    """Let a table of columns and constraints be there, for as long as it is looked at."""
    table = Table(NAME, MetaData(), *items, prefixes=["TEMPORARY"])
    table.create(connection, checkfirst=False)
    try:
        yield inspect(connection)
    finally:
        table.drop(connection, checkfirst=False)
