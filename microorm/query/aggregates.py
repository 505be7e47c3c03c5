"""Aggregates of the rows along a path to many, such as `func.count(Author.books.id)`.

Each becomes a correlated sub-select, a number of one row. So it can stand wherever a column can, and the rows of two paths
never multiply each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import SelectBase

from microorm.errors import FieldError
from microorm.fields.arithmetic import text_of
from microorm.mapping.path import Path, joined_around, paths_in, rows_along, select_along
from microorm.mapping.schema import Schema

AGGREGATES = frozenset(
    [
        "aggregate_strings",
        "any_value",
        "array_agg",
        "avg",
        "bit_and",
        "bit_or",
        "bit_xor",
        "bool_and",
        "bool_or",
        "count",
        "every",
        "group_concat",
        "json_agg",
        "json_arrayagg",
        "json_group_array",
        "json_object_agg",
        "json_objectagg",
        "jsonb_agg",
        "jsonb_object_agg",
        "max",
        "median",
        "min",
        "mode",
        "percentile_cont",
        "percentile_disc",
        "range_agg",
        "std",
        "stddev",
        "stddev_pop",
        "stddev_samp",
        "string_agg",
        "sum",
        "total",
        "var_pop",
        "var_samp",
        "variance",
    ]
)
"""The functions that make one value of many rows, of all databases."""

_PLAIN = (sa.ColumnClause, sa.BindParameter)
_OPAQUE = (SelectBase, sa.ScalarSelect, sa.Exists)


def per_row(schema: Schema, method: str, given: Any, known: Mapping[Any, Any] | None = None) -> Any:
    """Return the expression *given* to *method*, in which each aggregate along a path to many rows is a sub-select.

    The keys of *known* are expressions of which the values are what they have become already. An aggregate of an aggregate,
    such as `func.sum(func.count(Author.books.id))`, is one of the query's own rows. Raises `FieldError` for an aggregate
    over rows of two paths.
    """

    windowed: list[Any] = []  # functions of windows, which are not aggregates though they look like them

    def replaced(element: Any, **_: Any) -> Any:
        if known and (before := known.get(element)) is not None:
            return before
        if isinstance(element, _OPAQUE):
            return element
        if isinstance(element, sa.Over):
            windowed.extend((element.element, getattr(element.element, "func", None)))
        if not is_aggregate(element) or any(element is each for each in windowed) or _nests(element):
            return None
        paths = paths_in(schema, element)
        return _sub_select(schema, method, element, paths) if any(path._many for path in paths) else None

    return visitors.replacement_traverse(given, {}, replaced)


def is_aggregate(element: Any) -> bool:
    """Return whether *element* makes one value of many rows."""
    if isinstance(element, (sa.FunctionFilter, sa.WithinGroup)):
        return True
    name = getattr(element, "name", None)
    if not isinstance(element, FunctionElement) or not isinstance(name, str):
        return False
    name = name.lower()
    # SQLite's min() and max() of several values are functions of one row.
    return name in AGGREGATES and (name not in ("min", "max") or len(list(element.clauses)) == 1)


def is_per_row(expression: Any, groups: Sequence[Any] = ()) -> bool:
    """Return whether *expression* has an aggregate along a path outside *groups* and aggregates of the query's own rows."""
    left = [expression]
    while left:
        element = left.pop()
        if any(element is each for each in groups):
            continue
        if joined_around(element) is not None:
            return True
        if not is_aggregate(element) and not isinstance(element, _OPAQUE):
            left += element.get_children()
    return False


def has_window(expression: Any) -> bool:
    """Return whether *expression* contains a window function of the query's own rows."""
    return any(isinstance(each, sa.Over) for each in _inside([expression]))


def refuse_mixed(selected: Iterable[Any], others: Iterable[Any]) -> None:
    """Raise `FieldError` for an aggregate of all rows beside a *selected* column of each, in a query without groups.

    The aggregate may be in *others*, the order and HAVING, too. PostgreSQL refuses it; SQLite and MariaDB would return one row,
    and choose its values.
    """
    selected = list(selected)
    parts = [part for part in (*selected, *others) if not isinstance(part, _PLAIN)]
    found = next((each for part in parts for each in _apart(part) if is_aggregate(each)), None)
    if found is None:
        return
    for each in (element for part in selected for element in _apart(part)):
        if (isinstance(each, sa.ColumnClause) and each.table is not None) or joined_around(each) is not None:
            shown, column = (" ".join(text_of(part).split()) for part in (found, each))
            raise FieldError(
                f"{shown} is one value of all rows of the query, and {column} has one in each; use aggregate() or group_by(), "
                "aggregate along a path to many rows, or write .over()"
            )


def _apart(expression: Any) -> Iterator[Any]:
    """Yield the parts of *expression* but those inside of aggregates, and the functions of windows."""
    if isinstance(expression, (sa.Label, sa.UnaryExpression)) and isinstance(expression.element, _PLAIN):
        yield expression.element
        return
    windowed: list[Any] = []
    left = [expression]
    while left:
        element = left.pop()
        if isinstance(element, sa.Over):
            windowed += [element.element, getattr(element.element, "func", None)]
        elif not any(element is each for each in windowed):
            yield element
        whole = is_aggregate(element) and not any(element is each for each in windowed)
        if not whole and not isinstance(element, _OPAQUE):
            left += element.get_children()


def of_groups(groups: Sequence[Any], expressions: Iterable[Any]) -> list[Any]:
    """Return *expressions* of a query that is grouped by *groups*, with the same objects for what equals one of these.

    PostgreSQL would not know an equal expression with other parameters. Raises `FieldError` for an aggregate along a path that
    is neither a group nor aggregated itself: a number of one row, of which a group has several.
    """
    plain = [each.element if isinstance(each, sa.Label) else each for each in groups]

    def same(element: Any, **_: Any) -> Any:
        return next((each for each in plain if each.compare(element)), None)

    found = []
    for each in expressions:
        if is_per_row(each):
            each = visitors.replacement_traverse(each, {}, same)
            if is_per_row(each, plain):
                raise FieldError(
                    "values(): a group has several rows, and an aggregate along a path is a number of each; aggregate these, "
                    "as in func.sum(func.count(…))"
                )
        found.append(each)
    return found


def before_groups(having: Sequence[Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return those of the conditions *having* on numbers of one row that WHERE can have, and the others.

    The numbers are groups, so that all rows of a group fulfil such a condition or none. MariaDB does not find the row in HAVING.
    """
    early = tuple(each for each in having if is_per_row(each) and not any(map(is_aggregate, _inside([each]))))
    return early, tuple(each for each in having if not any(each is other for other in early))


def _opened(aggregate: Any) -> tuple[Any, list[Any], Any]:
    """Return *aggregate* without FILTER, its operands, and the condition of FILTER or None."""
    condition = None
    if isinstance(aggregate, sa.FunctionFilter):
        aggregate, condition = aggregate.func, aggregate.criterion
    if not isinstance(aggregate, sa.WithinGroup):
        return aggregate, list(aggregate.get_children()), condition
    function = aggregate.element
    ordered = [each for each in aggregate.get_children() if each is not function]
    return aggregate, [*function.get_children(), *ordered], condition


def _inside(elements: Iterable[Any]) -> Iterator[Any]:
    """Yield *elements* and their parts."""
    left = list(elements)
    while left:
        element = left.pop()
        yield element
        if not isinstance(element, _OPAQUE):
            left += element.get_children()


def _nests(aggregate: Any) -> bool:
    """Return whether there is another aggregate in *aggregate*."""
    _, operands, condition = _opened(aggregate)
    parts = operands if condition is None else [*operands, condition]
    return any(map(is_aggregate, _inside(parts)))


def _sub_select(schema: Schema, method: str, aggregate: Any, paths: Iterable[Path]) -> Any:
    """Return the sub-select of *aggregate*, whose columns are at *paths* and in the row that it belongs to."""
    made, operands, condition = _opened(aggregate)
    path = rows_along(schema, method, [each for each in paths if each._many])
    columns = [
        each for each in _inside(operands) if isinstance(each, sa.ColumnClause) and each.table is not None
    ]
    if columns:
        own = [there for each in columns for there in paths_in(schema, each) if there._many]
        if not own:  # SQL would take it for an aggregate of the query around it
            raise FieldError(
                f"{method}(): {columns[0]} is no column of the rows at {path!r}, whose aggregate this is"
            )
        other = rows_along(schema, method, own)
        if other is not path and not _ignores_repeats(made):
            raise FieldError(
                f"{method}(): the condition on {path!r} would repeat a row at {other!r}; aggregate distinct values"
            )
    statement = select_along(schema, path, paths, made)
    return (statement if condition is None else statement.where(condition)).scalar_subquery()


def _ignores_repeats(aggregate: Any) -> bool:
    """Return whether the value of *aggregate* stays the same if rows are repeated."""
    if getattr(aggregate, "name", "").lower() in ("min", "max"):
        return True
    first = next(iter(getattr(aggregate, "clauses", ())), None)
    return isinstance(first, sa.UnaryExpression) and first.operator is operators.distinct_op
