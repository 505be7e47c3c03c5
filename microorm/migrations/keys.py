"""Keys: what alembic passes over when it compares a table: its primary key, and on SQLite indexes on expressions."""

from __future__ import annotations

from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import CreateIndexOp, ModifyTableOps
from alembic.util import PriorityDispatchResult
from sqlalchemy import Column, Connection, Index, Table, text

from microorm.migrations.operations import ChangedKey


def compare_keys(
    autogenerate: AutogenContext,
    changes: ModifyTableOps,
    schema: str | None,
    name: str,
    stored: Table | None,
    wanted: Table | None,
) -> PriorityDispatchResult:
    """Add to *changes* that the table *name* has another primary key, and the indexes that only a name tells of."""
    if wanted is None:
        return PriorityDispatchResult.CONTINUE
    if stored is not None:
        before, after = _columns(stored), _columns(wanted)
        if before != after:
            changes.ops.append(ChangedKey(name, before, after))
    connection = autogenerate.connection
    if connection is not None and autogenerate.dialect.name == "sqlite":
        there = set() if stored is None else _indexes(connection, name)
        for index in sorted(wanted.indexes, key=lambda each: str(each.name)):
            if _on_expressions(index) and index.name not in there:
                changes.ops.append(CreateIndexOp.from_index(index))
    return PriorityDispatchResult.CONTINUE


def _columns(table: Table) -> tuple[str, ...]:
    return tuple(sorted(column.name for column in table.primary_key.columns))


def _on_expressions(index: Index) -> bool:
    return any(not isinstance(each, Column) for each in index.expressions)


def _indexes(connection: Connection, table: str) -> set[str]:
    query = text("SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = :table")
    return set(connection.execute(query, {"table": table}).scalars())
