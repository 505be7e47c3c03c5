"""Ordering: the changes of one revision in an order that every database can go, and can go back."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from alembic.operations import MigrateOperation
from alembic.operations.ops import (
    AddColumnOp,
    AddConstraintOp,
    AlterColumnOp,
    CreateForeignKeyOp,
    CreateIndexOp,
    CreateTableOp,
    DropColumnOp,
    DropConstraintOp,
    DropIndexOp,
    DropTableOp,
    ModifyTableOps,
)
from sqlalchemy.schema import sort_tables_and_constraints

from microorm.migrations.operations import Dropped, DroppedCheck, Filled, OnlyOn, RenamedColumn
from microorm.migrations.targets import Target

Values = Callable[[str, str], tuple[bool, Any]]


@dataclass(slots=True)
class Change:
    """One change of one table, and which targets need it."""

    key: tuple[Any, ...]
    table: str
    inside: bool  # a part of a `ModifyTableOps`
    operations: list[MigrateOperation]
    needed: list[Target] = field(default_factory=list)

    @property
    def operation(self) -> MigrateOperation:
        """As the first target has it."""
        return self.operations[0]


def arranged(changes: list[Change], metadata: sa.MetaData) -> list[Change]:
    """*changes* in an order that works both ways: new tables, renamed ones, those that change, those that go."""
    tables = list(dict.fromkeys(change.table for change in changes))
    renamed = {each.table for each in changes if isinstance(each.operation, RenamedColumn)}
    held = {table: frozenset() if table in renamed else _key_columns(table, metadata) for table in tables}

    def place(change: Change) -> tuple[int, int, int]:
        operation = change.operation
        if change.inside:
            return 2, tables.index(change.table), _rank(operation, held[change.table])
        return {CreateTableOp: 0, DropTableOp: 3}.get(type(operation), 1), 0, 0

    return sorted(changes, key=place)


def ordered(part: list[Change], metadata: sa.MetaData, value_for: Values) -> list[MigrateOperation]:
    """The operations of *part*: new tables first, changes of one table together, tables that go last."""
    created, wanted = _created(part, metadata)
    dropped, unwanted = _dropped(part)
    built: list[MigrateOperation] = list(created)
    inside: dict[str, list[MigrateOperation]] = {}
    for change in part:
        if isinstance(change.operation, CreateTableOp | DropTableOp):
            continue
        if change.inside:
            inside.setdefault(change.table, []).append(change.operation)
        else:
            built.append(change.operation)
    for key in wanted:
        inside.setdefault(key.source_table, []).append(key)
    for key in unwanted:
        inside.setdefault(key.source_table, []).append(key.reverse())
    for table, operations in inside.items():
        built.extend(_of_one_table(table, operations, metadata, value_for))
    return [*built, *dropped]


def _of_one_table(
    table: str, operations: list[MigrateOperation], metadata: sa.MetaData, value_for: Values
) -> list[MigrateOperation]:
    """The changes of *table*, in as few batches as can be."""
    built: list[MigrateOperation] = []
    for operation in operations:
        if alone := _alone(operation, operations, metadata, value_for):
            built.extend(alone)
        elif (
            built
            and isinstance(built[-1], ModifyTableOps)
            and not isinstance(built[-1].ops[-1], RenamedColumn)
        ):
            built[-1].ops.append(operation)
        else:
            built.append(ModifyTableOps(table, [operation]))
    return built


def _alone(
    operation: MigrateOperation,
    together: list[MigrateOperation],
    metadata: sa.MetaData,
    value_for: Values,
) -> list[MigrateOperation]:
    """*operation* as what cannot share a batch with what changes *together* with it; nothing where it can."""
    if isinstance(operation, RenamedColumn):
        return [ModifyTableOps(operation.table_name, [operation])]
    if isinstance(operation, DropColumnOp):
        column = operation.to_column()
        if column.nullable or column.server_default is not None:
            return []
        return [Dropped(operation, bound=any(_binds(each, column.name) for each in together))]
    if isinstance(operation, AddColumnOp):
        column = operation.column
        wanted = not column.nullable and column.server_default is None
        there, value = value_for(operation.table_name, column.name) if wanted else (False, None)
        return [Filled(operation, column, value)] if there else []
    if isinstance(operation, AlterColumnOp) and operation.modify_nullable is False:
        column = metadata.tables[operation.table_name].c[operation.column_name]
        there, value = value_for(operation.table_name, column.name)
        return _narrowed(operation, column, value) if there else []
    return []


def _narrowed(operation: AlterColumnOp, column: sa.Column[Any], value: Any) -> list[MigrateOperation]:
    """What else changes about the column, and then a value for each row, and no NULL any more."""
    narrowing = AlterColumnOp(
        operation.table_name,
        operation.column_name,
        existing_type=column.type,
        existing_nullable=True,
        existing_server_default=column.server_default if column.server_default is not None else False,
        modify_nullable=False,
    )
    operation.modify_nullable, operation.existing_nullable = None, True
    first: list[MigrateOperation] = (
        [ModifyTableOps(operation.table_name, [operation])] if operation.has_changes() else []
    )
    return [*first, Filled(narrowing, column, value)]


def _binds(operation: MigrateOperation, column: str) -> bool:
    """Whether *operation* drops what a value of *column* has to comply with, so that a zero might not."""
    if isinstance(operation, DroppedCheck):
        return re.search(rf"\b{re.escape(column)}\b", str(operation.condition)) is not None
    if isinstance(operation, DropConstraintOp):
        constraint = operation.to_constraint()
        return (
            isinstance(constraint, sa.UniqueConstraint | sa.ForeignKeyConstraint)
            and column in constraint.columns
        )
    return (
        isinstance(operation, DropIndexOp)
        and bool(operation.kw.get("unique"))
        and column in [each.name for each in operation.to_index().columns]
    )


def _rank(operation: MigrateOperation, held: frozenset[tuple[str, ...]]) -> int:
    """What goes, goes before columns change, and what comes, comes after; backwards it is the same.

    A key goes before the index that it uses, and comes after it. MariaDB wants an index on the columns of a key at all
    times, so that one of those, which are *held*, goes last.
    """
    if isinstance(operation, DropConstraintOp):
        return 0 if operation.constraint_type == "foreignkey" else 1
    if isinstance(operation, DropIndexOp):
        return 4 if tuple(column.name for column in operation.to_index().columns) in held else 1
    if isinstance(operation, CreateForeignKeyOp):
        return 5
    return 3 if isinstance(operation, AddConstraintOp | CreateIndexOp) else 2


def _key_columns(table: str, metadata: sa.MetaData) -> frozenset[tuple[str, ...]]:
    known = metadata.tables.get(table)
    keys = known.foreign_key_constraints if known is not None else ()
    return frozenset(tuple(key.column_keys) for key in keys)


def _created(
    part: list[Change], metadata: sa.MetaData
) -> tuple[list[CreateTableOp], list[CreateForeignKeyOp]]:
    """The new tables in an order in which they can refer to each other, and the keys that make a circle."""
    wanted = [each.operation.table_name for each in part if isinstance(each.operation, CreateTableOp)]
    tables, circles = _in_order([metadata.tables[name] for name in wanted])
    operations = [CreateTableOp.from_table(table) for table in tables]
    for operation in operations:
        operation.columns = [each for each in operation.columns if not any(each is key for key in circles)]
    return operations, [CreateForeignKeyOp.from_constraint(each) for each in circles]


def _dropped(part: list[Change]) -> tuple[list[DropTableOp], list[CreateForeignKeyOp]]:
    """The tables that go, those that refer to others first, and the keys that make a circle."""
    left = {each.table: each.operation for each in part if isinstance(each.operation, DropTableOp)}
    tables = {name: operation.to_table() for name, operation in left.items()}
    order: list[DropTableOp] = []
    circles: list[CreateForeignKeyOp] = []
    while left:
        referred = {
            _referred(key)
            for name in left
            for key in tables[name].foreign_key_constraints
            if _referred(key) != name
        }
        free = [name for name in left if name not in referred]
        if not free:  # all that is left refers to each other
            name = next(iter(left))
            for key in list(tables[name].foreign_key_constraints):
                if _referred(key) in left and _referred(key) != name:
                    circles.append(CreateForeignKeyOp.from_constraint(key))
                    tables[name].constraints.discard(key)
            continue
        order.extend(left.pop(name) for name in free)
    return order, circles


def _referred(key: sa.ForeignKeyConstraint) -> str:
    """The table that *key* refers to, which may not be known here."""
    return key.elements[0].target_fullname.rpartition(".")[0]


def _in_order(tables: list[sa.Table]) -> tuple[list[sa.Table], list[sa.ForeignKeyConstraint]]:
    pairs = sort_tables_and_constraints(tables)  # type: ignore[no-untyped-call]
    circles = [key for table, keys in pairs if table is None for key in keys]
    return [table for table, _ in pairs if table is not None], circles


def modified(operation: AlterColumnOp) -> tuple[bool, ...]:
    """Whether *operation* changes the type, the nullability, the default and the comment."""
    return (
        operation.modify_type is not None,
        operation.modify_nullable is not None,
        operation.modify_server_default is not False,
        operation.modify_comment is not False,
    )


def forget_indexes(operations: Any) -> None:
    """Take out what drops an index of a table that goes anyway: one that a key needs is not let go by MariaDB."""
    gone = {each.table_name for each in operations.ops if isinstance(each, DropTableOp)}
    for each in operations.ops:
        if isinstance(each, OnlyOn):
            forget_indexes(each)
        if isinstance(each, ModifyTableOps) and each.table_name in gone:
            each.ops[:] = [inner for inner in each.ops if not isinstance(inner, DropIndexOp)]
    operations.ops[:] = [
        each for each in operations.ops if not (isinstance(each, ModifyTableOps) and not each.ops)
    ]
