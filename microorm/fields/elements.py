"""The parts of SQLAlchemy's expressions.

The quick check of what most conditions are is here, too: a column that is compared with a value (`check_comparison`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import ExpressionClauseList, Grouping
from sqlalchemy.sql.selectable import Select
from sqlalchemy.types import NullType

from microorm.fields.checks import InvalidFieldValue, shown
from microorm.fields.columns import FieldColumn
from microorm.fields.families import COMPARISONS, PLAIN, TEXT_OPERATORS, comparable, field_of, of_field
from microorm.fields.field import FIELD, Field

KEYS = "microorm_keys"
"""The execution option of a SELECT of the keys that a query finds: `Keys`."""


class Keys(NamedTuple):
    """The *model* of a query that stands for its keys, and the *instances* that must be of the alias that is read."""

    model: Any
    instances: tuple[Any, ...]


class KeyParameter(sa.BindParameter[Any]):
    """A parameter whose values were *instances*, which stand for their keys."""

    inherit_cache = True
    instances: tuple[Any, ...]


def keep_instance(literal: Any, instance: Any) -> None:
    """Remember that a value of *literal* is the key of *instance*."""
    known = literal.instances if literal.__class__ is KeyParameter else ()
    literal.instances = (*known, instance)
    literal.__class__ = KeyParameter


def is_instance(value: Any) -> bool:
    """Return whether *value* is an instance of a model."""
    return hasattr(type(value), "__schema__")


def refuse_rows(literals: Iterable[Any]) -> None:
    """Raise `TypeError` for a model or an instance among the values of *literals*, where nothing says which column is meant.

    MariaDB's drivers would send their `str()`.
    """
    for value in chain.from_iterable(values_of(each) for each in literals):
        if is_instance(value) or (isinstance(value, type) and hasattr(value, "__schema__")):
            raise TypeError(
                f"an expression takes columns and values, not {shown(value)}; name a column of it, or its key"
            )


def keys_of(element: Any) -> Keys | None:
    """Return what is known of a query if *element* selects its keys."""
    found: Keys | None
    found = element.get_execution_options().get(KEYS) if isinstance(element, Select) else None
    return found


def results_of(case: sa.Case[Any]) -> list[Any]:
    """Return the results of *case*."""
    return [result for _, result in case.whens] + ([] if case.else_ is None else [case.else_])


def operands_of(element: Any) -> list[Any]:
    """Return the operands of an operator, those of BETWEEN and of a list in IN one by one."""
    if isinstance(element, sa.UnaryExpression):
        return [element.element]
    if not isinstance(element, sa.BinaryExpression):
        return list(element.clauses)
    right = element.right
    if element.operator in (operators.between_op, operators.not_between_op):
        return [element.left, *right.clauses]
    if element.operator in (operators.in_op, operators.not_in_op):
        inner = right.element if isinstance(right, Grouping) else right
        if isinstance(inner, (sa.ClauseList, ExpressionClauseList)) and not isinstance(inner, sa.Tuple):
            return [element.left, *inner.clauses]
    return [element.left, right]


def value_of(literal: Any) -> Any:
    """Return the value of a parameter, or of SQL's true and false."""
    return literal.value if isinstance(literal, sa.BindParameter) else isinstance(literal, sa.True_)


def values_of(literal: Any) -> list[Any]:
    """Return the values of a parameter, which are several in IN."""
    value = value_of(literal)
    return list(value) if isinstance(literal, sa.BindParameter) and literal.expanding else [value]


def kept(value: Any, cleaned: Any) -> Any:
    """Return *value* itself where its type converts it, since the same expression may be used with another field."""
    return value if type(value) in PLAIN else cleaned


def is_guessed(literal: Any, values: Sequence[Any]) -> bool:
    """Return whether SQLAlchemy chose the type of *literal* by its value."""
    sample = next((value for value in values if value is not None), None)
    guess: Any = sa.BindParameter(None, sample, unique=True).type
    return isinstance(literal.type, (NullType, type(guess))) or isinstance(guess, NullType)


def check_comparison(column: Any, operator: Any, operand: Any) -> bool:
    """Check *operand*, a value that is compared with *column*; return False where `check` has to do it."""
    if column.__class__ is not FieldColumn:
        return False
    reference = column.info.get(FIELD)
    field: Field[Any] | None = field_of(column) if reference is None else reference()
    if operand.__class__ is not sa.BindParameter and operand.__class__ is not KeyParameter:
        return operator in COMPARISONS and (
            operand.__class__ is sa.Null or _comparable_columns(field, operand)
        )
    value = operand.value
    if operator in TEXT_OPERATORS:
        return value.__class__ is str and field is not None and of_field(field).family == "str"
    if field is None or operator not in COMPARISONS:
        return False
    if value is None:
        return True
    if operand.expanding:
        operand.value = [None if each is None else operand_of(field, each, operand) for each in value]
    else:
        operand.value = operand_of(field, value, operand)
    operand.type = column.type
    return True


def operand_of(field: Field[Any], value: Any, operand: Any) -> Any:
    """Return *value*, one of *operand*, as it is compared with the column of *field*. Raises as `Field.comparable` does."""
    try:
        return kept(value, field.check.clean(value))
    except InvalidFieldValue:
        found = field.comparable(value)
        if is_instance(value):
            keep_instance(operand, value)
        return found


def _comparable_columns(field: Field[Any] | None, operand: Any) -> bool:
    """Return whether the column of *field* can be compared with *operand*, a column or SQL's true or false."""
    if field is None:
        return False
    if operand.__class__ is not FieldColumn:
        return operand.__class__ in (sa.True_, sa.False_) and of_field(field).family == "bool"
    other = field_of(operand)
    return other is not None and comparable(of_field(field).family, of_field(other).family)
