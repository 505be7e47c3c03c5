"""Indexes that alembic cannot compare: with a descending column, or on expressions.

PostgreSQL describes these completely. SQLite and MariaDB are asked for the order of each column.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic.operations import MigrateOperation, ops
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import UnaryExpression

Order = list[tuple[str, bool]]  # columns, and whether they are descending

_MARIADB = sa.text(
    "SELECT column_name, collation = 'D', non_unique FROM information_schema.statistics"
    " WHERE table_schema = coalesce(:schema, DATABASE()) AND table_name = :table AND index_name = :index ORDER BY seq_in_index"
)


def incomparable_indexes(metadata: sa.MetaData, dialect: str) -> frozenset[str]:
    """Return the names of the indexes of the models that alembic cannot compare on *dialect*."""
    if dialect == "postgresql":
        return frozenset()
    indexes = (index for table in metadata.tables.values() for index in table.indexes)
    return frozenset(
        str(index.name)
        for index in indexes
        if not all(isinstance(each, sa.Column) for each in index.expressions)
    )


def compare_indexes(
    connection: sa.Connection, stored: sa.Table | None, wanted: sa.Table, names: frozenset[str]
) -> Iterator[MigrateOperation]:
    """Yield what the indexes *names* of *wanted* need; of one on an expression only the name is compared."""
    present = set() if stored is None else _present(connection, stored)
    for index in sorted(wanted.indexes, key=lambda each: str(each.name)):
        if index.name not in names or (connection.dialect.name != "sqlite" and _order(index) is None):
            continue
        if stored is not None and index.name in present:
            order, found = _order(index), _stored_order(connection, stored, str(index.name))
            if order is None or (order, bool(index.unique)) == found:
                continue
            yield ops.DropIndexOp.from_index(_index(stored, str(index.name), *found))
        yield ops.CreateIndexOp.from_index(index)


def _present(connection: sa.Connection, table: sa.Table) -> set[Any]:
    if connection.dialect.name == "sqlite":
        query = sa.text("SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = :table")
        return set(connection.execute(query, {"table": table.name}).scalars())
    return {each["name"] for each in sa.inspect(connection).get_indexes(table.name, schema=table.schema)}


def _order(index: sa.Index) -> Order | None:
    """Return the columns of *index* in their order, or None if it has other expressions."""
    order: Order = []
    expressions: list[Any] = list(index.expressions)
    table: Any = index.table
    for each in expressions:
        descending = isinstance(each, UnaryExpression) and each.modifier is operators.desc_op
        ascending = isinstance(each, UnaryExpression) and each.modifier is operators.asc_op
        inner = each.element if descending or ascending else each
        column = inner if isinstance(inner, sa.Column) else table.c.get(str(inner))  # `desc("name")`
        if column is None:
            return None
        order.append((column.name, descending))
    return order


def _stored_order(connection: sa.Connection, table: sa.Table, index: str) -> tuple[Order, bool]:
    """Return the columns of an index that exists in their order, and whether it is unique."""
    if connection.dialect.name == "sqlite":
        quoted = connection.dialect.identifier_preparer.quote(index)
        rows = connection.exec_driver_sql(f"PRAGMA index_xinfo({quoted})")
        order = [(row.name, bool(row.desc)) for row in rows if row.key]
        unique = sa.text('SELECT "unique" FROM pragma_index_list(:table) WHERE name = :index')
        return order, bool(connection.execute(unique, {"table": table.name, "index": index}).scalar())
    names = {"schema": table.schema, "table": table.name, "index": index}
    found = connection.execute(_MARIADB, names).all()
    return [(name, bool(descending)) for name, descending, _ in found], not found[0][2]


def complete_drop(
    connection: sa.Connection, stored: sa.Table, operation: MigrateOperation
) -> MigrateOperation:
    """Return *operation*; if it drops an index with a descending column, one that can be reversed."""
    if not isinstance(operation, ops.DropIndexOp) or connection.dialect.name == "postgresql":
        return operation
    order, unique = _stored_order(connection, stored, str(operation.index_name))
    if not any(descending for _, descending in order):
        return operation
    return ops.DropIndexOp.from_index(_index(stored, str(operation.index_name), order, unique))


def _index(stored: sa.Table, name: str, order: Order, unique: bool) -> sa.Index:
    columns = [sa.desc(stored.c[each]) if descending else stored.c[each] for each, descending in order]
    return sa.Index(name, *columns, unique=unique, _table=stored)
