"""Refreshing: an instance takes its values from its row again (CONTRACT I20)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy.sql import ClauseElement

from microorm.engines import Database
from microorm.errors import UnsavedError
from microorm.schema import Schema
from microorm.scopes import USING, current_alias
from microorm.state import Layout, Origin, kept
from microorm.statements import key_row, plans_of
from microorm.undo import image_of, settle


def refresh(instance: Any, using: str | None, fields: Iterable[Any] | None) -> None:
    """Load all values, or those of *fields*, from the row; what is not loaded keeps its loaded state, too."""
    schema: Schema = instance.__schema__
    if instance.pk is None:
        raise UnsavedError(f"{schema.name} has no key, and a refresh needs one")
    if isinstance(fields, (str, bytes, ClauseElement)):
        raise TypeError(f"fields wants a list of names or columns, not {fields!r}")
    names = schema.names if fields is None else [schema.field(name).name for name in fields]
    databases = schema.registry.databases
    told = using if using is not None else current_alias(databases, USING)
    where = told if told is not None else instance._origin.alias
    database: Database = databases.for_read(schema.model, schema.home, where, instance)
    fresh = _row_of(schema, database, instance)
    wanted = {name: fresh[name] for name in schema.names if name in names}
    copies = kept([schema.by_name[name] for name in wanted], tuple(wanted.values()))
    loaded = dict(zip(wanted, copies, strict=True))
    layout, row = instance._origin.layout, instance._row
    for name in () if row is None else layout.names:
        if name not in loaded:
            loaded[name] = layout.value(row, name)
    image = image_of(instance)
    settle(instance, image, wanted)
    instance._row = tuple(loaded.values())
    instance._origin = Origin(database.alias, Layout(tuple(loaded)))
    if (transaction := databases.transaction(database)) is not None:
        # What was read inside a block may be undone with it.
        transaction.undo.record(image)


def _row_of(schema: Schema, database: Database, instance: Any) -> dict[str, Any]:
    """The values in the row of *instance*, read without making another instance (CONTRACT G5)."""
    key = key_row(schema, instance)
    load = plans_of(schema, database).load(schema.key_names)
    with schema.registry.databases.channel(database, prepared=True, writes=False) as channel:
        found = load.values(channel, key)
    if not found:
        asked = ", ".join(f"{name}={value!r}" for name, value in zip(schema.key_names, key, strict=True))
        raise schema.model.DoesNotExist(f"no {schema.name} with {asked} in {database.alias!r}")
    return dict(zip(schema.names, found[0], strict=True))
