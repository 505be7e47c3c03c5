"""Validation of field values, the same on every database, before anything is written.

A `Check` has two parts. `condition` is Python source for the common case, inlined into generated functions. `clean` is
called where it does not hold: it also accepts subclasses and lossless conversions (an `int` for a `float`), and says
what is wrong with other values.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.sql import ClauseElement

from microorm.messages import brief_value

MAX_TIMEDELTA = timedelta(microseconds=2**63 - 1)


class InvalidFieldValue(Exception):
    """A field does not accept a value; the message completes a sentence that begins with the field's name."""

    problem: str
    """The same without the value, where a validator has refused it, in the validator's words."""

    def __init__(self, expected: str, found: str) -> None:
        self.problem = f"must be {expected}, not {found}"
        super().__init__(self.problem)


class RefusedValue(InvalidFieldValue):
    """A validator of a field does not accept *value*, for the reason *problem*."""

    def __init__(self, problem: str, value: object) -> None:
        self.problem = problem
        Exception.__init__(self, f"{problem} ({shown(value)})")


class Check(NamedTuple):
    """The validation of one Python type.

    *expected* names the type in messages. *condition* is an expression over `{v}` that is true if the value can be
    written unchanged; *names* are the objects it uses. *clean* returns the value to write, or raises
    `InvalidFieldValue`.
    """

    expected: str
    condition: str
    clean: Callable[[Any], Any]
    names: Mapping[str, Any] = MappingProxyType({})


def shown(value: Any) -> str:
    """Format *value* for a message: its type and a short repr, or the latter alone if it begins with the type."""
    if value is None:
        return "None"
    name, text = type(value).__name__, brief_value(value)
    return text if text.partition("(")[0].rpartition(".")[2] == name else f"{name} {text}"


def encodable(text: str) -> bool:
    """Whether *text* has no lone surrogates, which databases cannot store."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _checked(value: Any, kind: Any, expected: str) -> Any:
    """Return *value* if it is an instance of *kind*; raise `InvalidFieldValue` otherwise."""
    if not isinstance(value, kind):
        raise InvalidFieldValue(expected, shown(value))
    return value


def text_check(max_length: int | None) -> Check:
    """Check for a `str` of at most *max_length* characters, without NUL and lone surrogates."""
    expected = "str" if max_length is None else f"str of at most {max_length} characters"

    def clean(value: Any) -> str:
        text = str.__str__(_checked(value, str, expected))
        if max_length is not None and len(text) > max_length:
            raise InvalidFieldValue(expected, f"str of {len(text)}")
        if "\0" in text:
            raise InvalidFieldValue(expected, "str with a NUL character")
        if not encodable(text):
            raise InvalidFieldValue(expected, "str with a lone surrogate")
        return text

    condition = "{v}.__class__ is str and '\\0' not in {v} and ({v}.isascii() or {encodable}({v}))"
    if max_length is not None:
        condition += f" and len({{v}}) <= {max_length}"
    return Check(expected, condition, clean, {"encodable": encodable})


def bytes_check(max_length: int | None) -> Check:
    """Check for `bytes`, at most *max_length* of them."""
    expected = "bytes" if max_length is None else f"bytes of at most {max_length}"

    def clean(value: Any) -> bytes:
        _checked(value, bytes, expected)
        if max_length is not None and len(value) > max_length:
            raise InvalidFieldValue(expected, f"bytes of {len(value)}")
        return bytes(value)

    bound = "" if max_length is None else f" and len({{v}}) <= {max_length}"
    return Check(expected, "{v}.__class__ is bytes" + bound, clean)


def int_check(bits: int) -> Check:
    """Check for a signed `int` of *bits* bits; a `bool` is refused."""
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def clean(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidFieldValue("int", shown(value))
        if not lowest <= value <= highest:
            raise InvalidFieldValue(f"int of {bits} bits", f"int of {signed_bits(value)}")
        return int(value)

    return Check("int", f"{{v}}.__class__ is int and {lowest} <= {{v}} <= {highest}", clean)


def signed_bits(value: int) -> int:
    """Return the number of bits that *value* needs, with its sign."""
    return (value if value >= 0 else ~value).bit_length() + 1


def _clean_float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidFieldValue("float", shown(value))
    try:
        number = float(value)
    except OverflowError:
        raise InvalidFieldValue("float", "an int too large for one") from None
    if not math.isfinite(number):
        raise InvalidFieldValue("a finite float", f"{number}")
    if isinstance(value, int) and int(number) != value:
        raise InvalidFieldValue("float", f"{shown(value)}, which it cannot represent exactly")
    # Only PostgreSQL keeps the sign of -0.0; adding 0.0 removes it.
    return number + 0.0


def _clean_date(value: Any) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise InvalidFieldValue("date", shown(value))
    return date(value.year, value.month, value.day)


def _clean_time(value: Any) -> time:
    _checked(value, time, "time")
    if value.tzinfo is not None:
        raise InvalidFieldValue("time without a time zone", "one with tzinfo")
    return time(value.hour, value.minute, value.second, value.microsecond)


def _clean_timedelta(value: Any) -> timedelta:
    _checked(value, timedelta, "timedelta")
    plain = timedelta(value.days, value.seconds, value.microseconds)
    if not -MAX_TIMEDELTA <= plain <= MAX_TIMEDELTA:
        raise InvalidFieldValue("timedelta of at most 64 bits of microseconds", "a longer one")
    return plain


def _clean_uuid(value: Any) -> UUID:
    return UUID(int=_checked(value, UUID, "UUID").int)


def _plain_datetime(value: datetime, zone: tzinfo | None) -> datetime:
    # Not replace(), which keeps a subclass that the drivers do not know.
    day = (value.year, value.month, value.day)
    clock = (value.hour, value.minute, value.second, value.microsecond)
    return datetime(*day, *clock, tzinfo=zone, fold=value.fold)


def _clean_aware(value: Any) -> datetime:
    _checked(value, datetime, "datetime")
    if value.utcoffset() is None:
        raise InvalidFieldValue("datetime with a time zone", "a naive one")
    try:
        return _plain_datetime(value, value.tzinfo).astimezone(UTC)
    except OverflowError:
        raise InvalidFieldValue("datetime in the range of UTC", "one outside of it") from None


def _clean_naive(value: Any) -> datetime:
    _checked(value, datetime, "datetime")
    if value.tzinfo is not None:
        raise InvalidFieldValue("datetime without a time zone", "an aware one")
    return _plain_datetime(value, None)


def decimal_check(digits: int, places: int) -> Check:
    """Check for a finite `Decimal` of at most *digits* digits, *places* of them after the point."""
    expected = f"Decimal of {digits} digits, {places} after the point"
    limit = Decimal(10) ** (digits - places)

    def fits(value: Decimal) -> bool:
        if not value.is_finite() or value.copy_abs() >= limit:
            return False
        _, figures, exponent = value.as_tuple()
        excess = -int(exponent) - places
        return excess <= 0 or not any(figures[-excess:])

    def clean(value: Any) -> Decimal:
        number = Decimal(value) if isinstance(value, (Decimal, int)) else None
        if number is None or isinstance(value, bool) or not fits(number):
            raise InvalidFieldValue(expected, shown(value))
        return number

    return Check(
        expected, "{v}.__class__ is {Decimal} and {fits}({v})", clean, {"Decimal": Decimal, "fits": fits}
    )


def enum_check(members: type[enum.Enum]) -> Check:
    """Check for a member of the enum *members*, not its value."""
    clean = partial(_checked, kind=members, expected=members.__name__)
    return Check(members.__name__, "{v}.__class__ is {members}", clean, {"members": members})


def literal_check(choices: tuple[Any, ...]) -> Check:
    """Check for one of *choices*, of the same type."""
    expected = "one of " + ", ".join(map(repr, choices))
    known = {(type(choice), choice) for choice in choices}
    classes = frozenset(map(type, choices))

    def clean(value: Any) -> Any:
        if type(value) not in classes or (type(value), value) not in known:
            raise InvalidFieldValue(expected, shown(value))
        return value

    # The class is tested first, since a value of another class may be unhashable.
    condition = "{v}.__class__ in {classes} and ({v}.__class__, {v}) in {known}"
    return Check(expected, condition, clean, {"known": known, "classes": classes})


def instance_check(kind: Any) -> Check:
    """Check for an instance of *kind*, for a custom column type; accept any value if *kind* is not a class."""
    try:
        anything = kind is object or isinstance(None, kind)
    except TypeError:  # a TypedDict, a type variable, a protocol without @runtime_checkable
        anything = True
    if anything:
        # SQL expressions are still recognized.
        return Check(
            "a value",
            "{v} is not None and not isinstance({v}, {ClauseElement})",
            lambda value: value,
            {"ClauseElement": ClauseElement},
        )
    expected = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
    clean = partial(_checked, kind=kind, expected=expected)
    return Check(expected, "isinstance({v}, {kind})", clean, {"kind": kind})


INT = int_check(64)
FLOAT = Check(
    "float",
    "{v}.__class__ is float and {v} - {v} == 0.0 and ({v} != 0.0 or {sign}(1.0, {v}) > 0.0)",
    _clean_float,
    {"sign": math.copysign},
)
BOOL = Check("bool", "{v}.__class__ is bool", partial(_checked, kind=bool, expected="bool"))
DATE = Check("date", "{v}.__class__ is {date}", _clean_date, {"date": date})
TIME = Check("time", "{v}.__class__ is {time} and {v}.tzinfo is None", _clean_time, {"time": time})
TIMEDELTA = Check(
    "timedelta",
    "{v}.__class__ is {timedelta} and -106751990 < {v}.days < 106751990",
    _clean_timedelta,
    {"timedelta": timedelta},
)
UUID_ = Check("UUID", "{v}.__class__ is {UUID}", _clean_uuid, {"UUID": UUID})
AWARE = Check(
    "datetime",
    "{v}.__class__ is {datetime} and {v}.tzinfo is {utc}",
    _clean_aware,
    {"datetime": datetime, "utc": UTC},
)
NAIVE = Check(
    "datetime", "{v}.__class__ is {datetime} and {v}.tzinfo is None", _clean_naive, {"datetime": datetime}
)


MAX_JSON_DEPTH = 31  # the limit of MariaDB
MAX_JSON_INT = 10**4000  # below the limit of Python's conversion between int and str


def json_problem(value: Any, depth: int = MAX_JSON_DEPTH) -> str | None:
    """Find what JSON or one of the databases would change or refuse in *value*; None if nothing.

    *depth*: how deep lists and dicts may be nested. A list that contains itself is too deep.
    """
    kind = type(value)
    if value is None or kind is bool:
        return None
    if kind is str:
        return "a NUL character" if "\0" in value else None if encodable(value) else "a lone surrogate"
    if kind is int:
        return None if abs(value) < MAX_JSON_INT else "an int of too many digits"
    if kind is float:
        return None if math.isfinite(value) else str(value)
    if kind is not list and kind is not dict:
        return shown(value)
    if not depth:
        return f"more than {MAX_JSON_DEPTH} levels"
    for key in value if kind is dict else ():
        if type(key) is not str:
            return f"the key {shown(key)}"
        if found := json_problem(key):
            return found
    for item in value.values() if kind is dict else value:
        if found := json_problem(item, depth - 1):
            return found
    return None


def json_check(container: type) -> Check:
    """Check for a `dict` or `list` that is unchanged by a round trip through JSON."""
    expected = container.__name__

    def clean(value: Any) -> Any:
        if type(value) is not container:
            raise InvalidFieldValue(expected, shown(value))
        if (found := json_problem(value)) is not None:
            raise InvalidFieldValue(f"{expected} that JSON can represent", f"one with {found}")
        return value

    names = {"container": container, "problem": json_problem}
    return Check(expected, "{v}.__class__ is {container} and {problem}({v}) is None", clean, names)


def json_text(value: Any) -> str:
    """Serialize *value* so that equal values have equal texts and JSONB does not turn floats into integers."""
    # SQLite and MariaDB compare texts. JSONB has no negative zero, and makes 1e+23 an integer, but not 100…0.0.
    text = json.dumps(value, sort_keys=True)
    return _spelled_out(value) if "e+" in text or "-0.0" in text else text


def _spelled_out(value: Any) -> str:
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {_spelled_out(value[key])}" for key in sorted(value)]
        return "{" + ", ".join(parts) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_spelled_out, value)) + "]"
    if isinstance(value, float) and not value:
        return "0.0"
    text = json.dumps(value)
    return f"{Decimal(text):f}.0" if isinstance(value, float) and "e+" in text else text
