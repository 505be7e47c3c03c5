"""Kinds: the type table: for each Python type the column that holds it and the check of its checks.

A new type is one row of `KINDS`; its round trip is one row of tests/test_types.py.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin
from uuid import UUID

from sqlalchemy import JSON, Boolean, Date, Double, Integer, Numeric, SmallInteger, String
from sqlalchemy.types import INTEGER, SMALLINT, TypeEngine

from microorm.fields import checks, types
from microorm.fields.checks import Check, Refused, shown

Options = Mapping[str, Any]

_BITS: dict[type, int] = {SmallInteger: 16, SMALLINT: 16, Integer: 32, INTEGER: 32}


class Unfit(Exception):
    """The options of a field do not go with its type, or with each other; the message says why."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the table; *column* and *check* are made from the Python type and the field's options.

    *options* are those that mean something for this type only. *allowed* gives the values that the column is
    kept to, if they are listed. *mutable*: a value may change in place, so that what was loaded needs a copy.
    """

    column: Callable[[Any, Options], TypeEngine[Any]]
    check: Callable[[Any, Options], Check]
    options: tuple[str, ...] = ()
    allowed: Callable[[Any], tuple[Any, ...]] = lambda python_type: ()
    mutable: bool = False


def kind_of(python_type: Any) -> Kind | None:
    """The row of *python_type*, or None where only a type of SQLAlchemy's can hold it."""
    origin = get_origin(python_type) or python_type
    if isinstance(origin, type) and issubclass(origin, enum.Enum):
        origin = enum.Enum
    try:
        return KINDS.get(origin)
    except TypeError:  # what is unhashable is no type, and not in the table
        return None


def custom_check(python_type: Any, column: TypeEngine[Any]) -> Check:
    """The check for a column type of the user's own: what is known of it and of *python_type*."""
    origin = get_origin(python_type) or python_type
    if python_type is int and type(column) in _BITS:
        return checks.int_check(_BITS[type(column)])
    if python_type is str:
        if isinstance(column, String):
            return checks.text_check(column.length)
    elif python_type is Decimal:
        if isinstance(column, Numeric) and column.precision is not None:
            return checks.decimal_check(column.precision, column.scale or 0)
    elif origin in (dict, list):
        if isinstance(column, JSON):
            return checks.json_check(origin)
    elif python_type not in (bytes, datetime) and (kind := kind_of(python_type)) is not None:
        return kind.check(python_type, {})
    return checks.instance_check(python_type if origin in (Union, UnionType) else origin)


def type_name(python_type: Any) -> str:
    """A type as an annotation would write it."""
    if isinstance(python_type, type) and not get_args(python_type):
        return python_type.__name__
    return str(python_type).replace("typing.", "")


def _plain(column: Callable[[], TypeEngine[Any]], check: Check) -> Kind:
    return Kind(lambda python_type, options: column(), lambda python_type, options: check)


def _digits(options: Options) -> tuple[int, int]:
    digits, places = options.get("max_digits"), options.get("decimal_places")
    if digits is None or places is None:
        raise Unfit("a Decimal wants max_digits= and decimal_places=")
    if type(places) is not int or not 0 <= places <= digits:
        raise Unfit(f"decimal_places= wants an int from 0 to max_digits, not {shown(places)}")
    return digits, places


def _members(python_type: type[enum.Enum]) -> tuple[Any, ...]:
    if issubclass(python_type, enum.Flag):
        raise Unfit(
            f"{type_name(python_type)} is a Flag, whose members combine to values that are not listed"
        )
    return _listed(python_type, tuple(member.value for member in python_type))


def _choices(python_type: Any) -> tuple[Any, ...]:
    return _listed(python_type, get_args(python_type))


def _listed(python_type: Any, allowed: tuple[Any, ...]) -> tuple[Any, ...]:
    kinds = {next((k for k in (bool, str, int) if isinstance(value, k)), None) for value in allowed}
    if len(kinds) != 1 or None in kinds:
        raise Unfit(f"the values of {type_name(python_type)} are not all str or all int")
    check = checks.text_check(None) if kinds == {str} else checks.INT
    for value in allowed if kinds != {bool} else ():
        try:
            check.admit(value)
        except Refused as refused:
            raise Unfit(f"a value of {type_name(python_type)} {refused}") from None
    return allowed


def _choice_column(python_type: Any, options: Options) -> TypeEngine[Any]:
    choices = _choices(python_type)
    return Boolean() if isinstance(choices[0], bool) else types.value_type(choices)


KINDS: dict[Any, Kind] = {
    int: _plain(types.integer_type, checks.INT),
    float: _plain(Double, checks.FLOAT),
    bool: _plain(Boolean, checks.BOOL),
    date: _plain(Date, checks.DATE),
    time: _plain(types.time_type, checks.TIME),
    timedelta: _plain(types.Duration, checks.TIMEDELTA),
    UUID: _plain(types.uuid_type, checks.UUID_),
    str: Kind(
        lambda python_type, options: types.text_type(options.get("max_length")),
        lambda python_type, options: checks.text_check(options.get("max_length")),
        options=("max_length",),
    ),
    bytes: Kind(
        lambda python_type, options: types.bytes_type(options.get("max_length")),
        lambda python_type, options: checks.bytes_check(options.get("max_length")),
        options=("max_length",),
    ),
    datetime: Kind(
        lambda python_type, options: types.datetime_type(aware=options.get("timezone") is not False),
        lambda python_type, options: checks.NAIVE if options.get("timezone") is False else checks.AWARE,
        options=("timezone",),
    ),
    Decimal: Kind(
        lambda python_type, options: types.ExactNumeric(*_digits(options)),
        lambda python_type, options: checks.decimal_check(*_digits(options)),
        options=("max_digits", "decimal_places"),
    ),
    enum.Enum: Kind(
        lambda python_type, options: types.Choice(python_type),
        lambda python_type, options: checks.enum_check(python_type),
        allowed=_members,
    ),
    Literal: Kind(
        _choice_column,
        lambda python_type, options: checks.literal_check(_choices(python_type)),
        allowed=_choices,
    ),
    dict: Kind(
        lambda python_type, options: types.json_type(),
        lambda python_type, options: checks.json_check(dict),
        mutable=True,
    ),
    list: Kind(
        lambda python_type, options: types.json_type(),
        lambda python_type, options: checks.json_check(list),
        mutable=True,
    ),
}
