"""Ordering: the changes of one revision in an order that every database can go, and can go back."""

from __future__ import annotations

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

from microorm.migrations.operations import Dropped, Filled, OnlyOn, RenamedColumn
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
    """The changes of *table* in an order that works both ways, in as few batches as can be."""
    renames = any(isinstance(each, RenamedColumn) for each in operations)
    held = frozenset() if renames else _key_columns(table, metadata)
    built: list[MigrateOperation] = []
    for operation in sorted(operations, key=lambda each: _rank(each, held)):
        if (alone := _alone(operation, metadata, value_for)) is not None:
            built.append(alone)
        elif (
            built
            and isinstance(built[-1], ModifyTableOps)
            and not isinstance(built[-1].ops[-1], RenamedColumn)
        ):
            built[-1].ops.append(operation)
        else:
            built.append(ModifyTableOps(table, [operation]))
    return built


def _alone(operation: MigrateOperation, metadata: sa.MetaData, value_for: Values) -> MigrateOperation | None:
    """*operation* as what cannot share a batch with others, if it is such a thing."""
    if isinstance(operation, RenamedColumn):
        return ModifyTableOps(operation.table_name, [operation])
    if isinstance(operation, DropColumnOp):
        column = operation.to_column()
        return None if column.nullable or column.server_default is not None else Dropped(operation)
    return _filled(operation, metadata, value_for)


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
    found = {each.table: each.operation for each in part if isinstance(each.operation, DropTableOp)}
    together = sa.MetaData()
    copies = [operation.to_table().to_metadata(together) for operation in found.values()]
    tables, circles = _in_order([each for each in copies if each.name in found])
    return [found[each.name] for each in reversed(tables)], [
        CreateForeignKeyOp.from_constraint(each) for each in circles
    ]


def _in_order(tables: list[sa.Table]) -> tuple[list[sa.Table], list[sa.ForeignKeyConstraint]]:
    pairs = sort_tables_and_constraints(tables)  # type: ignore[no-untyped-call]
    circles = [key for table, keys in pairs if table is None for key in keys]
    return [table for table, _ in pairs if table is not None], circles


def _filled(operation: MigrateOperation, metadata: sa.MetaData, value_for: Values) -> Filled | None:
    """For a column that wants a value from now on, the steps that give it one in the rows that are there."""
    if isinstance(operation, RenamedColumn):
        return None
    if isinstance(operation, AddColumnOp):
        column = operation.column
        wanted = not column.nullable and column.server_default is None
    elif isinstance(operation, AlterColumnOp) and modified(operation) == (False, True, False, False):
        column = metadata.tables[operation.table_name].c[operation.column_name]
        wanted = operation.modify_nullable is False
    else:
        return None
    there, value = value_for(operation.table_name, column.name) if wanted else (False, None)
    return Filled(operation, column, value) if there else None


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
