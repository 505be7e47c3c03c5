"""Rows with SQL expressions, which are written by a statement of their own and read back."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.sql import ClauseElement

from microorm.db.connection import Channel
from microorm.db.snapshots import Snapshot, note_generated
from microorm.errors import InvalidValue
from microorm.fields.field import Field
from microorm.mapping.codegen import Row
from microorm.mapping.path import refuse_columns, refuse_foreign
from microorm.mapping.schema import Schema
from microorm.persistence.options import SaveOptions, inserts_at_once
from microorm.persistence.refresh import check_results
from microorm.persistence.versions import former_version, row_to_insert
from microorm.persistence.written import mark_saved
from microorm.sql.hydration import entries_of, fetched
from microorm.sql.statements import assigned, plans_of


def check_expressions(schema: Schema, values: dict[str, Any], row: Row) -> None:
    """Raise `InvalidValue` for a key that is an expression, `FieldError` for a column of another table."""
    for name in schema.key_names:
        if isinstance(values.get(name), ClauseElement):
            problem = "is the primary key, and must be a value, not an expression"
            raise InvalidValue(schema.name, {name: problem})
    for value in row:
        if isinstance(value, ClauseElement):
            refuse_foreign(schema, value)


def write_expressions(
    schema: Schema,
    channel: Channel,
    instance: Any,
    options: SaveOptions,
    names: tuple[str, ...],
    row: Row,
    snapshot: Snapshot,
) -> bool:
    """Insert or update a *row* with SQL expressions, and read their results; return True for an INSERT."""
    values = dict(zip(names, row, strict=True))
    expressions = [name for name, value in values.items() if isinstance(value, ClauseElement)]
    key = {field.column: values.get(field.name) for field in schema.key}
    keyed = names[-len(schema.key) :] == schema.key_names
    created = options.fields is None and (not keyed or inserts_at_once(schema, instance, options))
    if not created and not _update(schema, channel, options, values, key):
        created = True
        row = row_to_insert(schema, channel, instance, options, names, row, snapshot)
    if created:
        refuse_columns(schema, names, row)
        values = dict(zip(names, row, strict=True))
        result = channel.execute(insert(schema.table).values(assigned(_by_column(schema, values))))
        made = dict(zip(schema.table.primary_key.columns, result.inserted_primary_key or (), strict=True))
        key = {column: made[column] if value is None else value for column, value in key.items()}
    unread = {*expressions, *schema.computed}
    unknown = [f for f in schema.fields if f.name in unread or (created and f.name not in values)]
    generated = _read_back(schema, channel, unknown, key)
    if channel.database.is_sqlite:
        check_results(schema, expressions, [[generated[name] for name in expressions]])
    note_generated(instance, snapshot, generated, generated.values())
    values.update(generated)
    plans, new = plans_of(schema, channel.database), tuple(values.values())
    mark_saved(schema, plans, instance, tuple(values), new, snapshot, channel.keep)
    instance.__dict__.update(generated)
    return created


def _update(
    schema: Schema, channel: Channel, options: SaveOptions, values: dict[str, Any], key: dict[Any, Any]
) -> bool:
    """Set *values* in the row with the *key*, and return whether there is one, of the version before theirs."""
    conditions = [column == value for column, value in key.items()]
    if options.checked:
        conditions.append(former_version(schema, values))
    written = {column: value for column, value in _by_column(schema, values).items() if column not in key}
    return bool(channel.execute(update(schema.table).values(assigned(written)).where(*conditions)).rowcount)


def _by_column(schema: Schema, values: dict[str, Any]) -> dict[Any, Any]:
    return {schema.by_name[name].column: value for name, value in values.items()}


def _read_back(
    schema: Schema, channel: Channel, fields: list[Field[Any]], key: dict[Any, Any]
) -> dict[str, Any]:
    """Return the values of *fields* in the row with the *key*."""
    columns = [field.column for field in fields]
    statement = select(*columns).where(*[column == value for column, value in key.items()])
    (found,) = fetched(channel, statement, entries_of(schema, fields))
    return dict(zip([field.name for field in fields], found, strict=True))
