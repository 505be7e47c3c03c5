"""Servers: where the tests' databases are, and an empty one on demand.

`python -m tests.servers` says which servers answer. Runs beside each other never meet: every process takes a random
name and guards it by a lock, which its server frees when the process dies; only what nobody guards is swept away.
Making a database is slow, so that a test borrows one: it is emptied afterwards, and lent to the next.
"""

import os
import sys
from collections.abc import Iterable
from secrets import token_hex
from typing import Any

from sqlalchemy import URL, NullPool, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

PREFIX = "microorm_test_"
WAIT = 20  # seconds: for an answer, and for a lock that a leaked transaction holds


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
        self.idle: list[str] = []
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

    def borrow(self) -> tuple[str, str]:
        """Return the name and the URL of an empty database: one that was given back, or else a new one."""
        if not self.idle:
            return self.fresh()
        name = self.idle.pop()
        return name, self.inside(name).render_as_string(hide_password=False)

    def give_back(self, names: Iterable[str]) -> None:
        """Empty these databases, to be borrowed again; an open transaction there is an error, not a wait."""
        names = list(names)
        if names:
            self._empty(names)
            self.idle += reversed(names)

    def inside(self, name: str) -> URL:
        """The URL of the database *name* on this server."""
        return self.url.set(database=name)

    def drop(self, name: str) -> None:
        """Drop the database *name* and all in it; an open transaction there is an error, not a wait."""
        self._run(self.remove.format(name=name))

    def close(self) -> None:
        """Drop the idle databases and hang up, which frees the name of this process."""
        for name in self.idle:
            self.drop(name)
        self.connection.close()

    def _empty(self, names: list[str]) -> None:
        raise NotImplementedError

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
        """The URL whose connections see the schema *name* and no other, and are named after it."""
        # What a test commits need not survive the machine.
        options = f"-csearch_path={name} -capplication_name={name} -csynchronous_commit=off"
        return self.url.update_query_dict({"options": options})

    def _empty(self, names: list[str]) -> None:
        """Make those schemas anew that are gone, hold anything, or were granted or commented on."""
        clean = self._run(
            "SELECT nspname FROM pg_namespace AS n WHERE nspname = ANY(:names)"
            " AND nspacl IS NULL AND obj_description(oid, 'pg_namespace') IS NULL AND NOT EXISTS"
            " (SELECT FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass AND refobjid = n.oid)",
            names=names,
        )
        if used := [name for name in names if name not in clean]:
            again = "; ".join(self.create.format(name=name) for name in used)
            self._run(f"{self.remove.format(name=', '.join(used))}; {again}")


class MariaDB(Server):
    """A database is a database.

    Connections are made without TLS unless the URL asks for it: PyMySQL reads all of the machine's certificates for each.
    """

    title = "MariaDB"
    variable = "MICROORM_TEST_MARIADB"
    default = "mariadb+pymysql://root@127.0.0.1:3306/test"
    patience = (
        f"SET SESSION lock_wait_timeout = {WAIT}, SESSION sql_notes = 0, SESSION foreign_key_checks = 0"
    )
    guard = f"SELECT GET_LOCK(CONCAT('{PREFIX}', :token), 0)"
    free = f"SELECT RELEASE_LOCK(CONCAT('{PREFIX}', :token))"
    names = "SELECT schema_name FROM information_schema.schemata"
    create = "CREATE DATABASE {name}"
    remove = "DROP DATABASE IF EXISTS {name}"
    contents = """
        SELECT '{name}', table_type, table_name FROM information_schema.tables WHERE table_schema = '{name}'
        UNION ALL SELECT '{name}', 'ROUTINE', '' FROM information_schema.routines WHERE routine_schema = '{name}'
        UNION ALL SELECT '{name}', 'EVENT', '' FROM information_schema.events WHERE event_schema = '{name}'
        UNION ALL SELECT '{name}', 'GRANT', '' FROM information_schema.schema_privileges WHERE table_schema = '{name}'
        UNION ALL SELECT '{name}', 'UNCHANGED', '' FROM information_schema.schemata WHERE schema_name = '{name}'
        AND default_collation_name = @@GLOBAL.collation_server AND schema_comment = ''"""

    @classmethod
    def address(cls) -> URL:
        """The URL that the environment names, or that of a server on this machine."""
        url = super().address()
        if any(name.startswith("ssl") for name in url.query):
            return url
        return url.update_query_dict({"ssl_disabled": "true"})

    def _empty(self, names: list[str]) -> None:
        """Drop the tables, all by one statement; make those databases anew that are gone, changed, or hold anything else."""
        contents = " UNION ALL ".join(self.contents.format(name=name) for name in names)
        found = [tuple(row) for row in self.connection.execute(text(contents))]
        plain = {name for name, kind, _ in found if kind == "UNCHANGED"}
        plain -= {name for name, kind, _ in found if kind not in {"UNCHANGED", "BASE TABLE"}}
        for name in set(names) - plain:
            self.drop(name)
            self._run(self.create.format(name=name))
        quote = self.connection.dialect.identifier_preparer.quote_identifier
        if tables := [
            f"{name}.{quote(table)}" for name, kind, table in found if kind == "BASE TABLE" and name in plain
        ]:
            self.connection.exec_driver_sql(f"DROP TABLE {', '.join(tables)}")


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
