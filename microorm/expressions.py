"""Expressions: what a field makes of one, so that every database stores the same.

SQLite rounds no number to its column's places and has no clock that writes microseconds; MariaDB's clock tells
the time of the session's zone.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, literal_column
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement, current_timestamp, now
from sqlalchemy.types import TypeEngine

from microorm.types import MARIADB, ExactNumeric, UtcDateTime


class UtcNow(FunctionElement[datetime]):
    """The present moment as a `datetime` column keeps it: with a zone."""

    inherit_cache = True
    name = "utc_now"
    type = UtcDateTime()


class NaiveUtcNow(UtcNow):
    """The present moment in UTC, without a zone."""

    inherit_cache = True


class Rounded(FunctionElement[Any]):
    """A number with no more places than its column has, which SQLite alone does not see to."""

    inherit_cache = True
    name = "rounded"


@compiles(UtcNow)
def _now(element: UtcNow, compiler: SQLCompiler, **options: Any) -> str:
    return "CURRENT_TIMESTAMP"


@compiles(NaiveUtcNow, "postgresql")
def _naive_now(element: NaiveUtcNow, compiler: SQLCompiler, **options: Any) -> str:
    return "(CURRENT_TIMESTAMP AT TIME ZONE 'UTC')"


@compiles(UtcNow, "sqlite")
@compiles(NaiveUtcNow, "sqlite")
def _now_on_sqlite(element: UtcNow, compiler: SQLCompiler, **options: Any) -> str:
    return "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')"


@compiles(UtcNow, *MARIADB)
@compiles(NaiveUtcNow, *MARIADB)
def _now_on_mariadb(element: UtcNow, compiler: SQLCompiler, **options: Any) -> str:
    return "utc_timestamp(6)"


@compiles(Rounded)
def _as_it_is(element: Rounded, compiler: SQLCompiler, **options: Any) -> str:
    number, _ = element.clauses
    return compiler.process(number, **options)


@compiles(Rounded, "sqlite")
def _rounded(element: Rounded, compiler: SQLCompiler, **options: Any) -> str:
    number, places = element.clauses
    return f"round({compiler.process(number, **options)}, {compiler.process(places, **options)})"


def stored(expression: Any, python_type: Any, column_type: TypeEngine[Any]) -> Any:
    """What to write for *expression* into a column, on every database alike."""
    if python_type is datetime and isinstance(expression, (now, current_timestamp)):
        return UtcNow() if isinstance(column_type, UtcDateTime) else NaiveUtcNow()
    if isinstance(column_type, ExactNumeric) and isinstance(expression, ColumnElement):
        rounded = Rounded(expression, literal_column(str(column_type.scale)))
        rounded.type = column_type
        return rounded
    return expression
