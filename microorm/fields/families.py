"""Families of values, which can be compared with each other on every database, and what operators and functions make of them."""

from __future__ import annotations

import enum
import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple, get_args, get_origin
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.sql import operators
from sqlalchemy.types import TypeEngine

from microorm.errors import FieldError
from microorm.fields import checks
from microorm.fields.arithmetic import ARITHMETIC, SQLITE_DIGITS, Duration, plain, text_of
from microorm.fields.checks import InvalidFieldValue, shown
from microorm.fields.documents import json_type
from microorm.fields.field import FIELD, Field
from microorm.fields.types import (
    Choice,
    ExactNumeric,
    UtcDateTime,
    UtcNow,
    UuidText,
    date_type,
    datetime_type,
    time_type,
    uuid_type,
)

NUMBERS = frozenset({"int", "Decimal", "float", "number"})
TEMPORAL = frozenset({"date", "datetime", "time"})
COMPARISONS = frozenset(
    {
        operators.eq,
        operators.ne,
        operators.lt,
        operators.le,
        operators.gt,
        operators.ge,
        operators.is_,
        operators.is_not,
        operators.is_distinct_from,
        operators.is_not_distinct_from,
        operators.in_op,
        operators.not_in_op,
        operators.between_op,
        operators.not_between_op,
    }
)
TEXT_OPERATORS = frozenset(
    {
        operators.like_op,
        operators.not_like_op,
        operators.ilike_op,
        operators.not_ilike_op,
        operators.startswith_op,
        operators.not_startswith_op,
        operators.endswith_op,
        operators.not_endswith_op,
        operators.contains_op,
        operators.not_contains_op,
        operators.istartswith_op,
        operators.not_istartswith_op,
        operators.iendswith_op,
        operators.not_iendswith_op,
        operators.icontains_op,
        operators.not_icontains_op,
        operators.regexp_match_op,
        operators.not_regexp_match_op,
    }
)
TEXT_FUNCTIONS = frozenset(
    [
        "concat",
        "concat_ws",
        "left",
        "lower",
        "lpad",
        "ltrim",
        "repeat",
        "replace",
        "reverse",
        "right",
        "rpad",
        "rtrim",
        "substr",
        "substring",
        "trim",
        "upper",
    ]
)
NUMBER_FUNCTIONS = {
    **dict.fromkeys(
        ["char_length", "count", "dense_rank", "length", "octet_length", "rank", "row_number"], "int"
    ),
    **dict.fromkeys(["ceil", "ceiling", "floor", "round"], "number"),
}
SAME_NUMBER = frozenset({"abs", "mod", "sign"})  # functions of an int that are an int
BITWISE = frozenset(
    {
        operators.bitwise_and_op,
        operators.bitwise_lshift_op,
        operators.bitwise_not_op,
        operators.bitwise_or_op,
        operators.bitwise_rshift_op,
        operators.bitwise_xor_op,
        operators.lshift,
        operators.matmul,
        operators.rshift,
    }
)
# The arguments of a function that are of the type of its result: those from the first to the second number.
SAME_TYPE = {
    **dict.fromkeys(["any_value", "first_value", "last_value", "nth_value"], (0, 1)),
    **dict.fromkeys(["coalesce", "greatest", "ifnull", "least", "max", "min", "nullif", "nvl"], (0, None)),
    **dict.fromkeys(["if", "iif"], (1, None)),
}


class Term(NamedTuple):
    """What is known of an expression.

    *family*: the kind of its values, which decides what it can be compared with; None if unknown. *field*: what it is made
    of; *exact*: its values are those of the field. *type*: its column type. *literals*: the values whose type is still to
    be found, and *followers*: the expressions that have the same type as these.
    """

    family: str | None = None
    field: Field[Any] | None = None
    exact: bool = False
    type: TypeEngine[Any] | None = None
    literals: tuple[Any, ...] = ()
    followers: tuple[Any, ...] = ()

    @property
    def known(self) -> bool:
        """Whether the values that it is compared with can be checked."""
        return self.exact or self.family is not None


def field_of(column: Any) -> Field[Any] | None:
    """Return the field whose column, or a column of whose alias, *column* is."""
    for base in column.base_columns:
        if isinstance(base, sa.Column):
            reference = base.info.get(FIELD)
            found: Field[Any] | None = None if reference is None else reference()
            return found
    return None


def comparable(one: str | None, other: str | None) -> bool:
    """Return whether values of two families can be compared; None is unknown."""
    return one is None or other is None or one == other or {one, other} <= NUMBERS


def of_field(field: Field[Any]) -> Term:
    """Return what is known of the column of *field*."""
    return Term(family_of(field.python_type), field, exact=True, type=field.column.type)


def places_of(value: Any) -> int:
    """Return the decimal places of *value*; -1 if it is no decimal."""
    exponent = value.as_tuple().exponent if isinstance(value, Decimal) else 1
    return -exponent if isinstance(exponent, int) and exponent <= 0 else -1


def default_type(value: Any) -> TypeEngine[Any] | None:
    """Return the type of a field with *value*, if that is not what SQLAlchemy guesses."""
    if isinstance(value, enum.Enum):
        return Choice(type(value))
    if isinstance(value, datetime):
        return datetime_type(aware=value.tzinfo is not None)
    if isinstance(value, date):
        return date_type()
    if isinstance(value, time):
        return time_type()
    if isinstance(value, timedelta):
        return Duration()
    if isinstance(value, UUID):
        return uuid_type()
    if isinstance(value, Decimal) and value.is_finite():
        return ExactNumeric(SQLITE_DIGITS, min(places_of(value), SQLITE_DIGITS))
    return json_type() if isinstance(value, (dict, list)) else None


def family_of(python_type: Any) -> str | None:
    """Return the family of a Python type: its name, or that of the values of an enum or a Literal."""
    if isinstance(python_type, type) and issubclass(python_type, enum.Enum):
        python_type = type(next(iter(python_type)).value)
    elif get_origin(python_type) is Literal:
        python_type = type(get_args(python_type)[0])
    return python_type.__name__ if python_type in _FAMILIES else None


def family_of_type(kind: Any) -> str | None:
    """Return the family of a column type; None if unknown, as for JSON and moments, which may have a time zone or not."""
    if isinstance(kind, Choice):
        return family_of_type(kind.value_type)
    for known, family in _TYPES:
        if isinstance(kind, known):
            return family
    return None


def stands_for(term: Term, model: Any) -> bool:
    """Return whether *term* is a column in which an instance of *model* would stand for its key."""
    field = term.field
    if field is None or not term.exact:
        return not term.exact and term.family is None
    if field.relation is not None:
        return issubclass(model, field.relation.target)
    return field.primary_key and issubclass(model, field.owner)


def family_in(term: Term) -> str | None:
    """Return the family of *term*, that of its value if it is one."""
    if term.family is not None or not term.literals:
        return term.family
    (literal, *_) = term.literals
    if isinstance(literal, UtcNow):
        return "datetime"
    return family_of(type(plain(literal.value))) if isinstance(literal, sa.BindParameter) else None


def result_of(
    element: Any, operator: Any, left: str | None, right: str | None, *, written: bool
) -> str | None:
    """Return the family of *element*, two operands and an *operator*; *written*: it becomes the value of a field.

    Raises `FieldError` where the result differs between databases.
    """
    both = {left, right}
    if operator is operators.concat_op and "bytes" not in both:
        return left if left == right else "str"
    if None in both and not (TEMPORAL | {"bytes"}) & both:
        return None
    if both <= NUMBERS:
        return _number_of(element, operator, both, written=written)
    added = operator in (operators.add, operators.sub)
    if both == {"timedelta"} and added:
        return "timedelta"
    multiplied = operator is operators.mul or (operator is operators.truediv and left == "timedelta")
    if "timedelta" in both and multiplied and {"int", "float"} & both:
        return "timedelta"
    if both == {"str"} and operator is operators.add:
        return "str"
    instead = "cast() one of them" if left != right else "compute it in Python"
    if None in both:
        instead = "name the type of the other operand: type_coerce(…, Model.field.type)"
    sign = ARITHMETIC.get(operator, "||")
    raise FieldError(f"{text_of(element)}: {left} {sign} {right} has no defined result; {instead}")


def _number_of(element: Any, operator: Any, families: set[Any], *, written: bool) -> str:
    """Return the family of the result of *operator* between numbers of *families*."""
    if operator in (operators.mod, operators.floordiv) and families != {"int"}:
        raise FieldError(f"{text_of(element)} needs integers on some databases; compute it in Python")
    if "float" in families:
        return "float"
    if operator is operators.truediv and not written:
        raise FieldError(f"{text_of(element)} has other digits on each database; write cast(…, Double) / …")
    if "number" in families:
        return "number"
    return "Decimal" if operator is operators.truediv or "Decimal" in families else "int"


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise InvalidFieldValue("a number", shown(value))
    if isinstance(value, int):
        return checks.INT.clean(value)
    if not math.isfinite(value):
        raise InvalidFieldValue("a finite number", shown(value))
    return value


PLAIN = frozenset({bool, bytes, date, datetime, Decimal, int, str, time, timedelta, UUID})
_FAMILIES = PLAIN | {float}
_TYPES: tuple[tuple[Any, str | None], ...] = (
    (UtcDateTime, "datetime"),
    (ExactNumeric, "Decimal"),
    (Duration, "timedelta"),
    ((sa.Uuid, UuidText), "UUID"),
    (sa.Boolean, "bool"),
    (sa.Enum, None),
    (sa.String, "str"),
    (sa.LargeBinary, "bytes"),
    (sa.Integer, "int"),
    (sa.Float, "float"),
    (sa.Numeric, "Decimal"),
    (sa.Date, "date"),
    (sa.Time, "time"),
    (sa.Interval, "timedelta"),
)
CHECKS: dict[Any, Any] = {
    **dict.fromkeys(NUMBERS, _number),
    "int": checks.INT.clean,
    "float": checks.FLOAT.clean,
    "str": checks.text_check(None).clean,
    "bytes": checks.bytes_check(None).clean,
    "bool": checks.BOOL.clean,
    "date": checks.DATE.clean,
    "datetime": checks.AWARE.clean,
    "time": checks.TIME.clean,
    "timedelta": checks.TIMEDELTA.clean,
    "UUID": checks.UUID_.clean,
}
