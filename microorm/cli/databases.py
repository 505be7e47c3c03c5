"""Databases: the command that shows which databases can be reached, and their revisions."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click
from sqlalchemy import URL, QueuePool
from sqlalchemy.exc import DBAPIError

from microorm.cli.output import EMPTY, format_error, one_line, print_table
from microorm.cli.program import Invocation, json_option
from microorm.db.databases import Databases
from microorm.db.engines.engine import Database
from microorm.db.engines.urls import masked, refuse_missing_folder

if TYPE_CHECKING:
    from microorm.migrations import Revision

COLUMNS = ("alias", "dialect", "version", "reachable", "revision", "pool", "url")
UNKNOWN = "?"

_TIMEOUT = 3
_DEADLINE = 2 * _TIMEOUT  # for drivers without a timeout, and for name servers that do not answer
_LIBPQ = {"connect_timeout": _TIMEOUT}
_MYSQL = {"connect_timeout": _TIMEOUT, "read_timeout": _TIMEOUT, "write_timeout": _TIMEOUT}
_TIMEOUTS: Mapping[str, Mapping[str, Any]] = {
    "psycopg": _LIBPQ,
    "psycopg2": _LIBPQ,
    "pymysql": _MYSQL,
    "mysqldb": _MYSQL,
}


@dataclass
class DatabaseStatus:
    """The status of one database; *reason* says why it cannot be reached."""

    alias: str
    dialect: str
    url: str
    pool: str = EMPTY
    version: str | None = None
    reason: str | None = None
    revision: str | None = None

    @property
    def reachable(self) -> bool:
        """Whether the database answered."""
        return self.reason is None

    def as_dict(self) -> dict[str, Any]:
        """Return the status as `--json` prints it."""
        return {**asdict(self), "reachable": self.reachable}

    def row(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        cells = {**asdict(self), "reachable": "yes" if self.reachable else "no"}
        return tuple(cells[column] or EMPTY for column in COLUMNS)


@click.command()
@json_option
@click.pass_obj
def databases(invocation: Invocation, as_json: bool) -> None:
    """Show which databases can be reached, and their revisions.

    Connects to all databases at once and gives up after a few seconds. Masks passwords and other secrets in URLs.
    Reads the revisions if the project has migrations and all databases can be reached: "-" is none, "?" unknown. Does
    not create a missing SQLite file.

    \b
    Examples:
      microorm databases
      microorm databases --json

    \b
    Exit status:
      0  all databases can be reached
      1  a database cannot be reached, or the revisions cannot be read
    """
    invocation.configure()
    statuses = check_databases(invocation.registry.databases)
    problems = [f"{status.alias}: {status.reason}" for status in statuses if not status.reachable]
    if (invocation.project.migrations / "env.py").is_file():
        for status in statuses:
            status.revision = UNKNOWN
        if not problems:
            try:
                revisions = invocation.migrations().show()
                for status in statuses:
                    status.revision = ",".join(heads(revisions, status.alias)) or None
            except Exception as error:
                if invocation.traceback:
                    raise
                problems = [format_error(error, invocation.project)]
    if as_json:
        click.echo(json.dumps([status.as_dict() for status in statuses], indent=2))
    else:
        print_table(COLUMNS, [status.row() for status in statuses], {"yes": "green", "no": "red"})
    if problems:
        raise click.ClickException("; ".join(problems))


def heads(revisions: Sequence[Revision], alias: str) -> list[str]:
    """Return the revisions applied to *alias* that no other applied revision follows."""
    applied = [each for each in revisions if each.applied.get(alias)]
    followed = {revision for each in applied for revision in each.down}
    return [each.id for each in applied if each.id not in followed]


def check_databases(databases: Databases) -> list[DatabaseStatus]:
    """Connect to every database, all at once, and return what each answers within a few seconds."""
    known = [databases.database(alias) for alias in databases.aliases]
    late = f"no answer within {_DEADLINE} seconds"
    statuses = [DatabaseStatus(each.alias, each.dialect, masked(each.url), reason=late) for each in known]
    pairs = zip(known, statuses, strict=True)
    threads = [threading.Thread(target=_check_database, args=pair, daemon=True) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_DEADLINE)
    return [replace(status) for status in statuses]  # copies, which a late answer does not change


def _check_database(database: Database, status: DatabaseStatus) -> None:
    try:
        pool = database.engine.pool
        status.pool = type(pool).__name__ + (f" {pool.size()}" if isinstance(pool, QueuePool) else "")
        status.version = _read_version(database)
        status.reason = None
    except Exception as error:  # noqa: BLE001 every error is a reason why the database cannot be reached
        status.reason = _describe_error(error, database.url)


def _read_version(database: Database) -> str:
    """Return the version of the server. Raises the driver's errors, and `ConfigurationError` if the folder of a file is missing."""
    url = database.url
    if database.is_memory:
        return sqlite3.sqlite_version
    if database.is_sqlite:
        path = Path((url.database or "").removeprefix("file:"))
        if not path.exists():
            refuse_missing_folder(database.alias, url)
            return sqlite3.sqlite_version
        url = url.set(database=f"file:{quote(str(path))}", query={"mode": "ro", "uri": "true"})
    connect_args = {**_TIMEOUTS.get(url.get_driver_name(), {}), **database.options.get("connect_args", {})}
    settings = {**database.options, "url": url, "connect_args": connect_args}
    probe = Database(database.alias, settings, lambda alias, connection: None)
    try:
        with probe.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA schema_version" if database.is_sqlite else "SELECT 1")
            version = connection.dialect.server_version_info or ()
    finally:
        probe.close()
    return ".".join(str(part) for part in version if isinstance(part, int))


def _describe_error(error: Exception, url: URL) -> str:
    """Return the driver's message in one line, without the password."""
    if isinstance(error, DBAPIError) and isinstance(error.orig, Exception):
        error = error.orig
    text = one_line(str(error)) or type(error).__name__
    return text.replace(str(url.password), "***") if url.password else text
