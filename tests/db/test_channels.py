"""Channels: a statement has the same result on the driver's cursor and through SQLAlchemy."""

import contextlib
import logging
from typing import Any

import pytest
from sqlalchemy import event, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from microorm import CommitOutcomeUnknown, Field, field
from microorm.db.autocommit import AutocommitConnection, autocommit_connection
from microorm.db.connection import Channel
from tests.pools import unreturned

ways = pytest.mark.parametrize("listened", [False, True], ids=["driver", "listened"])


@pytest.fixture
def Book(Base: Any, registry: Any) -> Any:
    """A model with a table on `default`; titles are unique."""

    class Book(Base):
        title: Field[str] = field(max_length=40, unique=True)

    registry.create_all("default")
    return Book


def kill(databases: Any, raw: Any) -> None:
    """Make the server close the connection *raw*."""
    with databases.engine().connect() as connection:
        if databases.engine().dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_terminate_backend({raw.info.backend_pid}, 5000)"))
        else:
            connection.execute(text(f"KILL {raw.thread_id()}"))


def listen(databases: Any) -> None:
    """Add a listener for the statements of `default`."""
    event.listen(databases.engine(), "before_cursor_execute", lambda *_: None)


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
def test_a_lone_statement_has_the_drivers_cursor_where_nobody_listens(databases: Any, Book: Any) -> None:
    """With a listener it runs on SQLAlchemy's connection."""
    database = databases.database("default")
    with AutocommitConnection(database, writes=False) as channel:
        assert channel.cursor is not None
        assert channel.database is database
    listen(databases)
    with AutocommitConnection(database, writes=True) as channel:
        assert channel.cursor is None
        assert channel.execute(select(text("42"))).scalar_one() == 42
        assert channel.connection.engine is databases.engine()
    assert unreturned(databases) == 0


@ways
def test_a_lone_write_is_committed_and_a_failed_one_leaves_nothing(
    databases: Any, Book: Any, listened: bool
) -> None:
    """The connection returns to its state before."""
    if listened:
        listen(databases)
    book = Book(title="a").save()
    with pytest.raises(IntegrityError) as caught:
        Book(title="a").save()
    assert caught.value.__cause__ is caught.value.orig
    assert not caught.value.connection_invalidated
    with contextlib.suppress(LookupError), databases.atomic():
        book.title = "b"
        book.save()
        raise LookupError
    assert [each.title for each in Book.objects] == ["a"]
    assert unreturned(databases) == 0
    with databases.engine().connect() as connection:
        assert connection.execute(select(Book.title)).scalars().all() == ["a"]


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
def test_an_error_is_the_same_on_both_ways(databases: Any, Book: Any) -> None:
    """Class, text and statement are equal, and the parameters are hidden."""
    Book(title="s3cret").save()
    found = []
    for listened in (False, True):
        if listened:
            listen(databases)
        with pytest.raises(IntegrityError) as caught:
            Book(title="s3cret").save()
        error = caught.value
        found.append(
            (str(error).replace(str(error.orig), ""), error.statement, error.hide_parameters, error.code)
        )
        assert "[SQL parameters hidden due to hide_parameters=True]" in str(error)
    assert found[0] == found[1]


@pytest.mark.backends("sqlite-memory")
def test_an_error_that_is_not_the_drivers_stays_as_it_is(databases: Any) -> None:
    """A mistake in Python is not translated, and the connection stays usable."""
    with AutocommitConnection(databases.database("default"), writes=False) as channel:
        error = ValueError("mine")
        assert channel.translated(error, "SELECT 1", ()) is error
        assert channel.cursor.execute("SELECT 1").fetchall() == [(1,)]
        assert channel.doom(error) is None


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
def test_an_interrupt_costs_the_connection(databases: Any) -> None:
    """Its state is unknown."""
    with AutocommitConnection(databases.database("default"), writes=True) as channel:
        first = channel.raw.driver_connection
        interrupt = KeyboardInterrupt()
        assert channel.translated(interrupt, "SELECT 1", ()) is interrupt
        assert channel.raw.dbapi_connection is None
        channel._writes = False
    with databases.connection() as connection:
        assert connection.connection.driver_connection is not first
        assert connection.execute(text("SELECT 42")).scalar_one() == 42
    assert not databases.database("default").lost


@pytest.mark.backends("postgresql", "mariadb")
@pytest.mark.parametrize("writes", [True, False])
def test_a_connection_that_is_lost_is_dropped(databases: Any, writes: bool) -> None:
    """The outcome of a write in autocommit is unknown."""
    database = databases.database("default")
    outcome = CommitOutcomeUnknown if writes else OperationalError
    with pytest.raises(outcome) as caught, AutocommitConnection(database, writes=writes) as channel:
        raw = channel.raw.driver_connection
        kill(databases, raw)
        channel.execute_prepared("SELECT 1", ())
    if writes:
        assert str(caught.value) == "the connection to 'default' was lost while a statement ran"
        assert isinstance(caught.value.__cause__, DBAPIError)
        assert caught.value.__cause__.connection_invalidated
    assert database.lost
    with databases.connection() as connection:
        assert connection.connection.driver_connection is not raw


@pytest.mark.backends("mariadb")
def test_a_commit_that_is_lost_has_an_unknown_outcome(databases: Any) -> None:
    """On a connection that needs a separate COMMIT."""
    database = databases.database("default")
    databases.engine()  # idle connections are allowed when it is made
    database.idle_connections.close()
    with pytest.raises(CommitOutcomeUnknown) as caught:
        with AutocommitConnection(database, writes=True) as channel:
            channel.raw.driver_connection.close()
    assert str(caught.value) == "the connection to 'default' was lost while COMMIT ran"
    assert isinstance(caught.value.__cause__, DBAPIError)
    assert caught.value.__cause__.statement == "COMMIT"
    assert unreturned(databases) == 0


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
def test_a_lone_connection_commits_each_statement(databases: Any, Book: Any) -> None:
    """Unless it is for reading only."""
    database = databases.database("default")
    for committing in (True, False):
        with contextlib.closing(autocommit_connection(database, committing=committing)) as connection:
            connection.execute(insert(Book.__table__).values(title=str(committing)))
    written = {book.title for book in Book.objects}
    assert "True" in written
    with databases.atomic(), databases.connection() as connection:
        assert connection.in_transaction()
    assert unreturned(databases) == 0


@pytest.mark.backends("postgresql")
def test_a_connection_that_commits_by_itself_is_left_so(databases: Any) -> None:
    """A mode set by the program stays; a mode set by microorm is reset."""
    database = databases.database("default")
    for own in (False, True):
        with contextlib.closing(databases.engine().raw_connection()) as raw:
            raw.driver_connection.rollback()
            raw.driver_connection.autocommit = own
        with AutocommitConnection(database, writes=True) as channel:
            assert channel.raw.driver_connection.autocommit
        with contextlib.closing(databases.engine().raw_connection()) as raw:
            assert raw.driver_connection.autocommit is own
            raw.driver_connection.rollback()
            raw.driver_connection.autocommit = False


@pytest.mark.backends("sqlite-memory")
def test_a_channel_that_cannot_open_leaves_nothing(databases: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection returns to the pool, whichever step fails."""
    engine, database = databases.engine(), databases.database("default")
    with engine.connect() as connection:
        options, cursor = type(connection), type(connection.connection)

    def fail(*_: Any, **__: Any) -> Any:
        raise LookupError("no")

    with monkeypatch.context() as broken:
        broken.setattr(cursor, "cursor", fail)
        with pytest.raises(LookupError):
            AutocommitConnection(database, writes=True).__enter__()
        assert engine.pool.checkedout() == 0
    with monkeypatch.context() as broken:
        broken.setattr(options, "execution_options", fail)
        with pytest.raises(LookupError):
            autocommit_connection(database)
        assert engine.pool.checkedout() == 0
    with AutocommitConnection(database, writes=True) as channel:
        assert isinstance(channel, Channel)


def test_the_log_shows_no_rollback_of_what_was_committed_by_itself(
    databases: Any, Book: Any, caplog: Any
) -> None:
    """Neither after reads and writes, nor after statements of the program; only after a statement that failed."""
    with caplog.at_level(logging.INFO, logger="sqlalchemy.engine"):
        book = Book(title="a").save()
        Book.objects.update(title="b")
        assert [each.title for each in Book.objects] == ["b"]
        with databases.connection() as connection:
            connection.execute(select(text("42")))
        if databases.database("default").is_sqlite:  # elsewhere a stream is read in a transaction
            assert [each.title for each in Book.objects.iterate()] == ["b"]
        book.delete()
        logged = " ".join(record.getMessage() for record in caplog.records)
        assert "INSERT INTO book" in logged
        assert "ROLLBACK" not in logged
        with pytest.raises(IntegrityError):
            Book.objects.bulk_create([Book(title="c"), Book(title="c")])
    assert "ROLLBACK" in " ".join(record.getMessage() for record in caplog.records)
    assert unreturned(databases) == 0


@pytest.mark.backends("sqlite-file")
def test_a_connection_lost_after_a_logged_write_does_not_undo_it(
    databases: Any, Book: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statement has committed by itself; the connection is not used again."""

    def lost(*arguments: Any) -> None:
        raise OperationalError("COMMIT", None, OSError("gone"))

    book = Book(title="a")
    with caplog.at_level(logging.INFO, logger="sqlalchemy.engine"), monkeypatch.context() as patch:
        patch.setattr("sqlalchemy.Connection.commit", lost)
        book.save()
    assert (book._state.adding, [each.title for each in Book.objects]) == (False, ["a"])
    assert unreturned(databases) == 0
