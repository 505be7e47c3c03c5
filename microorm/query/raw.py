"""Instances from SQL that the program has written."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from enum import Enum
from types import NoneType
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from microorm.db.autocommit import READS, WRITES, AutocommitConnection
from microorm.db.engines.engine import Database
from microorm.db.transaction import Transaction
from microorm.errors import FieldError
from microorm.fields.type_map import field_type
from microorm.mapping.schema import Schema
from microorm.messages import brief
from microorm.sql.statements import plans_of

# Types that a driver does not accept, or stores in another way than the fields do.
_CONVERTED = (date, datetime, time, timedelta, UUID, Enum)


def raw_instances(
    schema: Schema,
    database: Database,
    transaction: Transaction | None,
    sql: str,
    parameters: Mapping[str, Any] | None,
) -> list[Any]:
    """Return the instances of the rows that *sql* selects, with *parameters* for each `:name` in it.

    Raises `FieldError` for a missing or another column, and where nothing is selected; `TypeError` unless *sql* is a str.
    """
    if not isinstance(sql, str):
        raise TypeError(f"raw() takes SQL as a str, not {brief(sql)}")
    if not isinstance(parameters, (Mapping, NoneType)):
        raise TypeError(
            f"raw() takes parameters by name, raw('… WHERE id = :id', {{'id': 1}}), not {brief(parameters)}"
        )
    plain = dict(parameters or {})
    converted = [
        _bound(name, plain.pop(name))
        for name, value in list(plain.items())
        if isinstance(value, _CONVERTED) and field_type(type(value)) is not None
    ]
    statement = sa.text(sql).bindparams(*converted)
    # The SQL may write. Outside a block it is committed; in a read-only block the database refuses it, and so does a copy.
    writes = WRITES if database.row_alias == database.alias else READS
    with transaction or AutocommitConnection(database, writes) as channel:
        result = channel.execute(statement, plain)
        if not result.returns_rows:
            raise FieldError(f"raw(): the SQL for {schema.name} selects nothing")
        names, rows = list(result.keys()), result.fetchall()
    columns = [field.column.name for field in schema.fields]
    for name in columns:
        if name not in names:
            raise FieldError(f"raw(): the SQL for {schema.name} does not select the column {name!r}")
    for name in names:
        if name not in columns:
            raise FieldError(f"raw(): the SQL selects {name!r}, which is not a column of {schema.name}")
    indexes = [names.index(name) for name in columns]
    ordered = [tuple([row[index] for index in indexes]) for row in rows]
    return plans_of(schema, database).hydrator.instances(ordered)


def _bound(name: str, value: Any) -> sa.BindParameter[Any]:
    kind: Any = field_type(type(value))
    options = {"timezone": isinstance(value, datetime) and value.tzinfo is not None}
    return sa.bindparam(name, value, type_=kind.column(type(value), options))
