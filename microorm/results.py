"""Results: the ends of a query that read: instances, rows, numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self, TypeVar, overload

from sqlalchemy import ColumnElement, Select, func, select

from microorm.conditions import asked, natural, window
from microorm.engines import Database
from microorm.loading import instances_of
from microorm.raw import raw_instances
from microorm.selection import Selection
from microorm.statements import plans_of

M = TypeVar("M", bound="Any")


class Results(Selection[M]):
    """A selection that can be sent: its ends give what the database has found."""

    __slots__ = ()

    def all(self) -> list[M]:
        """The instances. Raises what the database raises."""
        return self._load(self._database())

    def __iter__(self) -> Iterator[M]:
        """Send the query and go through its instances."""
        return iter(self.all())

    def get(self, /, *expressions: ColumnElement[bool], **equalities: Any) -> M:
        """The one instance. Raises `Model.DoesNotExist` or `Model.MultipleObjectsReturned`, saying what was asked."""
        query = self.filter(*expressions, **equalities) if expressions or equalities else self
        database = query._database()
        found = query._at_most_two(database)
        if len(found) == 1:
            return found[0]
        raise query._not_one(found, database)

    def one_or_none(self) -> M | None:
        """The one instance, or None where there is none. Raises `Model.MultipleObjectsReturned`."""
        database = self._database()
        found = self._at_most_two(database)
        if len(found) > 1:
            raise self._not_one(found, database)
        return found[0] if found else None

    def first(self) -> M | None:
        """The first instance in the query's order, else in the key's; None where there is none."""
        query = self if self._order else self._with(_order=tuple(f.column for f in self._schema.key))
        if query._limit != 0:
            query = query._with(_limit=1)
        found = query.all()
        return found[0] if found else None

    @overload
    def __getitem__(self, index: int) -> M: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> M | Self:
        """`query[3]` is an instance (`IndexError` where there is none), `query[2:5]` a query."""
        part = index if isinstance(index, slice) else slice(natural("an index", index), index + 1)
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

    def count(self) -> int:
        """How many rows there are."""
        if self._limited:
            statement = select(func.count()).select_from(self.statement.order_by(None).subquery())
        else:
            statement = self._found(select(func.count()))
        return int(self._scalar(statement))

    def exists(self) -> bool:
        """Whether there is a row."""
        return bool(self._scalar(select(self.statement.order_by(None).exists())))

    def raw(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[M]:
        """The instances of the rows that *sql* selects; `:name` stands for the value of a parameter.

        Its columns are the model's, in any order. Raises `FieldError` where one is missing or is not the
        model's, and what the database raises.
        """
        found: list[M] = raw_instances(self._schema, self._database(), sql, parameters)
        return found

    def _load(self, database: Database) -> list[M]:
        """The instances in *database*: by a statement prepared before where the shape of the query is a known one."""
        if not (self._where or self._order or self._lock or self._limited):
            return self._load_prepared(database, limit=None)
        return self._load_by(database, self.statement)

    def _at_most_two(self, database: Database) -> list[M]:
        if self._where or self._lock or self._limited:
            query = self if self._limit is not None and self._limit < 2 else self._with(_limit=2)
            return query._load(database)
        names = {name for name, _ in self._equal}
        limit = None if names.issuperset(self._schema.key_names) else 2
        return self._load_prepared(database, limit=limit)

    def _load_prepared(self, database: Database, *, limit: int | None) -> list[M]:
        schema = self._schema
        names = tuple([name for name, _ in self._equal])
        load = plans_of(schema, database).load(names, limit=limit, wanted=self._names)
        with schema.registry.databases.channel(database, prepared=True, writes=False) as channel:
            found: list[M] = load.instances(channel, tuple([value for _, value in self._equal]))
        return found

    def _load_by(self, database: Database, statement: Select[Any]) -> list[M]:
        schema = self._schema
        with schema.registry.databases.channel(database, prepared=False, writes=False) as channel:
            rows = channel.execute(statement).fetchall()
        return instances_of(schema, rows, database.alias, self._names)

    def _scalar(self, statement: Any) -> Any:
        databases = self._schema.registry.databases
        with databases.channel(self._database(), prepared=False, writes=False) as channel:
            return channel.execute(statement).scalar_one()

    def _not_one(self, found: list[M], database: Database) -> Exception:
        which = asked(self._where, self._equal)
        error: Exception
        if found:
            error = self._model.MultipleObjectsReturned(
                f"more than one {self._model.__name__}{which} in {database.alias!r}"
            )
        else:
            error = self._model.DoesNotExist(f"no {self._model.__name__}{which} in {database.alias!r}")
        return error
