"""Conversion: a stored value of SQLite becomes a value of another column type, or is refused.

SQLite's CAST keeps what it can read and drops the rest: a date becomes its year, `'abc'` becomes 0. Each
function here returns a value that means the same as the one that was stored, or raises `ValueError`. A
moment may become a day, as on the other databases.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator, TypeEngine

from microorm.fields.types import UtcDateTime
from microorm.migrations.dialects import DIALECTS, ddl_type

_INTEGER = re.compile(r"\s*[-+]?\d+\s*", re.ASCII)
_BOOLEANS = {"0": 0, "1": 1, "false": 0, "true": 1}
_INTEGERS = range(-(2**63), 2**63)

Convert = Callable[[Any], Any]


def converter(stored: TypeEngine[Any], wanted: TypeEngine[Any]) -> Convert | None:
    """Return the function from values of the SQLite column type *stored* to those of *wanted*.

    None if every value is one of both types, or if *wanted* is a type that SQLite only stores. The function
    raises `ValueError` for a value that *wanted* cannot hold.
    """
    before, after = _underlying(stored), _underlying(wanted)
    if ddl_type(stored, "sqlite") == ddl_type(wanted, "sqlite") or _widens(before, after):
        return None
    write = next((make for kind, make in _WRITERS if isinstance(after, kind)), None)
    if write is None:
        return None
    read, converted = _reader(before), write(after, before, isinstance(wanted, UtcDateTime))
    return lambda value: None if value is None else converted(read(value))


def keeps_values(stored: TypeEngine[Any], wanted: TypeEngine[Any]) -> bool:
    """Return whether a value is refused or stays as it is, because both types are of text, of bytes or of numbers."""
    before, after = _underlying(stored), _underlying(wanted)
    return any(
        isinstance(before, kinds) and isinstance(after, kinds)
        for kinds in (sa.String, sa.LargeBinary, (sa.Integer, sa.Float, sa.Numeric))
    )


def _underlying(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type that SQLite gets for *type_*, without what is done in Python."""
    dialect = DIALECTS["sqlite"]
    found = type_.dialect_impl(dialect)
    return found.type_engine(dialect) if isinstance(found, TypeDecorator) else found


def _widens(before: TypeEngine[Any], after: TypeEngine[Any]) -> bool:
    """Return whether *after* is *before* with more room."""
    for kind in (sa.String, sa.LargeBinary):
        if isinstance(before, kind) and isinstance(after, kind):
            room = after.length
            return room is None or (before.length is not None and before.length <= room)
    return isinstance(before, sa.Integer) and isinstance(after, sa.Integer)


def _reader(type_: TypeEngine[Any]) -> Convert:
    """Return the function that reads a stored text as the day, time or moment that it is."""
    kinds: tuple[tuple[type[TypeEngine[Any]], Any], ...] = (
        (sa.DateTime, datetime),
        (sa.Date, date),
        (sa.Time, time),
    )
    read = next((each for kind, each in kinds if isinstance(type_, kind)), None)
    return lambda value: read.fromisoformat(value) if read is not None and isinstance(value, str) else value


def _text(wanted: Any, stored: Any, aware: bool) -> Convert:
    def convert(value: Any) -> str:
        match value:
            case bytes():
                found = value.decode()
            case int() | float() if isinstance(stored, sa.Numeric) and not isinstance(stored, sa.Float):
                found = str(_exact(Decimal(str(value)), stored.scale))
            case datetime():
                found = value.isoformat(" ", "microseconds")
            case date() | time():
                found = value.isoformat()
            case _:
                found = str(value)
        if wanted.length is not None and len(found) > wanted.length:
            raise ValueError(f"it has {len(found)} characters")
        return found

    return convert


def _bytes(wanted: Any, stored: Any, aware: bool) -> Convert:
    def convert(value: Any) -> bytes:
        if not isinstance(value, str | bytes):
            raise ValueError("it is no text")
        found = value.encode() if isinstance(value, str) else value
        if wanted.length is not None and len(found) > wanted.length:
            raise ValueError(f"it has {len(found)} bytes")
        return found

    return convert


def _number(value: Any) -> Decimal:
    """Return *value*, which may be the text of a number, without loss."""
    try:
        found = Decimal(value if isinstance(value, int) else str(value).strip())
    except InvalidOperation:
        raise ValueError("it is no number") from None
    if isinstance(value, date | time | bytes) or not found.is_finite():
        raise ValueError("it is no number")
    return found


def _exact(value: Decimal, scale: int | None) -> Decimal:
    """Return *value* with *scale* digits after the point. Raises `ValueError` if it has more."""
    if scale is None:
        return value
    try:
        found = value.quantize(Decimal(1).scaleb(-scale))
    except InvalidOperation:
        raise ValueError("it has too many digits") from None
    if found != value:
        raise ValueError(f"it has more than {scale} digits after the point")
    return found


def _integer(wanted: Any, stored: Any, aware: bool) -> Convert:
    def convert(value: Any) -> int:
        if isinstance(value, str) and not _INTEGER.fullmatch(value):
            raise ValueError("it is no integer")
        found = int(_exact(_number(value), 0))
        if found not in _INTEGERS:
            raise ValueError("it has more than 64 bits")
        return found

    return convert


def _float(wanted: Any, stored: Any, aware: bool) -> Convert:
    def convert(value: Any) -> float:
        number = _number(value)
        found = float(number)
        if not isfinite(found) or (_number(repr(found)) != number and Decimal(found) != number):
            raise ValueError("a float would not be exact")
        return found

    return convert


def _numeric(wanted: Any, stored: Any, aware: bool) -> Convert:
    def convert(value: Any) -> float:
        number = _exact(_number(value), wanted.scale)
        if wanted.precision is not None and abs(number) >= Decimal(10) ** (
            wanted.precision - (wanted.scale or 0)
        ):
            raise ValueError("it has too many digits")
        return _float(wanted, stored, aware)(number)  # type: ignore[no-any-return]

    return convert


def _boolean(wanted: Any, stored: Any, aware: bool) -> Convert:
    def convert(value: Any) -> int:
        if isinstance(value, str) and value.strip().lower() in _BOOLEANS:
            return _BOOLEANS[value.strip().lower()]
        if isinstance(value, int | float) and value in (0, 1):
            return int(value)
        raise ValueError("it is neither true nor false")

    return convert


def _moment(wanted: Any, stored: Any, aware: bool) -> Convert:
    def convert(value: Any) -> str:
        moment = value
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
        elif isinstance(value, date) and not isinstance(value, datetime):
            moment = datetime.combine(value, time())
        if not isinstance(moment, datetime):
            raise ValueError("it is no moment")
        if moment.tzinfo is not None:
            if not aware:
                raise ValueError("it has a time zone")
            moment = moment.astimezone(UTC).replace(tzinfo=None)
        return moment.isoformat(" ", "microseconds")

    return convert


def _day(wanted: Any, stored: Any, aware: bool) -> Convert:
    def convert(value: Any) -> str:
        if isinstance(value, str):
            value = date.fromisoformat(value.strip())
        if not isinstance(value, date):
            raise ValueError("it is no date")
        return (value.date() if isinstance(value, datetime) else value).isoformat()

    return convert


def _time(wanted: Any, stored: Any, aware: bool) -> Convert:
    def convert(value: Any) -> str:
        if isinstance(value, str):
            value = time.fromisoformat(value.strip())
        if not isinstance(value, time) or value.tzinfo is not None:
            raise ValueError("it is no time of a day")
        return value.isoformat("microseconds")

    return convert


def _uuid(wanted: Any, stored: Any, aware: bool) -> Convert:
    def convert(value: Any) -> str:
        if isinstance(value, bytes):
            return UUID(bytes=value).hex
        return UUID(str(value)).hex

    return convert


def _document(wanted: Any, stored: Any, aware: bool) -> Convert:
    def convert(value: Any) -> Any:
        if isinstance(stored, sa.Boolean):
            return json.dumps(bool(value))
        if isinstance(value, str):
            json.loads(value, parse_constant=_no_constant)
        elif not isinstance(value, int | float):
            raise ValueError("it is no JSON")
        return value

    return convert


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


# Derived types come before their bases.
_WRITERS: tuple[tuple[type[TypeEngine[Any]], Callable[[Any, Any, bool], Convert]], ...] = (
    (sa.Boolean, _boolean),
    (sa.Integer, _integer),
    (sa.Float, _float),
    (sa.Numeric, _numeric),
    (sa.JSON, _document),
    (sa.Uuid, _uuid),
    (sa.String, _text),
    (sa.LargeBinary, _bytes),
    (sa.DateTime, _moment),
    (sa.Date, _day),
    (sa.Time, _time),
)
