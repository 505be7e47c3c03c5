"""Renames: a table or a column that has another name, where it is told; to a comparison one is gone and one is new."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from alembic.autogenerate.api import AutogenContext
from alembic.migration import MigrationContext
from alembic.operations.ops import (
    AddColumnOp,
    AlterColumnOp,
    CreateForeignKeyOp,
    CreateIndexOp,
    DropColumnOp,
    DropConstraintOp,
    ModifyTableOps,
    UpgradeOps,
)
from alembic.runtime.plugins import Plugin
from alembic.util import DispatchPriority, PriorityDispatchResult
from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    ForeignKeyConstraint,
    Index,
    Inspector,
    MetaData,
    Table,
    inspect,
    text,
)
from sqlalchemy.schema import CreateTable, SchemaItem

from microorm.errors import MigrationError, nearest
from microorm.migrations.dialects import ByDialect, as_text, in_words, plain, render_item
from microorm.migrations.operations import AddedCheck, ChangedKey, DroppedCheck, RenamedColumn, RenamedTable
from microorm.migrations.targets import TARGET, Target
from microorm.types import MARIADB

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


def comparison(
    target: Target, metadata: MetaData, known: frozenset[str], renames: tuple[Rename, ...]
) -> dict[str, Any]:
    """The options of `alembic.context.configure` by which *target* is compared with *metadata*.

    *known*: the tables in the database that belong to models, or did; no other is looked at.
    """
    old_tables = tables_of(renames)

    def include_name(name: str | None, kind: str, parents: Mapping[str, Any]) -> bool:
        if kind != "table":
            return True
        return name in known and name not in old_tables.values() and target.allows(str(name))

    def include_object(item: Any, name: str | None, kind: str, reflected: bool, other: Any) -> bool:
        if kind == "table" and not reflected:
            return target.allows(str(name)) and not _is_renamed_here(item, other)
        if kind == "column" and reflected and other is None:
            return name not in columns_of(renames, item.table.name).values()
        return True

    def _is_renamed_here(table: Table, stored: Any) -> bool:
        return stored is None and table.name in old_tables

    return {
        TARGET: target,
        OPTION: renames,
        "target_metadata": metadata,
        "include_name": include_name,
        "include_object": include_object,
        "compare_type": True,
        "compare_server_default": compare_default,
        "render_as_batch": True,  # SQLite changes a table by building it anew
        "render_item": render_item,
        "autogenerate_plugins": ["alembic.autogenerate.*", "microorm.migrations"],
    }


_JSON = re.compile(r"\(*json_valid\(`?(\w+)`?\)\)*", re.IGNORECASE)


def compare_checks(
    autogenerate: AutogenContext,
    changes: ModifyTableOps,
    schema: str | None,
    name: str,
    stored: Table | None,
    wanted: Table | None,
) -> PriorityDispatchResult:
    """Add to *changes* the CHECKs that the table *name* lacks, has too many, or that say something else."""
    connection = autogenerate.connection
    if stored is None or wanted is None or connection is None:
        return PriorityDispatchResult.CONTINUE
    there = stored_checks(connection, name, schema)
    asked = {
        str(each.name): each for each in wanted.constraints if isinstance(each, CheckConstraint) and each.name
    }
    told = {check: _compiled(asked[check], connection) for check in asked.keys() & there.keys()}
    # What PostgreSQL makes of its own words is not always these words: a CHECK that came back is told twice.
    differing = _differing(told, there)
    for _ in range(2):
        if differing:
            differing = _differing(_as_kept(connection, wanted, differing), there)
    for check in sorted((there.keys() - asked.keys()) | differing.keys()):
        changes.ops.append(DroppedCheck(check, name, as_text(there[check])))
    for check in sorted((asked.keys() - there.keys()) | differing.keys()):
        changes.ops.append(AddedCheck.of(name, check, in_words(asked[check].sqltext)))
    return PriorityDispatchResult.CONTINUE


def _differing(told: dict[str, str], there: dict[str, str]) -> dict[str, str]:
    return {check: words for check, words in told.items() if _words(words) != _words(there[check])}


def stored_checks(connection: Connection, table: str, schema: str | None = None) -> dict[str, str]:
    """The named CHECKs of *table*: name → expression; not those by which MariaDB keeps a column to JSON."""
    found = inspect(connection).get_check_constraints(table, schema=schema)
    return {
        str(each["name"]): each["sqltext"]
        for each in found
        if each["name"] is not None
        and not ((json := _JSON.fullmatch(each["sqltext"])) and json[1] == each["name"])
    }


def _compiled(check: CheckConstraint, connection: Connection) -> str:
    name = connection.dialect.name
    words = in_words(check.sqltext)
    return (
        words.words["mariadb" if name in MARIADB else name] if isinstance(words, ByDialect) else plain(words)
    )


def _words(expression: str) -> str:
    return " ".join(expression.split())


def _as_kept(connection: Connection, table: Table, checks: dict[str, str]) -> dict[str, str]:
    """The *checks* in the words of the database."""
    columns = [Column(column.name, column.type) for column in table.columns]
    told = [CheckConstraint(as_text(words), name=name) for name, words in checks.items()]
    with momentary(connection, *columns, *told):
        return stored_checks(connection, NAME)


def compare_keys(
    autogenerate: AutogenContext,
    changes: ModifyTableOps,
    schema: str | None,
    name: str,
    stored: Table | None,
    wanted: Table | None,
) -> PriorityDispatchResult:
    """Add to *changes* that the table *name* has another primary key, and the indexes that only a name tells of."""
    if wanted is None:
        return PriorityDispatchResult.CONTINUE
    if stored is not None:
        before, after = _columns(stored), _columns(wanted)
        if before != after:
            changes.ops.append(ChangedKey(name, before, after))
    connection = autogenerate.connection
    if connection is not None and autogenerate.dialect.name == "sqlite":
        there = set() if stored is None else _indexes(connection, name)
        for index in sorted(wanted.indexes, key=lambda each: str(each.name)):
            if _on_expressions(index) and index.name not in there:
                changes.ops.append(CreateIndexOp.from_index(index))
    return PriorityDispatchResult.CONTINUE


def _columns(table: Table) -> tuple[str, ...]:
    return tuple(sorted(column.name for column in table.primary_key.columns))


def _on_expressions(index: Index) -> bool:
    return any(not isinstance(each, Column) for each in index.expressions)


def _indexes(connection: Connection, table: str) -> set[str]:
    query = text("SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = :table")
    return set(connection.execute(query, {"table": table}).scalars())


def compare_default(
    migration: MigrationContext,
    stored: Column[Any],
    wanted: Column[Any],
    stored_default: str | None,
    wanted_default: Any,
    rendered: str | None,
) -> bool:
    """Whether the default of the column *stored* is another than that of *wanted*; alembic's hook."""
    if wanted_default is None:
        return stored_default is not None
    connection = migration.bind
    if stored_default == rendered or connection is None:
        return False
    column = Column(wanted.name, wanted.type, server_default=wanted_default.arg)
    with momentary(connection, column) as inspector:
        (kept,) = inspector.get_columns(NAME)
    return _bare(kept["default"]) != _bare(stored_default)


def _bare(sql: str | None) -> str | None:
    """*sql* without the brackets around all of it, which alembic adds to what SQLite tells."""
    return None if sql is None else re.sub(r"^\((.*)\)$", r"\1", sql, flags=re.DOTALL)


NAME = "microorm_momentary"


@contextmanager
def momentary(connection: Connection, *items: SchemaItem) -> Iterator[Inspector]:
    """Let a table of columns and constraints be there, for as long as it is looked at."""
    # Not by `Table.create`, which makes the types of its columns, too, and not by `Table.drop`, which drops them.
    connection.execute(CreateTable(Table(NAME, MetaData(), *items, prefixes=["TEMPORARY"])))
    try:
        yield inspect(connection)
    finally:
        kind = "TABLE" if connection.dialect.name in ("sqlite", "postgresql") else "TEMPORARY TABLE"
        connection.exec_driver_sql(f"DROP {kind} {NAME}")


_PLUGIN = Plugin("microorm.migrations")
_PLUGIN.add_autogenerate_comparator(compare_checks, "table", "microorm_checks")
_PLUGIN.add_autogenerate_comparator(compare_keys, "table", "microorm_keys")
_PLUGIN.add_autogenerate_comparator(
    rename_columns, "table", "microorm_columns", priority=DispatchPriority.FIRST
)
_PLUGIN.add_autogenerate_comparator(
    rename_tables, "schema", "microorm_tables", priority=DispatchPriority.FIRST
)
