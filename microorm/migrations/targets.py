"""Targets: the databases that migrations are applied to, and what the operations of a revision do on each.

Aliases of one database are one target. A target is locked while it is migrated. It runs only the operations
of tables that the routers give to one of its aliases.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from alembic import op
from alembic.migration import MigrationContext
from alembic.operations import MigrateOperation, Operations
from alembic.operations.ops import AddColumnOp, BulkInsertOp, CreateTableOp, RenameTableOp
from alembic.util import to_tuple
from sqlalchemy import URL, Column, Connection, inspect, literal_column, select, text
from sqlalchemy import table as table_clause
from sqlalchemy.exc import SQLAlchemyError

from microorm.db.databases import Databases
from microorm.db.engines.engine import BEGIN, Database
from microorm.db.engines.urls import is_memory
from microorm.errors import ConfigurationError, MigrationError
from microorm.migrations.dialects import dialect_name
from microorm.migrations.history import name_revisions
from microorm.migrations.rebuild import Rebuilds
from microorm.registry import Registry

MAX_WAIT = 60.0  # seconds that a lock is waited for
TARGET = "microorm_target"  # the option of alembic's context that holds the target

_PAUSE = 0.2
_PORTS = {"postgresql": 5432, "mariadb": 3306}
_LOCAL = ("", "127.0.0.1", "::1")
# The parts of a URL's query that say where a database is.
_LOCATION = ("host", "options", "port", "service", "unix_socket")
_LOCKS = {
    "postgresql": (
        "SELECT pg_try_advisory_lock(hashtext('microorm migrations of ' || current_schema()))",
        "SELECT pg_advisory_unlock(hashtext('microorm migrations of ' || current_schema()))",
    ),
    "mariadb": (
        "SELECT GET_LOCK(CONCAT('microorm_', MD5(DATABASE())), 0)",
        "SELECT RELEASE_LOCK(CONCAT('microorm_', MD5(DATABASE())))",
    ),
}
_log = logging.getLogger("microorm.migrations")


class Target:
    """One database: the *aliases* that name it, and the tables that the routers give to them.

    *labels* has the labels of tables whose models may be gone.
    """

    def __init__(self, registry: Registry, aliases: tuple[str, ...], labels: Mapping[str, str]) -> None:
        self.aliases = aliases
        self.databases: Databases = registry.databases
        self.database: Database = self.databases.database(aliases[0])
        self._models = models_by_table(registry)
        self._labels = {**labels, **labels_by_table(registry)}

    def __repr__(self) -> str:
        return f"<Target {', '.join(map(repr, self.aliases))}>"

    @property
    def alias(self) -> str:
        """The first alias that was configured, which names the database in messages."""
        return self.aliases[0]

    @property
    def dialect(self) -> str:
        """The name of the dialect, in `dialects.DIALECTS`."""
        return dialect_name(self.database.dialect)

    def allows(self, table: str) -> bool:
        """Return whether one of the aliases holds *table*. A table without a label is on all databases.

        SQLite has no schemas, so it holds no table in one.
        """
        if (label := self._labels.get(table)) is None:
            return True
        model = self._models.get(table)
        if self.dialect == "sqlite" and model is not None and model.__table__.schema is not None:
            return False
        return any(self.databases.allows_migration(alias, label, model) for alias in self.aliases)

    def at(self, heads: Iterable[str]) -> str:
        """Say in a message that the database is at *heads*."""
        return f"{self.alias!r} is at {name_revisions(heads)}"


def targets(registry: Registry, labels: Mapping[str, str], alias: str | None = None) -> list[Target]:
    """Return the databases of *registry*, or that of *alias*. *labels* has the labels of the history's tables.

    Raises `UnknownAlias`, and `ConfigurationError` if no database is configured.
    """
    databases = registry.databases
    if alias is not None and (original := databases.database(alias).row_alias) != alias:
        raise ConfigurationError(f"{alias!r} is a copy of {original!r}, where its tables are migrated")
    if not databases.aliases:
        raise ConfigurationError("no database is configured")
    groups: dict[Any, list[str]] = {}
    for each in databases.aliases:
        database = databases.database(each)
        if database.row_alias == each:  # a copy gets its tables from the original
            groups.setdefault(identity(database.url), []).append(each)
    return [
        Target(registry, tuple(aliases), labels)
        for aliases in groups.values()
        if alias is None or alias in aliases
    ]


def identity(url: URL) -> tuple[object, ...]:
    """Return a key that is equal for two URLs of one database: without the user, and with one name for this machine."""
    backend = dialect_name(url.get_backend_name())
    if backend == "sqlite":
        database = url.database or ""
        is_file = not is_memory(url) and not database.startswith("file:")
        return backend, os.path.realpath(database) if is_file else database
    host = (url.host or "").lower()
    query = tuple(sorted((name, value) for name, value in url.query.items() if name in _LOCATION))
    port = url.port or _PORTS.get(backend)
    return backend, "localhost" if host in _LOCAL else host, port, url.database, query


def models_by_table(registry: Registry) -> dict[str, Any]:
    """Return the models by the keys of their tables in the metadata: the name, after that of a schema if there is one."""
    _ = registry.metadata  # also creates the tables of models that wait for another model
    return {model.__table__.key: model for model in registry.models.values()}


def unmanaged_tables(registry: Registry) -> frozenset[str]:
    """Return the names of the tables that another program migrates: those of models with `managed=False`."""
    return frozenset(
        table for table, model in models_by_table(registry).items() if not model.__schema__.managed
    )


def labels_by_table(registry: Registry) -> dict[str, str]:
    """Return the labels of the models by the names of their tables."""
    return {table: model.__schema__.label for table, model in models_by_table(registry).items()}


@contextmanager
def locked(target: Target, connection: Connection, max_wait: float = MAX_WAIT) -> Iterator[None]:
    """Keep other processes from migrating *target*; on SQLite foreign keys are off meanwhile.

    A server's lock belongs to the session, so that it is released if the process is killed. On SQLite the
    transaction is the lock, because it begins by writing.

    Raises `MigrationError` if another process holds the lock for *max_wait* seconds.
    """
    if target.dialect == "sqlite":
        with _without_foreign_keys(connection, max_wait):
            yield
        return
    acquire, release = _LOCKS[target.dialect]
    _acquire(target, connection, acquire, max_wait)
    try:
        yield
    finally:
        with suppress(SQLAlchemyError):  # a lost connection has lost its lock
            connection.rollback()
            connection.execute(text(release))
            connection.commit()


def _acquire(target: Target, connection: Connection, acquire: str, max_wait: float) -> None:
    deadline = time.monotonic() + max_wait
    waiting = False
    while True:
        acquired = connection.execute(text(acquire)).scalar()
        connection.commit()
        if acquired:
            return
        if time.monotonic() >= deadline:
            raise MigrationError(
                f"another process has been migrating {target.alias!r} for at least {max_wait:g} seconds"
            )
        if not waiting:
            waiting = True
            _log.info("waiting for another process that migrates %r", target.alias)
        time.sleep(_PAUSE)


@contextmanager
def _without_foreign_keys(connection: Connection, max_wait: float) -> Iterator[None]:
    """Switch off the foreign keys of SQLite, with which replacing a table would delete rows; wait longer for its lock."""
    connection.rollback()  # both are possible outside a transaction only
    cursor = connection.connection.cursor()
    (checked,) = cursor.execute("PRAGMA foreign_keys").fetchone()
    (timeout,) = cursor.execute("PRAGMA busy_timeout").fetchone()
    cursor.execute("PRAGMA foreign_keys=OFF")
    cursor.execute(
        f"PRAGMA busy_timeout={int(max_wait * 1000)}"
    ).fetchall()  # a statement with rows left stays open
    connection.execution_options(**{BEGIN: "BEGIN IMMEDIATE"})
    try:
        yield
    finally:
        connection.rollback()
        connection.execution_options(**{BEGIN: "BEGIN"})
        cursor.execute(f"PRAGMA busy_timeout={timeout:d}")
        cursor.execute(f"PRAGMA foreign_keys={checked:d}")
        cursor.close()


def on(
    *,
    alias: str | Iterable[str] | None = None,
    table: str | None = None,
    dialect: str | Iterable[str] | None = None,
    missing: str | None = None,
) -> bool:
    """Return whether the database that is being migrated has *alias*, holds *table* and speaks *dialect*.

    *missing* names a table that the database holds but does not have yet; this is False while SQL is only
    printed.

    Use it in a revision: `if on(table="book"): op.execute(...)`. Of several aliases or dialects one has to
    match. `"mariadb"` and `"mysql"` are the same. An alias that is not configured never matches.

    Raises `MigrationError` outside a migration, and `TypeError` without arguments.
    """
    if alias is None and table is None and dialect is None and missing is None:
        raise TypeError("on() needs at least one of alias=, table=, dialect=, missing=")
    target = current_target()
    return (
        (alias is None or not set(to_tuple(alias, ())).isdisjoint(target.aliases))
        and (table is None or target.allows(table))
        and (dialect is None or target.dialect in map(dialect_name, to_tuple(dialect, ())))
        and (missing is None or (target.allows(missing) and _is_missing(missing)))
    )


def _is_missing(table: str) -> bool:
    return not op.get_context().as_sql and not inspect(op.get_bind()).has_table(table)


def current_target() -> Target:
    """Return the database that is being migrated. Raises `MigrationError` outside a migration."""
    try:
        options = op.get_context().opts
    except (NameError, AttributeError):  # alembic has no context
        options = {}
    target = options.get(TARGET)
    if not isinstance(target, Target):
        raise MigrationError("no migration is running")
    return target


@contextmanager
def restricted(migration: MigrationContext, target: Target, *, printed: bool = False) -> Iterator[None]:
    """Run revisions in the block with operations that skip the tables that *target* does not hold.

    If SQL is only *printed*, values of SQLite that have to be converted are a `MigrationError`.
    """
    with Operations.context(migration) as operations:
        invoke, batch_alter_table = operations.invoke, operations.batch_alter_table
        rebuilds = Rebuilds(operations, printed=printed) if target.dialect == "sqlite" else None

        def invoke_allowed(operation: MigrateOperation) -> Any:
            if all(target.allows(table) for table in changed_tables(operation)):
                if isinstance(operation, AddColumnOp):
                    refuse_without_value(migration, operation.table_name, operation.column, operation.schema)
                return invoke(operation)
            # The next operation may insert rows into the table that was not created.
            return operation.to_table() if isinstance(operation, CreateTableOp) else None

        @contextmanager
        def batch_alter_allowed(
            table_name: str, schema: str | None = None, *arguments: Any, **options: Any
        ) -> Iterator[Any]:
            if not target.allows(_key(table_name, schema)):
                yield _SkippedBatch()
                return
            batch = batch_alter_table(table_name, schema, *arguments, **options)
            with batch if rebuilds is None else rebuilds.run(table_name, batch) as batch_op:
                yield batch_op
                for name, (table, *subjects), changes in batch_op.impl.batch:
                    if target.dialect != "mariadb":
                        changes.pop("autoincrement", None)  # which others warn of
                    if name == "add_column":
                        refuse_without_value(migration, table, subjects[0], schema)

        # alembic creates the Operations, whose methods its module-level functions call.
        setattr(operations, "invoke", invoke_allowed)  # noqa: B010 mypy refuses to assign to a method
        setattr(operations, "batch_alter_table", batch_alter_allowed)  # noqa: B010
        yield


def _key(table: str, schema: str | None) -> str:
    return f"{schema}.{table}" if schema else table


def refuse_without_value(
    migration: MigrationContext, table: str, column: Column[Any], schema: str | None = None
) -> None:
    """Raise `MigrationError` if a new *column* has no value for the rows of *table*.

    MariaDB would make one up, such as `''` or the day 0000-00-00.
    """
    required = not column.nullable and column.server_default is None and column.autoincrement is not True
    if (
        not required
        or migration.bind is None
        or migration.as_sql
        or not inspect(migration.bind).has_table(table, schema=schema)
    ):
        return
    found: Any = select(literal_column("1")).select_from(table_clause(table, schema=schema)).limit(1)
    if migration.bind.execute(found).first() is not None:
        raise MigrationError(
            f"the column '{table}.{column.name}' is required and has no default for the rows that {table!r} has; "
            "give it a default, or add it as nullable, fill it, and make it NOT NULL then"
        )


class _SkippedBatch:
    """The batch of a table that the database does not hold: accepts every operation and does nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: None


def changed_tables(operation: MigrateOperation) -> Iterator[str]:
    """Yield the tables that *operation* changes; none if it is SQL."""
    if isinstance(operation, BulkInsertOp):
        yield _key(operation.table.name, operation.table.schema)
    if isinstance(operation, RenameTableOp):
        yield operation.new_table_name
    for attribute in ("source_table", "table_name"):
        if isinstance(name := getattr(operation, attribute, None), str):
            options = getattr(operation, "kw", {})
            schema = (
                getattr(operation, "schema", None) or options.get("source_schema") or options.get("schema")
            )
            yield _key(name, schema)
