"""Statements: SQL that SQLAlchemy compiles once per schema, shape and dialect.

A `Prepared` runs on the driver's cursor where its channel has one, else through SQLAlchemy's `Connection`:
the same SQL, the same checks, the same rows (DESIGN 13). `Plans` are the statements of one schema on one
database; their number is bounded by the shapes that a program uses, never by its values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import bindparam, delete, exists, insert, select, update
from sqlalchemy.sql import Executable

from microorm.db.connection import Channel
from microorm.db.engine import Database
from microorm.errors import InvalidValue
from microorm.fields.field import Field
from microorm.mapping.codegen import Row, binder
from microorm.mapping.schema import Schema
from microorm.mapping.state import Layout, Origin
from microorm.sql.hydration import Loader, decoded, instances_of, read_decoders

P = TypeVar("P")
Parameter = tuple[str, Any]

MOST_SHAPES = 256


class Prepared:
    """One statement of fixed shape, with *parameters*: the name and the type of each value of a row, in order."""

    __slots__ = ("_statement", "bind", "sql", "width")

    def __init__(self, statement: Any, parameters: Sequence[Parameter], dialect: Any) -> None:
        compiled = statement.compile(dialect=dialect)
        places = {name: place for place, (name, _) in enumerate(parameters)}
        names = compiled.positiontup if compiled.positional else list(compiled.params)
        order = []
        for name in names:
            kind = parameters[places[name]][1]
            order.append((places[name], name, kind.dialect_impl(dialect).bind_processor(dialect)))
        self._statement: Executable = statement
        self.sql: str = compiled.string
        self.width = len(parameters)
        self.bind = binder(order, positional=bool(compiled.positional), width=self.width)

    def run(self, channel: Channel, row: Row) -> Any:
        """Run the statement with the values of *row*; return the driver's cursor or SQLAlchemy's result."""
        if channel.cursor is None:
            return channel.execute(self._statement, self._named(row))
        return channel.execute_prepared(self.sql, row if self.bind is None else self._bound(channel, row))

    def run_many(self, channel: Channel, rows: Sequence[Row]) -> int:
        """Run the statement once for each of *rows*; return the number of rows changed."""
        if channel.cursor is None:
            return int(channel.execute(self._statement, list(map(self._named, rows))).rowcount)
        parameters: Any = rows
        if self.bind is not None:
            try:
                parameters = list(map(self.bind, rows))
            except Exception as error:
                raise channel.unbound(error, self.sql, rows) from error
        return channel.executemany_prepared(self.sql, parameters)

    def fetch(self, channel: Channel, row: Row) -> Sequence[Any]:
        """Run the statement with the values of *row*; return the driver's rows or SQLAlchemy's."""
        if channel.cursor is None:
            return channel.execute(self._statement, self._named(row)).fetchall()
        return channel.fetch_prepared(self.sql, row if self.bind is None else self._bound(channel, row))

    def _bound(self, channel: Channel, row: Row) -> Any:
        assert self.bind is not None
        try:
            return self.bind(row)
        except Exception as error:
            raise channel.unbound(error, self.sql, row) from error

    def _named(self, row: Row) -> dict[str, Any]:
        return {_name(place): row[place] for place in range(self.width)}


class Insert(Prepared):
    """An INSERT of *names*; what the database makes of the other fields is read back."""

    __slots__ = ("_decoders", "_returns", "made", "made_names")

    def __init__(self, schema: Schema, names: tuple[str, ...], database: Database) -> None:
        dialect = database.engine.dialect
        fields = [schema.by_name[name] for name in names]
        self.made = [each for each in schema.fields if each.name not in names and each.server_made]
        self.made_names = tuple(each.name for each in self.made)
        # Inline: SQLAlchemy adds no RETURNING of its own, so that what the SQL says is what is fetched.
        statement = insert(schema.table).inline().values(bound(fields))
        only_key = len(self.made) == 1 and self.made[0].generated
        self._returns = bool(self.made) and not (only_key and database.dialect != "postgresql")
        if self._returns:
            statement = statement.returning(*[each.column for each in self.made])
        self._decoders = read_decoders(self.made, dialect)
        super().__init__(statement, values_of(fields), dialect)

    def insert(self, channel: Channel, row: Row) -> Row:
        """Insert *row*; returns the values the database made, in the order of `made`."""
        if not self._returns:
            done = self.run(channel, row)
            return (done.lastrowid,) if self.made else ()
        (made,) = self.fetch(channel, row)
        return tuple(made) if channel.cursor is None else decoded(made, self._decoders)


class Load(Prepared):
    """The SELECT of what *loader* makes instances of, by *parameters*."""

    __slots__ = ("_schema", "loader")

    def __init__(
        self, schema: Schema, statement: Any, parameters: Sequence[Parameter], dialect: Any, loader: Loader
    ) -> None:
        super().__init__(statement, parameters, dialect)
        self._schema = schema
        self.loader = loader

    def instances(self, channel: Channel, row: Row) -> list[Any]:
        """The instances of the rows that have the values of *row*."""
        if channel.cursor is None:
            rows = self.fetch(channel, row)
            return instances_of(self._schema, rows, channel.database.alias, self.loader.wanted)
        parameters = row if self.bind is None else self._bound(channel, row)
        return self.loader.instances(channel.fetch_prepared(self.sql, parameters))

    def values(self, channel: Channel, row: Row) -> list[Row]:
        """The values of the fields that are loaded in the rows that have the values of *row*."""
        found = self.fetch(channel, row)
        return [tuple(each) for each in found] if channel.cursor is None else self.loader.values(found)


class Plans:
    """The prepared statements of one schema on one database, made when first needed."""

    def __init__(self, schema: Schema, database: Database) -> None:
        self._schema = schema
        self._database = database
        self._dialect = database.engine.dialect
        self.loader = Loader(schema, database)
        self.made: dict[Any, Any] = {}
        self.save_plans: dict[Any, Any] = {}  # of persistence.save, by what is written
        self.inserted_rows = 0  # by bulk_create
        self._origins: dict[tuple[str, ...], Origin] = {}
        self._partial_origins: dict[tuple[str, ...], Origin] = {}

    def origin(self, names: tuple[str, ...], *, partial: bool = False) -> Origin:
        """The origin of an instance whose row was written with *names*, in this order; *partial* as in `Layout`."""
        origins = self._partial_origins if partial else self._origins
        origin = origins.get(names)
        if origin is None:
            if len(origins) >= MOST_SHAPES:
                origins.clear()
            origin = origins[names] = Origin(self._database.alias, Layout(names, partial=partial))
        return origin

    def insert(self, names: tuple[str, ...]) -> Insert:
        """The INSERT of *names*."""
        return self.kept(("insert", names), lambda: Insert(self._schema, names, self._database))

    def insert_only(self, names: tuple[str, ...]) -> Prepared:
        """The INSERT of *names* that reads nothing back."""
        fields = [self._schema.by_name[name] for name in names]
        statement = insert(self._schema.table).inline().values(bound(fields))
        return self.kept(
            ("insert only", names), lambda: Prepared(statement, values_of(fields), self._dialect)
        )

    def update(self, names: tuple[str, ...]) -> Prepared:
        """The UPDATE of *names* by key; its row has *names*, then the key."""
        return self.kept(("update", names), lambda: self._make_update(names))

    def delete(self) -> Prepared:
        """The DELETE by key; its row is the key."""
        key = self._schema.key
        return self.kept(
            "delete",
            lambda: Prepared(delete(self._schema.table).where(*_equal(key)), values_of(key), self._dialect),
        )

    def exists(self) -> Prepared:
        """The SELECT that finds a row where the key is taken; its row is the key."""
        key = self._schema.key
        return self.kept(
            "exists",
            lambda: Prepared(
                select(exists(self._schema.table.select().where(*_equal(key)))), values_of(key), self._dialect
            ),
        )

    def load(
        self, names: tuple[str, ...], *, limit: int | None = None, wanted: tuple[str, ...] | None = None
    ) -> Load:
        """The SELECT of the fields *wanted*, else of all, where *names* equal the values of its row.

        *limit* is part of the SQL.
        """
        return self.kept(("load", names, limit, wanted), lambda: self._make_load(names, limit, wanted))

    def _make_update(self, names: tuple[str, ...]) -> Prepared:
        schema = self._schema
        fields = [schema.by_name[name] for name in names]
        statement = update(schema.table).values(bound(fields)).where(*_equal(schema.key, len(fields)))
        return Prepared(statement, values_of([*fields, *schema.key]), self._dialect)

    def _make_load(self, names: tuple[str, ...], limit: int | None, wanted: tuple[str, ...] | None) -> Load:
        schema, loader = self._schema, self.loader_of(wanted)
        fields = [schema.by_name[name] for name in names]
        statement = select(*[each.column for each in loader.fields]).where(*_equal(fields))
        if limit is not None:
            statement = statement.suffix_with(f"LIMIT {limit:d}")
        return Load(schema, statement, values_of(fields), self._dialect, loader)

    def loader_of(self, wanted: tuple[str, ...] | None) -> Loader:
        """What makes instances of rows of the fields *wanted*, else of all."""
        if wanted is None:
            return self.loader
        return self.kept(("loader", wanted), lambda: Loader(self._schema, self._database, wanted))

    def kept(self, key: Any, make: Callable[[], P]) -> P:
        """What *make* makes, once for each *key* as long as there are not too many."""
        plan: P | None = self.made.get(key)
        if plan is None:
            if len(self.made) >= MOST_SHAPES:
                self.made.clear()
            plan = self.made[key] = make()
        return plan


def plans_of(schema: Schema, database: Database) -> Plans:
    """The prepared statements of *schema* on *database*."""
    plans: Plans | None = database.plans.get(schema)
    if plans is None:
        plans = database.plans[schema] = Plans(schema, database)
    return plans


def key_row(schema: Schema, instance: Any) -> Row:
    """The key of *instance* as a row, checked. `InvalidValue` where it cannot be one."""
    row = schema.collector(schema.key_names)(instance.__dict__)
    if row.__class__ is not tuple:
        raise InvalidValue(schema.name, {"pk": "wants a value, not an expression"})
    return row


def given(schema: Schema, names: tuple[str, ...], values: dict[str, Any]) -> tuple[str, ...]:
    """Those of *names* that are in *values*; the database makes the others, and a key that is None."""
    return tuple(
        name
        for name in names
        if name not in schema.server_made
        or (name in values and not (values[name] is None and name in schema.key_names))
    )


def values_of(fields: Sequence[Field[Any]]) -> list[Parameter]:
    """The parameters that stand for values of *fields*."""
    return [(_name(place), each.column.type) for place, each in enumerate(fields)]


def _name(place: int) -> str:
    return f"_v{place}"


def bound(fields: Sequence[Field[Any]], first: int = 0) -> dict[Any, Any]:
    """For each column of *fields* the parameter that a `Prepared` gives its value; *first* is the place of the first."""
    return {
        each.column: bindparam(_name(place), type_=each.column.type)
        for place, each in enumerate(fields, start=first)
    }


def _equal(fields: Sequence[Field[Any]], first: int = 0) -> list[Any]:
    return [
        each.column == bindparam(_name(place), type_=each.column.type)
        for place, each in enumerate(fields, start=first)
    ]
