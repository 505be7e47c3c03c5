"""Results: the ends of a query that give instances.

Reading: the SELECT of a query whose shape was seen before, with other values.

What has no shape goes through SQLAlchemy's `Connection`, which keeps what it compiles by keys of its own.

Raw: instances by the user's own SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import date, datetime, time, timedelta
from enum import Enum
from functools import partial
from typing import Any, Self, TypeVar, overload
from uuid import UUID

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Integer,
    UnaryExpression,
    asc,
    bindparam,
    desc,
    nulls_first,
    nulls_last,
    text,
)
from sqlalchemy.sql import operators

from microorm.db.connection import Lone
from microorm.db.engine import Database
from microorm.db.transaction import Transaction
from microorm.errors import FieldError, InvalidValue
from microorm.fields.type_map import field_type
from microorm.mapping.codegen import Row
from microorm.mapping.schema import Schema
from microorm.query.filters import (
    NO_EQUAL,
    Equal,
    asked,
    comparable,
    key_values,
    non_negative,
    plain_equalities,
    window,
)
from microorm.query.joins import joined_instances
from microorm.query.prefetch import prefetch_related
from microorm.query.values import Rows
from microorm.sql.cache_key import NO_EXPRESSIONS, CacheableExpressions, cacheable
from microorm.sql.hydration import hydrate
from microorm.sql.statements import CompiledSelect, plans_of
from microorm.sql.streams import chunks

M = TypeVar("M", bound="Any")

MAX_VALUES = 5_000
"""Of the keys in one statement: every database takes more, and leaves room for what else the query says."""


class Results(Rows[M]):
    """A selection that can be sent: its ends give what the database has found."""

    def all(self) -> list[M]:
        """The instances. Raises what the database raises, and `TypeError` for a grouped query."""
        return fetch(self, self._equal)

    def __iter__(self) -> Iterator[M]:
        """Send the query and go through its instances."""
        return iter(self.all())

    def iterate(self, chunk: int = 1000) -> Iterator[M]:
        """Go through the instances, *chunk* of which are in memory at a time; the query is sent at the first step.

        Outside a block the stream has a connection of its own until it is read to the end, or closed; what is
        done meanwhile, writes and blocks included, has another, and does not show in it. Inside a block
        PostgreSQL streams, SQLite and MariaDB give the rows at once, of which instances are made chunk by chunk; so does
        an SQLite database outside of WAL mode, in memory for one, since a reader keeps its writers waiting. What is
        left in a stream when its block ends cannot be read (`TransactionError`).
        """
        if type(chunk) is not int:
            raise TypeError(f"iterate() wants an int, not {chunk!r}")
        if chunk < 1:
            raise ValueError(f"iterate() wants a positive number, not {chunk}")
        self._refuse_grouped("iterate")
        return self._stream(chunk)

    def get(self, /, *expressions: ColumnElement[bool], **equalities: Any) -> M:
        """The one instance. Raises `Model.DoesNotExist` or `Model.MultipleObjectsReturned`, saying what was asked."""
        query, equal = self, self._equal
        if expressions or equalities:
            added = None if expressions else plain_equalities(self._model.__schema__, equalities)
            if added is None:
                query = self.filter(*expressions, **equalities)
                equal = query._equal
            else:
                equal = (equal[0] + added[0], equal[1] + added[1]) if equal[0] else added
        found = fetch(query, equal, 2)
        if len(found) == 1:
            return found[0]
        raise query._not_one(found, equal)

    def one_or_none(self) -> M | None:
        """The one instance, or None where there is none. Raises `Model.MultipleObjectsReturned`."""
        return self._one_of(fetch(self, self._equal, 2))

    def first(self) -> M | None:
        """The first instance in the query's order, else in the key's; None where there is none."""
        query = self if self._order else self._with(_order=self._key_columns)
        if query._limit != 0:
            query = query._with(_limit=1)
        found = query.all()
        return found[0] if found else None

    def last(self) -> M | None:
        """The last instance in the query's order, else in the key's; None where there is none.

        The order is turned around, so where NULLs come is the database's still.
        """
        self._refuse_grouped("last")
        query = self._unlimited() if self._limit is not None or self._offset else self
        found = query._with(_order=tuple(map(_turned, self._order or self._key_columns)), _limit=1).all()
        return found[0] if found else None

    def in_bulk(self, keys: Iterable[Any] | None = None) -> dict[Any, M]:
        """The instances by their keys, composite ones as tuples: all, or those of *keys* that there are.

        Many keys are several statements. Raises `InvalidValue` for what cannot be a key, `TypeError` for *keys* of a
        limited query.
        """
        if keys is None:
            return {instance.pk: instance for instance in self.all()}
        if self._limited:
            raise TypeError("in_bulk() finds keys in a whole query, and this one is limited or distinct")
        if isinstance(keys, (str, bytes)):
            raise TypeError(f"in_bulk() wants a list of keys, not {keys!r}")
        wanted = list(dict.fromkeys(self._key_of(key) for key in keys))
        size = MAX_VALUES // len(self._schema.key)
        found: dict[Any, M] = {}
        for start in range(0, len(wanted), size):
            part = self._with(_where=(*self._where, self._schema.key_in(wanted[start : start + size])))
            found.update((instance.pk, instance) for instance in part.all())
        return found

    @overload
    def __getitem__(self, index: int) -> M: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> M | Self:
        """`query[3]` is an instance (`IndexError` where there is none), `query[2:5]` a query."""
        part = index if isinstance(index, slice) else slice(non_negative("an index", index), index + 1)
        offset, limit = window(self._offset, self._limit, part)
        query = self._with(_offset=offset, _limit=limit)
        if isinstance(index, slice):
            return query
        found = query.all()
        if not found:
            raise IndexError(f"the query has no row {index}")
        return found[0]

    def __bool__(self) -> bool:
        raise TypeError("a query has no truth value; exists() asks the database")

    def __len__(self) -> int:
        raise TypeError("a query has no length; count() asks the database")

    def raw(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[M]:
        """The instances of the rows that *sql* selects; `:name` stands for the value of a parameter.

        Its columns are the model's, in any order. Raises `FieldError` where one is missing or is not the
        model's, and what the database raises.
        """
        found: list[M] = raw_instances(self._schema, *self._place(), sql, parameters)
        return found

    def _one_of(self, found: list[M]) -> M | None:
        if len(found) > 1:
            raise self._not_one(found, self._equal)
        return found[0] if found else None

    def _stream(self, chunk: int) -> Iterator[M]:
        database, _ = self._place()
        with closing(
            chunks(self._schema.registry.databases, database, self._whole.statement, chunk)
        ) as parts:
            for rows in parts:
                yield from self._made(rows, database)

    def _made(self, rows: Sequence[Any], database: Database) -> list[M]:
        """The instances of *rows* of the query's statement: all of them, or one chunk."""
        if self._related:
            return self._with_prefetched(
                joined_instances(self._schema, self._related, rows, database.alias, self._names)
            )
        return self._with_prefetched(hydrate(self._schema, rows, database.alias, self._names))

    def _with_prefetched(self, instances: list[M]) -> list[M]:
        if self._prefetched and instances:
            prefetch_related(instances, self._prefetched, self._using)
        return instances

    @property
    def _whole(self) -> Self:
        """The same for instances, no two of which have one key: PostgreSQL orders DISTINCT rows by their columns only."""
        return self._with(_distinct=False) if self._distinct else self

    @property
    def _key_columns(self) -> tuple[ColumnElement[Any], ...]:
        return tuple(field.column for field in self._schema.key)

    def _key_of(self, value: Any) -> Any:
        """*value* as a key, checked: a tuple where the key is composite. Raises `InvalidValue`."""
        schema = self._schema
        parts = []
        for field, part in key_values(schema, value):
            if part is None:
                raise InvalidValue(
                    schema.name, {field.name: "is part of the key, and wants a value, not None"}
                )
            parts.append(comparable(schema, field, part))
        return parts[0] if len(parts) == 1 else tuple(parts)

    def _not_one(self, found: list[M], equal: Equal) -> Exception:
        which, (database, _) = asked(self._where, equal), self._place()
        error: Exception
        if found:
            error = self._model.MultipleObjectsReturned(
                f"more than one {self._model.__name__}{which} in {database.alias!r}"
            )
        else:
            error = self._model.DoesNotExist(f"no {self._model.__name__}{which} in {database.alias!r}")
        return error


def _turned(order: Any) -> Any:
    """*order* the other way around."""
    if isinstance(order, UnaryExpression):
        if order.modifier is operators.nulls_first_op:
            return nulls_last(_turned(order.element))
        if order.modifier is operators.nulls_last_op:
            return nulls_first(_turned(order.element))
        if order.modifier is operators.desc_op:
            return asc(order.element)
        if order.modifier is operators.asc_op:
            return desc(order.element)
    return desc(order)


_PLAIN = frozenset({"_model", "_equal", "_using"})
"""What a query is asked for where its SQL depends on the names of equal fields alone."""


def fetch(query: Results[M], equal: Equal, most: int | None = None) -> list[M]:
    """Return the instances that *query* finds, with the values *equal* instead of its own.

    The caller needs no more than *most*. The SELECT is compiled once for all queries that differ in values alone. One
    without a cache key, and one that listeners are to hear of, goes through SQLAlchemy's `Connection`.
    """
    schema: Schema = query._model.__schema__
    limit, key = query._limit, None
    if most is not None and (limit is None or limit > most):
        for name in schema.key_names:
            if name not in equal[0]:
                limit = most
    plain = len(query.__dict__) == 1 or query.__dict__.keys() <= _PLAIN
    if plain:
        database, transaction = schema.registry.databases.place(schema, query._using, writes=False)
        key, row = ("select", equal[0], limit), equal[1] if limit is None else (*equal[1], limit)
    else:
        query._refuse_grouped("all")
        database, transaction = query._place()
        key, row = _key_and_row(query, equal, limit)
    with transaction or Lone(database, writes=False) as channel:
        if key is None or channel.cursor is None:
            whole = query._with(_equal=equal, _limit=limit)._whole
            return query._made(channel.execute(whole.statement).fetchall(), database)
        plans = database.plans.get(schema) or plans_of(schema, database)
        select = plans.statements.get(key) or plans.cached(
            key, partial(CompiledQuery, query, equal, limit, database)
        )
        found: list[M] = select.instances(channel, row + select.constants)
    return found if plain else query._with_prefetched(found)


def _key_and_row(query: Results[Any], equal: Equal, limit: int | None) -> tuple[tuple[Any, ...] | None, Row]:
    """Return the key of the SELECT of *query*, or None where it has none, and the values of its parameters."""
    names, row = equal
    where, order = query._where or NO_EXPRESSIONS, cacheable(query._schema, query._order)
    if (
        query._lock is not None
        or query._related
        or not isinstance(where, CacheableExpressions)
        or not isinstance(order, CacheableExpressions)
    ):
        return None, row
    parameters = where.parameters + order.parameters
    if len(parameters) > 1 and len({*map(id, parameters)}) < len(parameters):
        return None, row  # a parameter that is used twice is one in the SQL, too
    row = (*row, *[each.value for each in parameters])
    row += tuple([each for each in (limit, query._offset or None) if each is not None])
    key = ("select", names, limit is None, not query._offset, where.key, order.key)
    return (*key, query._names, query._paths, query._order_paths), row


class CompiledQuery(CompiledSelect):
    """The SELECT of a query.

    Its parameters are those of equalities, of conditions and order, limit and offset; *constants* are the values of those
    that SQLAlchemy adds for the database.
    """

    __slots__ = ("constants",)

    def __init__(self, query: Results[Any], equal: Equal, limit: int | None, database: Database) -> None:
        equalities = query._equal_expressions(equal)
        binds: list[Any] = [each.right for each in equalities]
        where: Any = query._where or NO_EXPRESSIONS
        order: Any = cacheable(query._schema, query._order)
        binds += where.parameters + order.parameters
        plain = query._with(_where=(*where, *equalities), _equal=NO_EQUAL, _limit=None, _offset=0)._whole
        statement = plain.statement
        for part, add in ((limit, "limit"), (query._offset or None, "offset")):
            if part is not None:
                bind: BindParameter[int] = BindParameter(None, part, type_=Integer(), unique=True)
                statement = getattr(statement, add)(bind)
                binds.append(bind)
        compiled: Any = statement.compile(dialect=database.engine.dialect)
        indexes = {id(bind): index for index, bind in enumerate(binds)}
        added = [bind for bind in compiled.bind_names if id(bind) not in indexes]
        self.constants = tuple([bind.value for bind in added])
        parameters = [*binds, *added]
        names = [(compiled.bind_names[bind], bind.type) for bind in parameters]
        hydrator = plans_of(query._schema, database).hydrator_of(query._names)
        super().__init__(query._schema, statement, names, database.engine.dialect, hydrator)


# What a driver would not take, or would store otherwise than the fields do.
_CONVERTED = (date, datetime, time, timedelta, UUID, Enum)


def raw_instances(
    schema: Schema,
    database: Database,
    transaction: Transaction | None,
    sql: str,
    parameters: Mapping[str, Any] | None,
) -> list[Any]:
    """The instances of the rows that *sql* selects, with *parameters* for its `:name`s.

    Raises `FieldError` where a column is missing or is not the model's, and where nothing is selected;
    `TypeError` where *sql* is no str.
    """
    if not isinstance(sql, str):
        raise TypeError(f"raw() wants SQL as a str, not {sql!r}")
    plain = dict(parameters or {})
    converted = [_bound(name, plain.pop(name)) for name, value in list(plain.items()) if _is_converted(value)]
    statement = text(sql).bindparams(*converted)
    # What the SQL does is its own affair: alone it commits, and in a block for reading the database refuses.
    with transaction or Lone(database, writes=True) as channel:
        result = channel.execute(statement, plain)
        if not result.returns_rows:
            raise FieldError(f"the SQL for {schema.name} selects nothing")
        names, rows = list(result.keys()), result.fetchall()
    columns = [field.column.name for field in schema.fields]
    for name in columns:
        if name not in names:
            raise FieldError(f"the SQL for {schema.name} lacks the column {name!r}")
    for name in names:
        if name not in columns:
            raise FieldError(f"the SQL for {schema.name} selects the column {name!r}, which is not its own")
    indexes = [names.index(name) for name in columns]
    ordered = [tuple([row[index] for index in indexes]) for row in rows]
    return plans_of(schema, database).hydrator.instances(ordered)


def _is_converted(value: Any) -> bool:
    return isinstance(value, _CONVERTED) and field_type(type(value)) is not None


def _bound(name: str, value: Any) -> BindParameter[Any]:
    kind: Any = field_type(type(value))
    options = {"timezone": isinstance(value, datetime) and value.tzinfo is not None}
    return bindparam(name, value, type_=kind.column(type(value), options))
