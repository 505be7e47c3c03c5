"""Rebuilding: SQLite changes a table by building another in its place; what that would lose is kept.

alembic reflects the table, makes the new one, copies the rows and renames it. Reflection does not see AUTOINCREMENT
and the highest key that was given, collations, CHECKs without a name, triggers, and indexes on expressions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from alembic.operations import Operations
from sqlalchemy import CheckConstraint, Connection, String, inspect, text

from microorm.migrations.dialects import as_text


class Kept:
    """What is known of a table before it is built anew."""

    def __init__(self, connection: Connection | None, table: str) -> None:
        self.connection = connection
        self.table = table
        self.objects: dict[str, str] = {}  # triggers and indexes: name → SQL
        self.highest: int | None = None
        self._dropped: set[str] = set()
        if connection is not None:
            self._read(connection)

    def note(self, batch_op: Any) -> None:
        """Note the indexes that *batch_op* drops on purpose."""
        self._dropped = {what[1][0].name for what in batch_op.impl.batch if what[0] == "drop_index"}

    def restore(self) -> None:
        """Make again what is gone, and give no key twice."""
        connection = self.connection
        if connection is None:
            return
        left = _objects(connection, self.table)
        for name, sql in self.objects.items():
            if name not in left and name not in self._dropped:
                connection.execute(as_text(sql))
        if self.highest is not None and _highest(connection, self.table) != self.highest:
            forget = text("DELETE FROM sqlite_sequence WHERE name = :table")
            note = text("INSERT INTO sqlite_sequence VALUES (:table, :highest)")
            connection.execute(forget, {"table": self.table})
            connection.execute(note, {"table": self.table, "highest": self.highest})

    def _read(self, connection: Connection) -> None:
        self.objects = _objects(connection, self.table)
        self.highest = _highest(connection, self.table)


@contextmanager
def rebuilding(operations: Operations, table: str, options: dict[str, Any]) -> Iterator[Kept]:
    """Around a batch on *table*, whose *options* are completed so that the new table is as the old one was."""
    context = operations.get_context()
    if context.dialect.name != "sqlite" or context.as_sql or options.get("copy_from") is not None:
        yield Kept(None, table)
        return
    connection = operations.get_bind()
    kept = Kept(connection, table)
    options["table_kwargs"] = {**_table_options(connection, table), **options.get("table_kwargs", {})}
    reflecting = dict(options.get("reflect_kwargs", {}))
    collate = ("column_reflect", _collating(_sql_of(connection, table)))
    options["reflect_kwargs"] = {**reflecting, "listeners": [*reflecting.get("listeners", ()), collate]}
    options["table_args"] = (*_nameless_checks(connection, table), *options.get("table_args", ()))
    # Else taking the old table's name fails where a view, whose table is gone for the moment, uses it.
    (legacy,) = connection.exec_driver_sql("PRAGMA legacy_alter_table").one()
    connection.exec_driver_sql("PRAGMA legacy_alter_table=ON")
    try:
        yield kept
    finally:
        connection.exec_driver_sql(f"PRAGMA legacy_alter_table={legacy:d}")
    kept.restore()


def _sql_of(connection: Connection, table: str) -> str:
    query = text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = :table")
    return connection.execute(query, {"table": table}).scalar() or ""


def _collating(sql: str) -> Callable[..., None]:
    """What gives each column that is reflected the collation that it has in *sql*."""

    def collate(inspector: Any, table: Any, column: Any) -> None:
        name = re.escape(column["name"])
        found = re.search(rf"[\"`\[\s(,]{name}[\"`\]\s][^,]*?\bCOLLATE\s+[\"'`\[]?(\w+)", sql, re.IGNORECASE)
        if found and isinstance(column["type"], String):
            column["type"].collation = found[1]

    return collate


def _table_options(connection: Connection, table: str) -> dict[str, Any]:
    sql = _sql_of(connection, table)
    outside = re.sub(r"'[^']*'|\"[^\"]*\"", "", sql)
    options: dict[str, Any] = {}
    if re.search(r"\bAUTOINCREMENT\b", outside, re.IGNORECASE):
        options["sqlite_autoincrement"] = True
    if re.search(r"\bWITHOUT\s+ROWID\b", outside, re.IGNORECASE):
        options["sqlite_with_rowid"] = False
    return options


def _nameless_checks(connection: Connection, table: str) -> list[CheckConstraint]:
    if not (inspector := inspect(connection)).has_table(table):
        return []
    found = inspector.get_check_constraints(table)
    return [CheckConstraint(text(each["sqltext"])) for each in found if each["name"] is None]


def _objects(connection: Connection, table: str) -> dict[str, str]:
    query = text(
        "SELECT name, sql FROM sqlite_master"
        " WHERE tbl_name = :table AND type IN ('trigger', 'index') AND sql IS NOT NULL"
    )
    return {row.name: row.sql for row in connection.execute(query, {"table": table})}


def _highest(connection: Connection, table: str) -> int | None:
    """The highest key that *table* ever gave, if it gives none twice and gave one."""
    if not _table_options(connection, table).get("sqlite_autoincrement"):
        return None
    query = text("SELECT seq FROM sqlite_sequence WHERE name = :table")
    highest: int | None = connection.execute(query, {"table": table}).scalar()
    return highest
