"""Operations: what a revision can say beside alembic's own: values for rows that are there, changes of some databases.

`op.fill_column` is for revisions written by hand, too.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, Operations
from alembic.operations.ops import (
    AddColumnOp,
    AlterColumnOp,
    CreateCheckConstraintOp,
    DropColumnOp,
    DropConstraintOp,
    ModifyTableOps,
    OpContainer,
    RenameTableOp,
)
from sqlalchemy import TextClause
from sqlalchemy.sql.elements import conv

from microorm.migrations.dialects import ByDialect, render_sql
from microorm.types import Duration, ExactNumeric, UtcDateTime


@Operations.register_operation("fill_column")
class FillColumnOp(MigrateOperation):
    """Give the rows that have none a value in one column."""

    def __init__(
        self, table_name: str, column_name: str, type_: sa.types.TypeEngine[Any], value: Any
    ) -> None:
        self.table_name = table_name
        self.column_name = column_name
        self.type_ = type_
        self.value = value

    @classmethod
    def fill_column(
        cls,
        operations: Operations,
        table_name: str,
        column_name: str,
        type_: sa.types.TypeEngine[Any],
        value: Any,
    ) -> Any:
        """Set *column_name* to *value* in each row of *table_name* where it is NULL."""
        return operations.invoke(cls(table_name, column_name, type_, value))

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For `alembic check`."""
        return ("fill_column", self.table_name, self.column_name, self.value)


@Operations.implementation_for(FillColumnOp)
def fill_column(operations: Operations, operation: FillColumnOp) -> None:
    """Run a `FillColumnOp`."""
    column: sa.ColumnClause[Any] = sa.column(operation.column_name, operation.type_)
    table = sa.table(operation.table_name, column)
    value = sa.literal(operation.value, operation.type_)
    operations.execute(sa.update(table).where(column.is_(None)).values({column: value}))


class Filled(OpContainer):
    """A column that wants a value, for a table that may have rows: added or narrowed when each has one."""

    def __init__(self, wanted: AddColumnOp | AlterColumnOp, column: sa.Column[Any], value: Any) -> None:
        table = wanted.table_name
        narrowed = AlterColumnOp(
            table, column.name, existing_type=column.type, existing_nullable=True, modify_nullable=False
        )
        fill = FillColumnOp(table, column.name, column.type, value)
        steps: list[MigrateOperation] = [fill, ModifyTableOps(table, [narrowed])]
        if isinstance(wanted, AddColumnOp):
            loose = sa.Column(column.name, column.type, nullable=True)
            steps.insert(0, ModifyTableOps(table, [AddColumnOp(table, loose)]))
        super().__init__(steps)
        self.table_name = table
        self._wanted = wanted

    def reverse(self) -> ModifyTableOps:
        """What takes it back: a column that goes takes its values along."""
        return ModifyTableOps(self.table_name, [self._wanted.reverse()])


class Dropped(OpContainer):
    """A column that goes, and whose values are gone with it: it comes back with the zero of its type.

    One that is *bound* to a constraint, which a zero might break, comes back as one that may be NULL.
    """

    def __init__(self, drop: DropColumnOp, *, bound: bool = False) -> None:
        super().__init__([ModifyTableOps(drop.table_name, [drop])])
        self._drop = drop
        self._bound = bound

    def reverse(self) -> MigrateOperation:
        """The column, with a value for each row."""
        column, adding = self._drop.to_column(), self._drop.reverse()
        if self._bound:
            loose = sa.Column(column.name, column.type, nullable=True)
            return ModifyTableOps(self._drop.table_name, [AddColumnOp(self._drop.table_name, loose)])
        zero = zero_of(column.type)
        return (
            ModifyTableOps(self._drop.table_name, [adding]) if zero is None else Filled(adding, column, zero)
        )


class RenamedColumn(AlterColumnOp):
    """A column that has another name, and may have changed besides."""

    def reverse(self) -> AlterColumnOp:
        """The same with the names in the place of each other."""
        back = super().reverse()
        new = str(self.modify_name)
        reversed_ = RenamedColumn(back.table_name, new, schema=back.schema, modify_name=self.column_name)
        for attribute in ("type", "nullable", "server_default", "comment"):
            for when in ("existing", "modify"):
                name = f"{when}_{attribute}"
                setattr(reversed_, name, getattr(back, name))
        return reversed_

    def has_changes(self) -> bool:
        """Always: its name."""
        return True

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For `alembic check`."""
        return ("rename_column", self.table_name, self.column_name, self.modify_name)


class RenamedTable(RenameTableOp):
    """A table that has another name."""

    def reverse(self) -> RenamedTable:
        """The way back."""
        return RenamedTable(self.new_table_name, self.table_name, schema=self.schema)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For `alembic check`."""
        return ("rename_table", self.table_name, self.new_table_name)


class AddedCheck(CreateCheckConstraintOp):
    """A CHECK, in the words of each dialect."""

    @classmethod
    def of(cls, table: str, name: str, condition: TextClause | ByDialect) -> AddedCheck:
        """The CHECK *name* of *table*."""
        return cls(conv(name), table, condition)

    def reverse(self) -> DroppedCheck:
        """The way back."""
        return DroppedCheck(str(self.constraint_name), self.table_name, self.condition)


class DroppedCheck(DropConstraintOp):
    """A CHECK that goes, and what it said."""

    def __init__(self, name: str, table: str, condition: Any) -> None:
        # A name that is complete: the naming convention adds nothing to it.
        super().__init__(conv(name), table, type_="check", _reverse=AddedCheck(conv(name), table, condition))
        self.condition = condition

    def reverse(self) -> AddedCheck:
        """The way back."""
        return AddedCheck.of(self.table_name, str(self.constraint_name), self.condition)


class ChangedKey(MigrateOperation):
    """A table whose primary key is made of other columns; no revision is written for that."""

    def __init__(self, table_name: str, stored: tuple[str, ...], wanted: tuple[str, ...]) -> None:
        self.table_name = table_name
        self.stored = stored
        self.wanted = wanted

    def reverse(self) -> ChangedKey:
        """The other way round."""
        return ChangedKey(self.table_name, self.wanted, self.stored)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For `alembic check`."""
        return ("change_key", self.table_name, self.stored, self.wanted)


class OnlyOn(OpContainer):
    """Changes that some databases need and others that hold the table do not: those of an alias, of a dialect, or those
    in which a table is missing, which was given to them after it was made elsewhere."""

    def __init__(
        self,
        operations: Sequence[MigrateOperation],
        *,
        alias: tuple[str, ...] = (),
        dialect: tuple[str, ...] = (),
        missing: str | None = None,
    ) -> None:
        super().__init__(operations)
        self.asked = {"alias": alias, "dialect": dialect, "missing": missing}

    def reverse(self) -> OnlyOn:
        """The way back, on the same databases. A table that was missing stays: the revision that made it takes it along."""
        if self.asked["missing"] is not None:
            return OnlyOn([])
        back = [operation.reverse() for operation in reversed(self.ops)]
        return OnlyOn(back, **self.asked)  # type: ignore[arg-type]


def _rendered(autogenerate: AutogenContext, operations: Sequence[MigrateOperation]) -> list[str]:
    lines: list[str] = []
    for operation in operations:
        found = renderers.dispatch(operation)(autogenerate, operation)
        lines.extend([found] if isinstance(found, str) else found)
    return lines


@renderers.dispatch_for(OnlyOn)
def _render_only_on(autogenerate: AutogenContext, only: OnlyOn) -> list[str]:
    if not only.ops:
        return []
    autogenerate.imports.add("from microorm.migrations import on")
    ((name, value),) = ((name, value) for name, value in only.asked.items() if value)
    asked = value[0] if isinstance(value, tuple) and len(value) == 1 else value
    return [f"if on({name}={asked!r}):", *_rendered(autogenerate, only.ops), ""]


@renderers.dispatch_for(Filled)
def _render_filled(autogenerate: AutogenContext, filled: Filled) -> list[str]:
    return _rendered(autogenerate, filled.ops)


@renderers.dispatch_for(AddedCheck)
def _render_added_check(autogenerate: AutogenContext, check: AddedCheck) -> str:
    name = str(check.constraint_name)
    # Always in a batch: that is how all changes of a table are written.
    return (
        f"batch_op.create_check_constraint(batch_op.f({name!r}), {render_sql(check.condition, autogenerate)})"
    )


@renderers.dispatch_for(Dropped)
def _render_dropped(autogenerate: AutogenContext, dropped: Dropped) -> list[str]:
    return _rendered(autogenerate, dropped.ops)


@renderers.dispatch_for(RenamedTable)
def _render_renamed_table(autogenerate: AutogenContext, renamed: RenamedTable) -> str:
    return f"op.rename_table({renamed.table_name!r}, {renamed.new_table_name!r})"


@renderers.dispatch_for(FillColumnOp)
def _render_fill_column(autogenerate: AutogenContext, fill: FillColumnOp) -> str:
    # A column as alembic writes it: `op.add_column('table', sa.Column('name', TYPE, nullable=True))`.
    adding = AddColumnOp(fill.table_name, sa.Column(fill.column_name, fill.type_))
    (text,) = _rendered(autogenerate, [adding])
    written = text[text.index("sa.Column(") + len("sa.Column(") : text.rindex(", nullable")]
    module = type(fill.value).__module__
    value = repr(fill.value)
    if module == "datetime":
        autogenerate.imports.add("import datetime")
    elif module != "builtins":
        autogenerate.imports.add(f"from {module} import {type(fill.value).__name__}")
    return f"op.fill_column({fill.table_name!r}, {written}, {value})"


def zero_of(type_: sa.types.TypeEngine[Any]) -> Any:
    """What stands for no value in a column that wants one; None where nothing can."""
    for kind, zero in _ZEROS.items():
        if isinstance(type_, kind):
            return zero
    return None


# The kinds that derive from others come before these.
_ZEROS: dict[type[sa.types.TypeEngine[Any]], Any] = {
    UtcDateTime: datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC),
    ExactNumeric: Decimal(0),
    Duration: datetime.timedelta(),
    sa.Boolean: False,
    sa.Integer: 0,
    sa.Float: 0.0,
    sa.Numeric: Decimal(0),
    sa.String: "",
    sa.LargeBinary: b"",
    sa.DateTime: datetime.datetime(1970, 1, 1),  # noqa: DTZ001 of a column without a zone
    sa.Date: datetime.date(1970, 1, 1),
    sa.Time: datetime.time(),
    sa.Uuid: UUID(int=0),
    sa.JSON: {},
}
