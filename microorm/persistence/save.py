"""Saving: the order in which a save happens (DESIGN 4, CONTRACT H and I).

Arguments, alias, `pre_save`, `on_update`, values checked, SQL, state, `post_save`. Whatever fails, the
instance is put back and, inside a block, the block is doomed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy.sql import ClauseElement

from microorm.db.context import Receiving, note_split_write
from microorm.db.engine import Database
from microorm.db.snapshots import Image, image_of, restore
from microorm.dispatch.receivers import EMPTY
from microorm.dispatch.signal import mutes
from microorm.errors import CommitOutcomeUnknown, FieldError, UnsavedError
from microorm.mapping.codegen import ExpressionRow, Row
from microorm.mapping.schema import Schema
from microorm.mapping.state import NOTHING, Origin
from microorm.persistence.foreign_keys import refresh_foreign_keys, restored_on_failure
from microorm.persistence.refresh import order_of_partial
from microorm.persistence.straight import save_straight
from microorm.persistence.writing import PLAIN, Order, row_to_write, write_row
from microorm.signals import post_save, pre_save

Before = tuple[Origin, Row | None]
"""Origin and loaded row of an instance as they were before a save."""


def save(
    instance: Any,
    *,
    using: str | None,
    update_fields: Iterable[Any] | None,
    raw: bool,
    force_insert: bool,
    force_update: bool,
) -> None:
    """Write *instance* to the alias that the routing picks; all of it happens or nothing."""
    schema: Schema = instance.__schema__
    if update_fields is None and not (raw or force_insert or force_update):
        order = PLAIN
    else:
        fields = None if update_fields is None else field_names(schema, update_fields)
        _refuse_conflict(fields, force_insert=force_insert, force_update=force_update)
        if fields is not None and not fields:
            return
        order = Order(fields, raw=raw, force_insert=force_insert, force_update=force_update)
    if order.force_update or order.fields is not None:
        _refuse_unsaved(schema, instance)
    refreshed = refresh_foreign_keys(schema, instance) if schema.foreign_keys and not order.raw else None
    if refreshed is None:
        _save(schema, instance, using, order)
        return
    with restored_on_failure(schema.registry.databases, [refreshed]):
        _save(schema, instance, using, order)


def _save(schema: Schema, instance: Any, using: str | None, order: Order) -> None:
    model = schema.model
    before = pre_save._route(model) if pre_save._connections else EMPTY
    after = post_save._route(model) if post_save._connections else EMPTY
    silent = not before and not after
    straight = order is PLAIN and using is None and not before and not after.asynchronous
    if straight and save_straight(schema, instance, tell_saved if after else None):
        return
    databases = schema.registry.databases
    database: Database = databases.for_write(model, schema.home, using, instance)
    if instance._origin.partial:
        order = order_of_partial(schema, database, instance, order)
    if silent:
        _save_silently(schema, database, instance, order)
    else:
        _save_telling(schema, database, instance, order)


def field_names(schema: Schema, given: Iterable[Any], argument: str = "update_fields") -> frozenset[str]:
    """The names of the fields *given* by name or column.

    Raises `TypeError` for a bare name or column, `FieldError` for what is not a field, or is the key.
    """
    if isinstance(given, (str, bytes, ClauseElement)):
        raise TypeError(f"{argument} wants a list of names or columns, not {given!r}")
    names = frozenset(schema.field(name).name for name in given)
    for field in schema.key:
        if field.name in names:
            raise FieldError(
                f"{schema.name}.{field.name} is the primary key, which an update does not change"
            )
    return names


def _refuse_conflict(fields: frozenset[str] | None, *, force_insert: bool, force_update: bool) -> None:
    if force_insert and force_update:
        raise ValueError("force_insert and force_update contradict each other")
    if force_insert and fields is not None:
        raise ValueError("force_insert and update_fields contradict each other")


def _refuse_unsaved(schema: Schema, instance: Any) -> None:
    if any(instance.__dict__.get(field.name) is None for field in schema.key):
        raise UnsavedError(f"{schema.name} has no key yet, and an update needs one")


def _save_silently(schema: Schema, database: Database, instance: Any, order: Order) -> bool:
    """Save where nobody listens: in the open block, or by one statement committed by itself."""
    databases = schema.registry.databases
    image = image_of(instance)
    try:
        names, row = row_to_write(schema, instance, order, image)
        if row.__class__ is ExpressionRow and databases.transaction(database) is None:
            # An expression is read back after it was written: two statements, so one transaction.
            note_split_write(databases, database.alias)
            with databases.block(database):
                return _write(schema, database, instance, order, names, row, image)
        return _write(schema, database, instance, order, names, row, image)
    except CommitOutcomeUnknown:
        raise
    except BaseException:
        restore(image)
        raise


def _write(
    schema: Schema,
    database: Database,
    instance: Any,
    order: Order,
    names: tuple[str, ...],
    row: Row,
    image: Image,
) -> bool:
    databases = schema.registry.databases
    alone = databases.transaction(database) is None
    with databases.channel(database, prepared=True, writes=True) as channel:
        try:
            created = write_row(schema, channel, instance, order, names, row, image)
        except BaseException as error:
            channel.doom(error)
            raise
        if not alone:
            channel.undo.record(image)
    return created


def _save_telling(schema: Schema, database: Database, instance: Any, order: Order) -> None:
    """Save with signals, as one unit: inside the open block, or else in a transaction of its own."""
    databases, model = schema.registry.databases, schema.model
    pre_save.refuse_waiting(model)
    post_save.refuse_waiting(model)
    if databases.transaction(database) is not None:
        _save_in_block(schema, database, instance, order)
    elif pre_save.immediate(model) or post_save.immediate(model):
        note_split_write(databases, database.alias)
        with databases.block(database):
            _save_in_block(schema, database, instance, order)
    else:
        # Receivers that wait for the commit have it as soon as the one statement is done.
        before = (instance._origin, instance._row)
        created = _save_silently(schema, database, instance, order)
        tell_saved(schema, database.alias, instance, order, before, created=created)


def _save_in_block(schema: Schema, database: Database, instance: Any, order: Order) -> None:
    databases, model, alias = schema.registry.databases, schema.model, database.alias
    with databases.channel(database, prepared=True, writes=True) as channel:
        image = image_of(instance)
        origin, around, half_way = image[1], image[1].before, False
        try:
            if around is not None:
                instance._origin = Origin(origin.alias, origin.layout, adding=origin.adding)
            if pre_save._route(model):
                half_way = True
                with databases.receiving(alias):
                    told = pre_save.send(
                        model,
                        instance=instance,
                        raw=order.raw,
                        using=alias,
                        update_fields=None if order.fields is None else schema.reported_names(order.fields),
                    )
                half_way = bool(told)
                if schema.foreign_keys and not order.raw:  # a receiver may have assigned an instance
                    refresh_foreign_keys(schema, instance, image)
            before = (instance._origin, instance._row)
            names, row = row_to_write(schema, instance, order, image)
            with channel:  # which a receiver may have doomed
                half_way = True
                created = write_row(schema, channel, instance, order, names, row, image)
            channel.undo.record(image)
            tell_saved(schema, alias, instance, order, before, created=created)
        except BaseException as error:
            restore(image)
            if half_way:
                channel.doom(error)
            raise
        if around is not None:
            saved = instance._origin
            instance._origin = Origin(saved.alias, saved.layout, before=around)


def tell_saved(
    schema: Schema, alias: str, instance: Any, order: Order, before: Before, *, created: bool
) -> None:
    """Send `post_save`; while its receivers run, `changes()` compares with what was there before the save."""
    model = schema.model
    if not (route := post_save._route(model)):
        return
    settled = instance._origin
    telling = settled.telling_new if before == NOTHING else None
    instance._origin = telling = telling or settled.telling(before)
    fields = None if order.fields is None else schema.reported_names(order.fields)
    scope = Receiving(schema.registry.databases, alias)
    try:
        try:
            if route.plain and not mutes():
                # As `send` does; without its calls a save that is heard costs a tenth less.
                for connection in route.sync:
                    if (receiver := connection.reference()) is not None:
                        connection.ran = True
                        receiver(
                            signal=post_save,
                            sender=model,
                            instance=instance,
                            created=created,
                            raw=order.raw,
                            using=alias,
                            update_fields=fields,
                        )
            else:
                _send_saved(model, instance, alias, fields, created=created, raw=order.raw)
        except BaseException:
            scope.close()
            raise
        scope.finish()
    finally:
        if instance._origin is telling:
            instance._origin = settled
        elif instance._origin.before is not None:
            instance._origin = Origin(instance._origin.alias, instance._origin.layout)


def _send_saved(
    model: Any, instance: Any, alias: str, fields: frozenset[str] | None, *, created: bool, raw: bool
) -> None:
    post_save.send(model, instance=instance, created=created, raw=raw, using=alias, update_fields=fields)
