"""The columns of fields, whose conditions cannot be combined by `and`, `or` and `not`.

SQLAlchemy gives `column == value` a truth value, so that `filter(a or b)` would drop a condition.

Texts are searched for as they are: `%`, `_` and the backslash have no meaning in `contains()` and the like.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn, TypeVar

from sqlalchemy import BinaryExpression, Column, ColumnElement, String, func
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import ExpressionClauseList
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from microorm.messages import brief


def _no_truth_value() -> NoReturn:
    raise TypeError(
        "a condition has no truth value in Python; write `a & b` or and_(a, b), `a | b` or or_(a, b), `~a` or not_(a), "
        "and column.in_([...]) instead of `and`, `or`, `not` and `in`"
    )


def _operate(self: Any, op: Any, *other: Any, **options: Any) -> Any:
    """Return the expression as SQLAlchemy makes it, without a truth value."""
    expression = op(self.comparator, *other, **options)
    if (kind := WITHOUT_TRUTH.get(expression.__class__)) is not None:
        expression.__class__ = kind
    return expression


class FieldColumn(Column[Any]):
    """The column of a field."""

    inherit_cache = True

    def __bool__(self) -> NoReturn:
        _no_truth_value()

    operate = _operate

    def reverse_operate(self, op: Any, other: Any, **options: Any) -> Any:
        """Return the expression as SQLAlchemy makes it, without a truth value."""
        expression = super().reverse_operate(op, other, **options)
        if (kind := WITHOUT_TRUTH.get(expression.__class__)) is not None:
            expression.__class__ = kind
        return expression


class FieldExpression(BinaryExpression[Any]):
    """An expression that begins with the column of a field: a comparison, or arithmetic that may be compared."""

    inherit_cache = True

    def __bool__(self) -> bool:
        # SQLAlchemy searches lists for a column, and Python compares the column with each.
        if isinstance(self.left, Column) and isinstance(self.right, Column):
            caller: str = sys._getframe(1).f_globals.get("__name__", "")
            if caller.startswith("sqlalchemy."):
                return (self.left is self.right) is (self.operator is operators.eq)
        _no_truth_value()

    def __invert__(self) -> Any:
        expression = super().__invert__()
        expression.__class__ = WITHOUT_TRUTH.get(expression.__class__, expression.__class__)
        return expression

    operate = _operate


class FieldTerms(ExpressionClauseList[Any]):
    """Three or more terms of one operator, of which the first is the column of a field."""

    inherit_cache = True

    operate = _operate


class FieldFunction(FunctionElement[Any]):
    """A function of a field, whose conditions have no truth value either."""

    inherit_cache = True

    operate = _operate


# An expression gets the class on the right, which differs in the methods above only.
WITHOUT_TRUTH: dict[type, type] = {BinaryExpression: FieldExpression, ExpressionClauseList: FieldTerms}


T = TypeVar("T", bound=TypeEngine[Any])

ESCAPE = "/"  # as with SQLAlchemy's `autoescape`
PATTERN_ESCAPE = "\\"
_WILDCARDS = (ESCAPE, "%", "_")

_LITERAL = frozenset(
    {
        operators.contains_op,
        operators.endswith_op,
        operators.icontains_op,
        operators.iendswith_op,
        operators.istartswith_op,
        operators.not_contains_op,
        operators.not_endswith_op,
        operators.not_icontains_op,
        operators.not_iendswith_op,
        operators.not_istartswith_op,
        operators.not_startswith_op,
        operators.startswith_op,
    }
)
_PATTERN = frozenset({operators.ilike_op, operators.like_op, operators.not_ilike_op, operators.not_like_op})


class TextComparator(String.Comparator[str]):
    """Makes `contains()`, `startswith()` and `endswith()` search for a text as it is, and a backslash escape in `like()`."""

    def operate(self, op: Any, *other: Any, **options: Any) -> Any:
        """Return the expression, with an escape character if it is LIKE and names none."""
        if options.get("escape") is None:
            if op in _LITERAL:
                other, options = (_escaped(other[0]),), {**options, "escape": ESCAPE}
            elif op in _PATTERN:
                _check_pattern(other[0])
                options = {**options, "escape": PATTERN_ESCAPE}
        return super().operate(op, *other, **options)


def compared_as_text(kind: T) -> T:
    """Return *kind*; if it is a plain type of texts, with `TextComparator`."""
    if isinstance(kind, String) and kind.comparator_factory is String.comparator_factory:
        kind.comparator_factory = TextComparator
    return kind


def _escaped(value: Any) -> Any:
    """Return *value*, a text or an expression, with escaped wildcards."""
    for each in _WILDCARDS:
        if isinstance(value, str):
            value = value.replace(each, ESCAPE + each)
        elif isinstance(value, ColumnElement):
            value = func.replace(value, each, ESCAPE + each, type_=value.type)
    return value


def _check_pattern(pattern: Any) -> None:
    if isinstance(pattern, str) and (len(pattern) - len(pattern.rstrip(PATTERN_ESCAPE))) % 2:
        raise ValueError(
            f"the pattern {brief(pattern)} ends in a backslash, which escapes the next character; write two, or name another "
            "one as escape="
        )
