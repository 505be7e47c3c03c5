"""Query: how to read rows as instances, and how to write those that a condition names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, Self, TypeVar, overload

from sqlalchemy import ColumnElement, Select, and_, func, select, true
from sqlalchemy import delete as sql_delete
from sqlalchemy import update as sql_update

from microorm.bulk import bulk_create
from microorm.conditions import asked, assignments, conditions, expression, key_values, natural, window
from microorm.constructor import create_instance
from microorm.deleting import counts, delete_found, heard
from microorm.engines import Database
from microorm.loading import instances_of
from microorm.raw import raw_instances
from microorm.schema import Schema
from microorm.statements import plans_of
from microorm.updating import update_found

M = TypeVar("M", bound="Any")


class Query(Generic[M]):
    """The rows of a model that fulfil conditions, in an order: immutable, lazy, sent by its ends.

    Each method returns a new query; `all`, `get`, `first`, iteration and their like send it. It reads from the
    alias that `using()` says, else where the routing goes at that moment.
    """

    __slots__ = ("_distinct", "_equal", "_limit", "_model", "_offset", "_order", "_using", "_where")

    def __init__(self, model: type[M]) -> None:
        self._model = model
        self._where: tuple[ColumnElement[bool], ...] = ()
        self._equal: tuple[tuple[str, Any], ...] = ()
        self._order: tuple[ColumnElement[Any], ...] = ()
        self._limit: int | None = None
        self._offset: int = 0
        self._distinct = False
        self._using: str | None = None

    def __repr__(self) -> str:
        return f"<Query of {self._model.__name__}>"

    def filter(self, /, *expressions: ColumnElement[bool], **equalities: Any) -> Self:
        """The rows for which all *expressions* are true and all fields have these values.

        A value None means NULL; `pk=` means the key. Raises `FieldError` for an unknown name, `InvalidValue`
        for a value that the field cannot have, `TypeError` for what is no expression.
        """
        where, equal = conditions(self._schema, "filter", expressions, equalities)
        return self._with(_where=self._where + where, _equal=self._equal + equal)

    def exclude(self, /, *expressions: ColumnElement[bool], **equalities: Any) -> Self:
        """The rows that `filter` with the same arguments leaves out: the exact complement, NULLs included."""
        where, equal = conditions(self._schema, "exclude", expressions, equalities)
        refused = [*where, *self._equal_expressions(equal)]
        if not refused:
            return self
        return self._with(_where=(*self._where, and_(*refused).is_not(true())))

    def order_by(self, *columns: ColumnElement[Any] | str) -> Self:
        """Ordered by *columns*, or their names, in the place of an earlier order; descending is `.desc()`.

        Where NULLs and letters of different case come is the database's. Raises `FieldError`.
        """
        schema = self._schema
        order = tuple(
            schema.field(each).column if isinstance(each, str) else expression(schema, "order_by", each)
            for each in columns
        )
        return self._with(_order=order)

    def limit(self, count: int) -> Self:
        """At most *count* rows. `ValueError` for a negative one."""
        return self._with(_limit=natural("limit()", count))

    def offset(self, count: int) -> Self:
        """Without the first *count* rows. `ValueError` for a negative one."""
        return self._with(_offset=natural("offset()", count))

    def distinct(self) -> Self:
        """Without repeated rows."""
        return self._with(_distinct=True)

    def using(self, alias: str) -> Self:
        """Read from, and write to, *alias*; routers are not asked."""
        return self._with(_using=alias)

    @property
    def statement(self) -> Select[Any]:
        """The same query as a plain SQLAlchemy `Select` of the model's columns."""
        return self._shaped(select(*[field.column for field in self._schema.fields]))

    def all(self) -> list[M]:
        """The instances. Raises what the database raises."""
        database = self._database()
        if not (self._where or self._order or self._offset or self._distinct) and self._limit is None:
            return self._load_prepared(database, limit=None)
        return self._load(database, self.statement)

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
        if self._limit is None and not self._offset and not self._distinct:
            statement = self._conditioned(select(func.count()).select_from(self._schema.table))
        else:
            statement = select(func.count()).select_from(self.statement.order_by(None).subquery())
        return int(self._scalar(statement))

    def exists(self) -> bool:
        """Whether there is a row."""
        return bool(self._scalar(select(self.statement.order_by(None).exists())))

    def create(self, /, **values: Any) -> M:
        """Make an instance of *values*, which may set the key, and insert it. Raises what a save raises."""
        schema = self._schema
        if "pk" in values:
            values.update({field.name: value for field, value in key_values(schema, values.pop("pk"))})
        instance = create_instance(schema, values)
        saved: M = instance.save(using=self._write_database().alias, force_insert=True)
        return saved

    def bulk_create(self, objects: Iterable[M], *, batch_size: int | None = None) -> list[M]:
        """Insert all of *objects* or none, in few statements, at most *batch_size* rows in one.

        They get their keys and their state. `pre_bulk_create` and `post_bulk_create` are sent, the signals of
        single saves are not. Returns the list. Raises `TypeError` for other models' instances, `ValueError` for
        one given twice, `InvalidValue` (a note says which), and the database's errors; nothing was written then.
        """
        return bulk_create(self._schema, self._write_database(), objects, batch_size=batch_size)

    def update(self, /, **values: Any) -> int:
        """Set *values*, which may be expressions, in every row of the query; returns how many there were.

        `pre_update` and `post_update` are sent, the signals of single saves are not. Raises `FieldError`,
        `InvalidValue`, and `TypeError` where the query is sliced.
        """
        schema = self._schema
        self._refuse_sliced("update")
        columns = assignments(schema, values)
        if not columns:
            raise TypeError("update() wants at least one value")
        statement = self._conditioned(sql_update(schema.table).values(columns))
        return update_found(schema, self._write_database(), statement, self, values)

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete every row of the query: by one statement where nobody listens, else one by one, with signals.

        Returns the number of rows, and by label. Raises `TypeError` where the query is sliced.
        """
        schema = self._schema
        self._refuse_sliced("delete")
        database, databases = self._write_database(), schema.registry.databases
        if heard(schema):
            return delete_found(schema, database, lambda: self._load(database, self.statement), self)
        statement = self._conditioned(sql_delete(schema.table))
        with databases.channel(database, prepared=False, writes=True) as channel:
            total = int(channel.execute(statement).rowcount)
        return counts(schema, total)

    def raw(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[M]:
        """The instances of the rows that *sql* selects; `:name` stands for the value of a parameter.

        Its columns are the model's, in any order. Raises `FieldError` where one is missing or is not the
        model's, and what the database raises.
        """
        found: list[M] = raw_instances(self._schema, self._database(), sql, parameters)
        return found

    @property
    def _schema(self) -> Schema:
        schema: Schema = self._model.__schema__
        return schema

    def _with(self, **changes: Any) -> Self:
        query = object.__new__(type(self))
        for name in Query.__slots__:
            setattr(query, name, changes[name] if name in changes else getattr(self, name))
        return query

    def _database(self) -> Database:
        schema = self._schema
        database: Database = schema.registry.databases.for_read(schema.model, schema.home, self._using)
        return database

    def _write_database(self) -> Database:
        schema = self._schema
        database: Database = schema.registry.databases.for_write(schema.model, schema.home, self._using)
        return database

    def _equal_expressions(self, equal: tuple[tuple[str, Any], ...]) -> list[ColumnElement[bool]]:
        return [self._schema.by_name[name].column == value for name, value in equal]

    def _conditioned(self, statement: Any) -> Any:
        wanted = [*self._where, *self._equal_expressions(self._equal)]
        return statement.where(*wanted) if wanted else statement

    def _shaped(self, statement: Select[Any]) -> Select[Any]:
        statement = self._conditioned(statement)
        if self._order:
            statement = statement.order_by(*self._order)
        if self._limit is not None:
            statement = statement.limit(self._limit)
        if self._offset:
            statement = statement.offset(self._offset)
        return statement.distinct() if self._distinct else statement

    def _at_most_two(self, database: Database) -> list[M]:
        if self._where or self._offset or self._distinct or self._limit is not None:
            query = self if self._limit is not None and self._limit < 2 else self._with(_limit=2)
            return self._load(database, query.statement)
        names = {name for name, _ in self._equal}
        limit = None if names.issuperset(self._schema.key_names) else 2
        return self._load_prepared(database, limit=limit)

    def _load_prepared(self, database: Database, *, limit: int | None) -> list[M]:
        schema = self._schema
        load = plans_of(schema, database).load(tuple([name for name, _ in self._equal]), limit=limit)
        with schema.registry.databases.channel(database, prepared=True, writes=False) as channel:
            found: list[M] = load.instances(channel, tuple([value for _, value in self._equal]))
        return found

    def _load(self, database: Database, statement: Select[Any]) -> list[M]:
        schema = self._schema
        with schema.registry.databases.channel(database, prepared=False, writes=False) as channel:
            rows = channel.execute(statement).fetchall()
        return instances_of(schema, rows, database.alias)

    def _scalar(self, statement: Any) -> Any:
        databases = self._schema.registry.databases
        with databases.channel(self._database(), prepared=False, writes=False) as channel:
            return channel.execute(statement).scalar_one()

    def _refuse_sliced(self, method: str) -> None:
        if self._limit is not None or self._offset or self._distinct:
            raise TypeError(f"{method}() is for whole queries, and this one is limited or distinct")

    def _not_one(self, found: list[M], database: Database) -> Exception:
        which = asked(self._where, self._equal)
        if found:
            error: Exception = self._model.MultipleObjectsReturned(
                f"more than one {self._model.__name__}{which} in {database.alias!r}"
            )
        else:
            error = self._model.DoesNotExist(f"no {self._model.__name__}{which} in {database.alias!r}")
        return error
