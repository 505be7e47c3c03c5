"""LIKE with one meaning on every database, for the columns of texts.

PostgreSQL and MariaDB take a backslash for the escape character unless another one is named; SQLite has none.
"""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import ColumnElement, String, func
from sqlalchemy.sql import operators
from sqlalchemy.types import TypeEngine

from microorm.messages import brief

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
