"""Operations whose operand is an expression: a sum, a `cast()`, a value, SQL's clock."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import (
    BigInteger,
    Date,
    DateTime,
    Double,
    Integer,
    Numeric,
    Time,
    case,
    cast,
    func,
    literal,
    select,
)

from microorm import Field, FieldError, InvalidValue, field
from microorm.testing import count_statements

LATE = datetime(2024, 2, 29, 23, 30, 5, 123456, tzinfo=UTC)
MIDNIGHT = datetime(2024, 2, 29, tzinfo=UTC).replace(tzinfo=None)
HOUR = timedelta(hours=1)


@pytest.fixture
def Run(Base: Any, registry: Any) -> Any:
    class Run(Base):
        number: Field[int] = field(default=-7)
        ratio: Field[float] = field(default=1.5)
        price: Field[Decimal] = field(default=Decimal("1.25"), max_digits=8, decimal_places=2)
        took: Field[timedelta] = field(default=HOUR)
        at: Field[datetime] = field(default=LATE)
        local: Field[datetime] = field(default=LATE.replace(tzinfo=None), timezone=False)
        day: Field[date] = field(default=LATE.date())
        clock: Field[time] = field(default=LATE.time())
        text: Field[str] = field(default="2024-02-29", max_length=10)
        data: Field[dict[str, Any]] = field(default_factory=lambda: {"v": -7})

    registry.create_all("default")
    Run().save()
    return Run


RESULTS: dict[str, tuple[Any, Any]] = {
    "a sum, rounded down": (lambda r: (r.number + 0) // 2, -4),
    "a number, divided by a difference": (lambda r: 100 // (r.number - 1), -13),
    "a product, rounded down": (lambda r: (r.number * 3) // 2, -11),
    "a cast, rounded down": (lambda r: cast(r.number, BigInteger) // 2, -4),
    "a value, rounded down": (lambda r: literal(-7) // 2, -4),
    "a number in JSON, rounded down": (lambda r: r.data["v"].as_integer() // 2, -4),
    "a function, rounded down": (lambda r: -func.abs(r.number) // 2, -4),
    "a case, rounded down": (lambda r: case((r.number < 0, r.number), else_=1) // 2, -4),
    "a sub-select, rounded down": (lambda r: select(func.sum(r.number)).scalar_subquery() // 2, -4),
    "a quotient, rounded down": (lambda r: r.number // 2 // 3, -2),
    "a sum and a duration": (lambda r: (r.number + 1) * r.took, -6 * HOUR),
    "a float's sum and a duration": (lambda r: (r.ratio + 1) * r.took, 2.5 * HOUR),
    "a cast and a duration, added to a moment": (
        lambda r: cast(r.number, BigInteger) * r.took + r.at,
        LATE - 7 * HOUR,
    ),
    "a value and a duration": (lambda r: literal(2) * r.took, 2 * HOUR),
    "a sum and a decimal": (lambda r: (r.number + 1) * Decimal("1.5"), Decimal("-9.0")),
    "a cast and a decimal": (lambda r: cast(r.number, Integer) * Decimal("1.5"), Decimal("-10.5")),
    "a cast decimal and a decimal": (lambda r: cast(r.price, Numeric(8, 2)) * r.price, Decimal("1.5625")),
    "a power of a float": (lambda r: r.ratio**2, 2.25),
    "a decimal of many places": (lambda r: literal(Decimal("1.123456789012")), Decimal("1.123456789012")),
    "a decimal of many places in a case": (
        lambda r: case((r.number < 9, Decimal("1.123456789012")), else_=1),
        Decimal("1.123456789012"),
    ),
    "the day of a moment": (lambda r: cast(r.at, Date), LATE.date()),
    "the day of a moment, by a column's type": (lambda r: cast(r.local, r.day.type), LATE.date()),
    "the time of a moment": (lambda r: cast(r.at, Time), LATE.time()),
    "the time of a moment without a time zone": (lambda r: cast(r.local, Time), LATE.time()),
    "a moment of a day": (lambda r: cast(r.day, DateTime), MIDNIGHT),
    "a moment with a time zone of a day": (
        lambda r: cast(r.day, r.at.type),
        datetime(2024, 2, 29, tzinfo=UTC),
    ),
    "a moment with a time zone of one without": (lambda r: cast(r.local, r.at.type), LATE),
    "a moment without a time zone of one with": (lambda r: cast(r.at, DateTime), LATE.replace(tzinfo=None)),
    "a day of a text": (lambda r: cast(r.text, Date), LATE.date()),
    "a day of a date": (lambda r: cast(date(2024, 1, 2), Date), date(2024, 1, 2)),
    "days of moments": (lambda r: cast(r.at, Date) - r.day, timedelta(0)),
    "the day after a moment": (lambda r: cast(r.at, Date) + timedelta(days=1), date(2024, 3, 1)),
    "the hour after a day": (lambda r: cast(r.day, DateTime) + HOUR, MIDNIGHT + HOUR),
}


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
def test_an_operation_on_an_expression_has_the_result_and_type_that_one_on_a_column_has(
    Run: Any, subtests
) -> None:
    for what, (make, expected) in RESULTS.items():
        with subtests.test(what):
            (result,) = Run.objects.scalars(make(Run))
            assert (result, type(result)) == (expected, type(expected))
            shared = make(Run)
            assert Run.objects.filter(shared == expected).exclude(shared != expected).count() == 1
            assert Run.objects.scalars(shared) == [expected]  # the expression can be used again


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
def test_an_expression_that_is_written_is_rounded_down(Run: Any) -> None:
    Run.objects.update(number=(Run.number - 3) // 2)
    assert Run.objects.scalars("number") == [-5]
    Run.objects.update(number=cast(Run.number, BigInteger) // 2)
    assert Run.objects.scalars("number") == [-3]


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
def test_a_quotient_for_a_float_has_all_digits_of_one(Run: Any) -> None:
    for quotient, expected in (
        (Run.number / 3, -7 / 3),
        (Run.number * 2 / cast(3, Integer), -14 / 3),
        (Run.price / Decimal("1.5"), 1.25 / 1.5),
        (func.abs(Run.number) / 3, 7 / 3),
    ):
        Run.objects.update(ratio=quotient)
        assert Run.objects.scalars("ratio") == [expected]


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
def test_half_a_microsecond_is_rounded_as_in_python(Run: Any) -> None:
    for microseconds in (5, -5, 7, -7, 10):
        took = timedelta(microseconds=microseconds)
        Run.objects.update(took=took)
        for factor in (0.5, 0.25, 1.5, -0.5):
            assert Run.objects.scalars(Run.took * factor) == [took * factor]
        assert Run.objects.scalars(Run.took / 2) == [took / 2]


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
def test_a_cast_moment_is_compared_with_columns(Run: Any) -> None:
    assert Run.objects.filter(Run.day == cast(Run.at, Date)).count() == 1
    assert Run.objects.filter(cast(Run.at, Date).in_([LATE.date()])).count() == 1
    assert Run.objects.filter(cast(Run.at, Time) == Run.clock).count() == 1
    assert Run.objects.filter(cast(Run.at, DateTime) > Run.local).count() == 0


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
@pytest.mark.parametrize("name", ["at", "local"])
def test_sql_s_clock_is_a_moment_like_the_column_beside_it(Run: Any, name: str) -> None:
    column, day = getattr(Run, name), timedelta(days=1)
    assert Run.objects.filter(column < func.now() - day).count() == 1
    assert Run.objects.filter(func.now() - column > day).count() == 1
    assert Run.objects.update(**{name: func.now() - day}) == 1
    assert Run.objects.filter(column <= func.now() - day, column > func.now() - day - HOUR).count() == 1
    assert day <= Run.objects.scalars(func.now() - column)[0] < day + HOUR


def test_an_expression_of_numbers_is_compared_as_strictly_as_a_column(Run: Any, registry: Any) -> None:
    with count_statements(databases=registry.databases) as sent:
        for wrong in (-6.0, Decimal(-6), True, "6"):
            with pytest.raises(InvalidValue):
                Run.objects.filter(Run.number + 1 == wrong)
        with pytest.raises(InvalidValue):
            Run.objects.filter(Run.ratio + 1 == Decimal("2.5"))
    assert sent.count == 0
    assert Run.objects.filter(Run.number + 1 == -6, Run.ratio + 1 == 2.5, Run.price * 2 > 2).count() == 1


def test_a_query_with_any_operation_can_be_printed(Run: Any) -> None:
    shifted = Run.objects.filter(
        Run.day + timedelta(days=1) > Run.day,
        Run.day - Run.day < HOUR,
        Run.local + Run.took > Run.local,
        Run.at - Run.at < cast(Run.ratio, Double) * Run.took,
    )
    assert "day" in str(shifted)
    assert "no SQL" not in repr(shifted)


def test_an_error_about_an_operation_shows_it(Run: Any) -> None:
    with pytest.raises(FieldError, match="day"):
        Run.objects.filter(Run.day + timedelta(days=1) + HOUR == Run.day)
    with pytest.raises(FieldError, match="day"):
        Run.objects.filter(Run.at - (Run.day + timedelta(days=1)) == HOUR)
