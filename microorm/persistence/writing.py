"""Writing: the SQL of one save, and what it makes of the instance (CONTRACT I)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.sql import ClauseElement

from microorm.db.connection import Channel
from microorm.db.snapshots import Image, settle
from microorm.errors import InvalidValue, NotUpdated
from microorm.mapping.codegen import ExpressionRow, Row
from microorm.mapping.path import refuse_foreign
from microorm.mapping.schema import Schema
from microorm.mapping.state import kept
from microorm.sql.statements import Plans, given, plans_of


class Order:
    """What one call of `save()` asks for, its arguments checked."""

    __slots__ = ("fields", "force_insert", "force_update", "raw")

    def __init__(
        self, fields: frozenset[str] | None, *, raw: bool, force_insert: bool, force_update: bool
    ) -> None:
        self.fields = fields
        self.raw = raw
        self.force_insert = force_insert
        self.force_update = force_update


PLAIN = Order(None, raw=False, force_insert=False, force_update=False)
INSERT = Order(None, raw=False, force_insert=True, force_update=False)


def row_to_write(schema: Schema, instance: Any, order: Order, image: Image) -> tuple[tuple[str, ...], Row]:
    """The names to write and their values, checked; the key comes last where there is one.

    `on_update` values are put into the instance first. Raises `InvalidValue`.
    """
    values = instance.__dict__
    if schema.updating and not order.raw:
        wanted = [f for f in schema.updating if order.fields is None or f.name in order.fields]
        settle(instance, image, {f.name: f.on_update() for f in wanted if f.on_update is not None})
    if order.fields is not None:
        names = (*(n for n in schema.plain_names if n in order.fields), *schema.key_names)
    else:
        generated = schema.key[0]
        keyless = generated.generated and values.get(generated.name) is None
        names = schema.plain_names if keyless else schema.written_names
        if schema.server_made:
            names = given(schema, names, values)
    row = schema.collector(names)(values)
    if row.__class__ is ExpressionRow:
        for name in schema.key_names:
            if isinstance(values.get(name), ClauseElement):
                problem = "is the primary key, and wants a value, not an expression"
                raise InvalidValue(schema.name, {name: problem})
        for value in row:
            if isinstance(value, ClauseElement):
                refuse_foreign(schema, value)
    return names, row


def row_taker(schema: Schema) -> Callable[[Any, Image], tuple[tuple[str, ...], Row]]:
    """A function that does for many new instances what `row_to_write` does for one, and asks what they share once."""

    def careful(instance: Any, image: Image) -> tuple[tuple[str, ...], Row]:
        return row_to_write(schema, instance, INSERT, image)

    if schema.updating or schema.server_made:
        return careful
    names, plain_names, key = schema.written_names, schema.plain_names, schema.key[0]
    collect, collect_plain = schema.collector(names), schema.collector(plain_names)
    generated = key.name if key.generated else None

    def take(instance: Any, image: Image) -> tuple[tuple[str, ...], Row]:
        values = instance.__dict__
        if generated is not None and values.get(generated) is None:
            taken = plain_names, collect_plain(values)
        else:
            taken = names, collect(values)
        return taken if taken[1].__class__ is tuple else careful(instance, image)

    return take


def write_row(
    schema: Schema,
    channel: Channel,
    instance: Any,
    order: Order,
    names: tuple[str, ...],
    row: Row,
    image: Image,
) -> bool:
    """Send the SQL that CONTRACT I asks for, and settle what it made of the instance; True for an INSERT."""
    plans = plans_of(schema, channel.database)
    if row.__class__ is ExpressionRow:
        return _write_expressions(schema, channel, instance, order, names, row, image)
    if order.fields is not None:
        if not _update(schema, plans, channel, names, row):
            raise _not_updated(schema, row, channel)
        settle_some(schema, plans, instance, names, row)
        return False
    created = _inserts(schema, instance, order, names)
    if not created and not _update(schema, plans, channel, names, row):
        if order.force_update:
            raise _not_updated(schema, row, channel)
        created = True
    if created:
        plan = plans.insert(names)
        if made := plan.insert(channel, row):
            made_names = plan.made_names
            settle(instance, image, dict(zip(made_names, made, strict=True)))
            names, row = names + made_names, row + made
    instance._row = kept([schema.by_name[n] for n in names], row) if schema.mutable else row
    instance._origin = plans.origin(names)
    return created


def _inserts(schema: Schema, instance: Any, order: Order, names: tuple[str, ...]) -> bool:
    """Whether to INSERT at once, without trying an UPDATE first (CONTRACT I1–I4, I13)."""
    if order.force_insert:
        return True
    if order.force_update:
        return False
    if names[-len(schema.key) :] != schema.key_names:
        return True
    return instance._origin.adding and schema.key_has_default and not order.raw


def _update(schema: Schema, plans: Plans, channel: Channel, names: tuple[str, ...], row: Row) -> bool:
    """UPDATE by key; whether there was such a row. Of a model that is all key, only ask (CONTRACT I15)."""
    written = names[: -len(schema.key)]
    if not written:
        return bool(plans.exists().run(channel, row).fetchall()[0][0])
    return bool(plans.update(written).run(channel, row).rowcount)


def settle_some(schema: Schema, plans: Plans, instance: Any, names: tuple[str, ...], row: Row) -> None:
    """Take *row* as loaded for *names*; the other fields stay as they were loaded, if they were."""
    loaded = dict(zip(names, kept([schema.by_name[n] for n in names], row), strict=True))
    layout, known = instance._origin.layout, instance._row
    for name in () if known is None else layout.names:
        if name not in loaded:
            loaded[name] = layout.value(known, name)
    instance._row = tuple(loaded.values())
    instance._origin = plans.origin(tuple(loaded), partial=instance._origin.partial)


def _write_expressions(
    schema: Schema,
    channel: Channel,
    instance: Any,
    order: Order,
    names: tuple[str, ...],
    row: Row,
    image: Image,
) -> bool:
    """Save values of which some are SQL expressions; what they came to is read back into the instance."""
    values = dict(zip(names, row, strict=True))
    asked = [name for name, value in values.items() if isinstance(value, ClauseElement)]
    columns = {schema.by_name[name].column: value for name, value in values.items()}
    key = {field.column: values.get(field.name) for field in schema.key}
    created = order.fields is None and _inserts(schema, instance, order, names)
    if not created:
        written = {column: value for column, value in columns.items() if column not in key}
        conditions = [column == value for column, value in key.items()]
        if not channel.execute(update(schema.table).values(written).where(*conditions)).rowcount:
            if order.fields is not None or order.force_update:
                raise _not_updated(schema, row, channel)
            created = True
    if created:
        done = channel.execute(insert(schema.table).values(columns))
        key = dict(zip(schema.table.primary_key.columns, done.inserted_primary_key or (), strict=True))
    wanted = [f for f in schema.fields if f.name in asked or (created and f.name not in values)]
    found = channel.execute(
        select(*[f.column for f in wanted]).where(*[column == value for column, value in key.items()])
    ).one()
    made = dict(zip([f.name for f in wanted], found, strict=True))
    settle(instance, image, made)
    values.update(made)
    settle_some(schema, plans_of(schema, channel.database), instance, tuple(values), tuple(values.values()))
    return created


def _not_updated(schema: Schema, row: Row, channel: Channel) -> NotUpdated:
    key = row[-len(schema.key) :]
    shown = ", ".join(f"{f.name}={value!r}" for f, value in zip(schema.key, key, strict=True))
    error: NotUpdated = schema.model.NotUpdated(
        f"{schema.name} with {shown} is not in {channel.database.alias!r}"
    )
    return error
