"""Defaults: whether what the database makes a value of is what the model says."""

from __future__ import annotations

import re
from typing import Any

from alembic.migration import MigrationContext
from sqlalchemy import Column

from microorm.migrations.momentary import NAME, momentary


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
