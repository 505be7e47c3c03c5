"""Multirow: many rows in one statement to PostgreSQL, whose keys come back in the order of the rows.

psycopg takes a long statement apart at each use, which costs more than all the rest; its raw cursor sends the text
as it stands, with the server's own placeholders. The rows are numbered and inserted in this order, so that the keys,
which the server counts up, tell which is whose.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Any

from sqlalchemy import bindparam

from microorm.db.connection import Channel
from microorm.db.engine import Database, WatchedCursor
from microorm.loading import decoded, read_decoders
from microorm.mapping.codegen import Row, binder
from microorm.mapping.schema import Schema
from microorm.statements import Plans

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
        try:
            cursor.execute(sql, values)
            found: list[Row] = cursor.fetchall() if self.made else [()] * len(rows)
        except BaseException as error:  # noqa: BLE001 raised below, as SQLAlchemy's
            raise (failed := channel.translated(error, sql, values)) from failed.__cause__
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
