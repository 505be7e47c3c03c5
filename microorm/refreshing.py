"""Refreshing: an instance takes its values from its row again (CONTRACT I20)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy.sql import ClauseElement

from microorm.errors import UnsavedError
from microorm.fields import MISSING
from microorm.query import Query
from microorm.schema import Schema
from microorm.state import Layout, Origin, loaded_value


def refresh(instance: Any, using: str | None, fields: Iterable[Any] | None) -> None:
    """Load all values, or those of *fields*, from the row; what is not loaded keeps its loaded state, too."""
    schema: Schema = instance.__schema__
    if instance.pk is None:
        raise UnsavedError(f"{schema.name} has no key, and a refresh needs one")
    if isinstance(fields, (str, bytes, ClauseElement)):
        raise TypeError(f"fields wants a list of names or columns, not {fields!r}")
    names = schema.names if fields is None else tuple(schema.field(name).name for name in fields)
    query: Query[Any] = Query(schema.model)
    if (alias := using or instance._origin.alias) is not None:
        query = query.using(alias)
    fresh = query.get(pk=instance.pk)
    row = [(name, loaded_value(fresh if name in names else instance, name)) for name in schema.names]
    known = [(name, value) for name, value in row if value is not MISSING]
    instance._row = tuple(value for _, value in known)
    instance._origin = Origin(fresh._origin.alias, Layout(tuple(name for name, _ in known)))
    for name in names:
        instance.__dict__[name] = fresh.__dict__[name]
