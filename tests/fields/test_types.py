"""One Python value stays the same on every database: each cell of the table in docs/types.md, edges included."""
# ruff: noqa: DTZ001, DTZ901 (naive moments are what some fields hold)

import enum
import itertools
import math
import re
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
from sqlalchemy import (
    ARRAY,
    JSON,
    Float,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    create_engine,
    func,
    make_url,
    text,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

import microorm
from microorm import Field, InvalidValue, ModelError
from microorm.fields.checks import InvalidFieldValue
from tests.servers import Server
from tests.thorough import examples

APART = pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")  # a file holds what memory does
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
]
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
    "list": Row(list[Any], [[], [None], [[], {}, 1, 1.0, True], ["🎉", 1e20], [-0.0, [-0.0]], nested(31, 1)]),
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
    borrowed: list[tuple[Server, str]] = []

    def open_(backend: str) -> microorm.Databases:
        if backend not in made:
            url = "sqlite://"
            if backend == "sqlite-file":
                url = f"sqlite:///{tmp_path_factory.mktemp('types') / 'types.db'}"
            elif backend != "sqlite-memory":
                server = find_server(backend)
                name, url = server.borrow()
                borrowed.append((server, name))
            made[backend] = microorm.Databases({"default": url})
        return made[backend]

    yield open_
    for databases in made.values():
        databases.close()
    for server, name in borrowed:
        server.give_back([name])


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
    clean = model.__schema__.field("value").clean(value)
    return without_signs(clean) if isinstance(clean, (dict, list)) else clean


def without_signs(value: Any) -> Any:
    """Return the document *value* with its negative zeros as zeros."""
    if isinstance(value, dict):
        return {key: without_signs(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_signs(each) for each in value]
    return 0.0 if isinstance(value, float) and not value else value


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


def check_each_way(Thing: Any, row: Row) -> None:
    objects, edges = Thing.objects, row.edges
    check_stored([(Thing(value=value).save(), value, None) for value in edges])
    both = [(objects.create(value=value, perhaps=value), value, value) for value in edges]
    check_stored(both)
    for thing, *_ in both:
        thing.perhaps = None
        thing.save()
    check_stored([(thing, value, None) for thing, value, _ in both])
    many = objects.bulk_create([Thing(value=value, perhaps=value) for value in edges])
    check_stored([(thing, value, value) for thing, value in zip(many, edges, strict=True)])
    shifted = list(zip(many, [*edges[1:], edges[0]], strict=True))
    for thing, value in shifted:
        thing.value = thing.perhaps = value
        thing.save(update_fields=["value", "perhaps"])
    check_stored([(thing, value, value) for thing, value in shifted])
    again = list(zip(many, edges, strict=True))
    for perhaps in (False, True):
        for thing, value in again:
            assert objects.filter(id=thing.id).update(value=value, perhaps=value if perhaps else None) == 1
            thing.refresh_from_db()
        check_stored([(thing, value, value if perhaps else None) for thing, value in again])
    objects.filter(id=many[0].id).update(perhaps=Thing.value, value=Thing.value)
    check_stored([(many[0], edges[0], edges[0])])


def check_stored(written: list[tuple[Any, Any, Any]]) -> None:
    """Each instance is stored with its value and its other one, and neither it nor what is read counts as changed."""
    Thing = type(written[0][0])
    rows = {each.id: each for each in Thing.objects.filter(Thing.id.in_([thing.id for thing, *_ in written]))}
    assert len(rows) == len(written)
    for thing, value, perhaps in written:
        found = rows[thing.id]
        assert same(found.value, stored(Thing, value))
        assert same(found.perhaps, None if perhaps is None else stored(Thing, perhaps))
        assert (found.changes(), thing.changes()) == ({}, {})


def check_comparisons(Thing: Any, row: Row) -> None:
    Thing.objects.delete()
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


def check_row(Base, registry, row: Row) -> None:
    Thing = model_of(Base, registry, row)
    with registry.databases.atomic():  # one commit instead of one per statement
        check_each_way(Thing, row)
        if row.compared:
            check_comparisons(Thing, row)


@APART
@each(ROWS)
def test_a_value_comes_back_the_same_and_finds_its_row_and_no_other(Base, registry, row) -> None:
    """By save, create, bulk_create and update(), changed or None, and nothing counts as changed afterwards.

    It is found by equality and by expression, and the order is Python's where the table says so.
    """
    check_row(Base, registry, row)


@pytest.mark.servers_only
@each(SERVER_ROWS)
def test_a_value_of_the_servers_comes_back_the_same_and_finds_its_row(Base, registry, row) -> None:
    check_row(Base, registry, row)


@pytest.mark.backends("postgresql")
@each(POSTGRESQL_ROWS)
def test_a_value_of_postgresql_comes_back_the_same_and_finds_its_row(Base, registry, row) -> None:
    check_row(Base, registry, row)


KEYS = {
    "int": (int, [0, -(2**63), 2**63 - 1], {}),
    "str": (str, ["", "a", "A", "a ", "é", "🎉" * 5], {"max_length": 5}),
    "bytes": (bytes, [b"", b"\0", b"a", b"a "], {"max_length": 2}),
    "Decimal": (Decimal, decimals("0.1", "9999999999999.99"), digits(15, 2)),
    "datetime": (datetime, [MOMENTS[1], MOMENTS[6], MOMENTS[7]], {}),
    "date": (date, [date.min, date.max], {}),
    "UUID": (UUID, [UUID(int=0), UUID(int=2**127)], {}),
    "Enum": (Colour, list(Colour), {}),
    "Literal": (Literal["a", "A"], ["a", "A"], {}),
}


@APART
@pytest.mark.parametrize("name", KEYS)
def test_a_value_is_a_key(Base, registry, name) -> None:
    """Saved, read, updated, refreshed and deleted by it; no two values are one key, and equal instances have one hash."""
    annotation, values, options = KEYS[name]

    class Thing(Base, table=f"thing_{next(NUMBERS)}"):
        key: Field[annotation] = microorm.field(primary_key=True, **options)
        number: Field[int] = microorm.field(default=0)

    registry.create_all()
    with registry.databases.atomic():
        things = [Thing(key=value, number=number).save() for number, value in enumerate(values)]
        for number, (thing, value) in enumerate(zip(things, values, strict=True)):
            found = Thing.objects.get(pk=value)
            assert (found.number, found.changes()) == (number, {})
            found.number = 100 + number
            found.save()
            thing.refresh_from_db()
            assert thing.number == 100 + number
        assert Thing.objects.count() == len(values)
        assert {hash(thing) for thing in things} == {hash(found) for found in Thing.objects.all()}
        for left, thing in enumerate(reversed(things)):
            assert thing.delete()[0] == 1
            assert Thing.objects.count() == len(values) - 1 - left


def test_text_is_compared_letter_by_letter(Base, registry) -> None:
    """Case, trailing blanks, accents and composed letters make a difference, in a unique column, too."""

    class Word(Base, table=f"word_{next(NUMBERS)}"):
        text: Field[str] = microorm.field(max_length=20, unique=True)
        kind: Field[str] = microorm.field()

    registry.create_all()
    words = [*ODD_TEXTS, "a  ", "Ä", "ä", "A\u0308", "ss ", "SS", "ı", "i", "I", "İ"]
    Word.objects.bulk_create([Word(text=word, kind=word) for word in words])
    for word in words:
        assert [each.text for each in Word.objects.filter(text=word)] == [word]
        assert [each.text for each in Word.objects.filter(Word.kind == word)] == [word]
        assert [each.text for each in Word.objects.filter(Word.text == Word.kind, kind=word)] == [word]
    with pytest.raises(IntegrityError):
        Word(text="a ", kind="").save()


def test_listed_values_are_checked_by_the_database_too(Base, registry) -> None:
    """A CHECK keeps raw SQL to the values of an Enum or Literal; NULL passes where None does."""

    class Paint(Base, table=f"paint_{next(NUMBERS)}"):
        colour: Field[Colour]
        size: Field[Size | None] = microorm.field(default=None)
        tone: Field[Literal["a", "b"]] = microorm.field(default="a")
        level: Field[Literal[1, 2]] = microorm.field(default=1)

    registry.create_all()
    for colour in Colour:
        Paint(colour=colour).save()
    table, databases = Paint.__table__.name, registry.databases
    for column, bad in [
        ("colour", "'RED'"),
        ("colour", "'Red'"),
        ("colour", "'red  '"),
        ("size", "0"),
        ("tone", "'B'"),
        ("level", "3"),
    ]:
        with (
            pytest.raises(DBAPIError, match=f"ck_{table}_{column}"),
            databases.connection("default") as connection,
        ):
            connection.execute(text(f"UPDATE {table} SET {column} = {bad}"))
    assert Paint.objects.filter(tone="a", level=1).count() == len(Colour)


class Plain:
    """Subclasses of what fields take; no driver knows them."""

    class Int(int): ...

    class Number(float): ...

    class Text(str):
        def __len__(self) -> int:
            return 0

    class Blob(bytes): ...

    class Exact(Decimal): ...

    class Moment(datetime): ...

    class Day(date): ...

    class Clock(time): ...

    class Span(timedelta): ...

    class Id(UUID): ...


SUBCLASSES = {
    "int": (int, Plain.Int(5), 5, {}),
    "float": (float, Plain.Number(0.1), 0.1, {}),
    "an int for a float": (float, 3, 3.0, {}),
    "str": (str, Plain.Text("abc"), "abc", {"max_length": 3}),
    "bytes": (bytes, Plain.Blob(b"abc"), b"abc", {}),
    "Decimal": (Decimal, Plain.Exact("0.5"), Decimal("0.5"), digits(5, 2)),
    "an int for a Decimal": (Decimal, 3, Decimal(3), digits(5, 2)),
    "datetime": (
        datetime,
        Plain.Moment(2024, 1, 1, tzinfo=PARIS),
        datetime(2023, 12, 31, 23, tzinfo=UTC),
        {},
    ),
    "naive": (datetime, Plain.Moment(2024, 1, 1), datetime(2024, 1, 1), {"timezone": False}),
    "date": (date, Plain.Day(2024, 1, 1), date(2024, 1, 1), {}),
    "time": (time, Plain.Clock(1, 2, 3, 4), time(1, 2, 3, 4), {}),
    "timedelta": (timedelta, Plain.Span(1, 2, 3), timedelta(1, 2, 3), {}),
    "UUID": (UUID, Plain.Id(int=5), UUID(int=5), {}),
}


@APART
def test_a_value_of_a_subclass_is_stored_as_what_it_is(Base, registry, subtests) -> None:
    fields = {name: f"field_{number}" for number, name in enumerate(SUBCLASSES)}
    annotations = {fields[name]: Field[annotation] for name, (annotation, *_) in SUBCLASSES.items()}
    options = {fields[name]: microorm.field(**options) for name, (*_, options) in SUBCLASSES.items()}
    body = {**options, "__annotations__": annotations, "__module__": __name__}
    Thing: Any = type(Base)("Thing", (Base,), body, table=f"thing_{next(NUMBERS)}")
    registry.create_all()
    thing = Thing(**{fields[name]: value for name, (_, value, *_) in SUBCLASSES.items()}).save()
    assert thing.changes() == {}
    for name, (_, value, plain, _) in SUBCLASSES.items():
        with subtests.test(name):
            field = fields[name]
            assert same(getattr(Thing.objects.get(**{field: value}), field), plain)
            assert Thing.objects.filter(getattr(Thing, field) == value).count() == 1


def test_decimals_of_more_digits_than_sqlite_keeps_are_refused_there(sqlite_url) -> None:
    with microorm.Databases({"default": sqlite_url}) as databases:
        registry = microorm.Registry(databases)

        class Thing(microorm.Model, registry=registry):
            value: Field[Decimal] = microorm.field(max_digits=16, decimal_places=2)

        with pytest.raises(
            ModelError, match="a Decimal of max_digits=16 would not be exact on SQLite, which keeps 15 digits"
        ):
            registry.create_all()


def test_an_expression_is_stored_as_its_value_would_be(Base, registry) -> None:
    """A Decimal that SQL computed has the column's places, so that its value finds it; so has a moment of SQL's clock."""

    class Price(Base, table=f"price_{next(NUMBERS)}"):
        net: Field[Decimal] = microorm.field(max_digits=15, decimal_places=2)
        span: Field[timedelta] = microorm.field(default=timedelta(hours=1))
        seen: Field[datetime] = microorm.field(default=datetime(2000, 1, 1, tzinfo=UTC))
        local: Field[datetime] = microorm.field(default=datetime(2000, 1, 1), timezone=False)

    registry.create_all()
    price = Price(net=Decimal("0.10")).save()
    price.net = Price.net + Decimal("0.20")
    price.span = Price.span * 3
    price.seen = func.now()
    price.local = func.current_timestamp()
    price.save()
    assert (price.net, price.span, price.changes()) == (Decimal("0.30"), timedelta(hours=3), {})
    assert abs(datetime.now(UTC) - price.seen) < timedelta(minutes=5)
    assert abs(price.seen.replace(tzinfo=None) - price.local) < timedelta(seconds=5)
    found = Price.objects.get(net=price.net, span=price.span, seen=price.seen, local=price.local)
    assert found.id == price.id
    Price.objects.update(net=Price.net / 7, span=-Price.span * 0.5, seen=func.now(), local=func.now())
    changed = Price.objects.get(net=Decimal("0.04"), span=timedelta(hours=-1.5))
    assert Price.objects.get(seen=changed.seen, local=changed.local).seen >= price.seen - timedelta(seconds=1)


def test_the_database_s_clock_tells_utc(Base, registry) -> None:
    """`server_default=func.now()` is the moment that it says, findable as it was read."""

    class Event(Base, table=f"event_{next(NUMBERS)}"):
        seen: Field[datetime] = microorm.field(server_default=func.now())
        local: Field[datetime] = microorm.field(server_default=func.now(), timezone=False)

    registry.create_all()
    event = Event().save()
    assert event.seen.tzinfo is UTC
    assert abs(datetime.now(UTC) - event.seen) < timedelta(minutes=5)
    assert abs(event.seen.replace(tzinfo=None) - event.local) < timedelta(seconds=5)
    assert Event.objects.get(seen=event.seen, local=event.local).changes() == {}


@pytest.mark.servers_only
def test_the_zone_of_a_session_changes_nothing(backend, fresh_url) -> None:
    """An engine of the user's own, whose session is elsewhere: moments are the same, and so is SQL's clock."""
    url, arguments = make_url(fresh_url()), {"init_command": "SET time_zone = '+09:00'"}
    if backend == "postgresql":
        arguments = {"options": f"{url.query['options']} -ctimezone=Asia/Tokyo"}
    engine = create_engine(url, connect_args=arguments)
    with microorm.Databases({"default": engine}) as databases:
        registry = microorm.Registry(databases)

        class Event(microorm.Model, registry=registry):
            at: Field[datetime]
            seen: Field[datetime] = microorm.field(server_default=func.now())

        registry.create_all()
        for moment in MOMENTS[2:]:
            event = Event(at=moment).save()
            assert same(Event.objects.get(Event.at == moment, id=event.id).at, moment.astimezone(UTC))
            assert abs(datetime.now(UTC) - event.seen) < timedelta(minutes=5)
    engine.dispose()


def test_a_naive_moment_is_no_operand_of_an_aware_column(Base, registry) -> None:
    class Event(Base, table=f"event_{next(NUMBERS)}"):
        at: Field[datetime]

    registry.create_all()
    with pytest.raises(microorm.InvalidValue, match=r"Event\.at must be datetime with a time zone"):
        Event.objects.filter(Event.at < datetime(2024, 1, 1))


def documents(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """JSON values, and a few that only look like it."""
    keys = st.text(max_size=5) | st.sampled_from([1, None, "\ud800", "\0"])
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4)
    )


# Wider than what the fields take: what they refuse must not reach the database.
CHARACTERS = st.characters(codec=None)
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(CHARACTERS, max_size=5) | st.dates()
)
ANY = {
    "int": (int, {}, st.integers() | st.integers(-(2**63), 2**63 - 1)),
    "float": (float, {}, st.floats() | st.integers()),
    "str": (str, {}, st.text(CHARACTERS)),
    "str(5)": (str, {"max_length": 5}, st.text(CHARACTERS, max_size=7)),
    "bytes": (bytes, {}, st.binary()),
    "bytes(5)": (bytes, {"max_length": 5}, st.binary(max_size=7)),
    "Decimal": (
        Decimal,
        digits(15, 4),
        st.decimals() | st.decimals(-(10**11), 10**11, places=4) | st.integers(),
    ),
    "datetime": (datetime, {}, st.datetimes(timezones=st.none() | st.timezones(), allow_imaginary=True)),
    "naive datetime": (datetime, {"timezone": False}, st.datetimes(timezones=st.none() | st.timezones())),
    "date": (date, {}, st.dates() | st.datetimes()),
    "time": (time, {}, st.times(timezones=st.none() | st.timezones())),
    "timedelta": (timedelta, {}, st.timedeltas()),
    "UUID": (UUID, {}, st.uuids()),
    "dict": (dict[str, Any], {}, documents(LEAVES)),
    "list": (list[Any], {}, documents(LEAVES)),
}


@APART
@pytest.mark.parametrize("name", ANY)
def test_whatever_a_field_takes_comes_back_and_the_rest_is_refused(Base, registry, name) -> None:
    annotation, options, strategy = ANY[name]
    Thing = model_of(Base, registry, Row(annotation, [], options))
    column = Thing.__schema__.field("value")

    @settings(max_examples=examples(5))
    @given(st.lists(strategy, min_size=1, max_size=20))
    def check(values: list[Any]) -> None:
        taken = []
        for value in values:
            try:
                column.clean(value)
                taken.append(value)
            except InvalidFieldValue as refused:
                with pytest.raises(InvalidValue, match=re.escape(f"Thing.value {refused}")):
                    Thing(value=value).save()
        with registry.databases.atomic():
            assert Thing.objects.count() == 0
            things = Thing.objects.bulk_create([Thing(value=value) for value in taken])
            found = {each.id: each for each in Thing.objects.all()}
            for thing in things:
                assert thing.changes() == {}
                assert same(found[thing.id].value, stored(Thing, thing.value))
                assert found[thing.id].changes() == {}
                assert Thing.objects.filter(value=thing.value, id=thing.id).exists()
                same_value = Thing.value == stored(Thing, thing.value)
                assert Thing.objects.filter(same_value, Thing.id == thing.id).exists()
            Thing.objects.delete()

    check()
