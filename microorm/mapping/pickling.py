"""Pickles of instances, also of those that hold SQL expressions and of older versions of a model."""

from __future__ import annotations

import io
import pickle
from typing import Any, NamedTuple

from sqlalchemy import Column, Table
from sqlalchemy.sql import ClauseElement

from microorm.fields.field import MISSING
from microorm.mapping.state import RowLayout, RowState, loaded_value


class PickledExpression(NamedTuple):
    """An SQL expression; its tables and columns are names, since those of another process are other objects."""

    data: bytes


class _Pickler(pickle.Pickler):
    def persistent_id(self, thing: Any) -> Any:
        """Return the name of a table or of its column; None for anything else."""
        if isinstance(thing, Table):
            return (thing.key, None)
        if isinstance(thing, Column) and isinstance(thing.table, Table):
            return (thing.table.key, thing.key)
        return None


class _Unpickler(pickle.Unpickler):
    def __init__(self, expression: PickledExpression, tables: Any) -> None:
        super().__init__(io.BytesIO(expression.data))
        self._tables = tables

    def persistent_load(self, name: Any) -> Any:
        """Return the table or column with the *name* that `persistent_id` has returned."""
        table, column = name
        return self._tables[table] if column is None else self._tables[table].c[column]


def picklable(instance: Any) -> dict[str, Any]:
    """Return the values, related rows, state and loaded values of *instance* for pickle.

    Raises `pickle.PicklingError` for an SQL expression that cannot be pickled.
    """
    loaded = None
    if instance._row is not None:
        names = instance.__schema__.names
        loaded = {name: value for name in names if (value := loaded_value(instance, name)) is not MISSING}
    state = instance._row_state
    values = {
        name: _pickled(f"{type(instance).__name__}.{name}", value)
        if isinstance(value, ClauseElement)
        else value
        for name, value in vars(instance).items()
    }
    return {
        "values": values,
        "related": instance._related,
        "alias": state.alias,
        "adding": state.adding,
        "loaded": loaded,
        "partial": state.partial,
    }


def _pickled(label: str, expression: ClauseElement) -> PickledExpression:
    stream = io.BytesIO()
    try:
        _Pickler(stream, pickle.HIGHEST_PROTOCOL).dump(expression)
    except Exception as error:
        raise pickle.PicklingError(
            f"{label} is an SQL expression that cannot be pickled: {error}; save the instance first"
        ) from error
    return PickledExpression(stream.getvalue())


def unpickle(instance: Any, state: dict[str, Any]) -> None:
    """Restore *instance* from the result of `picklable`, which an older version of its model may have made.

    A field that the pickle does not know is not loaded: it is loaded when it is read, and a save does not write it. A new
    instance gets its default.
    """
    schema, loaded = instance.__schema__, state["loaded"]
    values = {
        name: _Unpickler(value, schema.registry.metadata.tables).load()
        if isinstance(value, PickledExpression)
        else value
        for name, value in state["values"].items()
    }
    layout = None
    if loaded is None:
        for field in schema.fields:
            if field.name not in values and field.has_default:
                values[field.name] = field.new_default()
    else:
        loaded = {name: value for name, value in loaded.items() if name in schema.by_name}
        partial = state["partial"] or len(loaded) < len(schema.names)
        layout = RowLayout(tuple(loaded), partial=partial)
    instance.__dict__ = values
    instance._related = state["related"]
    instance._row = None if loaded is None else tuple(loaded.values())
    instance._row_state = RowState(state["alias"], layout, adding=state["adding"])
