"""Compiled statements: SQL that SQLAlchemy compiles once for a model, a set of fields and a database.

A `CompiledStatement` runs on the driver's cursor where its channel has one, and else through SQLAlchemy's `Connection`; SQL,
checks and rows are the same. `Plans` holds the statements of one model on one database. How many there are depends on the
fields and conditions that a program uses, never on values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import (
    Select,
    bindparam,
    delete,
    exists,
    insert,
    literal,
    literal_column,
    select,
    type_coerce,
    update,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ClauseElement, Executable
from sqlalchemy.sql.compiler import SQLCompiler

from microorm.db.connection import Channel
from microorm.db.engines.engine import Database
from microorm.errors import InvalidValue
from microorm.fields.field import Field
from microorm.mapping.codegen import Row, binder
from microorm.mapping.schema import Schema
from microorm.mapping.state import RowLayout, RowState
from microorm.sql.hydration import Hydrator, decode_row, decoders_of, fetched, fields_of, hydrate

P = TypeVar("P")
Parameter = tuple[str, Any]

MAX_STATEMENTS = 256
"""How many statements of one model are kept for one database."""


class Prefixed(Executable, ClauseElement):
    """A SELECT after *prefix*, such as EXPLAIN."""

    inherit_cache = False

    def __init__(self, prefix: str, statement: Select[Any]) -> None:
        self.prefix = prefix
        self.statement = statement


@compiles(Prefixed)
def _prefixed(element: Prefixed, compiler: SQLCompiler, **options: Any) -> str:
    return f"{element.prefix} {compiler.process(element.statement, **options)}"


class CompiledStatement:
    """One compiled statement, with *parameters*: the name and the type of each value of a row, in order."""

    __slots__ = ("_statement", "bind", "sql", "width")

    def __init__(self, statement: Any, parameters: Sequence[Parameter], dialect: Any) -> None:
        compiled = statement.compile(dialect=dialect)
        indexes = {name: index for index, (name, _) in enumerate(parameters)}
        names = compiled.positiontup if compiled.positional else list(compiled.params)
        order = []
        for name in names:
            kind = parameters[indexes[name]][1]
            order.append((indexes[name], name, kind.dialect_impl(dialect).bind_processor(dialect)))
        self._statement: Executable = statement
        self.sql: str = compiled.string
        self.width = len(parameters)
        self.bind = binder(order, positional=bool(compiled.positional), width=self.width)

    def run(self, channel: Channel, row: Row) -> Any:
        """Run the statement with the values of *row*; return the driver's cursor or SQLAlchemy's result."""
        if channel.cursor is None:
            return channel.execute(self._statement, self._named(row))
        return channel.execute_prepared(self.sql, row, self.bind)

    def run_many(self, channel: Channel, rows: Sequence[Row]) -> int:
        """Run the statement once for each of *rows*; return the number of rows changed."""
        if channel.cursor is None:
            return int(channel.execute(self._statement, list(map(self._named, rows))).rowcount)
        return channel.executemany_prepared(self.sql, rows, self.bind)

    def fetch(self, channel: Channel, row: Row) -> Sequence[Any]:
        """Run the statement with the values of *row*; return the driver's rows or SQLAlchemy's."""
        if channel.cursor is None:
            return self._fetched(channel, self._named(row))
        return channel.fetch_prepared(self.sql, row, self.bind)

    def _fetched(self, channel: Channel, parameters: dict[str, Any]) -> Sequence[Any]:
        """Run the statement through SQLAlchemy, and return its rows."""
        return channel.fetch(self._statement, parameters)

    def _named(self, row: Row) -> dict[str, Any]:
        return {_name(index): row[index] for index in range(self.width)}


class CompiledInsert(CompiledStatement):
    """An INSERT of the fields *names*, which reads back *made*: the fields whose values the database makes."""

    __slots__ = ("_decoders", "_returns", "made", "made_names")

    def __init__(self, schema: Schema, names: tuple[str, ...], database: Database) -> None:
        dialect = database.engine.dialect
        fields = fields_of(schema, names)
        self.made = [each for each in schema.fields if each.name not in names and each.server_made]
        self.made_names = tuple(each.name for each in self.made)
        # Inline: SQLAlchemy adds no RETURNING of its own, so that what the SQL says is what is fetched.
        statement = insert(schema.table).inline().values(placeholders(fields))
        only_key = len(self.made) == 1 and self.made[0].generated
        self._returns = bool(self.made) and not (only_key and database.dialect != "postgresql")
        if self._returns:
            statement = statement.returning(*[each.column for each in self.made])
        self._decoders = decoders_of(self.made, dialect)
        super().__init__(statement, parameters_of(fields), dialect)

    def insert(self, channel: Channel, row: Row) -> Row:
        """Insert *row*; return the values of `made`."""
        if not self._returns:
            if channel.cursor is None:
                done = channel.execute(self._statement, self._named(row))
            else:
                done = channel.execute_prepared(self.sql, row, self.bind)
            return (done.lastrowid,) if self.made else ()
        (made,) = self.fetch(channel, row)
        return tuple(made) if channel.cursor is None else decode_row(made, self._decoders)


class CompiledSelect(CompiledStatement):
    """A SELECT of the fields that *hydrator* makes instances of."""

    __slots__ = ("_schema", "hydrator")

    def __init__(
        self,
        schema: Schema,
        statement: Any,
        parameters: Sequence[Parameter],
        dialect: Any,
        hydrator: Hydrator,
    ) -> None:
        super().__init__(statement, parameters, dialect)
        self._schema = schema
        self.hydrator = hydrator

    def instances(self, channel: Channel, row: Row) -> list[Any]:
        """Return the instances of the rows that are found with the parameters *row*."""
        if channel.cursor is None:
            rows = self.fetch(channel, row)
            return hydrate(self._schema, rows, channel.database.row_alias, self.hydrator.wanted)
        return self.hydrator.instances(channel.fetch_prepared(self.sql, row, self.bind))

    def _fetched(self, channel: Channel, parameters: dict[str, Any]) -> Sequence[Any]:
        return fetched(channel, self._statement, self.hydrator.entries, parameters)

    def values(self, channel: Channel, row: Row) -> list[Row]:
        """Return the values of the rows that are found with the parameters *row*."""
        found = self.fetch(channel, row)
        return [tuple(each) for each in found] if channel.cursor is None else self.hydrator.values(found)


class Plans:
    """The statements of one model on one database, compiled when first needed."""

    def __init__(self, schema: Schema, database: Database) -> None:
        self._schema = schema
        self._database = database
        self._dialect = database.engine.dialect
        self.hydrator = Hydrator(schema, database)
        self.statements: dict[Any, Any] = {}
        self.save_plans: dict[Any, Any] = {}  # of persistence.save, by the fields that are written
        self.inserted_rows = 0  # by bulk_create
        self._row_states: dict[tuple[str, ...], RowState] = {}
        self._partial_row_states: dict[tuple[str, ...], RowState] = {}

    def row_state(self, names: tuple[str, ...], *, partial: bool = False) -> RowState:
        """Return the state of an instance whose row was written with *names*, in this order; *partial* as in `RowLayout`."""
        states = self._partial_row_states if partial else self._row_states
        state = states.get(names)
        if state is None:
            if len(states) >= MAX_STATEMENTS:
                states.clear()
            state = states[names] = RowState(self._database.row_alias, RowLayout(names, partial=partial))
        return state

    def insert(self, names: tuple[str, ...]) -> CompiledInsert:
        """Return the INSERT of *names*."""
        return self.cached(("insert", names), lambda: CompiledInsert(self._schema, names, self._database))

    def insert_only(self, names: tuple[str, ...], count: int = 1) -> CompiledStatement:
        """Return the INSERT of *count* rows of *names* that reads nothing back; it takes their values as one row."""

        def make() -> CompiledStatement:
            fields = fields_of(self._schema, names)
            rows = [placeholders(fields, index * len(fields)) for index in range(count)]
            statement = insert(self._schema.table).inline().values(rows if count > 1 else rows[0])
            return self._compile(statement, [*fields] * count)

        return self.cached(("insert only", names, count), make)

    def update(self, names: tuple[str, ...], *, checked: bool = False) -> CompiledStatement:
        """Return the UPDATE of *names* by key; its row has *names*, then the key.

        *checked*: it finds the row only with the version before the one among *names*.
        """

        def make() -> CompiledStatement:
            fields, key, version = fields_of(self._schema, names), self._schema.key, self._schema.version
            values = placeholders(fields)
            statement = update(self._schema.table).values(values).where(*_equal(key, len(fields)))
            if checked and version is not None:
                statement = statement.where(version.column == values[version.column] - literal_column("1"))
            return self._compile(statement, [*fields, *key])

        return self.cached(("checked update" if checked else "update", names), make)

    def delete(self, *, checked: bool = False) -> CompiledStatement:
        """Return the DELETE by key; its row is the key, and with *checked* the version that the row must have."""
        schema, fields = self._schema, [*self._schema.key]
        if checked and schema.version is not None:
            fields.append(schema.version)
        return self.cached(
            "checked delete" if checked else "delete",
            lambda: self._compile(delete(schema.table).where(*_equal(fields)), fields),
        )

    def exists(self) -> CompiledStatement:
        """Return the SELECT that finds a row where the key is taken; its row is the key."""
        table, key = self._schema.table, self._schema.key
        return self.cached(
            "exists", lambda: self._compile(select(exists(table.select().where(*_equal(key)))), key)
        )

    def select(self, names: tuple[str, ...], *, wanted: tuple[str, ...] | None = None) -> CompiledSelect:
        """Return the SELECT of the fields *wanted*, by default all, where *names* equal the values of its row."""

        def make() -> CompiledSelect:
            fields, hydrator = fields_of(self._schema, names), self.hydrator_of(wanted)
            statement = select(*[each.column for each in hydrator.fields]).where(*_equal(fields))
            return CompiledSelect(self._schema, statement, parameters_of(fields), self._dialect, hydrator)

        return self.cached(("select by", names, wanted), make)

    def hydrator_of(self, wanted: tuple[str, ...] | None) -> Hydrator:
        """Return the hydrator of rows of the fields *wanted*, by default all."""
        if wanted is None:
            return self.hydrator
        return self.cached(("hydrator", wanted), lambda: Hydrator(self._schema, self._database, wanted))

    def cached(self, key: Any, make: Callable[[], P]) -> P:
        """Return the statement of *key*, made by *make* where it is not cached."""
        statement: P | None = self.statements.get(key)
        if statement is None:
            if len(self.statements) >= MAX_STATEMENTS:
                self.statements.clear()
            statement = self.statements[key] = make()
        return statement

    def _compile(self, statement: Any, fields: Sequence[Field[Any]]) -> CompiledStatement:
        return CompiledStatement(statement, parameters_of(fields), self._dialect)


def plans_of(schema: Schema, database: Database) -> Plans:
    """Return the statements of *schema* on *database*."""
    plans: Plans | None = schema.plans.get(database)
    if plans is None:
        database.planned.add(schema)
        plans = schema.plans[database] = Plans(schema, database)
    return plans


def key_row(schema: Schema, instance: Any) -> Row:
    """Return the key of *instance* as a row, checked. Raise `InvalidValue` where it has an invalid one."""
    collect = schema.collectors.get(schema.key_names) or schema.collector(schema.key_names)
    row = collect(instance.__dict__)
    if row.__class__ is not tuple:
        raise InvalidValue(schema.name, {"pk": "needs a value, not an expression"})
    return row


def supplied_names(schema: Schema, names: tuple[str, ...], values: dict[str, Any]) -> tuple[str, ...]:
    """Return those of *names* whose values are to be written; the database makes the others, and a key that is None."""
    return tuple(
        name
        for name in names
        if name not in schema.server_made
        or (name in values and not (values[name] is None and name in schema.key_names))
    )


def parameters_of(fields: Sequence[Field[Any]]) -> list[Parameter]:
    """Return the parameters of a statement whose row has the values of *fields*."""
    return [(_name(index), each.column.type) for index, each in enumerate(fields)]


def placeholders(fields: Sequence[Field[Any]], first: int = 0) -> dict[Any, Any]:
    """Return a mapping from the columns of *fields* to parameters; *first* is the index of the first in the row."""
    return {
        each.column: bindparam(_name(index), type_=each.column.type)
        for index, each in enumerate(fields, start=first)
    }


def assigned(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return what to set the columns of *values* to, for a statement with other parameters.

    SQLAlchemy names the parameter of a plain value after its column, and those of expressions after a column with a number,
    which may be the name of another column.
    """
    return {
        column: value
        if isinstance(value, ClauseElement)
        else type_coerce(literal(value, column.type), column.type)
        for column, value in values.items()
    }


def _name(index: int) -> str:
    return f"_v{index}"


def _equal(fields: Sequence[Field[Any]], first: int = 0) -> list[Any]:
    return [column == value for column, value in placeholders(fields, first).items()]
