"""Restriction: one revision holds the changes of all databases, and each database gets those that are its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from alembic import op
from alembic.operations import MigrateOperation, Operations
from alembic.operations.ops import BulkInsertOp, CreateTableOp, RenameTableOp
from sqlalchemy import inspect

from microorm.errors import MigrationError
from microorm.migrations.rebuilding import rebuilding
from microorm.migrations.targets import Target

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
        if all(target.allows(table) for table in tables_of(operation)):
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


def tables_of(operation: MigrateOperation) -> Iterator[str]:
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
