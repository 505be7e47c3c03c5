"""Batches: how many rows go to a database at once, and who is told how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import Select

from microorm.db.connection import Channel
from microorm.mapping.codegen import Row
from microorm.mapping.schema import Schema

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
