"""The arguments of a save: which fields it writes, and by which statement."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy.sql import ClauseElement

from microorm.db.engines.engine import Database
from microorm.errors import FieldError, UnsavedError
from microorm.mapping.schema import Schema
from microorm.messages import brief
from microorm.persistence.refresh import complete, is_own_row, load_replaced, missing
from microorm.signals import post_save


class SaveOptions:
    """The checked arguments of one call of `save()`; *checked*: an UPDATE compares the version of the row."""

    __slots__ = ("checked", "fields", "force_insert", "force_update", "raw")

    def __init__(
        self,
        fields: frozenset[str] | None = None,
        *,
        raw: bool = False,
        force_insert: bool = False,
        force_update: bool = False,
        checked: bool = False,
    ) -> None:
        self.fields = fields
        self.checked = checked
        self.raw = raw
        self.force_insert = force_insert
        self.force_update = force_update


PLAIN = SaveOptions()
INSERT = SaveOptions(force_insert=True)
CHECKED = SaveOptions(checked=True)


def options_of_partial(
    schema: Schema, database: Database, instance: Any, options: SaveOptions
) -> SaveOptions:
    """Return the options for the save of an instance with deferred fields.

    A save to the row that it was loaded from writes the other fields, as with `update_fields`. Any other save writes all
    fields, so the deferred ones are loaded here.
    """
    if post_save._connections and post_save._route(schema.model):
        load_replaced(instance)  # the row has other values when the receivers ask for the changes
    if options.fields is not None:
        complete(instance, tuple(options.fields))
        return options
    deferred = missing(instance)
    if deferred and not options.force_insert and is_own_row(schema, database, instance):
        updating = () if options.raw else [field.name for field in schema.updating]
        names = frozenset(name for name in schema.plain_names if name not in deferred or name in updating)
        if names:
            return SaveOptions(names, raw=options.raw, force_update=options.force_update)
    complete(instance)
    return options


def field_names(schema: Schema, given: Iterable[Any], argument: str = "update_fields") -> frozenset[str]:
    """Return the names of the fields *given* by name or column.

    Raises `TypeError` for a single name or column, `FieldError` for an unknown field and for the primary key.
    """
    if isinstance(given, (str, bytes, ClauseElement)):
        raise TypeError(f"{argument} must be a list of names or columns, not {brief(given)}")
    names = frozenset(schema.field(name).name for name in given)
    for field in schema.key:
        if field.name in names:
            raise FieldError(
                f"{schema.name}.{field.name} is the primary key, which an update does not change"
            )
    schema.refuse_computed(names)
    return names


def refuse_conflict(fields: frozenset[str] | None, *, force_insert: bool, force_update: bool) -> None:
    if force_insert and force_update:
        raise ValueError("force_insert and force_update contradict each other")
    if force_insert and fields is not None:
        raise ValueError("force_insert and update_fields contradict each other")


def refuse_unsaved(schema: Schema, instance: Any) -> None:
    if any(instance.__dict__.get(field.name) is None for field in schema.key):
        raise UnsavedError(f"{schema.name} has no key yet, and an update needs one")


def inserts_at_once(schema: Schema, instance: Any, options: SaveOptions) -> bool:
    """Return whether to insert a row that has a key without trying an UPDATE first."""
    if options.force_insert:
        return True
    if options.force_update or options.checked:
        return False
    return instance._row_state.adding and schema.key_has_default and not options.raw
