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
    Dialect,
    Double,
    Integer,
    Interval,
    Numeric,
    String,
    literal,
    literal_column,
    type_coerce,
)
from sqlalchemy.exc import UnsupportedCompilationError
from sqlalchemy.sql import operators
from sqlalchemy.types import Float, TypeDecorator, TypeEngine

from microorm.errors import FieldError, ModelError
from microorm.fields.checks import shown
from microorm.fields.computed import (
    Elapsed,
    ElapsedDays,
    FloorDivided,
    Rounded,
    Shifted,
    ShiftedDate,
    WholeMicroseconds,
    is_aware,
)

MICROSECOND = timedelta(microseconds=1)
SQLITE_DIGITS = 15

ARITHMETIC = {
    operators.add: "+",
    operators.sub: "-",
    operators.mul: "*",
    operators.truediv: "/",
    operators.floordiv: "//",
    operators.mod: "%",
}


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

    def built(self, op: Any, other: Any, kind: TypeEngine[Any], *, reverse: bool) -> Any:
        """Return the expression that SQLAlchemy builds, as one of type *kind*, whose operators are those here."""
        base: Any = super()
        made = base.reverse_operate(op, other) if reverse else base.operate(op, other)
        made.type = kind
        return made

    def refuse(self, op: Any, other: Any, instead: str) -> NoReturn:
        """Raise `FieldError`, which says what to write *instead*."""
        what = text_of(other) if isinstance(other, ColumnElement) else shown(other)
        raise FieldError(f"{text_of(self.expr)} {ARITHMETIC[op]} {what} has no defined result; {instead}")


class _Moments(_Arithmetic):
    """Moments are moved by a `timedelta`, and subtracted from each other."""

    def compute(self, op: Any, other: Any, *, reverse: bool) -> Any:
        kind = other.type if isinstance(other, ColumnElement) else None
        expr = self.expr
        if isinstance(other, timedelta) or isinstance(kind, (Duration, Interval)):
            if op is operators.add or (op is operators.sub and not reverse):
                by = -other if op is operators.sub else other
                return self.shifted(literal(by, Duration()) if kind is None else by)
        elif op is operators.sub and (isinstance(other, datetime) or is_moment(kind)):
            there = literal(other, expr.type) if kind is None else other
            return elapsed(Elapsed, expr, there, reverse=reverse)
        return self.refuse(op, other, "add or subtract a timedelta, or subtract a datetime")

    def shifted(self, by: Any) -> Any:
        """Return the moment moved *by* a duration."""
        made = Shifted(self.expr, by)
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
            return elapsed(ElapsedDays, expr, there, reverse=reverse)
        return self.refuse(op, other, "add or subtract a timedelta of whole days, or subtract a date")


class DurationComparator(_Arithmetic, TypeDecorator.Comparator[Any], BigInteger.Comparator[Any]):
    """Operators of durations, which are added to each other, and multiplied or divided by a number."""

    def compute(self, op: Any, other: Any, *, reverse: bool) -> Any:
        if op is operators.add and is_moment(getattr(other, "type", None)):
            return other.comparator.reverse_operate(op, self.expr)
        base: Any = super(_Arithmetic, self)  # the operators of SQLAlchemy
        made = base.reverse_operate(op, other) if reverse else base.operate(op, other)
        made.type = self.expr.type
        if op is operators.truediv or (op is operators.mul and not isinstance(other, int)):
            made = WholeMicroseconds(made)
            made.type = self.expr.type
        return made


class FloatComparator(_Arithmetic, Double.Comparator[float]):
    """Operators of floats."""

    def compute(self, op: Any, other: Any, *, reverse: bool) -> Any:
        if isinstance(other, Decimal):
            self.refuse(op, other, f"write {float(other)!r}")
        if (made := computed_by(other, op, self.expr)) is not None:
            return made
        return self.built(op, other, float_type(), reverse=reverse)


def float_type() -> TypeEngine[float]:
    """Return DOUBLE."""
    made: TypeEngine[float] = Double()
    made.comparator_factory = FloatComparator
    return made


class IntegerComparator(_Arithmetic, BigInteger.Comparator[int]):
    """Operators of integers: `//` rounds down, as in Python."""

    def compute(self, op: Any, other: Any, *, reverse: bool) -> Any:
        if isinstance(other, Decimal):
            exact = type_coerce(self.expr, ExactNumeric(SQLITE_DIGITS, 0))
            return op(other, exact) if reverse else op(exact, other)
        if (made := computed_by(other, op, self.expr)) is not None:
            return made
        kind = getattr(other, "type", None)
        if isinstance(other, float) or isinstance(kind, Float):
            return self.built(op, other, float_type(), reverse=reverse)
        if op is operators.truediv or not (isinstance(other, int) or isinstance(kind, Integer)):
            return None
        if op is not operators.floordiv:
            return self.built(op, other, self.expr.type, reverse=reverse)
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
        if op is operators.mod:
            self.refuse(op, other, "compute it in Python")
        exact: Any = self.expr.type
        make, precision = type(exact), SQLITE_DIGITS
        base: Any = super(_Arithmetic, self)  # the operators of SQLAlchemy
        if (places := _places(other)) is not None and not isinstance(other, ColumnElement):
            other = literal(other, make(precision, places))
        made = base.reverse_operate(op, other) if reverse else base.operate(op, other)
        if places is None:
            if isinstance(other, ColumnElement) and isinstance(other.type, Float):
                made.type = float_type()
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

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(Interval())
        return dialect.type_descriptor(BigInteger())

    def process_bind_param(self, value: timedelta | None, dialect: Dialect) -> Any:
        return value if value is None or dialect.name == "postgresql" else value // MICROSECOND

    def process_result_value(self, value: Any, dialect: Dialect) -> timedelta | None:
        if value is None or isinstance(value, timedelta):
            return value
        return timedelta(microseconds=int(value))

    def coerce_compared_value(self, op: Any, value: Any) -> TypeEngine[Any]:
        # A duration is added to durations, but multiplied by numbers.
        return BigInteger() if isinstance(value, int) else Double() if isinstance(value, float) else self


class ExactNumeric(TypeDecorator[Decimal]):
    """A `Decimal` of *precision* digits, *scale* of them after the point.

    SQLite stores it as a float, so more than 15 digits are a `ModelError` there.
    """

    impl = Numeric
    cache_ok = True
    comparator_factory = ExactComparator  # pyright: ignore[reportAssignmentType] a memoized property there

    def __init__(self, precision: int, scale: int) -> None:
        super().__init__(precision, scale)
        self.precision = precision
        self.scale = scale

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name != "sqlite":
            return dialect.type_descriptor(Numeric(self.precision, self.scale))
        if self.precision > SQLITE_DIGITS:
            raise ModelError(
                f"a Decimal of max_digits={self.precision} would not be exact on SQLite, "
                f"which keeps {SQLITE_DIGITS} digits"
            )
        return dialect.type_descriptor(Numeric(self.precision, self.scale, asdecimal=False))

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return float(value) if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        if value is None or isinstance(value, Decimal):
            return value
        return Decimal(f"{value:.{self.scale}f}")


def computed_by(other: Any, op: Any, expr: Any) -> Any:
    """Return what *other*, the right operand of *op*, makes of a number *expr* if it is a decimal or a duration, else None."""
    factory = other.type.comparator_factory if isinstance(other, ColumnElement) else None
    return (
        other.comparator.reverse_operate(op, expr)
        if factory in (ExactComparator, DurationComparator)
        else None
    )


def has_operators(kind: TypeEngine[Any]) -> bool:
    """Return whether expressions of type *kind* have the operators defined here."""
    factory = kind.comparator_factory
    return isinstance(factory, type) and issubclass(factory, _Arithmetic)


def text_of(expression: Any) -> str:
    """Return the SQL of *expression* for a message; of one that some databases only have, the name of its class."""
    try:
        return str(expression)
    except UnsupportedCompilationError:
        return type(expression).__name__


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


def is_moment(kind: Any) -> bool:
    """Return whether *kind* is the type of a `datetime`."""
    return isinstance(kind, DateTime) or is_aware(kind)


def elapsed(kind: type[Elapsed], expr: Any, there: Any, *, reverse: bool) -> Any:
    """Return the duration from *there* to *expr*, or from *expr* to *there*."""
    made = kind(there, expr) if reverse else kind(expr, there)
    made.type = Duration()
    return made
