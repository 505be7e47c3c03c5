"""Servers: where the tests' databases are, and an empty one on demand.

`python -m tests.servers` says which servers answer. Runs beside each other never meet: every process takes a random
name and guards it by a lock, which its server frees when the process dies; only what nobody guards is swept away.
"""

import os
import sys
from secrets import token_hex
from typing import Any

from sqlalchemy import URL, NullPool, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

PREFIX = "microorm_test_"
WAIT = 5  # seconds: for an answer, and for a lock that a leaked transaction holds


class Server:
    """One process's connection to a server, to make and drop databases over.

    Raises sqlalchemy's DBAPIError where the server does not answer.
    """

    title: str
    variable: str
    default: str
    patience: str
    guard: str
    free: str
    names: str
    create: str
    remove: str

    def __init__(self) -> None:
        self.url = self.address()
        self.token = token_hex(4)
        self.made = 0
        engine = create_engine(
            self.url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": WAIT}
        )
        self.connection = engine.connect()
        self._run(self.patience)
        self._run(self.guard, token=self.token)
        self._sweep()

    @classmethod
    def address(cls) -> URL:
        """The URL that the environment names, or that of a server on this machine."""
        return make_url(os.environ.get(cls.variable) or cls.default)

    def fresh(self) -> tuple[str, str]:
        """Make an empty database; return its name and its URL."""
        self.made += 1
        name = f"{PREFIX}{self.token}_{self.made}"
        self._run(self.create.format(name=name))
        return name, self.inside(name).render_as_string(hide_password=False)

    def inside(self, name: str) -> URL:
        """The URL of the database *name* on this server."""
        return self.url.set(database=name)

    def drop(self, name: str) -> None:
        """Drop the database *name* and all in it; an open transaction there is an error, not a wait."""
        self._run(self.remove.format(name=name))

    def close(self) -> None:
        """Hang up, which frees the name of this process."""
        self.connection.close()

    def _sweep(self) -> None:
        """Drop what processes left behind that died before they could."""
        left = [name for name in self._run(self.names) if name.startswith(PREFIX)]
        for token in {name.removeprefix(PREFIX).split("_")[0] for name in left} - {self.token}:
            if self._run(self.guard, token=token) == [1]:
                for name in left:
                    if name.startswith(f"{PREFIX}{token}_"):
                        self.drop(name)
                self._run(self.free, token=token)

    def _run(self, sql: str, **values: object) -> list[Any]:
        result = self.connection.execute(text(sql), values)
        return list(result.scalars()) if result.returns_rows else []


class PostgreSQL(Server):
    """A database is a schema here: as empty, and much cheaper to make."""

    title = "PostgreSQL"
    variable = "MICROORM_TEST_POSTGRES"
    default = "postgresql+psycopg://postgres@127.0.0.1:5432/test"
    patience = f"SET lock_timeout = '{WAIT}s'; SET client_min_messages = warning"
    guard = "SELECT pg_try_advisory_lock(hashtext(:token))::int"
    free = "SELECT pg_advisory_unlock(hashtext(:token))::int"
    names = "SELECT nspname FROM pg_namespace"
    create = "CREATE SCHEMA {name}"
    remove = "DROP SCHEMA IF EXISTS {name} CASCADE"

    def inside(self, name: str) -> URL:
        """The URL whose connections see the schema *name* and no other."""
        return self.url.update_query_dict({"options": f"-csearch_path={name}"})


class MariaDB(Server):
    """A database is a database."""

    title = "MariaDB"
    variable = "MICROORM_TEST_MARIADB"
    default = "mariadb+pymysql://root@127.0.0.1:3306/test"
    patience = f"SET SESSION lock_wait_timeout = {WAIT}, SESSION sql_notes = 0"
    guard = f"SELECT GET_LOCK(CONCAT('{PREFIX}', :token), 0)"
    free = f"SELECT RELEASE_LOCK(CONCAT('{PREFIX}', :token))"
    names = "SELECT schema_name FROM information_schema.schemata"
    create = "CREATE DATABASE {name}"
    remove = "DROP DATABASE IF EXISTS {name}"


KINDS: dict[str, type[Server]] = {"postgresql": PostgreSQL, "mariadb": MariaDB}


def open_server(kind: str) -> Server | str:
    """Connect to the server of that *kind*; where it does not answer, return the line that says so."""
    server = KINDS[kind]
    try:
        return server()
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0]
        return f"no {server.title} at {server.address()!r} ({server.variable} names another): {reason}"


def main() -> int:
    """Print which servers answer; 1 if one does not."""
    missing = 0
    for kind in KINDS:
        server = open_server(kind)
        if isinstance(server, Server):
            version = ".".join(map(str, server.connection.dialect.server_version_info or ()))
            print(f"{server.title} {version} at {server.url!r}")
            server.close()
        else:
            print(server)
            missing += 1
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
