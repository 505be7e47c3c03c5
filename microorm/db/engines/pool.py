"""Idle connections: ready for the next statement, without a check-out from the pool.

Checking a connection out of SQLAlchemy's pool and in again costs more than most statements on SQLite; on a server, the
ping of the pool and the switch to autocommit are added. So a few connections stay checked out between statements, with
their cursor, and on a server in autocommit. They return to the pool before another thread has to wait for one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sized
from contextlib import suppress
from time import monotonic
from typing import Any
from weakref import ref

from sqlalchemy import Connection, Engine, PoolProxiedConnection
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from microorm.db.engines.events import count_added

TRUSTED = 1.0
"""For how many seconds a connection may stay idle; then it returns to the pool, which pings and recycles it."""
MAX_ROWS = 100
"""An idle cursor whose last result had more rows is replaced: the drivers of servers keep the last result in memory."""

CHANGED = "microorm_changed"
"""The key in the `info` of a connection under which it is noted what microorm has changed of it."""

OPENED = "microorm_opened"
"""The key in the `info` of a connection under which it is noted when it was opened."""

IdleConnection = tuple[PoolProxiedConnection, Any, float]
"""A connection, its cursor, or None if it needs another, and its deadline."""

_inherited: list[IdleConnection] = []
_log = logging.getLogger("microorm.engines")


class Records:
    """The open connections of one engine, by the records of its pool, which are not kept alive."""

    __slots__ = ("_records",)

    def __init__(self) -> None:
        self._records: dict[int, ref[ConnectionPoolEntry]] = {}

    def __iter__(self) -> Iterator[Any]:
        # A copy in one step of the interpreter, since other threads open connections meanwhile.
        for reference in tuple(self._records.values()):
            if (record := reference()) is not None and record.dbapi_connection is not None:
                yield record

    def add(self, record: ConnectionPoolEntry) -> None:
        """Note that the connection of *record* was opened."""
        record.info.setdefault(OPENED, monotonic())
        for key, reference in tuple(self._records.items()):
            if reference() is None:
                self._records.pop(key, None)
        self._records[id(record)] = ref(record)


class IdleConnections:
    """The idle connections of one database, each with its cursor and its deadline; none before `allow()`.

    *wanted*: connections to be opened, which wait until others are closed; meanwhile none is kept. *records*: all that are open.
    """

    __slots__ = (
        "_autocommit",
        "_disposed_at",
        "_engine",
        "_idle",
        "_max_idle",
        "_own_checkouts",
        "_own_listeners",
        "_wanted",
        "records",
    )

    def __init__(self, wanted: Sized = ()) -> None:
        self._idle: list[IdleConnection] = []
        self._engine: Engine | None = None
        self._max_idle = self._own_listeners = self._own_checkouts = 0
        self._autocommit = False
        self._disposed_at = 0.0
        self._wanted = wanted
        self.records = Records()

    def allow(self, engine: Engine, *, autocommit: bool) -> None:
        """Allow idle connections of *engine*, at most half of its pool; *autocommit*: they are switched to it."""
        pool = engine.pool
        self._engine, self._autocommit = engine, autocommit
        self._own_listeners = count_added(engine, "reset")
        self._own_checkouts = count_added(engine, "checkout")
        self._max_idle = pool.size() // 2 if isinstance(pool, QueuePool) else 0

    @property
    def _pool(self) -> Any:
        """The current pool of the engine, which makes a new one when it is disposed."""
        assert self._engine is not None
        return self._engine.pool

    def deadline(self) -> float:
        """Return until when a connection checked out now may stay idle; 0.0 if it may not.

        It may not if the program listens to the pool, since it would miss the uses of the connection.
        """
        if not self._max_idle:
            return 0.0
        events = self._pool.dispatch
        own = self._own_listeners
        listened = (
            len(events.checkout) > self._own_checkouts or len(events.checkin) > own or len(events.reset) > own
        )
        return 0.0 if listened else monotonic() + TRUSTED

    def take(self) -> IdleConnection | None:
        """Remove and return an idle connection; None if there is none, or it has expired: then see `expire`."""
        try:
            idle = self._idle.pop()
        except IndexError:
            return None
        if monotonic() < idle[2]:
            return idle
        self._idle.append(idle)
        return None

    def expire(self) -> None:
        """Return expired connections to the pool, which can take a round trip each, and so be waited for without end."""
        while True:
            try:
                idle = self._idle.pop()
            except IndexError:
                return
            if monotonic() < idle[2]:
                self._idle.append(idle)
                return
            give_back(idle[0])

    def keep(self, connection: PoolProxiedConnection, cursor: Any, deadline: float) -> bool:
        """Keep *connection*, which must have no open transaction, until *deadline*; return False if it may not be kept."""
        if len(self._idle) >= self._max_idle or deadline - TRUSTED < self._disposed_at or self._wanted:
            return False
        if self._autocommit and cursor.rowcount > MAX_ROWS:
            cursor = None  # the next channel makes another
        self._idle.append((connection, cursor, deadline))
        if self._engine.pool.overflow() >= 0:  # type: ignore[union-attr]
            self.make_room()  # another thread may be waiting by now
        return True

    def note_returned(self) -> None:
        """Note that a connection that was not kept is in the pool again, which lets the next thread have it."""

    def in_use(self) -> int:
        """Return how many connections are used by a block or a statement."""
        busy: int = sum(record.in_use for record in self.records)
        return max(0, busy - len(self._idle))

    def has_idle(self) -> bool:
        """Return whether a connection is open that nothing uses."""
        return bool(self._idle) or not all(record.in_use for record in self.records)

    def is_stale(self, record: ConnectionPoolEntry) -> bool:
        """Return whether the connection of *record* was opened before its engine was disposed, so that no pool uses it again."""
        opened: float = record.info.get(OPENED, self._disposed_at)
        return opened < self._disposed_at

    def make_room(self) -> None:
        """Return an idle connection to the pool if the pool has none left within its size."""
        if self._idle and self._pool.overflow() >= 0 and not self._pool.checkedin():
            try:
                connection = self._idle.pop()[0]
            except IndexError:
                return
            give_back(connection)

    def connect(self, engine: Engine) -> Connection:
        """Return SQLAlchemy's connection to *engine*, after making room in its pool."""
        if self._idle:
            self.make_room()
        return engine.connect()

    def clear(self) -> None:
        """Return the idle connections to the pool."""
        while self._idle:
            try:
                connection = self._idle.pop()[0]
            except IndexError:
                return
            give_back(connection)

    def forget(self, *engine: Engine) -> None:
        """Close the idle connections without a question to the server; those in use cannot be kept any more."""
        self._disposed_at = monotonic()
        while self._idle:
            try:
                connection = self._idle.pop()[0]
            except IndexError:
                return
            if connection.is_valid:
                connection.invalidate()
            connection.close()

    def close(self) -> None:
        """Close the idle connections, and keep none from now on."""
        self._max_idle = 0
        self.forget()

    def abandon(self) -> None:
        """In a forked child: drop the parent's idle connections without closing them."""
        _inherited.extend(self._idle)
        self._idle.clear()


def switch_autocommit(connection: PoolProxiedConnection, *, on: bool) -> None:
    """Switch the driver's autocommit *on* or off; it is off again in the pool. Raises what the driver raises."""
    if on:
        connection.info[CHANGED] = "autocommit"
    _set_autocommit(connection.dbapi_connection, on=on)


def switch_readonly(connection: Connection) -> None:
    """Let an SQLite *connection* refuse writes, until it returns to the pool."""
    connection.info[CHANGED] = "readonly"
    connection.exec_driver_sql("PRAGMA query_only=ON")


def give_back(connection: PoolProxiedConnection) -> None:
    """Return *connection* to the pool as it came from there; invalidate it if that fails."""
    try:
        if connection.is_valid:
            _undo_changes(connection.dbapi_connection, connection.info)
    except BaseException as error:
        connection.invalidate(error)
        if not isinstance(error, Exception):
            raise
        _log.debug("a connection that cannot be reset is closed: %s", error)
    finally:
        connection.close()


def reset_state(connection: Any, record: ConnectionPoolEntry | None, *state: object) -> None:
    """Reset the driver's *connection*, which returns to the pool on any way; a listener of the pool.

    After an error SQLAlchemy invalidates it.
    """
    if connection is not None and record is not None:  # a detached connection has no record
        _undo_changes(connection, record.info)


def close_connection(connection: Connection) -> None:
    """Close SQLAlchemy's *connection*; invalidate it if that fails, since SQLAlchemy would keep it checked out."""
    raw = None if connection.closed or connection.invalidated else connection.connection
    try:
        connection.close()
    except BaseException as error:
        if raw is not None and raw.is_valid:
            raw.invalidate(error)
        raise


def _undo_changes(driver: Any, info: dict[Any, Any]) -> None:
    changed = info.get(CHANGED)
    if changed is None:
        return
    if changed == "readonly":
        driver.cursor().execute("PRAGMA query_only=OFF")
    elif driver.get_autocommit() if callable(driver.autocommit) else driver.autocommit:
        _set_autocommit(driver, on=False)
    del info[CHANGED]


def close_cursor(connection: PoolProxiedConnection, cursor: Any) -> None:
    """Close *cursor*; invalidate its *connection* if that fails, which leaves the outcome of statements as it was."""
    try:
        if cursor is not None and connection.is_valid:
            cursor.close()
    except BaseException as error:
        if connection.is_valid:
            connection.invalidate(error)
        if not isinstance(error, Exception):
            raise
        _log.debug("a connection whose cursor cannot be closed is closed: %s", error)


def end_transaction(connection: Any, record: ConnectionPoolEntry) -> None:
    """Roll back before the driver's SQLite *connection* is closed; a listener of its pool.

    A cursor that an error refers to would keep the file locked after the connection is closed.
    """
    with suppress(Exception):  # it is closed already
        connection.rollback()


def _set_autocommit(driver: Any, *, on: bool) -> None:
    if callable(driver.autocommit):
        driver.autocommit(on)
    else:
        driver.autocommit = on
