"""Compare: what autogenerate finds beside alembic's own comparisons, in renames, CHECKs, keys and defaults.

A server rewrites a CHECK or a default. To compare it with the model's, that is given to the same server, as
part of a temporary table, and read back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate.api import AutogenContext
from alembic.migration import MigrationContext
from alembic.operations import ops
from alembic.runtime.plugins import Plugin
from alembic.util import DispatchPriority, PriorityDispatchResult
from sqlalchemy.schema import CreateTable, SchemaItem

from microorm.errors import MigrationError, nearest
from microorm.migrations.dialects import compile_sql, dialect_name, literal_text, render_item, sql_for
from microorm.migrations.operations import (
    ChangePrimaryKeyOp,
    CreateCheckOp,
    DropCheckOp,
    RenameColumnOp,
    RenameTableOp,
)
from microorm.migrations.sqlite_ddl import table_ddl
from microorm.migrations.targets import TARGET, Target

TEMPORARY_TABLE = "microorm_temporary"

_RENAMES = "microorm_renames"  # the option of alembic's context that holds the renames
_NAME = r"[^.:]+"
_RENAME = re.compile(rf"(?:({_NAME})\.)?({_NAME}):(?:({_NAME})\.)?({_NAME})")
_JSON_CHECK = re.compile(r"\(*json_valid\(`?(\w+)`?\)\)*", re.IGNORECASE)


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


def compare_options(
    target: Target, metadata: sa.MetaData, known: frozenset[str], renames: tuple[Rename, ...]
) -> dict[str, Any]:
    """Return the options of `alembic.context.configure` that compare *target* with *metadata*.

    *known* are the tables that belong or belonged to a model. Other tables of the database are ignored.
    """
    tables = renamed_tables(renames)

    def include_name(name: str | None, kind: str, parents: Mapping[str, Any]) -> bool:
        if kind != "table":
            return True
        return name in known and name not in tables.values() and target.allows(str(name))

    def include_object(item: Any, name: str | None, kind: str, reflected: bool, other: Any) -> bool:
        if kind == "table" and not reflected:
            return target.allows(str(name)) and not (other is None and name in tables)
        if kind == "column" and reflected and other is None:
            return name not in renamed_columns(renames, item.table.name).values()
        return True

    return {
        TARGET: target,
        _RENAMES: renames,
        "target_metadata": metadata,
        "include_name": include_name,
        "include_object": include_object,
        "compare_type": True,
        "compare_server_default": compare_default,
        "render_as_batch": True,  # SQLite changes a table by building a new one
        "render_item": render_item,
        "autogenerate_plugins": ["alembic.autogenerate.*", "microorm.migrations"],
    }


def compare_table(
    autogenerate: AutogenContext,
    changes: ops.ModifyTableOps,
    schema: str | None,
    name: str,
    stored: sa.Table | None,
    wanted: sa.Table | None,
) -> PriorityDispatchResult:
    """Add to *changes* how the table differs: in renamed columns, CHECKs, its primary key, indexes on expressions."""
    connection = autogenerate.connection
    if stored is not None and wanted is not None:
        _compare_renamed_columns(autogenerate, changes, stored, wanted)
        if (before := _key(stored)) != (after := _key(wanted)):
            changes.ops.append(ChangePrimaryKeyOp(name, before, after))
        if connection is not None:
            _compare_checks(connection, changes, name, wanted)
    if wanted is not None and connection is not None and connection.dialect.name == "sqlite":
        query = sa.text("SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = :table")
        present = set() if stored is None else set(connection.execute(query, {"table": name}).scalars())
        for index in sorted(wanted.indexes, key=lambda each: str(each.name)):
            on_columns = all(isinstance(each, sa.Column) for each in index.expressions)
            # alembic skips one on expressions, and only its name can be compared
            if not on_columns and index.name not in present:
                changes.ops.append(ops.CreateIndexOp.from_index(index))
    return PriorityDispatchResult.CONTINUE


def _key(table: sa.Table) -> tuple[str, ...]:
    return tuple(sorted(column.name for column in table.primary_key.columns))


def _compare_renamed_columns(
    autogenerate: AutogenContext, changes: ops.ModifyTableOps, stored: sa.Table, wanted: sa.Table
) -> None:
    """Replace new columns in *changes* that are renamed ones, and compare what else differs about them."""
    for new, old in renamed_columns(autogenerate.opts.get(_RENAMES, ()), wanted.name).items():
        for index, change in enumerate(changes.ops):
            if isinstance(change, ops.AddColumnOp) and change.column.name == new and old in stored.c:
                rename = RenameColumnOp(wanted.name, old, modify_name=new)
                _compare_column(autogenerate, rename, stored.c[old], wanted.c[new])
                changes.ops[index] = rename


def compare_renamed_tables(
    autogenerate: AutogenContext, upgrade: ops.UpgradeOps, schemas: Iterable[str | None]
) -> PriorityDispatchResult:
    """Add the renamed tables to *upgrade*, and what else differs about them.

    Raises `MigrationError` for a table in a schema, before anything is compared.
    """
    for table in autogenerate.sorted_tables:
        if table.schema is not None:
            raise MigrationError(
                f"the table {table.fullname!r} is in a schema; revisions are made for tables without one only"
            )
    existing = set(autogenerate.inspector.get_table_names())
    for new, old in renamed_tables(autogenerate.opts.get(_RENAMES, ())).items():
        wanted = autogenerate.table_key_to_table.get(new)
        if wanted is None or old not in existing:
            continue
        # As alembic reflects: a sequence that makes keys is not a default.
        listener = ("column_reflect", autogenerate.migration_context.impl.autogen_column_reflect)
        stored = sa.Table(old, sa.MetaData(), autoload_with=autogenerate.connection, listeners=[listener])
        changes = _compare_renamed_table(autogenerate, stored, wanted)
        upgrade.ops.append(RenameTableOp(old, new))
        if changes.ops:
            upgrade.ops.append(changes)
    return PriorityDispatchResult.CONTINUE


def _compare_renamed_table(
    autogenerate: AutogenContext, stored: sa.Table, wanted: sa.Table
) -> ops.ModifyTableOps:
    """Compare two tables whose names differ, as alembic compares tables of one name."""
    changes = ops.ModifyTableOps(wanted.name, [])
    for column in wanted.columns:
        if column.name not in stored.c:
            changes.ops.append(ops.AddColumnOp.from_column_and_tablename(None, wanted.name, column))
            continue
        change: Any = ops.AlterColumnOp(wanted.name, column.name)
        _compare_column(autogenerate, change, stored.c[column.name], column)
        if change.has_changes():
            changes.ops.append(change)
    compare = autogenerate.comparators.dispatch("table", qualifier=autogenerate.dialect.name)
    compare(autogenerate, changes, None, stored.name, stored, wanted)
    kept = {*wanted.c.keys(), *renamed_columns(autogenerate.opts.get(_RENAMES, ()), wanted.name).values()}
    changes.ops.extend(
        ops.DropColumnOp.from_column_and_tablename(None, wanted.name, column)
        for column in stored.columns
        if column.name not in kept
    )
    for change in changes.ops:
        if getattr(change, "table_name", None) == stored.name:
            change.table_name = wanted.name
    return changes


def _compare_column(
    autogenerate: AutogenContext, change: ops.AlterColumnOp, stored: sa.Column[Any], wanted: sa.Column[Any]
) -> None:
    compare = autogenerate.comparators.dispatch("column", qualifier=autogenerate.dialect.name)
    compare(autogenerate, change, None, wanted.table.name, wanted.name, stored, wanted)


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
    tables = renamed_tables(renames)
    columns = {(each.table, each.new): each.old for each in renames}
    for changes in upgrade.ops:
        if not isinstance(changes, ops.ModifyTableOps):
            continue
        created = {
            each.constraint_name: each for each in changes.ops if isinstance(each, ops.CreateForeignKeyOp)
        }
        for change in list(changes.ops):
            if not isinstance(change, ops.DropConstraintOp) or change.constraint_name not in created:
                continue
            before, after = change.to_constraint(), created[change.constraint_name]
            if isinstance(before, sa.ForeignKeyConstraint) and _follows(before, after, tables, columns):
                changes.ops.remove(change)
                changes.ops.remove(after)


def _follows(
    before: sa.ForeignKeyConstraint,
    after: ops.CreateForeignKeyOp,
    tables: dict[str, str],
    columns: dict[tuple[str | None, str], str],
) -> bool:
    """Return whether *after* is *before* with the new names of *tables* and *columns*."""
    table = after.referent_table
    remote = [f"{tables.get(table, table)}.{columns.get((table, each), each)}" for each in after.remote_cols]
    local = [columns.get((after.source_table, each), each) for each in after.local_cols]
    return [each.target_fullname for each in before.elements] == remote and list(before.column_keys) == local


def _compare_checks(
    connection: sa.Connection, changes: ops.ModifyTableOps, name: str, wanted: sa.Table
) -> None:
    """Add to *changes* the named CHECKs that the table *name* lacks, has in excess, or has with another condition."""
    present = stored_checks(connection, name)
    checks = {
        str(each.name): each.sqltext
        for each in wanted.constraints
        if isinstance(each, sa.CheckConstraint) and each.name
    }
    dialect = dialect_name(connection.dialect.name)
    compiled = {each: sql_for(checks[each], dialect) for each in checks.keys() & present.keys()}
    changed = _differing(compiled, present)
    # PostgreSQL may rewrite a CHECK again that it has rewritten once.
    for _ in range(2):
        if changed:
            changed = _differing(_read_back(connection, wanted, changed), present)
    for check in sorted((present.keys() - checks.keys()) | changed.keys()):
        changes.ops.append(DropCheckOp(check, name, literal_text(present[check])))
    for check in sorted((checks.keys() - present.keys()) | changed.keys()):
        changes.ops.append(CreateCheckOp(check, name, compile_sql(checks[check])))


def stored_checks(connection: sa.Connection, table: str) -> dict[str, str]:
    """Return the named CHECKs of *table*: name → condition. MariaDB's own CHECKs of JSON columns are left out."""
    if connection.dialect.name == "sqlite":
        return {
            each.name: each.condition for each in table_ddl(connection, table).checks if each.name is not None
        }
    found = sa.inspect(connection).get_check_constraints(table)
    return {
        str(each["name"]): each["sqltext"]
        for each in found
        if each["name"] is not None
        and not ((json := _JSON_CHECK.fullmatch(each["sqltext"])) and json[1] == each["name"])
    }


def _differing(checks: dict[str, str], present: dict[str, str]) -> dict[str, str]:
    return {name: sql for name, sql in checks.items() if sql.split() != present[name].split()}


def _read_back(connection: sa.Connection, table: sa.Table, checks: dict[str, str]) -> dict[str, str]:
    """Return *checks* of *table* as the database rewrites them."""
    columns = [sa.Column(column.name, column.type) for column in table.columns]
    constraints = [sa.CheckConstraint(literal_text(sql), name=name) for name, sql in checks.items()]
    with temporary_table(connection, *columns, *constraints):
        return stored_checks(connection, TEMPORARY_TABLE)


def compare_default(
    migration: MigrationContext,
    stored: sa.Column[Any],
    wanted: sa.Column[Any],
    stored_default: str | None,
    wanted_default: Any,
    rendered: str | None,
) -> bool:
    """Return whether two columns have different server defaults, as alembic's `compare_server_default`."""
    if wanted_default is None:
        return stored_default is not None
    connection = migration.bind
    if stored_default == rendered or connection is None:
        return False
    column = sa.Column(wanted.name, wanted.type, server_default=wanted_default.arg)
    with temporary_table(connection, column) as inspector:
        (read_back,) = inspector.get_columns(TEMPORARY_TABLE)
    return _without_brackets(read_back["default"]) != _without_brackets(stored_default)


def _without_brackets(sql: str | None) -> str | None:
    """Strip the brackets that alembic adds around a default of SQLite."""
    return None if sql is None else re.sub(r"^\((.*)\)$", r"\1", sql, flags=re.DOTALL)


@contextmanager
def temporary_table(connection: sa.Connection, *items: SchemaItem) -> Iterator[sa.Inspector]:
    """Create a temporary table of columns and constraints for the duration of the block."""
    # `Table.create` and `Table.drop` would also create and drop the types of the columns.
    connection.execute(CreateTable(sa.Table(TEMPORARY_TABLE, sa.MetaData(), *items, prefixes=["TEMPORARY"])))
    try:
        yield sa.inspect(connection)
    finally:
        kind = "TABLE" if connection.dialect.name in ("sqlite", "postgresql") else "TEMPORARY TABLE"
        connection.exec_driver_sql(f"DROP {kind} {TEMPORARY_TABLE}")


_PLUGIN = Plugin("microorm.migrations")
_PLUGIN.add_autogenerate_comparator(compare_table, "table", "microorm_table")
_PLUGIN.add_autogenerate_comparator(
    compare_renamed_tables, "schema", "microorm_tables", priority=DispatchPriority.FIRST
)
