"""Tables: what SQLAlchemy's Inspector says of the tables and views of a database."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, NoSuchTableError, SAWarning
from sqlalchemy.types import TypeEngine

from microorm.errors import ConfigurationError, nearest
from microorm.migrations.compare import stored_checks, stored_order, unreported_defaults
from microorm.migrations.dialects import dialect_name
from microorm.migrations.sqlite_ddl import table_ddl
from microorm.reflection.names import quoted
from microorm.registry import OUTBOX_TABLES, VERSION_TABLE

_OWN = (VERSION_TABLE, *OUTBOX_TABLES)
_NUMBERS = ("NUMERIC", "DECIMAL", "NUMBER")
_JSON_COLUMNS = sa.text(
    "SELECT check_clause FROM information_schema.check_constraints"
    " WHERE constraint_schema = DATABASE() AND table_name = :table AND level = 'Column'"
)
_JSON_VALID = re.compile(r"\(*json_valid\(`((?:[^`]|``)+)`\)\)*", re.IGNORECASE)


@dataclass(slots=True)
class Column:
    """A column of a table: *generated* is a key that the database makes."""

    name: str
    type: TypeEngine[Any]
    nullable: bool
    default: str | None = None
    comment: str | None = None
    computed: tuple[str, bool | None] | None = None  # its expression, and whether the values are stored
    identity: bool = False
    generated: bool = False
    is_json: bool = False
    declared: str = ""  # the type in the words of SQLite


@dataclass(slots=True)
class Index:
    """An index or a unique constraint (*constraint*); *columns* has None for an expression."""

    name: str | None
    columns: tuple[str | None, ...]
    unique: bool
    constraint: bool
    expressions: tuple[str, ...] = ()
    sorting: dict[str, tuple[str, ...]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def plain(self) -> bool:
        """Whether it has one column and no options, so that an option of a field describes it."""
        return len(self.columns) == 1 and not (self.expressions or self.sorting or self.options)

    def sorted_column(self, column: str) -> str:
        """Return the source of *column* with its order."""
        words = self.sorting.get(column)
        if not words:
            return quoted(column)
        nulls = "".join(f".{word}()" for word in words if word.startswith("nulls_"))
        return f"sa.{'desc' if 'desc' in words else 'asc'}({quoted(column)}){nulls}"


@dataclass(slots=True)
class Key:
    """A foreign key."""

    columns: tuple[str, ...]
    table: str
    referred: tuple[str, ...]
    options: dict[str, Any]
    schema: str | None = None
    name: str | None = None


@dataclass(slots=True)
class Table:
    """A table, or a view."""

    name: str
    columns: list[Column]
    key: tuple[str, ...] = ()
    keys: list[Key] = field(default_factory=list)
    indexes: list[Index] = field(default_factory=list)
    checks: dict[str, str] = field(default_factory=dict)
    unnamed_checks: list[str] = field(default_factory=list)
    comment: str | None = None
    is_view: bool = False

    def column(self, name: str) -> Column:
        """Return the column called *name*."""
        return next(each for each in self.columns if each.name == name)

    def is_unique(self, column: str) -> bool:
        """Return whether *column* alone is the key, or unique by a constraint or index without a condition."""
        return self.key == (column,) or any(
            each.unique and each.plain and each.columns == (column,) for each in self.indexes
        )


def read_tables(connection: sa.Connection, names: Sequence[str] = ()) -> list[Table]:
    """Read the tables and views called *names*, and the tables that they refer to; all if there are no names.

    Tables of microorm itself are left out unless they are named. Raises `ConfigurationError` for a name that is unknown.
    """
    inspector = sa.inspect(connection)
    tables = _table_names(connection, inspector)
    views = [*inspector.get_view_names()]
    if connection.dialect.name == "postgresql":
        views += inspector.get_materialized_view_names()
    for name in names:
        if name not in tables and name not in views:
            raise ConfigurationError(
                f"the database has no table or view {name!r}{nearest(name, (*tables, *views))}"
            )
    wanted = list(names) or [name for name in (*tables, *views) if name not in _OWN]
    if not wanted:
        raise ConfigurationError("the database has no tables")
    found: dict[str, Table] = {}
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", SAWarning
        )  # of types it does not know, which the source says in comments
        while wanted:
            name = wanted.pop(0)
            if name in found:
                continue
            found[name] = (
                _read_view(connection, inspector, name)
                if name in views
                else _read(connection, inspector, name)
            )
            wanted += [key.table for key in found[name].keys if key.schema is None and key.table in tables]
    return [found[name] for name in sorted(found, key=lambda each: (found[each].is_view, each))]


def _table_names(connection: sa.Connection, inspector: sa.Inspector) -> list[str]:
    """Return the names of the tables, on SQLite without those in which a virtual table keeps its rows."""
    names = inspector.get_table_names()
    if connection.dialect.name != "sqlite" or (connection.dialect.server_version_info or ()) < (3, 37):
        return names  # an older SQLite does not say which these are
    found = connection.execute(sa.text("SELECT name FROM pragma_table_list WHERE type = 'shadow'"))
    hidden = set(found.scalars())
    return [name for name in names if name not in hidden]


def _read_view(connection: sa.Connection, inspector: sa.Inspector, name: str) -> Table:
    try:
        return Table(name, _columns(connection, inspector, name), is_view=True)
    except (NoSuchTableError, DBAPIError):  # a view of a table that is gone
        return Table(name, [], is_view=True)


def _columns(connection: sa.Connection, inspector: sa.Inspector, name: str) -> list[Column]:
    """Read the columns of *name*; on SQLite a type that is none of its own is unknown, not a number."""
    columns = [_column(each) for each in inspector.get_columns(name)]
    if connection.dialect.name == "sqlite":
        query = sa.text("SELECT name, upper(type) FROM pragma_table_info(:table)")
        declared = {row[0]: str(row[1]) for row in connection.execute(query, {"table": name})}
        generated = table_ddl(connection, name).generated  # which SQLAlchemy reads by pattern
        for column in columns:
            column.declared = declared.get(column.name, "")
            if column.computed is not None and column.name in generated:
                column.computed = (generated[column.name], column.computed[1])
            if type(column.type) is sa.NUMERIC and not column.declared.startswith(_NUMBERS):
                column.type = sa.types.NullType()
    return columns


def _read(connection: sa.Connection, inspector: sa.Inspector, name: str) -> Table:
    columns = _columns(connection, inspector, name)
    key = inspector.get_pk_constraint(name)["constrained_columns"]
    table = Table(name, columns, tuple(key), _keys(inspector, name), _indexes(connection, inspector, name))
    table.checks = stored_checks(connection, name)
    if connection.dialect.name == "sqlite":
        table.unnamed_checks = [
            each.condition for each in table_ddl(connection, name).checks if each.name is None
        ]
    else:
        table.comment = inspector.get_table_comment(name)["text"]
    if dialect_name(connection.dialect.name) == "mariadb":
        _note_json(connection, table)
        unreported = unreported_defaults(connection, name)
        for column in columns:
            if column.default is None and column.computed is None:
                column.default = unreported.get(column.name)
    _note_generated_key(connection, inspector, table)
    return table


def _column(found: Any) -> Column:
    computed = found.get("computed")
    return Column(
        found["name"],
        found["type"],
        bool(found.get("nullable", True)),
        None if computed or found.get("default") is None else str(found["default"]),
        found.get("comment"),
        (str(computed["sqltext"]), computed.get("persisted")) if computed else None,
        bool(found.get("identity")),
    )


def _keys(inspector: sa.Inspector, name: str) -> list[Key]:
    return [
        Key(
            tuple(each["constrained_columns"]),
            each["referred_table"],
            tuple(each["referred_columns"]),
            {option: value for option, value in each.get("options", {}).items() if option != "match"},
            each["referred_schema"],
            each["name"],
        )
        for each in sorted(inspector.get_foreign_keys(name), key=lambda each: each["constrained_columns"])
    ]


def _uniques(connection: sa.Connection, inspector: sa.Inspector, name: str) -> list[Index]:
    if connection.dialect.name == "sqlite":  # where SQLAlchemy reads them by pattern, and misses some
        return [
            Index(each.name, each.columns, unique=True, constraint=True)
            for each in table_ddl(connection, name).uniques
        ]
    return [
        Index(
            each["name"],
            tuple(each["column_names"]),
            unique=True,
            constraint=True,
            options={option: value for option, value in each.get("dialect_options", {}).items() if value},
        )
        for each in inspector.get_unique_constraints(name)
    ]


def _indexes(connection: sa.Connection, inspector: sa.Inspector, name: str) -> list[Index]:
    found = _uniques(connection, inspector, name)
    known = {each.name for each in found}
    for each in inspector.get_indexes(name):
        if each["name"] in known or each.get("duplicates_constraint"):
            continue
        options = {
            option: value for option, value in each.get("dialect_options", {}).items() if _is_given(value)
        }
        sorting: dict[str, tuple[str, ...]] = dict(each.get("column_sorting", {}))
        if connection.dialect.name != "postgresql":  # whose inspectors do not say it
            order, _ = stored_order(connection, sa.table(name), str(each["name"]))
            sorting = {column: ("desc",) for column, descending in order if descending}
        found.append(
            Index(
                each["name"],
                tuple(each["column_names"]),
                bool(each["unique"]),
                constraint=False,
                expressions=tuple(each.get("expressions", ())),
                sorting=sorting,
                options=options,
            )
        )
    return sorted(found, key=lambda each: str(each.name))


def _is_given(value: Any) -> bool:
    return isinstance(value, sa.ClauseElement) or bool(value)


def _note_json(connection: sa.Connection, table: Table) -> None:
    """Note the JSON columns of MariaDB, which are texts with a CHECK."""
    for condition in connection.execute(_JSON_COLUMNS, {"table": table.name}).scalars():
        if match := _JSON_VALID.fullmatch(condition):
            for column in table.columns:
                column.is_json = column.is_json or column.name == match[1].replace("``", "`")


def _note_generated_key(connection: sa.Connection, inspector: sa.Inspector, table: Table) -> None:
    """Note whether the database makes the key, and drop the default that says so."""
    if len(table.key) != 1 or not isinstance(table.column(table.key[0]).type, sa.Integer):
        _note_sequences(connection, table)
        return
    column = table.column(table.key[0])
    if connection.dialect.name == "sqlite":  # where no other word than INTEGER makes a key
        column.generated = (
            column.declared == "INTEGER" and not table_ddl(connection, table.name).without_rowid
        )
    elif connection.dialect.name == "postgresql":
        column.generated = column.identity
    else:
        (found,) = [each for each in inspector.get_columns(table.name) if each["name"] == column.name]
        column.generated = bool(found.get("autoincrement") is True)
    _note_sequences(connection, table)


def _note_sequences(connection: sa.Connection, table: Table) -> None:
    """Note the columns of PostgreSQL that have a sequence of their own (`serial`), whose default is not compared."""
    for column in table.columns if connection.dialect.name == "postgresql" else ():
        if column.default is None or not column.default.startswith("nextval("):
            continue
        quoted = connection.dialect.identifier_preparer.quote(table.name)
        owned = sa.select(sa.func.pg_get_serial_sequence(quoted, column.name))
        if connection.execute(owned).scalar() is None:
            continue
        column.default = None
        column.generated = table.key == (column.name,)
        column.identity = not column.generated
