"""Suspension: foreign keys that are in the way of a change are dropped first and created again last.

No server lets the type of a column change to one that a foreign key cannot compare. MariaDB lets it not
change at all, and keeps an index as long as a foreign key has no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa
from alembic.operations import MigrateOperation, ops
from sqlalchemy.sql.elements import conv

from microorm.migrations.operations import RenameColumnOp
from microorm.migrations.renames import Rename, renamed_columns, renamed_tables

Columns = tuple[str, tuple[str, ...]]  # a table, and columns of it


def suspend_foreign_keys(
    upgrade: ops.UpgradeOps, connection: sa.Connection, metadata: sa.MetaData, renames: Iterable[Rename]
) -> None:
    """Add to *upgrade* what drops and creates the foreign keys that are in the way of its other operations.

    On SQLite no foreign key is: they are switched off while it migrates.
    """
    if connection.dialect.name == "sqlite":
        return
    changes = [inner for each in upgrade.ops if isinstance(each, ops.ModifyTableOps) for inner in each.ops]
    retyped = {
        (each.table_name, each.column_name)
        for each in changes
        if isinstance(each, ops.AlterColumnOp)
        and not isinstance(each, RenameColumnOp)
        and each.modify_type is not None
    }
    lost = [columns for each in changes for columns in _lost_index(each)]
    if not retyped and not lost:
        return
    dropped = {
        (each.table_name, str(each.constraint_name))
        for each in changes
        if isinstance(each, ops.DropConstraintOp)
    }
    for stored, wanted in _lasting_keys(connection, metadata, tuple(renames)):
        sides = _sides(stored)
        needed = any(
            table == of and columns == index[: len(columns)] for table, columns in sides for of, index in lost
        )
        changed = any((table, each) in retyped for table, columns in _sides(wanted) for each in columns)
        if (needed or changed) and (stored.source_table, str(stored.constraint_name)) not in dropped:
            drop = ops.DropConstraintOp(
                stored.constraint_name, stored.source_table, type_="foreignkey", _reverse=stored
            )
            upgrade.ops.insert(0, ops.ModifyTableOps(stored.source_table, [drop]))
            upgrade.ops.append(ops.ModifyTableOps(wanted.source_table, [wanted]))


def _lost_index(operation: MigrateOperation) -> Iterator[Columns]:
    """Yield the columns of the index that *operation* drops, with that of a constraint."""
    if isinstance(operation, ops.DropIndexOp) and operation.table_name is not None:
        yield operation.table_name, tuple(column.name for column in operation.to_index().columns)
    if isinstance(operation, ops.DropConstraintOp):
        constraint = operation.to_constraint()
        if isinstance(constraint, sa.UniqueConstraint):
            yield operation.table_name, tuple(column.name for column in constraint.columns)


def _sides(key: ops.CreateForeignKeyOp) -> tuple[Columns, Columns]:
    """Return the columns of *key*, and those that it refers to."""
    return (key.source_table, tuple(key.local_cols)), (key.referent_table, tuple(key.remote_cols))


def _lasting_keys(
    connection: sa.Connection, metadata: sa.MetaData, renames: tuple[Rename, ...]
) -> Iterator[tuple[ops.CreateForeignKeyOp, ops.CreateForeignKeyOp]]:
    """Yield the foreign keys of the database that the models have, too: as they are stored, and as they are wanted."""
    stored: dict[str, list[Any]] = {
        table: list(keys) for (_, table), keys in sa.inspect(connection).get_multi_foreign_keys().items()
    }
    tables = renamed_tables(renames)
    for table in metadata.tables.values():
        if table.schema is not None:
            continue
        old_table, columns = tables.get(table.name, table.name), renamed_columns(renames, table.name)
        for key in table.foreign_key_constraints:
            old_columns = [columns.get(each, each) for each in key.column_keys]
            for found in stored.get(old_table, ()):
                if found["constrained_columns"] == old_columns and found["name"] is not None:
                    yield _stored_key(old_table, found), ops.CreateForeignKeyOp.from_constraint(key)


def _stored_key(table: str, found: Any) -> ops.CreateForeignKeyOp:
    names = ("ondelete", "onupdate", "deferrable", "initially")
    options = {name: found["options"][name] for name in names if name in found.get("options", {})}
    columns, referred = found["constrained_columns"], found["referred_columns"]
    return ops.CreateForeignKeyOp(
        conv(found["name"]), table, found["referred_table"], columns, referred, **options
    )
