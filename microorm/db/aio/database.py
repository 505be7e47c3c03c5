"""An alias for coroutines: the same database, with an asyncio engine for each event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, ref

from greenlet import GreenletExit
from sqlalchemy import Connection, Engine, PoolProxiedConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from microorm.db.aio import calls
from microorm.db.aio.cursors import PsycopgCursor
from microorm.db.aio.drivers import Driver, driver_of, wait
from microorm.db.aio.greenlets import await_only
from microorm.db.aio.idle import LoopConnections
from microorm.db.aio.loops import EventLoop, event_loop
from microorm.db.context import awaited_call
from microorm.db.engines.engine import Database
from microorm.db.engines.events import EngineListeners, add_listener
from microorm.db.engines.limits import Holder, Turn
from microorm.db.engines.pool import IdleConnections
from microorm.db.engines.urls import asynchronous
from microorm.db.owners import held_transactions, running_task
from microorm.errors import ConfigurationError, TransactionError

T = TypeVar("T")

MAX_OVERFLOW = 10
"""What SQLAlchemy takes where an alias has no option of that name."""


class LoopEngine:
    """The asyncio engine of *database* on *loop*, with its connections."""

    def __init__(
        self, database: AsyncDatabase, loop: EventLoop | None, engine: AsyncEngine, idle: LoopConnections
    ) -> None:
        self.asynchronous = engine
        self.engine: Engine = engine.sync_engine
        self.ended = self.lost = False
        self.alias = database.alias
        self.idle_connections = idle
        self.listeners = EngineListeners()
        self._database = ref(database)
        self._loop = loop
        self._driver = database.driver
        self._limits = database.limits

    def checked_in(self, connection: Any, record: ConnectionPoolEntry) -> None:
        """Close a connection that was used while its loop ended or its database was closed, or that another alias waits for."""
        if connection is not None and (
            self.ended or self._limits.waiting or self.idle_connections.is_stale(record)
        ):
            record.invalidate()

    def has_idle(self) -> bool:
        """Return whether a connection is open that nothing uses, and that `shed` can close."""
        return self.idle_connections.has_idle() and (self._can_close or self._is_unused)

    def shed(self) -> None:
        """Let the event loop close the connections that nothing uses."""
        if self._loop is not None and self._can_close:
            self._loop.begin(lambda: calls.run(self.engine.dispose))
        else:
            self.rest()

    def rest(self) -> bool:
        """Let the event loop close the engine, unless it is in use: it is made again at the next use.

        A loop that does not run may never do so again, such as that of a thread that has run an async receiver: its connections
        are dropped at once.
        """
        in_use = bool(self.idle_connections.in_use())
        if self._loop is not None and not in_use:
            if self._can_close:
                self._loop.begin(lambda: calls.run(self._rest))
            elif self._leave():
                self.abandon(self._loop if self._loop.is_here else None)
        return not in_use

    @property
    def _can_close(self) -> bool:
        return self._loop is not None and self._loop.can_close

    @property
    def _is_unused(self) -> bool:
        return not (self.idle_connections.in_use() or self.listeners.present(self.engine)[1])

    def _rest(self) -> None:
        if self._leave():
            self.close()
        elif not self.ended:
            self.engine.dispose()

    def _leave(self) -> bool:
        """Give up the place, where another engine is made at the next use; return False if this one is in use, or has ended."""
        database = self._database()
        if database is None:
            return False
        with database._lock:
            # It may have been asked to rest twice, and another engine be in its place by now.
            if self.ended or not self._is_unused:
                return False
            self.ended = True
            if self._loop is not None:
                self._loop.engines.pop(database, None)
                database.forget(self._loop)
        if not database.engines:
            database.forget_plans()
        return True

    def close(self) -> None:
        """Close the connections, in an awaited call."""
        self._limits.forget(self)
        self.idle_connections.close()
        self.engine.dispose()

    async def aclose(self) -> None:
        """At the end of the event loop: roll back the blocks that were left open, and close the connections."""
        await calls.run(self._end)

    def _end(self) -> None:
        self.ended = True
        for transaction in held_transactions(awaited_call().loop):
            if transaction.database.engine is self.engine:
                transaction.blocks[0].abandon_left_open("its event loop has ended")
        self.close()

    def abandon(self, loop: EventLoop | None = None) -> None:
        """Drop the connections, where nothing can be awaited; *loop*: theirs, if it is running here."""
        calls.outside(partial(self._abandon, loop))

    def _abandon(self, loop: EventLoop | None) -> None:
        self._limits.forget(self)
        for record in list(self.idle_connections.records):
            _drop(record.dbapi_connection, self._driver, loop)
            self._limits.release(record)
            record.dbapi_connection = None  # `invalidate` would try to await
        self.idle_connections.drop()
        self.engine.dispose(close=False)


class AsyncDatabase(Database):
    """A configured alias, as coroutines reach it; *base* is the same for synchronous code."""

    is_async = True

    def __init__(self, base: Database) -> None:
        if base.is_memory and base.given is not None:
            raise ConfigurationError(
                f"database {base.alias!r} is in memory and was given as an Engine: an asyncio engine cannot reach it"
            )
        self._base = base
        self.engines: dict[EventLoop | None, LoopEngine] = {}
        # Those that were closed while tasks may have blocks open, which give their connections back later.
        self._left: WeakKeyDictionary[EventLoop, LoopEngine] = WeakKeyDictionary()
        super().__init__(base.alias, base, base.announce, base.limits)
        self._guard, self.row_alias = base.guard, base.row_alias
        self.driver = driver_of(self.dialect)

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's synchronous view of the engine of the running event loop."""
        return self._here().engine

    @property
    def async_engine(self) -> AsyncEngine:
        """The asyncio engine of the running event loop."""
        return self._here().asynchronous

    def async_connection(self, connection: Connection) -> AsyncConnection:
        """Return SQLAlchemy's asyncio view of *connection*, which belongs to the engine of the running event loop."""
        return AsyncConnection(self.async_engine, connection)

    @property
    def idle_connections(self) -> IdleConnections:  # type: ignore[override]
        """The idle connections of the running event loop."""
        return self._here().idle_connections

    @property
    def lost(self) -> bool:
        """Whether a connection of the running event loop was lost, and the others were not closed since."""
        kept = self.engines.get(self._loop())
        return kept is not None and kept.lost

    @lost.setter
    def lost(self, lost: bool) -> None:
        if (kept := self.engines.get(self._loop())) is not None:
            kept.lost = lost

    @property
    def _listeners(self) -> EngineListeners:  # type: ignore[override]
        return self._here().listeners

    def announced(self) -> bool:
        """Return whether the engine of the running event loop has made its first connection."""
        return bool(self._here().idle_connections.records)

    def statements_listened(self) -> bool:
        """Return whether the statements of the engine have listeners, or are logged."""
        here = self._here()
        engine = here.engine
        return here.listeners.present(engine)[0] or engine.logger.isEnabledFor(logging.INFO)

    def is_same(self, other: object) -> bool:
        """Return whether *other* is this alias, as synchronous code or as coroutines reach it."""
        return other is self or other is self._base

    def here(self) -> object:
        """Return the event loop."""
        return self._loop()

    def refuse_elsewhere(self, home: object) -> None:
        """Raise `TransactionError` outside awaited calls, and on another event loop than *home*."""
        call = awaited_call()
        if call is None and running_task() is None:
            raise TransactionError(
                f"the open block on {self.alias!r} belongs to a task of an event loop, and this is another thread: "
                "call the function outside the block"
            )
        if call is None:
            raise TransactionError(
                f"the open block on {self.alias!r} was begun by `async with`, so what uses it has to be awaited: "
                "write `await book.asave()` for `book.save()`"
            )
        if call.loop is not home:
            raise TransactionError(f"the open block on {self.alias!r} belongs to another event loop")

    def for_many(self, sql: str) -> str:
        """Return *sql* as the driver can run it for many rows."""
        if "%%" in sql and self.dialect in ("mariadb", "mysql"):
            # asyncmy makes one INSERT of all rows, in which it leaves a doubled % in what follows VALUES as it is. It runs
            # the statement once for each row if that does not begin with INSERT.
            return f"/* many */ {sql}"
        return sql

    def cursor(self, connection: PoolProxiedConnection) -> Any:
        """Return a cursor of *connection* for compiled statements."""
        return self.driver.cursor(connection)

    def is_over(self, home: object) -> bool:
        """Return whether the event loop *home* is closed."""
        return not isinstance(home, EventLoop) or home.is_closed

    def can_wait(self) -> bool:
        """Return whether this code is awaited."""
        return awaited_call() is not None

    def complete(self, step: Callable[[], T]) -> T:
        """Return what *step* returns; a cancellation meanwhile is raised at the end of the awaited call."""
        return calls.complete(step)

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
        stop = self.driver.stop(connection.driver_connection, reads=reads)
        return step() if stop is None else calls.complete(step, stop, undo)

    def synchronous_cursor(self, cursor: Any) -> Any:
        """Return *cursor*, a raw one of psycopg (no other driver has them), as one that is used synchronously."""
        return PsycopgCursor(cursor)

    def recovers(self, connection: PoolProxiedConnection, error: BaseException | None) -> bool:
        """Return whether *connection* can be used again although *error* has interrupted a statement."""
        if not isinstance(error, asyncio.CancelledError) or awaited_call() is None:
            return False
        return self.driver.recovers(connection.driver_connection)

    def discard(self, connection: PoolProxiedConnection, error: BaseException | None) -> None:
        """Close *connection*, whose state is unknown after *error*, at once."""
        call = awaited_call()
        if call is not None and isinstance(error, (GeneratorExit, GreenletExit)):
            call.closing = True  # the coroutine cannot await any more

        def drop() -> None:
            driver = connection.dbapi_connection
            connection.detach()
            connection.invalidate(error)
            if driver is not None:
                _drop(driver, self.driver, None if call is None else call.loop)

        calls.outside(drop)

    def drop_lost_connections(self) -> None:
        """In an awaited call: close the pooled connections of its event loop if one was lost since the last call."""
        if self.lost and awaited_call() is not None:
            self.lost = False
            self.engine.dispose()

    def close(self) -> None:
        """Close the connections of all event loops: at once where this is not awaited, or of other loops."""
        call, here = awaited_call(), self._loop()
        self._closed = True
        while self.engines:
            loop, kept = self.engines.popitem()
            if loop is not None:
                loop.engines.pop(self, None)
                self._left[loop] = kept
            kept.ended = True
            add_listener(kept.engine, "do_connect", self._refuse_closed)
            if call is not None and loop is call.loop:
                kept.close()
            else:
                kept.abandon(here if loop is here else None)
        self._forget_listeners()
        self.forget_plans()

    def in_use(self) -> int:
        """Return how many connections are used by a block or a statement, on all event loops."""
        return sum(kept.idle_connections.in_use() for kept in tuple(self.engines.values()))

    def pause(self, turn: Turn, seconds: float) -> None:
        """Let the task wait for *turn*, for *seconds* at most."""
        await_only(_granted(turn, seconds))

    def _holder(self) -> Holder:
        return self._here()

    def before_fork(self) -> None:
        """Do nothing: the child drops the connections."""

    def after_fork(self) -> None:
        """In the child: drop the parent's connections without closing them."""
        for kept in self.engines.values():
            kept.idle_connections.abandon()
            kept.engine.dispose(close=False)

    def _make_idle(self) -> None:
        """Do nothing: each event loop has idle connections of its own."""

    def _read(self, settings: Any) -> tuple[Any, dict[str, Any]]:
        base: Database = settings
        self.configured_url = asynchronous(base.alias, base.configured_url)
        return base.configured_url, base.options

    def _loop(self) -> EventLoop | None:
        call = awaited_call()
        if call is not None:
            loop: EventLoop = call.loop
            return loop
        try:
            return event_loop(asyncio.get_running_loop())
        except RuntimeError:
            return None

    def _here(self) -> LoopEngine:
        loop = self._loop()
        kept = self.engines.get(loop)
        if kept is None:
            kept = self._make_loop_engine(loop)
        return kept

    def _refuse_closed(self, *arguments: Any) -> None:
        raise ConfigurationError(f"{self.alias!r} was closed while it was used")

    def _make_loop_engine(self, loop: EventLoop | None) -> LoopEngine:
        if self._closed:
            if loop is not None and (kept := self._left.get(loop)) is not None:
                return kept
            self._refuse_closed()
        with self._lock:
            self._forget_ended()
            url = asynchronous(self.alias, self._base.configured_url)
            most, guarded = self.options.get("max_overflow", MAX_OVERFLOW), self._guard is not None
            idle = LoopConnections(most, self.limits.waiting, guarded=guarded)
            kept = LoopEngine(self, loop, self._create(create_async_engine, url), idle)
            self.engines[loop] = kept
        if loop is not None:
            loop.engines[self] = kept
        self._listen(kept.engine, kept.idle_connections)
        if self.is_sqlite:
            add_listener(kept.engine, "do_connect", self._connect)
            self._added.append((kept.engine, "do_connect", self._connect))
        kept.idle_connections.allow(kept.engine, autocommit=not self.autocommits)
        return kept

    def forget(self, loop: EventLoop) -> None:
        """Forget the engine of *loop*, which has ended."""
        if (kept := self.engines.pop(loop, None)) is not None:
            self._added[:] = [each for each in self._added if each[0] is not kept.engine]

    def _forget_ended(self) -> None:
        for loop, kept in list(self.engines.items()):
            if loop is not None and loop.is_closed:
                kept.abandon()
                self.forget(loop)

    def _engine_options(self) -> dict[str, Any]:
        options = super()._engine_options()
        if options.get("poolclass") is QueuePool:  # its counterpart for asyncio is the default
            del options["poolclass"]
        return options

    def _connect(self, dialect: Any, record: ConnectionPoolEntry, args: Any, named: Any) -> Any:
        """Return the driver's new connection. A thread that opens a file cannot be stopped, so a cancellation waits for it."""
        return calls.complete(lambda: dialect.connect(*args, **named), wait, lambda late: late.close())

    def _connected(self, connection: Any, record: ConnectionPoolEntry) -> None:
        self._base.opened = True
        super()._connected(connection, record)


async def _granted(turn: Turn, seconds: float) -> None:
    """Wait until *turn* is granted, by whatever thread, and *seconds* at most."""
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()
    turn.wake = partial(loop.call_soon_threadsafe, woken.set)
    if not turn.granted:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await woken.wait()


def _drop(connection: Any, driver: Driver, loop: EventLoop | None = None) -> None:
    """Close SQLAlchemy's *connection* to *driver* at once, without awaiting anything; *loop*: that which is running."""
    with suppress(Exception):  # it may be closed, or its event loop
        driver.drop(connection, loop)


def awaited(database: Database) -> AsyncDatabase:
    """Return *database* as coroutines reach it. Raises `ConfigurationError` if its driver is only synchronous."""
    return database if isinstance(database, AsyncDatabase) else database.awaited(AsyncDatabase)
