"""Loading: rows made instances, by a function generated for the model, or one by one where somebody is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ARRAY, Float, Numeric

from microorm.db.engine import Database
from microorm.fields.field import Field
from microorm.mapping.codegen import Row, builder
from microorm.mapping.schema import Schema
from microorm.mapping.state import Layout, Origin, kept
from microorm.signals import post_init, pre_init

Decoders = tuple[Callable[[Any], Any] | None, ...]
Build = Callable[[Sequence[Any], Origin], list[Any]]

MOST_SUBSETS = 64

# The codes by which psycopg names what SQLAlchemy's types ask for: one number, and an array of them.
_CODES = {Numeric: (1700, 1231), Float: (701, 1022)}


class Loader:
    """What makes one database's rows of a model values, or instances; *wanted* are the fields in a row, if not all."""

    __slots__ = ("_alias", "_decoders", "_origin", "_schema", "build", "fields", "wanted")

    def __init__(self, schema: Schema, database: Database, wanted: tuple[str, ...] | None = None) -> None:
        self._schema = schema
        self.wanted = wanted
        self.fields = fields_of(schema, wanted)
        self._decoders = read_decoders(self.fields, database.engine.dialect)
        self.build = builder(schema.model, self.fields, self._decoders, raw=True)
        # A mutable value that the driver itself decodes is copied by the builder and needs no decoding again.
        names = schema.names if wanted is None else wanted
        self._alias = database.alias
        self._origin = Origin(database.alias, Layout(names, self._decoders, partial=wanted is not None))

    def values(self, rows: Sequence[Row]) -> list[Row]:
        """The values of each row, decoded."""
        return [decoded(row, self._decoders) for row in rows]

    def instances(self, rows: Sequence[Row]) -> list[Any]:
        """The instances of *rows*, which keep their row as what was loaded."""
        if pre_init._connections or post_init._connections:
            return _told(self._schema, self.values(rows), self._alias, self.wanted)
        return self.build(rows, self._origin)


def decoded(row: Row, decoders: Decoders) -> Row:
    """The values of the driver's *row*."""
    return tuple(
        value if decode is None else decode(value) for value, decode in zip(row, decoders, strict=True)
    )


def instances_of(
    schema: Schema, rows: Sequence[Any], alias: str, wanted: tuple[str, ...] | None = None
) -> list[Any]:
    """The instances of *rows* that SQLAlchemy has decoded; *wanted* are the fields in a row, if not all."""
    if pre_init._connections or post_init._connections:
        return _told(schema, rows, alias, wanted)
    layout, build = builder_of(schema, wanted)
    return build(rows, Origin(alias, layout))


def fields_of(schema: Schema, wanted: tuple[str, ...] | None) -> tuple[Field[Any], ...]:
    """The fields *wanted*, or all."""
    return schema.fields if wanted is None else tuple(schema.by_name[name] for name in wanted)


def builder_of(schema: Schema, wanted: tuple[str, ...] | None = None) -> tuple[Layout, Build]:
    """How decoded rows of the fields *wanted* are laid out, and the function that makes them instances.

    Generated once per schema and subset.
    """
    made: tuple[Layout, Build] | None = schema.builders.get(wanted)
    if made is None:
        if len(schema.builders) >= MOST_SUBSETS:
            schema.builders.clear()
        fields = fields_of(schema, wanted)
        layout = schema.layout if wanted is None else Layout(wanted, partial=True)
        made = (layout, builder(schema.model, fields, [None] * len(fields), raw=False))
        schema.builders[wanted] = made
    return made


def _told(schema: Schema, rows: Sequence[Any], alias: str, wanted: tuple[str, ...] | None) -> list[Any]:
    """Instances whose making is told by `pre_init` and `post_init` (CONTRACT G4)."""
    layout, _ = builder_of(schema, wanted)
    fields, origin, model, instances = fields_of(schema, wanted), Origin(alias, layout), schema.model, []
    for row in rows:
        values = dict(zip(layout.names, row, strict=True))
        pre_init.send(model, args=(), kwargs=values)
        instance = object.__new__(model)
        instance.__dict__ = values
        instance._row = kept(fields, tuple(row)) if schema.mutable else tuple(row)
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
