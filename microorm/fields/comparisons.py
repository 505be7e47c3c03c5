"""The quick check of what most conditions are: a column that is compared with a value."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from microorm.fields.checks import InvalidFieldValue
from microorm.fields.columns import FieldColumn
from microorm.fields.elements import KeyParameter, is_instance, keep_instance, kept
from microorm.fields.families import COMPARISONS, TEXT_OPERATORS, comparable, field_of, of_field
from microorm.fields.field import FIELD, Field


def check_comparison(column: Any, operator: Any, operand: Any) -> bool:
    """Check *operand*, a value that is compared with *column*; return False where `check` has to do it."""
    if column.__class__ is not FieldColumn:
        return False
    field: Field[Any] | None = column.info.get(FIELD) or field_of(column)
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
