"""Update many rows: `Query.update()` by one statement, `bulk_update()` each row by its key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Update, and_, case, literal, select, update
from sqlalchemy.exc import IntegrityError

from microorm.db.atomic import UnitOfWork, unit_of_work
from microorm.db.connection import Channel
from microorm.db.context import ReceiverScope
from microorm.db.engines.engine import Database
from microorm.db.snapshots import Snapshot, note_generated, restore
from microorm.errors import InvalidValue, NotUpdated, UnsavedError
from microorm.instrumentation import BULK_UPDATE, UPDATE
from microorm.mapping.codegen import ExpressionRow, Row
from microorm.mapping.schema import Schema
from microorm.messages import brief
from microorm.persistence.conflicts import note_object
from microorm.persistence.expressions import write_expressions
from microorm.persistence.foreign_keys import refresh_all_foreign_keys
from microorm.persistence.options import SaveOptions, field_names
from microorm.persistence.refresh import check_results, complete_all, computed_rows
from microorm.persistence.save import SavePlan, collect
from microorm.persistence.steps import as_step
from microorm.persistence.versions import known_version, stale, stale_among
from microorm.persistence.written import mark_saved
from microorm.signals import post_update, pre_update
from microorm.sql.batches import MAX_PARAMETERS, Progress, batches, check_instances, current_read, sliced
from microorm.sql.hydration import decoded, entries_of
from microorm.sql.statements import key_row, plans_of

MAX_CASES = 100
"""The cases of one UPDATE. The database searches them for each row, so the time grows with their square."""


class Planned(NamedTuple):
    """An object, the row to write, which ends in the key, and a snapshot."""

    instance: Any
    row: Row
    snapshot: Snapshot


@as_step(UPDATE)
def update_found(
    schema: Schema,
    database: Database,
    statement: Update,
    query: Any,
    values: dict[str, Any],
    expressions: tuple[str, ...] = (),
) -> int:
    """Execute *statement*, which sets *values* in the rows of *query*, and send its signals, as one unit of work.

    Each signal gets its own copy of *values*, since a receiver may change it. *expressions*: the fields whose values are
    SQL expressions. Returns the number of rows.
    """
    databases, model, alias = schema.registry.databases, schema.model, database.alias
    pre_update.refuse_waiting(model)
    post_update.refuse_waiting(model)
    with unit_of_work(databases, database, begin=False) as work:
        results = expressions if database.is_sqlite else ()
        signals = pre_update._route(model) or post_update._route(model)
        channel = work.begin(several=bool(results or signals))
        work.dirty = True
        if pre_update._route(model):
            scope = ReceiverScope(databases, alias)
            scope.run(pre_update.send, model, query=query, values=dict(values), using=alias)
            work.check()  # a receiver may have doomed the block
        if results:
            fields = [schema.by_name[name] for name in results]
            returning = statement.returning(*[field.column for field in fields])
            count = check_results(schema, results, decoded(channel, returning, entries_of(schema, fields)))
        else:
            count = int(channel.execute(statement).rowcount)
        if post_update._route(model):
            scope = ReceiverScope(databases, alias)
            scope.run(post_update.send, model, query=query, values=dict(values), using=alias, count=count)
    return count


@as_step(BULK_UPDATE)
def bulk_update(
    schema: Schema,
    database: Database,
    instances: Iterable[Any],
    fields: Iterable[Any],
    *,
    using: str | None = None,
    batch_size: int | None = None,
    progress: Any = None,
) -> int:
    """Write *fields* of all *instances* by their keys, or of none; return the number of rows that exist.

    Instances without a row stay unchanged. *using*: the alias that was asked for. Without it, an instance is refused
    whose own save would go elsewhere.
    """
    options = _options(schema, fields)
    objects = check_instances(schema, "bulk_update", instances)
    written = Progress(progress, len(objects))
    _check_aliases(schema, database, using, objects)
    _check_keys(schema, objects)
    if not objects:
        return 0
    total = 0
    databases = schema.registry.databases
    with unit_of_work(databases, database, begin=False) as work:
        refresh_all_foreign_keys(schema, work, database.alias, "bulk_update", objects)
        complete_all(objects, options.fields)
        work.begin()
        try:
            groups = _groups(schema, work, objects, options)
            if schema.version is not None:
                _refuse_stale(schema, work, groups)
            for plan, planned in groups:
                for batch in batches(work.channel, planned, lambda item: item.row, batch_size):
                    work.check()  # the progress function may have doomed the block
                    work.dirty = True
                    total += _update_batch(schema, work.channel, options, plan, batch)
                    written.add(len(batch))
        except IntegrityError as error:
            note_object(error, schema, "bulk_update", objects)
            raise
    return total


def _options(schema: Schema, fields: Iterable[Any]) -> SaveOptions:
    """Return the options for an UPDATE of *fields*, and of the version."""
    names = field_names(schema, fields, "fields")
    if not names:
        raise ValueError("bulk_update() needs at least one field")
    if schema.version is None:
        return SaveOptions(names)
    return SaveOptions(names | {schema.version.name}, checked=True)


def _check_keys(schema: Schema, objects: Sequence[Any]) -> None:
    """Raise `UnsavedError` for an object without a key, `ValueError` for two objects with the same key."""
    indexes: dict[Row, int] = {}
    for index, instance in enumerate(objects):
        if any(instance.__dict__.get(name) is None for name in schema.key_names):
            raise UnsavedError(f"object {index} of bulk_update() has no key, and an update needs one")
        key = key_row(schema, instance)
        if (first := indexes.setdefault(key, index)) != index:
            raise ValueError(
                f"object {index} of bulk_update() has the same key as object {first}: {brief(instance)}"
            )


def _check_aliases(schema: Schema, database: Database, using: str | None, objects: Sequence[Any]) -> None:
    """Raise `ValueError` for an object of another alias than *database*, unless its save would go there, too."""
    here, databases = database.alias, schema.registry.databases
    for index, instance in enumerate(objects):
        theirs = instance._row_state.alias
        if theirs is None or theirs == here:
            continue
        if databases.for_write(schema.model, schema.home, using, instance).alias != here:
            raise ValueError(
                f"object {index} of bulk_update() is of {theirs!r}, where the row with its key is another one than in "
                f"{brief(here)}; write {schema.name}.objects.using({theirs!r}).bulk_update(…) for the objects of {theirs!r}"
            )


def _groups(
    schema: Schema, work: UnitOfWork, objects: Sequence[Any], options: SaveOptions
) -> list[tuple[SavePlan, list[Planned]]]:
    """Collect and check all rows, and group them by plan and by whether they hold SQL expressions."""
    groups: dict[tuple[tuple[str, ...], type], tuple[SavePlan, list[Planned]]] = {}
    for index, instance in enumerate(objects):
        snapshot = work.snapshot(instance)
        try:
            plan, row = collect(schema, work.database, instance, options, snapshot)
        except InvalidValue as error:
            error.add_note(f"in object {index} of bulk_update()")
            raise
        planned = groups.setdefault((plan.names, row.__class__), (plan, []))[1]
        planned.append(Planned(instance, row, snapshot))
    return list(groups.values())


def _refuse_stale(schema: Schema, work: UnitOfWork, groups: Iterable[tuple[SavePlan, list[Planned]]]) -> None:
    """Lock all rows, and raise `StaleUpdate` for those that have another version than their objects, or are gone."""
    work.dirty = True
    known = [
        (each.instance, each.row[-len(schema.key) :], known_version(schema, each.instance) - 1)
        for _, planned in groups
        for each in planned
    ]
    if found := stale_among(schema, work.channel, known):
        raise stale(schema, work.channel, found)


def _update_batch(
    schema: Schema, channel: Any, options: SaveOptions, plan: SavePlan, batch: Sequence[Planned]
) -> int:
    if batch[0].row.__class__ is ExpressionRow:
        return sum(_update_expressions(schema, channel, options, plan, planned) for planned in batch)
    plans, names = plans_of(schema, channel.database), plan.names
    written = names[: -len(schema.key)]
    rows = [planned.row for planned in batch]
    if channel.database.dialect in MAX_PARAMETERS:
        count = plans.update(written).run_many(channel, rows)
    else:
        count = _update_by_cases(schema, channel, written, rows)
    existing = None if count == len(batch) else _existing_keys(schema, channel, batch)
    computed = (
        computed_rows(schema, channel, [row[len(written) :] for row in rows]) if schema.computed else {}
    )
    for instance, row, snapshot in batch:
        key = row[len(written) :]
        if existing is None or key in existing:
            values = computed.get(key, ())
            note_generated(instance, snapshot, schema.computed, values)
            known = names + schema.computed[: len(values)]
            mark_saved(schema, plans, instance, known, row + values, snapshot, channel.keep)
            instance.__dict__.update(zip(schema.computed, values, strict=False))
        else:
            restore(snapshot)
    return count


def _update_expressions(
    schema: Schema, channel: Any, options: SaveOptions, plan: SavePlan, planned: Planned
) -> bool:
    """Write one row with SQL expressions, and read their results; return whether the row exists."""
    instance, row, snapshot = planned
    try:
        write_expressions(schema, channel, instance, options, plan.names, row, snapshot)
    except NotUpdated:
        restore(snapshot)
        return False
    return True


def _update_by_cases(schema: Schema, channel: Channel, written: tuple[str, ...], rows: Sequence[Row]) -> int:
    """Write *rows*, which end in their keys, by UPDATE with CASE: MariaDB's drivers would send a statement for each."""
    fields, total = [schema.by_name[name] for name in written], 0
    for part in sliced(rows, MAX_CASES):
        keys = [row[len(fields) :] for row in part]
        single = schema.key[0].column if len(schema.key) == 1 else None
        conditions = [key[0] if single is not None else _has_key(schema, key) for key in keys]
        values = {}
        for index, field in enumerate(fields):
            type_ = field.column.type
            new = [literal(row[index], type_) for row in part]
            values[field.column] = case(*zip(conditions, new, strict=True), value=single, else_=field.column)
        statement = update(schema.table).values(values).where(schema.key_in(keys))
        total += int(channel.execute(statement).rowcount)
    return total


def _has_key(schema: Schema, key: Row) -> ColumnElement[bool]:
    return and_(*[field.column == value for field, value in zip(schema.key, key, strict=True)])


def _existing_keys(schema: Schema, channel: Channel, batch: Sequence[Planned]) -> set[Row]:
    """Return the keys of *batch* that have a row."""
    columns = [field.column for field in schema.key]
    keys = [each.row[-len(columns) :] for each in batch]
    found = current_read(channel, select(*columns).where(schema.key_in(keys)))
    return {tuple(row) for row in channel.fetch(found)}
