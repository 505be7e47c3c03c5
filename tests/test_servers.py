"""The tests' own databases: fresh, apart from those of other runs, and never silently missing."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine, inspect, text

from tests.servers import KINDS, MariaDB, PostgreSQL, Server

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
NOBODY = "127.0.0.1:1/test"  # the port of a service that no machine runs


def names(server: Server) -> set[str]:
    return set(server.connection.execute(text(server.names)).scalars())


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
def test_two_fresh_databases_share_nothing(url: str, other_url: str) -> None:
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
        test = f"{Path(__file__).relative_to(ROOT)}::{test_two_fresh_databases_share_nothing.__name__}"
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
            timeout=60,
        )

    return run


def test_a_missing_server_is_skipped_with_a_line_that_names_it(run_without_servers) -> None:
    done = run_without_servers("")
    assert done.returncode == 0
    assert f"SKIPPED 1 tests: no PostgreSQL at postgresql+psycopg://somebody:***@{NOBODY}" in done.stdout
    assert f"SKIPPED 1 tests: no MariaDB at mariadb+pymysql://somebody:***@{NOBODY}" in done.stdout
    assert PostgreSQL.variable in done.stdout
    assert MariaDB.variable in done.stdout
    assert "secret" not in done.stdout + done.stderr


def test_in_ci_a_missing_server_is_an_error(run_without_servers) -> None:
    done = run_without_servers("true")
    assert done.returncode == 1
    assert "2 errors" in done.stdout
