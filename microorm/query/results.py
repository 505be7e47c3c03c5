"""The methods of a query that return instances, and `fetch`, which all of them but `raw` use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any, Self, TypeVar, overload

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.sql import operators

from microorm.db.aio import twins
from microorm.db.autocommit import READS, AutocommitConnection
from microorm.db.databases import Databases
from microorm.db.engines.engine import Database
from microorm.errors import InvalidValue, MicroormError
from microorm.instrumentation import QUERY, Step, watchers
from microorm.mapping.annotation import set_annotations
from microorm.mapping.codegen import Row
from microorm.mapping.schema import Schema
from microorm.messages import brief
from microorm.query.filters import (
    NO_EQUAL,
    Equal,
    described,
    expression,
    key_values,
    non_negative,
    plain_equalities,
    window,
)
from microorm.query.joins import joined_instances
from microorm.query.prefetch import prefetch_related
from microorm.query.raw import raw_instances
from microorm.query.stream import Stream
from microorm.query.values import Rows
from microorm.sql.batches import sliced
from microorm.sql.cache_key import NO_EXPRESSIONS, CacheableExpressions, cacheable
from microorm.sql.hydration import fetched, hydrate
from microorm.sql.statements import CompiledSelect, plans_of
from microorm.sql.streams import chunks

M = TypeVar("M", bound="Any")

MAX_VALUES = 5_000
"""How many values of keys one statement has: every database takes more, which leaves room for other conditions."""


class Results(Rows[M]):
    """A selection whose instances can be loaded."""

    def all(self) -> list[M]:
        """Return the instances. Raises what the database raises, and `TypeError` for a grouped query."""
        return fetch(self, self._equal)

    def __iter__(self) -> Iterator[M]:
        """Run the query and iterate over its instances."""
        return iter(self.all())

    async def __aiter__(self) -> AsyncIterator[M]:
        """Run the query, awaited, and iterate over its instances."""
        for instance in await twins.run(self.all):
            yield instance

    def iterate(self, chunk: int = 1000) -> Stream[M]:
        """Iterate by `for` or `async for`, with *chunk* instances in memory at a time. The query runs at the first step.

        Outside a block, the stream has a connection of its own until it is read to the end or closed. Writes and blocks
        meanwhile use another, and the stream does not see them. Inside a block, PostgreSQL streams, while SQLite and MariaDB
        return all rows at once, of which instances are made chunk by chunk. An SQLite database without WAL mode, such as one
        in memory, does so outside a block, too, since a reader would block writers. Rows that are left when the block ends
        cannot be read (`TransactionError`). Raises `TypeError` and `ValueError` if *chunk* is no positive int.
        """
        if type(chunk) is not int:
            raise TypeError(f"iterate() takes an int, not {brief(chunk)}")
        if chunk < 1:
            raise ValueError(f"iterate() takes a positive number, not {chunk}")
        self._refuse_grouped("iterate")
        return Stream(self._chunks(chunk))

    def get(self, /, *expressions: sa.ColumnElement[bool], **equalities: Any) -> M:
        """Return the one instance that also fulfils *expressions* and *equalities*, given as to `filter`.

        Raises `Model.DoesNotExist`, `Model.MultipleObjectsReturned`, and what `filter` and the database raise.
        """
        query, equal = self, self._equal
        if expressions or equalities:
            added = None if expressions else plain_equalities(self._model.__schema__, equalities)
            if added is None:
                for each in expressions:
                    expression(self._schema, "get", each)
                query = self.filter(*expressions, **equalities)
                equal = query._equal
            else:
                equal = (equal[0] + added[0], equal[1] + added[1]) if equal[0] else added
        found = fetch(query, equal, 2)
        if len(found) == 1:
            return found[0]
        raise query._not_one(found, equal)

    def one_or_none(self) -> M | None:
        """Return the one instance, or None if there is none. Raises `Model.MultipleObjectsReturned`."""
        return self._one_or_none(fetch(self, self._equal, 2))

    def first(self) -> M | None:
        """Return the first instance in the order of the query, by default of the key; None if there is none."""
        query = self if self._order else self._with(_order=self._key_columns)
        if query._limit != 0:
            query = query._with(_limit=1)
        found = query.all()
        return found[0] if found else None

    def last(self) -> M | None:
        """Return the last instance in the order of the query, by default of the key; None if there is none."""
        self._refuse_grouped("last")
        query = self._unlimited() if self._limit is not None or self._offset else self
        found = query._with(_order=tuple(map(_reversed, self._order or self._key_columns)), _limit=1).all()
        return found[0] if found else None

    def in_bulk(self, keys: Iterable[Any] | None = None) -> dict[Any, M]:
        """Return a dictionary of instances by key, of all rows or of those with one of *keys*; a composite key is a tuple.

        Many keys take several statements. Raises `InvalidValue` for an invalid key, `TypeError` for *keys* of a limited
        query.
        """
        if keys is None:
            return {instance.pk: instance for instance in self.all()}
        if self._limited:
            raise TypeError("in_bulk() cannot look up keys in a query that is limited or distinct")
        if isinstance(keys, (str, bytes)):
            raise TypeError(f"in_bulk() takes a list of keys, not {brief(keys)}")
        wanted = list(dict.fromkeys(self._key_of(key) for key in keys))
        found: dict[Any, M] = {}
        for part in sliced(wanted, MAX_VALUES // len(self._schema.key)):
            query = self._with(_where=(*self._where, self._schema.key_in(part)))
            found.update((instance.pk, instance) for instance in query.all())
        return found

    @overload
    def __getitem__(self, index: int) -> M: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> M | Self:
        """Return an instance for `query[3]` (`IndexError` if there is none), a query for `query[2:5]`."""
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
        raise TypeError("a query has no truth value; use exists()")

    def __len__(self) -> int:
        raise TypeError("a query has no length; use count()")

    def __contains__(self, item: object) -> bool:
        raise TypeError("a query has no `in`, which would load all of its rows; use filter(...).exists()")

    def raw(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[M]:
        """Return the instances of the rows that *sql* selects; `:name` stands for a value of *parameters*.

        It must select the columns of the model, in any order. Raises `FieldError` for a missing or another column, and what
        the database raises.
        """
        with self._step():
            return raw_instances(self._schema, *self._place(), sql, parameters)

    aall = twins.twin(all)
    aget = twins.twin(get)
    aone_or_none = twins.twin(one_or_none)
    afirst = twins.twin(first)
    alast = twins.twin(last)
    ain_bulk = twins.twin(in_bulk)
    araw = twins.twin(raw)

    def _one_or_none(self, found: list[M]) -> M | None:
        if len(found) > 1:
            raise self._not_one(found, self._equal)
        return found[0] if found else None

    def _chunks(self, chunk: int) -> Generator[list[M], None, None]:
        database, transaction = self._place()
        query = self._whole
        stream = chunks(database, transaction, query.statement, chunk)
        # Both are closed here, since Python ignores the errors of a generator that it closes by itself.
        with closing(stream), closing(query._readable(stream)) as parts:
            for rows in parts:
                yield self._made(rows, database)

    def _readable(self, parts: Iterator[Sequence[Any]]) -> Generator[Sequence[Any], None, None]:
        """Yield *parts* of the rows. Raises `InvalidValue` for a value that a field cannot hold."""
        try:
            yield from parts
        except (SQLAlchemyError, MicroormError):
            raise
        except Exception:
            with self._channel() as channel:
                fetched(channel, self.statement, self._entries)
            raise

    def _made(self, rows: Sequence[Any], database: Database) -> list[M]:
        """Return the instances of *rows* of the query's statement, all of them or one chunk."""
        names = [each.name for each in self._annotated]
        if self._related:
            made = joined_instances(self._schema, self._related, rows, database.row_alias, self._names)
        else:
            own = [row[: -len(names)] for row in rows] if names else rows
            made = hydrate(self._schema, own, database.row_alias, self._names)
        if names:
            set_annotations(made, names, rows)
        return self._with_prefetched(made)

    def _with_prefetched(self, instances: list[M]) -> list[M]:
        if self._prefetched and instances:
            prefetch_related(instances, self._prefetched, self._using)
        return instances

    @property
    def _whole(self) -> Self:
        """The query without DISTINCT, which instances do not need, and with which PostgreSQL orders by selected columns only."""
        return self._with(_distinct=False) if self._distinct else self

    def _key_of(self, value: Any) -> Any:
        """Return *value* as a key, checked; a tuple where the key is composite. Raises `InvalidValue`."""
        schema = self._schema
        parts = []
        for field, part in key_values(schema, value):
            if part is None:
                raise InvalidValue(schema.name, {field.name: "is part of the key and cannot be None"})
            parts.append(field.comparable(part))
        return parts[0] if len(parts) == 1 else tuple(parts)

    def _not_one(self, found: list[M], equal: Equal) -> Exception:
        which, (database, _) = described(self._schema, self._where, equal), self._place()
        kind, number = self._model.DoesNotExist, "no"
        if found:
            kind, number = self._model.MultipleObjectsReturned, "more than one"
        error: Exception = kind(f"{number} {self._model.__name__}{which} in {database.alias!r}")
        return error


def _reversed(order: Any) -> Any:
    """Return the reverse of *order*."""
    if isinstance(order, sa.UnaryExpression):
        if order.modifier is operators.nulls_first_op:
            return sa.nulls_last(_reversed(order.element))
        if order.modifier is operators.nulls_last_op:
            return sa.nulls_first(_reversed(order.element))
        if order.modifier is operators.desc_op:
            return sa.asc(order.element)
        if order.modifier is operators.asc_op:
            return sa.desc(order.element)
    return sa.desc(order)


_PLAIN = frozenset({"_model", "_equal", "_using", "_default"})
"""The attributes of a query whose SQL depends only on the names of the fields that are compared with values."""


def fetch(query: Results[M], equal: Equal, most: int | None = None, step: Step | None = None) -> list[M]:
    """Run *query*, with the conditions *equal* instead of its own, and return its instances, at most *most*.

    The SELECT is compiled once for all queries that differ only in values. One without a cache key, and any while the
    engine has listeners for statements, goes through SQLAlchemy's `Connection`. *step*: that of the query, which has begun.
    """
    if watchers and step is None:
        with Step(QUERY, model=query._model.__schema__.label) as step:
            instances = fetch(query, equal, most, step)
            step.details["rows"] = len(instances)
        return instances
    schema: Schema = query._model.__schema__
    key: tuple[Any, ...] | None
    databases: Databases = schema.registry.databases
    plain = len(query.__dict__) == 1 or query.__dict__.keys() <= _PLAIN
    if plain:
        if databases.routers:
            database, transaction = query._place(equal)
        else:
            database, transaction = databases.place(schema, query._using, writes=False)
        key, row = ("select", equal[0], most), equal[1]
    else:
        query._refuse_grouped("all")
        database, transaction = query._place(equal)
        key, row = _key_and_row(query, equal, most)
    with transaction or AutocommitConnection(database, READS) as channel:
        if key is None or channel.cursor is None:
            limited = query._with(_equal=equal, _limit=_limit(query, equal, most))._whole
            return query._made(fetched(channel, limited.statement, query._entries), database)
        # The channel may lead elsewhere, as a database that does not answer knows too little to compile anything.
        plans = schema.plans.get(database) or plans_of(schema, channel.database)
        select = plans.statements.get(key) or plans.cached(
            key, partial(CompiledQuery, query, equal, most, channel.database)
        )
        found: list[M] = select.instances(channel, row + select.constants)
    return found if plain else query._with_prefetched(found)


def _limit(query: Results[Any], equal: Equal, most: int | None) -> int | None:
    """Return the limit of the SELECT: the query's own, or *most*, which a condition on the whole key makes needless."""
    limit: int | None = query._limit
    if most is None or (limit is not None and limit <= most):
        return limit
    return limit if {*query._schema.key_names} <= {*equal[0]} else most


def _key_and_row(query: Results[Any], equal: Equal, most: int | None) -> tuple[tuple[Any, ...] | None, Row]:
    """Return the cache key of the SELECT of *query*, or None where it has none, and the values of its parameters."""
    names, row = equal
    where, order = query._where or NO_EXPRESSIONS, cacheable(query._schema, query._order)
    if (
        query._lock is not None
        or query._related
        or query._annotated
        or not isinstance(where, CacheableExpressions)
        or not isinstance(order, CacheableExpressions)
    ):
        return None, row
    parameters = where.parameters + order.parameters
    if len(parameters) > 1 and len({*map(id, parameters)}) < len(parameters):
        return None, row  # a parameter that is used twice becomes one in the SQL
    row = (*row, *[each.value for each in parameters])
    limit = _limit(query, equal, most)
    row += tuple([each for each in (limit, query._offset or None) if each is not None])
    key = ("select", names, limit is None, not query._offset, where.key, order.key)
    return (*key, query._names, query._paths, query._order_paths), row


class CompiledQuery(CompiledSelect):
    """The SELECT of a query.

    Its parameters are the values of fields, those of conditions and order, limit and offset, and then *constants*: the limit
    of a plain query, and those that SQLAlchemy adds for the database.
    """

    __slots__ = ("constants",)

    def __init__(self, query: Results[Any], equal: Equal, most: int | None, database: Database) -> None:
        equalities = query._equal_expressions(equal)
        binds: list[Any] = [each.right for each in equalities]
        where: Any = query._where or NO_EXPRESSIONS
        order: Any = cacheable(query._schema, query._order)
        binds += where.parameters + order.parameters
        unlimited = query._with(_where=(*where, *equalities), _equal=NO_EQUAL, _limit=None, _offset=0)._whole
        statement, limit = unlimited.statement, _limit(query, equal, most)
        for part, add in ((limit, "limit"), (query._offset or None, "offset")):
            if part is not None:
                bind: sa.BindParameter[int] = sa.BindParameter(None, part, type_=sa.Integer(), unique=True)
                statement = getattr(statement, add)(bind)
                binds += () if query.__dict__.keys() <= _PLAIN else (bind,)
        compiled: Any = statement.compile(dialect=database.engine.dialect)
        known = {*map(id, binds)}
        added = [bind for bind in compiled.bind_names if id(bind) not in known]
        self.constants = tuple([bind.value for bind in added])
        parameters = [*binds, *added]
        names = [(compiled.bind_names[bind], bind.type) for bind in parameters]
        hydrator = plans_of(query._schema, database).hydrator_of(query._names)
        super().__init__(query._schema, statement, names, database.engine.dialect, hydrator)
