"""Operations: what revisions do beside alembic's own operations, such as filling a column or running on some databases.

`op.fill_column` may be used in revisions written by hand. The others are written by autogenerate as alembic's
operations.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from copy import copy
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, Operations, ops
from alembic.operations.ops import AddColumnOp, AlterColumnOp, ModifyTableOps, OpContainer
from sqlalchemy.sql.elements import conv
from sqlalchemy.types import TypeEngine

from microorm.fields.types import Duration, ExactNumeric, UtcDateTime
from microorm.migrations.dialects import DIALECTS, render_sql
from microorm.registry import NAMING

# Derived types come before their bases.
_ZEROS: dict[type[TypeEngine[Any]], Any] = {
    UtcDateTime: datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC),
    ExactNumeric: Decimal(0),
    Duration: datetime.timedelta(),
    sa.Boolean: False,
    sa.Integer: 0,
    sa.Float: 0.0,
    sa.Numeric: Decimal(0),
    sa.String: "",
    sa.LargeBinary: b"",
    sa.DateTime: datetime.datetime(1970, 1, 1),  # noqa: DTZ001 of a column without a time zone
    sa.Date: datetime.date(1970, 1, 1),
    sa.Time: datetime.time(),
    sa.Uuid: UUID(int=0),
    sa.JSON: {},
}


def zero_value(type_: TypeEngine[Any]) -> Any:
    """Return the value that fills a NOT NULL column of *type_* whose values were dropped, or None if there is none."""
    return next((zero for kind, zero in _ZEROS.items() if isinstance(type_, kind)), None)


def altered(operation: AlterColumnOp) -> tuple[str, ...]:
    """Name what *operation* changes: type, nullability, default, comment."""
    changes = {
        "type": operation.modify_type is not None,
        "nullability": operation.modify_nullable is not None,
        "default": operation.modify_server_default is not False,
        "comment": operation.modify_comment is not False,
    }
    return tuple(name for name, changed in changes.items() if changed)


@Operations.register_operation("fill_column")
class FillColumnOp(MigrateOperation):
    """Set one column in the rows where it is NULL."""

    def __init__(
        self,
        table_name: str,
        column_name: str,
        type_: TypeEngine[Any],
        value: Any,
        *,
        schema: str | None = None,
    ) -> None:
        self.table_name = table_name
        self.schema = schema
        self.column_name = column_name
        self.type_ = type_
        self.value = value

    @classmethod
    def fill_column(
        cls,
        operations: Operations,
        table_name: str,
        column_name: str,
        type_: TypeEngine[Any],
        value: Any,
        *,
        schema: str | None = None,
    ) -> Any:
        """Set *column_name* to *value* in each row of *table_name* where it is NULL."""
        return operations.invoke(cls(table_name, column_name, type_, value, schema=schema))

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Describe the operation for `alembic check`."""
        return ("fill_column", self.table_name, self.column_name, self.value)


@Operations.implementation_for(FillColumnOp)
def fill_column(operations: Operations, operation: FillColumnOp) -> None:
    """Execute a `FillColumnOp`."""
    column: sa.ColumnClause[Any] = sa.column(operation.column_name, operation.type_)
    table = sa.table(operation.table_name, column, schema=operation.schema)
    value = sa.literal(operation.value, operation.type_)
    operations.execute(sa.update(table).where(column.is_(None)).values({column: value}))


class RequiredColumnOps(OpContainer):
    """Make a column NOT NULL in a table that may have rows: add it as nullable if it is new, fill it, then alter it."""

    def __init__(self, operation: AddColumnOp | AlterColumnOp, column: sa.Column[Any], value: Any) -> None:
        table, schema = operation.table_name, operation.schema
        steps: list[MigrateOperation] = [FillColumnOp(table, column.name, column.type, value, schema=schema)]
        narrow = operation
        if isinstance(operation, AddColumnOp):
            steps.insert(0, _add_nullable(table, column, schema))
            narrow = AlterColumnOp(
                table,
                column.name,
                schema=schema,
                existing_type=column.type,
                existing_nullable=True,
                modify_nullable=False,
            )
        super().__init__([*steps, ModifyTableOps(table, [narrow], schema=schema)])
        self.table_name = table
        self.schema = schema
        self._operation = operation

    def reverse(self) -> ModifyTableOps:
        """Drop the column, or make it nullable, without a step for its values."""
        return ModifyTableOps(self.table_name, [self._operation.reverse()], schema=self.schema)


class AddWithoutValueOps(ModifyTableOps):
    """Add a NOT NULL column without a default, which the revision says in a comment."""

    @property
    def note(self) -> str:
        """What becomes of tables with rows."""
        (added,) = self.ops
        column = f"{self.table_name}.{added.column.name}"  # type: ignore[attr-defined]
        return (
            f"{column} is required and has no default: this fails if {self.table_name} has rows. "
            "Give it a default, or add it as nullable and fill it first."
        )


class DropRequiredColumnOps(ModifyTableOps):
    """Drop a NOT NULL column, which comes back with the zero of its type.

    A *constrained* column comes back as nullable, because a zero might violate the constraint.
    """

    def __init__(self, drop: ops.DropColumnOp, *, constrained: bool = False) -> None:
        super().__init__(drop.table_name, [drop], schema=drop.schema)
        self._column = drop.to_column()
        self._constrained = constrained

    def reverse(self) -> Any:
        """Add the column, with a value for each row."""
        added = super().reverse()
        if self._constrained:
            return _add_nullable(self.table_name, self._column, self.schema)
        zero = zero_value(self._column.type)
        return added if zero is None else RequiredColumnOps(added.ops[0], self._column, zero)  # type: ignore[arg-type]


def _add_nullable(table: str, column: sa.Column[Any], schema: str | None) -> ModifyTableOps:
    added = AddColumnOp(table, sa.Column(column.name, column.type, nullable=True), schema=schema)
    return ModifyTableOps(table, [added], schema=schema)


def table_key(operation: Any) -> str:
    """Return the key in a MetaData of the table of *operation*."""
    schema = getattr(operation, "schema", None)
    return f"{schema}.{operation.table_name}" if schema else str(operation.table_name)


class RenameColumnOp(AlterColumnOp):
    """Rename a column. *retyped* says that another operation changes its type."""

    retyped = False

    def only_rename(self) -> RenameColumnOp:
        """Forget what else is to change; return the operation."""
        self.retyped = self.modify_type is not None
        self.modify_type = self.modify_nullable = None
        self.modify_server_default = self.modify_comment = False
        return self

    def between(self, old: str, new: str) -> RenameColumnOp:
        """Return the same operation for other names."""
        renamed = copy(self)
        renamed.column_name, renamed.modify_name = old, new
        return renamed

    def reverse(self) -> AlterColumnOp:
        """Swap the names, and undo what is altered."""
        back = super().reverse()
        back.column_name, back.modify_name = str(self.modify_name), self.column_name
        return back

    def has_changes(self) -> bool:
        """Return True: the name changes."""
        return True


class RenameTableOp(ops.RenameTableOp):
    """Rename a table; alembic's operation cannot be reversed.

    *key* says that PostgreSQL, where a primary key has a name that no other table may use, renames that, too.
    """

    key = False

    def between(self, old: str, new: str) -> RenameTableOp:
        """Return the same operation for other names."""
        renamed = copy(self)
        renamed.table_name, renamed.new_table_name = old, new
        return renamed

    def reverse(self) -> RenameTableOp:
        """Swap the names."""
        return self.between(self.new_table_name, self.table_name)


class CreateCheckOp(ops.CreateCheckConstraintOp):
    """Add a CHECK whose *condition* may differ by dialect. *name* is final: no naming convention applies."""

    def __init__(self, name: str, table: str, condition: Any) -> None:
        super().__init__(conv(name), table, condition)

    def reverse(self) -> DropCheckOp:
        """Drop the CHECK."""
        return DropCheckOp(str(self.constraint_name), self.table_name, self.condition)


class DropCheckOp(ops.DropConstraintOp):
    """Drop a CHECK, and keep its *condition* for the way back."""

    def __init__(self, name: str, table: str, condition: Any) -> None:
        super().__init__(conv(name), table, type_="check", _reverse=CreateCheckOp(name, table, condition))
        self.condition = condition

    def reverse(self) -> CreateCheckOp:
        """Add the CHECK again."""
        return CreateCheckOp(str(self.constraint_name), self.table_name, self.condition)


class ChangePrimaryKeyOp(MigrateOperation):
    """Say that a table has another primary key than its model; no revision can be made for that."""

    def __init__(self, table_name: str, stored: tuple[str, ...], wanted: tuple[str, ...]) -> None:
        self.table_name = table_name
        self.stored = stored
        self.wanted = wanted

    def __str__(self) -> str:
        stored, wanted = (
            ", ".join(map(repr, columns)) or "missing" for columns in (self.stored, self.wanted)
        )
        return f"the primary key of {self.table_name!r} is {stored}, but {wanted} in the models"

    def reverse(self) -> ChangePrimaryKeyOp:
        """Swap the keys."""
        return ChangePrimaryKeyOp(self.table_name, self.wanted, self.stored)


class ConditionalOps(OpContainer):
    """Operations for some of the databases that hold the table.

    *condition* is one argument of `on`: `alias`, `dialect`, or `missing` for a table that a router has moved.
    """

    def __init__(self, operations: Sequence[MigrateOperation], condition: Mapping[str, Any]) -> None:
        super().__init__(operations)
        self.condition = condition

    def reverse(self) -> ConditionalOps:
        """Reverse the operations on the same databases.

        A table that was missing stays: the revision that creates it elsewhere drops it on all databases.
        """
        reversible = () if "missing" in self.condition else reversed(self.ops)
        return ConditionalOps([operation.reverse() for operation in reversible], self.condition)


def _render(autogenerate: AutogenContext, operations: Sequence[MigrateOperation]) -> list[str]:
    lines: list[str] = []
    for operation in operations:
        rendered = renderers.dispatch(operation)(autogenerate, operation)
        lines.extend([rendered] if isinstance(rendered, str) else rendered)
    return lines


@renderers.dispatch_for(ConditionalOps)
def _render_conditional(autogenerate: AutogenContext, conditional: ConditionalOps) -> list[str]:
    if not conditional.ops:
        return []
    autogenerate.imports.add("from microorm.migrations import on")
    ((name, value),) = conditional.condition.items()
    value = value[0] if isinstance(value, tuple) and len(value) == 1 else value
    return [f"if on({name}={value!r}):", *_render(autogenerate, conditional.ops), ""]


@renderers.dispatch_for(RequiredColumnOps)
def _render_required_column(autogenerate: AutogenContext, required: RequiredColumnOps) -> list[str]:
    return _render(autogenerate, required.ops)


@renderers.dispatch_for(AddWithoutValueOps)
def _render_without_value(autogenerate: AutogenContext, adding: AddWithoutValueOps) -> list[str]:
    plain = ModifyTableOps(adding.table_name, adding.ops, schema=adding.schema)
    return [f"# {adding.note}", *_render(autogenerate, [plain])]


@renderers.dispatch_for(CreateCheckOp)
def _render_create_check(autogenerate: AutogenContext, check: CreateCheckOp) -> str:
    # All changes of a table are written as one batch.
    name, condition = str(check.constraint_name), render_sql(check.condition, autogenerate)
    return f"batch_op.create_check_constraint(batch_op.f({name!r}), {condition})"


@renderers.dispatch_for(RenameTableOp)
def _render_rename_table(autogenerate: AutogenContext, rename: RenameTableOp) -> list[str]:
    renaming = f"op.rename_table({rename.table_name!r}, {rename.new_table_name!r})"
    if not rename.key:
        return [renaming]
    autogenerate.imports.add("from microorm.migrations import on")
    quote = DIALECTS["postgresql"].identifier_preparer.quote
    old, new = (
        quote(NAMING["pk"] % {"table_name": each}) for each in (rename.table_name, rename.new_table_name)
    )
    sql = f"ALTER INDEX IF EXISTS {old} RENAME TO {new}"
    return [renaming, "if on(dialect='postgresql'):", f"op.execute({sql!r})", ""]


@renderers.dispatch_for(FillColumnOp)
def _render_fill_column(autogenerate: AutogenContext, fill: FillColumnOp) -> str:
    # Name and type as alembic renders them: `op.add_column('table', sa.Column('name', TYPE, nullable=True))`.
    adding = AddColumnOp(fill.table_name, sa.Column(fill.column_name, fill.type_))
    (rendered,) = _render(autogenerate, [adding])
    column = rendered[rendered.index("sa.Column(") + len("sa.Column(") : rendered.rindex(", nullable")]
    module = type(fill.value).__module__
    if module == "datetime":
        autogenerate.imports.add("import datetime")
    elif module != "builtins":
        autogenerate.imports.add(f"from {module} import {type(fill.value).__name__}")
    schema = f", schema={fill.schema!r}" if fill.schema else ""
    return f"op.fill_column({fill.table_name!r}, {column}, {fill.value!r}{schema})"
