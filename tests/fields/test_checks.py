"""What a field takes, and what it says of the rest: the same on every database, before any SQL."""
# ruff: noqa: DTZ001 (naive moments are what some fields hold)

import enum
import math
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func

from microorm.fields import checks as values
from microorm.fields.checks import Check, InvalidFieldValue, shown
from tests.thorough import examples


class Colour(enum.Enum):
    RED = "red"


class Tone(enum.StrEnum):
    SOFT = "soft"


class Level(enum.IntEnum):
    LOW = 7


class Nowhere(tzinfo):
    """A zone that does not know its offset, so that a moment in it is naive."""

    def utcoffset(self, moment: datetime | None) -> None:
        return None


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Shape(TypedDict):
    side: int


class Text(str):
    """A str, and yet none that a driver knows."""


TEXT, SHORT = values.text_check(None), values.text_check(3)
BYTES, FEW = values.bytes_check(None), values.bytes_check(3)
MONEY, WHOLE, PARTS = values.decimal_check(5, 2), values.decimal_check(2, 0), values.decimal_check(2, 2)
ENUM, TONE = values.enum_check(Colour), values.enum_check(Tone)
LITERAL, TRUTH = values.literal_check(("a", "b")), values.literal_check((1, 2))
SMALL = values.int_check(16)
ANYTHING, DATE_ONLY = values.instance_check(Any), values.instance_check(date)

CHECKS = {
    "INT": values.INT, "SMALL": SMALL, "FLOAT": values.FLOAT, "BOOL": values.BOOL, "DATE": values.DATE,
    "TIME": values.TIME, "TIMEDELTA": values.TIMEDELTA, "UUID": values.UUID_, "AWARE": values.AWARE,
    "NAIVE": values.NAIVE, "TEXT": TEXT, "SHORT": SHORT, "BYTES": BYTES, "FEW": FEW, "MONEY": MONEY,
    "WHOLE": WHOLE, "PARTS": PARTS, "ENUM": ENUM, "TONE": TONE, "LITERAL": LITERAL, "TRUTH": TRUTH,
    "ANYTHING": ANYTHING, "DATE_ONLY": DATE_ONLY,
}  # fmt: skip

REFUSED = [
    ("INT", "5", "must be int, not str '5'"),
    ("INT", True, "must be int, not bool True"),
    ("INT", 1.0, "must be int, not float 1.0"),
    ("INT", 2**63, "must be int of 64 bits, not int of 65"),
    ("INT", -(2**63) - 1, "must be int of 64 bits, not int of 65"),
    ("SMALL", 2**15, "must be int of 16 bits, not int of 17"),
    ("SMALL", -(2**15) - 1, "must be int of 16 bits, not int of 17"),
    ("FLOAT", "1", "must be float, not str '1'"),
    ("FLOAT", False, "must be float, not bool False"),
    ("FLOAT", Decimal(1), "must be float, not Decimal('1')"),
    ("FLOAT", math.nan, "must be a finite float, not nan"),
    ("FLOAT", -math.inf, "must be a finite float, not -inf"),
    ("FLOAT", 10**400, "must be float, not an int too large for one"),
    ("FLOAT", 2**53 + 1, "must be float, not int 9007199254740993, which it cannot represent exactly"),
    ("BOOL", 1, "must be bool, not int 1"),
    ("BOOL", None, "must be bool, not None"),
    ("DATE", datetime(2024, 1, 1), "must be date, not datetime.datetime(2024, 1, 1, 0, 0)"),
    ("DATE", "2024-01-01", "must be date, not str '2024-01-01'"),
    ("TIME", time(1, tzinfo=UTC), "must be time without a time zone, not one with tzinfo"),
    ("TIME", datetime(2024, 1, 1), "must be time, not datetime.datetime(2024, 1, 1, 0, 0)"),
    ("TIMEDELTA", 5, "must be timedelta, not int 5"),
    ("TIMEDELTA", timedelta.max, "must be timedelta of at most 64 bits of microseconds, not a longer one"),
    ("TIMEDELTA", timedelta(microseconds=-(2**63)), "must be timedelta of at most 64 bits of microseconds, not a longer one"),
    ("UUID", "0" * 32, "must be UUID, not str '00000000000000000000000000000000'"),
    ("AWARE", datetime(2024, 1, 1), "must be datetime with a time zone, not a naive one"),
    ("AWARE", datetime(2024, 1, 1, tzinfo=Nowhere()), "must be datetime with a time zone, not a naive one"),
    ("AWARE", date(2024, 1, 1), "must be datetime, not datetime.date(2024, 1, 1)"),
    (
        "AWARE",
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        "must be datetime in the range of UTC, not one outside of it",
    ),
    ("NAIVE", datetime(2024, 1, 1, tzinfo=UTC), "must be datetime without a time zone, not an aware one"),
    ("NAIVE", 5, "must be datetime, not int 5"),
    ("TEXT", 5, "must be str, not int 5"),
    ("TEXT", b"a", "must be str, not bytes b'a'"),
    ("TEXT", "a\0b", "must be str, not str with a NUL character"),
    ("TEXT", "a\ud800b", "must be str, not str with a lone surrogate"),
    ("SHORT", "abcd", "must be str of at most 3 characters, not str of 4"),
    ("SHORT", "\0", "must be str of at most 3 characters, not str with a NUL character"),
    ("SHORT", "\udfff", "must be str of at most 3 characters, not str with a lone surrogate"),
    ("BYTES", "a", "must be bytes, not str 'a'"),
    ("BYTES", bytearray(b"a"), "must be bytes, not bytearray(b'a')"),
    ("FEW", b"abcd", "must be bytes of at most 3, not bytes of 4"),
    ("MONEY", 1.5, "must be Decimal of 5 digits, 2 after the point, not float 1.5"),
    ("MONEY", True, "must be Decimal of 5 digits, 2 after the point, not bool True"),
    ("MONEY", "1", "must be Decimal of 5 digits, 2 after the point, not str '1'"),
    ("MONEY", 1000, "must be Decimal of 5 digits, 2 after the point, not int 1000"),
    ("MONEY", Decimal("0.001"), "must be Decimal of 5 digits, 2 after the point, not Decimal('0.001')"),
    ("MONEY", Decimal("NaN"), "must be Decimal of 5 digits, 2 after the point, not Decimal('NaN')"),
    ("MONEY", Decimal("sNaN"), "must be Decimal of 5 digits, 2 after the point, not Decimal('sNaN')"),
    ("MONEY", Decimal("-Infinity"), "must be Decimal of 5 digits, 2 after the point, not Decimal('-Infinity')"),
    ("WHOLE", Decimal("1.5"), "must be Decimal of 2 digits, 0 after the point, not Decimal('1.5')"),
    ("WHOLE", Decimal("1E+2"), "must be Decimal of 2 digits, 0 after the point, not Decimal('1E+2')"),
    ("PARTS", 1, "must be Decimal of 2 digits, 2 after the point, not int 1"),
    ("ENUM", "red", "must be Colour, not str 'red'"),
    ("TONE", "soft", "must be Tone, not str 'soft'"),
    ("LITERAL", "c", "must be one of 'a', 'b', not str 'c'"),
    ("LITERAL", Text("a"), "must be one of 'a', 'b', not Text 'a'"),
    ("LITERAL", ["a"], "must be one of 'a', 'b', not list ['a']"),
    ("TRUTH", True, "must be one of 1, 2, not bool True"),
    ("TRUTH", 1.0, "must be one of 1, 2, not float 1.0"),
    ("DATE_ONLY", "x", "must be date, not str 'x'"),
]  # fmt: skip


def meets(check: Check, value: Any) -> bool:
    """Whether *value* fulfils the condition that is written into the collectors."""
    return bool(
        eval(
            check.condition.format(v="value", **{name: name for name in check.names}),
            {**check.names, "value": value},
        )
    )


@pytest.mark.parametrize(("name", "value", "message"), REFUSED, ids=[f"{n}-{m[6:40]}" for n, _, m in REFUSED])
def test_what_is_refused_is_told_by_expected_type_and_the_value(name, value, message) -> None:
    with pytest.raises(InvalidFieldValue) as refused:
        CHECKS[name].clean(value)
    assert str(refused.value) == message
    assert not meets(CHECKS[name], value)


TAKEN = [
    ("INT", 2**63 - 1, 2**63 - 1),
    ("INT", -(2**63), -(2**63)),
    ("INT", Level.LOW, 7),
    ("SMALL", -(2**15), -(2**15)),
    ("FLOAT", 3, 3.0),
    ("FLOAT", 2**60, float(2**60)),
    ("FLOAT", -0.0, 0.0),
    ("FLOAT", 5e-324, 5e-324),
    ("TIMEDELTA", timedelta(microseconds=2**63 - 1), timedelta(microseconds=2**63 - 1)),
    ("TIMEDELTA", timedelta(microseconds=-(2**63) + 1), timedelta(microseconds=-(2**63) + 1)),
    ("TIME", time(1, fold=1), time(1)),
    ("AWARE", datetime(2024, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), datetime(2024, 1, 1, tzinfo=UTC)),
    ("TEXT", Text("a"), "a"),
    ("TEXT", Tone.SOFT, "soft"),
    ("SHORT", "🎉🎉🎉", "🎉🎉🎉"),
    ("FEW", b"\0\0\0", b"\0\0\0"),
    ("MONEY", Decimal("-999.99"), Decimal("-999.99")),
    ("MONEY", Decimal("1.50000"), Decimal("1.50")),
    ("MONEY", Decimal("0E-99"), Decimal(0)),
    ("MONEY", Decimal("1E+2"), Decimal(100)),
    ("MONEY", 999, Decimal(999)),
    ("WHOLE", Decimal("99.0"), Decimal(99)),
    ("PARTS", Decimal("-0.99"), Decimal("-0.99")),
    ("ENUM", Colour.RED, Colour.RED),
    ("LITERAL", "b", "b"),
    ("TRUTH", 1, 1),
    ("ANYTHING", object, object),
    ("DATE_ONLY", datetime(2024, 1, 1), datetime(2024, 1, 1)),
]


@pytest.mark.parametrize(("name", "value", "stored"), TAKEN, ids=[f"{n}-{v!r}"[:40] for n, v, _ in TAKEN])
def test_what_is_taken_is_stored_as_the_plain_type(name, value, stored) -> None:
    admitted = CHECKS[name].clean(value)
    assert admitted == stored
    assert type(admitted) is type(stored)
    if isinstance(stored, float):
        assert math.copysign(1, admitted) == math.copysign(1, stored)


NUMBERS = st.integers() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.booleans() | st.decimals()
MOMENTS = (
    st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.times(timezones=st.none() | st.just(UTC))
)
TEXTS = st.text(st.characters(codec=None)) | st.sampled_from(["a", "b", "soft"]) | st.binary()
OTHERS = (
    st.none()
    | st.uuids()
    | st.timedeltas()
    | st.sampled_from([Colour.RED, Tone.SOFT, Text("a")])
    | st.lists(st.integers())
)


@pytest.mark.parametrize("name", CHECKS)
@settings(max_examples=examples(30))
@given(value=NUMBERS | MOMENTS | TEXTS | OTHERS)
def test_the_quick_way_and_the_careful_way_agree(name, value) -> None:
    """What the inlined condition lets through, the careful way takes, and leaves as it is."""
    check = CHECKS[name]
    if meets(check, value):
        admitted = check.clean(value)
        assert admitted is value or admitted == value
        assert type(admitted) is type(value)


def test_an_expression_is_no_value_of_any_type() -> None:
    """So that a collector sees it, whatever the field's type says of values."""
    assert [name for name, check in CHECKS.items() if meets(check, func.now())] == []


@pytest.mark.parametrize("value", [0, -1, 1, -128, 127, 128, -129, 2**15, -(2**15)])
def test_the_bits_of_an_int_include_its_sign(value) -> None:
    bits = values.signed_bits(value)
    assert -(2 ** (bits - 1)) <= value < 2 ** (bits - 1)
    assert bits == 1 or not -(2 ** (bits - 2)) <= value < 2 ** (bits - 2)


def test_a_class_that_knows_no_instances_takes_any_value() -> None:
    """A TypedDict or a protocol as the annotation of a custom type is not asked."""
    assert values.instance_check(Shape).clean(5) == 5
    union = values.instance_check(int | str)
    assert union.clean("x") == "x"
    with pytest.raises(InvalidFieldValue, match=r"^must be int \| str, not float 1.5$"):
        union.clean(1.5)


def test_a_value_is_shown_with_its_type_and_not_at_length() -> None:
    assert shown(None) == "None"
    assert shown("x" * 500) == f"str 'xxxxxxxxxxxxxxxxxxxxxxxxxxx...{'x' * 28}'"
    assert len(shown(Decimal("1" * 500))) < 80
    assert len(shown(list(range(500)))) < 80
    assert shown(10**5000) == "int <unprintable: ValueError>"
    assert shown(Rude()) == "Rude <unprintable Rude: RuntimeError>"
    assert shown([1, Rude()]) == "list [1, <unprintable Rude: RuntimeError>]"
