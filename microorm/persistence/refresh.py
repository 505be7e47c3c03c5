"""Load values into existing instances: `refresh_from_db()`, and deferred fields.

Deferred fields are read from the alias that the instance was loaded from, by the key that it was loaded with, even if
its key has been changed since. They then count as loaded. A rollback of the open block undoes this.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.sql import ClauseElement

from microorm.db.connection import Channel
from microorm.db.context import USING, current_alias, refuse_lazy
from microorm.db.engines.engine import Database
from microorm.db.snapshots import apply_generated, note_row, take_snapshot
from microorm.errors import InvalidValue, UnsavedError
from microorm.fields.field import MISSING
from microorm.mapping.codegen import Row
from microorm.mapping.schema import Schema
from microorm.mapping.state import RowLayout, RowState, drop_related, loaded_value, merge_loaded
from microorm.messages import brief
from microorm.sql.hydration import entries_of, fetched
from microorm.sql.statements import key_row, plans_of


def refresh(instance: Any, using: str | None, fields: Iterable[Any] | None) -> None:
    """Load the values of *fields*, or all that are not deferred, from the row of *instance*.

    Raises `UnsavedError` if it has no key, `Model.DoesNotExist` if the row is gone.
    """
    schema: Schema = instance.__schema__
    if instance.pk is None:
        raise UnsavedError(f"{schema.name} has no key, and a refresh needs one")
    if isinstance(fields, (str, bytes, ClauseElement)):
        raise TypeError(f"fields must be a list of names or columns, not {brief(fields)}")
    if fields is None:
        deferred = missing(instance)
        names = frozenset(name for name in schema.names if name not in deferred)
    else:
        names = frozenset(schema.field(name).name for name in fields)
    databases = schema.registry.databases
    chosen = using if using is not None else current_alias(databases, USING)
    database = _database(instance) if chosen is None else databases.database(chosen)
    fresh = _row_of(schema, database, instance, names)
    loaded = merge_loaded(instance, fresh)
    snapshot = take_snapshot(instance)
    apply_generated(instance, snapshot, fresh)
    for name, relation in schema.relations.items():  # rows that were loaded by the old values
        if fields is None if relation.field is None else relation.field.name in fresh:
            drop_related(instance, name)
    instance._row = tuple(loaded.values())
    instance._row_state = RowState(
        database.row_alias, RowLayout(tuple(loaded), partial=instance._row_state.partial)
    )
    if (transaction := databases.transaction(database)) is not None:
        # The block may be rolled back, and with it the values that were read.
        note_row(snapshot, instance._row)
        transaction.undo.record(snapshot)


def _row_of(schema: Schema, database: Database, instance: Any, names: frozenset[str]) -> dict[str, Any]:
    """Return the values of *names* in the row of *instance*. Raises `Model.DoesNotExist`."""
    key = key_row(schema, instance)
    # The key is read to check that the row exists, and for the message of an error.
    wanted = tuple(name for name in schema.names if name in names or name in schema.key_names)
    load = plans_of(schema, database).select(
        schema.key_names, wanted=None if wanted == schema.names else wanted
    )
    with schema.registry.databases.channel(database, writes=False) as channel:
        found = load.values(channel, key)
    if not found:
        raise _no_row(schema, key, database)
    return {name: value for name, value in zip(wanted, found[0], strict=True) if name in names}


def _no_row(schema: Schema, key: Row, database: Database) -> Exception:
    shown = ", ".join(f"{name}={brief(value)}" for name, value in zip(schema.key_names, key, strict=True))
    error: Exception = schema.model.DoesNotExist(f"no {schema.name} with {shown} in {database.alias!r}")
    return error


MAX_KEYS = 5000
"""The keys of one SELECT, within the limits of all databases."""


def missing(instance: Any) -> tuple[str, ...]:
    """Return the names of the fields that *instance* was loaded without and has no value for."""
    state, values = instance._row_state, instance.__dict__
    if not state.partial:
        return ()
    known = state.layout.indexes
    return tuple(name for name in instance.__schema__.names if name not in values and name not in known)


def load_deferred(instance: Any, name: str) -> Any:
    """Load the field *name* and return its value; None if it was loaded before and has been deleted by `del`.

    Raises `LazyLoadError` inside `no_lazy_loads()`, `Model.DoesNotExist` if the row is gone.
    """
    if name in instance._row_state.layout.indexes:
        return None
    refuse_lazy(instance, name)
    complete(instance, (name,), _database(instance))
    return instance.__dict__[name]


def complete(instance: Any, names: Sequence[str] | None = None, database: Database | None = None) -> None:
    """Load the deferred fields of *instance*, or those among *names*, by one statement.

    *database*: where to read them; by default that of the row, as for values that are about to be written. Raises
    `Model.DoesNotExist` if the row is gone.
    """
    if wanted := _deferred(instance, names):
        schema, key = instance.__schema__, _loaded_key(instance)
        database = database or _own_database(instance)
        load = plans_of(schema, database).select(schema.key_names, wanted=schema.key_names + wanted)
        with schema.registry.databases.channel(database, writes=False) as channel:
            found = load.values(channel, key)
        _take(instance, database, wanted, found[0][len(key) :] if found else None)


def load_replaced(instance: Any) -> None:
    """Load the stored values of deferred fields that were assigned, so that `changes()` can compare with them.

    The assigned values stay. Does nothing if the row is gone.
    """
    schema: Schema = instance.__schema__
    if not (wanted := _replaced(instance)):
        return
    database = _own_database(instance)
    load = plans_of(schema, database).select(schema.key_names, wanted=wanted)
    with schema.registry.databases.channel(database, writes=False) as channel:
        found = load.values(channel, _loaded_key(instance))
    if found:
        snapshot = take_snapshot(instance)
        _mark_loaded(instance, dict(zip(wanted, found[0], strict=True)))
        note_row(snapshot, instance._row)
        if (transaction := schema.registry.databases.transaction(database)) is not None:
            transaction.undo.record(snapshot)


def refuse_lazy_changes(instance: Any) -> None:
    """Raise `LazyLoadError` where lazy loads are refused, if `changes()` has to load values."""
    for name in _replaced(instance):
        refuse_lazy(instance, name, "achanges()")


def _replaced(instance: Any) -> tuple[str, ...]:
    state, values = instance._row_state, instance.__dict__
    if not state.partial or state.adding:
        return ()
    known = state.layout.indexes
    return tuple(name for name in instance.__schema__.names if name in values and name not in known)


def complete_all(instances: Iterable[Any], names: Collection[str] | None = None) -> None:
    """Call `complete` for *instances* of one model, by one statement for many of them."""
    groups: dict[tuple[Database, tuple[str, ...]], list[Any]] = {}
    for instance in instances:
        if instance._row_state.partial and (wanted := _deferred(instance, names)):
            groups.setdefault((_own_database(instance), wanted), []).append(instance)
    for (database, wanted), group in groups.items():
        for start in range(0, len(group), MAX_KEYS):
            _complete_many(database, wanted, group[start : start + MAX_KEYS])


def _complete_many(database: Database, wanted: tuple[str, ...], instances: Sequence[Any]) -> None:
    schema: Schema = instances[0].__schema__
    key, keys = schema.key, list(dict.fromkeys(map(_loaded_key, instances)))
    fields = [*key, *[schema.by_name[name] for name in wanted]]
    statement = select(*[field.column for field in fields]).where(schema.key_in(keys))
    with schema.registry.databases.channel(database, writes=False) as channel:
        found = fetched(channel, statement, entries_of(schema, fields))
    rows = {tuple(row[: len(key)]): tuple(row[len(key) :]) for row in found}
    for instance in instances:
        _take(instance, database, wanted, rows.get(_loaded_key(instance)))


def computed_rows(schema: Schema, channel: Channel, keys: Sequence[Row]) -> dict[Row, Row]:
    """Return the values of the fields that the database computes, by key, in the rows with *keys*."""
    key = [field.column for field in schema.key]
    computed = [schema.by_name[name].column for name in schema.computed]
    found = channel.fetch(select(*key, *computed).where(schema.key_in(keys)))
    return {tuple(row[: len(key)]): tuple(row[len(key) :]) for row in found}


def check_results(schema: Schema, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
    """Check *rows*, the results of the SQL expressions that were written to the fields *names*; return their number.

    Only SQLite needs it, which stores whatever an expression results in. Raises `InvalidValue`.
    """
    collect, count = schema.collector(tuple(names)), 0
    try:
        for row in rows:
            collect(dict(zip(names, row)))  # noqa: B905 a keyword costs more than the loop
            count += 1
    except InvalidValue as error:
        error.add_note("the value is the result of an SQL expression")
        raise
    return count


def refuse_computed(instance: Any) -> None:
    """Raise `InvalidValue` if a value that the database computes has been set in *instance*."""
    schema: Schema = instance.__schema__
    problems = {}
    for name in schema.computed:
        loaded, current = loaded_value(instance, name), instance.__dict__.get(name, MISSING)
        if current is not MISSING and loaded != current:
            problems[name] = "is computed by the database, and cannot be changed"
    if problems:
        raise InvalidValue(schema.name, problems)


def _deferred(instance: Any, names: Collection[str] | None) -> tuple[str, ...]:
    return tuple(name for name in missing(instance) if names is None or name in names)


def _own_database(instance: Any) -> Database:
    """Return the database of the row of *instance*."""
    schema: Schema = instance.__schema__
    database: Database = schema.registry.databases.for_read(
        schema.model, schema.home, instance._row_state.alias, instance
    )
    return database


def _database(instance: Any) -> Database:
    """Return where to read the row of *instance*: in its own database, or where routers read the copies of that."""
    schema: Schema = instance.__schema__
    databases = schema.registry.databases
    if instance._row_state.alias not in databases.copied:
        return _own_database(instance)
    database: Database = databases.for_read(schema.model, schema.home, None, instance)
    return database if database.row_alias == instance._row_state.alias else _own_database(instance)


def _take(instance: Any, database: Database, wanted: tuple[str, ...], found: Row | None) -> None:
    """Set the values *found* of the fields *wanted*; a rollback of the open block undoes this."""
    schema: Schema = instance.__schema__
    if found is None:
        raise _no_row(schema, _loaded_key(instance), database)
    snapshot = take_snapshot(instance)
    fresh = dict(zip(wanted, found, strict=True))
    _mark_loaded(instance, fresh)
    apply_generated(instance, snapshot, fresh)
    note_row(snapshot, instance._row)
    if (transaction := schema.registry.databases.transaction(database)) is not None:
        transaction.undo.record(snapshot)


def is_own_row(schema: Schema, database: Database, instance: Any) -> bool:
    """Return whether a save of *instance* to *database* writes the row that it was loaded from."""
    state = instance._row_state
    if state.alias != database.row_alias or state.adding:
        return False
    key = tuple(map(instance.__dict__.get, schema.key_names))
    return not any(isinstance(value, ClauseElement) for value in key) and key == _loaded_key(instance)


def _loaded_key(instance: Any) -> Row:
    layout, row = instance._row_state.layout, instance._row
    return tuple(layout.value(row, name) for name in instance.__schema__.key_names)


def _mark_loaded(instance: Any, fresh: dict[str, Any]) -> None:
    """Make *fresh* the loaded values of some fields of *instance*, with which `changes()` compares.

    Inside receivers of `post_save`, `changes()` compares with the state before the save; they are added to it as well.
    """
    state = instance._row_state
    before = state.before
    if before is not None and before[0].partial:
        earlier, row = before
        values = fresh | {name: earlier.layout.value(row, name) for name in earlier.layout.names}
        layout = RowLayout(tuple(values), partial=True)
        before = (RowState(earlier.alias, layout, adding=earlier.adding), tuple(values.values()))
    loaded = merge_loaded(instance, fresh)
    layout = RowLayout(tuple(loaded), partial=True)
    instance._row = tuple(loaded.values())
    instance._row_state = RowState(
        state.alias, layout, adding=state.adding, before=before, copied=state.copied
    )
