"""Databases: where the contestants work, each in an empty one of its own that is dropped afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal, Protocol

from sqlalchemy import URL

from benchmarks.table import SQLITE, Row, Run, Table, Wording, run_plainly

Plain = Run
Rooms = Callable[[str], URL]


class Database(Protocol):
    """A kind of database to measure on."""

    name: ClassVar[str]
    clock: ClassVar[Literal["cpu", "wall"]]
    """The clock that ratios are made of."""
    wording: ClassVar[Wording]
    places: ClassVar[tuple[str, ...]]
    """What a workload may ask for, in the order in which it is opened."""
    server: str | None
    """The URL of the server, for `database_of` in another process."""

    def rooms(self, place: str) -> AbstractContextManager[Rooms]:
        """Open a block in which each call makes an empty database for the contestant named; drop them at its end."""
        ...

    def table(self, url: URL, plain: Plain) -> AbstractContextManager[Table]:
        """Reach the table at *url* by the harness's own connection, or by *plain* where there can be none."""
        ...

    def version(self) -> str: ...


class SQLite:
    """A file for each contestant, in WAL mode; writes that commit one by one have a database in memory."""

    name: ClassVar[str] = "sqlite"
    clock: ClassVar[Literal["cpu", "wall"]] = "cpu"
    wording: ClassVar[Wording] = SQLITE
    places: ClassVar[tuple[str, ...]] = ("file", "memory")
    server: str | None = None

    @contextmanager
    def rooms(self, place: str) -> Iterator[Rooms]:
        if place == "memory":
            yield lambda name: URL.create("sqlite")
            return
        with TemporaryDirectory() as folder:
            yield lambda name: URL.create("sqlite", database=str(Path(folder, f"{name}.db")))

    @contextmanager
    def table(self, url: URL, plain: Plain) -> Iterator[Table]:
        path = url.database
        if path is None:
            yield Table(plain, self.wording)
            return

        def run(sql: str, rows: Any = ()) -> list[Row]:
            # Opened anew each time, so that only committed rows are seen and no lock is kept.
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                return run_plainly(connection, sql, rows)

        run("PRAGMA journal_mode=WAL")
        yield Table(run, self.wording)

    def version(self) -> str:
        return f"SQLite {sqlite3.sqlite_version}"


def set_by(url: URL) -> dict[str, str]:
    """Return the settings that *url* carries for a server, for drivers that take them one by one."""
    options = str(url.query.get("options", ""))
    pairs = (option.removeprefix("-c").partition("=") for option in options.split())
    return {key: value for key, _, value in pairs}


def server_of(url: URL) -> dict[str, Any]:
    """Return host, port, user and password of *url*, those that are known, by the names that most drivers use."""
    named = {"host": url.host, "port": url.port, "user": url.username, "password": url.password}
    return {key: value for key, value in named.items() if value is not None}


def libpq(url: URL) -> dict[str, Any]:
    """Return *url* as keyword arguments of a driver that is built on libpq."""
    return {**server_of(url), "dbname": url.database, **url.query}


NAMES = ("sqlite", "postgresql")


def database_of(name: str, url: str | None = None) -> Database:
    """Return the kind of database *name*; *url* is its server, unless the default is meant.

    Raises ImportError where the server's driver is not installed.
    """
    if name == "sqlite":
        return SQLite()
    found: Database = import_module("benchmarks.postgresql").PostgreSQL(url)
    return found
