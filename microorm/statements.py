"""Statements: SQL that SQLAlchemy compiles once per schema, shape and dialect, and rows made instances.

A `Prepared` runs on the driver's cursor where its channel has one, else through SQLAlchemy's `Connection`:
the same SQL, the same checks, the same rows (DESIGN 13). `Plans` are the statements of one schema on one
database; their number is bounded by the shapes that a program uses, never by its values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import ARRAY, Float, Numeric, bindparam, delete, exists, insert, select, update
from sqlalchemy.sql import Executable

from microorm.channels import Channel
from microorm.codegen import Row, binder, builder
from microorm.engines import Database
from microorm.fields import Field
from microorm.schema import Schema
from microorm.signals import post_init, pre_init
from microorm.state import Layout, Origin, kept

P = TypeVar("P")

MOST_SHAPES = 256
# The codes by which psycopg names what SQLAlchemy's types ask for: one number, and an array of them.
_CODES = {Numeric: (1700, 1231), Float: (701, 1022)}


class Prepared:
    """One statement of fixed shape, whose parameters are the values of *fields*, in this order in a row."""

    __slots__ = ("_bind", "_statement", "sql", "width")

    def __init__(self, statement: Any, fields: Sequence[Field[Any]], dialect: Any) -> None:
        compiled = statement.compile(dialect=dialect)
        places = {_name(place): place for place in range(len(fields))}
        names = compiled.positiontup if compiled.positional else list(places)
        order = []
        for name in names:
            kind = fields[places[name]].column.type
            order.append((places[name], name, kind.dialect_impl(dialect).bind_processor(dialect)))
        self._statement: Executable = statement
        self.sql: str = compiled.string
        self.width = len(fields)
        self._bind = binder(order, positional=bool(compiled.positional), width=self.width)

    def run(self, channel: Channel, row: Row) -> Any:
        """Send the statement with the values of *row*; returns the driver's cursor or SQLAlchemy's result."""
        cursor = channel.cursor
        if cursor is None:
            return channel.execute(self._statement, self._named(row))
        parameters: Any = row
        try:
            if self._bind is not None:
                parameters = self._bind(row)
            cursor.execute(self.sql, parameters)
        except BaseException as error:
            raise channel.translated(error, self.sql, parameters) from error
        return cursor

    def run_many(self, channel: Channel, rows: Sequence[Row]) -> None:
        """Send the statement once for each of *rows*."""
        cursor = channel.cursor
        if cursor is None:
            channel.execute(self._statement, list(map(self._named, rows)))
            return
        parameters: Any = rows
        try:
            if self._bind is not None:
                parameters = list(map(self._bind, rows))
            cursor.executemany(self.sql, parameters)
        except BaseException as error:
            raise channel.translated(error, self.sql, parameters) from error

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
        statement = insert(schema.table).inline().values(_bound(fields))
        only_key = len(self.made) == 1 and self.made[0].generated
        self._returns = bool(self.made) and not (only_key and database.dialect != "postgresql")
        if self._returns:
            statement = statement.returning(*[each.column for each in self.made])
        self._decoders = read_decoders(self.made, dialect)
        super().__init__(statement, fields, dialect)

    def insert(self, channel: Channel, row: Row) -> Row:
        """Insert *row*; returns the values the database made, in the order of `made`."""
        done = self.run(channel, row)
        if not self.made:
            return ()
        if not self._returns:
            return (done.lastrowid,)
        (made,) = done.fetchall()
        if channel.cursor is None:
            return tuple(made)
        return tuple(
            value if decode is None else decode(value)
            for value, decode in zip(made, self._decoders, strict=True)
        )


class Load:
    """A SELECT of all fields and what makes its rows instances; *prepared* where equalities choose the rows."""

    __slots__ = ("_build", "_decoders", "_layout", "_schema", "prepared")

    def __init__(self, schema: Schema, database: Database, prepared: Prepared | None = None) -> None:
        dialect = database.engine.dialect
        self._schema = schema
        self._decoders = read_decoders(schema.fields, dialect)
        self._build = builder(schema.model, schema.fields, self._decoders, raw=True)
        # A mutable value that the driver itself decodes is copied by the builder and needs no decoding again.
        self._layout = Layout(schema.names, self._decoders)
        self.prepared = prepared

    def select(self, channel: Channel, row: Row) -> list[Any]:
        """The instances that the prepared statement finds with the values of *row*."""
        assert self.prepared is not None
        done = self.prepared.run(channel, row)
        try:
            rows = done.fetchall()
        except BaseException as error:
            raise channel.translated(error, self.prepared.sql, row) from error
        alias = channel.database.alias
        if channel.cursor is None:
            return instances_of(self._schema, rows, alias)
        origin = Origin(alias, self._layout)
        if pre_init._connections or post_init._connections:
            decoded = [
                tuple(v if d is None else d(v) for v, d in zip(each, self._decoders, strict=True))
                for each in rows
            ]
            return _told(self._schema, decoded, alias)
        return self._build(rows, origin)


class Plans:
    """The prepared statements of one schema on one database, made when first needed."""

    def __init__(self, schema: Schema, database: Database) -> None:
        self._schema = schema
        self._database = database
        self._dialect = database.engine.dialect
        self._made: dict[Any, Any] = {}
        self._origins: dict[tuple[str, ...], Origin] = {}

    def origin(self, names: tuple[str, ...]) -> Origin:
        """The origin of an instance whose row was written with *names*, in this order."""
        origin = self._origins.get(names)
        if origin is None:
            origin = self._origins[names] = Origin(self._database.alias, Layout(names))
        return origin

    def insert(self, names: tuple[str, ...]) -> Insert:
        """The INSERT of *names*."""
        return self._kept(("insert", names), lambda: Insert(self._schema, names, self._database))

    def insert_only(self, names: tuple[str, ...]) -> Prepared:
        """The INSERT of *names* that reads nothing back."""
        fields = [self._schema.by_name[name] for name in names]
        statement = insert(self._schema.table).inline().values(_bound(fields))
        return self._kept(("insert only", names), lambda: Prepared(statement, fields, self._dialect))

    def update(self, names: tuple[str, ...]) -> Prepared:
        """The UPDATE of *names* by key; its row has *names*, then the key."""
        return self._kept(("update", names), lambda: self._make_update(names))

    def delete(self) -> Prepared:
        """The DELETE by key; its row is the key."""
        key = self._schema.key
        statement = delete(self._schema.table).where(*_equal(key))
        return self._kept("delete", lambda: Prepared(statement, key, self._dialect))

    def exists(self) -> Prepared:
        """The SELECT that finds a row where the key is taken; its row is the key."""
        key = self._schema.key
        return self._kept(
            "exists",
            lambda: Prepared(
                select(exists(self._schema.table.select().where(*_equal(key)))), key, self._dialect
            ),
        )

    def load(self, names: tuple[str, ...], *, limit: int | None = None) -> Load:
        """The SELECT of all fields where *names* equal the values of its row; *limit* is part of the SQL."""
        return self._kept(("load", names, limit), lambda: self._make_load(names, limit))

    def _make_update(self, names: tuple[str, ...]) -> Prepared:
        schema = self._schema
        fields = [schema.by_name[name] for name in names]
        statement = update(schema.table).values(_bound(fields)).where(*_equal(schema.key, len(fields)))
        return Prepared(statement, [*fields, *schema.key], self._dialect)

    def _make_load(self, names: tuple[str, ...], limit: int | None) -> Load:
        schema = self._schema
        fields = [schema.by_name[name] for name in names]
        statement = select(*[each.column for each in schema.fields]).where(*_equal(fields))
        if limit is not None:
            statement = statement.suffix_with(f"LIMIT {limit:d}")
        return Load(schema, self._database, Prepared(statement, fields, self._dialect))

    def _kept(self, key: Any, make: Callable[[], P]) -> P:
        plan: P | None = self._made.get(key)
        if plan is None:
            if len(self._made) >= MOST_SHAPES:
                self._made.clear()
            plan = self._made[key] = make()
        return plan


def plans_of(schema: Schema, database: Database) -> Plans:
    """The prepared statements of *schema* on *database*."""
    plans: Plans | None = database.plans.get(schema)
    if plans is None:
        plans = database.plans[schema] = Plans(schema, database)
    return plans


def given(schema: Schema, names: tuple[str, ...], values: dict[str, Any]) -> tuple[str, ...]:
    """Those of *names* that are in *values*; the database makes the others, and a key that is None."""
    return tuple(
        name
        for name in names
        if name not in schema.server_made
        or (name in values and not (values[name] is None and name in schema.key_names))
    )


def instances_of(schema: Schema, rows: Sequence[Any], alias: str) -> list[Any]:
    """The instances of *rows* that SQLAlchemy has decoded."""
    if pre_init._connections or post_init._connections:
        return _told(schema, rows, alias)
    build = builder_of(schema)
    return build(rows, Origin(alias, schema.layout))


def builder_of(schema: Schema) -> Callable[[Sequence[Any], Origin], list[Any]]:
    """The function that makes decoded rows instances, generated once per schema."""
    if not schema.builders:
        none = [None] * len(schema.fields)
        schema.builders.append(builder(schema.model, schema.fields, none, raw=False))
    build: Callable[[Sequence[Any], Origin], list[Any]] = schema.builders[0]
    return build


def _told(schema: Schema, rows: Sequence[Any], alias: str) -> list[Any]:
    """Instances whose making is told by `pre_init` and `post_init` (CONTRACT G4)."""
    origin, model, instances = Origin(alias, schema.layout), schema.model, []
    for row in rows:
        values = dict(zip(schema.names, row, strict=True))
        pre_init.send(model, args=(), kwargs=values)
        instance = object.__new__(model)
        instance.__dict__ = values
        instance._row = kept(schema.fields, tuple(row)) if schema.mutable else tuple(row)
        instance._origin = origin
        post_init.send(model, instance=instance)
        instances.append(instance)
    return instances


def read_decoders(fields: Sequence[Field[Any]], dialect: Any) -> tuple[Callable[[Any], Any] | None, ...]:
    """For each field, what turns the driver's value into ours, or None."""
    return tuple(_decoder(each.column.type, dialect) for each in fields)


def _decoder(kind: Any, dialect: Any) -> Callable[[Any], Any] | None:
    implementation = kind.dialect_impl(dialect)
    code = None
    if dialect.name == "postgresql":
        # psycopg's numbers come as Decimal or float, and SQLAlchemy asks the server's type which.
        stored = getattr(implementation, "impl_instance", implementation)
        number = stored.item_type if isinstance(stored, ARRAY) else stored
        code = next((c[stored is not number] for kind, c in _CODES.items() if isinstance(number, kind)), None)
    decode: Callable[[Any], Any] | None = implementation.result_processor(dialect, code)
    return decode


def _name(place: int) -> str:
    return f"_v{place}"


def _bound(fields: Sequence[Field[Any]]) -> dict[Any, Any]:
    return {each.column: bindparam(_name(place), type_=each.column.type) for place, each in enumerate(fields)}


def _equal(fields: Sequence[Field[Any]], first: int = 0) -> list[Any]:
    return [
        each.column == bindparam(_name(place), type_=each.column.type)
        for place, each in enumerate(fields, start=first)
    ]
