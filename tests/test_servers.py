"""The tests' own databases: empty, apart from those of other runs, and never silently missing."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, inspect, text
from sqlalchemy.exc import DBAPIError

from tests.servers import KINDS, MariaDB, PostgreSQL, Server

ROOT = Path(__file__).parent.parent
NOBODY = "127.0.0.1:1/test"  # the port of a service that no machine runs


# What a test may leave behind, apart and together: statements for the database {name}.
CIRCLE = (
    "CREATE TABLE one (id int PRIMARY KEY, two int)",
    "CREATE TABLE two (id int PRIMARY KEY, one int REFERENCES one)",
    "ALTER TABLE one ADD FOREIGN KEY (two) REFERENCES two",
)
LEFT: dict[str, dict[str, tuple[str, ...]]] = {
    "postgresql": {
        "nothing": (),
        "tables in a circle": (*CIRCLE, "INSERT INTO one VALUES (1, NULL)"),
        "a strange name": ('CREATE TABLE "a; %s :b "" c" (id serial)',),
        "a view": ("CREATE VIEW seen AS SELECT 1 AS one",),
        "a materialized view": ("CREATE MATERIALIZED VIEW seen AS SELECT 1 AS one",),
        "a sequence": ("CREATE SEQUENCE numbers",),
        "an enum": ("CREATE TYPE colour AS ENUM ('red')",),
        "a domain": ("CREATE DOMAIN positive AS int CHECK (VALUE > 0)",),
        "a function": ("CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",),
        "a collation": ("CREATE COLLATION plain (locale = 'C')",),
        "a grant": ("GRANT USAGE ON SCHEMA {name} TO public",),
        "a comment": ("COMMENT ON SCHEMA {name} IS 'left'",),
        "default privileges": ("ALTER DEFAULT PRIVILEGES IN SCHEMA {name} GRANT SELECT ON TABLES TO public",),
        "no schema": ("DROP SCHEMA {name}",),
        "one schema in place of another": ("DROP SCHEMA {name}", "CREATE SCHEMA {name}", *CIRCLE),
    },
    "mariadb": {
        "nothing": (),
        "tables in a circle": (
            "CREATE TABLE one (id int PRIMARY KEY, two int)",
            "CREATE TABLE two (id int PRIMARY KEY, one int REFERENCES one (id))",
            "ALTER TABLE one ADD FOREIGN KEY (two) REFERENCES two (id)",
            "INSERT INTO one VALUES (1, NULL)",
        ),
        "a strange name": ("CREATE TABLE `a; %%s :b `` c` (id int AUTO_INCREMENT PRIMARY KEY)",),
        "a trigger": (
            "CREATE TABLE one (id int)",
            "CREATE TRIGGER more BEFORE INSERT ON one FOR EACH ROW SET NEW.id = NEW.id + 1",
        ),
        "a view": ("CREATE VIEW seen AS SELECT 1 AS one",),
        "a sequence": ("CREATE SEQUENCE numbers",),
        "a versioned table": ("CREATE TABLE one (id int) WITH SYSTEM VERSIONING",),
        "a function": ("CREATE FUNCTION one() RETURNS int RETURN 1",),
        "a procedure": ("CREATE PROCEDURE one() SELECT 1",),
        "an event": ("CREATE EVENT later ON SCHEDULE EVERY 1 DAY DO SELECT 1",),
        "a collation": ("ALTER DATABASE {name} CHARACTER SET latin1",),
        "a comment": ("ALTER DATABASE {name} COMMENT 'left'",),
        "no database": ("DROP DATABASE {name}",),
    },
}
# All that can be told of the database {name} by looking at it.
LOOK: dict[str, tuple[str, ...]] = {
    "postgresql": (
        "SELECT nspowner, nspacl, obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = '{name}'",
        "SELECT relname FROM pg_class WHERE relnamespace = '{name}'::regnamespace",
        "SELECT typname FROM pg_type WHERE typnamespace = '{name}'::regnamespace",
        "SELECT proname FROM pg_proc WHERE pronamespace = '{name}'::regnamespace",
        "SELECT collname FROM pg_collation WHERE collnamespace = '{name}'::regnamespace",
        "SELECT defaclacl FROM pg_default_acl WHERE defaclnamespace = '{name}'::regnamespace",
    ),
    "mariadb": (
        "SELECT default_collation_name, schema_comment FROM information_schema.schemata WHERE schema_name = '{name}'",
        "SELECT table_name FROM information_schema.tables WHERE table_schema = '{name}'",
        "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = '{name}'",
        "SELECT routine_name FROM information_schema.routines WHERE routine_schema = '{name}'",
        "SELECT event_name FROM information_schema.events WHERE event_schema = '{name}'",
    ),
}


def names(server: Server) -> set[str]:
    return set(server.connection.execute(text(server.names)).scalars())


@pytest.fixture
def lender(backend: str, fresh_url) -> Iterator[Server]:
    """A connection of its own, that waits for no lock."""
    server = KINDS[backend]()
    server._run(
        "SET lock_timeout = '10ms'" if backend == "postgresql" else "SET SESSION lock_wait_timeout = 0"
    )
    yield server
    server.close()


@pytest.mark.servers_only
def test_an_emptied_database_is_as_a_new_one(backend: str, lender: Server) -> None:
    def look(name: str) -> list[list[tuple[object, ...]]]:
        run = lender.connection.exec_driver_sql
        return [[tuple(row) for row in run(sql.format(name=name))] for sql in LOOK[backend]]

    name, url = lender.borrow()
    beside, _ = lender.borrow()
    new = look(name)
    for left, statements in LEFT[backend].items():
        engine = create_engine(url, poolclass=NullPool)
        with engine.begin() as connection:
            for sql in statements:
                connection.exec_driver_sql(sql.format(name=name))
        lender.give_back([name, beside])
        assert [lender.borrow()[0], lender.borrow()[0]] == [name, beside]
        assert [look(name), look(beside)] == [new, new], left
    lender.give_back([name, beside])


@pytest.mark.servers_only
def test_a_database_where_a_transaction_is_open_is_not_lent_again(lender: Server) -> None:
    name, url = lender.borrow()
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE one (id int)")
    with engine.connect() as leaked:
        leaked.exec_driver_sql("SELECT * FROM one")
        with pytest.raises(DBAPIError, match=r"(?i)lock"):
            lender.give_back([name])
        assert lender.idle == []
    lender.drop(name)


@pytest.mark.servers_only
def test_databases_of_the_living_stay_and_those_of_the_dead_are_swept(backend: str, fresh_url) -> None:
    living, dead = KINDS[backend](), KINDS[backend]()
    kept, _ = living.fresh()
    lost, _ = dead.fresh()
    dead.close()
    sweeper = KINDS[backend]()
    try:
        assert {kept, lost} & names(sweeper) == {kept}
    finally:
        living.drop(kept)
        living.close()
        sweeper.close()


@pytest.mark.servers_only
def test_two_empty_databases_share_nothing(url: str, other_url: str) -> None:
    engines = [create_engine(address, poolclass=NullPool) for address in (url, other_url)]
    with engines[0].begin() as connection:
        connection.exec_driver_sql("CREATE TABLE one (id int)")
    assert [inspect(engine).get_table_names() for engine in engines] == [["one"], []]


@pytest.fixture
def run_without_servers(tmp_path: Path) -> Callable[[str], "subprocess.CompletedProcess[str]"]:
    """Runs one server test where no server answers, with this value of CI."""

    def run(ci: str) -> "subprocess.CompletedProcess[str]":
        nowhere = {
            PostgreSQL.variable: f"postgresql+psycopg://somebody:secret@{NOBODY}",
            MariaDB.variable: f"mariadb+pymysql://somebody:secret@{NOBODY}",
        }
        test = f"{Path(__file__).relative_to(ROOT)}::{test_two_empty_databases_share_nothing.__name__}"
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                f"--basetemp={tmp_path / 't'}",
                test,
            ],
            cwd=ROOT,
            env=os.environ | nowhere | {"CI": ci},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.mark.slow
def test_a_missing_server_is_skipped_with_a_line_that_names_it(run_without_servers) -> None:
    done = run_without_servers("")
    assert done.returncode == 0
    assert f"SKIPPED 1 tests: no PostgreSQL at postgresql+psycopg://somebody:***@{NOBODY}" in done.stdout
    assert f"SKIPPED 1 tests: no MariaDB at mariadb+pymysql://somebody:***@{NOBODY}" in done.stdout
    assert PostgreSQL.variable in done.stdout
    assert MariaDB.variable in done.stdout
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.slow
def test_in_ci_a_missing_server_is_an_error(run_without_servers) -> None:
    done = run_without_servers("true")
    assert done.returncode == 1
    assert "2 errors" in done.stdout
