"""The columns of fields, whose conditions cannot be combined by `and`, `or` and `not`.

SQLAlchemy gives `column == value` a truth value, so that `filter(a or b)` would drop a condition.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from sqlalchemy import BinaryExpression, Column
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import ExpressionClauseList
from sqlalchemy.sql.functions import FunctionElement


def _no_truth_value() -> NoReturn:
    raise TypeError(
        "a condition has no truth value in Python; write `a & b` or and_(a, b), `a | b` or or_(a, b), `~a` or not_(a), "
        "and column.in_([...]) instead of `and`, `or`, `not` and `in`"
    )


class FieldColumn(Column[Any]):
    """The column of a field."""

    inherit_cache = True

    def __bool__(self) -> NoReturn:
        _no_truth_value()

    def operate(self, op: Any, *other: Any, **options: Any) -> Any:
        """Return the expression as SQLAlchemy makes it, without a truth value."""
        expression = op(self.comparator, *other, **options)
        if (kind := WITHOUT_TRUTH.get(expression.__class__)) is not None:
            expression.__class__ = kind
        return expression

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

    def operate(self, op: Any, *other: Any, **options: Any) -> Any:
        """Return the expression as SQLAlchemy makes it, without a truth value."""
        expression = op(self.comparator, *other, **options)
        if (kind := WITHOUT_TRUTH.get(expression.__class__)) is not None:
            expression.__class__ = kind
        return expression


class FieldTerms(ExpressionClauseList[Any]):
    """Three or more terms of one operator, of which the first is the column of a field."""

    inherit_cache = True

    def operate(self, op: Any, *other: Any, **options: Any) -> Any:
        """Return the expression as SQLAlchemy makes it, without a truth value."""
        expression = op(self.comparator, *other, **options)
        if (kind := WITHOUT_TRUTH.get(expression.__class__)) is not None:
            expression.__class__ = kind
        return expression


class FieldFunction(FunctionElement[Any]):
    """A function of a field, whose conditions have no truth value either."""

    inherit_cache = True

    def operate(self, op: Any, *other: Any, **options: Any) -> Any:
        """Return the expression as SQLAlchemy makes it, without a truth value."""
        expression = op(self.comparator, *other, **options)
        if (kind := WITHOUT_TRUTH.get(expression.__class__)) is not None:
            expression.__class__ = kind
        return expression


# An expression gets the class on the right, which differs in the methods above only.
WITHOUT_TRUTH: dict[type, type] = {BinaryExpression: FieldExpression, ExpressionClauseList: FieldTerms}
