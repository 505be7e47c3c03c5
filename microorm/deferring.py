"""Deferring: the values that a row was loaded without, and what becomes of them (CONTRACT I11, I12).

They are read where the instance was loaded from, by the key it was loaded with, whatever its key is by now: they are
values of that row. What is loaded late counts as loaded, and a rollback takes it out again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy.sql import ClauseElement

from microorm.codegen import Row
from microorm.engines import Database
from microorm.schema import Schema
from microorm.scopes import refuse_lazy
from microorm.state import Layout, Origin, merged
from microorm.statements import plans_of
from microorm.undo import image_of, settle
from microorm.writing import Order


def missing(instance: Any) -> tuple[str, ...]:
    """The fields that *instance* was loaded without and has no value of."""
    origin, values = instance._origin, instance.__dict__
    if not origin.partial:
        return ()
    known = origin.layout.places
    return tuple(name for name in instance.__schema__.names if name not in values and name not in known)


def load_deferred(instance: Any, name: str) -> Any:
    """The value of the field *name*, loaded now; None where it was loaded once, and deleted.

    Raises `LazyLoadError` where lazy loads are refused, `Model.DoesNotExist` where the row is gone.
    """
    if name in instance._origin.layout.places:
        return None
    refuse_lazy(instance, name)
    complete(instance, (name,))
    return instance.__dict__[name]


def complete(instance: Any, names: Sequence[str] | None = None) -> None:
    """Load those of *names*, else of all fields, that *instance* was loaded without, by one statement.

    Raises `Model.DoesNotExist` where the row is gone.
    """
    lacking = missing(instance)
    wanted = lacking if names is None else tuple(name for name in lacking if name in names)
    if not wanted:
        return
    schema: Schema = instance.__schema__
    databases = schema.registry.databases
    origin = instance._origin
    database: Database = databases.for_read(schema.model, schema.home, origin.alias, instance)
    key = _loaded_key(schema, instance)
    load = plans_of(schema, database).load(schema.key_names, wanted=wanted)
    with databases.channel(database, prepared=True, writes=False) as channel:
        found = load.values(channel, key)
    if not found:
        asked = ", ".join(f"{name}={value!r}" for name, value in zip(schema.key_names, key, strict=True))
        raise schema.model.DoesNotExist(f"no {schema.name} with {asked} in {database.alias!r}")
    image = image_of(instance)
    _settle(instance, dict(zip(wanted, found[0], strict=True)), image)
    if (transaction := databases.transaction(database)) is not None:
        transaction.undo.record(image)


def complete_all(instances: Iterable[Any]) -> None:
    """Load what each of *instances* was loaded without. Raises as `complete` does."""
    for instance in instances:
        if instance._origin.partial:
            complete(instance)


def order_of_partial(schema: Schema, database: Database, instance: Any, order: Order) -> Order:
    """What a save of an instance that was loaded without some fields writes.

    To its own row the fields that it has, as if they were its `update_fields`; anywhere else all of them, so that
    those it lacks are loaded first.
    """
    lacking = missing(instance)
    if order.fields is not None:
        complete(instance, tuple(order.fields))
        return order
    if lacking and not order.force_insert and _is_own(schema, database, instance):
        made = () if order.raw else [field.name for field in schema.updating]
        names = frozenset(name for name in schema.plain_names if name not in lacking or name in made)
        if names:
            return Order(names, raw=order.raw, force_insert=False, force_update=order.force_update)
    complete(instance)
    return order


def _is_own(schema: Schema, database: Database, instance: Any) -> bool:
    """Whether *instance*, saved to *database*, would be written to the row that it was loaded from."""
    origin = instance._origin
    if origin.alias != database.alias or origin.adding:
        return False
    key = tuple(map(instance.__dict__.get, schema.key_names))
    return not any(isinstance(each, ClauseElement) for each in key) and key == _loaded_key(schema, instance)


def _loaded_key(schema: Schema, instance: Any) -> Row:
    layout, row = instance._origin.layout, instance._row
    return tuple(layout.value(row, name) for name in schema.key_names)


def _settle(instance: Any, fresh: dict[str, Any], image: Any) -> None:
    """Give *instance* the *fresh* values as loaded ones; `changes()` in a receiver of `post_save` tells none of them."""
    origin = instance._origin
    before = origin.before
    if before is not None and before[0].partial:
        earlier, row = before
        known = {name: earlier.layout.value(row, name) for name in earlier.layout.names}
        known = fresh | known
        layout = Layout(tuple(known), partial=True)
        before = (Origin(earlier.alias, layout, adding=earlier.adding), tuple(known.values()))
    loaded = merged(instance, fresh)
    settle(instance, image, fresh)
    layout = Layout(tuple(loaded), partial=True)
    instance._row = tuple(loaded.values())
    instance._origin = Origin(origin.alias, layout, adding=origin.adding, before=before)
