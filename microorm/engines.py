"""Engines: from an alias to SQLAlchemy's engines, with the defaults that production needs.

A `Database` is one configured alias. Its engine is made when first asked for, never at configuration, so
that a program may name databases it does not use.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import URL, Connection, Engine, PoolProxiedConnection, create_engine, event
from sqlalchemy.exc import ArgumentError, InvalidRequestError
from sqlalchemy.pool import ConnectionPoolEntry

from microorm.dispatch.signal import Signal
from microorm.errors import ConfigurationError
from microorm.fields.checks import json_text
from microorm.forks import watch
from microorm.observers import Observers
from microorm.spares import Spares
from microorm.urls import is_memory, masked, read_url, refuse_isolation

if TYPE_CHECKING:
    import sqlite3

    from sqlalchemy.ext.asyncio import AsyncEngine

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
_log = logging.getLogger("microorm.engines")


class Database:
    """One alias: where its rows live, and the engines that reach them."""

    def __init__(self, alias: str, settings: Any, announce: Callable[[str, Any], None]) -> None:
        self.alias = alias
        self.opened = False
        self.lost = False
        self.plans: dict[Any, Any] = {}
        self.straight: dict[Any, Any] = {}
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
        # Outside a transaction, SQLite as microorm opens it commits by itself, and psycopg is told to.
        self.needs_commit = self.dialect != "postgresql" and not self.autocommits

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

    @property
    def autocommits(self) -> bool:
        """Whether a connection outside a transaction commits each statement by itself."""
        return self._given is None and self.is_sqlite

    def listened(self, connection: Connection | Engine) -> bool:
        """Whether others hear of statements and savepoints; asked once per transaction, since it takes a microsecond."""
        heard = connection.dispatch
        return bool(
            heard.savepoint or heard.release_savepoint or heard.rollback_savepoint
        ) or self.statements_listened(connection)

    def statements_listened(self, connection: Connection | Engine) -> bool:
        """Whether anybody but microorm hears of the statements of *connection* (events, observers, echo)."""
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
            or self.engine.logger.isEnabledFor(logging.INFO)
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
            self.plans, self.straight = {}, {}

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
