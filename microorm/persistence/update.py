"""Updating: many rows changed at once, by one statement or each by its key (DESIGN 6, CONTRACT M1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Update, and_, case, literal, select, tuple_, update

from microorm.db.connection import Channel
from microorm.db.context import note_split_write
from microorm.db.engine import Database
from microorm.db.snapshots import Image, image_of, restore
from microorm.db.transaction import Transaction
from microorm.errors import InvalidValue, NotUpdated, UnsavedError
from microorm.mapping.codegen import ExpressionRow, Row
from microorm.mapping.schema import Schema
from microorm.persistence.foreign_keys import refresh_all_foreign_keys, restored_on_failure
from microorm.persistence.refresh import complete_all
from microorm.persistence.save import field_names
from microorm.persistence.writing import Order, row_to_write, settle_some, write_row
from microorm.signals import post_update, pre_update
from microorm.sql.batches import MOST_PARAMETERS, Progress, batches, checked_objects, latest
from microorm.sql.statements import key_row, plans_of

MOST_CASES = 100
"""Of one statement, each row of which looks through them."""


class Planned(NamedTuple):
    """One object, the row to write of it, which ends in its key, and its before-image."""

    instance: Any
    row: Row
    image: Image


def update_found(
    schema: Schema, database: Database, statement: Update, query: Any, values: dict[str, Any]
) -> int:
    """Send *statement*, which sets *values* in the rows of *query*, as one unit with its signals.

    Each receiving signal has a copy of *values*, so that none is told what was not sent. Returns the number of
    rows.
    """
    databases, model = schema.registry.databases, schema.model
    pre_update.refuse_waiting(model)
    post_update.refuse_waiting(model)
    told = bool(pre_update._route(model) or post_update._route(model))
    if not told or databases.transaction(database) is not None:
        return _update(schema, database, statement, query, values)
    note_split_write(databases, database.alias)
    with databases.block(database):
        return _update(schema, database, statement, query, values)


def _update(schema: Schema, database: Database, statement: Update, query: Any, values: dict[str, Any]) -> int:
    databases, model, alias = schema.registry.databases, schema.model, database.alias
    with databases.channel(database, prepared=False, writes=True) as channel:
        try:
            if pre_update._route(model):
                with databases.receiving(alias):
                    pre_update.send(model, query=query, values=dict(values), using=alias)
                with channel:  # a receiver may have doomed it
                    pass
            count = int(channel.execute(statement).rowcount)
            if post_update._route(model):
                with databases.receiving(alias):
                    post_update.send(model, query=query, values=dict(values), using=alias, count=count)
        except BaseException as error:
            channel.doom(error)
            raise
    return count


def bulk_update(
    schema: Schema,
    database: Database,
    instances: Iterable[Any],
    fields: Iterable[Any],
    *,
    batch_size: int | None = None,
    progress: Any = None,
) -> int:
    """Write *fields* of all of *instances* by their keys, or of none; returns how many rows there were.

    An instance whose row is gone is left as it was.
    """
    names = field_names(schema, fields, "fields")
    if not names:
        raise ValueError("bulk_update() wants at least one field")
    objects = checked_objects(schema, "bulk_update", instances)
    told = Progress(progress, len(objects))
    _refuse_unfit_keys(schema, objects)
    if not objects:
        return 0
    databases = schema.registry.databases
    refreshed = refresh_all_foreign_keys(schema, "bulk_update", objects)
    with restored_on_failure(databases, refreshed):
        complete_all(objects, tuple(names))
        order = Order(names, raw=False, force_insert=False, force_update=False)
        if databases.transaction(database) is not None:
            return _update_in_block(schema, database, objects, order, batch_size, told)
        note_split_write(databases, database.alias)
        with databases.block(database):
            return _update_in_block(schema, database, objects, order, batch_size, told)


def _refuse_unfit_keys(schema: Schema, objects: Sequence[Any]) -> None:
    """Raise `UnsavedError` for an object without a key, `ValueError` for two of one row."""
    places: dict[Row, int] = {}
    for place, instance in enumerate(objects):
        if any(instance.__dict__.get(name) is None for name in schema.key_names):
            raise UnsavedError(f"object {place} of bulk_update() has no key, and an update needs one")
        key = key_row(schema, instance)
        if (first := places.setdefault(key, place)) != place:
            raise ValueError(f"object {place} of bulk_update() has the key of object {first}: {instance!r}")


def _update_in_block(
    schema: Schema,
    database: Database,
    objects: list[Any],
    order: Order,
    batch_size: int | None,
    progress: Progress,
) -> int:
    with schema.registry.databases.channel(database, prepared=True, writes=True) as channel:
        images = [image_of(instance) for instance in objects]
        total, half_way = 0, False
        try:
            for names, planned in _alike(schema, objects, order, images):
                for batch in batches(channel, planned, lambda each: each.row, batch_size):
                    with channel:  # which the caller's function may have doomed
                        half_way = True
                        total += _update_batch(schema, channel, order, names, batch)
                    progress.add(len(batch))
        except BaseException as error:
            for image in images:
                restore(image)
            if half_way:
                channel.doom(error)
            raise
    return total


def _alike(
    schema: Schema, objects: Sequence[Any], order: Order, images: Sequence[Image]
) -> list[tuple[tuple[str, ...], list[Planned]]]:
    """The objects, every row checked: those of plain values together, and those of expressions."""
    alike: dict[tuple[tuple[str, ...], type], list[Planned]] = {}
    for place, (instance, image) in enumerate(zip(objects, images, strict=True)):
        try:
            names, row = row_to_write(schema, instance, order, image)
        except InvalidValue as error:
            error.add_note(f"in object {place} of bulk_update()")
            raise
        alike.setdefault((names, row.__class__), []).append(Planned(instance, row, image))
    return [(shape[0], planned) for shape, planned in alike.items()]


def _update_batch(
    schema: Schema, channel: Any, order: Order, names: tuple[str, ...], batch: Sequence[Planned]
) -> int:
    transaction: Transaction = channel
    if batch[0].row.__class__ is ExpressionRow:
        return sum(_update_alone(schema, transaction, order, names, each) for each in batch)
    plans = plans_of(schema, transaction.database)
    written = names[: -len(schema.key)]
    rows = [each.row for each in batch]
    if transaction.database.dialect in MOST_PARAMETERS:
        count = plans.update(written).run_many(transaction, rows)
    else:
        count = _update_by_cases(schema, transaction, written, rows)
    there = None if count == len(batch) else _keys_there(schema, transaction, batch)
    for instance, row, image in batch:
        if there is None or row[len(written) :] in there:
            settle_some(schema, plans, instance, names, row)
            transaction.undo.record(image)
        else:
            restore(image)
    return count


def _update_alone(
    schema: Schema, transaction: Transaction, order: Order, names: tuple[str, ...], planned: Planned
) -> bool:
    """Write a row of expressions, and read back what they came to; whether there was such a row."""
    instance, row, image = planned
    try:
        write_row(schema, transaction, instance, order, names, row, image)
    except NotUpdated:
        restore(image)
        return False
    transaction.undo.record(image)
    return True


def _update_by_cases(schema: Schema, channel: Channel, written: tuple[str, ...], rows: Sequence[Row]) -> int:
    """Write *rows*, each of which ends in its key, some hundred by one statement.

    MariaDB's driver would send a statement for each row, and wait for each.
    """
    fields, total = [schema.by_name[name] for name in written], 0
    for start in range(0, len(rows), MOST_CASES):
        part = rows[start : start + MOST_CASES]
        keys = [row[len(fields) :] for row in part]
        one = schema.key[0].column if len(schema.key) == 1 else None
        same = [key[0] if one is not None else _same_key(schema, key) for key in keys]
        values = {}
        for place, field in enumerate(fields):
            kind = field.column.type
            new = [literal(row[place], kind) for row in part]
            values[field.column] = case(*zip(same, new, strict=True), value=one, else_=field.column)
        statement = update(schema.table).values(values).where(_among(schema, keys))
        total += int(channel.execute(statement).rowcount)
    return total


def _same_key(schema: Schema, key: Row) -> ColumnElement[bool]:
    return and_(*[field.column == value for field, value in zip(schema.key, key, strict=True)])


def _among(schema: Schema, keys: Sequence[Row]) -> ColumnElement[bool]:
    columns = [field.column for field in schema.key]
    return columns[0].in_([key[0] for key in keys]) if len(columns) == 1 else tuple_(*columns).in_(keys)


def _keys_there(schema: Schema, channel: Channel, batch: Sequence[Planned]) -> set[Row]:
    """The keys of *batch* that have a row."""
    columns = [field.column for field in schema.key]
    keys = [each.row[-len(columns) :] for each in batch]
    found = latest(channel, select(*columns).where(_among(schema, keys)))
    return {tuple(row) for row in channel.execute(found)}
