"""One Python value stays the same on every database: each cell of the table in docs/types.md, edges included (DESIGN 3)."""

import enum
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import ARRAY, JSON, Float, Integer, LargeBinary, SmallInteger, String, func, text
from sqlalchemy.exc import IntegrityError

import microorm
from microorm import Field, InvalidValue, ModelError

PARIS = ZoneInfo("Europe/Paris")
ALL_BYTES = bytes(range(256))
ODD_TEXTS = [
    "",
    "a",
    "A",
    "a ",
    " a",
    "a\t\n\r",
    "'\"`\\%:x%s?",
    "é",
    "e\u0301",
    "ß",
    "ss",
    "🎉👩‍👩‍👧",
    "\U0010ffff",
    "\x01\x7f",
]


class Colour(enum.Enum):
    RED = "red"
    ODD = 'it\'s \\ 100 % :x "q" ü🎉'
    SPACED = "red "
    EMPTY = ""


class Size(enum.Enum):
    SMALL = -1
    LARGE = 2**63 - 1


class Level(enum.IntEnum):
    LOW = 0
    HIGH = 10


class Tone(enum.StrEnum):
    SOFT = "soft"


@dataclass(frozen=True)
class Row:
    """One row of the table: an annotation, its options, and values at its edges."""

    annotation: Any
    edges: list[Any]
    options: dict[str, Any] = field(default_factory=dict)
    ordered: bool = False
    compared: bool = True


def nested(levels: int, leaf: Any) -> Any:
    for level in range(levels):
        leaf = {"k": leaf} if level % 2 else [leaf]
    return leaf


def decimals(*texts: str) -> list[Decimal]:
    return [Decimal(text) for text in texts]


def digits(digits: int, places: int) -> dict[str, int]:
    return {"max_digits": digits, "decimal_places": places}


INTS = [0, 1, -1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63)]
FLOATS = [
    0.1,
    -0.0,
    5e-324,
    -5e-324,
    sys.float_info.min,
    sys.float_info.max,
    -sys.float_info.max,
    1e22,
    1 / 3,
]
MOMENTS = [
    datetime.min.replace(tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
    datetime(2024, 2, 29, 12, 30, 15, 1, tzinfo=UTC),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-11, minutes=-30))),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=23, minutes=59, seconds=59, microseconds=7))),
    datetime(2024, 7, 1, 12, tzinfo=PARIS),
    datetime(2024, 10, 27, 2, 30, tzinfo=PARIS),  # twice on that night …
    datetime(2024, 10, 27, 2, 30, tzinfo=PARIS, fold=1),
    datetime(2024, 3, 31, 2, 30, tzinfo=PARIS),  # … and never on that one
]
NAIVE = [
    datetime.min,
    datetime.max,
    datetime(2024, 10, 27, 2, 30),
    datetime(2024, 10, 27, 2, 30, 0, 1, fold=1),
]  # noqa: DTZ001
SPANS = [
    timedelta(0),
    timedelta(microseconds=-1),
    timedelta(days=-1, microseconds=5),
    timedelta(days=400, hours=23, minutes=59, seconds=59, microseconds=999999),
    timedelta(microseconds=2**63 - 1),
    -timedelta(microseconds=2**63 - 1),
]
MONEY = ("0", "-0", "0.01", "-0.1", "1.5", "1.500", "1E+3", "0E-9", "9999999999999.99", "-9999999999999.99")
DICTS = [
    {},
    {"": None, "k": [1, "x", True, {"é🎉": []}], "z": 0, "a": {"b": {}}},
    {"floats": [0.1, 1.0, 1e16, 1e23, -1.5e300, 5e-324, sys.float_info.max]},
    {"ints": [2**53 + 1, -(2**200), 0], "e+": "1e+23"},
    {"text": ["'\"\\%:x", "\n\x01", "e+"]},
    nested(30, "leaf"),
]

ROWS = {
    "int": Row(int, INTS, ordered=True),
    "float": Row(float, FLOATS, ordered=True),
    "bool": Row(bool, [True, False], ordered=True),
    "str": Row(str, [*ODD_TEXTS, "x" * 70_000, "🎉" * 20_000]),
    "str(30)": Row(str, [*ODD_TEXTS, "🎉" * 30], {"max_length": 30}),
    "str(20_000)": Row(str, ["", "🎉" * 20_000], {"max_length": 20_000}),
    "bytes": Row(bytes, [b"", b"\0", ALL_BYTES, ALL_BYTES * 300], ordered=True),
    "bytes(256)": Row(bytes, [b"", b"\0", b"a ", b"a", ALL_BYTES], {"max_length": 256}, ordered=True),
    "bytes(70_000)": Row(bytes, [b"", b"\xff" * 70_000], {"max_length": 70_000}),
    "Decimal(15, 2)": Row(Decimal, decimals(*MONEY), digits(15, 2), ordered=True),
    "Decimal(15, 15)": Row(
        Decimal, decimals("0.999999999999999", "-1E-15", "0.1"), digits(15, 15), ordered=True
    ),
    "Decimal(1, 0)": Row(Decimal, decimals("9", "-9", "3.0", "0"), digits(1, 0), ordered=True),
    "datetime": Row(datetime, MOMENTS, ordered=True),
    "naive datetime": Row(datetime, NAIVE, {"timezone": False}, ordered=True),
    "date": Row(date, [date.min, date.max, date(2024, 2, 29)], ordered=True),
    "time": Row(time, [time.min, time.max, time(12, 30, 15, 1), time(1, fold=1)], ordered=True),
    "timedelta": Row(timedelta, SPANS, ordered=True),
    "UUID": Row(UUID, [UUID(int=0), UUID(int=2**128 - 1), UUID("0123456789abcdef0123456789abcdef")]),
    "Enum of str": Row(Colour, list(Colour)),
    "Enum of int": Row(Size, list(Size)),
    "IntEnum": Row(Level, list(Level)),
    "StrEnum": Row(Tone, list(Tone)),
    "Literal of str": Row(Literal["a", "A", "a ", "it's %"], ["a", "A", "a ", "it's %"]),
    "Literal of int": Row(Literal[1, -5], [1, -5]),
    "Literal of bool": Row(Literal[True, False], [True, False]),
    "dict": Row(dict[str, Any], DICTS),
    "list": Row(list[Any], [[], [None], [[], {}, 1, 1.0, True], ["🎉", 1e20], nested(31, 1)]),
    "type_=String(5)": Row(str, ["", "12345"], {"type_": String(5)}),
    "type_=SmallInteger": Row(int, [-(2**15), 2**15 - 1], {"type_": SmallInteger}),
    "type_=Integer": Row(int, [-(2**31), 2**31 - 1], {"type_": Integer()}),
    "type_=JSON": Row(
        dict[str, Any], [{}, {"b": 1, "a": [1.5]}], {"type_": JSON(none_as_null=True)}, compared=False
    ),
    "type_=LargeBinary": Row(bytes, [b"", ALL_BYTES], {"type_": LargeBinary(256)}),
}
SERVER_ROWS = {
    "Decimal(65, 30)": Row(
        Decimal,
        decimals("9" * 35 + "." + "9" * 30, "-1E-30", "1.2345678901234567890E+25", "0"),
        digits(65, 30),
        ordered=True,
    ),
}
POSTGRESQL_ROWS = {"type_=ARRAY(Float)": Row(list[float], [[], [0.1, 5e-324]], {"type_": ARRAY(Float(53))})}


NUMBERS = itertools.count(1)  # psycopg remembers the columns of a table whose name it has seen


@pytest.fixture(scope="module")
def opened(find_server, tmp_path_factory) -> Iterator[Callable[[str], microorm.Databases]]:
    """Gives an open database of a kind, the same for all tests of this file: each makes a table of its own in it."""
    made: dict[str, microorm.Databases] = {}
    drops: list[Callable[[], None]] = []

    def open_(backend: str) -> microorm.Databases:
        if backend not in made:
            url = "sqlite://"
            if backend == "sqlite-file":
                url = f"sqlite:///{tmp_path_factory.mktemp('types') / 'types.db'}"
            elif backend != "sqlite-memory":
                server = find_server(backend)
                name, url = server.fresh()
                drops.append(lambda: server.drop(name))
            made[backend] = microorm.Databases({"default": url})
        return made[backend]

    yield open_
    for databases in made.values():
        databases.close()
    for drop in drops:
        drop()


@pytest.fixture
def registry(backend, fresh_url, opened) -> Iterator[microorm.Registry]:
    """An empty registry over the databases of this file; `fresh_url` is what skips where there is no server."""
    registry = microorm.Registry(opened(backend))
    yield registry
    registry.drop_all()


def each(rows: dict[str, Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in rows.items()])


def model_of(Base, registry, row: Row) -> Any:
    """A model with one field of the row's type, and one that may also be None."""

    class Thing(Base, table=f"thing_{next(NUMBERS)}"):
        value: Field[row.annotation] = microorm.field(**row.options)
        perhaps: Field[row.annotation | None] = microorm.field(default=None, **row.options)

    registry.create_all()
    return Thing


def stored(model: Any, value: Any) -> Any:
    """What *value* is once it was stored: the same moment in UTC, a zero without sign, else itself."""
    return model.__schema__.field("value").admit(value)


def same(found: Any, wanted: Any) -> bool:
    """Equal and of one type, all the way down, with the sign of a zero and the zone of a moment."""
    if type(found) is not type(wanted) or found != wanted:
        return False
    if isinstance(wanted, float):
        return math.copysign(1, found) == math.copysign(1, wanted)
    if isinstance(wanted, dict):
        return all(same(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return not isinstance(wanted, datetime) or found.tzinfo is wanted.tzinfo


def check_round_trip(Base, registry, row: Row) -> None:
    Thing = model_of(Base, registry, row)
    with registry.databases.atomic():  # one commit instead of one per statement
        check_each_way(Thing, row)


def check_each_way(Thing: Any, row: Row) -> None:
    objects = Thing.objects

    def check(key: int, value: Any, perhaps: Any) -> None:
        found = objects.get(id=key)
        assert same(found.value, stored(Thing, value))
        assert same(found.perhaps, None if perhaps is None else stored(Thing, perhaps))
        assert found.changes() == {}

    for value in row.edges:
        alone = Thing(value=value).save()
        assert alone.changes() == {}
        check(alone.id, value, None)
        both = objects.create(value=value, perhaps=value)
        check(both.id, value, value)
        both.perhaps = None
        both.save()
        assert both.changes() == {}
        check(both.id, value, None)
    for thing in (many := objects.bulk_create([Thing(value=v, perhaps=v) for v in row.edges])):
        assert thing.changes() == {}
        check(thing.id, thing.value, thing.value)
    first = many[0]
    for value in row.edges:
        first.value = first.perhaps = value
        first.save(update_fields=["value", "perhaps"])
        assert first.changes() == {}
        check(first.id, value, value)
        assert objects.filter(id=many[-1].id).update(value=value, perhaps=None) == 1
        check(many[-1].id, value, None)
        assert objects.filter(id=many[-1].id).update(value=value, perhaps=value) == 1
        check(many[-1].id, value, value)
    objects.filter(id=first.id).update(perhaps=Thing.value, value=Thing.value)
    check(first.id, row.edges[-1], row.edges[-1])


def check_comparisons(Base, registry, row: Row) -> None:
    Thing = model_of(Base, registry, row)
    things = Thing.objects.bulk_create([Thing(value=value) for value in row.edges])
    held = {thing.id: stored(Thing, thing.value) for thing in things}
    for value in row.edges:
        wanted = {key for key, each in held.items() if each == stored(Thing, value)}
        assert {found.id for found in Thing.objects.filter(value=value)} == wanted
        assert {found.id for found in Thing.objects.filter(Thing.value == value)} == wanted
        assert {found.id for found in Thing.objects.exclude(value=value)} == held.keys() - wanted
        assert {found.id for found in Thing.objects.filter(Thing.value != value)} == held.keys() - wanted
        assert {found.id for found in Thing.objects.filter(Thing.value.in_([value]))} == wanted
    assert Thing.objects.filter(perhaps=None).count() == len(things)
    assert Thing.objects.filter(perhaps=row.edges[0]).count() == 0
    if row.ordered:
        ordered = [found.value for found in Thing.objects.order_by("value")]
        assert ordered == sorted(held.values())


@each(ROWS)
def test_a_value_comes_back_the_same(Base, registry, row) -> None:
    """By save, create, bulk_create and update(), changed or None; nothing counts as changed afterwards."""
    check_round_trip(Base, registry, row)


@pytest.mark.servers_only
@each(SERVER_ROWS)
def test_a_value_of_the_servers_comes_back_the_same(Base, registry, row) -> None:
    check_round_trip(Base, registry, row)


@pytest.mark.backends("postgresql")
@each(POSTGRESQL_ROWS)
def test_a_value_of_postgresql_comes_back_the_same(Base, registry, row) -> None:
    check_round_trip(Base, registry, row)


@each({name: row for name, row in ROWS.items() if row.compared})
def test_a_value_finds_its_row_and_no_other(Base, registry, row) -> None:
    """By equality and by expression; the order is Python's where the table says so."""
    check_comparisons(Base, registry, row)


@pytest.mark.servers_only
@each(SERVER_ROWS)
def test_a_value_of_the_servers_finds_its_row(Base, registry, row) -> None:
    check_comparisons(Base, registry, row)
