"""Deleting: the order in which a delete happens (DESIGN 4, CONTRACT J)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from microorm.engines import Database
from microorm.errors import UnsavedError
from microorm.schema import Schema
from microorm.scopes import note_split_write
from microorm.signals import post_delete, pre_delete
from microorm.statements import key_row, plans_of
from microorm.undo import Image, image_of, settle

Counts = tuple[int, dict[str, int]]
Loaded = tuple[Any, Any]  # an instance's origin and row, which a save replaces


def delete(instance: Any, *, using: str | None = None) -> Counts:
    """Delete the row of *instance* from the alias that the routing picks; all of it happens or nothing."""
    schema: Schema = instance.__schema__
    if any(instance.__dict__.get(name) is None for name in schema.key_names):
        raise UnsavedError(f"{schema.name} has no key, and a delete needs one")
    databases, model = schema.registry.databases, schema.model
    database: Database = databases.for_write(model, schema.home, using, instance)
    alone = databases.transaction(database) is None
    if not alone or pre_delete._route(model) or post_delete.immediate(model):
        return delete_found(schema, database, lambda: [instance], instance)
    refuse_waiting(schema)
    key = key_row(schema, instance)
    with databases.channel(database, prepared=True, writes=True) as channel:
        total = plans_of(schema, database).delete().run(channel, key).rowcount
    image, loaded = image_of(instance), _loaded(instance)
    try:
        if post_delete._route(model):
            # Receivers that wait for the commit, which is done.
            with databases.receiving(database.alias):
                post_delete.send(model, instance=instance, using=database.alias, origin=instance)
    finally:
        _forget_keys(schema, [instance], [image], [loaded])
    return counts(schema, total)


def heard(schema: Schema) -> bool:
    """Whether anybody is told of deleted rows, so that they have to be fetched."""
    return bool(pre_delete._route(schema.model) or post_delete._route(schema.model))


def counts(schema: Schema, total: int) -> Counts:
    """What a delete of *total* rows returns: their number, and the same by label (CONTRACT J9)."""
    return total, ({schema.label: total} if total else {})


def refuse_waiting(schema: Schema) -> None:
    """RuntimeError where a delete would have to wait for async receivers on a running event loop."""
    pre_delete.refuse_waiting(schema.model)
    post_delete.refuse_waiting(schema.model)


def delete_found(schema: Schema, database: Database, find: Callable[[], list[Any]], origin: Any) -> Counts:
    """Delete the instances that *find* gives, each with its signals, in one transaction.

    *origin* is what `delete()` was called on.
    """
    refuse_waiting(schema)
    databases = schema.registry.databases
    if databases.transaction(database) is not None:
        return counts(schema, _delete_in_block(schema, database, find(), origin))
    note_split_write(databases, database.alias)
    with databases.block(database):
        return counts(schema, _delete_in_block(schema, database, find(), origin))


def _delete_in_block(schema: Schema, database: Database, instances: list[Any], origin: Any) -> int:
    databases, model, alias = schema.registry.databases, schema.model, database.alias
    statement = plans_of(schema, database).delete()
    total, half_way, deleted = 0, False, []
    with databases.channel(database, prepared=True, writes=True) as channel:
        images = [image_of(instance) for instance in instances]
        try:
            for instance in instances if pre_delete._route(model) else ():
                half_way, before = True, half_way
                with databases.receiving(alias):
                    told = pre_delete.send(model, instance=instance, using=alias, origin=origin)
                half_way = before or bool(told)
            for instance in instances:
                key = key_row(schema, instance)
                with channel:  # which a receiver may have doomed
                    half_way = True
                    total += statement.run(channel, key).rowcount
                deleted.append(_loaded(instance))
                if post_delete._route(model):
                    with databases.receiving(alias):
                        post_delete.send(model, instance=instance, using=alias, origin=origin)
        except BaseException as error:
            if half_way:
                channel.doom(error)
            raise
        _forget_keys(schema, instances, images, deleted)
        for image in images:
            channel.undo.record(image)
    return total


def _loaded(instance: Any) -> Loaded:
    return instance._origin, instance._row


def _forget_keys(schema: Schema, instances: list[Any], images: list[Image], deleted: list[Loaded]) -> None:
    """A key that the database made is None after a delete; the others stay (CONTRACT J4).

    An instance that a receiver has saved since it was *deleted* has a row again, and keeps its key.
    """
    if (generated := schema.generated) is not None:
        for instance, image, (origin, row) in zip(instances, images, deleted, strict=True):
            if instance._origin is origin and instance._row is row:
                settle(instance, image, {generated.name: None})
