"""Hydration: rows become instances.

A function that is generated for the model does it, or, where `pre_init` or `post_init` have receivers, a loop that sends them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ARRAY, Float, Numeric

from microorm.db.engine import Database
from microorm.fields.field import Field
from microorm.mapping.codegen import Row, builder
from microorm.mapping.schema import Schema
from microorm.mapping.state import RowLayout, RowState, copied_row
from microorm.signals import post_init, pre_init

Decoders = tuple[Callable[[Any], Any] | None, ...]
Build = Callable[[Sequence[Any], RowState], list[Any]]

MAX_SUBSETS = 64
"""How many builders for parts of the fields are kept for one model."""

# PostgreSQL's numbers for the types of a number and of an array of them.
_CODES = {Numeric: (1700, 1231), Float: (701, 1022)}


class Hydrator:
    """Makes values, or instances, of the rows of one model in one database; *wanted*: the fields in a row, by default all."""

    __slots__ = ("_alias", "_decoders", "_row_state", "_schema", "build", "fields", "wanted")

    def __init__(self, schema: Schema, database: Database, wanted: tuple[str, ...] | None = None) -> None:
        self._schema = schema
        self.wanted = wanted
        self.fields = fields_of(schema, wanted)
        self._decoders = decoders_of(self.fields, database.engine.dialect)
        # The builder copies a mutable value that the driver itself has decoded, so it is not decoded once more.
        self.build = builder(schema.model, self.fields, self._decoders, raw=True)
        names = schema.names if wanted is None else wanted
        self._alias = database.alias
        self._row_state = RowState(
            database.alias, RowLayout(names, self._decoders, partial=wanted is not None)
        )

    def values(self, rows: Sequence[Row]) -> list[Row]:
        """Return the values of the driver's *rows*, decoded."""
        return [decode_row(row, self._decoders) for row in rows]

    def instances(self, rows: Sequence[Row]) -> list[Any]:
        """Return the instances of the driver's *rows*. Each keeps its row as its loaded state."""
        if pre_init._connections or post_init._connections:
            return _hydrate_with_signals(self._schema, self.values(rows), self._alias, self.wanted)
        return self.build(rows, self._row_state)


def decode_row(row: Row, decoders: Decoders) -> Row:
    """Return the values of the driver's *row*."""
    return tuple(
        value if decode is None else decode(value) for value, decode in zip(row, decoders, strict=True)
    )


def hydrate(
    schema: Schema, rows: Sequence[Any], alias: str, wanted: tuple[str, ...] | None = None
) -> list[Any]:
    """Return the instances of *rows* that SQLAlchemy has decoded; *wanted*: the fields in a row, by default all."""
    if pre_init._connections or post_init._connections:
        return _hydrate_with_signals(schema, rows, alias, wanted)
    layout, build = builder_of(schema, wanted)
    return build(rows, RowState(alias, layout))


def fields_of(schema: Schema, wanted: tuple[str, ...] | None) -> tuple[Field[Any], ...]:
    """Return the fields *wanted*, by default all."""
    return schema.fields if wanted is None else tuple(schema.by_name[name] for name in wanted)


def builder_of(schema: Schema, wanted: tuple[str, ...] | None = None) -> tuple[RowLayout, Build]:
    """Return the layout of decoded rows of the fields *wanted*, and the function that makes instances of them.

    It is generated once for a model and a set of fields.
    """
    made: tuple[RowLayout, Build] | None = schema.builders.get(wanted)
    if made is None:
        if len(schema.builders) >= MAX_SUBSETS:
            schema.builders.clear()
        fields = fields_of(schema, wanted)
        layout = schema.layout if wanted is None else RowLayout(wanted, partial=True)
        made = (layout, builder(schema.model, fields, [None] * len(fields), raw=False))
        schema.builders[wanted] = made
    return made


def _hydrate_with_signals(
    schema: Schema, rows: Sequence[Any], alias: str, wanted: tuple[str, ...] | None
) -> list[Any]:
    """Return the instances of decoded *rows*; `pre_init` and `post_init` are sent for each."""
    layout, _ = builder_of(schema, wanted)
    fields, state, model, instances = fields_of(schema, wanted), RowState(alias, layout), schema.model, []
    for row in rows:
        values = dict(zip(layout.names, row, strict=True))
        pre_init.send(model, args=(), kwargs=values)
        instance = object.__new__(model)
        instance.__dict__ = values
        instance._related = None
        instance._row = copied_row(fields, tuple(row)) if schema.mutable else tuple(row)
        instance._row_state = state
        post_init.send(model, instance=instance)
        instances.append(instance)
    return instances


def decoders_of(fields: Sequence[Field[Any]], dialect: Any) -> Decoders:
    """Return a function for each of *fields* that converts the driver's value; None where no conversion is needed."""
    return tuple(_decoder(each.column.type, dialect) for each in fields)


def _decoder(kind: Any, dialect: Any) -> Callable[[Any], Any] | None:
    implementation = kind.dialect_impl(dialect)
    code = None
    if dialect.name == "postgresql":
        # psycopg returns Decimal or float, and SQLAlchemy decides by the type that the server names.
        stored = getattr(implementation, "impl_instance", implementation)
        number = stored.item_type if isinstance(stored, ARRAY) else stored
        code = next((c[stored is not number] for kind, c in _CODES.items() if isinstance(number, kind)), None)
    decode: Callable[[Any], Any] | None = implementation.result_processor(dialect, code)
    return decode
