"""Ordering: the changes of one revision in an order that every database can go, and can go back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
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
    DowngradeOps,
    DropColumnOp,
    DropConstraintOp,
    DropIndexOp,
    DropTableOp,
    ModifyTableOps,
    UpgradeOps,
)
from sqlalchemy.schema import sort_tables_and_constraints

from microorm.errors import MigrationError
from microorm.migrations.dialects import default_of, plain, portable, together
from microorm.migrations.operations import ChangedKey, Dropped, DroppedCheck, Filled, OnlyOn, RenamedColumn
from microorm.migrations.targets import Target
from microorm.schema import TABLE_OPTIONS

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


Needs = Sequence[tuple[Target, UpgradeOps]]


def merged(
    needs: Needs, metadata: sa.MetaData, value_for: Values, elsewhere: frozenset[str] = frozenset()
) -> tuple[UpgradeOps, DowngradeOps]:
    """The changes of all targets, and how they are taken back.

    *value_for*: whether a column, by its table and its name, has a value for rows without one, and which. A new table
    that is *elsewhere* has been given to another target: one that begins at the start has it from an earlier revision.
    Raises `MigrationError` where a table has another primary key.
    """
    changes = _united(needs)
    for change in changes:
        if isinstance(change.operation, ChangedKey):
            described = f"{change.operation.stored!r}, and {change.operation.wanted!r} in the models"
            raise MigrationError(
                f"the primary key of {change.table!r} is {described}: no revision changes a key"
            )
        _unify(change, metadata)
    targets = [target for target, _ in needs]
    steps: list[MigrateOperation] = []
    moved = elsewhere & {each.table for each in changes if isinstance(each.operation, CreateTableOp)}
    for condition, part in _parts(arranged(changes, metadata), targets, moved):
        built = ordered(part, metadata, value_for)
        steps.extend([OnlyOn(built, **condition)] if condition else built)
    upgrade = UpgradeOps(steps)
    downgrade = upgrade.reverse()
    forget_indexes(upgrade)
    forget_indexes(downgrade)
    return upgrade, downgrade


def _united(needs: Needs) -> list[Change]:
    """The changes in the order of the first target; what only others need stands after what comes before it there."""
    found: dict[tuple[Any, ...], Change] = {}
    order: list[tuple[Any, ...]] = []
    for target, upgrade in needs:
        place = 0
        for key, table, inside, operation in _changes(upgrade):
            change = found.get(key)
            if change is None:
                change = found[key] = Change(key, table, inside, [])
                order.insert(place, key)
            place = order.index(key) + 1
            change.operations.append(operation)
            change.needed.append(target)
    return [found[key] for key in order]


def _changes(upgrade: UpgradeOps) -> Iterator[tuple[tuple[Any, ...], str, bool, MigrateOperation]]:
    for operation in upgrade.ops:
        if isinstance(operation, ModifyTableOps):
            for inner in operation.ops:
                yield (operation.table_name, *_key(inner)), operation.table_name, True, inner
        else:
            table: str = operation.table_name  # type: ignore[attr-defined]
            yield (table, *_key(operation)), table, False, operation


def _key(operation: MigrateOperation) -> tuple[Any, ...]:
    """What makes two changes of one table the same, in whatever words a database tells of them."""
    kind = type(operation).__name__
    if isinstance(operation, AlterColumnOp):
        return kind, operation.column_name, operation.modify_name, *modified(operation)
    if isinstance(operation, AddColumnOp):
        return kind, operation.column.name
    name = (
        getattr(operation, "constraint_name", None)
        or getattr(operation, "index_name", None)
        or getattr(operation, "column_name", None)
        or getattr(operation, "new_table_name", None)
        or getattr(operation, "comment", None)
    )
    return kind, None if name is None else str(name)


def _unify(change: Change, metadata: sa.MetaData) -> None:
    """Let the change say types as all databases understand them."""
    first = change.operation
    dialects = [target.dialect for target in change.needed]

    def told(each: Callable[[Any], Any]) -> dict[str, Any]:
        return dict(zip(dialects, map(each, change.operations), strict=True))

    if isinstance(first, AlterColumnOp):
        if first.kw.get("autoincrement") is False:  # which other databases than MariaDB warn of
            del first.kw["autoincrement"]
        first.existing_type = _existing(first, told(lambda each: each.existing_type), metadata)
        if isinstance(first.existing_server_default, sa.DefaultClause):
            first.existing_server_default = default_of(told(lambda each: each.existing_server_default))
    elif isinstance(first, DropColumnOp):
        _unify_column(first.to_column(), told(lambda each: each.to_column()))
    elif isinstance(first, DroppedCheck):
        first.condition = together(
            {name: plain(each) for name, each in told(lambda each: each.condition).items()}
        )
    elif isinstance(first, DropTableOp):
        change.operations[0] = DropTableOp.from_table(_unified(told(lambda each: each.to_table())))


def _unify_column(column: sa.Column[Any], told: dict[str, sa.Column[Any]]) -> None:
    column.type = portable({name: each.type for name, each in told.items()})
    if column.server_default is not None:
        column.server_default = default_of({name: each.server_default for name, each in told.items()})


def _unified(told: dict[str, sa.Table]) -> sa.Table:
    """The table that databases of several dialects tell of."""
    first = next(iter(told.values()))
    for column in first.columns:
        _unify_column(column, {name: table.c[column.name] for name, table in told.items()})
    for option in list(first.kwargs):  # what one database adds of its own accord
        del first.kwargs[option]
    first.kwargs.update(TABLE_OPTIONS)
    return first


def _existing(operation: AlterColumnOp, reflected: dict[str, Any], metadata: sa.MetaData) -> Any:
    if operation.modify_type is None:
        # What does not change is said as the model has it: on MariaDB a change of anything says all anew.
        table = metadata.tables.get(operation.table_name)
        name = operation.modify_name or operation.column_name
        if table is not None and name in table.c:
            return table.c[name].type
    return (
        portable({name: each for name, each in reflected.items() if each is not None})
        if any(reflected.values())
        else None
    )


def _parts(
    changes: list[Change], targets: list[Target], moved: frozenset[str]
) -> Iterator[tuple[dict[str, Any], list[Change]]]:
    """The changes in runs of one condition each: an empty one where all targets that hold the table need them."""
    part: list[Change] = []
    before: dict[str, Any] = {}
    for change in changes:
        holders = [each for each in targets if each.allows(change.table)]
        condition = {"missing": change.table} if change.table in moved else _condition(change, holders)
        if part and condition != before:
            yield before, part
            part = []
        part.append(change)
        before = condition
    if part:
        yield before, part


def _condition(change: Change, holders: list[Target]) -> dict[str, Any]:
    if len(change.needed) == len(holders):
        return {}
    dialects = {target.dialect for target in change.needed}
    if all(target in change.needed for target in holders if target.dialect in dialects):
        return {"dialect": tuple(sorted(dialects))}
    return {"alias": tuple(target.alias for target in change.needed)}
