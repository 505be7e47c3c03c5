"""A process that is killed leaves a database that can be migrated on, and two that migrate at once take turns."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError

from microorm import Databases
from microorm.errors import MigrationError
from microorm.migrations import Migrations
from microorm.migrations.targets import locked, targets
from tests.migrations.worker import after, before, migrations_of

ROOT = Path(__file__).parent.parent.parent
ROWS = [(1, "Dune", 1), (2, "Emma", 2), (3, "Solaris", 2)]


@pytest.fixture
def databases(url: str) -> Any:
    with Databases(url) as databases:
        yield databases


def start(folder: Path, url: str, statement: int = 0) -> "subprocess.Popen[str]":
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "tests.migrations.worker",
        str(folder),
        url,
        str(statement),
    ]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def prepared(databases: Databases, folder: Path) -> Migrations:
    """Two revisions; the database is at the first, and has rows."""
    old = migrations_of(databases, str(folder), before)
    old.make("first")
    old.migrate()
    with databases.connection() as connection:
        connection.execute(text("INSERT INTO author (name) VALUES ('Herbert'), ('Austen')"))
        connection.execute(
            text("INSERT INTO book (title, author_id) VALUES ('Dune', 1), ('Emma', 2), ('Solaris', 2)")
        )
        connection.commit()
    new = migrations_of(databases, str(folder), after)
    new.make("second")
    return new


def books(databases: Databases, migrations: Migrations) -> list[tuple[Any, ...]]:
    table = migrations.registry.metadata.tables["book"]
    with databases.connection() as connection:
        rows = connection.execute(select(table.c.id, table.c.title, table.c.author_id).order_by(table.c.id))
        return [tuple(row) for row in rows]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.backends("sqlite-file", "postgresql")
def test_killed_at_any_statement_the_next_migrate_goes_on(
    databases: Databases, url: str, folder: Path
) -> None:
    migrations = prepared(databases, folder)
    killed = 0
    command = [sys.executable, "-W", "error", "-m", "tests.migrations.worker", str(folder), url, "each"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        for statement in range(1, 200):
            worker.stdin.write(f"{statement}\n")
            status = int(worker.stdout.readline())
            if status == 0:
                break
            assert status == -signal.SIGKILL
            killed += 1
            assert migrations.show()[0].applied["default"]
            assert books(databases, migrations) == ROWS
            migrations.migrate()
            assert migrations.check() == []
            assert books(databases, migrations) == ROWS
            migrations.migrate("0001")
        else:
            pytest.fail("it never came to an end")
    assert killed > 10
    assert migrations.check() == []


@pytest.mark.slow
@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_processes_that_migrate_at_once_take_turns(databases: Databases, url: str, folder: Path) -> None:
    migrations = prepared(databases, folder)
    for _ in range(2):
        workers = [start(folder, url) for _ in range(4)]
        ended = [(worker.communicate(timeout=60)[1], worker.returncode) for worker in workers]
        assert ended == [("", 0)] * 4
        assert migrations.check() == []
        assert books(databases, migrations) == ROWS
        migrations.migrate("0001")


@pytest.mark.backends("postgresql", "mariadb")
def test_a_lock_that_is_not_freed_is_told(databases: Databases, folder: Path) -> None:
    migrations = prepared(databases, folder)
    (target,) = targets(migrations.registry, {})
    with (
        databases.engine().connect() as other,
        locked(target, other),
        databases.engine().connect() as connection,
        pytest.raises(
            MigrationError, match=r"'default' is being migrated by another process, for 0\.1 seconds"
        ),
        locked(target, connection, patience=0.1),
    ):
        pass
    assert migrations.show()[1].applied == {"default": False}
    migrations.migrate()


@pytest.mark.backends("sqlite-file")
def test_a_writer_is_waited_for_on_sqlite(databases: Databases, folder: Path) -> None:
    migrations = prepared(databases, folder)
    (target,) = targets(migrations.registry, {})
    with (
        databases.engine().connect() as other,
        databases.engine().connect() as connection,
        locked(target, connection, patience=0.1),
    ):
        other.exec_driver_sql("INSERT INTO author (name) VALUES ('Lem')")
        with pytest.raises(OperationalError, match="database is locked"):
            connection.begin()
        other.rollback()
    migrations.migrate()
    assert migrations.check() == []
