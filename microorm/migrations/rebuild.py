"""Rebuild: what SQLite does to change a table, which is to build a new one, so that nothing of the old one is lost.

alembic copies the rows, and what it knows of the table. `Rebuilds` gives it a complete description, converts
the values whose type changes, and restores what belongs to the table but is not part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations
from sqlalchemy.exc import OperationalError

from microorm.errors import MigrationError
from microorm.migrations.conversion import converter, keeps_values
from microorm.migrations.dialects import ddl_type, literal_text
from microorm.migrations.sqlite_ddl import TableDDL, table_ddl
from microorm.registry import NAMING

_FUNCTION = "microorm_convert"
_COLUMN = "microorm_column"  # the column that an unnamed CHECK belongs to, in the CHECK's `info`
_UNNAMED = {kind: NAMING[kind] for kind in ("fk", "uq")}  # so that a revision can drop them
_UNCHANGED: dict[str, Any] = {"type_": None, "nullable": None, "server_default": False, "comment": False}


@dataclass(slots=True)
class Kept:
    """What a table has beside its columns and rows: indexes and triggers by name, and the highest key that it gave."""

    table: str
    sql: dict[str, str]
    legacy: int  # the PRAGMA legacy_alter_table before
    highest_key: int | None
    lost: set[str] = field(default_factory=set)  # indexes that are dropped, or whose column is


class Rebuilds:
    """The batches of a migration on SQLite. If SQL is only *printed*, no value can be converted."""

    def __init__(self, operations: Operations, *, printed: bool = False) -> None:
        self._connection: sa.Connection = operations.get_bind()
        self._printed = printed
        self._kept: Kept | None = None
        self._refusal = ""
        converters = self._converters = list[Callable[..., Any]]()
        driver: Any = self._connection.connection.dbapi_connection
        # The connection keeps the function, so it must not refer to the connection.
        driver.create_function(_FUNCTION, -1, lambda number, *values: converters[number](*values))
        # alembic calls this hook of a dialect when it has the new table, and before it creates it.
        setattr(operations.impl, "prep_table_for_batch", self._prepare)  # noqa: B010 mypy refuses to assign to a method

    @contextmanager
    def run(self, table: str, batch: AbstractContextManager[Any]) -> Iterator[Any]:
        """Run *batch*, in which operations on *table* are collected, so that the table keeps what it has.

        Raises `MigrationError`, which names the row, if a value cannot be converted.
        """
        self._refusal = ""
        try:
            with batch as batch_op:
                yield batch_op
                self._begin(batch_op.impl, table)
        except OperationalError as error:
            if self._refusal:
                raise MigrationError(self._refusal) from error
            raise
        finally:
            kept, self._kept = self._kept, None
            self._converters.clear()
            if kept is not None:
                self._connection.exec_driver_sql(f"PRAGMA legacy_alter_table={kept.legacy:d}")
        if kept is not None:
            self._restore(kept)

    def _begin(self, impl: Any, table: str) -> None:
        """Prepare the batch *impl* of *table*, whose operations are known and run next."""
        if impl.recreate == "auto" and impl.batch and all(map(_is_rename, impl.batch)):
            # SQLite renames the column in CHECKs, indexes, triggers, views and other tables, too.
            impl.recreate = "never"
        if impl.recreate == "auto" and impl.operations.impl.requires_recreate_in_batch(impl):
            impl.recreate = "always"
        if impl.recreate != "always":
            return
        ddl = table_ddl(self._connection, table)
        if impl.copy_from is None:
            impl.copy_from = _complete_table(self._connection, table, ddl, impl)
        # Otherwise the last renaming fails if a view uses the table, which does not exist at that moment.
        (legacy,) = self._connection.exec_driver_sql("PRAGMA legacy_alter_table").one()
        self._connection.exec_driver_sql("PRAGMA legacy_alter_table=ON")
        sql = _indexes_and_triggers(self._connection, table)
        self._kept = Kept(
            table, sql, legacy, _highest_key(self._connection, table) if ddl.autoincrement else None
        )
        self._kept.lost.update(
            str(arguments[0].name) for name, arguments, _ in impl.batch if name == "drop_index"
        )

    def _prepare(self, batch: Any, table: sa.Table) -> None:
        """Complete alembic's *batch*, which copies *table*: convert values, and leave out what cannot be copied."""
        key: list[sa.ColumnElement[Any]] = [*table.primary_key.columns] or [sa.literal_column("rowid")]
        for name, transfer in batch.column_transfers.items():
            if "expr" not in transfer:
                continue
            stored, wanted = table.c[name], batch.columns[name]
            if wanted.computed is not None:
                del transfer["expr"]
                continue
            transfer["expr"] = stored
            if self._printed and keeps_values(stored.type, wanted.type):
                continue
            convert = converter(stored.type, wanted.type)
            if stored.nullable and not wanted.nullable and not self._printed:
                convert = _refuse_null(convert)
            if convert is not None:
                number: sa.ColumnElement[Any] = sa.literal_column(str(len(self._converters)))
                self._converters.append(self._refusing(convert, stored, wanted))
                transfer["expr"] = getattr(sa.func, _FUNCTION)(number, stored, *key)
        for check in list(batch.new_table.constraints):
            if check.info.get(_COLUMN) not in (None, *batch.columns):
                batch.new_table.constraints.discard(check)
        for index in batch.indexes.values():
            if self._kept is not None and not {each.name for each in index.columns} <= batch.columns.keys():
                self._kept.lost.add(str(index.name))
        batch.indexes.clear()  # they are restored as they were written, which reflection does not know

    def _refusing(
        self, convert: Callable[[Any], Any], stored: sa.Column[Any], wanted: sa.Column[Any]
    ) -> Callable[..., Any]:
        """Return *convert* as a function of the value and the row's key, which notes the value that it refuses."""
        column, new = f"{stored.table.name}.{stored.name}", ddl_type(wanted.type, "sqlite")
        if self._printed:
            raise MigrationError(
                f"the values of {column!r} become {new}, and are converted in Python; SQL for SQLite cannot be "
                "printed, migrate the database itself"
            )

        def refusing(value: Any, *key: Any) -> Any:
            try:
                return convert(value)
            except (ValueError, ArithmeticError) as error:
                row = ", ".join(map(repr, key))
                kind = new if wanted.nullable else f"{new} NOT NULL"
                self._refusal = f"{value!r}, of {column!r} in the row {row}, cannot become {kind}: {error}"
                raise

        return refusing

    def _restore(self, kept: Kept) -> None:
        """Create again what the rebuilt table has lost."""
        present = _indexes_and_triggers(self._connection, kept.table).keys() | kept.lost
        for name, sql in kept.sql.items():
            if name not in present:
                self._connection.execute(literal_text(sql))
        if kept.highest_key is not None:
            forget = sa.text("DELETE FROM sqlite_sequence WHERE name = :table")
            restore = sa.text("INSERT INTO sqlite_sequence VALUES (:table, :key)")
            self._connection.execute(forget, {"table": kept.table})
            self._connection.execute(restore, {"table": kept.table, "key": kept.highest_key})


def _refuse_null(convert: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    """Return *convert*, which is None if every value stays as it is, as a function that refuses NULL."""

    def converted(value: Any) -> Any:
        if value is None:
            raise ValueError("it is NULL")
        return value if convert is None else convert(value)

    return converted


def _is_rename(call: tuple[str, tuple[Any, ...], dict[str, Any]]) -> bool:
    """Return whether an operation of a batch renames a column and does nothing else."""
    name, _, options = call
    changed = [each for each, nothing in _UNCHANGED.items() if options.get(each, nothing) is not nothing]
    return name == "alter_column" and options.get("name") is not None and not changed


def _complete_table(connection: sa.Connection, name: str, ddl: TableDDL, impl: Any) -> sa.Table:
    """Reflect the table *name* for alembic's batch *impl*, with what *ddl* says and reflection loses."""

    def complete(inspector: Any, table: sa.Table, column: Any) -> None:
        if column["name"] in ddl.collations and isinstance(column["type"], sa.String):
            column["type"].collation = ddl.collations[column["name"]]
        if isinstance(column.get("default"), str):
            column["default"] = literal_text(column["default"])
        if column["name"] in ddl.generated:
            column["computed"]["sqltext"] = literal_text(ddl.generated[column["name"]])

    options = dict(impl.reflect_kwargs)
    options["listeners"] = [*options.get("listeners", ()), ("column_reflect", complete)]
    table = sa.Table(
        name,
        sa.MetaData(naming_convention={**_UNNAMED, **(impl.naming_convention or {})}),
        *impl.reflect_args,
        autoload_with=connection,
        resolve_fks=False,
        sqlite_autoincrement=ddl.autoincrement,
        sqlite_with_rowid=not ddl.without_rowid,
        sqlite_strict=ddl.strict,
        **options,
    )
    _replace_constraints(connection, table, ddl)
    return table


def _replace_constraints(connection: sa.Connection, table: sa.Table, ddl: TableDDL) -> None:
    """Give *table* the constraints in *ddl* instead of those that reflection finds by pattern."""
    for constraint in list(table.constraints):
        if not isinstance(constraint, sa.PrimaryKeyConstraint):
            table.constraints.discard(constraint)
    for check in ddl.checks:
        info = {} if check.name is not None else {_COLUMN: check.column}
        table.append_constraint(sa.CheckConstraint(literal_text(check.condition), name=check.name, info=info))
    for unique in ddl.uniques:
        table.append_constraint(sa.UniqueConstraint(*unique.columns, name=unique.name))
    for key in ddl.foreign_keys:
        primary = (
            () if key.referred else sa.inspect(connection).get_pk_constraint(key.table)["constrained_columns"]
        )
        referred = [f"{key.table}.{column}" for column in (*key.referred, *primary)]
        table.append_constraint(
            sa.ForeignKeyConstraint(key.columns, referred, name=key.name, link_to_name=True, **key.options)
        )


def _indexes_and_triggers(connection: sa.Connection, table: str) -> dict[str, str]:
    """Return the SQL of the indexes and triggers of *table*, by name."""
    query = sa.text(
        "SELECT name, sql FROM sqlite_master"
        " WHERE tbl_name = :table COLLATE NOCASE AND type IN ('trigger', 'index') AND sql IS NOT NULL"
    )
    return {row.name: row.sql for row in connection.execute(query, {"table": table})}


def _highest_key(connection: sa.Connection, table: str) -> int | None:
    query = sa.text("SELECT seq FROM sqlite_sequence WHERE name = :table")
    highest: int | None = connection.execute(query, {"table": table}).scalar()
    return highest
