"""Keys under which the compiled SQL of a query is cached.

Expressions with equal cache keys compile to the same SQL and differ only in the values of their parameters. Only what most
conditions consist of has a key: comparisons of columns with values, their combinations, and orders by columns. All other
expressions go through SQLAlchemy's `Connection`, which has a cache of its own.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql import operators

from microorm.fields.columns import FieldColumn, FieldExpression
from microorm.fields.elements import KeyParameter, check_comparison
from microorm.fields.types import IsNotTrue
from microorm.mapping.path import MAX_NESTING, Path

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
CONSTANTS = frozenset({sa.Null, sa.True_, sa.False_})
CONDITIONS = frozenset({sa.BinaryExpression, sa.BooleanClauseList, sa.UnaryExpression, sa.Grouping})


class CacheableExpressions(tuple[sa.ColumnElement[Any], ...]):
    """Expressions that share a cache *key*, with their parameters, in the order of the key, and the paths they use."""

    key: tuple[Any, ...] = ()
    parameters: tuple[sa.BindParameter[Any], ...] = ()
    paths: frozenset[Path] = frozenset()
    instances: tuple[Any, ...] = ()  # whose keys are among the parameters


NO_EXPRESSIONS = CacheableExpressions()


def cacheable(schema: Any, expressions: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return *expressions* as `CacheableExpressions`, or as they are where one of them has no cache key.

    Columns may be those of the model of *schema* and of paths that start there; one of another table has no key.
    """
    if not expressions:
        return NO_EXPRESSIONS
    reader = _Reader(schema)
    for expression in expressions:
        if not reader.read(expression):
            return expressions
    for parameter in reader.parameters:
        # One of another type than the columns have might be converted in another way the next time.
        if id(parameter.type) not in reader.types:
            return expressions
    found = CacheableExpressions(expressions)
    found.key, found.parameters = tuple(reader.key), tuple(reader.parameters)
    found.paths, found.instances = frozenset(reader.paths), reader.instances
    return found


def concatenated(earlier: tuple[Any, ...], added: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return *earlier* and *added* expressions together, with a cache key where both have one."""
    if not earlier:
        return added
    if not (isinstance(earlier, CacheableExpressions) and isinstance(added, CacheableExpressions)):
        return (*earlier, *added)
    found = CacheableExpressions((*earlier, *added))
    found.key, found.parameters = earlier.key + added.key, earlier.parameters + added.parameters
    found.paths = earlier.paths | added.paths
    return found


class _Reader:
    """Walks through expressions, from left to right, and collects their cache key."""

    __slots__ = ("instances", "key", "parameters", "paths", "schema", "types")

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self.key: list[Any] = []
        self.parameters: list[sa.BindParameter[Any]] = []
        self.types: set[int] = set()
        self.paths: set[Path] = set()
        self.instances: tuple[Any, ...] = ()

    def read(self, element: Any, level: int = 0) -> bool:
        """Add *element*, *level* parts deep in the expression, and its parts to the key; return False if one has none."""
        kind, key = element.__class__, self.key
        if kind is FieldColumn:
            return self._column(element)
        if kind is sa.BindParameter or kind is KeyParameter:
            self.parameters.append(element)
            key.append(id(element.type))
            plain = element.callable is None and not element.expanding and not element.literal_execute
            return element.unique and plain
        if level > MAX_NESTING:
            return False
        level += 1
        if kind is FieldExpression or kind is sa.BinaryExpression:
            if element.operator not in OPERATORS:
                return False
            key += (kind, element.operator, *sorted(element.modifiers.items()))
            left, right = element.left, element.right
            if not (self.read(left, level) and self.read(right, level)):
                return False
            known = left.__class__ in CONDITIONS and right.__class__ in CONSTANTS
            if not (known or check_comparison(left, element.operator, right)):
                return False
            if right.__class__ is KeyParameter:
                self.instances += right.instances
            return True
        if kind is sa.BooleanClauseList:
            key += (kind, element.operator, len(element.clauses))
            return all(self.read(each, level) for each in element.clauses)
        if kind is sa.UnaryExpression:
            key += (kind, element.operator, element.modifier)
            return {element.operator, element.modifier} <= OPERATORS and self.read(element.element, level)
        key.append(kind)
        if kind is IsNotTrue:
            return all(self.read(each, level) for each in element.clauses)
        return kind in CONSTANTS or (kind is sa.Grouping and self.read(element.element, level))

    def _column(self, column: Any) -> bool:
        table = column.table
        if table is not self.schema.table:
            path = self.schema.registry.paths.get(table)
            if path is None or path._root is not self.schema:
                return False
            self.paths.add(path)
        self.key.append(id(column))
        self.types.add(id(column.type))
        return True
