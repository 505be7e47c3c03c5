"""Long lists of values on the right side of IN.

Each value is a parameter, and PostgreSQL and SQLite take only so many of them. There the list becomes one parameter: an
array, or a JSON text. MariaDB limits the size of a statement instead.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import (
    BinaryExpression,
    BindParameter,
    Boolean,
    Dialect,
    Float,
    LargeBinary,
    Numeric,
    Text,
    bindparam,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TupleType, TypeDecorator, TypeEngine

MAX_LISTED = 1_000
"""How many values of a list are parameters of their own; a statement may have several such lists."""

_MEMBERSHIP = (operators.in_op, operators.not_in_op)
_INEXACT = (Float, LargeBinary, Numeric)  # that JSON on SQLite cannot represent exactly


class ListOf(TypeDecorator[Any]):
    """A list of values of *kind* as one parameter."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: TypeEngine[Any]) -> None:
        super().__init__()
        self.kind = kind

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name != "postgresql":
            return dialect.type_descriptor(Text())
        from sqlalchemy.dialects import postgresql  # noqa: PLC0415 importing it takes 50 ms

        return dialect.type_descriptor(postgresql.ARRAY(self.kind))

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        if dialect.name != "sqlite":
            return value
        process = self.kind.dialect_impl(dialect).bind_processor(dialect)
        return json.dumps(value if process is None else list(map(process, value)))


class InList(FunctionElement[bool]):
    """An IN with many values: the condition as SQLAlchemy writes it, and its values as one parameter."""

    inherit_cache = True
    name = "in_list"
    type = Boolean()


class NotInList(InList):
    """A NOT IN with many values."""

    inherit_cache = True


def has_long_list(element: Any) -> bool:
    """Return whether *element* is an IN with more values than should be parameters of their own."""
    if element.__class__ is not BindParameter or not element.expanding:
        return False
    values = element.value
    return (
        isinstance(values, (list, tuple))
        and len(values) > MAX_LISTED
        and not isinstance(element.type, TupleType)
    )


def with_long_lists(expression: Any) -> Any:
    """Return *expression*, in which each IN with many values has them as one parameter."""

    def replaced(element: Any, **options: Any) -> Any:
        if not isinstance(element, BinaryExpression) or element.operator not in _MEMBERSHIP:
            return None
        if not has_long_list(element.right):
            return None
        kind = element.right.type
        listed: BindParameter[Any] = bindparam(None, list(element.right.value), ListOf(kind), unique=True)
        return (InList if element.operator is operators.in_op else NotInList)(element, listed)

    return visitors.replacement_traverse(expression, {}, replaced)


@compiles(InList)
def _as_it_is(element: InList, compiler: SQLCompiler, **options: Any) -> str:
    condition, _ = element.clauses
    return f"({compiler.process(condition, **options)})"


@compiles(InList, "postgresql")
def _any(element: InList, compiler: SQLCompiler, **options: Any) -> str:
    condition: Any
    condition, listed = element.clauses
    quantified = "<> ALL" if isinstance(element, NotInList) else "= ANY"
    left = compiler.process(condition.left, **options)
    return f"({left} {quantified} ({compiler.process(listed, **options)}))"


@compiles(InList, "sqlite")
def _from_json(element: InList, compiler: SQLCompiler, **options: Any) -> str:
    condition: Any
    condition, listed = element.clauses
    kind = condition.right.type.dialect_impl(compiler.dialect)
    if isinstance(getattr(kind, "impl_instance", kind), _INEXACT):
        return _as_it_is(element, compiler, **options)
    words = "NOT IN" if isinstance(element, NotInList) else "IN"
    left = compiler.process(condition.left, **options)
    return f"({left} {words} (SELECT value FROM json_each({compiler.process(listed, **options)})))"
