"""Deleting: the order in which a delete happens (DESIGN 4, CONTRACT J)."""

from __future__ import annotations

from typing import Any

from microorm.engines import Database
from microorm.errors import CommitOutcomeUnknown, UnsavedError
from microorm.schema import Schema
from microorm.signals import post_delete, pre_delete
from microorm.statements import plans_of
from microorm.transactions import note_split_write
from microorm.undo import image_of, restore, settle

Counts = tuple[int, dict[str, int]]


def delete(instance: Any, *, using: str | None = None) -> Counts:
    """Delete the row of *instance* from the alias that the routing picks; all of it happens or nothing."""
    schema: Schema = instance.__schema__
    if any(instance.__dict__.get(name) is None for name in schema.key_names):
        raise UnsavedError(f"{schema.name} has no key, and a delete needs one")
    databases = schema.registry.databases
    database: Database = databases.for_write(schema.model, schema.home, using, instance)
    return delete_all(schema, database, [instance], instance)


def heard(schema: Schema) -> bool:
    """Whether anybody is told of deleted rows, so that they have to be fetched."""
    return bool(pre_delete._route(schema.model) or post_delete._route(schema.model))


def delete_all(schema: Schema, database: Database, instances: list[Any], origin: Any) -> Counts:
    """Delete *instances*, each with its signals, in one transaction; *origin* is what `delete()` was called on."""
    databases, model = schema.registry.databases, schema.model
    pre_delete.refuse_waiting(model)
    post_delete.refuse_waiting(model)
    alone = databases.transaction(database) is None
    if alone and (len(instances) > 1 or pre_delete.immediate(model) or post_delete.immediate(model)):
        note_split_write(databases, database.alias)
        with databases.block(database):
            return _delete_telling(schema, database, instances, origin)
    return _delete_telling(schema, database, instances, origin)


def _delete_telling(schema: Schema, database: Database, instances: list[Any], origin: Any) -> Counts:
    databases, model, alias = schema.registry.databases, schema.model, database.alias
    alone = databases.transaction(database) is None
    images = [image_of(instance) for instance in instances]
    statement = plans_of(schema, database).delete()
    before, after = bool(pre_delete._route(model)), bool(post_delete._route(model))
    total, half_way = 0, before
    try:
        with databases.channel(database, prepared=True, writes=True) as channel:
            try:
                if before:
                    with databases.receiving(alias):
                        for instance in instances:
                            pre_delete.send(model, instance=instance, using=alias, origin=origin)
                for instance in instances:
                    half_way = True
                    key = tuple(instance.__dict__[name] for name in schema.key_names)
                    total += statement.run(channel, key).rowcount
                    if after and not alone:
                        with databases.receiving(alias):
                            post_delete.send(model, instance=instance, using=alias, origin=origin)
            except BaseException as error:
                if half_way:
                    channel.doom(error)
                raise
            if not alone:
                _forget_keys(schema, instances, images)
                for image in images:
                    channel.undo.record(image)
    except CommitOutcomeUnknown:
        raise
    except BaseException:
        for image in images:
            restore(image)
        raise
    if alone:
        # Nothing but receivers that wait for the commit, and it is done.
        for instance in instances if after else ():
            post_delete.send(model, instance=instance, using=alias, origin=origin)
        _forget_keys(schema, instances, images)
    return total, ({schema.label: total} if total else {})


def _forget_keys(schema: Schema, instances: list[Any], images: list[Any]) -> None:
    """A key that the database made is None after a delete; the others stay (CONTRACT J4)."""
    if (generated := schema.generated) is not None:
        for instance, image in zip(instances, images, strict=True):
            settle(instance, image, {generated.name: None})
