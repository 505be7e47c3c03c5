"""Batches: how many rows go to a database at once, and who is told how far it is.

Multirow: many rows in one statement to PostgreSQL, whose keys come back in the order of the rows.

psycopg takes a long statement apart at each use, which costs more than all the rest; its raw cursor sends the text
as it stands, with the server's own placeholders. The rows are numbered and inserted in this order, so that the keys,
which the server counts up, tell which is whose.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Any, TypeVar

from sqlalchemy import Select, bindparam

from microorm.db.connection import Channel
from microorm.db.engine import Database, WatchedCursor
from microorm.mapping.codegen import Row, binder
from microorm.mapping.schema import Schema
from microorm.sql.hydration import decoded, read_decoders
from microorm.sql.statements import Plans

T = TypeVar("T")

MOST_PARAMETERS = {"sqlite": 32_766, "postgresql": 65_535}
"""How many values one statement takes; MariaDB counts bytes instead."""
MOST_ROWS = 10_000
MOST_BYTES = 1_000_000
"""Of one statement to MariaDB: the smallest packet that a server takes by default."""


class Progress:
    """How many rows of a call are done, told to a function of the caller's after each batch."""

    __slots__ = ("_done", "_function", "_total")

    def __init__(self, function: Callable[[int, int], object] | None, total: int) -> None:
        if function is not None and not callable(function):
            raise TypeError(f"progress= wants a function of two numbers, not {function!r}")
        self._function = function
        self._done = 0
        self._total = total

    def add(self, count: int) -> None:
        """Note that *count* rows more are done. Raises what the function raises."""
        self._done += count
        if self._function is not None:
            self._function(self._done, self._total)


def checked_objects(schema: Schema, method: str, given: Iterable[Any]) -> list[Any]:
    """The instances *given* to *method*. `TypeError` for those of other models, `ValueError` for one given twice."""
    objects = list(given)
    if {*map(type, objects)} <= {schema.model} and len({*map(id, objects)}) == len(objects):
        return objects
    places: dict[int, int] = {}
    for place, instance in enumerate(objects):
        if type(instance) is not schema.model:
            raise TypeError(f"{method}() of {schema.name} wants its instances, not {type(instance).__name__}")
        if (first := places.setdefault(id(instance), place)) != place:
            raise ValueError(f"object {place} of {method}() is object {first} again")
    return objects


def checked_size(batch_size: Any) -> int | None:
    """*batch_size*, a positive int or None. `ValueError` for anything else."""
    if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
        raise ValueError(f"batch_size= wants a positive int, not {batch_size!r}")
    size: int | None = batch_size
    return size


def most_rows(channel: Channel, width: int, asked: int | None = None) -> int:
    """How many rows of *width* values one statement takes, and no more than were *asked* for."""
    most = MOST_PARAMETERS.get(channel.database.dialect)
    if channel.database.is_sqlite:
        most = _sqlite_limit(channel) or most
    rows = MOST_ROWS if most is None else min(MOST_ROWS, max(1, most // max(1, width)))
    return rows if asked is None else min(rows, asked)


def latest(channel: Channel, query: Select[Any]) -> Select[Any]:
    """*query*, which sees rows that were committed since the transaction began, and that a write left equal.

    On MariaDB it has to lock them for that.
    """
    return query if channel.database.dialect in MOST_PARAMETERS else query.with_for_update()


def batches(
    channel: Channel, items: Sequence[T], row_of: Callable[[T], Row], asked: int | None
) -> Iterator[Sequence[T]]:
    """Cut *items*, whose rows *row_of* gives, into parts that one statement takes, of *asked* rows at most."""
    if not items:
        return
    size = most_rows(channel, len(row_of(items[0])), asked)
    if channel.database.dialect in MOST_PARAMETERS:
        for start in range(0, len(items), size):
            yield items[start : start + size]
        return
    start = weight = 0
    for place, item in enumerate(items):
        more = _bytes(row_of(item))
        if place > start and (place - start == size or weight + more > MOST_BYTES):
            yield items[start:place]
            start, weight = place, 0
        weight += more
    yield items[start:]


def _bytes(row: Row) -> int:
    """About how long *row* is in the text of a statement."""
    return sum(
        len(value) if value.__class__ is str or value.__class__ is bytes else len(repr(value))
        for value in row
    )


def _sqlite_limit(channel: Channel) -> int | None:
    """What this connection's library takes; None where the driver cannot be asked."""
    ask = getattr(channel.connection.connection.dbapi_connection, "getlimit", None)
    return None if ask is None else int(ask(_VARIABLE_NUMBER))


_VARIABLE_NUMBER = 9  # SQLITE_LIMIT_VARIABLE_NUMBER; not every build of sqlite3 names it


def has_triggers(schema: Schema, channel: Channel) -> bool:
    """Whether the table has triggers on SQLite, by which numbers between may go to other rows.

    Asked by the driver's cursor: a question about the table and not about rows, which nobody counts.
    """
    asked = [
        f"SELECT 1 FROM {master} WHERE type = 'trigger' AND tbl_name = ?"
        for master in ("sqlite_master", "sqlite_temp_master")
    ]
    table, cursor = schema.table.name, channel.connection.connection.cursor()
    try:
        cursor.execute(f"{' UNION ALL '.join(asked)} LIMIT 1", (table, table))
        return cursor.fetchone() is not None
    finally:
        cursor.close()


MOST_VALUES = 1_000
"""How many values go into one statement; those with more are no quicker."""
MOST_TEXTS = 64


class MultiRow:
    """The INSERT of many rows of *names*, which reads back what the database makes of the other fields."""

    __slots__ = ("_bind", "_decoders", "_head", "_key", "_most", "_places", "_tail", "_texts", "made")

    def __init__(self, schema: Schema, plans: Plans, names: tuple[str, ...], database: Database) -> None:
        dialect: Any = database.engine.dialect
        columns = [schema.by_name[name].column for name in names]
        one = plans.insert(names)
        self.made = one.made
        decoders = read_decoders(self.made, dialect)
        self._decoders = decoders if any(decoders) else None
        self._key = self.made.index(schema.generated) if schema.generated in self.made else None
        self._most = max(1, MOST_VALUES // len(names))
        self._texts: dict[int, str] = {}
        self._places = [_place(number, column.type, dialect) for number, column in enumerate(columns)]
        processors = [column.type.dialect_impl(dialect).bind_processor(dialect) for column in columns]
        order = [(place, "", process) for place, process in enumerate(processors)]
        self._bind = binder(order, positional=True, width=len(names))
        quoted = dialect.identifier_preparer
        values = ", ".join(f"v{number}" for number in range(len(names)))
        self._head = (
            f"INSERT INTO {quoted.format_table(schema.table)} ({', '.join(map(quoted.format_column, columns))}) "
            f"SELECT {values} FROM (VALUES "
        )
        self._tail = f") AS given ({values}, place) ORDER BY place"
        self._head = self._head.replace("%%", "%")  # names are quoted for a driver that takes the text apart
        if self.made:
            returned = ", ".join(quoted.format_column(each.column) for each in self.made)
            self._tail += f" RETURNING {returned.replace('%%', '%')}"

    @property
    def sql(self) -> str:
        """The SQL for two rows, to be shown."""
        return self._text(2)

    @property
    def bind(self) -> Any:
        """The function that makes parameters of a row; None where they are the row."""
        return self._bind

    def insert(self, channel: Channel, rows: Sequence[Row]) -> list[Row]:
        """Insert *rows*; returns for each what the database made, in order."""
        cursor = _raw_class(channel)(channel.connection.connection.driver_connection)
        if channel.cursor.__class__ is WatchedCursor:
            cursor = channel.database.observers.watched(cursor)
        made: list[Row] = []
        for start in range(0, len(rows), self._most):
            made += self._insert(channel, cursor, rows[start : start + self._most])
        return made

    def _insert(self, channel: Channel, cursor: Any, rows: Sequence[Row]) -> list[Row]:
        sql = self._text(len(rows))
        try:
            values = tuple(chain.from_iterable(rows if self._bind is None else map(self._bind, rows)))
        except Exception as error:
            raise channel.unbound(error, sql, rows) from error
        if not self.made:
            channel.execute_prepared(sql, values, cursor)
            return [()] * len(rows)
        found = channel.fetch_prepared(sql, values, cursor)
        if self._key is not None:
            found.sort(
                key=itemgetter(self._key)
            )  # as they were made: in which order they come back is not promised
        return found if self._decoders is None else [decoded(row, self._decoders) for row in found]

    def _text(self, count: int) -> str:
        """The SQL for *count* rows."""
        text = self._texts.get(count)
        if text is None:
            if len(self._texts) >= MOST_TEXTS:
                self._texts.clear()
            width = len(self._places)
            rows = []
            for row in range(count):
                values = [
                    place.replace("$", f"${number}")
                    for number, place in enumerate(self._places, start=row * width + 1)
                ]
                rows.append(f"({', '.join(values)}, {row})")
            text = self._texts[count] = f"{self._head}{', '.join(rows)}{self._tail}"
        return text


def multirow_of(schema: Schema, plans: Plans, channel: Channel, names: tuple[str, ...]) -> MultiRow | None:
    """The INSERT of many rows of *names*; None where *channel*, or what the database makes, wants another way."""
    database, made = channel.database, plans.insert(names).made
    if channel.cursor is None or not names or (made and schema.generated not in made):
        return None
    if _raw_class(channel) is None:
        return None
    return plans.kept(("multi-row", names), lambda: MultiRow(schema, plans, names, database))


def _raw_class(channel: Channel) -> Any:
    """The class of the raw cursors of the driver's connection; None where it has none."""
    driver: Any = channel.database.engine.dialect.loaded_dbapi
    if not hasattr(driver, "RawCursor"):
        return None
    connection: Any = channel.connection.connection.driver_connection
    return _raw_class_of(driver, connection.cursor_factory)


@cache
def _raw_class_of(driver: Any, plain: Any) -> Any:
    """What is like *plain*, the class that somebody chose, to trace it, say, and raw."""
    if plain is driver.Cursor:
        return driver.RawCursor
    if not issubclass(plain, driver.Cursor) or issubclass(plain, driver.ClientCursor):
        return None  # who puts values into the text himself wants no placeholders
    return type(f"Raw{plain.__name__}", (plain, driver.RawCursor), {})


def _place(number: int, kind: Any, dialect: Any) -> str:
    """What stands for a value of *kind* in a row, with `$` for the placeholder: VALUES know no column's type."""
    name = f"_v{number}"
    text = str(bindparam(name, type_=kind).compile(dialect=dialect))
    if text == f"%({name})s":
        # Without a length: a cast to VARCHAR(3) would cut off what a column of three characters refuses.
        return f"$::{re.sub(r' *[(][^)]*[)]', '', kind.compile(dialect=dialect))}"
    return text.replace(f"%({name})s", "$").replace("%%", "%")
