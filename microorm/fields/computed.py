"""Expressions whose SQL differs between databases, so that their values do not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import (
    Cast,
    Date,
    DateTime,
    String,
    Time,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

MARIADB = ("mysql", "mariadb")
DAY = 86_400_000_000  # microseconds


class Rounded(FunctionElement[Any]):
    """A number rounded to the places of its type, which SQLite does not do by itself."""

    inherit_cache = True
    name = "rounded"


class Typed(FunctionElement[Any]):
    """A moment, date or time among other values of its type. MariaDB's drivers send it as text, which would make all of them text."""

    inherit_cache = True
    name = "typed"


class Branch(TypeDecorator[Any]):
    """The type *of* a moment, date or time in `case()`, `coalesce()` and the like."""

    impl = String
    cache_ok = True

    def __init__(self, of: TypeEngine[Any]) -> None:
        super().__init__()
        self.of = of

    def load_dialect_impl(self, dialect: Any) -> TypeEngine[Any]:
        return self.of.dialect_impl(dialect)

    def bind_expression(self, bindparam: Any) -> Any:
        return Typed(bindparam)


class TemporalCast(Cast[Any]):
    """A date, a time or a moment in UTC, made of another of these or of text.

    On SQLite all of them are text, which CAST makes a number. PostgreSQL would convert in the session's time zone, and
    MariaDB would drop the microseconds.
    """

    inherit_cache = True


class Shifted(FunctionElement[Any]):
    """A moment, with a time zone or without, and the duration that is added to it."""

    inherit_cache = True
    name = "shifted"


class ShiftedDate(FunctionElement[Any]):
    """A date, and the number of days that is added to it."""

    inherit_cache = True
    name = "shifted_date"


class Elapsed(FunctionElement[timedelta]):
    """The duration from the second of two moments to the first."""

    inherit_cache = True
    name = "elapsed"


class ElapsedDays(Elapsed):
    """The duration from the second of two dates to the first."""

    inherit_cache = True


class WholeMicroseconds(FunctionElement[timedelta]):
    """A duration that was multiplied or divided, which is a fraction of microseconds except on PostgreSQL."""

    inherit_cache = True
    name = "whole_microseconds"


class FloorDivided(FunctionElement[int]):
    """The quotient of two integers, rounded down; the databases round a negative one in different directions."""

    inherit_cache = True
    name = "floor_divided"


def is_aware(kind: Any) -> bool:
    """Return whether *kind* is the type of a `datetime` with a time zone."""
    if isinstance(kind, TypeDecorator):
        kind = kind.impl
        return isinstance(kind, DateTime)
    return isinstance(kind, DateTime) and kind.timezone


def _parts(element: Any, compiler: SQLCompiler, options: dict[str, Any]) -> list[str]:
    return [f"({compiler.process(each, **options)})" for each in element.clauses]


@compiles(Typed)
def _typed(element: Typed, compiler: SQLCompiler, **options: Any) -> str:
    (value,) = element.clauses
    return compiler.process(value, **options)


@compiles(Typed, *MARIADB)
def _typed_on_mariadb(element: Typed, compiler: SQLCompiler, **options: Any) -> str:
    (value,) = element.clauses
    of = value.type.of  # type: ignore[attr-defined]
    kind = "DATE" if isinstance(of, Date) else "TIME(6)" if isinstance(of, Time) else "DATETIME(6)"
    return f"CAST({compiler.process(value, **options)} AS {kind})"


@compiles(Rounded)
def _unchanged(element: Rounded, compiler: SQLCompiler, **options: Any) -> str:
    return _parts(element, compiler, options)[0]


@compiles(Rounded, "sqlite")
def _rounded(element: Rounded, compiler: SQLCompiler, **options: Any) -> str:
    number, places = element.clauses
    return f"round({compiler.process(number, **options)}, {compiler.process(places, **options)})"


@compiles(FloorDivided)
def _floor_divided(element: FloorDivided, compiler: SQLCompiler, **options: Any) -> str:
    number, by = _parts(element, compiler, options)
    below = f"({number} - mod(mod({number}, {by}) + {by}, {by}))"
    if compiler.dialect.name in MARIADB:
        return f"({below} DIV {by})"
    return f"CAST({below} / {by} AS BIGINT)"  # a sum of integers is NUMERIC on PostgreSQL


@compiles(FloorDivided, "sqlite")
def _floor_divided_on_sqlite(element: FloorDivided, compiler: SQLCompiler, **options: Any) -> str:
    number, by = _parts(element, compiler, options)
    return f"(({number} - ({number} % {by} + {by}) % {by}) / {by})"


@compiles(WholeMicroseconds)
def _whole(element: WholeMicroseconds, compiler: SQLCompiler, **options: Any) -> str:
    return _parts(element, compiler, options)[0]


@compiles(WholeMicroseconds, "sqlite")
def _whole_on_sqlite(element: WholeMicroseconds, compiler: SQLCompiler, **options: Any) -> str:
    (number,) = _parts(element, compiler, options)
    rounded = f"CAST(round{number} AS INTEGER)"
    return _half_to_even(number, rounded, f"CAST({number} AS INTEGER)", f"{rounded} % 2")


@compiles(WholeMicroseconds, *MARIADB)
def _whole_on_mariadb(element: WholeMicroseconds, compiler: SQLCompiler, **options: Any) -> str:
    (number,) = _parts(element, compiler, options)
    return _half_to_even(number, f"round{number}", f"truncate({number}, 0)", f"mod(round{number}, 2)")


def _half_to_even(number: str, rounded: str, whole: str, odd: str) -> str:
    """Return the SQL of *number*, rounded as Python and PostgreSQL round a duration: a half to the even neighbour."""
    return f"({rounded} - CASE WHEN abs({number} - {whole}) = 0.5 THEN {odd} ELSE 0 END)"


@compiles(Shifted)
def _shifted(element: Shifted, compiler: SQLCompiler, **options: Any) -> str:
    moment, by = _parts(element, compiler, options)
    if is_aware(element.clauses.clauses[0].type):
        # A day of the session's time zone may have 23 hours.
        return f"(({moment} AT TIME ZONE 'UTC' + {by}) AT TIME ZONE 'UTC')"
    return f"({moment} + {by})"


@compiles(Shifted, *MARIADB)
def _shifted_on_mariadb(element: Shifted, compiler: SQLCompiler, **options: Any) -> str:
    moment, by = _parts(element, compiler, options)
    return f"({moment} + INTERVAL {by} MICROSECOND)"


def _microseconds(moment: str) -> str:
    """Return the SQL for the microseconds since 1970 of a moment as SQLite stores it, by arithmetic with integers."""
    return (
        f"(CAST(strftime('%s', substr({moment}, 1, 19)) AS INTEGER) * 1000000"
        f" + CAST(substr({moment}, 21, 6) AS INTEGER))"
    )


@compiles(Shifted, "sqlite")
def _shifted_on_sqlite(element: Shifted, compiler: SQLCompiler, **options: Any) -> str:
    moment, by = _parts(element, compiler, options)
    there = f"({_microseconds(moment)} + {by})"
    fraction = f"(({there} % 1000000 + 1000000) % 1000000)"
    seconds = f"(({there} - {fraction}) / 1000000)"
    return f"(strftime('%Y-%m-%d %H:%M:%S', {seconds}, 'unixepoch') || printf('.%06d', {fraction}))"


@compiles(ShiftedDate)
def _shifted_date(element: ShiftedDate, compiler: SQLCompiler, **options: Any) -> str:
    day, by = _parts(element, compiler, options)
    return f"({day} + CAST({by} AS INTEGER))"


@compiles(ShiftedDate, *MARIADB)
def _shifted_date_on_mariadb(element: ShiftedDate, compiler: SQLCompiler, **options: Any) -> str:
    day, by = _parts(element, compiler, options)
    return f"({day} + INTERVAL {by} DAY)"


@compiles(ShiftedDate, "sqlite")
def _shifted_date_on_sqlite(element: ShiftedDate, compiler: SQLCompiler, **options: Any) -> str:
    day, by = _parts(element, compiler, options)
    return f"date({day}, {by} || ' days')"


@compiles(Elapsed)
def _elapsed(element: Elapsed, compiler: SQLCompiler, **options: Any) -> str:
    later, earlier = _parts(element, compiler, options)
    return f"({later} - {earlier})"


@compiles(Elapsed, *MARIADB)
def _elapsed_on_mariadb(element: Elapsed, compiler: SQLCompiler, **options: Any) -> str:
    later, earlier = _parts(element, compiler, options)
    return f"TIMESTAMPDIFF(MICROSECOND, {earlier}, {later})"


@compiles(Elapsed, "sqlite")
def _elapsed_on_sqlite(element: Elapsed, compiler: SQLCompiler, **options: Any) -> str:
    later, earlier = _parts(element, compiler, options)
    return f"({_microseconds(later)} - {_microseconds(earlier)})"


@compiles(ElapsedDays)
def _elapsed_days(element: ElapsedDays, compiler: SQLCompiler, **options: Any) -> str:
    later, earlier = _parts(element, compiler, options)
    return f"(({later} - {earlier}) * INTERVAL '1 day')"


@compiles(ElapsedDays, *MARIADB)
def _elapsed_days_on_mariadb(element: ElapsedDays, compiler: SQLCompiler, **options: Any) -> str:
    later, earlier = _parts(element, compiler, options)
    return f"(DATEDIFF({later}, {earlier}) * {DAY})"


@compiles(ElapsedDays, "sqlite")
def _elapsed_days_on_sqlite(element: ElapsedDays, compiler: SQLCompiler, **options: Any) -> str:
    later, earlier = _parts(element, compiler, options)
    return f"(CAST(round(julianday({later}) - julianday({earlier})) AS INTEGER) * {DAY})"


@compiles(TemporalCast)
def _temporal_cast(element: TemporalCast, compiler: SQLCompiler, **options: Any) -> str:
    value = f"({compiler.process(element.clause, **options)})"
    if is_aware(element.clause.type):
        value = f"({value} AT TIME ZONE 'UTC')"
    kind = (
        "DATE"
        if isinstance(element.type, Date)
        else "TIME"
        if isinstance(element.type, Time)
        else "TIMESTAMP"
    )
    made = f"CAST({value} AS {kind})"
    return f"({made} AT TIME ZONE 'UTC')" if is_aware(element.type) else made


@compiles(TemporalCast, *MARIADB)
def _temporal_cast_on_mariadb(element: TemporalCast, compiler: SQLCompiler, **options: Any) -> str:
    value, of = compiler.process(element.clause, **options), element.type
    kind = "DATE" if isinstance(of, Date) else "TIME(6)" if isinstance(of, Time) else "DATETIME(6)"
    return f"CAST({value} AS {kind})"


@compiles(TemporalCast, "sqlite")
def _temporal_cast_on_sqlite(element: TemporalCast, compiler: SQLCompiler, **options: Any) -> str:
    value, of = f"({compiler.process(element.clause, **options)})", element.type
    if isinstance(of, Date):
        return f"date{value}"
    if isinstance(element.clause.type, String):
        return (
            f"(strftime('{'%H:%M:%f' if isinstance(of, Time) else '%Y-%m-%d %H:%M:%f'}', {value}) || '000')"
        )
    if isinstance(of, Time):
        return f"substr({value}, -15)"
    return f"({value} || ' 00:00:00.000000')" if isinstance(element.clause.type, Date) else value
