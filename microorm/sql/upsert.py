"""Upserts: INSERTs that ignore or update a row with the same unique values, on each database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, Literal, NamedTuple

from sqlalchemy import func, literal_column, select, tuple_, union_all
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.sql import ClauseElement

from microorm.db.connection import Channel
from microorm.db.engines.engine import Database
from microorm.errors import FieldError
from microorm.mapping.codegen import ExpressionRow, Row
from microorm.mapping.schema import Schema
from microorm.mapping.unique import unique_sets
from microorm.messages import brief
from microorm.sql.batches import MAX_PARAMETERS, current_read, max_rows, sliced
from microorm.sql.hydration import fields_of
from microorm.sql.statements import CompiledStatement, assigned, parameters_of, placeholders, plans_of

OnConflict = Literal["ignore", "update"]


class Upsert(NamedTuple):
    """What an INSERT does if another row has its values of *unique*: leave that row as it is, or update *fields* of it.

    No *unique* fields: any unique values. *fields* None: all fields that the new row has a value for. The version of the row,
    if it has one, is incremented; *raw*: written as it is.
    """

    updates: bool
    unique: tuple[str, ...]
    fields: tuple[str, ...] | None
    raw: bool = False

    def updated(self, schema: Schema, names: Sequence[str]) -> tuple[str, ...]:
        """Return the fields that a row of *names* changes in the existing row."""
        own = self.unique if self.raw or schema.version is None else (*self.unique, schema.version.name)
        if self.fields is not None:
            return tuple(name for name in self.fields if name not in own)
        return tuple(name for name in names if name not in own and name not in schema.key_names)


def upsert_of(
    schema: Schema, on_conflict: Any, unique_fields: Iterable[Any] | None, update_fields: Iterable[Any] | None
) -> Upsert | None:
    """Check the arguments of an upsert, as `Query.bulk_create` says; return None where a conflict is an error."""
    if on_conflict not in (None, "ignore", "update"):
        raise ValueError(f"on_conflict= must be 'ignore' or 'update', not {brief(on_conflict)}")
    if unique_fields is not None and on_conflict is None:
        raise ValueError("unique_fields= needs on_conflict=")
    if update_fields is not None and on_conflict != "update":
        raise ValueError("update_fields= needs on_conflict='update'")
    if on_conflict is None:
        return None
    unique: tuple[str, ...] = ()
    if unique_fields is not None:
        unique = _names(schema, "unique_fields", unique_fields)
        if frozenset(unique) not in map(frozenset, unique_sets(schema)):
            raise FieldError(
                f"{schema.name}: {_listed(schema, unique)} is not unique; unique: {_all(schema)}"
            )
    elif on_conflict == "update":
        unique = _default_unique(schema)
    fields = None if update_fields is None else _names(schema, "update_fields", update_fields)
    for name in fields or ():
        if name in unique or name in schema.key_names:
            what = "one of the unique fields" if name in unique else "the primary key"
            raise FieldError(
                f"{schema.name}.{schema.reported[name]} is {what}, which an upsert cannot change"
            )
    schema.refuse_computed(fields or ())
    return Upsert(on_conflict == "update", unique, fields)


def _names(schema: Schema, argument: str, given: Iterable[Any]) -> tuple[str, ...]:
    if isinstance(given, (str, bytes, ClauseElement)):
        raise TypeError(f"{argument}= must be a list of names or columns, not {brief(given)}")
    names = tuple(dict.fromkeys(schema.field(each).name for each in given))
    if not names:
        raise ValueError(f"{argument}= cannot be empty")
    return names


def _default_unique(schema: Schema) -> tuple[str, ...]:
    """Return the key, or if it is generated for each row, the only other unique fields."""
    known = unique_sets(schema)
    if len(known) == 1 or (schema.generated is None and not schema.key_has_default):
        return schema.key_names
    if len(known) > 2:
        raise ValueError(f"{schema.name} needs unique_fields=; unique: {_all(schema)}")
    return known[1]


def _listed(schema: Schema, names: Iterable[str]) -> str:
    return f"({', '.join(schema.reported[name] for name in names)})"


def _all(schema: Schema) -> str:
    return ", ".join(_listed(schema, names) for names in unique_sets(schema))


def statement(schema: Schema, database: Database, upsert: Upsert, names: Sequence[str], values: Any) -> Any:
    """Return the INSERT of *values*, a mapping from the columns of *names*, as *upsert* says."""
    unique = [schema.by_name[name].column for name in upsert.unique]
    columns = [schema.by_name[name].column for name in upsert.updated(schema, names)]
    version = None if upsert.raw else schema.version
    counted: dict[Any, Any] = (
        {} if version is None else {version.column: version.column + literal_column("1")}
    )
    if database.dialect not in MAX_PARAMETERS:
        made = {column: _inserted(column) for column in columns} | counted
        return _on_duplicate_key(
            _insert(database, schema), schema, unique, made if upsert.updates else {}, values
        )
    insert = _insert(database, schema).inline().values(values)
    if not upsert.updates:
        return insert.on_conflict_do_nothing(index_elements=unique or None)
    # If there is nothing to change, the row still has to be found and locked.
    changed = {column: insert.excluded[column.key] for column in columns or unique}
    changed |= counted
    return insert.on_conflict_do_update(index_elements=unique, set_=changed)


def _insert(database: Database, schema: Schema) -> Any:
    """Return the dialect's own INSERT, from a module that is loaded with the engine."""
    dialect = database.dialect if database.dialect in MAX_PARAMETERS else "mysql"
    return import_module(f"sqlalchemy.dialects.{dialect}").insert(schema.table)


def _on_duplicate_key(
    insert: Any, schema: Schema, unique: list[Any], changed: dict[Any, Any], values: Any
) -> Any:
    """Return the upsert for MariaDB, where any unique value is a conflict: one of other columns is made an error."""
    # The error is a sub-select of two rows. NULL for the key would not be one: MariaDB may make it 0.
    insert = insert.inline().values(values)
    key = schema.key[0].column
    same_key: Any = key
    for column in unique:
        same_key = func.if_(column.op("<=>")(_inserted(column)), same_key, _TWO_ROWS)
    pairs: list[tuple[str, Any]] = [(key.key, same_key)]
    pairs += [(column.key, value) for column, value in changed.items()]
    return insert.on_duplicate_key_update(pairs)


def _inserted(column: Any) -> Any:
    """Return the value to be inserted; `insert.inserted` would double a `%` in the name of the column."""
    return func.values(column, type_=column.type)


def _compiled(
    schema: Schema, database: Database, upsert: Upsert, names: tuple[str, ...]
) -> CompiledStatement:
    """Return the statement for many rows of *names*."""
    fields = fields_of(schema, names)
    made = statement(schema, database, upsert, names, placeholders(fields))
    return CompiledStatement(made, parameters_of(fields), database.engine.dialect)


def run(
    schema: Schema, channel: Channel, upsert: Upsert, names: tuple[str, ...], rows: Sequence[Row]
) -> None:
    """Insert *rows* of *names*, plain values or expressions, as *upsert* says."""
    database = channel.database
    try:
        if rows[0].__class__ is ExpressionRow:
            columns = [schema.by_name[name].column for name in names]
            for row in rows:
                values = assigned(dict(zip(columns, row, strict=True)))
                channel.execute(statement(schema, database, upsert, names, values))
        else:
            plans_of(schema, database).cached(
                ("upsert", names, upsert), lambda: _compiled(schema, database, upsert, names)
            ).run_many(channel, rows)
    except OperationalError as error:
        if error.orig is None or error.orig.args[:1] != (_TWO_ROWS_ERROR,):
            raise
        refused = IntegrityError(
            error.statement,
            error.params,
            error.orig,
            error.hide_parameters,
            code=error.code,
            ismulti=error.ismulti,
        )
        refused.add_note(
            f"another row has a unique value of other fields than {_listed(schema, upsert.unique)}"
        )
        raise refused from error


def rows_of(
    schema: Schema, channel: Channel, unique: Sequence[str], wanted: Sequence[Row], names: Sequence[str]
) -> Mapping[Row, Row]:
    """Return a mapping from each of the values *wanted* of the fields *unique* to the values of *names* in its row."""
    key = [schema.by_name[name].column for name in unique]
    columns = [schema.by_name[name].column for name in names]
    found: dict[Row, Row] = {}
    for part in sliced(wanted, max_rows(channel, len(key))):
        condition = key[0].in_([row[0] for row in part]) if len(key) == 1 else tuple_(*key).in_(part)
        for row in channel.fetch(current_read(channel, select(*key, *columns).where(condition))):
            found[tuple(row[: len(key)])] = tuple(row[len(key) :])
    for values in wanted:
        if values not in found:  # by its collation, the database has found another value equal
            same = [column == value for column, value in zip(key, values, strict=True)]
            (row,) = channel.fetch(current_read(channel, select(*columns).where(*same)))
            found[values] = tuple(row)
    return found


_TWO_ROWS = union_all(select(literal_column("1")), select(literal_column("2"))).scalar_subquery()
_TWO_ROWS_ERROR = 1242
