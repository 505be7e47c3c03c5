"""Wire: the SQL that really reaches a driver, whichever way it goes there.

The cursors of the three drivers are replaced by ones that note what they are given, so that what is counted is what
the server got, and listening to it does not change the way.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pymysql.cursors
from sqlalchemy import Engine, event

VERBS = ("INSERT", "UPDATE", "DELETE", "SELECT")
QUIET = ("SELECT 1", "SELECT pg_catalog.version()", "SELECT CAST(")


class Wire:
    """What was sent, in order: `"INSERT INTO …"`, and with `many ` in front where it was one call for many rows."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._inside = False

    def attach(self, engine: Engine) -> None:
        """Note all that *engine* sends from now on; it has opened no connection yet."""
        sqlite_cursor, psycopg_cursor, pymysql_cursor = self._cursors()

        class Connection(sqlite3.Connection):
            def cursor(self, factory: Any = sqlite_cursor) -> Any:
                return super().cursor(factory)

        if engine.dialect.name == "sqlite":
            event.listen(engine, "do_connect", lambda d, r, args, options: options.update(factory=Connection))
        elif engine.dialect.name == "postgresql":
            event.listen(engine, "connect", lambda raw, _: setattr(raw, "cursor_factory", psycopg_cursor))
        else:
            event.listen(engine, "connect", lambda raw, _: setattr(raw, "cursorclass", pymysql_cursor))

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
            return send()
        finally:
            self._inside = False

    def _cursors(self) -> tuple[type, type, type]:
        wire = self

        class Noting:
            def execute(self, query: Any, *args: Any, **options: Any) -> Any:
                return wire._noted(query, lambda: super(Noting, self).execute(query, *args, **options))

            def executemany(self, query: Any, *args: Any, **options: Any) -> Any:
                many = f"many {query}"
                return wire._noted(many, lambda: super(Noting, self).executemany(query, *args, **options))

        class SQLite(Noting, sqlite3.Cursor):
            pass

        class Psycopg(Noting, psycopg.Cursor[Any]):
            pass

        class PyMySQL(Noting, pymysql.cursors.Cursor):
            pass

        return SQLite, Psycopg, PyMySQL


def _about_rows(text: str) -> bool:
    return text.removeprefix("many ").lstrip().startswith(VERBS) and not text.startswith(QUIET)
