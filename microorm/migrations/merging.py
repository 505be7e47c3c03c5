"""Merging: what each database needs, made one list of changes, each said once.

A change that all databases need which hold its table is said as it is. One that only some need is said for these: for
a dialect, where all of that dialect need it, else for the aliases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from alembic.operations import MigrateOperation
from alembic.operations.ops import (
    AddColumnOp,
    AlterColumnOp,
    CreateTableOp,
    DowngradeOps,
    DropColumnOp,
    DropTableOp,
    ModifyTableOps,
    UpgradeOps,
)

from microorm.errors import MigrationError
from microorm.mapping.schema import TABLE_OPTIONS
from microorm.migrations.dialects import default_of, plain, together
from microorm.migrations.operations import ChangedKey, DroppedCheck, OnlyOn
from microorm.migrations.ordering import Change, Values, arranged, forget_indexes, modified, ordered
from microorm.migrations.portable import portable
from microorm.migrations.targets import Target

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
