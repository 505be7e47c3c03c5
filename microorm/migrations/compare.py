"""Compare: what autogenerate finds beside alembic's own comparisons, in CHECKs, keys and defaults.

A server rewrites a CHECK or a default. To compare it with the model's, that is given to the same server, as
part of a temporary table, and read back.

Alembic cannot compare indexes with a descending column, or on expressions. PostgreSQL describes these completely; SQLite and
MariaDB are asked for the order of each column.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, ops
from alembic.runtime.plugins import Plugin
from alembic.util import DispatchPriority, PriorityDispatchResult
from sqlalchemy.schema import CreateTable, SchemaItem, conv
from sqlalchemy.sql import ClauseElement, operators
from sqlalchemy.sql.elements import UnaryExpression
from sqlalchemy.types import TypeEngine

from microorm.errors import MigrationError
from microorm.migrations.dialects import compile_sql, dialect_name, literal_text, render_item, sql_for
from microorm.migrations.operations import ChangePrimaryKeyOp, CreateCheckOp, DropCheckOp
from microorm.migrations.renames import (
    RENAMES,
    Rename,
    changed_tables,
    compare_renamed_tables,
    renamed_columns,
)
from microorm.migrations.sqlite_ddl import table_ddl
from microorm.migrations.targets import TARGET, Target
from microorm.registry import NAMING

TEMPORARY_TABLE = "microorm_temporary"

_PLUGINS = ("alembic.autogenerate.*", "~alembic.autogenerate.defaults", "microorm.migrations")
_DEFAULTS = sa.text(
    "SELECT column_name, column_default FROM information_schema.columns WHERE table_schema = DATABASE()"
    " AND table_name = :table AND column_default <> 'NULL' AND extra NOT LIKE '%GENERATED%'"
)
_NOT_COMPARED = re.compile(
    r"""[\s()'"`]"""
)  # of an expression, which servers quote and bracket in their own way
_JSON_CHECK = re.compile(r"\(*json_valid\(`?(\w+)`?\)\)*", re.IGNORECASE)


def compare_options(
    target: Target,
    metadata: sa.MetaData,
    known: Set[str],
    ignored: Set[str],
    renames: tuple[Rename, ...],
) -> dict[str, Any]:
    """Return the options of `alembic.context.configure` that compare *target* with *metadata*.

    *known* are the tables that belong or belonged to a model. Other tables of the database are ignored, and
    models of *ignored*: views, and tables that others migrate.
    """
    schemas = {None, *(table.schema for key, table in metadata.tables.items() if target.allows(key))}
    return {
        TARGET: target,
        RENAMES: renames,
        "target_metadata": metadata,
        **_filters(target, metadata, known, ignored, renames, schemas),
        "include_schemas": len(schemas) > 1,
        "compare_type": True,
        "render_as_batch": True,  # SQLite changes a table by building a new one
        "render_item": render_item,
        "autogenerate_plugins": _PLUGINS,
    }


def _filters(
    target: Target,
    metadata: sa.MetaData,
    known: Set[str],
    ignored: Set[str],
    renames: tuple[Rename, ...],
    schemas: Set[str | None],
) -> dict[str, Callable[..., bool]]:
    """Return the options that leave out what is not compared, or what microorm compares itself."""
    compared_apart = changed_tables(renames)
    indexes = incomparable_indexes(metadata, target.dialect)

    def include_name(name: str | None, kind: str, parents: Mapping[str, Any]) -> bool:
        if kind == "schema":
            return name in schemas
        if kind != "table":
            return True
        key = f"{schema}.{name}" if (schema := parents.get("schema_name")) else str(name)
        return key in known and key not in compared_apart.values() and target.allows(key)

    def include_object(item: Any, name: str | None, kind: str, reflected: bool, other: Any) -> bool:
        if kind == "index":
            return name not in indexes
        apart = kind == "table" and (item.key in compared_apart or item.key in ignored)
        return kind != "table" or reflected or (target.allows(item.key) and not apart)

    return {"include_name": include_name, "include_object": include_object}


def compare_table(
    autogenerate: AutogenContext,
    changes: ops.ModifyTableOps,
    schema: str | None,
    name: str,
    stored: sa.Table | None,
    wanted: sa.Table | None,
) -> PriorityDispatchResult:
    """Add to *changes* how the table differs: in CHECKs, its primary key, indexes on expressions."""
    connection = autogenerate.connection
    if stored is not None and wanted is not None:
        renamed = {
            old: new for new, old in renamed_columns(autogenerate.opts.get(RENAMES, ()), wanted.key).items()
        }
        if (before := _key(stored, renamed)) != (after := _key(wanted, {})):
            changes.ops.append(ChangePrimaryKeyOp(name, before, after))
        if connection is not None:
            _compare_checks(connection, changes, name, wanted, schema)
    if wanted is not None and connection is not None:
        names = incomparable_indexes(wanted.metadata, dialect_name(connection.dialect.name))
        changes.ops.extend(compare_indexes(connection, stored, wanted, names))
    if stored is not None and wanted is not None and connection is not None:
        _accept_sqlite(connection, changes, stored, wanted)
    if stored is not None and connection is not None:
        changes.ops[:] = [complete_drop(connection, stored, each) for each in changes.ops]
        for each in changes.ops:
            if isinstance(each, ops.DropConstraintOp) and each.constraint_name is None:
                each.constraint_name = _made_name(each)
    return PriorityDispatchResult.CONTINUE


def _accept_sqlite(
    connection: sa.Connection, changes: ops.ModifyTableOps, stored: sa.Table, wanted: sa.Table
) -> None:
    """Remove from *changes* what only seems to differ in a table of SQLite that others have made.

    That is a unique constraint without a name, which models always have, and a key that is not declared NOT NULL.
    """
    if connection.dialect.name != "sqlite":
        return
    unnamed = {each.columns for each in table_ddl(connection, stored.name).uniques if each.name is None}
    uniques = {
        tuple(each.columns.keys()) for each in wanted.constraints if isinstance(each, sa.UniqueConstraint)
    }

    def seems(operation: MigrateOperation) -> bool:
        if isinstance(operation, ops.AlterColumnOp) and operation.column_name in stored.primary_key.columns:
            operation.modify_nullable = None
            return not operation.has_changes()
        if isinstance(operation, ops.CreateUniqueConstraintOp | ops.DropConstraintOp):
            constraint: Any = operation.to_constraint()
            named = isinstance(operation, ops.DropConstraintOp) and constraint.name is not None
            return (
                isinstance(constraint, sa.UniqueConstraint)
                and tuple(column.name for column in constraint.columns) in unnamed & uniques
                and not named
            )
        return False

    changes.ops[:] = [each for each in changes.ops if not seems(each)]


def _made_name(operation: ops.DropConstraintOp) -> str:
    """Return the name that a constraint of SQLite without one has while its table is rebuilt."""
    constraint: Any = operation.to_constraint()
    kind = "fk" if isinstance(constraint, sa.ForeignKeyConstraint) else "uq"
    columns = "_".join(column.name for column in constraint.columns)
    return conv(NAMING[kind] % {"table_name": operation.table_name, "column_0_N_name": columns})


def _key(table: sa.Table, renamed: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(sorted(renamed.get(column.name, column.name) for column in table.primary_key.columns))


def _compare_checks(
    connection: sa.Connection,
    changes: ops.ModifyTableOps,
    name: str,
    wanted: sa.Table,
    schema: str | None = None,
) -> None:
    """Add to *changes* the named CHECKs that the table *name* lacks, has in excess, or has with another condition."""
    present = stored_checks(connection, name, schema)
    checks = {
        _stored_name(connection, each): each.sqltext
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


def _stored_name(connection: sa.Connection, constraint: sa.CheckConstraint) -> str:
    """Return the name of *constraint* in the database, which shortens one that is too long."""
    preparer = connection.dialect.identifier_preparer
    return preparer.unformat_identifiers(preparer.format_constraint(constraint) or "")[0]


def stored_checks(connection: sa.Connection, table: str, schema: str | None = None) -> dict[str, str]:
    """Return the named CHECKs of *table*: name → condition. MariaDB's own CHECKs of JSON columns are left out."""
    if connection.dialect.name == "sqlite":
        return {
            each.name: each.condition for each in table_ddl(connection, table).checks if each.name is not None
        }
    found = sa.inspect(connection).get_check_constraints(table, schema=schema)
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
    columns = [sa.Column(column.name, _known(column.type)) for column in table.columns]
    constraints = [sa.CheckConstraint(literal_text(sql), name=name) for name, sql in checks.items()]
    with temporary_table(connection, *columns, *constraints):
        return stored_checks(connection, TEMPORARY_TABLE)


def compare_default(
    autogenerate: AutogenContext,
    change: ops.AlterColumnOp,
    schema: str | None,
    table: str | None,
    name: str | None,
    stored: sa.Column[Any],
    wanted: sa.Column[Any],
) -> PriorityDispatchResult:
    """Add to *change* that two columns have different server defaults; in the place of alembic's comparisons.

    A column whose values the database generates is not altered: a key is the same however the database makes it, and for
    a column that becomes computed, or no longer is, see `_refuse_computed`.
    """
    if autogenerate.connection is not None:
        renamed = renamed_columns(autogenerate.opts.get(RENAMES, ()), wanted.table.key)
        _refuse_computed(autogenerate.connection, stored, wanted, compare_expressions=not renamed)
    if wanted.table.autoincrement_column is wanted or wanted.autoincrement is True:
        change.kw["autoincrement"] = True  # MariaDB repeats it
    before, after = stored.server_default, wanted.server_default
    if (before is None and after is None) or not all(
        isinstance(each, sa.DefaultClause | None) for each in (before, after)
    ):
        return PriorityDispatchResult.CONTINUE
    change.existing_server_default = before
    connection = autogenerate.connection
    if connection is not None and differing_defaults(connection, stored, wanted):
        change.modify_server_default = after
    return PriorityDispatchResult.CONTINUE


def _refuse_computed(
    connection: sa.Connection, stored: sa.Column[Any], wanted: sa.Column[Any], *, compare_expressions: bool
) -> None:
    """Raise `MigrationError` if one of two columns is computed and the other is not, or by another expression.

    The databases have no ALTER for that which keeps the values.
    """
    before, after = stored.computed, wanted.computed
    if type(wanted.server_default) is sa.FetchedValue or (before is None and after is None):
        return
    label = f"{wanted.table.name}.{wanted.name}"
    keep = ""
    if before is not None and after is not None:
        if not compare_expressions:
            return
        found = _as_written(connection, stored.table.name, stored.name, str(before.sqltext))
        expected = _computed_as(connection, wanted)
        if _NOT_COMPARED.sub("", found.lower()) == _NOT_COMPARED.sub("", expected.lower()):
            return
        problem = f"is computed as {found} in the database, and as {expected} by the model"
    elif after is not None:
        problem = "is computed by the model (server_default=Computed), but a plain column in the database"
    else:
        problem = "is computed in the database, but a plain column in the model"
        keep = "; to keep it as it is, declare it with server_default=FetchedValue()"
    raise MigrationError(
        f"{label} {problem}. No ALTER changes that: remove the field and make a revision, which drops the column; then add "
        f"the field again and make another{keep}"
    )


def _computed_as(connection: sa.Connection, wanted: sa.Column[Any]) -> str:
    """Return the expression of *wanted* in the words of the database."""
    columns = [
        sa.Column(each.name, _known(each.type), *([] if each.computed is None else [_copied(each.computed)]))
        for each in wanted.table.columns
    ]
    with temporary_table(connection, *columns) as inspector:
        (found,) = [each for each in inspector.get_columns(TEMPORARY_TABLE) if each["name"] == wanted.name]
        reflected = str(found.get("computed", {}).get("sqltext"))
        return _as_written(connection, TEMPORARY_TABLE, wanted.name, reflected)


def _as_written(connection: sa.Connection, table: str, column: str, reflected: str) -> str:
    """Return the expression of a computed *column*: on SQLite from the DDL, since SQLAlchemy has *reflected* it by pattern."""
    if connection.dialect.name != "sqlite":
        return reflected
    return table_ddl(connection, table).generated.get(column, reflected)


def _known(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return *type_*, or text for one that SQLAlchemy does not know and has no DDL for."""
    return sa.Text() if isinstance(type_, sa.types.NullType) else type_


def _copied(computed: sa.Computed) -> sa.Computed:
    text: Any = computed.sqltext
    return sa.Computed(text, persisted=computed.persisted)


def differing_defaults(connection: sa.Connection, stored: sa.Column[Any], wanted: sa.Column[Any]) -> bool:
    """Return whether two columns have different server defaults, in the words of the database."""
    before, after = stored.server_default, wanted.server_default
    if not isinstance(after, sa.DefaultClause):
        return before is not None
    # A default that the database does not report is None here and below.
    text = str(getattr(before.arg, "text", before.arg)) if isinstance(before, sa.DefaultClause) else None
    known = unreported_defaults(connection, stored.table.name).get(stored.name) if text is None else text
    if isinstance(after.arg, ClauseElement):
        literal = after.arg.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
        if str(literal) == known:
            return False
    default: Any = after.arg
    column = sa.Column(wanted.name, _known(wanted.type), server_default=default)
    with temporary_table(connection, column) as inspector:
        (read_back,) = inspector.get_columns(TEMPORARY_TABLE)
    made = read_back["default"]
    return _without_brackets(made) != _without_brackets(text if made is None else known)


def unreported_defaults(connection: sa.Connection, table: str) -> dict[str, str]:
    """Return the defaults of *table* on MariaDB, by column; SQLAlchemy's pattern misses those of bits, sequences and invisible columns."""
    if dialect_name(connection.dialect.name) != "mariadb":
        return {}
    return {str(name): str(default) for name, default in connection.execute(_DEFAULTS, {"table": table})}


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
_PLUGIN.add_autogenerate_comparator(compare_default, "column", "server_default")
_PLUGIN.add_autogenerate_comparator(
    compare_renamed_tables, "schema", "microorm_tables", priority=DispatchPriority.FIRST
)


Order = list[tuple[str, bool]]  # columns, and whether they are descending

_MARIADB = sa.text(
    "SELECT column_name, collation = 'D', non_unique FROM information_schema.statistics"
    " WHERE table_schema = coalesce(:schema, DATABASE()) AND table_name = :table AND index_name = :index ORDER BY seq_in_index"
)


def incomparable_indexes(metadata: sa.MetaData, dialect: str) -> frozenset[str]:
    """Return the names of the indexes of the models that alembic cannot compare on *dialect*."""
    if dialect == "postgresql":
        return frozenset()
    indexes = (index for table in metadata.tables.values() for index in table.indexes)
    return frozenset(
        str(index.name)
        for index in indexes
        if not all(isinstance(each, sa.Column) for each in index.expressions)
    )


def compare_indexes(
    connection: sa.Connection, stored: sa.Table | None, wanted: sa.Table, names: frozenset[str]
) -> Iterator[MigrateOperation]:
    """Yield what the indexes *names* of *wanted* need; of one on an expression only the name is compared."""
    present = set() if stored is None else _present(connection, stored)
    for index in sorted(wanted.indexes, key=lambda each: str(each.name)):
        if index.name not in names or (connection.dialect.name != "sqlite" and _order(index) is None):
            continue
        if stored is not None and index.name in present:
            order, found = _order(index), stored_order(connection, stored, str(index.name))
            if order is None or (order, bool(index.unique)) == found:
                continue
            yield ops.DropIndexOp.from_index(_index(stored, str(index.name), *found))
        yield ops.CreateIndexOp.from_index(index)


def _present(connection: sa.Connection, table: sa.Table) -> set[Any]:
    if connection.dialect.name == "sqlite":
        query = sa.text("SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = :table")
        return set(connection.execute(query, {"table": table.name}).scalars())
    return {each["name"] for each in sa.inspect(connection).get_indexes(table.name, schema=table.schema)}


def _order(index: sa.Index) -> Order | None:
    """Return the columns of *index* in their order, or None if it has other expressions."""
    order: Order = []
    expressions: list[Any] = list(index.expressions)
    table: Any = index.table
    for each in expressions:
        descending = isinstance(each, UnaryExpression) and each.modifier is operators.desc_op
        ascending = isinstance(each, UnaryExpression) and each.modifier is operators.asc_op
        inner = each.element if descending or ascending else each
        column = inner if isinstance(inner, sa.Column) else table.c.get(str(inner))  # `desc("name")`
        if column is None:
            return None
        order.append((column.name, descending))
    return order


def stored_order(
    connection: sa.Connection, table: sa.Table | sa.TableClause, index: str
) -> tuple[Order, bool]:
    """Return the columns of an index that exists in their order, and whether it is unique."""
    if connection.dialect.name == "sqlite":
        quoted = connection.dialect.identifier_preparer.quote(index)
        rows = connection.exec_driver_sql(f"PRAGMA index_xinfo({quoted})")
        order = [(row.name, bool(row.desc)) for row in rows if row.key]
        unique = sa.text('SELECT "unique" FROM pragma_index_list(:table) WHERE name = :index')
        return order, bool(connection.execute(unique, {"table": table.name, "index": index}).scalar())
    names = {"schema": table.schema, "table": table.name, "index": index}
    found = connection.execute(_MARIADB, names).all()
    return [(name, bool(descending)) for name, descending, _ in found], not found[0][2]


def complete_drop(
    connection: sa.Connection, stored: sa.Table, operation: MigrateOperation
) -> MigrateOperation:
    """Return *operation*; if it drops an index with a descending column, one that can be reversed."""
    if not isinstance(operation, ops.DropIndexOp) or connection.dialect.name == "postgresql":
        return operation
    order, unique = stored_order(connection, stored, str(operation.index_name))
    if not any(descending for _, descending in order):
        return operation
    return ops.DropIndexOp.from_index(_index(stored, str(operation.index_name), order, unique))


def _index(stored: sa.Table, name: str, order: Order, unique: bool) -> sa.Index:
    columns = [sa.desc(stored.c[each]) if descending else stored.c[each] for each, descending in order]
    return sa.Index(name, *columns, unique=unique, _table=stored)
