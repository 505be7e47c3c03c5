"""Batches: how many rows go into one statement, and one INSERT of many rows for PostgreSQL.

psycopg parses the text of a long statement at each use, which costs more than all the rest. Its raw cursor sends the text
as it is, with the placeholders of the server. The rows are numbered and inserted in that order, so that the generated keys,
which count up, can be assigned to the rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Any, TypeVar

from sqlalchemy import Select, bindparam

from microorm.db.connection import Channel
from microorm.db.engines.engine import Database
from microorm.mapping.codegen import Row, binder
from microorm.mapping.schema import Schema
from microorm.messages import brief
from microorm.sql.hydration import decode_row, decoders_of
from microorm.sql.statements import Plans

T = TypeVar("T")

MAX_PARAMETERS = {"sqlite": 32_766, "postgresql": 65_535}
"""How many parameters one statement may have; MariaDB limits its size instead."""
MAX_ROWS = 10_000
MAX_BYTES = 1_000_000
"""Of one statement to MariaDB: the smallest packet that a server accepts by default."""
MAX_VALUES = 4_000
"""How many values go into one INSERT of many rows; more are no faster."""
MAX_TEXTS = 16
"""For how many numbers of rows the text of an INSERT is kept."""

_VARIABLE_NUMBER = 9  # SQLITE_LIMIT_VARIABLE_NUMBER; not every build of sqlite3 has the name


class Progress:
    """Counts the rows that are done and calls the user's *function* with their number and the *total* after each batch."""

    __slots__ = ("_done", "_function", "_total")

    def __init__(self, function: Callable[[int, int], object] | None, total: int) -> None:
        if function is not None and not callable(function):
            raise TypeError(f"progress= takes a function of two numbers, not {brief(function)}")
        self._function = function
        self._done = 0
        self._total = total

    def add(self, count: int) -> None:
        """Add *count* rows and call the function. Raises what it raises."""
        self._done += count
        if self._function is not None:
            self._function(self._done, self._total)


def check_instances(schema: Schema, method: str, given: Iterable[Any]) -> list[Any]:
    """Return the instances *given* to *method* as a list. `TypeError` for other models', `ValueError` for one given twice."""
    objects = list(given)
    if {*map(type, objects)} <= {schema.model} and len({*map(id, objects)}) == len(objects):
        return objects
    indexes: dict[int, int] = {}
    for index, instance in enumerate(objects):
        if type(instance) is not schema.model:
            raise TypeError(
                f"{method}() of {schema.name} takes instances of it, not of {type(instance).__name__}"
            )
        if (first := indexes.setdefault(id(instance), index)) != index:
            raise ValueError(f"{method}() was given one object twice, at {first} and {index}")
    return objects


def check_batch_size(batch_size: int | None) -> int | None:
    """Return *batch_size*. `ValueError` for anything but a positive int and None."""
    if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
        raise ValueError(f"batch_size= must be a positive int, not {brief(batch_size)}")
    return batch_size


def max_rows(channel: Channel, width: int, asked: int | None = None) -> int:
    """Return how many rows of *width* values fit into one statement, at most *asked*."""
    parameters = MAX_PARAMETERS.get(channel.database.dialect)
    if channel.database.is_sqlite:
        parameters = _sqlite_limit(channel) or parameters
    rows = MAX_ROWS if parameters is None else min(MAX_ROWS, max(1, parameters // max(1, width)))
    return rows if asked is None else min(rows, asked)


def current_read(channel: Channel, query: Select[Any]) -> Select[Any]:
    """Return *query* so that it reads what is committed now, not what was when the transaction began.

    On MariaDB only a read that locks the rows does.
    """
    return query if channel.database.dialect in MAX_PARAMETERS else query.with_for_update()


def batches(
    channel: Channel, items: Sequence[T], row_of: Callable[[T], Row], asked: int | None
) -> Iterator[Sequence[T]]:
    """Cut *items* into parts that fit into one statement, of at most *asked*. *row_of* returns the row of an item."""
    if not items:
        return
    size = max_rows(channel, len(row_of(items[0])), asked)
    if channel.database.dialect in MAX_PARAMETERS:
        yield from sliced(items, size)
        return
    start = total = 0
    for index, item in enumerate(items):
        added = _bytes(row_of(item))
        if index > start and (index - start == size or total + added > MAX_BYTES):
            yield items[start:index]
            start, total = index, 0
        total += added
    yield items[start:]


def sliced(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut *items* into parts of *size*."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _bytes(row: Row) -> int:
    """Return about how long *row* is in the text of a statement."""
    return sum(
        len(value) if value.__class__ is str or value.__class__ is bytes else len(repr(value))
        for value in row
    )


def _sqlite_limit(channel: Channel) -> int | None:
    """Return how many parameters this connection accepts; None where the driver cannot tell."""
    driver: Any = channel.raw.dbapi_connection
    if driver is not None and channel.database.is_async:
        return _library_limit()  # aiosqlite does not tell
    getlimit = getattr(driver, "getlimit", None)
    return None if getlimit is None else int(getlimit(_VARIABLE_NUMBER))


@cache
def _library_limit() -> int:
    """Return how many parameters SQLite's library accepts."""
    import sqlite3  # noqa: PLC0415 other databases do not need it

    with closing(sqlite3.connect(":memory:")) as connection:
        return connection.getlimit(_VARIABLE_NUMBER)


def has_triggers(schema: Schema, channel: Channel) -> bool:
    """Return whether the table has triggers on SQLite: their INSERTs may take numbers between those of the rows."""
    parts = [
        f"SELECT 1 FROM {master} WHERE type = 'trigger' AND tbl_name = ?"
        for master in ("sqlite_master", "sqlite_temp_master")
    ]
    sql, names = f"{' UNION ALL '.join(parts)} LIMIT 1", (schema.table.name, schema.table.name)
    try:  # on a cursor of the driver, since the statement is not to be counted
        with closing(channel.raw.cursor()) as cursor:
            cursor.execute(sql, names)
            return bool(cursor.fetchall())
    except BaseException as error:  # noqa: BLE001 as in a channel
        raise channel.translated(error, sql, names)  # noqa: B904 it has its cause


class MultiRowInsert:
    """One INSERT of many rows of *names*, which reads back *made*: the fields whose values the database makes.

    *bind* makes the parameters of a row, or is None where they are the row.
    """

    __slots__ = ("_decoders", "_head", "_key", "_placeholders", "_rows", "_tail", "_texts", "bind", "made")

    def __init__(self, schema: Schema, plans: Plans, names: tuple[str, ...], database: Database) -> None:
        dialect: Any = database.engine.dialect
        columns = [schema.by_name[name].column for name in names]
        self.made = plans.insert(names).made
        decoders = decoders_of(self.made, dialect)
        self._decoders = decoders if any(decoders) else None
        self._key = self.made.index(schema.generated) if schema.generated in self.made else None
        self._rows = max(1, MAX_VALUES // len(names))
        self._texts: dict[int, str] = {}
        self._placeholders = [
            _placeholder(index, column.type, dialect) for index, column in enumerate(columns)
        ]
        processors = [column.type.dialect_impl(dialect).bind_processor(dialect) for column in columns]
        order = [(index, "", process) for index, process in enumerate(processors)]
        self.bind = binder(order, positional=True, width=len(names))
        quoted = dialect.identifier_preparer
        values = ", ".join(f"v{index}" for index in range(len(names)))
        self._head = (
            f"INSERT INTO {quoted.format_table(schema.table)} ({', '.join(map(quoted.format_column, columns))}) "
            f"SELECT {values} FROM (VALUES "
        )
        self._tail = f") AS given ({values}, place) ORDER BY place"
        self._head = self._head.replace("%%", "%")  # names are quoted for a driver that parses the text
        if self.made:
            returned = ", ".join(quoted.format_column(each.column) for each in self.made)
            self._tail += f" RETURNING {returned.replace('%%', '%')}"

    @property
    def sql(self) -> str:
        """The SQL for two rows, to be shown."""
        return self._text(2)

    def insert(self, channel: Channel, rows: Sequence[Row]) -> list[Row]:
        """Insert *rows*; return the values of `made` of each, in order."""
        cursor = channel.database.synchronous_cursor(_raw_class(channel)(channel.raw.driver_connection))
        made: list[Row] = []
        for part in sliced(rows, self._rows):
            made += self._insert(channel, cursor, part)
        return made

    def _insert(self, channel: Channel, cursor: Any, rows: Sequence[Row]) -> list[Row]:
        sql = self._text(len(rows))
        try:
            values = tuple(chain.from_iterable(rows if self.bind is None else map(self.bind, rows)))
        except Exception as error:
            raise channel.unbound(error, sql, rows) from error
        if not self.made:
            channel.execute_prepared(sql, values, cursor=cursor)
            return [()] * len(rows)
        found = channel.fetch_prepared(sql, values, cursor=cursor)
        if self._key is not None:
            # The keys were made in the order of the rows, but RETURNING has no order.
            found.sort(key=itemgetter(self._key))
        return found if self._decoders is None else [decode_row(row, self._decoders) for row in found]

    def _text(self, count: int) -> str:
        """Return the SQL for *count* rows."""
        text = self._texts.get(count)
        if text is None:
            if len(self._texts) >= MAX_TEXTS:
                self._texts.clear()
            width = len(self._placeholders)
            rows = []
            for row in range(count):
                values = [
                    placeholder.replace("$", f"${number}")
                    for number, placeholder in enumerate(self._placeholders, start=row * width + 1)
                ]
                rows.append(f"({', '.join(values)}, {row})")
            text = self._texts[count] = f"{self._head}{', '.join(rows)}{self._tail}"
        return text


def multirow_insert(
    schema: Schema, plans: Plans, channel: Channel, names: tuple[str, ...]
) -> MultiRowInsert | None:
    """Return the INSERT of many rows of *names*; None where the channel or the fields made need another statement."""
    database, made = channel.database, plans.insert(names).made
    if channel.cursor is None or not names or (made and schema.generated not in made):
        return None
    if _raw_class(channel) is None:
        return None
    return plans.cached(("multi-row", names), lambda: MultiRowInsert(schema, plans, names, database))


def _raw_class(channel: Channel) -> Any:
    """Return the class of the raw cursors of the driver's connection; None where it has none."""
    driver: Any = channel.database.engine.dialect.loaded_dbapi
    if not hasattr(driver, "RawCursor"):
        return None
    connection: Any = channel.raw.driver_connection
    return _raw_class_of(driver, connection.cursor_factory)


@cache
def _raw_class_of(driver: Any, factory: Any) -> Any:
    """Return a raw variant of *factory*, the class of cursors, which the program may have chosen itself."""
    if factory is driver.Cursor:
        return driver.RawCursor
    if factory is driver.AsyncCursor:
        return driver.AsyncRawCursor
    if not issubclass(factory, driver.Cursor) or issubclass(factory, driver.ClientCursor):
        return None  # a ClientCursor puts the values into the text
    return type(f"Raw{factory.__name__}", (factory, driver.RawCursor), {})


def _placeholder(index: int, kind: Any, dialect: Any) -> str:
    """Return the SQL for a value of *kind*, with `$` for the parameter; it is cast, as VALUES has no types of columns."""
    name = f"_v{index}"
    text = str(bindparam(name, type_=kind).compile(dialect=dialect))
    if text == f"%({name})s":
        # Without a length: a cast to VARCHAR(3) would cut a text that the column refuses.
        return f"$::{re.sub(r' *[(][^)]*[)]', '', kind.compile(dialect=dialect))}"
    return text.replace(f"%({name})s", "$").replace("%%", "%")
