"""Differences: a change that a database needs, in words."""

from __future__ import annotations

from collections.abc import Iterator

from alembic.operations import MigrateOperation
from alembic.operations.ops import (
    AddColumnOp,
    AddConstraintOp,
    AlterColumnOp,
    CreateIndexOp,
    CreateTableOp,
    DropColumnOp,
    DropConstraintOp,
    DropIndexOp,
    DropTableOp,
    ModifyTableOps,
    UpgradeOps,
)

from microorm.migrations.operations import ChangedKey


def described(upgrade: UpgradeOps) -> Iterator[str]:
    """One line for each change in *upgrade*, as what the database has or lacks."""
    for operation in upgrade.ops:
        if isinstance(operation, ModifyTableOps):
            for inner in operation.ops:
                yield _described(inner, operation.table_name)
        else:
            yield _described(operation, str(getattr(operation, "table_name", "")))


def _described(operation: MigrateOperation, table: str) -> str:
    match operation:
        case CreateTableOp():
            return f"the table {table!r} is missing"
        case DropTableOp():
            return f"the table {table!r} is left over"
        case AddColumnOp():
            return f"the column '{table}.{operation.column.name}' is missing"
        case DropColumnOp():
            return f"the column '{table}.{operation.column_name}' is left over"
        case AlterColumnOp():
            return f"the column '{table}.{operation.column_name}' differs in its {_altered(operation)}"
        case CreateIndexOp():
            return f"the index {operation.index_name!r} of {table!r} is missing"
        case DropIndexOp():
            return f"the index {str(operation.index_name)!r} of {table!r} is left over"
        case AddConstraintOp():
            return f"the constraint {str(operation.to_constraint().name)!r} of {table!r} is missing"
        case DropConstraintOp():
            return f"the constraint {str(operation.constraint_name)!r} of {table!r} is left over"
        case ChangedKey(stored=stored, wanted=wanted):
            return f"the primary key of {table!r} is {stored!r}, and {wanted!r} in the models"
    return f"the comment of {table!r} differs"


def _altered(operation: AlterColumnOp) -> str:
    changed = {
        "type": operation.modify_type is not None,
        "nullability": operation.modify_nullable is not None,
        "default": operation.modify_server_default is not False,
        "comment": operation.modify_comment is not False,
    }
    return " and ".join(name for name, differs in changed.items() if differs)
