"""Comparison: what alembic looks at, and how, when it compares a database with the models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alembic.runtime.plugins import Plugin
from alembic.util import DispatchPriority
from sqlalchemy import MetaData, Table

from microorm.migrations.checks import compare_checks
from microorm.migrations.compare import OPTION, Rename, columns_of, rename_columns, rename_tables
from microorm.migrations.compare import tables_of as renamed_tables
from microorm.migrations.defaults import compare_default
from microorm.migrations.keys import compare_keys
from microorm.migrations.portable import render_item
from microorm.migrations.restriction import TARGET
from microorm.migrations.targets import Target

_PLUGIN = Plugin("microorm.migrations")
_PLUGIN.add_autogenerate_comparator(compare_checks, "table", "microorm_checks")
_PLUGIN.add_autogenerate_comparator(compare_keys, "table", "microorm_keys")
_PLUGIN.add_autogenerate_comparator(
    rename_columns, "table", "microorm_columns", priority=DispatchPriority.FIRST
)
_PLUGIN.add_autogenerate_comparator(
    rename_tables, "schema", "microorm_tables", priority=DispatchPriority.FIRST
)


def comparison(
    target: Target, metadata: MetaData, known: frozenset[str], renames: tuple[Rename, ...]
) -> dict[str, Any]:
    """The options of `alembic.context.configure` by which *target* is compared with *metadata*.

    *known*: the tables in the database that belong to models, or did; no other is looked at.
    """
    old_tables = renamed_tables(renames)

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
