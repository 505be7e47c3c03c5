"""Random operands against an oracle in Python: an expression finds and writes the right rows, or is an error before any SQL.

An operand may be of the right type or of any other: huge numbers, moments of other zones, members, instances, queries,
None. The oracle knows which operands a field takes; for these it compares in Python.
"""

import enum
import operator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import case, func
from sqlalchemy.exc import ArgumentError

from microorm import Field, FieldError, ForeignKey, UnsavedError, field, foreign_key
from microorm.testing import count_statements
from tests.thorough import examples


class State(enum.Enum):
    OPEN = "open"
    DONE = "done"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


TOKYO, DAY = timezone(timedelta(hours=9)), timedelta(days=1)
START = datetime(2024, 1, 31, 12, tzinfo=UTC)
NOON = START.replace(tzinfo=None)
GOOD: dict[str, list[Any]] = {
    "name": ["", "a", "0", "1x", "open"],
    "number": [-1, 0, 1, 2**63 - 1],
    "ratio": [-0.5, 0.0, 1.5],
    "price": [Decimal("0.10"), Decimal("0.20"), Decimal("1.5")],
    "flag": [True, False],
    "day": [date(2024, 1, 31), date(2024, 2, 1)],
    "at": [START, (START + timedelta(hours=1, microseconds=1)).astimezone(TOKYO)],
    "local": [NOON, NOON - timedelta(days=20_000, microseconds=1)],
    "took": [timedelta(0), timedelta(days=-1, microseconds=5), timedelta(hours=30)],
    "state": list(State),
    "level": list(Level),
    "uid": [UUID(int=0), UUID(int=2**128 - 1)],
    "data": [{}, {"a": [1]}],
}
ODD = [2**70, -(2**64), 1.25, float("nan"), Decimal("1e30"), "\0", "\ud800", b"a", [], object()]
ORDERED = ["number", "ratio", "price", "day", "at", "local", "took", "level"]
OPERANDS = st.sampled_from(
    [*(each for good in GOOD.values() for each in good), *ODD, "author", "query", None]
)
COMPARISONS = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, ">=": operator.ge}
ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | st.sampled_from(good) for name, good in GOOD.items()}),
    min_size=1,
    max_size=4,
)
ERRORS = (FieldError, UnsavedError, TypeError, ArgumentError)
# SQLAlchemy warns of some operators.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
QUIET = settings(
    max_examples=examples(40),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def Row(Base: Any, registry: Any) -> Any:
    class Author(Base):
        name: Field[str] = field(max_length=9)

    class Row(Base):
        name: Field[str | None] = field(max_length=9)
        number: Field[int | None] = field()
        ratio: Field[float | None] = field()
        price: Field[Decimal | None] = field(max_digits=8, decimal_places=2)
        flag: Field[bool | None] = field()
        day: Field[date | None] = field()
        at: Field[datetime | None] = field()
        local: Field[datetime | None] = field(timezone=False)
        took: Field[timedelta | None] = field()
        state: Field[State | None] = field()
        level: Field[Level | None] = field()
        uid: Field[UUID | None] = field()
        data: Field[dict[str, Any] | None] = field()
        author: ForeignKey[Author | None] = foreign_key()

    registry.create_all("default")
    Row.author_model = Author
    Row.author_saved = Author(name="Ada").save()
    return Row


def filled(Row: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Store *rows*, every second with the author, and return them with their numbers."""
    Row.objects.delete()
    stored = [
        {**row, "author_id": Row.author_saved.id if index % 2 else None} for index, row in enumerate(rows)
    ]
    Row.objects.bulk_create([Row(**row) for row in stored])
    return stored


def found(Row: Any, query: Any) -> list[int]:
    """The numbers of the rows that *query* finds."""
    keys = Row.objects.order_by("id").scalars("id")
    return [keys.index(key) for key in query.order_by("id").scalars("id")]


def given_to(Row: Any, operand: Any) -> Any:
    """What *operand* stands for."""
    if isinstance(operand, str) and operand == "author":
        return Row.author_saved
    return (
        Row.author_model.objects.filter(name="Ada")
        if isinstance(operand, str) and operand == "query"
        else operand
    )


def attempted(Row: Any, operation: Any, *, must: bool) -> Any:
    """What *operation* gives, or REFUSED for an error before any SQL, where that is not one that it *must* do."""
    databases = Row.__schema__.registry.databases
    with count_statements(databases=databases) as sent:
        try:
            return operation()
        except ERRORS as error:
            refused = error
    assert sent.count == 0, f"{refused!r} after {sent.statements}"
    assert not must, refused
    return REFUSED


REFUSED = "refused"
NAMES = st.sampled_from([*GOOD, "author_id"])


def is_good(name: str, operand: Any) -> bool:
    """Whether *operand* is one that the field *name* must take."""
    if name == "author_id":
        return operand == "author" if isinstance(operand, str) else operand is None
    return operand is None or any(operand is each for each in GOOD[name])


def plain(Row: Any, operand: Any) -> Any:
    """What *operand* is to the oracle."""
    if isinstance(operand, str) and operand == "author":
        return Row.author_saved.id
    return operand.value if isinstance(operand, enum.Enum) else operand


def compared(sign: str, value: Any, operand: Any) -> bool | None:
    """What SQL makes of *value* and *operand*."""
    value = value.value if isinstance(value, enum.Enum) else value
    if operand is None and sign in ("==", "!="):
        return (value is None) is (sign == "==")
    return None if value is None or operand is None else COMPARISONS[sign](value, operand)


@QUIET
@given(rows=ROWS, name=NAMES, sign=st.sampled_from(list(COMPARISONS)), operand=OPERANDS)
def test_comparisons(Row: Any, rows: Any, name: str, sign: str, operand: Any) -> None:
    stored = filled(Row, rows)
    there, column = given_to(Row, operand), getattr(Row, name)
    query = attempted(
        Row,
        lambda: Row.objects.filter(COMPARISONS[sign](column, there)),
        must=is_good(name, operand) and (sign in ("==", "!=") or (name in ORDERED and operand is not None)),
    )
    if query is REFUSED or (sign not in ("==", "!=") and name not in ORDERED):
        return
    operand = plain(Row, operand)
    right = [n for n, row in enumerate(stored) if compared(sign, row[name], operand)]
    assert found(Row, query) == right
    excluded = Row.objects.exclude(COMPARISONS[sign](column, there))
    assert found(Row, excluded) == [n for n in range(len(stored)) if n not in right]
    assert query.update(name="done") == len(right)
    assert Row.objects.order_by("id").scalars("name") == [
        "done" if n in right else row["name"] for n, row in enumerate(stored)
    ]


@QUIET
@given(rows=ROWS, name=NAMES, operands=st.lists(OPERANDS, max_size=3), pair=st.tuples(OPERANDS, OPERANDS))
def test_lists_and_ranges(Row: Any, rows: Any, name: str, operands: list[Any], pair: Any) -> None:
    stored, column = filled(Row, rows), getattr(Row, name)
    there = [given_to(Row, each) for each in operands]
    query = attempted(
        Row, lambda: Row.objects.filter(column.in_(there)), must=all(is_good(name, each) for each in operands)
    )
    if query is not REFUSED:
        wanted = [plain(Row, each) for each in operands]
        right = [
            n
            for n, row in enumerate(stored)
            if any(compared("==", row[name], w) for w in wanted if w is not None)
        ]
        assert found(Row, query) == right
    low, high = pair
    query = attempted(
        Row, lambda: Row.objects.filter(column.between(given_to(Row, low), given_to(Row, high))), must=False
    )
    if query is not REFUSED and name in ORDERED:
        low, high = plain(Row, low), plain(Row, high)
        right = [
            n
            for n, row in enumerate(stored)
            if compared(">=", row[name], low)
            and compared("<", row[name], high) is not None
            and (compared("<", row[name], high) or compared("==", row[name], high))
        ]
        assert found(Row, query) == right


@QUIET
@given(rows=ROWS, name=st.sampled_from(list(GOOD)), operand=OPERANDS, bound=st.integers(-1, 1))
def test_values_in_branches(Row: Any, rows: Any, name: str, operand: Any, bound: int) -> None:
    """They are read, compared and written as those of the column."""
    stored, column = filled(Row, rows), getattr(Row, name)
    there, must = given_to(Row, operand), is_good(name, operand)
    for branch, of in (
        (
            lambda: case((Row.number >= bound, there), else_=column),
            lambda row: operand if _reaches(row, bound) else row[name],
        ),
        (lambda: func.coalesce(column, there), lambda row: operand if row[name] is None else row[name]),
        (lambda: func.nullif(column, there), lambda row: None if row[name] == operand else row[name]),
    ):
        if operand is None or (name == "data" and of(stored[0]) is None):
            continue
        expected = [of(row) for row in stored]
        got = attempted(Row, lambda branch=branch: Row.objects.order_by("id").scalars(branch()), must=must)
        if got is not REFUSED:
            assert got == expected, branch().compile()
        if name not in ("data", "flag"):
            query = attempted(Row, lambda branch=branch: Row.objects.filter(branch() == there), must=must)
            if query is not REFUSED:
                assert found(Row, query) == [n for n, value in enumerate(expected) if value == operand]
        count = attempted(Row, lambda branch=branch: Row.objects.update(**{name: branch()}), must=must)
        if count is not REFUSED:
            assert Row.objects.order_by("id").scalars(name) == expected
            Row.objects.delete()
            filled(Row, rows)


def _reaches(row: dict[str, Any], bound: int) -> bool:
    return row["number"] is not None and row["number"] >= bound


OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv}
SMALL = st.sampled_from([name for name in GOOD if name not in ("data", "uid", "flag", "state")])
# What must work: a refusal is a fault.
WORKS = {
    ("number", "+", int),
    ("number", "-", int),
    ("number", "//", int),
    ("price", "+", Decimal),
    ("price", "-", Decimal),
    ("price", "*", int),
    ("price", "*", Decimal),
    ("ratio", "+", float),
    ("at", "+", timedelta),
    ("at", "-", timedelta),
    ("local", "+", timedelta),
    ("took", "+", timedelta),
    ("took", "-", timedelta),
    ("took", "*", int),
    ("level", "+", int),
}


@QUIET
@given(rows=ROWS, name=SMALL, sign=st.sampled_from(list(OPERATIONS)), operand=OPERANDS)
def test_arithmetic(Row: Any, rows: Any, name: str, sign: str, operand: Any) -> None:
    for row in rows:
        row["number"] = row["number"] and min(row["number"], 1)
    stored, column = filled(Row, rows), getattr(Row, name)
    compute, operand = (
        OPERATIONS[sign],
        None if isinstance(operand, str) and operand in ("author", "query") else operand,
    )
    small = not isinstance(operand, (int, Decimal)) or abs(operand) < 1000
    if operand is None or not small or (sign == "//" and not operand):
        return
    expected = [None if row[name] is None else _computed(compute, row[name], operand) for row in stored]
    must = (name, sign, type(operand)) in WORKS and operand == operand
    got = attempted(Row, lambda: Row.objects.order_by("id").scalars(compute(column, operand)), must=must)
    if got is not REFUSED:
        assert got == expected
        if must and name not in ("price", "level"):  # these have values that the field cannot hold
            Row.objects.update(**{name: compute(column, operand)})
            assert Row.objects.order_by("id").scalars(name) == expected
            filled(Row, rows)
        known = [each for each in expected if each is not None]
        if known:
            query = Row.objects.filter(compute(column, operand) == known[0])
            assert found(Row, query) == [n for n, value in enumerate(expected) if value == known[0]]


def _computed(compute: Any, value: Any, operand: Any) -> Any:
    try:
        return compute(value, operand)
    except (TypeError, ValueError):
        return "no value in Python"
