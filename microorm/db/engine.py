"""A configured alias: its URL, its SQLAlchemy engines.

A `Database` makes its engine at the first use, not when it is configured, so that a program may configure databases
that it does not use. Passwords and other secrets of a URL never appear in messages or in `repr`.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from sqlalchemy import URL, Connection, Engine, PoolProxiedConnection, create_engine, make_url
from sqlalchemy.exc import ArgumentError, InvalidRequestError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry

from microorm.db.context import watch
from microorm.db.drivers import (
    FORMS,
    how_to_install,
    instead_of,
    note_inherited,
    refuse_host,
    refuse_inherited,
    refuse_missing_folder,
)
from microorm.db.events import EngineListeners, Observers, add_listener, count_present, remove_listener
from microorm.db.pool import IdleConnections, end_transaction, reset_state
from microorm.dispatch.signal import Signal
from microorm.errors import ConfigurationError
from microorm.fields.checks import json_text
from microorm.messages import brief

if TYPE_CHECKING:
    import sqlite3

    from sqlalchemy.ext.asyncio import AsyncEngine

E = TypeVar("E")

connection_created = Signal(("alias", "connection"))

BEGIN = "microorm_begin"
TRANSACTION = "microorm_transaction"
_SERVER_DEFAULTS: Mapping[str, Any] = {"pool_pre_ping": True, "pool_use_lifo": True, "pool_timeout": 5}
# MariaDB stores the server's time without its zone, and PostgreSQL returns times in the zone of the session. By default
# MariaDB stores another key instead of 0, and an UPDATE of several columns uses the new values of those it has set already.
_MARIADB_SESSION = (
    "SET time_zone = '+00:00', sql_mode = CONCAT_WS(',', NULLIF(@@sql_mode, ''), "
    "'NO_AUTO_VALUE_ON_ZERO', 'SIMULTANEOUS_ASSIGNMENT')"
)
_SESSION = {
    "postgresql": "SET TIME ZONE 'UTC'",
    "mysql": _MARIADB_SESSION,
    "mariadb": _MARIADB_SESSION,
}
# The milliseconds are a number, never text of a user.
_STATEMENT_TIMEOUT: Mapping[str, Callable[[int], str]] = {
    "postgresql": lambda milliseconds: f"SET statement_timeout = {milliseconds}",
    "mysql": lambda milliseconds: f"SET max_execution_time = {milliseconds}",
    "mariadb": lambda milliseconds: f"SET max_statement_time = {milliseconds / 1000:.3f}",
}
_ASYNC_DRIVERS = {"sqlite": "aiosqlite", "mysql": "asyncmy", "mariadb": "asyncmy"}
_BEGUN_ON_CURSOR = ("sqlite", "postgresql", "mysql", "mariadb")
_log = logging.getLogger("microorm.engines")


class Database:
    """A configured alias: its URL and options, engines, idle connections and compiled statements."""

    def __init__(self, alias: str, settings: Any, announce: Callable[[str, Any], None]) -> None:
        self.alias = alias
        self.opened = self.lost = self._closed = False
        # The schemas that hold compiled statements of this database. They hold them themselves, so that they can be freed.
        self.planned: weakref.WeakSet[Any] = weakref.WeakSet()
        self._announce = announce
        self.idle_connections = IdleConnections()
        self._announcing: set[int] = set()  # the threads in which receivers of connection_created run
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._async_engine: AsyncEngine | None = None
        self._anchor: sqlite3.Connection | None = None
        self._added: list[tuple[Engine, str, Callable[..., Any]]] = []
        self._given: Engine | None = settings if isinstance(settings, Engine) else None
        self.url, self.options = self._read(settings)
        self.dialect = self.url.get_backend_name()
        self._session = self._session_settings(self.options.pop("statement_timeout", None))
        self.is_sqlite = self.dialect == "sqlite"
        self.is_memory = is_memory(self.url)
        self._listeners = EngineListeners()
        self.observers = Observers()
        # Outside a transaction, SQLite in the mode that microorm sets commits each statement; psycopg is switched to it.
        self.autocommits = self._given is None and self.is_sqlite
        self.needs_commit = self.dialect != "postgresql" and not self.autocommits
        # An engine that the program has made may begin transactions in its own way, and have any driver.
        self.begins_on_cursor = self._given is None and self.dialect in _BEGUN_ON_CURSOR

    def __repr__(self) -> str:
        return f"<Database {self.alias!r} {masked(self.url)}>"

    @property
    def engine(self) -> Engine:
        """The engine, made at the first use."""
        engine = self._engine
        if engine is None:
            with self._lock:
                if self._closed:
                    raise ConfigurationError(f"{self.alias!r} was closed while it was used")
                engine = self._engine = self._engine or self._make_engine()
        return engine

    @property
    def async_engine(self) -> AsyncEngine:
        """The asyncio engine of the same database, made at the first use."""
        with self._lock:
            if self._async_engine is None:
                self._async_engine = self._make_async_engine()
            return self._async_engine

    def listened(self, connection: Connection | None = None) -> bool:
        """Return whether there are listeners for statements, savepoints, BEGIN, COMMIT or ROLLBACK, besides microorm's.

        *connection*: whose listeners count; by default those of the engine.
        """
        present = self._listeners.present(self.engine) if connection is None else count_present(connection)
        return present[1] or self._reported()

    def statements_listened(self) -> bool:
        """Return whether the statements of the engine have listeners or observers, or are logged."""
        return self._listeners.present(self._engine or self.engine)[0] or self._reported()

    def _reported(self) -> bool:
        return bool(self.observers.told) or (self._engine or self.engine).logger.isEnabledFor(logging.INFO)

    def commits_by_itself(self, connection: PoolProxiedConnection) -> bool:
        """Return whether the program has switched *connection* to autocommit, so that it has no transactions."""
        raw = connection.dbapi_connection
        if self.autocommits or raw is None:
            return False
        try:
            return self.engine.dialect.detect_autocommit_setting(raw)
        except NotImplementedError:  # SQLAlchemy cannot detect it for this driver
            return False

    def drop_lost_connections(self) -> None:
        """Close the pooled connections if one was *lost* since the last call, since the others may be lost as well."""
        if self.lost and self._engine is not None:
            self.lost = False
            self._engine.dispose()

    def note_lost(self) -> None:
        """Note that a connection was lost; return the idle ones to the pool, which pings them before the next use."""
        self.lost = True
        self.idle_connections.clear()

    def close(self) -> None:
        """Close all pooled connections, and so delete a database in memory; leave an engine that was given open."""
        self.idle_connections.close()
        self.observers.close()
        with self._lock:
            for engine, name, listener in self._added:
                remove_listener(engine, name, listener)
            self._added.clear()
            self._closed = True
            if self._engine is not None and self._given is None:
                _dispose_for_good(self._engine)
            if self._async_engine is not None:
                self._async_engine.sync_engine.dispose(close=False)
            if self._anchor is not None:
                self._anchor.close()
            self._engine = self._async_engine = self._anchor = None
            for schema in list(self.planned):
                schema.plans.pop(self, None)
            self.planned.clear()

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
                f"database {self.alias!r} must be a URL, an Engine or a mapping, not {type(settings).__name__}"
            )
        return read_url(self.alias, settings), options

    def _session_settings(self, timeout: Any) -> tuple[str, ...]:
        """Return the SQL that sets up a session; *timeout*: the seconds that a statement may take."""
        settings = (_SESSION[self.dialect],) if self.dialect in _SESSION else ()
        if timeout is None:
            return settings
        where = f"statement_timeout of database {self.alias!r}"
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0.001 <= timeout < 2**20:
            raise ConfigurationError(f"the {where} must be a number of seconds above 0, not {brief(timeout)}")
        if self.dialect not in _STATEMENT_TIMEOUT:
            raise ConfigurationError(
                f"{self.dialect} has no timeout of statements, so the {where} cannot be set; "
                "connect_args={'timeout': ...} says how long SQLite waits for a lock"
            )
        return (*settings, _STATEMENT_TIMEOUT[self.dialect](round(timeout * 1000)))

    def _make_engine(self) -> Engine:
        if self._given is not None:
            self._listen(self._given)
            return self._given
        if self.is_memory and self._anchor is None:
            import sqlite3  # noqa: PLC0415 the driver is loaded with the engine, or never

            self._anchor = sqlite3.connect(
                f"{self.url.database}?vfs=memdb", uri=True, check_same_thread=False
            )
        engine = self._create(create_engine, self.url)
        self.idle_connections.allow(engine, autocommit=not self.autocommits)
        return engine

    def _make_async_engine(self) -> AsyncEngine:
        from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 needs greenlet, an extra

        if self.is_memory and self._given is not None:
            raise ConfigurationError(
                f"database {self.alias!r} is in memory and was given as an Engine: an asyncio engine cannot reach it"
            )
        backend = self.url.get_backend_name()
        driver = _ASYNC_DRIVERS.get(backend)
        url = self.url.set(drivername=f"{backend}+{driver}") if driver else self.url
        _ = self.engine  # it keeps a database in memory alive
        return self._create(create_async_engine, url)

    def _create(self, create: Callable[..., E], url: URL) -> E:
        """Call *create* and add the listeners to its engine. Raises `ConfigurationError`."""
        try:
            engine = create(url, **self._engine_options())
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"the driver of database {self.alias!r} is not installed: {error}{how_to_install(url, error)}"
            ) from error
        except (ArgumentError, InvalidRequestError, TypeError) as error:
            raise ConfigurationError(f"the options of database {self.alias!r} are invalid: {error}") from None
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
            ("do_connect", self._refuse_nested),
            ("connect", self._connected),
            ("handle_error", self._doom),
            ("engine_disposed", self.idle_connections.forget),
            ("reset", reset_state),
        ]
        if self._given is not None:
            listeners.append(("checkout", self._checked_out))  # it may have connections already
        if self.is_sqlite:
            listeners += [("begin", self._begin), ("close", end_transaction)]
        if self.is_sqlite and not self.is_memory:
            for refuse in (refuse_missing_folder, refuse_inherited):
                listeners.append(("do_connect", partial(refuse, self.alias, self.url)))
        if self._given is None:
            add_listener(engine, "checkin", self._checked_in)
        for name, listener in listeners:
            add_listener(engine, name, listener)
            self._added.append((engine, name, listener))
        watch(self)

    def _checked_out(self, *connection: Any) -> None:
        self.opened = True

    def _checked_in(self, connection: Any, record: ConnectionPoolEntry) -> None:
        """Close a connection that another thread has used while the database was closed."""
        if self._closed and connection is not None:
            record.invalidate()

    def _connected(self, connection: Any, record: ConnectionPoolEntry) -> None:
        self.opened = True
        if self._given is None:
            cursor = connection.cursor()
            self._set_up(connection, cursor)
            cursor.close()
        thread = threading.get_ident()
        self._announcing.add(thread)
        try:
            self._announce(self.alias, connection)
        finally:
            self._announcing.discard(thread)

    def _refuse_nested(self, *arguments: Any) -> None:
        """Raise `ConfigurationError` if a receiver of `connection_created` opens another connection.

        SQLAlchemy holds a lock while it opens the first one, so the receiver would wait for itself.
        """
        if threading.get_ident() in self._announcing:
            raise ConfigurationError(
                f"a receiver of connection_created cannot open another connection to {self.alias!r}; "
                "use the connection that it gets"
            )

    def _set_up(self, connection: Any, cursor: Any) -> None:
        for statement in self._session:
            cursor.execute(statement)
        if self._session:
            connection.commit()
        if not self.is_sqlite:
            return
        cursor.execute("PRAGMA foreign_keys=ON")
        if self.is_memory or self.url.query.get("mode") == "ro":
            return
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except Exception as error:  # noqa: BLE001 the drivers' errors share no class
            # Another connection has locked the file. The mode is stored in the file, so a later connection can set it.
            _log.debug("WAL not set on %r: %s", self.alias, error)

    def _begin(self, connection: Connection) -> None:
        statement = connection.get_execution_options().get(BEGIN, "BEGIN" if self._given is None else "")
        raw: Any = connection.connection.dbapi_connection
        if self._given is not None and raw.in_transaction:
            # The program begins transactions itself, as in SQLAlchemy's documentation.
            if connection.get_execution_options().get(BEGIN) == "":
                raw.commit()
        elif statement:
            connection.exec_driver_sql(statement)

    def _doom(self, context: Any) -> None:
        """Doom the open transaction after an error in a statement on SQLAlchemy's `Connection`."""
        if context.is_disconnect:
            self.note_lost()
        statement = context.execution_context
        if statement is not None and statement.execution_options.get("skip_user_error_events"):
            return  # SQLAlchemy checks for a table in this way, and expects the error
        if context.connection is not None:
            transaction = context.connection.get_execution_options().get(TRANSACTION)
            if transaction is not None:
                transaction.doom(context.sqlalchemy_exception or context.original_exception)

    def note_inherited(self) -> None:
        """In a forked child: note that a transaction was open here in the parent."""
        if self.is_sqlite and not self.is_memory:
            note_inherited(self.url)

    def before_fork(self) -> None:
        """Close the pooled connections to an SQLite file, since SQLite forbids their use after a fork."""
        if self.is_sqlite and not self.is_memory and self._engine is not None:
            self._engine.dispose()

    def after_fork(self) -> None:
        """In the child: drop the parent's connections without closing them."""
        self._lock = threading.RLock()  # another thread may have held it
        self.idle_connections.abandon()
        if self._engine is not None and not (self.is_memory and self._given is not None):
            self._engine.dispose(close=False)
        if self._async_engine is not None:
            self._async_engine.sync_engine.dispose(close=False)


def _dispose_for_good(engine: Engine) -> None:
    """Close the pooled connections, and drop the statements that SQLAlchemy has compiled, which refer to models.

    Connections that other threads still use are closed when they return: see `Database._checked_in`.
    """
    engine.dispose()
    engine.clear_compiled_cache()


_SECRET = ("pass", "pwd", "secret", "token", "key", "credential", "auth")
_PUBLIC = frozenset({"auth_plugin", "require_auth"})
_MASK = "***"


def read_url(alias: str, given: str | URL) -> URL:
    """Return *given* as SQLAlchemy's URL; give a database in memory a name, by which all connections share it.

    Raises `ConfigurationError` for an invalid URL and for an unknown dialect, without showing *given*, which may hold a
    password.
    """
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            f"the URL of database {alias!r} cannot be read by SQLAlchemy; {FORMS}"
        ) from None
    try:
        is_async = url.get_dialect().is_async
    except NoSuchModuleError:
        raise ConfigurationError(
            f"the URL of database {alias!r} names {url.drivername!r}, which SQLAlchemy does not know"
            f"{instead_of(url.drivername)}"
        ) from None
    if is_async:
        raise ConfigurationError(
            f"the URL of database {alias!r} names {url.drivername!r}, which is for asyncio only; name a synchronous driver"
        )
    refuse_host(alias, url)
    if is_memory(url):
        # Each connection to ":memory:" would have a database of its own; one with a name is shared.
        name = (url.database or "").removeprefix("file:").strip("/:")
        name = f"microorm-{uuid4().hex}" if name in ("", "memory") else name
        return url.set(database=f"file:/{name}", query={"vfs": "memdb", "uri": "true"})
    return url


def is_memory(url: URL) -> bool:
    """Return whether *url* names an SQLite database in memory."""
    if url.get_backend_name() != "sqlite":
        return False
    database = url.database or ""
    return (
        database in ("", ":memory:", "file::memory:")
        or url.query.get("mode") == "memory"
        or url.query.get("vfs") == "memdb"
    )


def refuse_isolation(alias: str, connect_args: Mapping[str, Any]) -> None:
    """Raise `ConfigurationError` for options by which `sqlite3` would begin and end transactions itself."""
    for option in ("isolation_level", "autocommit"):
        if connect_args.get(option) is not None:
            raise ConfigurationError(
                f"the connect_args of database {alias!r} set {option!r} to {connect_args[option]!r}; "
                "leave it out, since microorm begins its transactions itself"
            )


def masked(url: URL) -> str:
    """Return *url* as text, without its password and without secrets in its query."""
    if url.get_backend_name() != "sqlite" and "@" in f"{url.host}{url.database}":
        # The rest of a password with an unescaped @ is read as the host.
        url = url.set(host=_MASK, port=None, database=_MASK)
    query = {name: _MASK if _is_secret(name) else value for name, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True).replace("%2A%2A%2A", _MASK)


def _is_secret(name: str) -> bool:
    return name not in _PUBLIC and any(word in name.lower() for word in _SECRET)
