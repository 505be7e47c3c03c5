"""Targets: the databases that migrations are applied to, each once, however many aliases it has."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from alembic import op
from alembic.operations import MigrateOperation, Operations
from alembic.operations.ops import BulkInsertOp, CreateTableOp, RenameTableOp
from sqlalchemy import URL, CheckConstraint, Connection, String, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from microorm.databases import Databases
from microorm.engines import BEGIN, Database
from microorm.errors import ConfigurationError, MigrationError
from microorm.migrations.dialects import as_text
from microorm.registry import Registry
from microorm.types import MARIADB
from microorm.urls import is_memory

_PORTS = {"postgresql": 5432, "mariadb": 3306}
_HERE = ("", "127.0.0.1", "::1")
# What in a query says where a database is, and not how to speak with it.
_WHERE = ("host", "options", "port", "service", "unix_socket")


class Target:
    """One database: the *aliases* that mean it, and which tables the routers give it."""

    def __init__(self, registry: Registry, aliases: tuple[str, ...], labels: Mapping[str, str]) -> None:
        self.aliases = aliases
        self.databases: Databases = registry.databases
        self.database: Database = self.databases.database(aliases[0])
        self._labels = labels
        self._models = tables_of(registry)

    def __repr__(self) -> str:
        return f"<Target {', '.join(map(repr, self.aliases))}>"

    @property
    def alias(self) -> str:
        """The alias to speak of it by: the first that was configured."""
        return self.aliases[0]

    @property
    def dialect(self) -> str:
        """The name of its dialect, one for both names of MariaDB's."""
        return "mariadb" if self.database.dialect in MARIADB else self.database.dialect

    def allows(self, table: str) -> bool:
        """Whether one of its aliases holds *table*; one that no model had is everywhere (CONTRACT N18)."""
        label, model = self._models.get(table, (self._labels.get(table), None))
        if label is None:
            return True
        return any(self.databases.allows_migration(alias, label, model) for alias in self.aliases)

    def at(self, heads: tuple[str, ...]) -> str:
        """Where it is, in words."""
        return f"{self.alias!r} is at {revisions(heads)}"


def targets(registry: Registry, labels: Mapping[str, str], alias: str | None = None) -> list[Target]:
    """The databases of *registry*, or the one of *alias*. *labels*: what the history says whose table each was.

    Raises `UnknownAlias`, and `ConfigurationError` where no database is configured.
    """
    databases = registry.databases
    if alias is not None:
        databases.database(alias)
    if not databases.aliases:
        raise ConfigurationError("no database is configured")
    places: dict[Any, list[str]] = {}
    for each in databases.aliases:
        places.setdefault(place(databases.database(each).url), []).append(each)
    return [
        Target(registry, tuple(aliases), labels)
        for aliases in places.values()
        if alias is None or alias in aliases
    ]


def place(url: URL) -> tuple[object, ...]:
    """What two URLs of one database have in common: not the user, nor the name that means this machine."""
    backend = url.get_backend_name()
    if backend == "sqlite":
        database = url.database or ""
        is_file = not is_memory(url) and not database.startswith("file:")
        return backend, os.path.realpath(database) if is_file else database
    backend = "mariadb" if backend in MARIADB else backend
    host = (url.host or "").lower()
    query = tuple(sorted((name, value) for name, value in url.query.items() if name in _WHERE))
    return (
        backend,
        "localhost" if host in _HERE else host,
        url.port or _PORTS.get(backend),
        url.database,
        query,
    )


def tables_of(registry: Registry) -> dict[str, tuple[str, Any]]:
    """The tables of the models, with the label and the model of each."""
    _ = registry.metadata  # those that wait for a name have tables, too
    return {model.__table__.name: (label, model) for label, model in registry.models.items()}


def revisions(heads: tuple[str, ...]) -> str:
    """Revisions as a message names them."""
    return " and ".join(map(repr, sorted(heads))) or "'base'"


PATIENCE = 60.0  # seconds
_PAUSE = 0.2
_log = logging.getLogger("microorm.migrations")

_TAKE = {
    "postgresql": "SELECT pg_try_advisory_lock(hashtext('microorm migrations of ' || current_schema()))",
    "mariadb": "SELECT GET_LOCK(CONCAT('microorm_', MD5(DATABASE())), 0)",
}
_GIVE_BACK = {
    "postgresql": "SELECT pg_advisory_unlock(hashtext('microorm migrations of ' || current_schema()))",
    "mariadb": "SELECT RELEASE_LOCK(CONCAT('microorm_', MD5(DATABASE())))",
}


@contextmanager
def locked(target: Target, connection: Connection, patience: float = PATIENCE) -> Iterator[None]:
    """Let nobody else migrate *target* meanwhile; on SQLite the foreign keys are off, too.

    Raises `MigrationError` where another process holds the lock for *patience* seconds.
    """
    if target.dialect == "sqlite":
        with _unchecked(connection, patience):
            yield
        return
    if target.dialect not in _TAKE:
        yield
        return
    _take(target, connection, patience)
    try:
        yield
    finally:
        with suppress(SQLAlchemyError):  # a connection that was lost has lost its lock, too
            connection.rollback()
            connection.execute(text(_GIVE_BACK[target.dialect]))
            connection.commit()


def _take(target: Target, connection: Connection, patience: float) -> None:
    deadline = time.monotonic() + patience
    waited = False
    while True:
        taken = connection.execute(text(_TAKE[target.dialect])).scalar()
        connection.commit()
        if taken:
            return
        if time.monotonic() >= deadline:
            raise MigrationError(
                f"{target.alias!r} is being migrated by another process, for {patience:g} seconds at least"
            )
        if not waited:
            waited = True
            _log.info("waiting for another process that migrates %r", target.alias)
        time.sleep(_PAUSE)


@contextmanager
def _unchecked(connection: Connection, patience: float) -> Iterator[None]:
    """Foreign keys off and a long patience, both of which SQLite takes outside a transaction only.

    With them on, taking the place of a table deletes the rows that refer to it.
    """
    connection.rollback()
    cursor = connection.connection.cursor()
    (checked,) = cursor.execute("PRAGMA foreign_keys").fetchone()
    (timeout,) = cursor.execute("PRAGMA busy_timeout").fetchone()
    cursor.execute("PRAGMA foreign_keys=OFF")
    cursor.execute(f"PRAGMA busy_timeout={int(patience * 1000)}")
    connection.execution_options(**{BEGIN: "BEGIN IMMEDIATE"})
    try:
        yield
    finally:
        connection.rollback()
        connection.execution_options(**{BEGIN: "BEGIN"})
        cursor.execute(f"PRAGMA busy_timeout={timeout:d}")
        cursor.execute(f"PRAGMA foreign_keys={checked:d}")
        cursor.close()


TARGET = "microorm_target"


def on(
    *,
    alias: str | Iterable[str] | None = None,
    table: str | None = None,
    dialect: str | Iterable[str] | None = None,
    missing: str | None = None,
) -> bool:
    """Whether the database that is being migrated is the one of *alias*, holds *table*, and speaks *dialect*.

    *missing*: whether it holds this table and does not have it yet; not so where SQL is written without a database.

    For the body of a revision: `if on(table="book"): op.execute(...)`. Several aliases or dialects mean any of them;
    `"mariadb"` and `"mysql"` are the same. An alias that is not configured, or no more, is no database's.
    `MigrationError` where no migration runs; `TypeError` where nothing is asked.
    """
    if alias is None and table is None and dialect is None and missing is None:
        raise TypeError("on() wants alias=, table=, dialect= or missing=")
    target = current_target()
    dialects = {"mariadb" if each == "mysql" else each for each in _several(dialect)}
    return (
        (alias is None or not set(_several(alias)).isdisjoint(target.aliases))
        and (table is None or target.allows(table))
        and (dialect is None or target.dialect in dialects)
        and (missing is None or (target.allows(missing) and _is_missing(missing)))
    )


def _is_missing(table: str) -> bool:
    return not op.get_context().as_sql and not inspect(op.get_bind()).has_table(table)


def current_target() -> Target:
    """The database that is being migrated. `MigrationError` where no migration runs."""
    try:
        options = op.get_context().opts
    except (NameError, AttributeError):  # alembic has no context, or no more
        options = {}
    target = options.get(TARGET)
    if not isinstance(target, Target):
        raise MigrationError("no migration is running")
    return target


def restrict(operations: Operations, target: Target) -> None:
    """Let *operations* do only what changes tables that *target* holds."""
    invoke, batch_alter_table = operations.invoke, operations.batch_alter_table

    def restricted(operation: MigrateOperation) -> Any:
        if all(target.allows(table) for table in changed_tables(operation)):
            return invoke(operation)
        # What follows may insert rows into the table that was made.
        return operation.to_table() if isinstance(operation, CreateTableOp) else None

    @contextmanager
    def batch(table_name: str, *arguments: Any, **options: Any) -> Iterator[Any]:
        if not target.allows(table_name):
            yield Nothing()
            return
        with (
            rebuilding(operations, table_name, options) as kept,
            batch_alter_table(table_name, *arguments, **options) as batch_op,
        ):
            yield batch_op
            kept.note(batch_op)

    # An Operations is made by alembic alone; these are what its module-level functions call.
    setattr(operations, "invoke", restricted)  # noqa: B010 mypy refuses to assign to a method
    setattr(operations, "batch_alter_table", batch)  # noqa: B010


class Nothing:
    """Stands for the batch of a table that a database does not hold: takes every operation and does none."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: None


def changed_tables(operation: MigrateOperation) -> Iterator[str]:
    """The tables that *operation* changes; none where it is SQL."""
    if isinstance(operation, BulkInsertOp):
        yield operation.table.name
    if isinstance(operation, RenameTableOp):
        yield operation.new_table_name
    for attribute in ("source_table", "table_name"):
        if isinstance(name := getattr(operation, attribute, None), str):
            yield name


def _several(given: str | Iterable[str] | None) -> Iterable[str]:
    return () if given is None else (given,) if isinstance(given, str) else given


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
