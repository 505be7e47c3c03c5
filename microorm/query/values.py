"""The methods of a query that return columns and numbers, no instances, and `explain`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, Never, Self, TypeVar, overload

from sqlalchemy import ColumnElement, Row, ScalarSelect, Select, func, literal, select
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData

from microorm.db.aio.twins import twin
from microorm.db.autocommit import READS, AutocommitConnection
from microorm.db.connection import Channel
from microorm.errors import FieldError
from microorm.fields.elements import KEYS, Keys
from microorm.fields.types import MARIADB
from microorm.instrumentation import NOTHING, QUERY, Step, watchers
from microorm.mapping.path import Path
from microorm.mapping.schema import Schema
from microorm.mapping.state import placeholder
from microorm.messages import brief
from microorm.query.aggregates import is_per_row
from microorm.query.filters import NO_EQUAL, NO_PATHS, columns, expression
from microorm.query.selection import Selection
from microorm.sql.hydration import Entry, fetched
from microorm.sql.statements import Prefixed

M = TypeVar("M", bound="Any")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
T6 = TypeVar("T6")
T7 = TypeVar("T7")
T8 = TypeVar("T8")

C = ColumnElement
AnyRow = Row[*tuple[Any, ...]]


class Rows(Selection[M]):
    """A selection whose columns can be loaded, counted and aggregated."""

    __slots__ = ()

    if TYPE_CHECKING:

        @overload
        def values(self, a: C[T1], /) -> list[Row[T1]]: ...
        @overload
        def values(self, a: C[T1], b: C[T2], /) -> list[Row[T1, T2]]: ...
        @overload
        def values(self, a: C[T1], b: C[T2], c: C[T3], /) -> list[Row[T1, T2, T3]]: ...
        @overload
        def values(self, a: C[T1], b: C[T2], c: C[T3], d: C[T4], /) -> list[Row[T1, T2, T3, T4]]: ...
        @overload
        def values(
            self, a: C[T1], b: C[T2], c: C[T3], d: C[T4], e: C[T5], /
        ) -> list[Row[T1, T2, T3, T4, T5]]: ...
        @overload
        def values(
            self, a: C[T1], b: C[T2], c: C[T3], d: C[T4], e: C[T5], f: C[T6], /
        ) -> list[Row[T1, T2, T3, T4, T5, T6]]: ...
        @overload
        def values(
            self, a: C[T1], b: C[T2], c: C[T3], d: C[T4], e: C[T5], f: C[T6], g: C[T7], /
        ) -> list[Row[T1, T2, T3, T4, T5, T6, T7]]: ...
        @overload
        def values(
            self, a: C[T1], b: C[T2], c: C[T3], d: C[T4], e: C[T5], f: C[T6], g: C[T7], h: C[T8], /
        ) -> list[Row[T1, T2, T3, T4, T5, T6, T7, T8]]: ...
        @overload
        def values(self, *given: C[Any] | str) -> list[AnyRow]: ...

    def values(self, *given: Any) -> Any:
        """Return SQLAlchemy's rows of what is *given*: columns, expressions or names; by default of all fields.

        A column has the name of its field in them. Raises `FieldError` and `TypeError` as `filter` does, `FieldError` for a
        path to many rows, and what the database raises.
        """
        return self._rows("values", given or (*self._schema.names, *[each.name for each in self._annotated]))

    @overload
    def scalars(self, column: ColumnElement[T1], /) -> list[T1]: ...
    @overload
    def scalars(self, column: str, /) -> list[Any]: ...
    def scalars(self, column: Any, /) -> Any:
        """Return a list of the values of one column, an expression or a name. Raises what `values` raises."""
        return [row[0] for row in self._rows("scalars", [column])]

    if TYPE_CHECKING:  # the other twins keep their types by themselves; a function with overloads does not

        @overload
        async def avalues(self, a: C[T1], /) -> list[Row[T1]]: ...
        @overload
        async def avalues(self, a: C[T1], b: C[T2], /) -> list[Row[T1, T2]]: ...
        @overload
        async def avalues(self, a: C[T1], b: C[T2], c: C[T3], /) -> list[Row[T1, T2, T3]]: ...
        @overload
        async def avalues(self, a: C[T1], b: C[T2], c: C[T3], d: C[T4], /) -> list[Row[T1, T2, T3, T4]]: ...
        @overload
        async def avalues(
            self, a: C[T1], b: C[T2], c: C[T3], d: C[T4], e: C[T5], /
        ) -> list[Row[T1, T2, T3, T4, T5]]: ...
        @overload
        async def avalues(
            self, a: C[T1], b: C[T2], c: C[T3], d: C[T4], e: C[T5], f: C[T6], /
        ) -> list[Row[T1, T2, T3, T4, T5, T6]]: ...
        @overload
        async def avalues(
            self, a: C[T1], b: C[T2], c: C[T3], d: C[T4], e: C[T5], f: C[T6], g: C[T7], /
        ) -> list[Row[T1, T2, T3, T4, T5, T6, T7]]: ...
        @overload
        async def avalues(
            self, a: C[T1], b: C[T2], c: C[T3], d: C[T4], e: C[T5], f: C[T6], g: C[T7], h: C[T8], /
        ) -> list[Row[T1, T2, T3, T4, T5, T6, T7, T8]]: ...
        @overload
        async def avalues(self, *given: C[Any] | str) -> list[AnyRow]: ...
        async def avalues(self, *given: Any) -> Any: ...

        @overload
        async def ascalars(self, column: ColumnElement[T1], /) -> list[T1]: ...
        @overload
        async def ascalars(self, column: str, /) -> list[Any]: ...
        async def ascalars(self, column: Any, /) -> Any: ...

    else:
        avalues = twin(values)
        ascalars = twin(scalars)

    def aggregate(self, /, *unnamed: Never, **expressions: ColumnElement[Any]) -> AnyRow:
        """Return one row with the values of *expressions*, such as `func.sum(Book.pages)`, over all rows of the query.

        The rows of a limited query are those within its limit. Raises `TypeError` without an expression, for one
        without a name (*unnamed*), for expressions that do not result in one row, and for a grouped query,
        `FieldError`, and what the database raises.
        """
        self._refuse_grouped("aggregate")
        if unnamed:
            raise TypeError(
                f"aggregate() takes expressions by name, aggregate(total=…), not {brief(unnamed[0])}"
            )
        if not expressions:
            raise TypeError(
                "aggregate() needs at least one expression, such as aggregate(number=func.count())"
            )
        for each in expressions.values():
            if isinstance(each, str):  # elsewhere the name of a field, here an error
                expression(self._schema, "aggregate", each)
        instances: list[Any] = []
        found, paths = columns(
            self._schema, "aggregate", list(expressions.values()), instances, self._annotated
        )
        if any(map(is_per_row, found)):
            raise FieldError(
                "aggregate(): an aggregate along a path is a number of each row; aggregate these, as in "
                "func.sum(func.count(…))"
            )
        query = self._unlimited() if self._limited else self
        selected: Any = select(*found)
        statement = query._found(selected.select_from(query._schema.table), paths)
        with self._step(), self._with(_lock=None)._tied_to(instances, paths, found)._channel() as channel:
            rows = channel.fetch(statement)
        if len(rows) != 1:
            number = "several" if rows else "none"
            raise TypeError(f"aggregate() needs expressions that result in one row, not {number}")
        # The names do not become a part of the SQL.
        named = SimpleResultMetaData(list(expressions))
        return IteratorResult(named, iter([tuple(rows[0])])).one()

    def count(self) -> int:
        """Return the number of rows, or of the groups of a grouped query."""
        if self._limited or self._grouped:
            return int(self._scalar(select(func.count()).select_from(self._ones().subquery())))
        return int(self._scalar(self._found(select(func.count()).select_from(self._schema.table))))

    def exists(self) -> bool:
        """Return whether there is a row, or a group of a grouped query."""
        if self._grouped:  # MariaDB ignores HAVING inside EXISTS
            return self.count() > 0
        return bool(self._scalar(select(self._ones().exists())))

    def explain(self, *, analyze: bool = False, verbose: bool = False, format: Format | None = None) -> str:
        """Return the database's execution plan as text. *analyze*: run the query and include what was measured.

        *verbose*: include more about each step. *format*: that of the plan. PostgreSQL has all options, MariaDB
        *analyze* and the formats text and json, SQLite the format text. Raises `ValueError` for an option that the
        database does not have.
        """
        self._refuse_grouped("explain")
        query = self._with(_lock=None)
        database, transaction = query._place()
        verb = explanation_verb(database.dialect, analyze=analyze, verbose=verbose, format=format)
        with transaction or AutocommitConnection(database, READS) as channel:
            return execution_plan(channel, verb, query.statement)

    aaggregate = twin(aggregate)
    acount = twin(count)
    aexists = twin(exists)
    aexplain = twin(explain)

    def __clause_element__(self) -> Select[Any] | ScalarSelect[Any]:
        """Return the SELECT of the keys of the query's rows, which SQLAlchemy asks for where a query is an operand of `in_`."""
        self._refuse_grouped("in_")
        query = self._unlimited() if self._limited else self
        keys: Select[Any] = query._with(_order=(), _order_paths=NO_PATHS, _lock=None)._select(
            *self._key_columns
        )
        keys = keys.correlate(None).execution_options(**{KEYS: Keys(self._model, self._tied())})
        return keys if len(self._key_columns) > 1 else keys.scalar_subquery()

    def _tied_to(self, instances: list[Any], paths: frozenset[Path], read: Sequence[Any]) -> Self:
        """Return a query that must be of the alias of *instances*, too, joins *paths*, too, and reads *read*, as routers ask."""
        if not (instances or paths or self._schema.registry.databases.routers):
            return self
        instances = [*self._instances, *instances]
        return self._with(_instances=tuple(instances), _paths=self._paths | paths, _read=tuple(read))

    def _tied(self) -> tuple[Any, ...]:
        """Return the instances that tie the query to an alias; one without a key stands for `using()`."""
        using: tuple[Any, ...] = ()
        if self._using is not None:
            alias = self._schema.registry.databases.database(self._using).row_alias
            using = (placeholder(self._model, alias),)
        return (*self._instances, *using, *(() if self._owner is None else (self._owner,)))

    @property
    def _grouped(self) -> bool:
        return bool(self._group or self._having)

    def _refuse_grouped(self, method: str) -> None:
        if self._grouped:
            raise TypeError(f"{method}() needs rows, and this query is grouped; use values() for its groups")

    def _rows(self, method: str, given: Sequence[Any]) -> Sequence[Any]:
        schema = self._schema
        instances: list[Any] = []
        found, paths = columns(schema, method, given, instances, self._annotated)
        statement = self._select(*[_named(schema, each) for each in found], paths=paths)
        with self._step(), self._tied_to(instances, paths, found)._channel() as channel:
            return fetched(channel, statement, [_entry(schema, each) for each in found])

    def _ones(self) -> Any:
        """Return SELECT 1 for each row, or group, for count() and exists(): without order and lock."""
        # HAVING without GROUP BY makes all rows one group, and SQLite needs an aggregate function then.
        one = func.count() if self._having and not self._group else literal(1)
        return self._with(_order=(), _distinct=False, _lock=None)._select(one.label("one"))

    def _unlimited(self) -> Self:
        """Return a query without a limit of the same rows, by their keys."""
        rows = self._with(_distinct=False, _lock=None)._select(*self._key_columns).subquery()
        # In a sub-select of its own, since MariaDB allows no LIMIT on the right side of IN.
        in_rows = self._schema.key_in(select(*rows.c))
        return self._with(_where=(in_rows,), _equal=NO_EQUAL, _limit=None, _offset=0, _distinct=False)

    def _scalar(self, statement: Any) -> Any:
        with self._step(), self._with(_lock=None)._channel() as channel:
            return channel.fetch(statement)[0][0]

    def _step(self) -> AbstractContextManager[object]:
        return Step(QUERY, model=self._schema.label) if watchers else NOTHING


def _named(schema: Schema, column: Any) -> Any:
    """Return *column* with the name of its field, if it is a column of the model or of a related row."""
    entry = _entry(schema, column)
    return column if entry is None or entry[2].name == column.key else column.label(entry[2].name)


def _entry(schema: Schema, column: Any) -> Entry:
    """Return what *column* is: a field of the model or of a related row, or None."""
    table = getattr(column, "table", None)
    path = schema.registry.paths.get(table)
    if table is not schema.table and path is None:
        return None
    owner: Schema = schema if path is None else path._schema
    for field in owner.fields:
        if field.column.key == column.key:
            return (path, owner, field)
    return None


Format = Literal["text", "json", "xml", "yaml"]

# The options of each database. Nothing else becomes a part of the SQL.
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "postgresql": ("analyze", "verbose", "format='text'", "format='json'", "format='xml'", "format='yaml'"),
    **dict.fromkeys(MARIADB, ("analyze", "format='text'", "format='json'")),
    "sqlite": ("format='text'",),
}


def explanation_verb(dialect: str, *, analyze: bool, verbose: bool, format: Format | None) -> str:
    """Return the SQL that precedes the SELECT. `ValueError` for an option that *dialect* does not have."""
    options = [name for name, wanted in (("analyze", analyze), ("verbose", verbose)) if wanted]
    if format is not None:
        options.append(f"format={format!r}")
    known = _OPTIONS.get(dialect, ())
    for each in options:
        if each not in known:
            raise ValueError(f"explain(): {dialect} has no {each}; it has: {', '.join(known)}")
    if dialect == "sqlite":
        return "EXPLAIN QUERY PLAN"
    if dialect == "postgresql":
        words = [known[known.index(each)].upper().replace("=", " ").replace("'", "") for each in options]
        return f"EXPLAIN ({', '.join(words)})" if words else "EXPLAIN"
    verb = "ANALYZE" if analyze else "EXPLAIN"
    return f"{verb} FORMAT=JSON" if format == "json" else verb


def execution_plan(channel: Channel, verb: str, statement: Select[Any]) -> str:
    """Return the database's answer as lines of text."""
    # The driver's own rows, since the types of the selected columns do not apply to them.
    cursor: Any = channel.execute(Prefixed(verb, statement)).cursor
    names = [each[0] for each in cursor.description]
    return _plan_text(names, cursor.fetchall(), tree=channel.database.is_sqlite)


def _plan_text(names: Sequence[str], rows: Sequence[Any], *, tree: bool) -> str:
    if tree:
        depth = {0: -1}
        for number, parent, _, _ in rows:
            depth[number] = depth.get(parent, -1) + 1
        return "\n".join("  " * depth[number] + detail for number, _, _, detail in rows)
    if len(names) == 1:
        return "\n".join(
            each if isinstance(each, str) else json.dumps(each, indent=2) for (each,) in map(tuple, rows)
        )
    return "\n".join(
        " | ".join("" if value is None else str(value) for value in row) for row in (names, *rows)
    )
