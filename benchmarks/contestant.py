"""Contestant: what each library offers to the workloads; the list of them, and the receivers they call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module, metadata
from typing import Any, ClassVar, Literal

from sqlalchemy import URL

from benchmarks.table import COLUMNS, Row

SENDS = ("send_1", "send_10")
OURS = "microorm"
BEFORE = "microorm_before"
"""microorm as it is in the other checkout of `--against`."""
ASYNCPG = "asyncpg"
"""The driver of some peers, which is no ORM."""

HOUSE = {
    "driver": ("driver", "Driver"),
    "mapper": ("mapper", "Mapper"),
    "core": ("core", "Core"),
    "core_objects": ("core", "CoreObjects"),
    OURS: ("microorm", "MicroORM"),
}
PEERS = {
    "django": ("django", "Django"),
    "peewee": ("peewee", "Peewee"),
    "piccolo": ("piccolo", "Piccolo"),
    "pony": ("pony", "Pony"),
    "sqlalchemy_orm": ("sqlalchemy_orm", "SQLAlchemyORM"),
    "sqlmodel": ("sqlmodel", "SQLModel"),
    "tortoise": ("tortoise", "Tortoise"),
}
ASKED = {BEFORE: ("microorm", "MicroORMBefore")}
"""Contestants that take part by an option of their own."""
BY_DATABASE = {
    "postgresql": {"driver": ("postgresql", "Psycopg"), "mapper": ("postgresql", "PsycopgMapper")},
}
"""Classes that stand in for others on one database."""


class Contestant:
    """One library, used in the way that its own documentation calls quick.

    A contestant is opened on an empty database of its own: an SQLite file or, for a URL that names none, one in
    memory; or a schema of a server, which the URL's options name. Methods that take many keys or records do the
    work one by one; only `bulk` and `load` may do it at once.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    lacks: ClassVar[Mapping[str, str]] = {}
    """Workloads that the library cannot do, by key, with the reason."""
    lacks_in_memory: ClassVar[str | None] = None
    """Why the library cannot use an SQLite database in memory."""
    takes: ClassVar[Literal["records", "rows"]] = "records"
    """Whether new rows are given as keyword arguments or as plain tuples."""

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

    # `…_alone` commits each row by itself: by default the same calls outside a transaction.

    def insert_alone(self, records: Sequence[Any]) -> list[int]:
        """Insert the records one by one, each committed by itself; return their keys."""
        return self.insert(records)

    def insert_alone_heard(self, records: Sequence[Any]) -> list[int]:
        """Insert the records one by one, each in a transaction of its own.

        The receiver of `listen` is called in that transaction, before its commit.
        """
        return self.insert_alone(records)

    def insert_alone_on_commit(self, records: Sequence[Any]) -> list[int]:
        """Insert the records one by one; the receiver of `listen_on_commit` is called after each commit."""
        return self.insert_alone(records)

    def bulk(self, records: Sequence[Any]) -> None:
        """Insert all records at once in the open transaction."""
        raise NotImplementedError

    def get(self, keys: Sequence[int]) -> list[Any]:
        """Load one row for each key, by the name of the key's column where the library takes names."""
        raise NotImplementedError

    def get_pk(self, keys: Sequence[int]) -> list[Any]:
        """Load one row for each key, by the library's own word for the primary key where it has one."""
        return self.get(keys)

    def load(self) -> Sequence[Any]:
        """Load every row there is."""
        raise NotImplementedError

    def by_level(self, levels: Sequence[int]) -> Sequence[Sequence[Any]]:
        """Load the rows of each level, by the shortest spelling of an equality."""
        raise NotImplementedError

    def by_expression(self, levels: Sequence[int]) -> Sequence[Sequence[Any]]:
        """Load the rows of each level, by a condition built from a column."""
        return self.by_level(levels)

    def change(self, keys: Sequence[int]) -> None:
        """Load each row, add one to its amount and write it back, in the open transaction."""
        raise NotImplementedError

    def change_alone(self, keys: Sequence[int]) -> None:
        """Do the same, each committed by itself."""
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
        """Connect one receiver to saving.

        Returns a function that disconnects it and returns how often it was called.
        """
        raise NotImplementedError

    def listen_on_commit(self) -> Callable[[], int]:
        """Connect one receiver that is to be called after the commit of a save; return as `listen` does."""
        return self.listen()

    def sender(self, receivers: int) -> Callable[[], Any]:
        """Return a function that sends one signal to that many receivers."""
        raise NotImplementedError

    def row(self, instance: Any) -> Row:
        """Return the values of what a read returned, key first."""
        return (instance.id, *(getattr(instance, column) for column in COLUMNS))


def gather(
    names: Iterable[str], database: str = "sqlite", roster: Mapping[str, tuple[str, str]] | None = None
) -> tuple[list[type[Contestant]], dict[str, str]]:
    """Import the contestants; return those that can be imported, and for each other name the reason.

    *roster* says where their classes are; by default it is that of the contestants that are not awaited.
    """
    present, missing = [], {}
    known = roster or HOUSE | PEERS | ASKED | BY_DATABASE.get(database, {})
    for name in names:
        module, kind = known[name]
        try:
            present.append(getattr(import_module(f"benchmarks.contestants.{module}"), kind))
        except ImportError as error:
            missing[name] = str(error)
    return present, missing


def versions(contestants: Iterable[type[Contestant]]) -> dict[str, str]:
    """Return the versions of the distributions that the contestants need."""
    found = {}
    for package in sorted({package for each in contestants for package in each.packages}):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed, imported from the source tree"
    return found


def counting() -> tuple[Callable[..., None], Callable[[], int]]:
    """Return a receiver that counts its calls, and a function that returns the count."""
    calls = 0

    def receiver(*args: Any, **kwargs: Any) -> None:
        nonlocal calls
        calls += 1

    return receiver, lambda: calls


def ignoring(count: int) -> list[Callable[..., None]]:
    """Return that many distinct receivers that do nothing."""
    return [_ignoring() for _ in range(count)]


def _ignoring() -> Callable[..., None]:
    def receiver(sender: Any, **kwargs: Any) -> None:
        """Do nothing."""

    return receiver
