"""Expressions that SQLAlchemy has built without microorm's operators, which are built again with these, in place.

The types of `cast()`, `literal()` and functions are SQLAlchemy's own, whose results differ between databases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import Grouping
from sqlalchemy.sql.functions import current_timestamp, now
from sqlalchemy.sql.functions import sum as sum_function
from sqlalchemy.types import TypeEngine

from microorm.errors import FieldError
from microorm.fields.arithmetic import SQLITE_DIGITS, has_operators, is_moment
from microorm.fields.columns import FieldExpression
from microorm.fields.computed import TemporalCast, is_aware
from microorm.fields.families import TEMPORAL, Term, default_type, family_in
from microorm.fields.types import (
    MARIADB,
    ExactNumeric,
    NaiveUtcNow,
    UtcNow,
    date_type,
    datetime_type,
    float_type,
    integer_type,
    time_type,
)


class Rebuilt(FieldExpression):
    """An expression of two operands that was built again; *left* is what it stands for."""

    inherit_cache = True


class PortableFilter(sa.FunctionFilter[Any]):
    """An aggregate of the rows that fulfil a condition, on MariaDB, too, which has no FILTER."""

    inherit_cache = True


class PortableOver(sa.Over[Any]):
    """A window function, of which a sum of decimals is exact."""

    inherit_cache = True


class ExactSum(sum_function[Any]):
    """A sum of decimals, which SQLite adds as floats: there it is rounded to the places of its type."""

    inherit_cache = True
    name = "sum"
    _register = False  # func.sum stays SQLAlchemy's


CLOCKS = (now, current_timestamp, UtcNow)
_CASTS = {
    "date": ("date", "datetime", "str", None),
    "time": ("time", "datetime", "str", None),
    "datetime": ("date", "datetime", "str", None),
}


def set_clock(clock: Any, kind: TypeEngine[Any]) -> None:
    """Make *clock*, SQL's present moment, a moment of *kind*, with a time zone or without."""
    clock.__class__ = UtcNow if is_aware(kind) else NaiveUtcNow
    _retype(clock, kind)


def set_cast(cast: Any, source: Term) -> Term:
    """Return what is known of *cast*, whose operand is *source*; one to a date, a time or a moment gets microorm's type.

    Raises `FieldError` for an operand that a date, time or moment cannot be made of.
    """
    kind, family = _temporal(cast.type)
    if family is None:
        return Term()
    given = source.family or ("datetime" if is_moment(cast.clause.type) else None)
    if given not in _CASTS[family]:
        known = ", ".join(each for each in _CASTS[family] if each)
        raise FieldError(f"a {family} cannot be made of {given} by cast(), only of {known}")
    if not has_operators(cast.type) or cast.__class__ is not TemporalCast:
        cast.__class__ = TemporalCast
        _retype(cast, kind)
    return Term(family, source.field, type=cast.type)


def _temporal(kind: Any) -> tuple[Any, str | None]:
    """Return microorm's type for *kind*, that of a date, a time or a moment, and its family; else None."""
    if isinstance(kind, sa.Date):
        return date_type(), "date"
    if isinstance(kind, sa.Time):
        return time_type(), "time"
    return (datetime_type(aware=is_aware(kind)), "datetime") if is_moment(kind) else (kind, None)


def rebuilt(element: Any, operator: Any, terms: Sequence[Term], *, floating: bool) -> Any:
    """Return the expression *element* of two operands, made by microorm's *operator*; None if it is that already.

    *floating*: a quotient becomes a float, of which MariaDB would compute a few decimal places.
    """
    if not isinstance(element, sa.BinaryExpression):
        return None
    if (
        floating
        and operator is operators.truediv
        and {family_in(term) for term in terms} <= {"int", "Decimal"}
    ):
        return sa.cast(element.left, float_type()) / element.right
    if has_operators(element.type) and (
        has_operators(element.left.type) or isinstance(element.left, sa.BindParameter)
    ):
        return None
    families = [family_in(term) for term in terms]
    differs = "Decimal" in families or (operator is operators.floordiv and families == ["int", "int"])
    known = any(has_operators(each.type) for each in (element.left, element.right))
    if None in families or not (differs or known):
        return None
    if operator is operators.truediv and "timedelta" not in families:
        return None
    left, right = _typed(element.left, families[0]), _value(element.right)
    if not has_operators(left.type):
        left, right = _value(element.left), _typed(element.right, families[1])
        if not has_operators(right.type):
            return None
    made = operator(left, right)
    return made if has_operators(made.type) else None


@compiles(Rebuilt)
def _rebuilt(element: Rebuilt, compiler: SQLCompiler, **options: Any) -> str:
    return f"({compiler.process(element.left, **options)})"


@compiles(PortableFilter)
def _filtered(element: PortableFilter, compiler: SQLCompiler, **options: Any) -> str:
    plain: Any = compiler
    sql: str = plain.visit_funcfilter(element, **options)
    return sql


@compiles(PortableFilter, *MARIADB)
def _filtered_by_case(element: PortableFilter, compiler: SQLCompiler, **options: Any) -> str:
    function: Any = element.func
    condition: Any = element.criterion
    first, *others = function.clauses
    repeated = not (isinstance(first, sa.UnaryExpression) and first.operator is operators.distinct_op)
    value = first if repeated else first.element
    if isinstance(value, sa.TextClause) or getattr(value, "is_literal", False):  # count(*)
        value = sa.literal_column("1")
    value = sa.case((condition, value))
    made = getattr(sa.func, function.name)(value if repeated else value.distinct(), *others)
    return compiler.process(made, **options)


@compiles(ExactSum, "sqlite")
def _sum_on_sqlite(element: ExactSum, compiler: SQLCompiler, **options: Any) -> str:
    plain: Any = compiler
    return _rounded_sum(element, plain.visit_function, options)


@compiles(PortableFilter, "sqlite")
def _filtered_on_sqlite(element: PortableFilter, compiler: SQLCompiler, **options: Any) -> str:
    plain: Any = compiler
    return _rounded_sum(element, plain.visit_funcfilter, options)


@compiles(PortableOver, "sqlite")
def _over_on_sqlite(element: PortableOver, compiler: SQLCompiler, **options: Any) -> str:
    plain: Any = compiler
    return _rounded_sum(element, plain.visit_over, options)


def _rounded_sum(element: Any, visit: Callable[..., str], options: dict[str, Any]) -> str:
    """Return the SQL of *element* that *visit* makes; a sum of decimals is rounded, outside of its FILTER and OVER."""
    inner = element
    while isinstance(inner, (sa.Over, sa.FunctionFilter)):
        inner = inner.element if isinstance(inner, sa.Over) else inner.func
    if not isinstance(inner, ExactSum):
        return visit(element, **options)
    within = options.get("rounded_sum") is inner
    sql = visit(element, **{**options, "rounded_sum": inner})
    kind: Any = inner.type
    return sql if within else f"round({sql}, {kind.scale})"


def set_sum(element: Any, argument: Any) -> None:
    """Make *element*, a sum of *argument*, an exact one if it is one of decimals."""
    if isinstance(element, sum_function) and isinstance(argument.type, ExactNumeric):
        element.__class__ = ExactSum
        _retype(element, argument.type)


def aggregated(element: Any) -> Any:
    """Return the function that OVER, FILTER or WITHIN GROUP in *element* belongs to; the first two become portable, in place."""
    if isinstance(element, sa.Over):
        element.__class__ = PortableOver
    if not isinstance(element, sa.FunctionFilter):
        return element.element
    element.__class__ = PortableFilter
    return element.func


def become(element: Any, made: Any) -> None:
    """Make *element*, which is a part of other expressions, stand for *made*."""
    element.left, element.right = made, sa.null()
    element.__class__ = Rebuilt
    _retype(element, made.type)


def _retype(element: Any, kind: TypeEngine[Any]) -> None:
    element.type = kind
    element.__dict__.pop("comparator", None)  # that of the earlier type, which SQLAlchemy keeps


def _value(operand: Any) -> Any:
    """Return the value of a parameter, and any other operand as it is."""
    if isinstance(operand, Grouping):
        return _value(operand.element)
    fixed = isinstance(operand, sa.BindParameter) and operand.callable is None and not operand.required
    return operand.value if fixed and operand.value is not None else operand


def _typed(operand: Any, family: str | None) -> Any:
    """Return *operand* with a type whose operators are microorm's, where there is one for its *family*."""
    if has_operators(operand.type):
        return operand
    kind = _type_for(operand, family)
    return operand if kind is None else sa.type_coerce(operand, kind)


def _type_for(operand: Any, family: str | None) -> TypeEngine[Any] | None:
    if family == "int":
        return integer_type()
    if family == "float":
        return float_type()
    if family in TEMPORAL or family == "timedelta":
        value = _value(operand)
        return None if isinstance(value, sa.ColumnElement) else default_type(value)
    if family == "Decimal" and getattr(operand.type, "scale", None) is not None:
        return ExactNumeric(SQLITE_DIGITS, operand.type.scale)
    return None
