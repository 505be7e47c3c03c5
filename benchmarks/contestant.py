"""Contestant: what every way of doing the work offers to the workloads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal

from sqlalchemy import URL

from benchmarks.table import COLUMNS, Row

SENDS = ("send_1", "send_10")


class Contestant:
    """One library, used the way its own documentation says is quick.

    A contestant is opened on an empty database of its own: an SQLite file or, for a URL that names none,
    one in memory; or a schema of a server, which the URL's options name. Methods that take many keys or records do the work one by one; only `bulk` and `load` may do
    it at once.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    lacks: ClassVar[Mapping[str, str]] = {}
    """Workloads that cannot be had, by key, and why."""
    lacks_in_memory: ClassVar[str | None] = None
    """Why an SQLite database in memory cannot be had."""
    takes: ClassVar[Literal["records", "rows"]] = "records"
    """Whether new rows come as keyword arguments or as plain tuples."""

    def open(self, url: URL) -> None:
        raise NotImplementedError

    def check(self) -> None:
        """Raise when something is left out that users get; called once, on an empty table."""

    def close(self) -> None:
        raise NotImplementedError

    def plain(self, sql: str, rows: Sequence[Row]) -> list[Row]:
        """Run SQL on the bare connection, unmapped and unclocked; needed for the memory database only."""
        raise NotImplementedError

    def transaction(self) -> AbstractContextManager[Any]:
        """Open one transaction for all that happens inside."""
        raise NotImplementedError

    def insert(self, records: Sequence[Any]) -> list[int]:
        """Insert the records one by one in the open transaction; return their keys."""
        raise NotImplementedError

    # "alone" is each committed by itself: the same calls outside a transaction, unless sessions are in between.

    def insert_alone(self, records: Sequence[Any]) -> list[int]:
        """Insert the records one by one, each committed by itself; return their keys."""
        return self.insert(records)

    def bulk(self, records: Sequence[Any]) -> None:
        """Insert all records at once in the open transaction."""
        raise NotImplementedError

    def get(self, keys: Sequence[int]) -> list[Any]:
        raise NotImplementedError

    def load(self) -> Sequence[Any]:
        """Load every row there is."""
        raise NotImplementedError

    def by_level(self, levels: Sequence[int]) -> Sequence[Sequence[Any]]:
        """Load the rows of each level, by the shortest spelling there is for an equality."""
        raise NotImplementedError

    def by_expression(self, levels: Sequence[int]) -> Sequence[Sequence[Any]]:
        """Load the rows of each level, by a condition built from a column."""
        return self.by_level(levels)

    def change(self, keys: Sequence[int]) -> None:
        """Load each, add one to its amount and write it back, in the open transaction."""
        raise NotImplementedError

    def change_alone(self, keys: Sequence[int]) -> None:
        """The same, each committed by itself."""
        self.change(keys)

    def fetch(self, keys: Sequence[int]) -> list[Any]:
        """Load what `delete` will be given; not clocked."""
        return self.get(keys)

    def delete(self, instances: Sequence[Any]) -> None:
        """Delete one by one, in the open transaction."""
        raise NotImplementedError

    def delete_alone(self, instances: Sequence[Any]) -> None:
        """Delete one by one, each committed by itself."""
        self.delete(instances)

    def listen(self) -> Callable[[], int]:
        """Connect one receiver to saving; return what disconnects it and tells how often it was called."""
        raise NotImplementedError

    def sender(self, receivers: int) -> Callable[[], Any]:
        """Return a call that sends one signal to that many receivers."""
        raise NotImplementedError

    def row(self, instance: Any) -> Row:
        """The values of what a read returned, key first."""
        return (instance.id, *(getattr(instance, column) for column in COLUMNS))
