"""What a field makes of SQL expressions, per database; that it comes to the same is shown in test_types.py."""

from datetime import date, datetime

import pytest
from sqlalchemy import Date, DateTime, Integer, Numeric, column, func, literal, select
from sqlalchemy.dialects import mysql, postgresql, sqlite

from microorm.fields.types import NaiveUtcNow, UtcNow, stored
from microorm.types import ExactNumeric, UtcDateTime

DIALECTS = {"sqlite": sqlite.dialect(), "postgresql": postgresql.dialect(), "mysql": mysql.dialect()}


def told(expression) -> dict[str, str]:
    return {name: str(expression.compile(dialect=dialect)) for name, dialect in DIALECTS.items()}


@pytest.mark.parametrize("clock", [func.now(), func.current_timestamp()])
def test_sql_s_clock_tells_utc_to_the_microsecond(clock) -> None:
    on_sqlite = "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')"
    aware = stored(clock, datetime, UtcDateTime())
    assert isinstance(aware, UtcNow)
    assert told(aware) == {
        "sqlite": on_sqlite,
        "postgresql": "CURRENT_TIMESTAMP",
        "mysql": "utc_timestamp(6)",
    }
    naive = stored(clock, datetime, DateTime())
    assert isinstance(naive, NaiveUtcNow)
    assert told(naive) == {
        "sqlite": on_sqlite,
        "postgresql": "(CURRENT_TIMESTAMP AT TIME ZONE 'UTC')",
        "mysql": "utc_timestamp(6)",
    }


def test_a_number_is_rounded_where_the_database_does_not() -> None:
    price = stored(column("price", ExactNumeric(8, 2)) / 2, None, ExactNumeric(8, 2))
    assert told(price) == {
        "sqlite": "round(price / (? + 0.0), 2)",
        "postgresql": "(price / CAST(%(param_1)s AS NUMERIC(15, 0)))",
        "mysql": "(price / %s)",
    }
    assert isinstance(price.type, ExactNumeric)
    assert (price.type.precision, price.type.scale) == (8, 2)


def test_the_places_are_part_of_what_sqlalchemy_remembers() -> None:
    """Two columns of different places never share a cached statement."""
    number = literal(1)
    two, three = (stored(number, None, ExactNumeric(8, places)) for places in (2, 3))
    assert select(two)._generate_cache_key() != select(three)._generate_cache_key()


@pytest.mark.parametrize(
    ("expression", "python_type", "column_type"),
    [
        (func.now(), date, Date()),
        (func.current_date(), datetime, UtcDateTime()),
        (column("x") + 1, int, Integer()),
        (column("x") + 1, None, Numeric(8, 2)),
        (select(column("x")), None, ExactNumeric(8, 2)),
        (None, datetime, UtcDateTime()),
        ("2024-01-01", datetime, UtcDateTime()),
    ],
)
def test_anything_else_is_left_alone(expression, python_type, column_type) -> None:
    assert stored(expression, python_type, column_type) is expression
