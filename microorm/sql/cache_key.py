"""Shapes: what stays the same of an SQL expression when its values change.

Two expressions of one shape are the same SQL with other parameters. Only what most conditions are made of has a shape
here: comparisons of columns with values, and their combinations. What has none is left to SQLAlchemy.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import (
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    Column,
    ColumnElement,
    False_,
    Grouping,
    Null,
    True_,
    UnaryExpression,
)
from sqlalchemy.sql import operators

from microorm.mapping.path import Path

OPERATORS = frozenset(
    {
        operators.and_,
        operators.asc_op,
        operators.contains_op,
        operators.desc_op,
        operators.endswith_op,
        operators.eq,
        operators.ge,
        operators.gt,
        operators.inv,
        operators.is_,
        operators.is_not,
        operators.le,
        operators.like_op,
        operators.lt,
        operators.ne,
        operators.not_like_op,
        operators.nulls_first_op,
        operators.nulls_last_op,
        operators.or_,
        operators.startswith_op,
        None,
    }
)
CONSTANTS = frozenset({Null, True_, False_})


class Shape(NamedTuple):
    """What an expression is made of, in order: *key*, which others of its shape share; its parameters and paths."""

    key: tuple[Any, ...]
    binds: tuple[BindParameter[Any], ...]
    paths: frozenset[Path]


class Shaped(tuple[ColumnElement[Any], ...]):
    """Expressions that all have a shape."""

    shapes: tuple[Shape, ...] = ()


def shape_of(schema: Any, given: Any) -> Shape | None:
    """The shape of *given*, whose columns are those of the model of *schema* and of paths from it.

    None for what has no shape, or a column of another table.
    """
    reader = _Reader(schema)
    if not reader.read(given) or not reader.kinds.issuperset(id(bind.type) for bind in reader.binds):
        return None
    return Shape(tuple(reader.key), tuple(reader.binds), frozenset(reader.paths))


def shaped(schema: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """The expressions *given*, as `Shaped` where all of them have a shape."""
    shapes = []
    for each in given:
        if (shape := shape_of(schema, each)) is None:
            return given
        shapes.append(shape)
    return _with_shapes(given, tuple(shapes))


def both(earlier: tuple[Any, ...], added: tuple[Any, ...]) -> tuple[Any, ...]:
    """*earlier* and *added* expressions, `Shaped` where both are."""
    if not earlier:
        return added
    if isinstance(earlier, Shaped) and isinstance(added, Shaped):
        return _with_shapes((*earlier, *added), earlier.shapes + added.shapes)
    return (*earlier, *added)


def _with_shapes(given: tuple[Any, ...], shapes: tuple[Shape, ...]) -> Shaped:
    made = Shaped(given)
    made.shapes = shapes
    return made


class _Reader:
    """One walk through an expression, from the left to the right."""

    __slots__ = ("binds", "key", "kinds", "paths", "schema")

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self.key: list[Any] = []
        self.binds: list[BindParameter[Any]] = []
        self.kinds: set[int] = set()
        self.paths: set[Path] = set()

    def read(self, element: Any) -> bool:
        """Note *element* and what is in it; whether it has a shape."""
        kind, key = element.__class__, self.key
        if kind is Column:
            return self._column(element)
        if kind is BindParameter:
            # A parameter of another type than the columns have may be converted otherwise the next time.
            self.binds.append(element)
            key.append(id(element.type))
            plain = element.callable is None and not element.expanding and not element.literal_execute
            return element.unique and plain
        if kind is BinaryExpression:
            if element.operator not in OPERATORS:
                return False
            key += (kind, element.operator, *sorted(element.modifiers.items()))
            return self.read(element.left) and self.read(element.right)
        if kind is BooleanClauseList:
            key += (kind, element.operator, len(element.clauses))
            return all(self.read(each) for each in element.clauses)
        if kind is UnaryExpression:
            key += (kind, element.operator, element.modifier)
            return {element.operator, element.modifier} <= OPERATORS and self.read(element.element)
        key.append(kind)
        return kind in CONSTANTS or (kind is Grouping and self.read(element.element))

    def _column(self, column: Any) -> bool:
        table = column.table
        if table is not self.schema.table:
            path = self.schema.registry.paths.get(table)
            if path is None or path._root is not self.schema:
                return False
            self.paths.add(path)
        self.key.append(id(column))
        self.kinds.add(id(column.type))
        return True
