"""Refreshing: an instance takes its values from its row again (CONTRACT I20).

Deferring: the values that a row was loaded without, and what becomes of them (CONTRACT I11, I12).

They are read where the instance was loaded from, by the key it was loaded with, whatever its key is by now: they are
values of that row. What is loaded late counts as loaded, and a rollback takes it out again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.sql import ClauseElement

from microorm.db.context import USING, current_alias, refuse_lazy
from microorm.db.engine import Database
from microorm.db.snapshots import apply_generated, image_of
from microorm.errors import UnsavedError
from microorm.mapping.codegen import Row
from microorm.mapping.schema import Schema
from microorm.mapping.state import RowLayout, RowState, merge_loaded
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
    where = told if told is not None else instance._row_state.alias
    database: Database = databases.for_read(schema.model, schema.home, where, instance)
    fresh = _row_of(schema, database, instance, names)
    loaded = merge_loaded(instance, fresh)
    image = image_of(instance)
    apply_generated(instance, image, fresh)
    for name, relation in schema.relations.items():  # what was loaded by the old values
        if fields is None if relation.field is None else relation.field.name in fresh:
            instance.__dict__.pop(name, None)
    instance._row = tuple(loaded.values())
    instance._row_state = RowState(
        database.alias, RowLayout(tuple(loaded), partial=instance._row_state.partial)
    )
    if (transaction := databases.transaction(database)) is not None:
        # What was read inside a block may be undone with it.
        transaction.undo.record(image)


def _row_of(schema: Schema, database: Database, instance: Any, names: frozenset[str]) -> dict[str, Any]:
    """The values of *names* in the row of *instance*, read without making another instance (CONTRACT G5)."""
    key = key_row(schema, instance)
    # A row is asked for even where none of its values is.
    wanted = tuple(name for name in schema.names if name in names) or schema.key_names
    load = plans_of(schema, database).select(
        schema.key_names, wanted=None if wanted == schema.names else wanted
    )
    with schema.registry.databases.channel(database, writes=False) as channel:
        found = load.values(channel, key)
    if not found:
        asked = ", ".join(f"{name}={value!r}" for name, value in zip(schema.key_names, key, strict=True))
        raise schema.model.DoesNotExist(f"no {schema.name} with {asked} in {database.alias!r}")
    return {name: value for name, value in zip(wanted, found[0], strict=True) if name in names}


MAX_AT_ONCE = 5000  # keys of one statement: within the limits of each database


def missing(instance: Any) -> tuple[str, ...]:
    """The fields that *instance* was loaded without and has no value of."""
    state, values = instance._row_state, instance.__dict__
    if not state.partial:
        return ()
    known = state.layout.indexes
    return tuple(name for name in instance.__schema__.names if name not in values and name not in known)


def load_deferred(instance: Any, name: str) -> Any:
    """The value of the field *name*, loaded now; None where it was loaded once, and deleted.

    Raises `LazyLoadError` where lazy loads are refused, `Model.DoesNotExist` where the row is gone.
    """
    if name in instance._row_state.layout.indexes:
        return None
    refuse_lazy(instance, name)
    complete(instance, (name,))
    return instance.__dict__[name]


def complete(instance: Any, names: Sequence[str] | None = None) -> None:
    """Load those of *names*, else of all fields, that *instance* was loaded without, by one statement.

    Raises `Model.DoesNotExist` where the row is gone.
    """
    if wanted := _wanted(instance, names):
        schema, key = instance.__schema__, _loaded_key(instance)
        database = _database(instance)
        load = plans_of(schema, database).select(schema.key_names, wanted=wanted)
        with schema.registry.databases.channel(database, writes=False) as channel:
            found = load.values(channel, key)
        _take(instance, database, wanted, found[0] if found else None)


def complete_all(instances: Iterable[Any], names: Sequence[str] | None = None) -> None:
    """The same for *instances* of one model: one statement for many of them. Raises as `complete` does."""
    alike: dict[tuple[Database, tuple[str, ...]], list[Any]] = {}
    for instance in instances:
        if instance._row_state.partial and (wanted := _wanted(instance, names)):
            alike.setdefault((_database(instance), wanted), []).append(instance)
    for (database, wanted), lacking in alike.items():
        for start in range(0, len(lacking), MAX_AT_ONCE):
            _complete_many(database, wanted, lacking[start : start + MAX_AT_ONCE])


def _complete_many(database: Database, wanted: tuple[str, ...], instances: Sequence[Any]) -> None:
    schema: Schema = instances[0].__schema__
    key = [field.column for field in schema.key]
    keys = list(dict.fromkeys(map(_loaded_key, instances)))
    statement = select(*key, *[schema.by_name[name].column for name in wanted]).where(schema.key_in(keys))
    with schema.registry.databases.channel(database, writes=False) as channel:
        rows = {tuple(row[: len(key)]): tuple(row[len(key) :]) for row in channel.execute(statement)}
    for instance in instances:
        _take(instance, database, wanted, rows.get(_loaded_key(instance)))


def _wanted(instance: Any, names: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(name for name in missing(instance) if names is None or name in names)


def _database(instance: Any) -> Database:
    """Where *instance* was loaded from."""
    schema: Schema = instance.__schema__
    database: Database = schema.registry.databases.for_read(
        schema.model, schema.home, instance._row_state.alias, instance
    )
    return database


def _take(instance: Any, database: Database, wanted: tuple[str, ...], found: Row | None) -> None:
    """Give *instance* the values *found* of the fields *wanted*, until a rollback of the open block."""
    schema: Schema = instance.__schema__
    if found is None:
        pairs = zip(schema.key_names, _loaded_key(instance), strict=True)
        asked = ", ".join(f"{name}={value!r}" for name, value in pairs)
        raise schema.model.DoesNotExist(f"no {schema.name} with {asked} in {database.alias!r}")
    image = image_of(instance)
    _mark_loaded(instance, dict(zip(wanted, found, strict=True)), image)
    if (transaction := schema.registry.databases.transaction(database)) is not None:
        transaction.undo.record(image)


def is_own_row(schema: Schema, database: Database, instance: Any) -> bool:
    """Whether *instance*, saved to *database*, would be written to the row that it was loaded from."""
    state = instance._row_state
    if state.alias != database.alias or state.adding:
        return False
    key = tuple(map(instance.__dict__.get, schema.key_names))
    return not any(isinstance(each, ClauseElement) for each in key) and key == _loaded_key(instance)


def _loaded_key(instance: Any) -> Row:
    layout, row = instance._row_state.layout, instance._row
    return tuple(layout.value(row, name) for name in instance.__schema__.key_names)


def _mark_loaded(instance: Any, fresh: dict[str, Any], image: Any) -> None:
    """Give *instance* the *fresh* values as loaded ones; `changes()` in a receiver of `post_save` tells none of them."""
    state = instance._row_state
    before = state.before
    if before is not None and before[0].partial:
        earlier, row = before
        known = {name: earlier.layout.value(row, name) for name in earlier.layout.names}
        known = fresh | known
        layout = RowLayout(tuple(known), partial=True)
        before = (RowState(earlier.alias, layout, adding=earlier.adding), tuple(known.values()))
    loaded = merge_loaded(instance, fresh)
    apply_generated(instance, image, fresh)
    layout = RowLayout(tuple(loaded), partial=True)
    instance._row = tuple(loaded.values())
    instance._row_state = RowState(state.alias, layout, adding=state.adding, before=before)
