"""Values: what a field takes, checked alike on every database before anything is written.

A `Check` has two faces. `condition` is Python source for the common case, inlined into the generated
collector of a statement; `admit` is the careful way, which also takes subclasses and what converts without
loss (an `int` for a `float`), and says what is wrong with the rest.

Documents: values that are stored as JSON, and the text they are stored as.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from reprlib import Repr
from typing import Any
from uuid import UUID

from sqlalchemy.sql import ClauseElement

LONGEST = timedelta(microseconds=2**63 - 1)


_shown = Repr()
_shown.maxstring = _shown.maxother = 60


class Refused(Exception):
    """A value is not one that the field takes; the message says why."""


@dataclass(frozen=True, slots=True)
class Check:
    """What one Python type admits.

    *expected* names the type in messages. *condition* is an expression over `{v}`, true for a value that may
    be written as it is; *names* are the objects it mentions.
    """

    expected: str
    condition: str
    admit: Callable[[Any], Any]
    names: Mapping[str, Any] = field(default_factory=dict)


def shown(value: Any) -> str:
    """A short repr that says the type, too."""
    if value is None:
        return "None"
    try:
        text = _shown.repr(value)
    except Exception as error:  # noqa: BLE001 a broken __repr__ must not hide what is wrong
        text = f"<unprintable: {type(error).__name__}>"
    return f"{type(value).__name__} {text}"


def encodable(text: str) -> bool:
    """Whether *text* has no lone surrogate, which no database stores."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def text_check(max_length: int | None) -> Check:
    """A `str` without NUL and lone surrogates, of at most *max_length* characters."""
    expected = "str" if max_length is None else f"str of at most {max_length} characters"

    def admit(value: Any) -> str:
        if not isinstance(value, str):
            raise Refused(f"wants {expected}, not {shown(value)}")
        text = str.__str__(value)
        if max_length is not None and len(text) > max_length:
            raise Refused(f"wants {expected}, not str of {len(text)}")
        if "\0" in text:
            raise Refused(f"wants {expected}, not str with a NUL character")
        if not encodable(text):
            raise Refused(f"wants {expected}, not str with a lone surrogate")
        return text

    condition = "{v}.__class__ is str and '\\0' not in {v} and ({v}.isascii() or {encodable}({v}))"
    if max_length is not None:
        condition += f" and len({{v}}) <= {max_length}"
    return Check(expected, condition, admit, {"encodable": encodable})


def bytes_check(max_length: int | None) -> Check:
    """A `bytes` of at most *max_length* bytes."""
    expected = "bytes" if max_length is None else f"bytes of at most {max_length}"

    def admit(value: Any) -> bytes:
        if not isinstance(value, bytes):
            raise Refused(f"wants {expected}, not {shown(value)}")
        if max_length is not None and len(value) > max_length:
            raise Refused(f"wants {expected}, not bytes of {len(value)}")
        return bytes(value)

    bound = "" if max_length is None else f" and len({{v}}) <= {max_length}"
    return Check(expected, "{v}.__class__ is bytes" + bound, admit)


def int_check(bits: int) -> Check:
    """An `int` that *bits* bits hold; a `bool` is none."""
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def admit(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise Refused(f"wants int, not {shown(value)}")
        if not lowest <= value <= highest:
            raise Refused(f"wants int of {bits} bits, not int of {signed_bits(value)}")
        return int(value)

    return Check("int", f"{{v}}.__class__ is int and {lowest} <= {{v}} <= {highest}", admit)


def signed_bits(value: int) -> int:
    """How many bits hold *value* and its sign."""
    return (value if value >= 0 else ~value).bit_length() + 1


def _admit_float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Refused(f"wants float, not {shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        raise Refused("wants float, not int too large for one") from None
    if not math.isfinite(number):
        raise Refused(f"wants a finite float, not {number}")
    if isinstance(value, int) and int(number) != value:
        raise Refused(f"wants float, and none is {shown(value)} exactly")
    # Only PostgreSQL keeps the sign of a zero; the sum is 0.0 for both.
    return number + 0.0


def _admit_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Refused(f"wants bool, not {shown(value)}")
    return value


def _admit_date(value: Any) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise Refused(f"wants date, not {shown(value)}")
    return date(value.year, value.month, value.day)


def _admit_time(value: Any) -> time:
    if not isinstance(value, time):
        raise Refused(f"wants time, not {shown(value)}")
    if value.tzinfo is not None:
        raise Refused("wants time without a zone, not one with tzinfo")
    return time(value.hour, value.minute, value.second, value.microsecond)


def _admit_timedelta(value: Any) -> timedelta:
    if not isinstance(value, timedelta):
        raise Refused(f"wants timedelta, not {shown(value)}")
    plain = timedelta(value.days, value.seconds, value.microseconds)
    if not -LONGEST <= plain <= LONGEST:
        raise Refused("wants timedelta of 64 bits of microseconds, not a longer one")
    return plain


def _admit_uuid(value: Any) -> UUID:
    if not isinstance(value, UUID):
        raise Refused(f"wants UUID, not {shown(value)}")
    return UUID(int=value.int)


def _plain_datetime(value: datetime, zone: tzinfo | None) -> datetime:
    # Not replace(), by which a subclass would stay what it is, and no driver knows it.
    day = (value.year, value.month, value.day)
    clock = (value.hour, value.minute, value.second, value.microsecond)
    return datetime(*day, *clock, tzinfo=zone, fold=value.fold)


def _admit_aware(value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise Refused(f"wants datetime, not {shown(value)}")
    if value.utcoffset() is None:
        raise Refused("wants datetime with a time zone, not a naive one")
    try:
        return _plain_datetime(value, value.tzinfo).astimezone(UTC)
    except OverflowError:
        raise Refused("wants datetime that UTC can express, not one out of its range") from None


def _admit_naive(value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise Refused(f"wants datetime, not {shown(value)}")
    if value.tzinfo is not None:
        raise Refused("wants datetime without a time zone, not an aware one")
    return _plain_datetime(value, None)


def decimal_check(digits: int, places: int) -> Check:
    """A finite `Decimal` of at most *digits* digits, *places* of them after the point."""
    expected = f"Decimal of {digits} digits, {places} after the point"
    limit = Decimal(10) ** (digits - places)

    def fits(value: Decimal) -> bool:
        if not value.is_finite() or value.copy_abs() >= limit:
            return False
        _, figures, exponent = value.as_tuple()
        excess = -int(exponent) - places
        return excess <= 0 or not any(figures[-excess:])

    def admit(value: Any) -> Decimal:
        number = Decimal(value) if isinstance(value, (Decimal, int)) else None
        if number is None or isinstance(value, bool) or not fits(number):
            raise Refused(f"wants {expected}, not {shown(value)}")
        return number

    return Check(
        expected, "{v}.__class__ is {Decimal} and {fits}({v})", admit, {"Decimal": Decimal, "fits": fits}
    )


def enum_check(members: type[enum.Enum]) -> Check:
    """A member of *members*, not its value."""
    expected = members.__name__

    def admit(value: Any) -> enum.Enum:
        if not isinstance(value, members):
            raise Refused(f"wants {expected}, not {shown(value)}")
        return value

    return Check(expected, "{v}.__class__ is {members}", admit, {"members": members})


def literal_check(choices: tuple[Any, ...]) -> Check:
    """One of *choices*, of the same type."""
    expected = "one of " + ", ".join(map(repr, choices))
    known = {(type(choice), choice) for choice in choices}
    kinds = frozenset(map(type, choices))

    def admit(value: Any) -> Any:
        if type(value) not in kinds or (type(value), value) not in known:
            raise Refused(f"wants {expected}, not {shown(value)}")
        return value

    # The class first: a value of another one may be unhashable.
    condition = "{v}.__class__ in {kinds} and ({v}.__class__, {v}) in {known}"
    return Check(expected, condition, admit, {"known": known, "kinds": kinds})


def instance_check(kind: Any) -> Check:
    """An instance of *kind*, for a column type of the user's own; anything where *kind* is no class."""
    try:
        anything = kind is object or isinstance(None, kind)
    except TypeError:  # a TypedDict, a type variable, a protocol that is not for run time
        anything = True
    if anything:
        # What the type does not say, an expression still says of itself.
        return Check(
            "a value",
            "{v} is not None and not isinstance({v}, {ClauseElement})",
            lambda value: value,
            {"ClauseElement": ClauseElement},
        )
    expected = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")

    def admit(value: Any) -> Any:
        if not isinstance(value, kind):
            raise Refused(f"wants {expected}, not {shown(value)}")
        return value

    return Check(expected, "isinstance({v}, {kind})", admit, {"kind": kind})


INT = int_check(64)
FLOAT = Check(
    "float",
    "{v}.__class__ is float and {v} - {v} == 0.0 and ({v} != 0.0 or {sign}(1.0, {v}) > 0.0)",
    _admit_float,
    {"sign": math.copysign},
)
BOOL = Check("bool", "{v}.__class__ is bool", _admit_bool)
DATE = Check("date", "{v}.__class__ is {date}", _admit_date, {"date": date})
TIME = Check("time", "{v}.__class__ is {time} and {v}.tzinfo is None", _admit_time, {"time": time})
TIMEDELTA = Check(
    "timedelta",
    "{v}.__class__ is {timedelta} and -106751990 < {v}.days < 106751990",
    _admit_timedelta,
    {"timedelta": timedelta},
)
UUID_ = Check("UUID", "{v}.__class__ is {UUID}", _admit_uuid, {"UUID": UUID})
AWARE = Check(
    "datetime",
    "{v}.__class__ is {datetime} and {v}.tzinfo is {utc}",
    _admit_aware,
    {"datetime": datetime, "utc": UTC},
)
NAIVE = Check(
    "datetime", "{v}.__class__ is {datetime} and {v}.tzinfo is None", _admit_naive, {"datetime": datetime}
)


# MariaDB takes no deeper nesting; Python writes and reads no longer integer by default.
JSON_LEVELS = 31
JSON_BIGGEST = 10**4000


def json_problem(value: Any, levels: int = JSON_LEVELS) -> str | None:
    """What JSON, or one of the databases, would change or refuse in *value*, or None.

    *levels*: how deep lists and dicts may be nested; a circle is deeper than that.
    """
    kind = type(value)
    if value is None or kind is bool:
        return None
    if kind is str:
        return "a NUL character" if "\0" in value else None if encodable(value) else "a lone surrogate"
    if kind is int:
        return None if abs(value) < JSON_BIGGEST else "an int of too many digits"
    if kind is float:
        return None if math.isfinite(value) else str(value)
    if kind is not list and kind is not dict:
        return shown(value)
    if not levels:
        return f"more than {JSON_LEVELS} levels"
    for key in value if kind is dict else ():
        if type(key) is not str:
            return f"the key {shown(key)}"
        if found := json_problem(key):
            return found
    for item in value.values() if kind is dict else value:
        if found := json_problem(item, levels - 1):
            return found
    return None


def json_check(container: type) -> Check:
    """A `dict` or `list` that comes back from JSON as it was."""
    expected = container.__name__

    def admit(value: Any) -> Any:
        if type(value) is not container:
            raise Refused(f"wants {expected}, not {shown(value)}")
        if (found := json_problem(value)) is not None:
            raise Refused(f"wants {expected} that JSON can hold, not one with {found}")
        return value

    names = {"container": container, "problem": json_problem}
    return Check(expected, "{v}.__class__ is {container} and {problem}({v}) is None", admit, names)


def json_text(value: Any) -> str:
    """*value* as JSON whose text is the same for equal values, and whose floats JSONB leaves floats.

    Keys are in order, since SQLite and MariaDB compare texts. JSONB keeps a number as its digits: of 1e+23 it
    makes an integer, of 100000000000000000000000.0 it does not. It knows no -0.0, which is 0.0 everywhere.
    """
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
