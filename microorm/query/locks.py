"""SELECT … FOR UPDATE: which rows a query locks, and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import FromClause

from microorm.db.engines.engine import Database
from microorm.db.transaction import Transaction
from microorm.errors import FieldError, TransactionError
from microorm.mapping.path import Path, alias_of
from microorm.mapping.schema import Schema
from microorm.messages import brief
from microorm.query.filters import columns


class Lock(NamedTuple):
    """How `for_update` locks rows; *of*: the tables whose rows are locked, if any were given."""

    nowait: bool
    skip_locked: bool
    of: tuple[FromClause, ...]


def lock_of(
    schema: Schema, *, nowait: bool, skip_locked: bool, of: Sequence[Any]
) -> tuple[Lock, frozenset[Path]]:
    """Return the lock, checked, and the paths to be joined for it."""
    if nowait and skip_locked:
        raise ValueError("for_update(): nowait= cannot be combined with skip_locked=")
    if not isinstance(of, (tuple, list)):
        raise TypeError(f"for_update(): of= must be a list, not {brief(of)}")
    tables: dict[FromClause, None] = {}
    needed: frozenset[Path] = frozenset()
    for each in of:
        if each is schema.model:
            tables[schema.table] = None
            continue
        if isinstance(each, Path):
            if each._many or each._root is not schema:
                raise FieldError(f"for_update(): {brief(each)} does not lead from {schema.name} to one row")
            tables[alias_of(each)] = None
            needed |= {each}
            continue
        (column,), paths = columns(schema, "for_update", [each])
        if getattr(column, "table", None) is None:
            raise FieldError(f"for_update(): of= takes columns, and {column} is an expression")
        tables[column.table] = None
        needed |= paths
    return Lock(nowait, skip_locked, tuple(tables)), needed


def refuse_unlockable(lock: Lock, database: Database, transaction: Transaction | None) -> None:
    """Raise `TransactionError` where rows of *database* cannot be locked now, or not in this way."""
    alias, dialect = database.alias, database.dialect
    if transaction is None or transaction.blocks[-1].of_test:  # which is not there outside of tests
        raise TransactionError(f"for_update() needs an open block, and none is open on {alias!r}")
    if transaction.readonly:
        raise TransactionError(f"for_update() needs a block that may write; that on {alias!r} is read-only")
    if dialect == "sqlite" and (lock.nowait or lock.skip_locked or lock.of):
        raise TransactionError(f"for_update(): {alias!r} is SQLite, which cannot lock single rows")
    if dialect != "postgresql" and lock.of:
        raise TransactionError(f"for_update(): {alias!r} locks rows of all tables; of= is for PostgreSQL")
