"""Bulk: many rows written at once, without the signals of each unless asked for (CONTRACT M)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple
from weakref import ref

from sqlalchemy import insert, select
from sqlalchemy.sql import ClauseElement

from microorm.alike import alike_of, insert_in_order
from microorm.db.connection import Channel
from microorm.db.context import note_split_write
from microorm.db.databases import Databases
from microorm.db.engine import Database
from microorm.db.snapshots import Image, restore, settle
from microorm.db.transaction import Transaction
from microorm.deferring import complete_all
from microorm.errors import InvalidValue
from microorm.fields.field import MISSING
from microorm.mapping.codegen import ExpressionRow, Row
from microorm.mapping.schema import Schema
from microorm.mapping.state import Origin, kept
from microorm.saving import settle_all_keys, tell_saved
from microorm.signals import ModelSignal, post_bulk_create, post_save, pre_bulk_create, pre_save
from microorm.sql import upsert as upserts
from microorm.sql.batches import Progress, batches, checked_objects, has_triggers, multirow_of
from microorm.sql.statements import Plans, plans_of
from microorm.sql.upsert import Upsert
from microorm.writing import INSERT, row_taker, write_row


class Wish(NamedTuple):
    """What one call of `bulk_create()` asks for besides its objects, checked; *each*: with the signals of saves."""

    batch_size: int | None
    upsert: Upsert | None
    each: bool


Planned = tuple[Any, Row, Image]
"""One object, the row to write of it, and its before-image."""


class Part(NamedTuple):
    """Rows that one statement can write: of the same *names*, and by the same way."""

    names: tuple[str, ...]
    upsert: Upsert | None
    planned: list[Planned]


def bulk_create(
    schema: Schema, database: Database, instances: Iterable[Any], wish: Wish, progress: Any = None
) -> list[Any]:
    """Insert all of *instances* or none, in few statements; they get their keys and their state."""
    objects = checked_objects(schema, "bulk_create", instances)
    told = Progress(progress, len(objects))
    if not objects:
        return objects
    settle_all_keys(schema, "bulk_create", objects)
    complete_all(objects)
    for signal in (pre_save, post_save) if wish.each else (pre_bulk_create, post_bulk_create):
        signal.refuse_waiting(schema.model)
    databases: Databases = schema.registry.databases
    if databases.transaction(database) is not None:
        _create_in_block(schema, database, objects, wish, told)
    else:
        note_split_write(databases, database.alias)
        with databases.block(database):
            _create_in_block(schema, database, objects, wish, told)
    return objects


def _create_in_block(
    schema: Schema, database: Database, objects: list[Any], wish: Wish, progress: Progress
) -> None:
    databases = schema.registry.databases
    with databases.channel(database, prepared=True, writes=True) as channel:
        if _create_alike(schema, channel, objects, wish, progress):
            return
        images: list[Image] = [(ref(each), each._origin, each._row, {}) for each in objects]
        half_way = bool((pre_save if wish.each else pre_bulk_create)._route(schema.model))
        try:
            if half_way:
                half_way = _tell_before(schema, database.alias, objects, wish)
            before = [(instance._origin, instance._row) for instance in objects if wish.each]
            parts = _parts(schema, objects, images, wish.upsert)
            for part in parts:
                for batch in batches(channel, part.planned, itemgetter(1), wish.batch_size):
                    with channel:  # which a receiver may have doomed
                        half_way = True
                        _write_batch(schema, channel, part, batch, wish.upsert)
                    progress.add(len(batch))
            _tell_after(schema, database.alias, objects, wish, before)
        except BaseException as error:
            for image in images:
                restore(image)
            if half_way:
                channel.doom(error)
            raise


def _create_alike(schema: Schema, channel: Any, objects: list[Any], wish: Wish, progress: Progress) -> bool:
    """Do all of it, if *objects* are alike and nobody is told before; else nothing, and False."""
    if wish.each or wish.upsert is not None or pre_bulk_create._route(schema.model):
        return False
    if (alike := alike_of(schema, objects)) is None:
        return False
    transaction: Transaction = channel
    try:
        for batch in batches(channel, alike.rows, tuple, wish.batch_size):
            with transaction:
                made = _insert_rows(
                    schema, plans_of(schema, transaction.database), transaction, alike.names, batch
                )
                alike.settle(transaction, batch, made)
            progress.add(len(batch))
        _tell_after(schema, transaction.database.alias, objects, wish, [])
    except BaseException as error:
        alike.restore()
        transaction.doom(error)
        raise
    return True


def _tell_before(schema: Schema, alias: str, objects: list[Any], wish: Wish) -> bool:
    """Send what comes before the SQL; whether a receiver has run."""
    if not wish.each:
        return _send(schema, alias, pre_bulk_create, objects=list(objects))
    ran = [_send(schema, alias, pre_save, instance=each, raw=False, update_fields=None) for each in objects]
    return any(ran)


def _tell_after(
    schema: Schema, alias: str, objects: list[Any], wish: Wish, before: list[tuple[Origin, Row | None]]
) -> None:
    """Send what comes after the SQL."""
    if not wish.each:
        if post_bulk_create._route(schema.model):
            _send(schema, alias, post_bulk_create, objects=list(objects))
        return
    for instance, earlier in zip(objects, before, strict=True):
        tell_saved(schema, alias, instance, INSERT, earlier, created=True)


def _send(schema: Schema, alias: str, signal: ModelSignal, **arguments: Any) -> bool:
    with schema.registry.databases.receiving(alias):
        return bool(signal.send(schema.model, using=alias, **arguments))


def _parts(schema: Schema, objects: list[Any], images: list[Image], upsert: Upsert | None) -> list[Part]:
    """What to write together, every row checked: those that have a key first, so that none is made twice."""
    alike: dict[tuple[Any, ...], Part] = {}
    met: dict[Row, int] = {}
    last: tuple[Any, ...] = ()
    part: Part | None = None
    take = row_taker(schema)
    for place, (instance, image) in enumerate(zip(objects, images, strict=True)):
        try:
            names, row = take(instance, image)
            way = None if upsert is None else _way(schema, upsert, names, row, place, met)
        except InvalidValue as error:
            error.add_note(f"in object {place} of bulk_create()")
            raise
        kind = (names, row.__class__, way)
        if part is None or kind != last:  # hardly ever, and a comparison is less than a hash
            last, part = kind, alike.setdefault(kind, Part(names, way, []))
        part.planned.append((instance, row, image))
    return sorted(alike.values(), key=lambda part: not set(schema.key_names).issubset(part.names))


def _way(
    schema: Schema, upsert: Upsert, names: tuple[str, ...], row: Row, place: int, met: dict[Row, int]
) -> Upsert | None:
    """*upsert*, or None for a row that cannot meet another. `ValueError` for one that meets an earlier one.

    *met* has the values of the unique fields that were there before.
    """
    if not names:
        return None
    values = dict(zip(names, row, strict=True))
    unique = tuple([values.get(name) for name in upsert.unique])
    for name, value in zip(upsert.unique, unique, strict=True):
        if isinstance(value, ClauseElement):
            raise InvalidValue(schema.name, {name: "is a unique field, and wants a value, not an expression"})
    if None in unique:
        return None
    if upsert.updates and (first := met.setdefault(unique, place)) != place:
        declared = [schema.reported[name] for name in upsert.unique]
        shown = ", ".join(f"{name}={value!r}" for name, value in zip(declared, unique, strict=True))
        raise ValueError(f"object {place} of bulk_create() has the {shown} of object {first}")
    return upsert


def _write_batch(
    schema: Schema, channel: Any, part: Part, batch: Sequence[Planned], asked: Upsert | None
) -> None:
    transaction: Transaction = channel
    names = part.names
    if part.upsert is not None:
        _upsert_batch(schema, transaction, part.upsert, names, batch)
    elif batch[0][1].__class__ is ExpressionRow:
        for instance, row, image in batch:
            write_row(schema, transaction, instance, INSERT, names, row, image)
    else:
        _insert_batch(schema, transaction, names, batch)
    if asked is not None and not asked.updates:
        # Nobody knows which rows were inserted, so no instance claims anything.
        for _, _, image in batch:
            restore(image)
        return
    transaction.undo.record_all([image for _, _, image in batch])


def _insert_batch(
    schema: Schema, transaction: Transaction, names: tuple[str, ...], batch: Sequence[Planned]
) -> None:
    plans = plans_of(schema, transaction.database)
    made_names = plans.insert(names).made_names
    made = _insert_rows(schema, plans, transaction, names, [row for _, row, _ in batch])
    origin = plans.origin(names + made_names)
    fields = [schema.by_name[name] for name in names + made_names]
    (name,) = made_names if len(made_names) == 1 else (None,)
    for (instance, row, image), new in zip(batch, made, strict=True):
        if name is not None:  # as `settle` does
            values, (value,) = instance.__dict__, new
            image[3][name] = (values.get(name, MISSING), value)
            values[name] = value
        elif new:
            settle(instance, image, dict(zip(made_names, new, strict=True)))
        instance._row = kept(fields, row + new) if schema.mutable else row + new
        instance._origin = origin


def _upsert_batch(
    schema: Schema, channel: Channel, upsert: Upsert, names: tuple[str, ...], batch: Sequence[Planned]
) -> None:
    """Insert or update; what an instance does not know of its row is read back."""
    upserts.run(schema, channel, upsert, names, [row for _, row, _ in batch])
    if not upsert.updates:
        return
    expressions = batch[0][1].__class__ is ExpressionRow
    written = () if expressions else upsert.updated(schema, names)
    known = [name for name in names if name in (*upsert.unique, *written)]
    unknown = tuple(name for name in schema.names if name not in known)
    places = [names.index(name) for name in upsert.unique]
    wanted = [tuple([row[place] for place in places]) for _, row, _ in batch]
    found = upserts.rows_of(schema, channel, upsert.unique, wanted, unknown) if unknown else {}
    origin = plans_of(schema, channel.database).origin((*known, *unknown))
    fields = [schema.by_name[name] for name in (*known, *unknown)]
    places = [names.index(name) for name in known]
    for (instance, row, image), unique in zip(batch, wanted, strict=True):
        new = found.get(unique, ())
        settle(instance, image, dict(zip(unknown, new, strict=True)))
        instance._row = kept(fields, (*[row[place] for place in places], *new))
        instance._origin = origin


def _insert_rows(
    schema: Schema, plans: Plans, channel: Channel, names: tuple[str, ...], rows: Sequence[Row]
) -> Sequence[Row]:
    """Insert *rows*; returns for each what the database made, in order."""
    if (multirow := multirow_of(schema, plans, channel, names)) is not None:
        return multirow.insert(channel, rows)
    prepared = plans.insert(names)
    if not prepared.made:
        prepared.run_many(channel, rows)
        return [()] * len(rows)
    if channel.database.is_sqlite and schema.generated in prepared.made and not has_triggers(schema, channel):
        return _insert_numbered(schema, plans, channel, names, rows)
    columns = [schema.by_name[name].column for name in names]
    statement = insert(schema.table).returning(
        *[f.column for f in prepared.made], sort_by_parameter_order=True
    )
    parameters = [{column.key: value for column, value in zip(columns, row, strict=True)} for row in rows]
    return [tuple(each) for each in channel.execute(statement, parameters)]


def _insert_numbered(
    schema: Schema, plans: Plans, channel: Channel, names: tuple[str, ...], rows: Sequence[Row]
) -> Sequence[Row]:
    """SQLite numbers rows one after another, and nobody else writes while this transaction does."""
    insert_in_order(schema, channel, names, rows)
    last = channel.connection.exec_driver_sql("SELECT last_insert_rowid()").scalar_one()
    first, key = last - len(rows) + 1, schema.key[0].column
    made = plans.insert(names).made
    if made == list(schema.key):
        return [(number,) for number in range(first, last + 1)]
    statement = select(*[f.column for f in made]).where(key.between(first, last)).order_by(key)
    return [tuple(each) for each in channel.execute(statement)]
