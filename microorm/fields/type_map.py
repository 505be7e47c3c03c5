"""The type map: the column type and the check of each Python type.

To add a type, add a row to `TYPE_MAP`, and a row to the round-trip test in tests/fields/test_types.py.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, NewType, Union, get_args, get_origin
from uuid import UUID

from sqlalchemy import JSON, Boolean, Integer, Numeric, SmallInteger, String
from sqlalchemy.types import INTEGER, SMALLINT, TypeEngine
from typing_extensions import TypeAliasType

from microorm.fields import checks, documents, types
from microorm.fields.checks import Check, InvalidFieldValue, shown

Options = Mapping[str, Any]

_BITS: dict[type, int] = {SmallInteger: 16, SMALLINT: 16, Integer: 32, INTEGER: 32}


class InvalidOption(Exception):
    """An option of a field is invalid, alone or with its type and other options; the message says why."""


class FieldType(NamedTuple):
    """A row of the type map; *column* and *check* are called with the Python type and the options of the field.

    *options*: the type-specific options that apply. *allowed*: the values of an enum or a Literal, which a CHECK
    constraint enforces. *mutable*: a value may change in place, so loaded values are copied.
    """

    column: Callable[[Any, Options], TypeEngine[Any]]
    check: Callable[[Any, Options], Check]
    options: tuple[str, ...] = ()
    allowed: Callable[[Any], tuple[Any, ...]] = lambda python_type: ()
    mutable: bool = False


def field_type(python_type: Any) -> FieldType | None:
    """Return the row of *python_type*; None if there is none, so that `type_=` is needed."""
    origin = get_origin(python_type) or python_type
    if isinstance(origin, type) and issubclass(origin, enum.Enum):
        origin = enum.Enum
    try:
        return TYPE_MAP.get(origin)
    except TypeError:  # unhashable, so not in the map
        return None


def custom_check(python_type: Any, column: TypeEngine[Any]) -> Check:
    """Return the check for a column type passed as `type_=`."""
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
    elif python_type not in (bytes, datetime) and (kind := field_type(python_type)) is not None:
        return kind.check(python_type, {})
    return checks.instance_check(python_type if origin in (Union, UnionType) else origin)


def type_name(python_type: Any) -> str:
    """Format a type as in an annotation."""
    origin, arguments = get_origin(python_type), get_args(python_type)
    if isinstance(python_type, type) and not arguments:
        return python_type.__name__
    if isinstance(origin, type) and origin is not UnionType:
        return f"{origin.__name__}[{', '.join(map(type_name, arguments))}]"
    return str(python_type).replace("typing.", "")


def plain_type(annotation: Any) -> Any:
    """Return the type that `Annotated`, a `NewType` or a type alias is made of; any other annotation as it is."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif isinstance(annotation, TypeAliasType):
            annotation = annotation.__value__
        else:
            return annotation


def _plain(column: Callable[[], TypeEngine[Any]], check: Check, *, mutable: bool = False) -> FieldType:
    return FieldType(lambda *_: column(), lambda *_: check, mutable=mutable)


def _sized(column: Callable[[Any], TypeEngine[Any]], check: Callable[[Any], Check]) -> FieldType:
    return FieldType(
        lambda _, options: column(options.get("max_length")),
        lambda _, options: check(options.get("max_length")),
        options=("max_length",),
    )


def _digits(options: Options) -> tuple[int, int]:
    digits, places = options.get("max_digits"), options.get("decimal_places")
    if digits is None or places is None:
        raise InvalidOption("a Decimal needs max_digits= and decimal_places=")
    if type(places) is not int or not 0 <= places <= digits:
        raise InvalidOption(f"decimal_places= must be an int from 0 to max_digits, not {shown(places)}")
    return digits, places


def _members(python_type: type[enum.Enum]) -> tuple[Any, ...]:
    if issubclass(python_type, enum.Flag):
        raise InvalidOption(
            f"{type_name(python_type)} is a Flag, whose members can be combined to values that are not listed"
        )
    return _listed(python_type, tuple(member.value for member in python_type))


def _choices(python_type: Any) -> tuple[Any, ...]:
    return _listed(python_type, get_args(python_type))


def _listed(python_type: Any, allowed: tuple[Any, ...]) -> tuple[Any, ...]:
    classes = {next((c for c in (bool, str, int) if isinstance(value, c)), None) for value in allowed}
    if len(classes) != 1 or None in classes:
        raise InvalidOption(f"the values of {type_name(python_type)} are not all str or all int")
    check = checks.text_check(None) if classes == {str} else checks.INT
    for value in allowed if classes != {bool} else ():
        try:
            check.clean(value)
        except InvalidFieldValue as error:
            raise InvalidOption(f"a value of {type_name(python_type)} {error}") from None
    return allowed


def _choice_column(python_type: Any, options: Options) -> TypeEngine[Any]:
    choices = _choices(python_type)
    return Boolean() if isinstance(choices[0], bool) else types.value_type(choices)


TYPE_MAP: dict[Any, FieldType] = {
    int: _plain(types.integer_type, checks.INT),
    float: _plain(types.float_type, checks.FLOAT),
    bool: _plain(Boolean, checks.BOOL),
    date: _plain(types.date_type, checks.DATE),
    time: _plain(types.time_type, checks.TIME),
    timedelta: _plain(types.Duration, checks.TIMEDELTA),
    UUID: _plain(types.uuid_type, checks.UUID_),
    str: _sized(types.text_type, checks.text_check),
    bytes: _sized(types.bytes_type, checks.bytes_check),
    datetime: FieldType(
        lambda python_type, options: types.datetime_type(aware=options.get("timezone") is not False),
        lambda python_type, options: checks.NAIVE if options.get("timezone") is False else checks.AWARE,
        options=("timezone",),
    ),
    Decimal: FieldType(
        lambda python_type, options: types.ExactNumeric(*_digits(options)),
        lambda python_type, options: checks.decimal_check(*_digits(options)),
        options=("max_digits", "decimal_places"),
    ),
    enum.Enum: FieldType(
        lambda python_type, options: types.Choice(python_type),
        lambda python_type, options: checks.enum_check(python_type),
        allowed=_members,
    ),
    Literal: FieldType(
        _choice_column,
        lambda python_type, options: checks.literal_check(_choices(python_type)),
        allowed=_choices,
    ),
    dict: _plain(documents.json_type, checks.json_check(dict), mutable=True),
    list: _plain(documents.json_type, checks.json_check(list), mutable=True),
}
