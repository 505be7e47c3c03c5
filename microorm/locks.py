"""Locks: whose rows `for_update` locks, and how; and which databases can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import FromClause

from microorm.conditions import columns
from microorm.db.databases import Databases
from microorm.db.engine import Database
from microorm.errors import FieldError, TransactionError
from microorm.mapping.path import Path, alias_of
from microorm.mapping.schema import Schema


class Lock(NamedTuple):
    """How `for_update` locks the rows it finds; *of* are the tables whose rows they are, where some were named."""

    nowait: bool
    skip_locked: bool
    of: tuple[FromClause, ...]


def lock_of(
    schema: Schema, *, nowait: bool, skip_locked: bool, of: Sequence[Any]
) -> tuple[Lock, frozenset[Path]]:
    """The lock that was asked for, and the paths that it needs joined.

    Raises `ValueError` for flags that contradict, `TypeError` and `FieldError` for what has no rows to lock.
    """
    if nowait and skip_locked:
        raise ValueError(
            "for_update() cannot both refuse locked rows (nowait) and leave them out (skip_locked)"
        )
    if not isinstance(of, (tuple, list)):
        raise TypeError(f"for_update() wants a list for of=, not {of!r}")
    tables: dict[FromClause, None] = {}
    needed: frozenset[Path] = frozenset()
    for each in of:
        if each is schema.model:
            tables[schema.table] = None
            continue
        if isinstance(each, Path):
            if each._many or each._root is not schema:
                raise FieldError(f"for_update(): {each!r} leads to no one row of a row of {schema.name}")
            tables[alias_of(each)] = None
            needed |= {each}
            continue
        (column,), paths = columns(schema, "for_update", [each])
        if getattr(column, "table", None) is None:
            raise FieldError(f"for_update(): {column} is no column, and has no rows to lock")
        tables[column.table] = None
        needed |= paths
    return Lock(nowait, skip_locked, tuple(tables)), needed


def refuse_unlockable(lock: Lock, databases: Databases, database: Database) -> None:
    """Raise `TransactionError` where *database* cannot lock rows so, here and now."""
    alias, dialect = database.alias, database.dialect
    transaction = databases.transaction(database)
    if transaction is None:
        raise TransactionError(f"for_update() locks until a block ends, and none is open on {alias!r}")
    if transaction.readonly:
        raise TransactionError(f"for_update() locks rows, and the block on {alias!r} is read-only")
    if dialect == "sqlite" and (lock.nowait or lock.skip_locked or lock.of):
        raise TransactionError(f"for_update(): {alias!r} is SQLite, which has no locks of single rows")
    if dialect != "postgresql" and lock.of:
        raise TransactionError(
            f"for_update(): {alias!r} locks the rows of all tables it reads, not those of="
        )
