"""Refreshing: an instance takes its values from its row again (CONTRACT I20)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy.sql import ClauseElement

from microorm.db.context import USING, current_alias
from microorm.db.engine import Database
from microorm.db.snapshots import image_of, settle
from microorm.deferring import missing
from microorm.errors import UnsavedError
from microorm.mapping.schema import Schema
from microorm.mapping.state import Layout, Origin, merged
from microorm.sql.statements import key_row, plans_of


def refresh(instance: Any, using: str | None, fields: Iterable[Any] | None) -> None:
    """Load all values that are not deferred, or those of *fields*, from the row.

    What is not loaded keeps its loaded state, too.
    """
    schema: Schema = instance.__schema__
    if instance.pk is None:
        raise UnsavedError(f"{schema.name} has no key, and a refresh needs one")
    if isinstance(fields, (str, bytes, ClauseElement)):
        raise TypeError(f"fields wants a list of names or columns, not {fields!r}")
    if fields is None:
        deferred = missing(instance)
        names = frozenset(name for name in schema.names if name not in deferred)
    else:
        names = frozenset(schema.field(name).name for name in fields)
    databases = schema.registry.databases
    told = using if using is not None else current_alias(databases, USING)
    where = told if told is not None else instance._origin.alias
    database: Database = databases.for_read(schema.model, schema.home, where, instance)
    fresh = _row_of(schema, database, instance, names)
    loaded = merged(instance, fresh)
    image = image_of(instance)
    settle(instance, image, fresh)
    for name, relation in schema.relations.items():  # what was loaded by the old values
        if fields is None if relation.field is None else relation.field.name in fresh:
            instance.__dict__.pop(name, None)
    instance._row = tuple(loaded.values())
    instance._origin = Origin(database.alias, Layout(tuple(loaded), partial=instance._origin.partial))
    if (transaction := databases.transaction(database)) is not None:
        # What was read inside a block may be undone with it.
        transaction.undo.record(image)


def _row_of(schema: Schema, database: Database, instance: Any, names: frozenset[str]) -> dict[str, Any]:
    """The values of *names* in the row of *instance*, read without making another instance (CONTRACT G5)."""
    key = key_row(schema, instance)
    # A row is asked for even where none of its values is.
    wanted = tuple(name for name in schema.names if name in names) or schema.key_names
    load = plans_of(schema, database).load(
        schema.key_names, wanted=None if wanted == schema.names else wanted
    )
    with schema.registry.databases.channel(database, prepared=True, writes=False) as channel:
        found = load.values(channel, key)
    if not found:
        asked = ", ".join(f"{name}={value!r}" for name, value in zip(schema.key_names, key, strict=True))
        raise schema.model.DoesNotExist(f"no {schema.name} with {asked} in {database.alias!r}")
    return {name: value for name, value in zip(wanted, found[0], strict=True) if name in names}
