"""Plan: one list of operations from what all databases need, in an order that each of them can execute and reverse.

A change that all databases need that hold its table is written without a condition. Otherwise it is written
for a dialect, if all databases of that dialect need it, or for the aliases that need it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import groupby
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from alembic.operations import MigrateOperation, ops

from microorm.errors import MigrationError
from microorm.mapping.table import TABLE_OPTIONS
from microorm.migrations.dialects import combine_defaults, combine_sql, combine_types, sql_for
from microorm.migrations.operations import (
    AddWithoutValueOps,
    ChangePrimaryKeyOp,
    ConditionalOps,
    DropCheckOp,
    DropRequiredColumnOps,
    RenameColumnOp,
    RenameTableOp,
    RequiredColumnOps,
    altered,
    table_key,
)
from microorm.migrations.targets import Target

TEMPORARY = "microorm_"  # begins the name that a table or column has between two renames

Needs = Sequence[tuple[Target, ops.UpgradeOps]]
Defaults = Callable[[str, str], tuple[bool, Any]]


class Phase(IntEnum):
    """When a change is made. Until the renames, tables and columns have their old names."""

    BEFORE = 0
    RENAME = 1
    CREATE = 2
    CHANGE = 3
    AFTER = 4
    DROP = 5


@dataclass(slots=True)
class Change:
    """One change of *table*: the operation of each target that needs it, in the order of *targets*."""

    table: str
    inside: bool  # part of a `ModifyTableOps`
    operations: list[MigrateOperation]
    targets: list[Target] = field(default_factory=list)
    phase: Phase = Phase.CHANGE

    @property
    def operation(self) -> MigrateOperation:
        """The operation of the first target."""
        return self.operations[0]


def merge(
    needs: Needs,
    metadata: sa.MetaData,
    default_for: Defaults,
    present: Mapping[Target, Container[str]] = MappingProxyType({}),
) -> tuple[ops.UpgradeOps, ops.DowngradeOps]:
    """Return the operations that all targets need, and those that reverse them.

    *default_for* returns whether the column of a table has a default for rows that exist, and which. New
    tables that are *present* in another database are on this one by a change of the routers: a database
    that runs the whole history has them from an earlier revision.

    Raises `MigrationError` if a table has another primary key than its model.
    """
    changes = _collect(needs)
    for change in changes:
        if isinstance(change.operation, ChangePrimaryKeyOp):
            raise MigrationError(f"{change.operation}; no revision can be made for that")
        _combine(change, metadata)
    targets = [target for target, _ in needs]
    moved = frozenset(each.table for each in changes if _is_moved(each, present))
    steps: list[MigrateOperation] = []
    ordered = _together(sort_changes(changes), moved)
    for condition, run in groupby(ordered, lambda change: _condition(change, targets, moved)):
        operations = build(list(run), metadata, default_for)
        steps.extend([ConditionalOps(operations, condition)] if condition else operations)
    upgrade = ops.UpgradeOps(steps)
    downgrade = upgrade.reverse()
    remove_index_drops(upgrade)
    remove_index_drops(downgrade)
    return upgrade, downgrade


def _collect(needs: Needs) -> list[Change]:
    """List the changes in the order of the first target; one that only others need comes after its predecessor there."""
    found: dict[tuple[Any, ...], Change] = {}
    order: list[tuple[Any, ...]] = []
    for target, upgrade in needs:
        index = 0
        for table, inside, operation in _flatten(upgrade):
            key = (table, *_key(operation))
            if key not in found:
                found[key] = Change(table, inside, [])
                order.insert(index, key)
            index = order.index(key) + 1
            found[key].operations.append(operation)
            found[key].targets.append(target)
    return [found[key] for key in order]


def _flatten(upgrade: ops.UpgradeOps) -> Iterator[tuple[str, bool, MigrateOperation]]:
    for operation in upgrade.ops:
        inside = isinstance(operation, ops.ModifyTableOps)
        table = table_key(operation)
        for each in operation.ops if isinstance(operation, ops.ModifyTableOps) else (operation,):
            yield table, inside, each


def _key(operation: MigrateOperation) -> tuple[Any, ...]:
    """Return what two operations on one table have in common if they are the same change."""
    kind = type(operation).__name__
    if isinstance(operation, ops.AlterColumnOp):
        return kind, operation.column_name, operation.modify_name, *altered(operation)
    if isinstance(operation, ops.AddColumnOp):
        return kind, operation.column.name
    names = ("constraint_name", "index_name", "column_name", "new_table_name", "comment")
    return kind, next((str(name) for each in names if (name := getattr(operation, each, None))), None)


def _combine(change: Change, metadata: sa.MetaData) -> None:
    """Replace the types, defaults and CHECKs that each database reports by those that mean the same on all."""
    first = change.operation
    dialects = [target.dialect for target in change.targets]

    def reported(get: Callable[[Any], Any]) -> dict[str, Any]:
        return dict(zip(dialects, map(get, change.operations), strict=True))

    if isinstance(first, ops.AlterColumnOp):
        if first.kw.get("autoincrement") is False:  # databases other than MariaDB warn about it
            del first.kw["autoincrement"]
        first.existing_type = _existing_type(first, reported(lambda each: each.existing_type), metadata)
        if isinstance(first.existing_server_default, sa.DefaultClause):
            defaults = reported(lambda each: each.existing_server_default)
            first.existing_server_default = combine_defaults(defaults)
    elif isinstance(first, ops.DropColumnOp):
        _combine_columns(reported(lambda each: each.to_column()))
    elif isinstance(first, DropCheckOp):
        conditions = reported(lambda each: each.condition)
        first.condition = combine_sql({name: sql_for(sql, name) for name, sql in conditions.items()})
    elif isinstance(first, ops.DropTableOp):
        tables = reported(lambda each: each.to_table())
        table: sa.Table = next(iter(tables.values()))
        for column in table.columns:
            _combine_columns({dialect: each.c[column.name] for dialect, each in tables.items()})
        for option in list(table.kwargs):  # reported, but not set by the model
            del table.kwargs[option]
        table.kwargs.update(TABLE_OPTIONS)
        change.operations[0] = ops.DropTableOp.from_table(table)


def _combine_columns(columns: dict[str, sa.Column[Any]]) -> None:
    """Give the first of *columns* a type and a default that mean the same on all dialects."""
    first = next(iter(columns.values()))
    first.type = combine_types({name: each.type for name, each in columns.items()})
    if isinstance(first.server_default, sa.DefaultClause):
        first.server_default = combine_defaults({name: each.server_default for name, each in columns.items()})


def _existing_type(operation: ops.AlterColumnOp, reported: dict[str, Any], metadata: sa.MetaData) -> Any:
    table = metadata.tables.get(table_key(operation))
    name = operation.modify_name or operation.column_name
    retyped = operation.modify_type is not None or getattr(operation, "retyped", False)
    if not retyped and table is not None and name in table.c:
        return table.c[name].type  # MariaDB repeats the type in every change of a column
    known = {name: type_ for name, type_ in reported.items() if type_ is not None}
    return combine_types(known) if known else None


def _condition(change: Change, targets: list[Target], moved: frozenset[str]) -> dict[str, Any]:
    """Return the argument of `on` that finds the targets of *change*; empty if all that hold the table need it."""
    if change.table in moved:
        return {"missing": change.table}
    holders = [target for target in targets if target.allows(change.table)]
    if len(change.targets) == len(holders):
        return {}
    dialects = {target.dialect for target in change.targets}
    if all(target in change.targets for target in holders if target.dialect in dialects):
        return {"dialect": tuple(sorted(dialects))}
    return {"alias": tuple(target.alias for target in change.targets)}


def _is_moved(change: Change, present: Mapping[Target, Container[str]]) -> bool:
    """Return whether *change* creates a table that a database has which does not need it."""
    if not isinstance(change.operation, ops.CreateTableOp):
        return False
    return any(change.table in tables for target, tables in present.items() if target not in change.targets)


def _together(changes: list[Change], moved: frozenset[str]) -> list[Change]:
    """Put the indexes of *moved* tables beside what creates the tables, which are not missing any more after that."""
    indexes = [
        each for each in changes if each.table in moved and isinstance(each.operation, ops.CreateIndexOp)
    ]
    ordered: list[Change] = []
    for change in changes:
        if change not in indexes:
            ordered.append(change)
        if change.table in moved and isinstance(change.operation, ops.CreateTableOp):
            ordered += [each for each in indexes if each.table == change.table]
    return ordered


def sort_changes(changes: list[Change]) -> list[Change]:
    """Sort *changes* so that they can be executed and reversed, and note the phase of each."""
    tables = list(dict.fromkeys(change.table for change in changes))
    inside = {change.table for change in changes if change.inside}
    renamed = {each.table for each in changes if isinstance(each.operation, RenameColumnOp)}
    for each in changes:
        if isinstance(each.operation, ops.RenameTableOp):
            renamed |= {each.table, each.operation.new_table_name}
    for change in changes:
        change.phase = _phase(change, renamed, inside | renamed)

    def position(change: Change) -> tuple[int, int, int]:
        return change.phase, tables.index(change.table) if change.inside else 0, _rank(change.operation)

    return sorted(changes, key=position)


def _phase(change: Change, renamed: set[str], changed: set[str]) -> Phase:
    """Return when *change* is made, if the tables *renamed* are, or have columns that are, and *changed* differ."""
    operation = change.operation
    if isinstance(operation, RenameColumnOp | ops.RenameTableOp):
        return Phase.RENAME
    if not change.inside:
        return Phase.CREATE if isinstance(operation, ops.CreateTableOp) else Phase.DROP
    # A foreign key must not be there while the table changes that it refers to.
    referred = None
    if isinstance(operation, ops.CreateForeignKeyOp):
        referred = operation.referent_table
    elif isinstance(operation, ops.DropConstraintOp):
        constraint = operation.to_constraint()
        referred = _referred(constraint) if isinstance(constraint, sa.ForeignKeyConstraint) else None
    apart = referred in changed - {change.table}
    if isinstance(operation, ops.DropConstraintOp | ops.DropIndexOp | ops.DropColumnOp):
        return Phase.BEFORE if apart or change.table in renamed else Phase.CHANGE
    return Phase.AFTER if apart else Phase.CHANGE


def _rank(operation: MigrateOperation) -> int:
    """Return the position of *operation* in its table: drop before altering, and create afterwards."""
    # A foreign key is dropped before the index that it uses, and created after it.
    if isinstance(operation, ops.DropConstraintOp):
        return 0 if operation.constraint_type == "foreignkey" else 1
    if isinstance(operation, ops.DropIndexOp):
        return 1
    if isinstance(operation, ops.CreateForeignKeyOp):
        return 4
    return 3 if isinstance(operation, ops.AddConstraintOp | ops.CreateIndexOp) else 2


def build(changes: list[Change], metadata: sa.MetaData, default_for: Defaults) -> list[MigrateOperation]:
    """Return the operations of sorted *changes*, with those of each table in batches."""
    created, added_keys = _create_tables(changes, metadata)
    dropped, dropped_keys = _drop_tables(changes)
    inside: dict[Phase, dict[str, list[MigrateOperation]]] = {phase: {} for phase in Phase}
    for change in changes:
        if change.inside and change.phase is not Phase.RENAME:
            inside[change.phase].setdefault(change.table, []).append(change.operation)
    last = Phase.AFTER if inside[Phase.AFTER] else Phase.CHANGE
    for key in added_keys:
        inside[last].setdefault(key.source_table, []).append(key)
    for key in dropped_keys:
        inside[last].setdefault(key.source_table, []).append(key.reverse())
    steps: dict[Phase, Sequence[MigrateOperation]] = {
        Phase.RENAME: _renames(changes),
        Phase.CREATE: created,
        Phase.DROP: dropped,
    }
    operations: list[MigrateOperation] = []
    for phase, tables in inside.items():
        operations.extend(steps.get(phase, ()))
        for table, each in tables.items():
            siblings = [sibling for tables in inside.values() for sibling in tables.get(table, ())]
            operations.extend(_batches(table, each, siblings, metadata, default_for))
    return operations


def _renames(changes: list[Change]) -> list[MigrateOperation]:
    """Return the renames of *changes*, of tables and then of columns, so that each new name is free."""
    tables: dict[str, RenameTableOp] = {}
    columns: dict[str, dict[str, RenameColumnOp]] = {}
    for change in changes:
        operation = change.operation
        if isinstance(operation, RenameTableOp):
            operation.key = any(target.dialect == "postgresql" for target in change.targets)
            tables[operation.table_name] = operation
        elif isinstance(operation, RenameColumnOp):
            columns.setdefault(operation.table_name, {})[operation.column_name] = operation
    steps: list[MigrateOperation] = [
        tables[first].between(old, new)
        for first, old, new in order_renames({old: each.new_table_name for old, each in tables.items()})
    ]
    for table, each in columns.items():
        for first, old, new in order_renames({old: str(rename.modify_name) for old, rename in each.items()}):
            steps.append(ops.ModifyTableOps(table, [each[first].between(old, new)]))
    return steps


def order_renames(names: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield the steps that rename *names*: the first name, and the name before and after the step.

    No step takes a name that is still in use, on a database that ignores the case of names. So names can be
    swapped, or differ by case alone, by way of a temporary name.
    """
    left = {old: (old, new) for old, new in names.items()}  # present name → first name, last name
    while left:
        used = {name.lower() for name in left}
        free = next((name for name, (_, new) in left.items() if new.lower() not in used), None)
        name = next(iter(left)) if free is None else free
        first, new = left.pop(name)
        if free is None:
            left[f"{TEMPORARY}{name}"] = (first, new)
            new = f"{TEMPORARY}{name}"
        yield first, name, new


def _create_tables(
    changes: list[Change], metadata: sa.MetaData
) -> tuple[list[ops.CreateTableOp], list[ops.CreateForeignKeyOp]]:
    """Return the new tables, and the foreign keys that can be added only when all of them exist."""
    names = [each.table for each in changes if isinstance(each.operation, ops.CreateTableOp)]
    tables, cycle_keys = _sort_by_reference(metadata.tables[name] for name in names)
    operations = [ops.CreateTableOp.from_table(table) for table in tables]
    for operation in operations:
        operation.columns = [each for each in operation.columns if not any(each is key for key in cycle_keys)]
    return operations, [ops.CreateForeignKeyOp.from_constraint(key) for key in cycle_keys]


def _drop_tables(changes: list[Change]) -> tuple[list[ops.DropTableOp], list[ops.CreateForeignKeyOp]]:
    """Return the tables to drop, and the foreign keys to drop before them."""
    drops = [each.operation for each in changes if isinstance(each.operation, ops.DropTableOp)]
    tables, cycle_keys = _sort_by_reference(operation.to_table() for operation in drops)
    keys = [ops.CreateForeignKeyOp.from_constraint(key) for key in cycle_keys]
    for table in tables:
        table.constraints.difference_update(cycle_keys)
    return [ops.DropTableOp.from_table(table) for table in reversed(tables)], keys


def _sort_by_reference(tables: Iterable[sa.Table]) -> tuple[list[sa.Table], list[sa.ForeignKeyConstraint]]:
    """Sort *tables* so that each comes after those it refers to; return also the keys of cycles, which are ignored."""
    left = {table.key: table for table in tables}
    ordered: list[sa.Table] = []
    cycle_keys: list[sa.ForeignKeyConstraint] = []

    def keys_to_others(table: sa.Table) -> list[sa.ForeignKeyConstraint]:
        keys = [key for key in table.foreign_key_constraints if key not in cycle_keys]
        return [key for key in keys if _referred(key) in left and _referred(key) != table.key]

    while left:
        free = [name for name, table in left.items() if not keys_to_others(table)]
        if not free:
            cycle_keys += sorted(keys_to_others(next(iter(left.values()))), key=lambda key: str(key.name))
        ordered += [left.pop(name) for name in free]
    return ordered, cycle_keys


def _referred(key: sa.ForeignKeyConstraint) -> str:
    """Return the name of the table that *key* refers to; the table itself may be unknown."""
    return key.elements[0].target_fullname.rpartition(".")[0]


def _batches(
    table: str,
    operations: list[MigrateOperation],
    siblings: list[MigrateOperation],
    metadata: sa.MetaData,
    default_for: Defaults,
) -> list[MigrateOperation]:
    """Put *operations*, which are some or all of those of *table*, into as few batches as possible."""
    batches: list[MigrateOperation] = []
    separate = True  # whether the last batch takes no other operation
    for operation in operations:
        if own := _own_steps(operation, siblings, metadata, default_for):
            batches.extend(own)
            separate = True
        elif separate:
            known = metadata.tables.get(table)  # a table with an old name, which is not there, has no schema
            name, schema = (table, None) if known is None else (known.name, known.schema)
            batches.append(ops.ModifyTableOps(name, [operation], schema=schema))
            separate = False
        else:
            batches[-1].ops.append(operation)  # type: ignore[attr-defined]
    return batches


def _own_steps(
    operation: MigrateOperation,
    siblings: list[MigrateOperation],
    metadata: sa.MetaData,
    default_for: Defaults,
) -> list[MigrateOperation]:
    """Return the steps of an *operation* that cannot share a batch with its *siblings*; nothing if it can."""
    if isinstance(operation, ops.DropColumnOp):
        column = operation.to_column()
        if column.nullable or column.server_default is not None:
            return []
        constrained = any(_constrains(each, column.name) for each in siblings)
        return [DropRequiredColumnOps(operation, constrained=constrained)]
    if isinstance(operation, ops.AddColumnOp):
        column = operation.column
        if column.nullable or column.server_default is not None:
            return []
        has_default, value = default_for(table_key(operation), column.name)
        if has_default:
            return [RequiredColumnOps(operation, column, value)]
        return [AddWithoutValueOps(operation.table_name, [operation], schema=operation.schema)]
    if isinstance(operation, ops.AlterColumnOp) and operation.modify_nullable is False:
        column = metadata.tables[table_key(operation)].c[operation.column_name]
        has_default, value = default_for(table_key(operation), column.name)
        return _fill_and_narrow(operation, column, value) if has_default else []
    return []


def _fill_and_narrow(
    operation: ops.AlterColumnOp, column: sa.Column[Any], value: Any
) -> list[MigrateOperation]:
    """Make the other changes of *operation* first; then fill *column*, and make it NOT NULL."""
    narrow = ops.AlterColumnOp(
        operation.table_name,
        operation.column_name,
        schema=operation.schema,
        existing_type=column.type,
        existing_nullable=True,
        existing_server_default=column.server_default if column.server_default is not None else False,
        modify_nullable=False,
    )
    operation.modify_nullable, operation.existing_nullable = None, True
    others = ops.ModifyTableOps(operation.table_name, [operation], schema=operation.schema)
    first = [others] if operation.has_changes() else []
    return [*first, RequiredColumnOps(narrow, column, value)]


def _constrains(operation: MigrateOperation, column: str) -> bool:
    """Return whether *operation* drops a constraint of *column* that a zero might violate."""
    if isinstance(operation, DropCheckOp):
        return re.search(rf"\b{re.escape(column)}\b", str(operation.condition)) is not None
    if isinstance(operation, ops.DropConstraintOp):
        constraint = operation.to_constraint()
        if isinstance(constraint, sa.UniqueConstraint | sa.ForeignKeyConstraint):
            return column in constraint.columns
    if isinstance(operation, ops.DropIndexOp) and operation.kw.get("unique"):
        return column in [each.name for each in operation.to_index().columns]
    return False


def remove_index_drops(operations: Any) -> None:
    """Remove operations that drop an index of a dropped table, because MariaDB keeps an index that a key needs."""
    dropped = {table_key(each) for each in operations.ops if isinstance(each, ops.DropTableOp)}
    for each in operations.ops:
        if isinstance(each, ConditionalOps):
            remove_index_drops(each)
        if isinstance(each, ops.ModifyTableOps) and table_key(each) in dropped:
            each.ops[:] = [inner for inner in each.ops if not isinstance(inner, ops.DropIndexOp)]
    operations.ops[:] = [
        each for each in operations.ops if not isinstance(each, ops.ModifyTableOps) or each.ops
    ]
