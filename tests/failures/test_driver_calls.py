"""Each call of the driver fails in turn, before it is made or after, during each kind of operation.

Whatever comes out, the instance and its row agree, or the outcome is said to be unknown; no connection is held, in a
transaction, in autocommit or read-only; the next save is stored; functions that wait for a commit ran if it happened.
"""

from __future__ import annotations

import gc
import itertools
import logging
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

import microorm
from microorm import CommitOutcomeUnknown, Field, Model, Registry, field
from microorm.db.context import innermost
from microorm.signals import post_save
from tests.failures.faults import ERRORS, Faults, install
from tests.pools import unreturned

PATIENCE = 5.0  # seconds
APPLICATION = f"faults{os.getpid()}"  # other processes run these tests at the same time

KINDS = ["sqlite-file", "postgresql", "mariadb"]
pytestmark = [
    pytest.mark.backends(*KINDS),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class World:
    """Two models, one of which has a receiver, on a driver whose calls can fail."""

    def __init__(self, url: str) -> None:
        patience = {"connect_args": {"timeout": 0.1}} if url.startswith("sqlite") else {}
        self.databases = microorm.Databases({"default": {"url": url, **patience}})
        self.faults = Faults()
        install(self.databases.engine(), self.faults)
        registry = Registry(self.databases)

        class Book(Model, registry=registry):
            title: Field[str] = field(max_length=50, unique=True)
            pages: Field[int] = field(default=0)

        class Note(Model, registry=registry):
            title: Field[str] = field(max_length=50)
            pages: Field[int] = field(default=0)

        registry.create_all()
        self.Book, self.Note = Book, Note
        self.instances: list[Any] = []
        self.ran: list[str] = []
        post_save.connect(self.told, sender=Book)
        self.outside = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect()
        if self.outside.dialect.name == "sqlite":
            self.outside.exec_driver_sql("PRAGMA busy_timeout=200")

    def close(self) -> None:
        """Close all connections, also those that an interrupt has left to the collector."""
        gc.collect()
        post_save.disconnect(self.told, sender=self.Book)
        self.outside.close()
        self.databases.close()
        gc.collect()

    def told(self, instance: Any, **kwargs: Any) -> None:
        """Register a function, and save another instance."""
        self.databases.on_commit(lambda: self.ran.append(instance.title))
        self.Note(title=instance.title).save()

    def save(self, title: str) -> None:
        """Save with a receiver."""
        self.instances.append(self.Book(title=title))
        self.instances[-1].save()

    def silent(self, title: str) -> None:
        """Save without a receiver."""
        self.instances.append(self.Note(title=title))
        self.instances[-1].save()

    def in_block(self, title: str) -> None:
        """Save in a block."""
        with self.databases.atomic():
            self.save(title)

    def in_nested(self, title: str) -> None:
        """Save in a savepoint."""
        with self.databases.atomic(), self.databases.atomic():
            self.save(title)

    def by_connection(self, title: str) -> None:
        """Save in a block whose connection was handed out."""
        with self.databases.atomic():
            with self.databases.connection() as connection:
                connection.execute(text("SELECT 1")).fetchall()
            self.save(title)

    def bulk_create(self, title: str) -> None:
        """Insert several rows."""
        self.instances += [self.Note(title=title), self.Note(title=title)]
        self.Note.objects.bulk_create(self.instances)

    def get_or_create(self, title: str) -> None:
        """Create what is not there."""
        self.instances.append(self.Book.objects.get_or_create(title=title)[0])

    def reconnect(self, title: str) -> None:
        """Save by a new connection."""
        self.databases.engine().dispose()
        self.silent(title)

    def read_only(self, title: str) -> None:
        """Read in a read-only block."""
        with self.databases.atomic(readonly=True):
            self.Note.objects.count()

    def read(self, title: str) -> None:
        """Get an instance, and leave a loop early."""
        self.Note.objects.get(title="kept")
        rows = iter(self.Note.objects.iterate(1))
        next(rows)
        rows.close()  # type: ignore[attr-defined]

    def delete(self, title: str) -> None:
        """Delete an instance, which was saved before."""
        self.instances[-1].delete()

    def before_delete(self, title: str) -> None:
        """Save what is deleted."""
        self.instances.append(self.Note(title=title).save())

    def rows(self, model: Any, title: str) -> int:
        """Count the rows, by a connection of its own."""
        sql = text(f"SELECT count(*) FROM {model.__table__.name} WHERE title = :title")
        if self.outside.dialect.name == "sqlite":  # finds the file locked if a transaction is open
            self.outside.exec_driver_sql("BEGIN IMMEDIATE")
            self.outside.exec_driver_sql("COMMIT")
        return int(self.outside.execute(sql, {"title": title}).scalar_one())

    def state(self) -> list[Any]:
        """Return what is wrong with the connections in the pool."""
        engine, found = self.databases.engine(), []
        taken = [engine.raw_connection() for _ in range(max(1, engine.pool.checkedin()))]  # type: ignore[attr-defined]
        for each in taken:
            driver: Any = each.dbapi_connection
            if self.outside.dialect.name == "sqlite":
                if driver.in_transaction or driver.execute("PRAGMA query_only").fetchone()[0]:
                    found.append("sqlite")
            elif engine.dialect.detect_autocommit_setting(driver):
                found.append("autocommit")
            each.close()
        until = time.monotonic() + PATIENCE
        while self.has_open_transaction():  # a server ends a session a moment after its connection was closed
            gc.collect()  # a connection whose close() was interrupted is left to the collector
            if time.monotonic() > until:
                found.append("transaction")
                break
            time.sleep(0.01)
        return found

    def has_open_transaction(self) -> bool:
        """Return whether a server has an open transaction that has used the tables."""
        match self.outside.dialect.name:
            case "postgresql":
                sql = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{APPLICATION}'"
                return bool(self.outside.exec_driver_sql(f"{sql} AND left(state, 7) = 'idle in'").scalar())
            case "mysql" | "mariadb":  # innodb_trx is a copy, which is not made anew while it is read often
                try:
                    self.outside.exec_driver_sql("LOCK TABLES note WRITE, book WRITE WAIT 0")
                except DBAPIError:
                    return True
                self.outside.exec_driver_sql("UNLOCK TABLES")
        return False


OPERATIONS = [
    "save",
    "silent",
    "in_block",
    "in_nested",
    "by_connection",
    "bulk_create",
    "get_or_create",
    "reconnect",
    "read_only",
    "read",
    "delete",
]


RECEIVED = ["save", "in_block", "in_nested", "by_connection", "get_or_create"]


@pytest.fixture(autouse=True)
def nothing_logged() -> Iterator[None]:
    """Log nothing: pytest keeps the records, and they refer to connections that would not close, and to tracebacks."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def world(url: str) -> Iterator[World]:
    """A world with everything compiled that the operations need."""
    separator = "&" if "?" in url else "?"
    world = World(f"{url}{separator}application_name={APPLICATION}" if url.startswith("postgresql") else url)
    world.Note(title="kept").save()
    yield world
    world.close()


def run(world: World, name: str, title: str) -> str:
    """Run an operation, and return the name of the error that leaves it, without keeping it."""
    try:
        getattr(world, name)(title)
    except CommitOutcomeUnknown:
        return "unknown"
    except BaseException as error:  # noqa: BLE001 KeyboardInterrupt as well
        return type(error).__name__
    finally:
        world.faults.disarm()
    return ""


def wrong(world: World, name: str, title: str, outcome: str) -> list[str]:
    """Return what is wrong after the operation *name*."""
    found = []
    if innermost() is not None:
        found.append("a block is open")
    if unreturned(world.databases):
        gc.collect()
        if unreturned(world.databases):
            found.append("a connection is held")
    model = world.Book if name in RECEIVED else world.Note
    rows = world.rows(model, title)
    if outcome != "unknown":
        if [not each._state.adding for each in world.instances] != [bool(rows)] * len(world.instances):
            found.append(f"{rows} rows, but {[each._state.adding for each in world.instances]}")
        if world.ran != ([title] if rows and model is world.Book else []):
            found.append(f"{rows} rows, but {world.ran} ran")
    found += world.state()
    world.Note(title=f"next {title}").save()
    with world.databases.atomic():
        world.Note(title=f"next {title}").save()
    if world.rows(world.Note, f"next {title}") != 2:
        found.append("the next saves are not stored")
    return found


def cases(world: World, name: str) -> Iterator[tuple[int, Any, bool]]:
    """Yield each call of the operation *name*, each error, and whether it comes after the call."""
    for warm in range(2):
        world.instances.clear()
        if name == "delete":
            world.before_delete(f"{name} warm {warm}")
        world.faults.arm(0)
        assert run(world, name, f"{name} warm {warm}") == ""
    return itertools.product(range(1, len(world.faults.calls) + 1), ERRORS, (False, True))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_the_outcome_of_an_interrupted_commit_is_found_out(world: World, after: bool) -> None:
    """The connection tells whether a transaction is open; if the rows are committed, the functions run."""
    world.faults.arm(0)
    assert run(world, "in_block", "first") == ""
    (at,) = (number for number, call in enumerate(world.faults.calls, 1) if call.endswith(".commit"))
    world.instances.clear()
    world.ran.clear()
    world.faults.arm(at, KeyboardInterrupt, after=after)
    assert run(world, "in_block", "second") == "KeyboardInterrupt"
    assert world.rows(world.Book, "second") == after
    assert wrong(world, "in_block", "second", "KeyboardInterrupt") == []


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("step", [17, pytest.param(3, marks=pytest.mark.slow)])
def test_a_call_that_fails_leaves_rows_instances_and_connections_in_order(
    world: World, backend: str, name: str, step: int
) -> None:
    """Nothing is open, held or half done, and the next operations work.

    Each kind of database has every third case, another third than the others: ten errors come in turn at each call.
    """
    failed = []
    for number, (at, error, after) in enumerate(cases(world, name)):
        if (number + OPERATIONS.index(name) + KINDS.index(backend)) % step:
            continue
        title = f"{name} {number}"
        world.instances.clear()
        world.ran.clear()
        if name == "delete":
            world.before_delete(title)
        world.Note.objects.count()  # there is a connection
        world.faults.arm(at, error, after=after)
        outcome = run(world, name, title)
        calls = list(world.faults.calls)
        if error == "error" and after and calls[at - 1 :][:1] and "execute" in calls[at - 1]:
            continue  # the database answers a statement by an error or does what it says, not both
        try:
            problems = wrong(world, name, title, outcome)
        except DBAPIError as failure:
            problems = [str(failure)]
        fired = at <= len(calls)
        if fired and error in (KeyboardInterrupt, SystemExit) and outcome not in (error.__name__, "unknown"):
            problems.append("the interrupt is lost")
        if problems:
            when = "after" if after else "before"
            failed.append(
                f"{error} {when} call {at}, {calls[at - 1 :][:1]}: {outcome or 'no error'}: {problems}"
            )
    assert "\n".join(failed) == ""
