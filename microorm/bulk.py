"""Bulk: many rows written at once, without the signals of each (CONTRACT M)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import insert, select

from microorm.channels import Channel
from microorm.codegen import ExpressionRow, Row
from microorm.databases import Databases
from microorm.engines import Database
from microorm.errors import InvalidValue
from microorm.schema import Schema
from microorm.scopes import note_split_write
from microorm.signals import post_bulk_create, pre_bulk_create
from microorm.state import kept
from microorm.statements import Plans, plans_of
from microorm.transactions import Transaction
from microorm.undo import Image, image_of, restore, settle
from microorm.writing import INSERT, row_to_write, write_row

Planned = tuple[Any, Row, Image]


def bulk_create(
    schema: Schema, database: Database, instances: Iterable[Any], *, batch_size: int | None = None
) -> list[Any]:
    """Insert all of *instances* or none, in few statements; they get their keys and their state."""
    objects = list(instances)
    places: dict[int, int] = {}
    for place, instance in enumerate(objects):
        if type(instance) is not schema.model:
            raise TypeError(
                f"bulk_create() of {schema.name} wants its instances, not {type(instance).__name__}"
            )
        if (first := places.setdefault(id(instance), place)) != place:
            raise ValueError(f"object {place} of bulk_create() is object {first} again")
    if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
        raise ValueError(f"batch_size= wants a positive int, not {batch_size!r}")
    if not objects:
        return objects
    pre_bulk_create.refuse_waiting(schema.model)
    post_bulk_create.refuse_waiting(schema.model)
    databases: Databases = schema.registry.databases
    if databases.transaction(database) is not None:
        _create_in_block(schema, database, objects, batch_size)
    else:
        note_split_write(databases, database.alias)
        with databases.block(database):
            _create_in_block(schema, database, objects, batch_size)
    return objects


def _create_in_block(schema: Schema, database: Database, objects: list[Any], batch_size: int | None) -> None:
    databases, model, alias = schema.registry.databases, schema.model, database.alias
    with databases.channel(database, prepared=True, writes=True) as channel:
        images = {id(instance): image_of(instance) for instance in objects}
        half_way = bool(pre_bulk_create._route(model))
        try:
            if half_way:
                with databases.receiving(alias):
                    half_way = bool(pre_bulk_create.send(model, objects=list(objects), using=alias))
            batches = _batches(schema, objects, images, batch_size)
            with channel:  # which a receiver may have doomed
                half_way = True
                for names, batch in batches:
                    _insert_batch(schema, channel, names, batch)
            if post_bulk_create._route(model):
                with databases.receiving(alias):
                    post_bulk_create.send(model, objects=list(objects), using=alias)
        except BaseException as error:
            for image in images.values():
                restore(image)
            if half_way:
                channel.doom(error)
            raise


def _batches(
    schema: Schema, objects: list[Any], images: dict[int, Image], batch_size: int | None
) -> list[tuple[tuple[str, ...], list[Planned]]]:
    """What to insert together, every row checked: those that have a key first, so that none is made twice."""
    alike: dict[tuple[tuple[str, ...], type], list[Planned]] = {}
    for place, instance in enumerate(objects):
        image = images[id(instance)]
        try:
            names, row = row_to_write(schema, instance, INSERT, image)
        except InvalidValue as error:
            error.add_note(f"in object {place} of bulk_create()")
            raise
        alike.setdefault((names, row.__class__), []).append((instance, row, image))
    batches = []
    for shape in sorted(alike, key=lambda shape: not set(schema.key_names).issubset(shape[0])):
        planned = alike[shape]
        size = batch_size or len(planned)
        batches += [(shape[0], planned[start : start + size]) for start in range(0, len(planned), size)]
    return batches


def _insert_batch(schema: Schema, channel: Any, names: tuple[str, ...], batch: Sequence[Planned]) -> None:
    transaction: Transaction = channel
    if batch[0][1].__class__ is ExpressionRow:
        for instance, row, image in batch:
            write_row(schema, transaction, instance, INSERT, names, row, image)
            transaction.undo.record(image)
        return
    plans = plans_of(schema, transaction.database)
    made_names = plans.insert(names).made_names
    made = _insert_rows(schema, plans, transaction, names, [row for _, row, _ in batch])
    origin = plans.origin(names + made_names)
    fields = [schema.by_name[name] for name in names + made_names]
    for (instance, row, image), new in zip(batch, made, strict=True):
        if new:
            settle(instance, image, dict(zip(made_names, new, strict=True)))
            row = row + new
        instance._row = kept(fields, row) if schema.mutable else row
        instance._origin = origin
        transaction.undo.record(image)


def _insert_rows(
    schema: Schema, plans: Plans, channel: Channel, names: tuple[str, ...], rows: list[Row]
) -> Sequence[Row]:
    """Insert *rows*; returns for each what the database made, in order."""
    prepared = plans.insert(names)
    if not prepared.made:
        prepared.run_many(channel, rows)
        return [()] * len(rows)
    if channel.database.is_sqlite and schema.generated in prepared.made:
        return _insert_numbered(schema, plans, channel, names, rows)
    columns = [schema.by_name[name].column for name in names]
    statement = insert(schema.table).returning(
        *[f.column for f in prepared.made], sort_by_parameter_order=True
    )
    parameters = [{column.key: value for column, value in zip(columns, row, strict=True)} for row in rows]
    return [tuple(each) for each in channel.execute(statement, parameters)]


def _insert_numbered(
    schema: Schema, plans: Plans, channel: Channel, names: tuple[str, ...], rows: list[Row]
) -> Sequence[Row]:
    """SQLite numbers rows one after another, and nobody else writes while this transaction does."""
    plans.insert_only(names).run_many(channel, rows)
    last = channel.connection.exec_driver_sql("SELECT last_insert_rowid()").scalar_one()
    first, key = last - len(rows) + 1, schema.key[0].column
    made = plans.insert(names).made
    if made == list(schema.key):
        return [(number,) for number in range(first, last + 1)]
    statement = select(*[f.column for f in made]).where(key.between(first, last)).order_by(key)
    return [tuple(each) for each in channel.execute(statement)]
