"""A configured alias: its URL, its SQLAlchemy engines.

A `Database` makes its engine at the first use, not when it is configured, so that a program may configure databases
that it does not use. For coroutines there is an `AsyncDatabase` beside it, with an engine for each event loop.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import URL, Connection, Engine, PoolProxiedConnection, create_engine
from sqlalchemy.exc import ArgumentError, InvalidRequestError
from sqlalchemy.pool import ConnectionPoolEntry

from microorm.db.engines.events import (
    EngineListeners,
    add_listener,
    count_present,
    remove_listener,
    report_statements,
    stop_reporting,
)
from microorm.db.engines.guards import Guard
from microorm.db.engines.limits import UNLIMITED, Holder, Limits, Turn, pause, thread_or_task
from microorm.db.engines.missing import note_missing
from microorm.db.engines.pool import IdleConnections, end_transaction, reset_state
from microorm.db.engines.sessions import begin_session, session_settings
from microorm.db.engines.urls import (
    how_to_install,
    is_memory,
    masked,
    note_inherited,
    read_settings,
    refuse_inherited,
    refuse_isolation,
    refuse_missing_folder,
    synchronous,
)
from microorm.db.owners import watch
from microorm.dispatch.signal import Signal
from microorm.errors import ConfigurationError
from microorm.fields.checks import json_text

if TYPE_CHECKING:
    import sqlite3

    from microorm.db.aio.database import AsyncDatabase

E = TypeVar("E")
T = TypeVar("T")

connection_created = Signal(("alias", "connection"))

BEGIN = "microorm_begin"
TRANSACTION = "microorm_transaction"
_POOL_TIMEOUT = 30
"""What SQLAlchemy takes where an alias has no option of that name."""
_SERVER_DEFAULTS: Mapping[str, Any] = {"pool_pre_ping": True, "pool_use_lifo": True, "pool_timeout": 5}
_BEGUN_ON_CURSOR = ("sqlite", "postgresql", "mysql", "mariadb")


class Database:
    """A configured alias: its URL and options, engine, idle connections and compiled statements.

    *settings*: those of `Databases`, or a database to share the settings of. *limits*: those of all aliases together.
    *asynchronous*: the same alias for coroutines, if it is used by them.
    """

    is_async = False

    def __init__(
        self,
        alias: str,
        settings: Any,
        announce: Callable[[str, Any], None],
        limits: Limits = UNLIMITED,
    ) -> None:
        self.alias = self.row_alias = alias
        self.settings = settings
        self.limits = limits
        self._guard: Guard | None = None
        self.opened = self.lost = self._closed = False
        # The schemas that hold compiled statements of this database. They hold them themselves, so that they can be freed.
        self.planned: weakref.WeakSet[Any] = weakref.WeakSet()
        self.announce = announce
        self._announcing: set[int] = (
            set()
        )  # the threads and tasks in which receivers of connection_created run
        self._lock = threading.RLock()
        self.asynchronous: AsyncDatabase | None = None
        self._engine: Engine | None = None
        self._anchor: sqlite3.Connection | None = None
        self._added: list[tuple[Engine, str, Callable[..., Any]]] = []
        self.given: Engine | None = settings if isinstance(settings, Engine) else None
        self.configured_url, self.options = self._read(settings)
        self.url = synchronous(self.configured_url)
        self.dialect = self.url.get_backend_name()
        self._session = session_settings(alias, self.dialect, self.options.get("statement_timeout"))
        self.is_sqlite = self.dialect == "sqlite"
        self.is_memory = is_memory(self.url)
        self._make_idle()
        # Outside a transaction, SQLite in the mode that microorm sets commits each statement; psycopg is switched to it.
        self.autocommits = self.given is None and self.is_sqlite
        self.needs_commit = self.dialect != "postgresql" and not self.autocommits
        # An engine that the program has made may begin transactions in its own way, and have any driver.
        self.begins_on_cursor = self.given is None and self.dialect in _BEGUN_ON_CURSOR

    @property
    def guard(self) -> Guard | None:
        """What a router watches this alias by. A copy of another alias has the `row_alias` of that."""
        return self._guard

    @guard.setter
    def guard(self, guard: Guard) -> None:
        if self._guard is not None:
            raise ConfigurationError(
                f"{self.alias!r} is watched by two routers; each alias can belong to one"
            )
        self._guard, self.row_alias = guard, guard.copy_of or self.alias

    def reach(self, connect: Callable[[], T]) -> T:
        """Return the connection that *connect* makes, or takes from the pool; the guard watches it."""
        return connect() if self._guard is None else self._guard.reach(connect)

    def instead(self, error: BaseException) -> Database | None:
        """Return where to read instead, after *error* has prevented a connection; None to raise it."""
        return None if self._guard is None else self._guard.instead(error)

    def _make_idle(self) -> None:
        self.idle_connections = IdleConnections(self.limits.waiting)
        self._listeners = EngineListeners()

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

    def awaited(self, make: Callable[[Database], AsyncDatabase]) -> AsyncDatabase:
        """Return the same alias for coroutines, which *make* makes at the first use."""
        with self._lock:
            if self._closed:
                raise ConfigurationError(f"{self.alias!r} was closed while it was used")
            if self.asynchronous is None:
                if self.is_memory:
                    _ = self.engine  # it keeps the database alive
                self.asynchronous = make(self)
            return self.asynchronous

    def is_same(self, other: object) -> bool:
        """Return whether *other* is this alias, as synchronous code or as coroutines reach it."""
        return other is self or (other is not None and other is self.asynchronous)

    def connect(self) -> Connection:
        """Return SQLAlchemy's connection, after making room in the pool."""
        engine = self.engine
        return self.reach(partial(self.limits.opening, partial(self.idle_connections.connect, engine)))

    def here(self) -> object:
        """Return what the connections belong to, besides the process: the running event loop, or None for any thread."""
        return None

    def refuse_elsewhere(self, home: object) -> None:
        """Raise `TransactionError` where a transaction that was begun *here*, as *home*, cannot be used."""

    def for_many(self, sql: str) -> str:
        """Return *sql* as the driver can run it for many rows."""
        return sql

    def cursor(self, connection: PoolProxiedConnection) -> Any:
        """Return a cursor of *connection* for compiled statements."""
        return connection.cursor()

    def is_over(self, home: object) -> bool:
        """Return whether *home*, which `here` has returned, has ended, so that nothing can run there any more."""
        return False

    def can_wait(self) -> bool:
        """Return whether this code can wait for the database; a coroutine that is being closed cannot."""
        return True

    def complete(self, step: Callable[[], T]) -> T:
        """Return what *step* returns, which must not be stopped half-way: a cancellation waits until it is done."""
        return step()

    def stoppable(
        self,
        connection: PoolProxiedConnection,
        step: Callable[[], T],
        *,
        reads: bool,
        undo: Callable[[T], object] | None = None,
    ) -> T:
        """Return what *step* returns, which uses *connection*; a cancellation stops it without harm to the transaction.

        *reads*: it changes nothing. *undo* takes what a step returns that could not be stopped.
        """
        return step()

    def synchronous_cursor(self, cursor: Any) -> Any:
        """Return the driver's own *cursor*, which SQLAlchemy has not adapted, as one that is used synchronously."""
        return cursor

    def recovers(self, connection: PoolProxiedConnection, error: BaseException | None) -> bool:
        """Return whether *connection* can be used again although *error* has interrupted a statement."""
        return False

    def discard(self, connection: PoolProxiedConnection, error: BaseException | None) -> None:
        """Invalidate *connection*, whose state is unknown after *error*."""
        connection.invalidate(error)

    def listened(self, connection: Connection | None = None) -> bool:
        """Return whether there are listeners for statements, savepoints, BEGIN, COMMIT or ROLLBACK, besides microorm's.

        *connection*: whose listeners count; by default those of the engine.
        """
        if connection is None:
            present = self._listeners.present(self._engine or self.engine)
        else:
            present = count_present(connection)
        return present[1] or self._logged()

    def announced(self) -> bool:
        """Return whether the first connection of the engine was made, on which SQLAlchemy asks questions of its own."""
        return self.opened

    def statements_listened(self) -> bool:
        """Return whether the statements of the engine have listeners, or are logged."""
        return self._listeners.present(self._engine or self.engine)[0] or self._logged()

    def _logged(self) -> bool:
        return (self._engine or self.engine).logger.isEnabledFor(logging.INFO)

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

    def in_use(self) -> int:
        """Return how many connections are used by a block or a statement, in any thread or task."""
        count = self.idle_connections.in_use()
        return count if self.asynchronous is None else count + self.asynchronous.in_use()

    def has_idle(self) -> bool:
        """Return whether a connection is open that nothing uses."""
        return self.given is None and self.idle_connections.has_idle()

    def shed(self) -> None:
        """Close the connections that nothing uses, and those in use when they return to the pool."""
        if (engine := self._engine) is not None and self.given is None:
            engine.dispose()

    def rest(self) -> bool:
        """Close the engine, which is made again at the next use; return False, and leave it open, if it is in use.

        A database in memory stays, since it would be lost, and so does an engine that was given. One that the program listens to
        loses its connections only.
        """
        if self.given is not None or self.is_memory:
            return True
        with self._lock:
            if self.idle_connections.in_use():
                return False
            engine = self._engine
            if engine is None or self._listeners.present(engine)[1]:
                self.shed()
                return True
            self.idle_connections.close()
            self._forget_listeners()
            self._engine = None
            self._make_idle()
            self.idle_connections.forget()  # a connection that is taken at this moment is not kept
            self.forget_plans()
        _dispose_for_good(engine)
        return True

    def note_lost(self) -> None:
        """Note that a connection was lost; return the idle ones to the pool, which pings them before the next use."""
        self.lost = True
        self.idle_connections.clear()

    def close(self) -> None:
        """Close all pooled connections, and so delete a database in memory; leave an engine that was given open."""
        self.limits.forget(self)
        self.idle_connections.close()
        with self._lock:
            self._closed = True
            asynchronous, self.asynchronous = self.asynchronous, None
            if asynchronous is not None:
                asynchronous.close()
            self._forget_listeners()
            if self._engine is not None and self.given is None:
                _dispose_for_good(self._engine)
            if self._anchor is not None:
                self._anchor.close()
            self._engine = self._anchor = None
            self.forget_plans()

    def _forget_listeners(self) -> None:
        for engine, name, listener in self._added:
            remove_listener(engine, name, listener)
        for engine in {engine for engine, _, _ in self._added}:
            stop_reporting(engine, self)
        self._added.clear()

    def forget_plans(self) -> None:
        """Free the compiled statements."""
        for schema in list(self.planned):
            schema.plans.pop(self, None)
        self.planned.clear()

    def _read(self, settings: Any) -> tuple[URL, dict[str, Any]]:
        return read_settings(self.alias, settings)

    def _make_engine(self) -> Engine:
        if self.given is not None:
            self._listen(self.given, self.idle_connections)
            return self.given
        if self.is_memory and self._anchor is None:
            import sqlite3  # noqa: PLC0415 the driver is loaded with the engine, or never

            self._anchor = sqlite3.connect(
                f"{self.url.database}?vfs=memdb", uri=True, check_same_thread=False
            )
        engine = self._create(create_engine, self.url)
        self._listen(engine, self.idle_connections)
        self.idle_connections.allow(engine, autocommit=not self.autocommits)
        return engine

    def _create(self, create: Callable[..., E], url: URL) -> E:
        """Return the engine that *create* makes. Raises `ConfigurationError`."""
        try:
            return create(url, **self._engine_options())
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"the driver of database {self.alias!r} is not installed: {error}{how_to_install(url, error)}"
            ) from error
        except (ArgumentError, InvalidRequestError, TypeError) as error:
            raise ConfigurationError(f"the options of database {self.alias!r} are invalid: {error}") from None

    def _engine_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"hide_parameters": True, "json_serializer": json_text}
        options |= {} if self.is_sqlite else _SERVER_DEFAULTS
        options |= {name: value for name, value in self.options.items() if name != "statement_timeout"}
        if self.is_sqlite:
            given = {"isolation_level": None, "check_same_thread": False, "timeout": 5.0}
            given |= self.options.get("connect_args", {})
            refuse_isolation(self.alias, given)
            options["connect_args"] = given
        return options

    def _listen(self, engine: Engine, idle: IdleConnections) -> None:
        listeners: list[tuple[str, Callable[..., Any]]] = [
            ("do_connect", self._refuse_nested),
            ("connect", self._connected),
            ("handle_error", self._doom),
            ("engine_disposed", idle.forget),
            ("reset", reset_state),
        ]
        if self.given is not None:
            listeners.append(("checkout", self._checked_out))  # it may have connections already
        if self.is_sqlite:
            listeners += [("begin", self._begin), ("close", end_transaction)]
        if self.is_sqlite and not self.is_memory:
            for refuse in (refuse_missing_folder, refuse_inherited):
                listeners.append(("do_connect", partial(refuse, self.alias, self.url)))
        if self.given is None:
            add_listener(engine, "checkin", self._holder().checked_in)
            if self.limits.apply:
                timeout = self._engine_options().get("pool_timeout", _POOL_TIMEOUT)
                self.limits.count(engine, self._holder(), timeout, self.pause)
        for name, listener in listeners:
            add_listener(engine, name, listener)
            self._added.append((engine, name, listener))
        report_statements(engine, self)
        watch(self, dies=True)

    def _holder(self) -> Holder:
        """Return what holds the connections of the engine that is made here."""
        return self

    def pause(self, turn: Turn, seconds: float) -> None:
        """Wait for *turn*, for *seconds* at most."""
        pause(turn, seconds)

    def _checked_out(self, connection: Any, record: ConnectionPoolEntry, *proxy: Any) -> None:
        self.opened = True
        self.idle_connections.records.add(record)

    def checked_in(self, connection: Any, record: ConnectionPoolEntry) -> None:
        """Close a connection that another thread has used while the database was closed, or that another alias waits for."""
        if connection is not None and (
            self._closed or self.limits.waiting or self.idle_connections.is_stale(record)
        ):
            record.invalidate()

    def _connected(self, connection: Any, record: ConnectionPoolEntry) -> None:
        self.opened = True
        self.idle_connections.records.add(record)
        if self.given is None:
            writable = self.is_sqlite and not self.is_memory and self.url.query.get("mode") != "ro"
            begin_session(connection, self.alias, self._session, commit=not self.is_sqlite, wal=writable)
        here = thread_or_task()
        self._announcing.add(here)
        try:
            self.announce(self.alias, connection)
        finally:
            self._announcing.discard(here)

    def _refuse_nested(self, *arguments: Any) -> None:
        """Raise `ConfigurationError` if a receiver of `connection_created` opens another connection.

        SQLAlchemy holds a lock while it opens the first one, so the receiver would wait for itself.
        """
        if thread_or_task() in self._announcing:
            raise ConfigurationError(
                f"a receiver of connection_created cannot open another connection to {self.alias!r}; "
                "use the connection that it gets"
            )

    def _begin(self, connection: Connection) -> None:
        statement = connection.get_execution_options().get(BEGIN, "BEGIN" if self.given is None else "")
        raw: Any = connection.connection.dbapi_connection
        if self.given is not None and raw.in_transaction:
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
        note_missing(context.sqlalchemy_exception)
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
        if self._engine is not None and not (self.is_memory and self.given is not None):
            self._engine.dispose(close=False)


def _dispose_for_good(engine: Engine) -> None:
    """Close the pooled connections, and drop the statements that SQLAlchemy has compiled, which refer to models.

    Connections that other threads still use are closed when they return: see `Database.checked_in`.
    """
    engine.dispose()
    engine.clear_compiled_cache()
