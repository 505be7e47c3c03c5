"""Engines: from an alias to SQLAlchemy's engines, with the defaults that production needs.

A `Database` is one configured alias. Its engine is made when first asked for, never at configuration, so
that a program may name databases it does not use.

URLs: where a database is, as its owner wrote it, and how much of that may be shown.

Observers: who is told of the statements that are sent to one database, on whatever way.

SQLAlchemy's `Connection` tells by an event of the engine. It is listened to once and for good, since SQLAlchemy's
lists of listeners must not change while another thread goes through them. The driver's cursor of a transaction that
was open before is watched.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import URL, Connection, Engine, PoolProxiedConnection, create_engine, event
from sqlalchemy.exc import ArgumentError, InvalidRequestError
from sqlalchemy.pool import ConnectionPoolEntry

from microorm.db.context import watch
from microorm.db.pool import Spares
from microorm.dispatch.signal import Signal
from microorm.errors import ConfigurationError
from microorm.fields.checks import json_text

if TYPE_CHECKING:
    import sqlite3

    from sqlalchemy.ext.asyncio import AsyncEngine
from uuid import uuid4

from sqlalchemy import make_url
from sqlalchemy.exc import NoSuchModuleError

E = TypeVar("E")

connection_created = Signal()

BEGIN = "microorm_begin"
TRANSACTION = "microorm_transaction"
_SERVER_DEFAULTS: Mapping[str, Any] = {"pool_pre_ping": True, "pool_use_lifo": True, "pool_timeout": 5}
# What the server's clock says is stored without its zone by MariaDB, and read back in the session's by PostgreSQL.
_IN_UTC = {
    "postgresql": "SET TIME ZONE 'UTC'",
    "mysql": "SET time_zone = '+00:00'",
    "mariadb": "SET time_zone = '+00:00'",
}
_ASYNC_DRIVERS = {"sqlite": "aiosqlite", "mysql": "asyncmy", "mariadb": "asyncmy"}
_BEGUN_ON_CURSOR = ("sqlite", "postgresql", "mysql", "mariadb")
_log = logging.getLogger("microorm.engines")


class Database:
    """One alias: where its rows live, and the engines that reach them."""

    def __init__(self, alias: str, settings: Any, announce: Callable[[str, Any], None]) -> None:
        self.alias = alias
        self.opened = False
        self.lost = False
        self.plans: dict[Any, Any] = {}
        self._announce = announce
        self.spares = Spares()
        self.observers = Observers()
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._async_engine: AsyncEngine | None = None
        self._anchor: sqlite3.Connection | None = None
        self._listeners: list[tuple[Engine, str, Callable[..., Any]]] = []
        self._given: Engine | None = settings if isinstance(settings, Engine) else None
        self.url, self.options = self._read(settings)
        self.dialect = self.url.get_backend_name()
        self.is_sqlite = self.dialect == "sqlite"
        self.is_memory = is_memory(self.url)
        # Outside a transaction, SQLite as microorm opens it commits each statement by itself, and psycopg is told to.
        self.autocommits = self._given is None and self.is_sqlite
        self.needs_commit = self.dialect != "postgresql" and not self.autocommits
        # An engine that the program made may begin in its own way, and its drivers may be of any kind.
        self.begins_on_cursor = self._given is None and self.dialect in _BEGUN_ON_CURSOR

    def __repr__(self) -> str:
        return f"<Database {self.alias!r} {masked(self.url)}>"

    @property
    def engine(self) -> Engine:
        """The engine, made at the first use."""
        engine = self._engine
        if engine is None:
            with self._lock:
                engine = self._engine = self._engine or self._make_engine()
        return engine

    @property
    def async_engine(self) -> AsyncEngine:
        """The asyncio engine of the same database, made at the first use."""
        with self._lock:
            if self._async_engine is None:
                self._async_engine = self._make_async_engine()
            return self._async_engine

    def listened(self, connection: Connection | Engine) -> bool:
        """Whether others hear of statements and savepoints; asked once per transaction, since it takes a microsecond."""
        heard = connection.dispatch
        return bool(
            heard.savepoint
            or heard.release_savepoint
            or heard.rollback_savepoint
            or heard.commit
            or heard.rollback
            or len(heard.begin) > self.is_sqlite
        ) or self.statements_listened(connection)

    def statements_listened(self, connection: Connection | Engine | None = None) -> bool:
        """Whether listeners that are not microorm's see the statements of *connection*, else of the engine.

        Events, observers, echo.
        """
        engine = self._engine or self.engine
        connection = engine if connection is None else connection
        heard, dialect = connection.dispatch, connection.dialect.dispatch
        return bool(
            len(heard.before_cursor_execute) > self.observers.listening
            or self.observers.told
            or heard.after_cursor_execute
            or heard.before_execute
            or heard.after_execute
            or dialect.do_execute
            or dialect.do_executemany
            or dialect.do_execute_no_params
            or len(dialect.handle_error) > 1
            or heard.engine_connect
            or engine.logger.isEnabledFor(logging.INFO)
        )

    def commits_by_itself(self, connection: PoolProxiedConnection) -> bool:
        """Whether somebody has set *connection* to commit each statement, so that it has no transactions."""
        raw = connection.dbapi_connection
        if self.autocommits or raw is None:
            return False
        try:
            return self.engine.dialect.detect_autocommit_setting(raw)
        except NotImplementedError:  # a driver that cannot tell
            return False

    def drop_lost_connections(self) -> None:
        """Close the idle connections if one was *lost* since the last call: what cut it may have cut them."""
        if self.lost and self._engine is not None:
            self.lost = False
            self._engine.dispose()

    def note_lost(self) -> None:
        """Note that a connection was lost: the spares, which nobody would ask, go back to the pool, which asks."""
        self.lost = True
        self.spares.clear()

    def close(self) -> None:
        """Close every pooled connection; a database in memory is gone. An engine that was given stays open."""
        self.spares.close()
        self.observers.close()
        with self._lock:
            for engine, name, listener in self._listeners:
                event.remove(engine, name, listener)
            self._listeners.clear()
            if self._engine is not None and self._given is None:
                self._engine.dispose()
            if self._async_engine is not None:
                self._async_engine.sync_engine.dispose(close=False)
            if self._anchor is not None:
                self._anchor.close()
            self._engine = self._async_engine = self._anchor = None
            self.plans = {}

    def _read(self, settings: Any) -> tuple[URL, dict[str, Any]]:
        options: dict[str, Any] = {}
        if isinstance(settings, Engine):
            return settings.url, options
        if isinstance(settings, Mapping):
            options = dict(settings)
            if "url" not in options:
                given = ", ".join(sorted(map(repr, options))) or "nothing"
                raise ConfigurationError(f"database {self.alias!r} has no 'url'; given: {given}")
            settings = options.pop("url")
        if not isinstance(settings, (str, URL)):
            raise ConfigurationError(
                f"database {self.alias!r} wants a URL, an Engine or a mapping, not {type(settings).__name__}"
            )
        return read_url(self.alias, settings), options

    def _make_engine(self) -> Engine:
        if self._given is not None:
            self._listen(self._given)
            return self._given
        if self.is_memory and self._anchor is None:
            import sqlite3  # noqa: PLC0415 the driver is loaded with the engine, or never

            self._anchor = sqlite3.connect(
                f"{self.url.database}?vfs=memdb", uri=True, check_same_thread=False
            )
        engine = self._made(create_engine, self.url)
        self.spares.allow(engine, autocommit=not self.autocommits)
        return engine

    def _make_async_engine(self) -> AsyncEngine:
        from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 wants greenlet, an extra

        if self.is_memory and self._given is not None:
            raise ConfigurationError(
                f"database {self.alias!r} is in the memory of an Engine, which no other can reach"
            )
        backend = self.url.get_backend_name()
        driver = _ASYNC_DRIVERS.get(backend)
        url = self.url.set(drivername=f"{backend}+{driver}") if driver else self.url
        _ = self.engine  # a memory database lives as long as its sync engine holds it
        return self._made(create_async_engine, url)

    def _made(self, create: Callable[..., E], url: URL) -> E:
        """The engine that *create* makes, listened to. Raises `ConfigurationError`."""
        try:
            engine = create(url, **self._engine_options())
        except ModuleNotFoundError as error:
            raise ConfigurationError(f"the driver of database {self.alias!r} is missing: {error}") from error
        except (ArgumentError, InvalidRequestError, TypeError) as error:
            raise ConfigurationError(f"the options of database {self.alias!r} are wrong: {error}") from None
        sync_engine: Any = getattr(engine, "sync_engine", engine)
        self._listen(sync_engine)
        return engine

    def _engine_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"hide_parameters": True, "json_serializer": json_text}
        if self.is_sqlite:
            given = {"isolation_level": None, "check_same_thread": False, "timeout": 5.0}
            given |= self.options.get("connect_args", {})
            refuse_isolation(self.alias, given)
            return {**options, **self.options, "connect_args": given}
        return {**options, **_SERVER_DEFAULTS, **self.options}

    def _listen(self, engine: Engine) -> None:
        listeners: list[tuple[str, Callable[..., Any]]] = [
            ("connect", self._connected),
            ("handle_error", self._doom),
            ("engine_disposed", self.spares.forget),
        ]
        if self._given is not None:
            listeners.append(("checkout", self._checked_out))  # it may have connections already
        if self.is_sqlite:
            listeners.append(("begin", self._begin))
        for name, listener in listeners:
            event.listen(engine, name, listener)
            self._listeners.append((engine, name, listener))
        watch(self)

    def _checked_out(self, *connection: Any) -> None:
        self.opened = True

    def _connected(self, connection: Any, record: ConnectionPoolEntry) -> None:
        self.opened = True
        if self._given is None:
            cursor = connection.cursor()
            self._set_up(connection, cursor)
            cursor.close()
        self._announce(self.alias, connection)

    def _set_up(self, connection: Any, cursor: Any) -> None:
        if in_utc := _IN_UTC.get(self.dialect):
            cursor.execute(in_utc)
            connection.commit()
        if not self.is_sqlite:
            return
        cursor.execute("PRAGMA foreign_keys=ON")
        if self.is_memory or self.url.query.get("mode") == "ro":
            return
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except Exception as error:  # noqa: BLE001 the drivers' errors share no class
            # Somebody else holds the file; the mode is a property of the file, so a later one sets it.
            _log.debug("WAL not set on %r: %s", self.alias, error)

    def _begin(self, connection: Connection) -> None:
        statement = connection.get_execution_options().get(BEGIN, "BEGIN" if self._given is None else "")
        raw: Any = connection.connection.dbapi_connection
        if self._given is not None and raw.in_transaction:
            # Its owner begins by himself, as SQLAlchemy's manual shows.
            if connection.get_execution_options().get(BEGIN) == "":
                raw.commit()
        elif statement:
            connection.exec_driver_sql(statement)

    def _doom(self, context: Any) -> None:
        """Tell the open transaction of an error in a statement that went through SQLAlchemy's `Connection`."""
        if context.is_disconnect:
            self.note_lost()
        statement = context.execution_context
        if statement is not None and statement.execution_options.get("skip_user_error_events"):
            return  # SQLAlchemy asks a question so, whether a table is there, and an error is the answer
        if context.connection is not None:
            transaction = context.connection.get_execution_options().get(TRANSACTION)
            if transaction is not None:
                transaction.doom(context.sqlalchemy_exception or context.original_exception)

    def before_fork(self) -> None:
        """Close the idle connections to an SQLite file: SQLite forbids to carry them into a child."""
        if self.is_sqlite and not self.is_memory and self._engine is not None:
            self._engine.dispose()

    def after_fork(self) -> None:
        """In the child: forget the parent's connections without closing them."""
        self._lock = threading.RLock()  # another thread may have held it
        self.spares.abandon()
        if self._engine is not None and not (self.is_memory and self._given is not None):
            self._engine.dispose(close=False)
        if self._async_engine is not None:
            self._async_engine.sync_engine.dispose(close=False)


_SECRET = ("pass", "pwd", "secret", "token", "key", "credential", "auth")
_PUBLIC = frozenset({"auth_plugin", "require_auth"})
_MASK = "***"


def read_url(alias: str, given: str | URL) -> URL:
    """*given* as SQLAlchemy's URL; one of a memory database gets a name that all its connections share.

    Raises `ConfigurationError` for what is no URL and for a dialect that is not there, without repeating *given*,
    which may hold a password.
    """
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            f"the URL of database {alias!r} is not a URL that SQLAlchemy can read"
        ) from None
    try:
        is_async = url.get_dialect().is_async
    except NoSuchModuleError:
        raise ConfigurationError(
            f"the URL of database {alias!r} names {url.drivername!r}, which SQLAlchemy does not know"
        ) from None
    if is_async:
        raise ConfigurationError(
            f"the URL of database {alias!r} names {url.drivername!r}, a driver for asyncio alone"
        )
    if is_memory(url):
        # One database for all threads and both engines, which ":memory:" is not; two URLs of one name are one.
        name = (url.database or "").removeprefix("file:").strip("/:")
        name = f"microorm-{uuid4().hex}" if name in ("", "memory") else name
        return url.set(database=f"file:/{name}", query={"vfs": "memdb", "uri": "true"})
    return url


def is_memory(url: URL) -> bool:
    """Whether *url* names an SQLite database that lives in memory."""
    if url.get_backend_name() != "sqlite":
        return False
    database = url.database or ""
    return (
        database in ("", ":memory:", "file::memory:")
        or url.query.get("mode") == "memory"
        or url.query.get("vfs") == "memdb"
    )


def refuse_isolation(alias: str, connect_args: Mapping[str, Any]) -> None:
    """Raise `ConfigurationError` where `sqlite3` would begin and end transactions by itself."""
    for option in ("isolation_level", "autocommit"):
        if connect_args.get(option) is not None:
            raise ConfigurationError(
                f"the {option!r} of database {alias!r} is {connect_args[option]!r}: microorm begins its transactions itself"
            )


def masked(url: URL) -> str:
    """*url* as text without its password and without secrets in its query."""
    if url.get_backend_name() != "sqlite" and "@" in f"{url.host}{url.database}":
        # A password with an @ that was not escaped ends too early; its rest looks like the host.
        url = url.set(host=_MASK, port=None, database=_MASK)
    query = {name: _MASK if _is_secret(name) else value for name, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True).replace("%2A%2A%2A", _MASK)


def _is_secret(name: str) -> bool:
    return name not in _PUBLIC and any(word in name.lower() for word in _SECRET)


Observer = Callable[[str], object]


class Observers:
    """The functions that are told of each statement to one database; *listening* is how many listeners are ours."""

    __slots__ = ("_engine", "listening", "told")

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self.listening = 0
        self.told: list[Observer] = []

    def add(self, engine: Engine, observer: Observer) -> None:
        """Tell *observer* the text of every statement that is sent through *engine* from now on."""
        if self._engine is not engine:
            event.listen(engine, "before_cursor_execute", self._hear)
            self._engine, self.listening = engine, 1
        self.told.append(observer)

    def remove(self, observer: Observer) -> None:
        """Tell *observer* no more."""
        self.told.remove(observer)

    def close(self) -> None:
        """Let go of the engine."""
        engine, self._engine, self.listening = self._engine, None, 0
        if engine is not None:
            event.remove(engine, "before_cursor_execute", self._hear)

    def tell(self, statement: str) -> None:
        """Tell everybody that *statement* is being sent."""
        for observer in tuple(self.told):
            observer(statement)

    def watched(self, cursor: Any) -> Any:
        """The driver's *cursor*, so that its statements are told, too; None stays None."""
        return cursor if cursor is None or cursor.__class__ is WatchedCursor else WatchedCursor(cursor, self)

    def _hear(self, connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        self.tell(statement)


class WatchedCursor:
    """A driver's cursor whose statements are told."""

    __slots__ = ("_cursor", "_observers")

    def __init__(self, cursor: Any, observers: Observers) -> None:
        self._cursor = cursor
        self._observers = observers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def execute(self, statement: str, *parameters: Any) -> Any:
        """Tell of *statement* and send it."""
        self._observers.tell(statement)
        return self._cursor.execute(statement, *parameters)

    def executemany(self, statement: str, parameters: Any) -> Any:
        """Tell of *statement*, once, and send it for each of *parameters*."""
        self._observers.tell(statement)
        return self._cursor.executemany(statement, parameters)
