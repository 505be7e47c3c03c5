"""Versions: an UPDATE or DELETE of a row by an instance finds it only as the instance has read it.

The version that an instance has is the one that it has read. A save sets the next before any SQL runs, as it sets the values
of `on_update`, and its UPDATE compares with the one before that. So the row to write is the only thing that is passed on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, literal_column, select

from microorm.db.connection import Channel
from microorm.db.engines.engine import Database
from microorm.db.snapshots import Snapshot, apply_generated
from microorm.errors import InvalidValue, NotUpdated, StaleUpdate
from microorm.fields.checks import InvalidFieldValue
from microorm.fields.field import Field
from microorm.mapping.codegen import Row
from microorm.mapping.schema import Schema
from microorm.messages import brief
from microorm.persistence.options import CHECKED, INSERT, SaveOptions
from microorm.persistence.refresh import complete, is_own_row
from microorm.sql.batches import MAX_VALUES, current_read, sliced

MAX_SHOWN = 3
"""How many stale instances the message of an error shows."""


def options_of_version(
    schema: Schema, version: Field[Any], instance: Any, options: SaveOptions
) -> SaveOptions:
    """Return the options for a save of *instance*, whose model has the field *version*.

    A row that was never read, or has no key yet, is inserted. Any other update writes the version, too, and compares it.
    """
    if options.raw or options.force_insert:
        return options
    values = instance.__dict__
    if instance._row_state.partial:
        complete(instance, (version.name,))
    if options.fields is not None:
        fields = options.fields | {version.name}
        return SaveOptions(fields, force_update=options.force_update, checked=True)
    if options.force_update:
        return SaveOptions(force_update=True, checked=True)
    new = values.get(version.name) is None or None in map(values.get, schema.key_names)
    return INSERT if new else CHECKED


def set_version(
    schema: Schema,
    version: Field[Any],
    database: Database,
    instance: Any,
    options: SaveOptions,
    snapshot: Snapshot,
) -> None:
    """Set the version that *instance* has in its row after the save. Raises `InvalidValue` for an update without one."""
    written: Any
    if options.checked:
        written = known_version(schema, instance) + 1
    elif options.fields is not None:
        return  # a raw save, which writes what it is given
    else:
        kept = options.raw or instance._row_state.alias not in (None, database.alias)
        given = instance.__dict__.get(version.name) if kept else None
        written = version.version if given is None else given
    apply_generated(instance, snapshot, {version.name: written})


def read_version(schema: Schema, instance: Any) -> int | None:
    """Return the version that *instance* has read; None if there is none, or its model has none. Raises `InvalidValue`."""
    version = schema.version
    current = None if version is None else instance.__dict__.get(version.name)
    if version is None or current is None:
        return None
    try:
        read: int = version.clean(current)
    except InvalidFieldValue as error:
        raise version.invalid(error) from None
    return read


def known_version(schema: Schema, instance: Any) -> int:
    """Return the version that *instance* has read. Raises `InvalidValue` if there is none."""
    if (read := read_version(schema, instance)) is None:
        name = "version" if schema.version is None else schema.version.name
        raise InvalidValue(schema.name, {name: "is None, and an update needs the version that was read"})
    return read


def former_version(schema: Schema, values: dict[str, Any]) -> ColumnElement[bool]:
    """Return the condition that a row has the version before the one in *values*, which are written."""
    version: Any = schema.version
    condition: ColumnElement[bool] = version.column == values[version.name] - 1
    return condition


def row_to_insert(
    schema: Schema,
    channel: Channel,
    instance: Any,
    options: SaveOptions,
    names: tuple[str, ...],
    row: Row,
    snapshot: Snapshot,
) -> Row:
    """Return the row that is to be inserted, since the UPDATE by *row* has found none.

    Raises `StaleUpdate` if there is a row, of another version, or was one; `NotUpdated` if the save may not insert.
    """
    key, version = row[-len(schema.key) :], schema.version if options.checked else None
    index = 0 if version is None else names.index(version.name)
    if version is not None:
        found = version_of(schema, channel, key)
        if found is not None or is_own_row(schema, channel.database, instance):
            raise stale(schema, channel, [(instance, key, row[index] - 1, found)])
    if options.fields is not None or options.force_update:
        raise _not_updated(schema, key, channel)
    if version is not None:
        elsewhere = instance._row_state.alias not in (None, channel.database.alias)
        new = row[index] - 1 if elsewhere else version.version
        apply_generated(instance, snapshot, {version.name: new})
        row = row.__class__((*row[:index], new, *row[index + 1 :]))
    return row


def _not_updated(schema: Schema, key: Row, channel: Channel) -> NotUpdated:
    error: NotUpdated = schema.model.NotUpdated(
        f"{schema.name} with {_shown(schema, key)} is not in {channel.database.alias!r}"
    )
    return error


def _shown(schema: Schema, key: Row) -> str:
    return ", ".join(f"{f.name}={brief(value)}" for f, value in zip(schema.key, key, strict=True))


Stale = tuple[Any, Row, int, int | None]
"""An instance, its key, the version that it has read, and the one that its row has; None if the row is gone."""


def stale(schema: Schema, channel: Channel, found: Sequence[Stale]) -> StaleUpdate:
    """Return the error for the instances *found*, of which there is at least one."""
    alias = channel.database.alias
    parts = [
        f"{_shown(schema, key)} has version {there} in {alias!r}, not {known}"
        if there is not None
        else f"{_shown(schema, key)} is no longer in {alias!r}, and had version {known}"
        for _, key, known, there in found[:MAX_SHOWN]
    ]
    if len(found) > MAX_SHOWN:
        parts.append(f"and {len(found) - MAX_SHOWN} more")
    error: StaleUpdate = schema.model.StaleUpdate(
        f"{schema.name} with {'; '.join(parts)}", [instance for instance, *_ in found]
    )
    return error


def version_of(schema: Schema, channel: Channel, key: Row) -> int | None:
    """Return the version that the row with *key* has now; None if there is no such row."""
    version: Any = schema.version
    same = [field.column == value for field, value in zip(schema.key, key, strict=True)]
    found = channel.fetch(current_read(channel, select(version.column).where(*same)))
    return int(found[0][0]) if found else None


def stale_among(schema: Schema, channel: Channel, known: Iterable[tuple[Any, Row, int]]) -> list[Stale]:
    """Lock the rows of *known* instances with their keys and versions, and return those with another version, or none."""
    version: Any = schema.version
    asked, columns = list(known), [field.column for field in schema.key]
    there: dict[Row, int] = {}
    for part in sliced(asked, MAX_VALUES // len(columns)):
        rows = select(*columns, version.column).where(schema.key_in([key for _, key, _ in part]))
        for *key, found in channel.fetch(rows.with_for_update()):
            there[tuple(key)] = found
    compared = []
    for instance, key, read in asked:
        # By its collation, a database may find a key in other letters.
        found = there[key] if key in there else version_of(schema, channel, key)
        if found != read:
            compared.append((instance, key, read, found))
    return compared


def increments(schema: Schema) -> dict[Any, Any]:
    """Return what an UPDATE of many rows has to set besides its values: the next version, if the model has one."""
    version = schema.version
    return {} if version is None else {version.column: version.column + literal_column("1")}


NO_VERSION: Mapping[str, int] = {}


def next_version(schema: Schema, instance: Any) -> Mapping[str, int]:
    """Return the version of *instance* after an UPDATE by `increments`, by name; none if its model has none."""
    read = read_version(schema, instance)
    return NO_VERSION if read is None or schema.version is None else {schema.version.name: read + 1}
