"""Raw: instances by the user's own SQL."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from enum import Enum
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, bindparam, text

from microorm.db.connection import Lone
from microorm.db.engine import Database
from microorm.db.transaction import Transaction
from microorm.errors import FieldError
from microorm.fields.type_map import kind_of
from microorm.mapping.schema import Schema
from microorm.sql.statements import plans_of

# What a driver would not take, or would store otherwise than the fields do.
_CONVERTED = (date, datetime, time, timedelta, UUID, Enum)


def raw_instances(
    schema: Schema, database: Database, sql: str, parameters: Mapping[str, Any] | None
) -> list[Any]:
    """The instances of the rows that *sql* selects, with *parameters* for its `:name`s.

    Raises `FieldError` where a column is missing or is not the model's, and where nothing is selected;
    `TypeError` where *sql* is no str.
    """
    if not isinstance(sql, str):
        raise TypeError(f"raw() wants SQL as a str, not {sql!r}")
    plain = dict(parameters or {})
    converted = [_bound(name, plain.pop(name)) for name, value in list(plain.items()) if _is_converted(value)]
    statement = text(sql).bindparams(*converted)
    # What the SQL does is its own affair: alone it commits, and in a block for reading the database refuses.
    opened: Transaction | None = schema.registry.databases.transaction(database)
    with opened or Lone(database, prepared=False, writes=True) as channel:
        result = channel.execute(statement, plain)
        if not result.returns_rows:
            raise FieldError(f"the SQL for {schema.name} selects nothing")
        names, rows = list(result.keys()), result.fetchall()
    columns = [field.column.name for field in schema.fields]
    for name in columns:
        if name not in names:
            raise FieldError(f"the SQL for {schema.name} lacks the column {name!r}")
    for name in names:
        if name not in columns:
            raise FieldError(f"the SQL for {schema.name} selects the column {name!r}, which is not its own")
    places = [names.index(name) for name in columns]
    ordered = [tuple([row[place] for place in places]) for row in rows]
    return plans_of(schema, database).loader.instances(ordered)


def _is_converted(value: Any) -> bool:
    return isinstance(value, _CONVERTED) and kind_of(type(value)) is not None


def _bound(name: str, value: Any) -> BindParameter[Any]:
    kind: Any = kind_of(type(value))
    options = {"timezone": isinstance(value, datetime) and value.tzinfo is not None}
    return bindparam(name, value, type_=kind.column(type(value), options))
