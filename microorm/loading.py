"""Loading: rows made instances, by a function generated for the model, or one by one where somebody is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ARRAY, Float, Numeric

from microorm.codegen import Row, builder
from microorm.fields import Field
from microorm.schema import Schema
from microorm.signals import post_init, pre_init
from microorm.state import Layout, Origin, kept

Decoders = tuple[Callable[[Any], Any] | None, ...]

# The codes by which psycopg names what SQLAlchemy's types ask for: one number, and an array of them.
_CODES = {Numeric: (1700, 1231), Float: (701, 1022)}


class Loader:
    """What makes the driver's rows of all fields of one model values, or instances."""

    __slots__ = ("_build", "_decoders", "_layout", "_schema")

    def __init__(self, schema: Schema, dialect: Any) -> None:
        self._schema = schema
        self._decoders = read_decoders(schema.fields, dialect)
        self._build = builder(schema.model, schema.fields, self._decoders, raw=True)
        # A mutable value that the driver itself decodes is copied by the builder and needs no decoding again.
        self._layout = Layout(schema.names, self._decoders)

    def values(self, rows: Sequence[Row]) -> list[Row]:
        """The values of each row, decoded."""
        return [decoded(row, self._decoders) for row in rows]

    def instances(self, rows: Sequence[Row], alias: str) -> list[Any]:
        """The instances of *rows*, which keep their row as what was loaded."""
        if pre_init._connections or post_init._connections:
            return _told(self._schema, self.values(rows), alias)
        return self._build(rows, Origin(alias, self._layout))


def decoded(row: Row, decoders: Decoders) -> Row:
    """The values of the driver's *row*."""
    return tuple(
        value if decode is None else decode(value) for value, decode in zip(row, decoders, strict=True)
    )


def instances_of(schema: Schema, rows: Sequence[Any], alias: str) -> list[Any]:
    """The instances of *rows* that SQLAlchemy has decoded."""
    if pre_init._connections or post_init._connections:
        return _told(schema, rows, alias)
    build = builder_of(schema)
    return build(rows, Origin(alias, schema.layout))


def builder_of(schema: Schema) -> Callable[[Sequence[Any], Origin], list[Any]]:
    """The function that makes decoded rows instances, generated once per schema."""
    if not schema.builders:
        none = [None] * len(schema.fields)
        schema.builders.append(builder(schema.model, schema.fields, none, raw=False))
    build: Callable[[Sequence[Any], Origin], list[Any]] = schema.builders[0]
    return build


def _told(schema: Schema, rows: Sequence[Any], alias: str) -> list[Any]:
    """Instances whose making is told by `pre_init` and `post_init` (CONTRACT G4)."""
    origin, model, instances = Origin(alias, schema.layout), schema.model, []
    for row in rows:
        values = dict(zip(schema.names, row, strict=True))
        pre_init.send(model, args=(), kwargs=values)
        instance = object.__new__(model)
        instance.__dict__ = values
        instance._row = kept(schema.fields, tuple(row)) if schema.mutable else tuple(row)
        instance._origin = origin
        post_init.send(model, instance=instance)
        instances.append(instance)
    return instances


def read_decoders(fields: Sequence[Field[Any]], dialect: Any) -> Decoders:
    """For each field, what turns the driver's value into ours, or None."""
    return tuple(_decoder(each.column.type, dialect) for each in fields)


def _decoder(kind: Any, dialect: Any) -> Callable[[Any], Any] | None:
    implementation = kind.dialect_impl(dialect)
    code = None
    if dialect.name == "postgresql":
        # psycopg's numbers come as Decimal or float, and SQLAlchemy asks the server's type which.
        stored = getattr(implementation, "impl_instance", implementation)
        number = stored.item_type if isinstance(stored, ARRAY) else stored
        code = next((c[stored is not number] for kind, c in _CODES.items() if isinstance(number, kind)), None)
    decode: Callable[[Any], Any] | None = implementation.result_processor(dialect, code)
    return decode
