"""Engines: the defaults for production reach the connections, and each of them can be overridden."""

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, NullPool, QueuePool, create_engine, event, text
from sqlalchemy.exc import IntegrityError, OperationalError

from microorm import ConfigurationError, Databases, Field, Model, Registry
from microorm.db.engines.events import _known
from microorm.signals import connection_created
from microorm.testing import count_statements

file_only = pytest.mark.backends("sqlite-file")
memory_only = pytest.mark.backends("sqlite-memory")


def ask(databases: Any, question: str, alias: str = "default") -> Any:
    """Return the single value of a query."""
    with databases.connection(alias) as connection:
        return connection.execute(text(question)).scalar_one()


@pytest.mark.backends("sqlite-file", "sqlite-memory")
def test_sqlite_is_set_up_for_work(databases: Any, backend: str) -> None:
    """WAL for files, a timeout of five seconds, foreign keys checked, and no transaction for a single read."""
    assert ask(databases, "PRAGMA journal_mode") == ("wal" if backend == "sqlite-file" else "memory")
    assert ask(databases, "PRAGMA busy_timeout") == 5000
    assert ask(databases, "PRAGMA foreign_keys") == 1
    assert databases.engine().hide_parameters
    with databases.connection() as connection:
        connection.execute(text("SELECT 1"))
        assert not connection.connection.driver_connection.in_transaction


@pytest.mark.servers_only
def test_servers_are_set_up_for_work(databases: Any, backend: str) -> None:
    """Ping, LIFO, a short timeout of the pool, UTC; no secrets in errors."""
    engine, pool = databases.engine(), databases.engine().pool
    assert (pool._pre_ping, pool._pool.use_lifo, pool._timeout) == (True, True, 5)
    assert engine.hide_parameters
    asked = {"postgresql": "SHOW timezone", "mariadb": "SELECT @@session.time_zone"}[backend]
    assert ask(databases, asked) == {"postgresql": "UTC", "mariadb": "+00:00"}[backend]


@pytest.mark.servers_only
def test_a_statement_that_takes_too_long_is_an_error(url: str, backend: str) -> None:
    """`statement_timeout` is in seconds, and the connection is usable afterwards."""
    slow = {
        "postgresql": "SELECT pg_sleep(9)",
        "mariadb": "SELECT count(*) FROM seq_1_to_100000 a, seq_1_to_100000 b WHERE a.seq + b.seq > 1e9",
    }
    with Databases({"default": {"url": url, "statement_timeout": 0.05}}) as databases:
        with pytest.raises(OperationalError):
            ask(databases, slow[backend])
        assert ask(databases, "SELECT 1") == 1


@memory_only
def test_a_timeout_of_statements_that_cannot_be_set_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="sqlite has no timeout of statements"):
        Databases({"default": {"url": url, "statement_timeout": 5}})
    for wrong in (0, -1, "5", True, float("nan")):
        with pytest.raises(ConfigurationError, match="must be a number of seconds above 0"):
            Databases({"default": {"url": "postgresql+psycopg://localhost/x", "statement_timeout": wrong}})


@file_only
def test_each_default_of_sqlite_can_be_overridden(url: str) -> None:
    """In the mapping; other defaults stay."""
    settings = {
        "url": url,
        "connect_args": {"timeout": 0.25},
        "hide_parameters": False,
        "pool_size": 1,
        "max_overflow": 0,
        "pool_timeout": 0.01,
    }
    with Databases({"default": settings}) as databases:
        assert ask(databases, "PRAGMA busy_timeout") == 250
        assert ask(databases, "PRAGMA foreign_keys") == 1
        assert not databases.engine().hide_parameters
        assert databases.engine().pool.size() == 1
        assert set(settings) == {"url", *list(settings)[1:]}  # the caller's mapping is not changed

        def relax(connection: Any, **kwargs: Any) -> None:
            connection.execute("PRAGMA foreign_keys=OFF")

        connection_created.connect(relax, sender=databases)
        databases.engine().dispose()
        assert ask(databases, "PRAGMA foreign_keys") == 0
        assert connection_created.disconnect(relax, sender=databases)


@pytest.mark.servers_only
def test_each_default_of_a_server_can_be_overridden(url: str) -> None:
    """In the mapping."""
    settings = {
        "url": url,
        "pool_pre_ping": False,
        "pool_use_lifo": False,
        "pool_timeout": 1,
        "hide_parameters": False,
        "pool_size": 1,
    }
    with Databases({"default": settings}) as databases:
        pool: Any = databases.engine().pool
        assert (pool._pre_ping, pool._pool.use_lifo, pool._timeout, pool.size()) == (False, False, 1, 1)
        assert not databases.engine().hide_parameters
        assert ask(databases, "SELECT 42") == 42


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_connection_created_is_sent_once_for_each_connection(url: str, backend: str) -> None:
    """With alias and driver's connection, after it is set up; the sender is the Databases. A reconnect sends it again."""
    told: list[dict[str, Any]] = []

    def tell(**kwargs: Any) -> None:
        told.append(kwargs)
        if backend == "sqlite-file":
            assert kwargs["connection"].execute("PRAGMA foreign_keys").fetchone() == (1,)

    with Databases({"shop": url}) as databases, Databases({"shop": url}) as others:
        connection_created.connect(tell, sender=databases)
        assert ask(others, "SELECT 1", "shop") == 1
        assert told == []
        for _ in range(2):
            assert ask(databases, "SELECT 1", "shop") == 1
        with databases.connection("shop") as connection:
            raw = connection.connection.dbapi_connection
        assert told == [
            {"signal": connection_created, "sender": databases, "alias": "shop", "connection": raw}
        ]
        with databases.atomic("shop"), databases.engine("shop").connect():
            assert len(told) == 2
        databases.engine("shop").dispose()
        assert ask(databases, "SELECT 1", "shop") == 1
        assert len(told) == 3
        assert connection_created.disconnect(tell, sender=databases)


@pytest.mark.parametrize(
    "ask_again",
    [
        lambda databases: ask(databases, "SELECT 1"),
        lambda databases: databases.atomic().__enter__(),
        lambda databases: databases.engine().connect(),
    ],
)
def test_a_receiver_that_opens_another_connection_is_refused(url: str, ask_again: Any) -> None:
    """It would wait for a lock that its own thread holds; other threads and aliases are not affected."""
    refused: list[Exception] = []
    answers: list[Any] = []

    def look(alias: str, **kwargs: Any) -> None:
        if alias == "default":
            with pytest.raises(
                ConfigurationError, match="cannot open another connection to 'default'"
            ) as caught:
                ask_again(databases)
            refused.append(caught.value)
            answers.append(ask(databases, "SELECT 2", "other"))

    with Databases({"default": url, "other": "sqlite://"}) as databases:
        connection_created.connect(look, sender=databases)
        try:
            assert ask(databases, "SELECT 1") == 1
        finally:
            assert connection_created.disconnect(look, sender=databases)
        assert (len(refused), answers) == (1, [2])
        assert ask(databases, "SELECT 3") == 3


@memory_only
def test_an_error_of_a_receiver_is_the_connects(databases: Any) -> None:
    """The connection is not pooled, and the next attempt connects again."""

    def fail(**kwargs: Any) -> None:
        raise LookupError("no")

    connection_created.connect(fail, sender=databases)
    for _ in range(2):
        with pytest.raises(LookupError):
            ask(databases, "SELECT 1")
    assert connection_created.disconnect(fail, sender=databases)
    assert databases.engine().pool.checkedout() == 0
    assert ask(databases, "SELECT 1") == 1


@file_only
def test_a_file_that_somebody_holds_is_opened_all_the_same(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """WAL is stored in the file, and a later connection sets it."""
    caplog.set_level(logging.DEBUG, logger="microorm.engines")
    path = url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("CREATE TABLE t (n INTEGER)")
        holder.execute("BEGIN IMMEDIATE")
        with Databases({"default": {"url": url, "connect_args": {"timeout": 0}}}) as databases:
            assert ask(databases, "SELECT count(*) FROM t") == 0
            assert [each.getMessage() for each in caplog.records] == [
                "WAL not set on 'default': database is locked"
            ]
            holder.execute("COMMIT")
            databases.engine().dispose()
            assert ask(databases, "PRAGMA journal_mode") == "wal"


@file_only
def test_a_file_can_be_opened_for_reading_only(url: str) -> None:
    """Opening it writes nothing."""
    path = url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE t (n INTEGER)")
    with Databases(f"sqlite:///file:{path}?mode=ro&uri=true") as databases:
        assert ask(databases, "SELECT count(*) FROM t") == 0
        assert ask(databases, "PRAGMA journal_mode") == "delete"
        assert ask(databases, "PRAGMA foreign_keys") == 1
        with pytest.raises(OperationalError, match="readonly"), databases.connection() as connection:
            connection.execute(text("INSERT INTO t VALUES (1)"))


def make_book(databases: Databases) -> Any:
    """Return a model with its table in `default`; titles are unique."""
    registry = Registry(databases)

    class Book(Model, registry=registry):
        title: Field[str]

    registry.create_all()
    return Book


@pytest.fixture
def begins_by_itself(tmp_path: Path) -> Iterator[Engine]:
    """Return an SQLite engine that sends BEGIN itself, as in SQLAlchemy's documentation."""
    engine = create_engine(f"sqlite:///{tmp_path / 'given.db'}")

    @event.listens_for(engine, "connect")
    def connect(raw: Any, record: Any) -> None:
        raw.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    yield engine
    engine.dispose()


@pytest.mark.parametrize("kind", ["plain", "begins by itself", "server"])
@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_an_engine_that_was_given_works_and_stays_as_it_is(
    url: str, backend: str, kind: str, begins_by_itself: Engine
) -> None:
    """Blocks, savepoints and single statements work. After `close()` it is open, and microorm's listeners do nothing."""
    if (kind == "server") != (backend != "sqlite-file"):
        kind = "plain"
    engine = (
        begins_by_itself if kind == "begins by itself" else create_engine(url, pool_size=1, max_overflow=0)
    )
    with Databases(engine) as databases, Databases(engine) as twice:
        assert databases.engine() is engine
        Book = make_book(databases)
        twice.engine()
        Book(title="a").save()
        with databases.atomic():
            Book(title="b").save()
            with contextlib.suppress(LookupError), databases.atomic():
                Book(title="lost").save()
                raise LookupError
        with contextlib.suppress(LookupError), databases.atomic():
            Book(title="lost").save()
            raise LookupError
        with databases.atomic(readonly=True):
            assert Book.objects.count() == 2
        assert Book.objects.filter(title="b").update(title="c") == 1
        assert sorted(book.title for book in Book.objects) == ["a", "c"]
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM book")).scalar_one() == 2
        connection.execute(text("DELETE FROM book"))
        connection.rollback()
        assert connection.execute(text("SELECT count(*) FROM book")).scalar_one() == 2
    assert engine_listeners(engine) == {}
    engine.dispose()


def engine_listeners(engine: Engine) -> dict[str, Any]:
    """Return what microorm does at the events of *engine*."""
    found = _known(engine)
    return {} if found is None else {name: each for name, each in found._listeners.items() if each}


@memory_only
def test_an_engine_that_is_given_again_has_no_more_listeners_than_before() -> None:
    """They are added once, and do not count as those of the program."""
    engine = create_engine("sqlite://")
    counts = []
    for _ in range(3):
        with Databases(engine) as databases, databases.connection():
            database = databases.database("default")
            with count_statements("default", databases):
                pass
            assert not database.statements_listened()
            dispatch, dialect = engine.dispatch, engine.dialect.dispatch
            lists = (dispatch.before_cursor_execute, dispatch.begin, dialect.handle_error, dialect.do_connect)
            counts.append([len(each) for each in lists])
    engine.dispose()
    assert counts == [[1, 1, 1, 1]] * 3


@pytest.mark.slow
@pytest.mark.backends("sqlite-file")
def test_databases_may_be_closed_and_configured_while_other_threads_use_them(url: str) -> None:
    """These get an error that says so, or work."""
    databases, failures = Databases(url), []
    over, answered = threading.Event(), threading.Event()

    def work() -> None:
        while not over.is_set():
            try:
                assert ask(databases, "SELECT 1") == 1
                answered.set()
            except ConfigurationError:
                pass
            except Exception as error:  # noqa: BLE001 looked at below
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        answered.clear()
        answered.wait(timeout=5)
        databases.close()
        databases.configure(url)
    over.set()
    for thread in threads:
        thread.join()
    databases.close()
    assert failures == []


@memory_only
def test_who_listens_is_seen(databases: Any) -> None:
    """An event or echo on the engine counts until it is removed; microorm's own listener does not."""
    database, engine = databases.database("default"), databases.engine()
    assert not database.listened()
    quiet: dict[str, Any] = {
        "before_cursor_execute": lambda *_: None,
        "after_cursor_execute": lambda *_: None,
        "before_execute": lambda *_: None,
        "after_execute": lambda *_: None,
        "savepoint": lambda *_: None,
        "release_savepoint": lambda *_: None,
        "rollback_savepoint": lambda *_: None,
        "handle_error": lambda *_: None,
        "do_execute": lambda *_: None,
        "do_executemany": lambda *_: None,
        "do_execute_no_params": lambda *_: None,
    }
    for name, listener in quiet.items():
        event.listen(engine, name, listener)
        assert database.listened(), name
        event.remove(engine, name, listener)
        assert not database.listened(), name
    level = engine.logger.level
    engine.logger.setLevel(logging.INFO)
    assert database.listened()
    engine.logger.setLevel(level)
    with engine.connect() as connection:
        assert not database.listened(connection)
        event.listen(connection, "before_cursor_execute", quiet["before_cursor_execute"])
        assert database.listened(connection)
        assert not database.listened()


@memory_only
def test_a_database_makes_its_engine_once(databases: Any) -> None:
    """At the first use, even by many threads at once."""
    found: list[Engine] = []
    threads = [threading.Thread(target=lambda: found.append(databases.engine())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(engine) for engine in found}) == 1
    assert isinstance(found[0].pool, QueuePool)
    database = databases.database("default")
    assert (database.alias, database.is_sqlite, database.is_memory, database.autocommits) == (
        "default", True, True, True
    )  # fmt: skip
    assert repr(database).startswith("<Database 'default' sqlite:///")


@file_only
def test_idle_connections_are_dropped_where_one_was_lost(databases: Any) -> None:
    """The others may be lost as well. It is done once."""
    database = databases.database("default")
    assert ask(databases, "SELECT 1") == 1
    pool = databases.engine().pool
    databases.drop_lost_connections()
    assert databases.engine().pool is pool
    database.lost = True
    databases.drop_lost_connections()
    assert databases.engine().pool is not pool
    assert (pool.checkedin(), database.lost) == (0, False)
    databases.close()
    database.drop_lost_connections()


@pytest.mark.backends("sqlite-file", "sqlite-memory", "postgresql")
def test_the_async_engine_reaches_the_same_database(databases: Any, backend: str) -> None:
    """A database in memory is shared by both; its connections are set up and announced like others."""
    Book, told = make_book(databases), []
    Book(title="a").save()

    def tell(alias: str, **kwargs: Any) -> None:
        told.append(alias)

    async def main() -> list[Any]:
        engine = databases.async_engine("default")
        assert databases.async_engine() is engine
        connection_created.connect(tell, sender=databases)
        try:
            async with engine.begin() as connection:
                await connection.execute(text("INSERT INTO book (title) VALUES ('b')"))
            async with engine.connect() as connection:
                titles = (
                    (await connection.execute(text("SELECT title FROM book ORDER BY id"))).scalars().all()
                )
                if backend != "postgresql":
                    assert (await connection.execute(text("PRAGMA foreign_keys"))).scalar_one() == 1
                    assert (await connection.execute(text("PRAGMA busy_timeout"))).scalar_one() == 5000
            return list(titles)
        finally:
            connection_created.disconnect(tell, sender=databases)
            await engine.dispose()

    assert asyncio.run(main()) == ["a", "b"]
    assert told == ["default"]
    assert [book.title for book in Book.objects.order_by("id")] == ["a", "b"]


def test_an_async_engine_that_cannot_be_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """For an Engine in memory, and for a driver that is missing or not async."""
    engine = create_engine("sqlite://")
    with Databases({"given": engine, "made": "sqlite://", "sync": "postgresql+pg8000://db/"}) as databases:
        with pytest.raises(ConfigurationError) as caught:
            databases.async_engine("given")
        assert str(caught.value) == (
            "database 'given' is in memory and was given as an Engine: an asyncio engine cannot reach it"
        )
        monkeypatch.setitem(__import__("sys").modules, "aiosqlite", None)
        with pytest.raises(
            ConfigurationError, match=r"^the driver of database 'made' is not installed: .*aiosqlite"
        ):
            databases.async_engine("made")
        with pytest.raises(ConfigurationError) as caught:
            databases.async_engine("sync")
        assert str(caught.value) == (
            "the URL of database 'sync' names 'postgresql+pg8000', which cannot be awaited; "
            "write postgresql+psycopg://, which can"
        )
    engine.dispose()


@memory_only
def test_a_pool_can_be_chosen(url: str) -> None:
    """A database in memory stays alive without a connection in the pool."""
    with Databases({"default": {"url": url, "poolclass": NullPool}}) as databases:
        Book = make_book(databases)
        Book(title="a").save()
        with databases.atomic():
            Book(title="b").save()
        assert Book.objects.count() == 2


def test_foreign_keys_are_checked(databases: Any) -> None:
    """On all databases."""
    with databases.connection() as connection:
        for statement in (
            "CREATE TABLE shelf (id INTEGER PRIMARY KEY)",
            "CREATE TABLE place (shelf INTEGER, FOREIGN KEY (shelf) REFERENCES shelf (id))",
        ):
            connection.execute(text(statement))
        with pytest.raises(IntegrityError):
            connection.execute(text("INSERT INTO place VALUES (7)"))
