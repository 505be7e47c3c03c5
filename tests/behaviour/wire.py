"""Wire: the SQL that really reaches a driver, whichever way it goes there.

The cursors of the drivers are replaced by ones that note what they are given, so that what is counted is what
the server got, and listening to it does not change the way.
"""

import inspect
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import asyncmy.cursors
import psycopg
import pymysql.cursors
import pytest
from sqlalchemy import Engine

ONE_WAY = pytest.mark.parametrize(
    "way", ["driver"]
)  # for a test of the SQL and the database, however it gets there
VERBS = ("INSERT", "UPDATE", "DELETE", "SELECT")
QUIET = (
    "SELECT 1",
    "SELECT CAST(",
    "SELECT VERSION()",
    "SELECT DATABASE()",
    "SELECT @@",
    "SELECT pg_catalog.version()",
)


class Wire:
    """What was sent, in order: `"INSERT INTO …"`, and with `many ` in front where it was one call for many rows."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._inside = False

    def attach(self, engine: Engine) -> None:
        """Note all that *engine* sends from now on; it has opened no connection yet."""
        noting, dialect = self._noting, engine.dialect
        sqlite_cursor = noting(sqlite3.Cursor)

        class Connection(sqlite3.Connection):
            def cursor(self, factory: Any = sqlite_cursor) -> Any:
                return super().cursor(factory)

            def execute(self, *args: Any) -> Any:
                return self.cursor().execute(*args)

        # aiosqlite makes a connection of sqlite3, in a thread of its own; psycopg and asyncmy have cursors for asyncio.
        option, factory = {
            "pysqlite": ("factory", Connection),
            "aiosqlite": ("factory", Connection),
            "psycopg": (
                "cursor_factory",
                noting(psycopg.AsyncCursor if dialect.is_async else psycopg.Cursor),
            ),
            "pymysql": ("cursorclass", noting(pymysql.cursors.Cursor)),
            "asyncmy": ("cursor_cls", noting(asyncmy.cursors.Cursor)),
        }[dialect.driver]
        vars(dialect)["connect"] = partial(dialect.connect, **{option: factory})

    @contextmanager
    def record(self) -> Iterator[list[str]]:
        """Gives, once the block is over, the statements about rows that were sent in it."""
        start, sent = len(self.texts), []
        try:
            yield sent
        finally:
            sent += [" ".join(text.split()) for text in self.texts[start:] if _about_rows(text)]

    @contextmanager
    def everything(self) -> Iterator[list[str]]:
        """Gives, once the block is over, all that was sent in it but settings: BEGIN and SAVEPOINT where they are SQL."""
        start, sent = len(self.texts), []
        try:
            yield sent
        finally:
            sent += [text for text in self.texts[start:] if not text.startswith("PRAGMA")]

    def _noted(self, text: Any, send: Any) -> Any:
        if self._inside:
            return send()
        self._inside = True
        self.texts.append(text)
        try:
            sent = send()
            if inspect.isawaitable(sent):
                return self._awaited(sent)
        except BaseException:
            self._inside = False
            raise
        self._inside = False
        return sent

    async def _awaited(self, sent: Any) -> Any:
        try:
            return await sent
        finally:
            self._inside = False

    def _noting(self, cursor: type) -> type:
        wire = self

        class Noting(cursor):  # type: ignore[misc,valid-type]
            def execute(self, query: Any, *args: Any, **options: Any) -> Any:
                return wire._noted(query, lambda: super(Noting, self).execute(query, *args, **options))

            def executemany(self, query: Any, *args: Any, **options: Any) -> Any:
                many = f"many {query}"
                return wire._noted(many, lambda: super(Noting, self).executemany(query, *args, **options))

        return Noting


def parameters(text: str) -> int:
    """How many parameters the statement *text* has, in whichever style the driver takes them."""
    return len(re.findall(r"\?|%s|%\(|\$\d", text))


def _about_rows(text: str) -> bool:
    return text.removeprefix("many ").lstrip().startswith(VERBS) and not text.startswith(QUIET)
