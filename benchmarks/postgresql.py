"""PostgreSQL: a schema for each contestant, made and dropped by the harness's own connection."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from secrets import token_hex
from typing import Any, ClassVar, Literal

import psycopg
from sqlalchemy import URL, make_url

from benchmarks.databases import Plain, Rooms, libpq
from benchmarks.table import POSTGRESQL, Table, Wording, run_plainly

VARIABLE = "MICROORM_TEST_POSTGRES"
SERVER = "postgresql+psycopg://postgres@127.0.0.1:5432/test"
PREFIX = "microorm_bench_"
PATIENCE = 10  # seconds to wait for a lock that a contestant forgot to release


class PostgreSQL:
    """A schema for each contestant, on a server; commits do not wait for the disk.

    Raises ConnectionError, with the reason, when the server is needed and does not answer.
    """

    name: ClassVar[str] = "postgresql"
    clock: ClassVar[Literal["cpu", "wall"]] = "wall"
    wording: ClassVar[Wording] = POSTGRESQL
    places: ClassVar[tuple[str, ...]] = ("server",)

    def __init__(self, url: str | None = None) -> None:
        self.url = make_url(url or os.environ.get(VARIABLE) or SERVER)
        self.server: str | None = self.url.render_as_string(hide_password=False)

    @contextmanager
    def rooms(self, place: str) -> Iterator[Rooms]:
        token = token_hex(4)
        with self._connected(self.url) as connection, ExitStack() as stack:
            # Before the new name is guarded, so that every guard met belongs to another run.
            _sweep(connection)
            _guarded(connection, token)

            def room(name: str) -> URL:
                schema = f"{PREFIX}{token}_{name}"
                connection.execute(f"CREATE SCHEMA {schema}".encode())
                stack.callback(connection.execute, f"DROP SCHEMA {schema} CASCADE".encode())
                options = " ".join(f"-c{key}={value}" for key, value in settings(schema).items())
                return self.url.update_query_dict({"options": options})

            yield room

    @contextmanager
    def table(self, url: URL, plain: Plain) -> Iterator[Table]:
        with self._connected(url) as connection:
            yield Table(lambda sql, rows: run_plainly(connection, sql, rows), self.wording, "ANALYZE item")

    def version(self) -> str:
        with self._connected(self.url) as connection:
            major, minor = divmod(connection.info.server_version, 10_000)
        return f"PostgreSQL {major}.{minor}"

    @contextmanager
    def _connected(self, url: URL) -> Iterator[psycopg.Connection[Any]]:
        try:
            opened = psycopg.connect(**libpq(url), autocommit=True, connect_timeout=PATIENCE)
        except psycopg.OperationalError as error:
            reason = str(error).strip().splitlines()[0]
            raise ConnectionError(
                f"no PostgreSQL at {self.url!r} (--url or {VARIABLE} names another): {reason}"
            ) from None
        with closing(opened) as connection:
            connection.execute(f"SET lock_timeout = '{PATIENCE}s'")
            yield connection


def _guarded(connection: psycopg.Connection[Any], token: str) -> bool:
    """Try to take the lock that marks schemas named by *token* as in use; return whether it was free.

    The server releases it when the run's connection ends.
    """
    found = connection.execute("SELECT pg_try_advisory_lock(hashtext(%s))", (PREFIX + token,)).fetchone()
    return found == (True,)


def _sweep(connection: psycopg.Connection[Any]) -> None:
    """Drop the schemas of runs that were killed."""
    found = connection.execute("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %s)", (PREFIX,))
    for (schema,) in found.fetchall():
        token = schema.removeprefix(PREFIX).partition("_")[0]
        if not _alive(connection, token):
            connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE".encode())


def _alive(connection: psycopg.Connection[Any], token: str) -> bool:
    if not _guarded(connection, token):
        return True
    connection.execute("SELECT pg_advisory_unlock(hashtext(%s))", (PREFIX + token,))
    return False


def settings(schema: str) -> dict[str, str]:
    """Return the settings of every contestant's connection to the server."""
    return {"search_path": schema, "synchronous_commit": "off"}
