"""Hydration: rows become instances.

A function that is generated for the model does it, or, where `pre_init` or `post_init` have receivers, a loop that sends them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ARRAY, Executable, Float, Numeric
from sqlalchemy.exc import SQLAlchemyError

from microorm.db.connection import Channel
from microorm.db.engines.engine import Database
from microorm.errors import InvalidValue
from microorm.fields.checks import shown
from microorm.fields.field import Field
from microorm.mapping.codegen import Row, builder
from microorm.mapping.schema import Schema
from microorm.mapping.state import RowLayout, RowState, copied_row
from microorm.signals import post_init, pre_init

Decoders = tuple[Callable[[Any], Any] | None, ...]
Build = Callable[[Sequence[Any], RowState], list[Any]]
Entry = tuple[object, Schema, Field[Any]] | None
"""What a value in a row is: a field, its schema, and what rows of the same schema differ in; None for an expression."""

MAX_SUBSETS = 64
"""How many builders for parts of the fields are kept for one model."""

# PostgreSQL's numbers for the types of a number and of an array of them.
_CODES = {Numeric: (1700, 1231), Float: (701, 1022)}


class Hydrator:
    """Makes values, or instances, of the rows of one model in one database; *wanted*: the fields in a row, by default all."""

    __slots__ = ("_alias", "_decoders", "_entries", "_row_state", "_schema", "build", "fields", "wanted")

    def __init__(self, schema: Schema, database: Database, wanted: tuple[str, ...] | None = None) -> None:
        self._schema = schema
        self.wanted = wanted
        self.fields = fields_of(schema, wanted)
        self._decoders = decoders_of(self.fields, database.engine.dialect)
        # The builder copies a mutable value that the driver itself has decoded, so it is not decoded once more.
        self._entries = entries_of(schema, self.fields)
        explained = self._explained if any(self._decoders) else None
        self.build = builder(schema.model, self.fields, self._decoders, raw=True, explained=explained)
        names = schema.names if wanted is None else wanted
        self._alias = database.row_alias
        self._row_state = RowState(
            database.row_alias, RowLayout(names, self._decoders, partial=wanted is not None)
        )

    def values(self, rows: Sequence[Row]) -> list[Row]:
        """Return the values of the driver's *rows*, decoded. Raises `InvalidValue`."""
        return read_rows(rows, self._entries, self._decoders)

    @property
    def entries(self) -> Sequence[Entry]:
        """What the values of a row are."""
        return self._entries

    def _explained(self, error: Exception, row: Row) -> Exception:
        return explained(error, row, self._entries, self._decoders)

    def instances(self, rows: Sequence[Row]) -> list[Any]:
        """Return the instances of the driver's *rows*. Each keeps its row as its loaded state."""
        if pre_init._connections or post_init._connections:
            return _hydrate_with_signals(self._schema, self.values(rows), self._alias, self.wanted)
        return self.build(rows, self._row_state)


def entries_of(schema: Schema, fields: Sequence[Field[Any]], group: object = None) -> list[Entry]:
    """Return what the values of a row of *fields* are."""
    return [(group, schema, field) for field in fields]


def read_rows(rows: Sequence[Row], entries: Sequence[Entry], decoders: Decoders) -> list[Row]:
    """Return the values of the driver's *rows*, decoded. Raises `InvalidValue`."""
    row: Row = ()
    found = []
    try:
        for row in rows:
            found.append(decode_row(row, decoders))
    except Exception as error:
        raise explained(error, row, entries, decoders) from error
    return found


def fetched(
    channel: Channel, statement: Executable, entries: Sequence[Entry], parameters: Any = None
) -> Sequence[Any]:
    """Return SQLAlchemy's rows of the SELECT *statement*, whose columns are *entries*.

    Raises `InvalidValue` for a value that a field cannot hold. SQLAlchemy does not say which it was, so the driver's rows
    are read once more then.
    """
    try:
        return channel.fetch(statement, parameters)
    except SQLAlchemyError:
        raise
    except Exception as error:
        decoded(channel, statement, entries, parameters)
        raise error from None


def decoded(
    channel: Channel, statement: Executable, entries: Sequence[Entry], parameters: Any = None
) -> list[Row]:
    """Return the rows of *statement*, which is sent once, whose columns are *entries*. Raises `InvalidValue`."""
    kinds = [None if entry is None else entry[2].column.type for entry in entries]
    dialect = channel.database.engine.dialect
    decoders = tuple([None if kind is None else _decoder(kind, dialect) for kind in kinds])
    cursor: Any = channel.execute(statement, parameters).cursor
    return read_rows(cursor.fetchall(), entries, decoders)


def explained(error: Exception, row: Row, entries: Sequence[Entry], decoders: Decoders) -> Exception:
    """Return an `InvalidValue` that names the value in the driver's *row* that cannot be decoded, else *error*."""
    for entry, value, decode in zip(entries, row, decoders, strict=True):
        if entry is None or decode is None:
            continue
        try:
            decode(value)
        except Exception:  # noqa: BLE001 whatever a column type raises
            group, schema, field = entry
            key = [
                f"{each[2].name}={each_value!r}"
                for each, each_value in zip(entries, row, strict=True)
                if each is not None and each[0] is group and each[2].primary_key
            ]
            where = f", in the row with {', '.join(key)}" if key else ", in a row of the table"
            problem = f"must be {field.check.expected}, not {shown(value)}{where}"
            return InvalidValue(schema.name, {field.name: problem})
    return error


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
