"""Renames: what `--rename` declares, and how a table is compared whose name, or that of a column, changes.

A revision first drops what goes away, by the old names; then it renames; then it creates what is new, by the
new names. So it does not matter whether an old name is used again.

Foreign keys that are in the way of a change are dropped first and created again last. No server lets the type of a column
change to one that a foreign key cannot compare. MariaDB lets it not change at all, and keeps an index as long as a foreign
key has no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, ops
from alembic.util import PriorityDispatchResult
from sqlalchemy.sql.elements import conv

from microorm.errors import MigrationError, nearest
from microorm.migrations.dialects import compile_sql
from microorm.migrations.operations import CreateCheckOp, RenameColumnOp, RenameTableOp

RENAMES = "microorm_renames"  # the option of alembic's context that holds the renames

_NAME = r"[^.:]+"
_RENAME = re.compile(rf"(?:({_NAME})\.)?({_NAME}):(?:({_NAME})\.)?({_NAME})")
_DROPS = (ops.DropConstraintOp, ops.DropIndexOp, ops.DropColumnOp)


@dataclass(frozen=True)
class Rename:
    """A rename from *old* to *new*: of a column of *table*, by the table's new name, or of a table if that is None."""

    table: str | None
    old: str
    new: str


def parse_rename(given: str) -> Rename:
    """Parse `old:new` (a table) or `table.old:new` (a column). Raises `MigrationError` for anything else."""
    found = _RENAME.fullmatch(given)
    if found is None:
        raise MigrationError(
            f"{given!r} is not a rename; write 'old:new' for a table or 'table.old:new' for a column"
        )
    table, old, new_table, new = found.groups()
    if new_table not in (None, table):
        raise MigrationError(f"the rename {given!r} names two tables; a column cannot move to another table")
    if old == new:
        raise MigrationError(f"the rename {given!r} changes nothing")
    return Rename(table, old, new)


def renamed_columns(renames: Iterable[Rename], table: str) -> dict[str, str]:
    """Return the old names of the renamed columns of *table*, by their new ones."""
    return {each.new: each.old for each in renames if each.table == table}


def renamed_tables(renames: Iterable[Rename]) -> dict[str, str]:
    """Return the old names of the renamed tables, by their new ones."""
    return {each.new: each.old for each in renames if each.table is None}


def changed_tables(renames: Iterable[Rename]) -> dict[str, str]:
    """Return the old names of the tables that are renamed, or that have renamed columns, by their new ones."""
    tables = renamed_tables(renames)
    columns = {each.table: tables.get(each.table, each.table) for each in renames if each.table is not None}
    return {**columns, **tables}


def compare_renamed_tables(
    autogenerate: AutogenContext, upgrade: ops.UpgradeOps, schemas: Iterable[str | None]
) -> PriorityDispatchResult:
    """Add the renames to *upgrade*, and what else differs about these tables.

    Raises `MigrationError` if a new name is taken.
    """
    renames: tuple[Rename, ...] = autogenerate.opts.get(RENAMES, ())
    existing = set(autogenerate.inspector.get_table_names())
    tables = renamed_tables(renames)
    for new, old in changed_tables(renames).items():
        wanted = autogenerate.table_key_to_table.get(new)
        if wanted is None or old not in existing:
            continue
        if old != new and new in existing and new not in tables.values():
            raise MigrationError(f"{old!r} cannot be renamed to {new!r}: the database has a table {new!r}")
        # As alembic reflects: a sequence that makes keys is not a default.
        listener = ("column_reflect", autogenerate.migration_context.impl.autogen_column_reflect)
        stored = sa.Table(old, sa.MetaData(), autoload_with=autogenerate.connection, listeners=[listener])
        drops, others = _compare(autogenerate, stored, wanted, renamed_columns(renames, new))
        if drops:
            upgrade.ops.append(ops.ModifyTableOps(old, drops))
        if old != new:
            upgrade.ops.append(RenameTableOp(old, new))
        if others:
            upgrade.ops.append(ops.ModifyTableOps(new, others))
    return PriorityDispatchResult.CONTINUE


def _compare(
    autogenerate: AutogenContext, stored: sa.Table, wanted: sa.Table, columns: Mapping[str, str]
) -> tuple[list[MigrateOperation], list[MigrateOperation]]:
    """Return what to drop from *stored*, by its old names, and what to do then. *columns* has old names by new ones."""
    changes = ops.ModifyTableOps(wanted.name, [])
    old_names = {each.name: each.name for each in stored.columns if each.name not in columns.values()}
    for new, old in columns.items():
        if old not in stored.c:
            continue
        if new in old_names:
            raise MigrationError(
                f"the column '{wanted.name}.{old}' cannot be renamed to {new!r}: the table has a column {new!r}"
            )
        old_names[new] = old
    for column in wanted.columns:
        if column.name in old_names:
            changes.ops.extend(_compare_column(autogenerate, stored.c[old_names.pop(column.name)], column))
        else:
            changes.ops.append(ops.AddColumnOp.from_column_and_tablename(None, wanted.name, column))
    compare = autogenerate.comparators.dispatch("table", qualifier=autogenerate.dialect.name)
    # An index of `a` is another one if `a` is another column.
    reused = any(old in wanted.c for old in columns.values())
    compare(autogenerate, changes, None, stored.name, stored, _columns_of(wanted) if reused else wanted)
    if reused:
        changes.ops.extend(_create_all(wanted))
    changes.ops.extend(
        ops.DropColumnOp.from_column_and_tablename(None, stored.name, stored.c[old])
        for old in old_names.values()
    )
    drops: list[MigrateOperation] = [each for each in changes.ops if isinstance(each, _DROPS)]
    others = [each for each in changes.ops if not isinstance(each, _DROPS)]
    for each in others:
        if getattr(each, "table_name", None) == stored.name:
            each.table_name = wanted.name  # type: ignore[attr-defined]
    return drops, others


def _columns_of(table: sa.Table) -> sa.Table:
    """Return *table* without its indexes, and without its constraints but the primary key."""
    columns = (
        sa.Column(each.name, each.type, primary_key=each.primary_key, nullable=each.nullable)
        for each in table.columns
    )
    return sa.Table(table.name, sa.MetaData(), *columns, comment=table.comment)


def _create_all(table: sa.Table) -> Iterator[MigrateOperation]:
    """Yield what creates the indexes and constraints of *table*."""
    for constraint in table.constraints:
        if isinstance(constraint, sa.CheckConstraint):
            if constraint.name:
                yield CreateCheckOp(str(constraint.name), table.name, compile_sql(constraint.sqltext))
        elif not isinstance(constraint, sa.PrimaryKeyConstraint):
            yield ops.AddConstraintOp.from_constraint(constraint)
    for index in table.indexes:
        yield ops.CreateIndexOp.from_index(index)


def _compare_column(
    autogenerate: AutogenContext, stored: sa.Column[Any], wanted: sa.Column[Any]
) -> Iterator[ops.AlterColumnOp]:
    """Yield the rename of *stored*, if it has another name than *wanted*, and then what else changes."""
    compare = autogenerate.comparators.dispatch("column", qualifier=autogenerate.dialect.name)

    def compared(change: ops.AlterColumnOp) -> ops.AlterColumnOp:
        compare(autogenerate, change, None, wanted.table.name, wanted.name, stored, wanted)
        return change

    change = compared(ops.AlterColumnOp(wanted.table.name, wanted.name))
    if stored.name != wanted.name:
        # MariaDB repeats in a rename what the column has.
        rename = RenameColumnOp(wanted.table.name, stored.name, modify_name=wanted.name)
        yield compared(rename).only_rename()  # type: ignore[attr-defined]
    if change.has_changes():
        yield change


def check_renames(
    renames: Iterable[Rename], upgrades: Iterable[ops.UpgradeOps], metadata: sa.MetaData
) -> None:
    """Raise `MigrationError` for one of *renames* that does not occur in *upgrades*."""
    done: set[Rename] = set()
    for upgrade in upgrades:
        for change in upgrade.ops:
            if isinstance(change, RenameTableOp):
                done.add(Rename(None, change.table_name, change.new_table_name))
            for inner in change.ops if isinstance(change, ops.ModifyTableOps) else ():
                if isinstance(inner, RenameColumnOp):
                    done.add(Rename(inner.table_name, inner.column_name, str(inner.modify_name)))
    for rename in renames:
        if rename not in done:
            raise MigrationError(_why_not_renamed(rename, metadata))


def _why_not_renamed(rename: Rename, metadata: sa.MetaData) -> str:
    table, tables = rename.table or rename.new, metadata.tables
    if table not in tables:
        return f"there is no table {table!r} in the models{nearest(table, tables)}"
    if rename.table is None:
        return f"there is no table {rename.old!r} in a database to rename to {rename.new!r}"
    columns = tables[table].c
    if rename.new not in columns:
        return f"there is no column '{table}.{rename.new}' in the models{nearest(rename.new, columns.keys())}"
    return f"there is no column '{table}.{rename.old}' in a database to rename to {rename.new!r}"


def remove_followed_keys(upgrade: ops.UpgradeOps, renames: Iterable[Rename]) -> None:
    """Remove changes of foreign keys whose only cause is a rename: databases change these keys by themselves."""
    renames = tuple(renames)
    created = {
        (key.source_table, str(key.constraint_name)): (changes, key)
        for changes in upgrade.ops
        if isinstance(changes, ops.ModifyTableOps)
        for key in changes.ops
        if isinstance(key, ops.CreateForeignKeyOp)
    }
    for changes in list(upgrade.ops):
        for drop in list(changes.ops) if isinstance(changes, ops.ModifyTableOps) else ():
            before = drop.to_constraint() if isinstance(drop, ops.DropConstraintOp) else None
            if not isinstance(before, sa.ForeignKeyConstraint):
                continue
            for place, key in created.values():
                if key in place.ops and _follows(before, drop.table_name, key, renames):  # type: ignore[attr-defined]
                    changes.ops.remove(drop)  # type: ignore[attr-defined]
                    place.ops.remove(key)
                    break
    upgrade.ops[:] = [each for each in upgrade.ops if not isinstance(each, ops.ModifyTableOps) or each.ops]


def _follows(
    before: sa.ForeignKeyConstraint, table: str, after: ops.CreateForeignKeyOp, renames: tuple[Rename, ...]
) -> bool:
    """Return whether *after* is *before*, a key of *table*, with the new names of tables and columns."""

    def old_names(table: str, columns: Iterable[str]) -> tuple[str, list[str]]:
        renamed = renamed_columns(renames, table)
        return renamed_tables(renames).get(table, table), [renamed.get(each, each) for each in columns]

    local = old_names(after.source_table, after.local_cols)
    referred, remote = old_names(after.referent_table, after.remote_cols)
    return local == (table, list(before.column_keys)) and [f"{referred}.{each}" for each in remote] == [
        each.target_fullname for each in before.elements
    ]


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
