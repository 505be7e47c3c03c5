"""Answers: which databases answer, asked all at once and for a few seconds only.

Nothing is made by asking: of an SQLite file that is not there yet, only the folder is looked for.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Pool, QueuePool
from sqlalchemy.exc import DBAPIError

from microorm.db.databases import Databases
from microorm.db.engine import Database, masked

SECONDS = 3
_DEADLINE = 2 * SECONDS  # of a driver that knows no timeout, or a name server that does not answer
_LIBPQ = {"connect_timeout": SECONDS}
_MYSQL = {"connect_timeout": SECONDS, "read_timeout": SECONDS, "write_timeout": SECONDS}
_TIMEOUTS: Mapping[str, Mapping[str, Any]] = {
    "psycopg": _LIBPQ,
    "psycopg2": _LIBPQ,
    "pymysql": _MYSQL,
    "mysqldb": _MYSQL,
}


@dataclass
class Answer:
    """What one database says of itself; *reason* is why it does not answer, *revision* is filled in by others."""

    alias: str
    dialect: str
    url: str
    pool: str = "-"
    version: str | None = None
    reason: str | None = None
    revision: str | None = None

    @property
    def reachable(self) -> bool:
        """Whether it answered."""
        return self.reason is None

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {**asdict(self), "reachable": self.reachable}


def ask(databases: Databases) -> list[Answer]:
    """Ask every database who it is. Returns after some seconds, whatever the databases do."""
    known = [databases.database(alias) for alias in databases.aliases]
    answers = [Answer(each.alias, each.dialect, masked(each.url)) for each in known]
    asking = [
        threading.Thread(target=_ask, args=(database, answer), daemon=True)
        for database, answer in zip(known, answers, strict=True)
    ]
    for answer, thread in zip(answers, asking, strict=True):
        answer.reason = f"no answer within {_DEADLINE} seconds"
        thread.start()
    for thread in asking:
        thread.join(_DEADLINE)
    return [Answer(**vars(answer)) for answer in answers]  # a late one changes nothing any more


def _ask(database: Database, answer: Answer) -> None:
    try:
        answer.pool = _described(database.engine.pool)
        answer.version = _version(database)
        answer.reason = None
    except Exception as error:  # noqa: BLE001 whatever it is, it is why this database does not answer
        answer.reason = _reason(error, database.url)


def _version(database: Database) -> str:
    """The version of the server. Raises what the driver raises, and `OSError`."""
    url = database.url
    if database.is_memory:
        return sqlite3.sqlite_version
    if database.is_sqlite:
        path = Path((url.database or "").removeprefix("file:"))
        if not path.exists():
            path.parent.stat()
            return sqlite3.sqlite_version
        url = url.set(database=f"file:{quote(str(path))}", query={"mode": "ro", "uri": "true"})
    connect_args = {**_TIMEOUTS.get(url.get_driver_name(), {}), **database.options.get("connect_args", {})}
    settings = {**database.options, "url": url, "connect_args": connect_args}
    asked = Database(database.alias, settings, lambda alias, connection: None)
    try:
        with asked.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA schema_version" if database.is_sqlite else "SELECT 1")
            known = connection.dialect.server_version_info or ()
    finally:
        asked.close()
    return ".".join(str(part) for part in known if isinstance(part, int))


def _described(pool: Pool) -> str:
    size = f" {pool.size()}" if isinstance(pool, QueuePool) else ""
    return f"{type(pool).__name__}{size}"


def _reason(error: Exception, url: URL) -> str:
    """What the driver says, in one line and without the password."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig if isinstance(error.orig, Exception) else error
    text = " ".join(str(error).split()) or type(error).__name__
    return text.replace(str(url.password), "***") if url.password else text
