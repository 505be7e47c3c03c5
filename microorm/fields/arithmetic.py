"""Arithmetic with columns whose values each database computes in its own way: moments, dates, decimals, members of an enum.

A comparator is what SQLAlchemy asks when an operator is applied to an expression of a type. Those here build expressions
that have the right value, and the right type, on every database.
"""

from __future__ import annotations

import enum
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, NoReturn

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Date,
    DateTime,
    Double,
    Integer,
    Interval,
    Numeric,
    String,
    Time,
    literal,
    literal_column,
    type_coerce,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import Float, TypeDecorator, TypeEngine

from microorm.errors import FieldError
from microorm.fields.checks import shown

MICROSECOND = timedelta(microseconds=1)
MARIADB = ("mysql", "mariadb")
SQLITE_DIGITS = 15
DAY = 86_400_000_000  # microseconds

ARITHMETIC = {
    operators.add: "+",
    operators.sub: "-",
    operators.mul: "*",
    operators.truediv: "/",
    operators.floordiv: "//",
    operators.mod: "%",
}


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


class Shifted(FunctionElement[Any]):
    """A moment, and the duration that is added to it; *aware*: it has a time zone."""

    inherit_cache = True
    name = "shifted"


class ShiftedAware(Shifted):
    """A moment with a time zone, and the duration that is added to it."""

    inherit_cache = True


class ShiftedDate(FunctionElement[Any]):
    """A date, and the number of days that is added to it."""

    inherit_cache = True
    name = "shifted_date"


class Elapsed(FunctionElement[timedelta]):
    """The duration from the second of two moments to the first."""

    inherit_cache = True
    name = "elapsed"

    def __init__(self, later: Any, earlier: Any) -> None:
        super().__init__(later, earlier)
        self.type = Duration()


class ElapsedDays(Elapsed):
    """The duration from the second of two dates to the first."""

    inherit_cache = True


class _Arithmetic:
    """A comparator whose `compute` may build the expression of an operator; else SQLAlchemy does."""

    expr: ColumnElement[Any]

    def operate(self, op: Any, *other: Any, **options: Any) -> Any:
        if op in ARITHMETIC and len(other) == 1:
            other = (plain(other[0]),)
            made = self.compute(op, other[0], reverse=False)
            if made is not None:
                return made
        return super().operate(op, *other, **options)  # type: ignore[misc]

    def reverse_operate(self, op: Any, other: Any, **options: Any) -> Any:
        if op in ARITHMETIC:
            other = plain(other)
            made = self.compute(op, other, reverse=True)
            if made is not None:
                return made
        return super().reverse_operate(op, other, **options)  # type: ignore[misc]

    def compute(self, op: Any, other: Any, *, reverse: bool) -> Any:
        """Return the expression of *op* between this expression and *other*, or None; *reverse*: *other* is the left one."""
        raise NotImplementedError

    def refuse(self, op: Any, other: Any, instead: str) -> NoReturn:
        """Raise `FieldError`, which says what to write *instead*."""
        what = str(other) if isinstance(other, ColumnElement) else shown(other)
        raise FieldError(f"{self.expr} {ARITHMETIC[op]} {what} has no defined result; {instead}")


class _Moments(_Arithmetic):
    """Moments are moved by a `timedelta`, and subtracted from each other."""

    def compute(self, op: Any, other: Any, *, reverse: bool) -> Any:
        kind = other.type if isinstance(other, ColumnElement) else None
        expr = self.expr
        if isinstance(other, timedelta) or isinstance(kind, (Duration, Interval)):
            if op is operators.add or (op is operators.sub and not reverse):
                by = -other if op is operators.sub else other
                return self.shifted(literal(by, Duration()) if kind is None else by)
        elif op is operators.sub and (isinstance(other, datetime) or _is_moment(kind)):
            there = literal(other, expr.type) if kind is None else other
            return Elapsed(there, expr) if reverse else Elapsed(expr, there)
        return self.refuse(op, other, "add or subtract a timedelta, or subtract a datetime")

    def shifted(self, by: Any) -> Any:
        """Return the moment moved *by* a duration."""
        made = (ShiftedAware if isinstance(self.expr.type, TypeDecorator) else Shifted)(self.expr, by)
        made.type = self.expr.type
        return made


class MomentComparator(_Moments, DateTime.Comparator[Any]):
    """Operators of moments without a time zone."""


class AwareComparator(_Moments, TypeDecorator.Comparator[Any]):
    """Operators of moments with a time zone."""


class DateComparator(_Arithmetic, Date.Comparator[Any]):
    """Operators of dates, which are moved by a `timedelta` of whole days, and subtracted from each other."""

    def compute(self, op: Any, other: Any, *, reverse: bool) -> Any:
        kind = other.type if isinstance(other, ColumnElement) else None
        expr = self.expr
        if isinstance(other, timedelta) and other == timedelta(other.days):
            if op is operators.add or (op is operators.sub and not reverse):
                made = ShiftedDate(expr, literal(other.days * (-1 if op is operators.sub else 1)))
                made.type = expr.type
                return made
        elif op is operators.sub and (_is_date(other) or isinstance(kind, Date)):
            there = literal(other, expr.type) if kind is None else other
            return ElapsedDays(there, expr) if reverse else ElapsedDays(expr, there)
        return self.refuse(op, other, "add or subtract a timedelta of whole days, or subtract a date")


class WholeMicroseconds(FunctionElement[timedelta]):
    """A duration that was multiplied or divided, which is a fraction of microseconds except on PostgreSQL."""

    inherit_cache = True
    name = "whole_microseconds"


class DurationComparator(_Arithmetic, TypeDecorator.Comparator[Any], BigInteger.Comparator[Any]):
    """Operators of durations, which are added to each other, and multiplied or divided by a number."""

    def compute(self, op: Any, other: Any, *, reverse: bool) -> Any:
        base: Any = super(_Arithmetic, self)  # the operators of SQLAlchemy
        made = base.reverse_operate(op, other) if reverse else base.operate(op, other)
        made.type = self.expr.type
        if op is operators.truediv or (op is operators.mul and not isinstance(other, int)):
            made = WholeMicroseconds(made)
            made.type = self.expr.type
        return made


class FloorDivided(FunctionElement[int]):
    """The quotient of two integers, rounded down; the databases round a negative one in different directions."""

    inherit_cache = True
    name = "floor_divided"


class IntegerComparator(_Arithmetic, BigInteger.Comparator[int]):
    """Operators of integers: `//` rounds down, as in Python."""

    def compute(self, op: Any, other: Any, *, reverse: bool) -> Any:
        whole = isinstance(other, int) or isinstance(getattr(other, "type", None), Integer)
        if op is not operators.floordiv or not whole:
            return None
        made = FloorDivided(other, self.expr) if reverse else FloorDivided(self.expr, other)
        made.type = self.expr.type
        return made


class MemberComparator(_Arithmetic, TypeDecorator.Comparator[Any], String.Comparator[Any]):
    """Operators of an enum, whose values, not members, are added; *value_type*: their type."""

    def compute(self, op: Any, other: Any, *, reverse: bool) -> Any:
        values = type_coerce(self.expr, self.expr.type.value_type)  # type: ignore[attr-defined]
        return op(other, values) if reverse else op(values, other)


class ExactComparator(_Arithmetic, TypeDecorator.Comparator[Any], Numeric.Comparator[Any]):
    """Operators of decimals: a sum has the places of the longer operand, a product those of both."""

    def compute(self, op: Any, other: Any, *, reverse: bool) -> Any:
        if isinstance(other, float):
            self.refuse(op, other, f"write Decimal({str(other)!r})")
        exact: Any = self.expr.type
        make, precision = type(exact), SQLITE_DIGITS
        base: Any = super(_Arithmetic, self)  # the operators of SQLAlchemy
        if (places := _places(other)) is not None and not isinstance(other, ColumnElement):
            other = literal(other, make(precision, places))
        made = base.reverse_operate(op, other) if reverse else base.operate(op, other)
        if places is None:
            if isinstance(other, ColumnElement) and isinstance(other.type, Float):
                made.type = Double()
            return made
        if op is operators.mul:
            total = exact.scale + places
        elif op in (operators.add, operators.sub):
            total = max(exact.scale, places)
        else:
            return made
        total = min(total, SQLITE_DIGITS)
        rounded = Rounded(made, literal_column(str(total)))
        rounded.type = make(precision, total)
        return rounded


class Duration(TypeDecorator[timedelta]):
    """A `timedelta`: an INTERVAL on PostgreSQL, elsewhere a number of microseconds."""

    impl = BigInteger
    cache_ok = True
    comparator_factory = DurationComparator  # pyright: ignore[reportAssignmentType] a memoized property there

    def load_dialect_impl(self, dialect: Any) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(Interval())  # type: ignore[no-any-return]
        return dialect.type_descriptor(BigInteger())  # type: ignore[no-any-return]

    def process_bind_param(self, value: timedelta | None, dialect: Any) -> Any:
        return value if value is None or dialect.name == "postgresql" else value // MICROSECOND

    def process_result_value(self, value: Any, dialect: Any) -> timedelta | None:
        if value is None or isinstance(value, timedelta):
            return value
        return timedelta(microseconds=int(value))

    def coerce_compared_value(self, op: Any, value: Any) -> TypeEngine[Any]:
        # A duration is added to durations, but multiplied by numbers.
        return BigInteger() if isinstance(value, int) else Double() if isinstance(value, float) else self


def plain(value: Any) -> Any:
    """Return the value of a member of an enum, and anything else as it is."""
    return value.value if isinstance(value, enum.Enum) else value


def _places(value: Any) -> int | None:
    """Return the decimal places of *value*, a number or an expression; None if they are not known."""
    if isinstance(value, ColumnElement):
        kind: Any = value.type
        if kind.comparator_factory is ExactComparator:
            return int(kind.scale)
        return 0 if isinstance(kind, Integer) else None
    if isinstance(value, Decimal):
        exponent = value.as_tuple().exponent
        return max(0, -exponent) if isinstance(exponent, int) else None
    return 0 if isinstance(value, int) and not isinstance(value, bool) else None


def _is_date(value: Any) -> bool:
    return isinstance(value, date) and not isinstance(value, datetime)


def _is_moment(kind: Any) -> bool:
    return isinstance(kind, DateTime) or (isinstance(kind, TypeDecorator) and isinstance(kind.impl, DateTime))


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
    divide = "DIV" if compiler.dialect.name in MARIADB else "/"
    return f"(({number} - mod(mod({number}, {by}) + {by}, {by})) {divide} {by})"


@compiles(FloorDivided, "sqlite")
def _floor_divided_on_sqlite(element: FloorDivided, compiler: SQLCompiler, **options: Any) -> str:
    number, by = _parts(element, compiler, options)
    return f"(({number} - ({number} % {by} + {by}) % {by}) / {by})"


@compiles(WholeMicroseconds)
def _whole(element: WholeMicroseconds, compiler: SQLCompiler, **options: Any) -> str:
    return f"round{_parts(element, compiler, options)[0]}"


@compiles(WholeMicroseconds, "postgresql")
def _whole_on_postgresql(element: WholeMicroseconds, compiler: SQLCompiler, **options: Any) -> str:
    return _parts(element, compiler, options)[0]


@compiles(Shifted, "postgresql")
def _shifted(element: Shifted, compiler: SQLCompiler, **options: Any) -> str:
    moment, by = _parts(element, compiler, options)
    return f"({moment} + {by})"


@compiles(ShiftedAware, "postgresql")
def _shifted_aware(element: Shifted, compiler: SQLCompiler, **options: Any) -> str:
    # A day of the session's time zone may have 23 hours.
    moment, by = _parts(element, compiler, options)
    return f"(({moment} AT TIME ZONE 'UTC' + {by}) AT TIME ZONE 'UTC')"


@compiles(Shifted, *MARIADB)
@compiles(ShiftedAware, *MARIADB)
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
@compiles(ShiftedAware, "sqlite")
def _shifted_on_sqlite(element: Shifted, compiler: SQLCompiler, **options: Any) -> str:
    moment, by = _parts(element, compiler, options)
    there = f"({_microseconds(moment)} + {by})"
    fraction = f"(({there} % 1000000 + 1000000) % 1000000)"
    seconds = f"(({there} - {fraction}) / 1000000)"
    return f"(strftime('%Y-%m-%d %H:%M:%S', {seconds}, 'unixepoch') || printf('.%06d', {fraction}))"


@compiles(ShiftedDate, "postgresql")
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


@compiles(Elapsed, "postgresql")
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


@compiles(ElapsedDays, "postgresql")
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
