"""Values of SQLite through a change of their column's type: the same values, or a refusal that changes nothing."""

import json
import math
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from microorm import Databases, Field, field, types
from microorm.errors import MigrationError
from microorm.migrations import Migrations, write_environment
from microorm.migrations.conversion import converter, keeps_values
from tests.migrations.shop import define, execute, history, new_base
from tests.thorough import examples

MOMENT = "2024-01-02 03:04:05.000006"
DAY = "2024-02-29"
HEX = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("value", "stored", "wanted", "after"),
    [
        (DAY, sa.Date(), sa.DateTime(), f"{DAY} 00:00:00.000000"),
        (MOMENT, sa.DateTime(), sa.Date(), "2024-01-02"),
        (DAY, sa.String(40), sa.Date(), DAY),
        (DAY, sa.Date(), sa.String(10), DAY),
        (MOMENT, sa.DateTime(), sa.Text(), MOMENT),
        ("2024-01-02T05:04:05+02:00", sa.Text(), types.UtcDateTime(), "2024-01-02 03:04:05.000000"),
        ("03:04", sa.String(40), sa.Time(), "03:04:00.000000"),
        ("12", sa.String(40), sa.Integer(), 12),
        (1.0, sa.Double(), sa.Integer(), 1),
        (7, sa.Integer(), sa.Double(), 7.0),
        (1.5, sa.Numeric(8, 2), sa.Text(), "1.50"),
        ("1.5", sa.Text(), types.ExactNumeric(8, 2), 1.5),
        (1, sa.Boolean(), sa.Integer(), 1),
        ("TRUE", sa.Text(), sa.Boolean(), 1),
        (1, sa.Boolean(), sa.JSON(), "true"),
        ('{"a": 1}', sa.Text(), sa.JSON(), '{"a": 1}'),
        (b"\xc3\xa9", sa.LargeBinary(), sa.Text(), "é"),
        ("é", sa.Text(), sa.LargeBinary(), b"\xc3\xa9"),
        (str(uuid.UUID(HEX)), sa.String(40), sa.Uuid(), HEX),
        (uuid.UUID(HEX).bytes, sa.LargeBinary(), sa.Uuid(), HEX),
    ],
)
def test_a_value_keeps_its_meaning(value: Any, stored: Any, wanted: Any, after: Any) -> None:
    convert = converter(stored, wanted)
    assert convert is not None
    assert (convert(value), type(convert(value))) == (after, type(after))
    assert convert(None) is None


@pytest.mark.parametrize(
    ("value", "stored", "wanted", "why"),
    [
        ("abc", sa.Text(), sa.Integer(), "no integer"),
        ("1.0", sa.Text(), sa.Integer(), "no integer"),
        (1.7, sa.Double(), sa.Integer(), "more than 0 digits"),
        (2.0**70, sa.Double(), sa.Integer(), "64 bits"),
        (2**53 + 1, sa.Integer(), sa.Double(), "exact"),
        ("nan", sa.Text(), sa.Double(), "no number"),
        (b"1", sa.LargeBinary(), sa.Double(), "no number"),
        (1.25, sa.Double(), types.ExactNumeric(8, 1), "more than 1 digits"),
        (12345, sa.Integer(), types.ExactNumeric(5, 2), "too many digits"),
        ("Dune", sa.Text(), sa.String(3), "4 characters"),
        (b"\xff", sa.LargeBinary(), sa.Text(), "decode"),
        (1, sa.Integer(), sa.LargeBinary(), "no text"),
        (2, sa.Integer(), sa.Boolean(), "neither"),
        ("yesterday", sa.Text(), sa.Date(), "isoformat"),
        (2024, sa.Integer(), sa.Date(), "no date"),
        ("03:04:05", sa.Time(), sa.DateTime(), "no moment"),
        ("2024-01-02T05:04:05+02:00", sa.Text(), sa.DateTime(), "time zone"),
        (MOMENT, sa.DateTime(), sa.Time(), "no time of a day"),
        ("abc", sa.Text(), sa.JSON(), "Expecting value"),
        ("NaN", sa.Text(), sa.JSON(), "no JSON"),
        (b"{}", sa.LargeBinary(), sa.JSON(), "no JSON"),
        ("abc", sa.Text(), sa.Uuid(), "badly formed"),
    ],
)
def test_a_value_that_would_change_is_refused(value: Any, stored: Any, wanted: Any, why: str) -> None:
    convert = converter(stored, wanted)
    assert convert is not None
    with pytest.raises(ValueError, match=why):
        convert(value)


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        (sa.String(40), sa.String(80)),
        (sa.String(40), sa.Text()),
        (sa.LargeBinary(4), sa.LargeBinary()),
        (sa.Integer(), sa.BigInteger()),
        (sa.Integer(), types.Duration()),
        (sa.DateTime(), types.UtcDateTime()),
        (sa.Text(), sa.types.NullType()),
    ],
)
def test_a_type_with_more_room_needs_no_conversion(stored: Any, wanted: Any) -> None:
    assert converter(stored, wanted) is None


def test_numbers_and_shorter_texts_are_kept_or_refused() -> None:
    assert keeps_values(sa.String(40), sa.String(3))
    assert keeps_values(sa.Integer(), sa.Double())
    assert not keeps_values(sa.Date(), sa.DateTime())
    assert not keeps_values(sa.Text(), sa.Integer())


# Whole tables

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
NUMERALS = st.one_of(
    st.integers(-99, 99).map(str),
    st.sampled_from(["1.5", "1e3", "true", "nan", "2024-02-29", "03:04", MOMENT, '{"a": 1}', HEX, ""]),
)
KINDS: dict[str, tuple[Any, Any, Any]] = {
    "int": (Field[int], {}, st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 99)),
    "float": (
        Field[float],
        {},
        st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9).map(float),
    ),
    "bool": (Field[bool], {}, st.booleans()),
    "str": (Field[str], {}, TEXT | NUMERALS),
    "short": (Field[str], {"max_length": 3}, st.text("ab01", max_size=3)),
    "date": (Field[date], {}, st.dates()),
    "moment": (Field[datetime], {}, st.datetimes(timezones=st.just(UTC))),
    "naive": (Field[datetime], {"timezone": False}, st.datetimes()),
    "time": (Field[time], {}, st.times()),
    "bytes": (Field[bytes], {}, st.binary(max_size=4) | st.binary(min_size=16, max_size=16)),
    "money": (Field[Decimal], {"max_digits": 8, "decimal_places": 2}, st.decimals(-999, 999, places=2)),
    "tenths": (Field[Decimal], {"max_digits": 4, "decimal_places": 1}, st.decimals(-99, 99, places=1)),
    "uuid": (Field[uuid.UUID], {}, st.uuids()),
    "json": (
        Field[dict[str, int]],
        {},
        st.dictionaries(st.text("ab", max_size=1), st.integers(-9, 9), max_size=2),
    ),
    "duration": (Field[timedelta], {}, st.timedeltas(timedelta(days=-(10**8)), timedelta(days=10**8))),
}
NUMBERS = int | float | Decimal
MICROSECOND = timedelta(microseconds=1)


def plain(value: Any) -> Any:
    """A duration as the number that it is stored as, and a truth value as 0 or 1."""
    if isinstance(value, bool):
        return int(value)
    return value // MICROSECOND if isinstance(value, timedelta) else value


def means_the_same(before: Any, after: Any) -> bool:
    """Whether *after* is what *before* says, for a user who reads both; written apart from the conversion."""
    before, after = plain(before), plain(after)
    match before, after:
        case (datetime(), datetime()):
            return before.replace(tzinfo=None) == after.replace(tzinfo=None)
        case (datetime(), date()):
            return before.date() == after
        case (date(), datetime()):
            return (after.date(), after.time()) == (before, time())
        case (int() | float() | Decimal(), int() | float() | Decimal()):
            return Decimal(str(before)) == Decimal(str(after)) or before == after
        case (str(), str()) | (bytes(), bytes()) | (date(), date()) | (time(), time()):
            return before == after
        case (uuid.UUID(), uuid.UUID()) | (dict(), dict()):
            return before == after
        case (bytes(), str()):
            return before == after.encode()
        case (bytes(), uuid.UUID()):
            return before == after.bytes
        case (_, str()):
            return _reads(after, before)
        case (uuid.UUID() | dict(), bytes()):  # as text
            return _reads(after.decode(), before)
        case (str(), _):
            return _reads(before, after)
    # a number is JSON
    return isinstance(before, NUMBERS) and json.loads(json.dumps(after)) == before


def _reads(text: str, value: Any) -> bool:
    """Whether *text* says *value*."""
    match value:
        case 0 | 1 if text.strip().lower() in ("false", "true"):
            return text.strip().lower() == str(bool(value)).lower()
        case int() | float() | Decimal():
            return Decimal(text) == Decimal(str(value)) or math.isclose(
                float(text), value, rel_tol=0, abs_tol=0
            )
        case datetime():
            return datetime.fromisoformat(text.strip()).replace(tzinfo=None) == value.replace(tzinfo=None)
        case date():
            return date.fromisoformat(text.strip()) == value
        case time():
            return time.fromisoformat(text.strip()) == value
        case uuid.UUID():
            return uuid.UUID(text) == value
        case bytes():
            return text.encode() == value
        case dict():
            return bool(json.loads(text) == value)
    return False


@st.composite
def changes(draw: Any) -> tuple[list[str], list[str], list[list[Any]]]:
    """The kinds of the columns before and after, and rows."""
    before = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3))
    after = [draw(st.sampled_from(sorted(KINDS)) | st.just(kind)) for kind in before]
    row = st.tuples(*(KINDS[kind][2] for kind in before)).map(list)
    return before, after, draw(st.lists(row, min_size=1, max_size=3))


def table(databases: Databases, folder: Path, kinds: list[str]) -> tuple[Any, Migrations]:
    base = new_base(databases)
    declared = {f"c{number}": (KINDS[kind][0], field(**KINDS[kind][1])) for number, kind in enumerate(kinds)}
    return define(base, "Thing", declared), history(base, folder)


def stored(databases: Databases) -> list[Any]:
    return [
        execute(databases, "SELECT sql FROM sqlite_master ORDER BY name"),
        execute(databases, "SELECT * FROM thing"),
        execute(databases, "SELECT * FROM alembic_version"),
    ]


@pytest.mark.slow
@settings(deadline=None, max_examples=examples(25), suppress_health_check=list(HealthCheck))
@given(changes())
@example((["json", "uuid"], ["bytes", "bytes"], [[{}, uuid.UUID(HEX)]]))
def test_random_tables_keep_their_values_or_are_left_alone(
    change: tuple[list[str], list[str], list[Any]],
) -> None:
    before, after, rows = change
    with TemporaryDirectory() as place, Databases(f"sqlite:///{place}/things.db") as databases:
        folder = Path(place) / "migrations"
        write_environment(folder)
        thing, migrations = table(databases, folder, before)
        migrations.make("before")
        migrations.migrate()
        for row in rows:
            thing(**{f"c{number}": value for number, value in enumerate(row)}).save()
        thing, migrations = table(databases, folder, after)
        if migrations.make("after") is None:
            assert all(
                len({before[i], after[i]} - {"moment", "naive", "int", "duration"}) < 2
                for i in range(len(before))
            )
            return
        found = stored(databases)
        refused = ""
        try:
            migrations.migrate()
        except MigrationError as error:
            refused = str(error)
        if refused:
            assert "in the row" in refused
            assert stored(databases) == found
            return
        assert migrations.check() == []
        for kept, row in zip(thing.objects.order_by("id"), rows, strict=True):
            for number, value in enumerate(row):
                assert means_the_same(value, getattr(kept, f"c{number}")), (before[number], after[number])
