"""Renames: a table or a column that has another name, where it is told; to a comparison one is gone and one is new."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import (
    AddColumnOp,
    AlterColumnOp,
    CreateForeignKeyOp,
    DropColumnOp,
    DropConstraintOp,
    ModifyTableOps,
    UpgradeOps,
)
from alembic.util import PriorityDispatchResult
from sqlalchemy import ForeignKeyConstraint, MetaData, Table

from microorm.errors import MigrationError, nearest
from microorm.migrations.operations import RenamedColumn, RenamedTable

OPTION = "microorm_renames"
_NAME = r"[^.:]+"
_RENAME = re.compile(rf"(?:({_NAME})\.)?({_NAME}):(?:({_NAME})\.)?({_NAME})")


@dataclass(frozen=True)
class Rename:
    """From *old* to *new*: of a column of *table* (by its new name), or of a table where that is None."""

    table: str | None
    old: str
    new: str


def read_rename(given: str) -> Rename:
    """The rename that `old:new` (tables) or `table.old:new` (columns) means. `MigrationError` where it means none."""
    found = _RENAME.fullmatch(given)
    if found is None:
        raise MigrationError(
            f"a rename is 'old:new' of a table or 'table.old:new' of a column, not {given!r}"
        )
    table, old, again, new = found.groups()
    if (table is None and again is not None) or again not in (None, table):
        raise MigrationError(f"a column stays in its table, and {given!r} names two")
    if old == new:
        raise MigrationError(f"{given!r} changes nothing")
    return Rename(table, old, new)


def columns_of(renames: Iterable[Rename], table: str) -> dict[str, str]:
    """The columns of *table* that are renamed: new name → old name."""
    return {each.new: each.old for each in renames if each.table == table}


def tables_of(renames: Iterable[Rename]) -> dict[str, str]:
    """The tables that are renamed: new name → old name."""
    return {each.new: each.old for each in renames if each.table is None}


def rename_columns(
    autogenerate: AutogenContext,
    changes: ModifyTableOps,
    schema: str | None,
    name: str,
    stored: Table | None,
    wanted: Table | None,
) -> PriorityDispatchResult:
    """In the place of a new column that is a renamed one, say so in *changes*, with what else is new about it."""
    if stored is None or wanted is None:
        return PriorityDispatchResult.CONTINUE
    for new, old in columns_of(autogenerate.opts.get(OPTION, ()), wanted.name).items():
        for place, change in enumerate(changes.ops):
            if isinstance(change, AddColumnOp) and change.column.name == new and old in stored.c:
                renamed = RenamedColumn(wanted.name, old, schema=schema, modify_name=new)
                _compare_column(autogenerate, renamed, stored, old, wanted, new)
                changes.ops[place] = renamed
    return PriorityDispatchResult.CONTINUE


def rename_tables(
    autogenerate: AutogenContext, upgrade: UpgradeOps, schemas: Iterable[str | None]
) -> PriorityDispatchResult:
    """Put the tables that are renamed, and what else is new about them, into *upgrade*.

    Raises `MigrationError` for a table in a schema, before anything is compared.
    """
    for table in autogenerate.sorted_tables:
        if table.schema is not None:
            raise MigrationError(
                f"the table {table.fullname!r} is in a schema of its own, which no revision is made for"
            )
    there = set(autogenerate.inspector.get_table_names())
    for new, old in tables_of(autogenerate.opts.get(OPTION, ())).items():
        wanted = autogenerate.table_key_to_table.get(new)
        if wanted is None or old not in there:
            continue
        # As alembic reflects: a sequence that makes keys is no default.
        seen = ("column_reflect", autogenerate.migration_context.impl.autogen_column_reflect)
        stored = Table(old, MetaData(), autoload_with=autogenerate.connection, listeners=[seen])
        changes = ModifyTableOps(new, [])
        _compare_columns(autogenerate, changes, stored, wanted)
        compare = autogenerate.comparators.dispatch("table", qualifier=autogenerate.dialect.name)
        compare(autogenerate, changes, None, old, stored, wanted)
        gone = _gone(autogenerate, stored, wanted)
        changes.ops.extend(DropColumnOp.from_column_and_tablename(None, new, stored.c[each]) for each in gone)
        for change in changes.ops:
            if getattr(change, "table_name", None) == old:
                change.table_name = new  # type: ignore[attr-defined]
        upgrade.ops.append(RenamedTable(old, new))
        if changes.ops:
            upgrade.ops.append(changes)
    return PriorityDispatchResult.CONTINUE


def refuse_unused(renames: Iterable[Rename], upgrades: Iterable[UpgradeOps], metadata: MetaData) -> None:
    """Raise `MigrationError` for one of *renames* that no database has gone through."""
    done: set[Rename] = set()
    for upgrade in upgrades:
        for change in upgrade.ops:
            if isinstance(change, RenamedTable):
                done.add(Rename(None, change.table_name, change.new_table_name))
            for each in change.ops if isinstance(change, ModifyTableOps) else ():
                if isinstance(each, RenamedColumn):
                    done.add(Rename(each.table_name, each.column_name, str(each.modify_name)))
    for rename in renames:
        if rename not in done:
            raise MigrationError(_why_unused(rename, metadata))


def _why_unused(rename: Rename, metadata: MetaData) -> str:
    table, tables = rename.table or rename.new, metadata.tables
    if table not in tables:
        return f"there is no table {table!r} in the models{nearest(table, tables)}"
    if rename.table is None:
        return f"there is no table {rename.old!r} in a database that could become {rename.new!r}"
    columns = tables[rename.table].c
    if rename.new not in columns:
        return f"there is no column '{rename.table}.{rename.new}' in the models{nearest(rename.new, columns.keys())}"
    return f"there is no column '{rename.table}.{rename.old}' in a database that could become {rename.new!r}"


def forget_followers(upgrade: UpgradeOps, renames: Iterable[Rename]) -> None:
    """Take out the foreign keys that only follow a renamed table: databases let them follow by themselves."""
    tables = tables_of(renames)
    columns = {(each.table, each.new): each.old for each in renames}
    for changes in upgrade.ops:
        if not isinstance(changes, ModifyTableOps):
            continue
        made = {each.constraint_name: each for each in changes.ops if isinstance(each, CreateForeignKeyOp)}
        for change in list(changes.ops):
            if not isinstance(change, DropConstraintOp) or change.constraint_name not in made:
                continue
            before = change.to_constraint()
            after = made[change.constraint_name]
            if isinstance(before, ForeignKeyConstraint) and _follows(before, after, tables, columns):
                changes.ops.remove(change)
                changes.ops.remove(after)


def _follows(
    before: ForeignKeyConstraint,
    after: CreateForeignKeyOp,
    tables: dict[str, str],
    columns: dict[tuple[str | None, str], str],
) -> bool:
    target = after.referent_table
    remote = [columns.get((target, each), each) for each in after.remote_cols]
    wanted = [f"{tables.get(target, target)}.{each}" for each in remote]
    local = [columns.get((after.source_table, each), each) for each in after.local_cols]
    return [each.target_fullname for each in before.elements] == wanted and list(before.column_keys) == local


def _compare_column(
    autogenerate: AutogenContext, change: AlterColumnOp, stored: Table, old: str, wanted: Table, new: str
) -> None:
    compare = autogenerate.comparators.dispatch("column", qualifier=autogenerate.dialect.name)
    compare(autogenerate, change, None, wanted.name, new, stored.c[old], wanted.c[new])


def _compare_columns(
    autogenerate: AutogenContext, changes: ModifyTableOps, stored: Table, wanted: Table
) -> None:
    for column in wanted.columns:
        if column.name not in stored.c:
            changes.ops.append(AddColumnOp.from_column_and_tablename(None, wanted.name, column))
            continue
        change: Any = AlterColumnOp(wanted.name, column.name)
        _compare_column(autogenerate, change, stored, column.name, wanted, column.name)
        if change.has_changes():
            changes.ops.append(change)


def _gone(autogenerate: AutogenContext, stored: Table, wanted: Table) -> list[str]:
    renamed = set(columns_of(autogenerate.opts.get(OPTION, ()), wanted.name).values())
    return [each.name for each in stored.columns if each.name not in wanted.c and each.name not in renamed]
