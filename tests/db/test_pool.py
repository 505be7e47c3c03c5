"""Idle connections: which connections stay checked out between two statements."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import NullPool

from microorm import Databases, Field, Model, Registry, field
from microorm.db.autocommit import AutocommitConnection
from microorm.db.engines import pool


def world(url: Any) -> tuple[Databases, type[Any]]:
    databases = Databases({"default": url})
    registry = Registry(databases)

    class Note(Model, registry=registry):
        text: Field[str] = field(max_length=20, unique=True)

    registry.create_all()
    return databases, Note


def checked_out(databases: Databases) -> int:
    pool: Any = databases.engine().pool
    return int(pool.checkedout())


def test_the_next_lone_statement_uses_the_connection_of_the_last(sqlite_url: str) -> None:
    databases, note = world(sqlite_url)
    with databases:
        note(text="a").save()
        assert checked_out(databases) == 1
        first = databases.database("default").idle_connections.take()
        assert first is not None
        assert databases.database("default").idle_connections.keep(*first)
        assert note.objects.get(text="a").text == "a"
        again = databases.database("default").idle_connections.take()
        assert again is not None
        assert again[0] is first[0]
        again[0].close()


def test_a_block_never_waits_for_a_spare(sqlite_url: str) -> None:
    """A pool of one connection keeps none idle."""
    databases, note = world({"url": sqlite_url, "pool_size": 1, "max_overflow": 0, "pool_timeout": 0.1})
    with databases:
        note(text="a").save()
        assert checked_out(databases) == 0
        with databases.atomic():
            note(text="b").save()
        assert note.objects.count() == 2


def test_a_pool_that_keeps_nothing_keeps_no_spares(tmp_path: Any) -> None:
    databases, note = world({"url": f"sqlite:///{tmp_path / 'a.db'}", "poolclass": NullPool})
    with databases:
        note(text="a").save()
        assert databases.database("default").idle_connections.take() is None


def test_a_statement_that_failed_leaves_no_spare(sqlite_url: str) -> None:
    databases, note = world(sqlite_url)
    with databases:
        note(text="a").save()
        with pytest.raises(IntegrityError):
            note(text="a").save()
        assert checked_out(databases) == 0
        assert [each.text for each in note.objects.all()] == ["a"]


def test_threads_do_not_share_a_spare(sqlite_url: str) -> None:
    """More threads than idle connections, each reading and writing; no row is lost, and few connections stay."""
    databases, note = world(sqlite_url)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(20):
                made = note(text=f"{number}-{turn}").save()
                assert note.objects.get(id=made.id).text == f"{number}-{turn}"
        except BaseException as error:  # noqa: BLE001 the test shows it
            failures.append(error)

    with databases:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert note.objects.count() == 120
        assert checked_out(databases) <= 2


def test_closing_gives_the_spares_back(sqlite_url: str) -> None:
    databases, note = world(sqlite_url)
    note(text="a").save()
    database, pool = databases.database("default"), databases.engine().pool
    databases.close()
    assert database.idle_connections.take() is None
    assert pool.checkedout() == 0  # type: ignore[attr-defined]
    spare = (object(), object(), 1.0)
    assert not database.idle_connections.keep(*spare)  # type: ignore[arg-type]


def test_a_connection_in_use_while_the_engine_is_disposed_of_is_not_kept(sqlite_url: str) -> None:
    """It belongs to the old pool, which may have had another password."""
    databases, note = world(sqlite_url)
    with databases:
        note(text="a").save()
        database, pool = databases.database("default"), databases.engine().pool
        with AutocommitConnection(database, writes=False):
            databases.engine().dispose()
        assert database.idle_connections.take() is None
        assert note.objects.count() == 1
        assert checked_out(databases) == 1
    pool.dispose()


def test_a_child_process_forgets_its_parents_spares(sqlite_url: str) -> None:
    databases, note = world(sqlite_url)
    with databases:
        note(text="a").save()
        spares = databases.database("default").idle_connections
        spare = spares.take()
        assert spare is not None
        assert spares.keep(*spare)
        spares.abandon()
        assert spares.take() is None
        spare[0].close()


@pytest.mark.backends("postgresql", "mariadb")
def test_a_spare_commits_by_itself_and_goes_back_as_it_was(url: str) -> None:
    databases, note = world({"url": url, "pool_size": 2, "max_overflow": 0})
    with databases:
        database = databases.database("default")
        note(text="a").save()
        spare = database.idle_connections.take()
        assert spare is not None
        assert database.commits_by_itself(spare[0])
        assert database.idle_connections.keep(*spare)
        database.idle_connections.clear()
        assert checked_out(databases) == 0
        for _ in range(2):
            with pytest.raises(LookupError), databases.atomic():
                note(text="b").save()
                raise LookupError
        database.idle_connections.clear()  # the last block left one
        with databases.engine().connect() as connection, databases.engine().connect() as other:
            assert not database.commits_by_itself(connection.connection)
            assert not database.commits_by_itself(other.connection)
        assert [each.text for each in note.objects.all()] == ["a"]


def test_a_spare_goes_through_the_pool_when_its_time_is_over(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool pings it, recycles it, and calls its listeners."""
    databases, note = world(url)
    with databases:
        note(text="a").save()
        later = pool.monotonic() + 2 * pool.TRUSTED
        monkeypatch.setattr(pool, "monotonic", lambda: later)
        assert checked_out(databases) == 1
        idle = databases.database("default").idle_connections
        assert (idle.take(), checked_out(databases)) == (None, 1)
        idle.expire()
        assert checked_out(databases) == 0
        note(text="b").save()
        assert checked_out(databases) == 1


def test_a_block_gets_the_connection_of_a_spare_from_a_full_pool(url: str) -> None:
    databases, note = world({"url": url, "pool_size": 2, "max_overflow": 0, "pool_timeout": 0.1})
    found: list[int] = []

    def read() -> None:
        with databases.atomic(readonly=True):
            found.append(note.objects.count())

    with databases:
        note(text="a").save()
        assert checked_out(databases) == 1
        with databases.atomic(readonly=True):
            note.objects.count()
            thread = threading.Thread(target=read)
            thread.start()
            thread.join()
        assert found == [1]


def test_a_block_that_waits_gets_the_connection_that_would_be_a_spare(url: str) -> None:
    databases, note = world({"url": url, "pool_size": 2, "max_overflow": 0, "pool_timeout": 30})
    found: list[int] = []

    def read() -> None:
        with databases.atomic(readonly=True):
            found.append(note.objects.count())

    with databases:
        with databases.atomic(readonly=True):
            note.objects.count()
            with AutocommitConnection(databases.database("default"), writes=False):
                thread = threading.Thread(target=read)
                thread.start()
            thread.join()
        assert found == [0]


def test_a_pool_that_somebody_hears_keeps_no_spares(url: str) -> None:
    """Listeners that set up or clean up a connection are called for each statement."""
    databases, note = world(url)
    with databases:
        taken: list[Any] = []
        event.listen(databases.engine(), "checkout", lambda *given: taken.append(given))
        note(text="a").save()
        note(text="b").save()
        assert len(taken) == 2
        assert checked_out(databases) == 0


@pytest.mark.backends("postgresql", "mariadb")
def test_a_spare_does_not_hold_on_to_many_rows(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    databases, note = world(url)
    monkeypatch.setattr(pool, "MAX_ROWS", 2)
    with databases:
        note.objects.bulk_create([note(text=f"{number}") for number in range(3)])
        for _ in range(2):
            assert len(note.objects.filter(note.text.in_(["0", "1", "2"])).all()) == 3
            assert len(note.objects.all()) == 3
        idle = databases.database("default").idle_connections
        spare = idle.take()
        assert spare is not None
        connection, cursor, deadline = spare
        assert cursor is None
        assert idle.keep(connection, connection.cursor(), deadline)
        assert len(note.objects.all()) == 3


class Failing:
    """A cursor that cannot be closed, and its connection."""

    def __init__(self, error: BaseException, *, is_valid: bool = True) -> None:
        self.error = error
        self.is_valid = is_valid
        self.invalidated: list[BaseException] = []

    def close(self) -> None:
        """Fail."""
        raise self.error

    def invalidate(self, error: BaseException) -> None:
        """Note the error."""
        self.invalidated.append(error)


def test_a_connection_whose_cursor_cannot_be_closed_is_given_up_without_an_error() -> None:
    """The statement was answered: an error now would make it look as if it had failed."""
    error = OSError("no answer")
    connection: Any = Failing(error)
    pool.close_cursor(connection, connection)
    assert connection.invalidated == [error]
    pool.close_cursor(connection, None)
    lost: Any = Failing(error, is_valid=False)
    pool.close_cursor(lost, lost)
    assert lost.invalidated == []


def test_a_connection_that_cannot_be_closed_is_given_up_with_its_error() -> None:
    """SQLAlchemy would keep it checked out."""
    error = OSError("no answer")
    raw: Any = Failing(error)
    wrapping: Any = SimpleNamespace(closed=False, invalidated=False, connection=raw, close=raw.close)
    with pytest.raises(OSError, match="^no answer$"):
        pool.close_connection(wrapping)
    assert raw.invalidated == [error]


def test_an_interrupt_while_a_cursor_is_closed_goes_on_and_costs_the_connection() -> None:
    interrupt = KeyboardInterrupt()
    connection: Any = Failing(interrupt)
    with pytest.raises(KeyboardInterrupt):
        pool.close_cursor(connection, connection)
    assert connection.invalidated == [interrupt]
