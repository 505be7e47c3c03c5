"""Idle connections: ready for the next statement, without a check-out from the pool.

Checking a connection out of SQLAlchemy's pool and in again costs more than most statements on SQLite; on a server, the
ping of the pool and the switch to autocommit are added. So a few connections stay checked out between statements, with
their cursor, and on a server in autocommit. They return to the pool before another thread has to wait for one.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from sqlalchemy import Connection, Engine, PoolProxiedConnection
from sqlalchemy.pool import QueuePool

TRUSTED = 1.0
"""For how many seconds a connection may stay idle; then it returns to the pool, which pings and recycles it."""
MAX_ROWS = 100
"""An idle cursor whose last result had more rows is replaced: the drivers of servers keep the last result in memory."""

IdleConnection = tuple[PoolProxiedConnection, Any, float]

SWITCHED = "microorm_switched"
"""The name in the `info` of a connection that microorm has switched to autocommit, and the program has not."""

_inherited: list[IdleConnection] = []


class IdleConnections:
    """The idle connections of one database, each with its cursor and its deadline; none before `allow()`."""

    __slots__ = ("_autocommit", "_disposed_at", "_engine", "_idle", "_max_idle")

    def __init__(self) -> None:
        self._idle: list[IdleConnection] = []
        self._engine: Engine | None = None
        self._max_idle = 0
        self._autocommit = False
        self._disposed_at = 0.0

    def allow(self, engine: Engine, *, autocommit: bool) -> None:
        """Allow idle connections of *engine*, at most half of its pool; *autocommit*: they are switched to it."""
        pool = engine.pool
        self._engine, self._autocommit = engine, autocommit
        self._max_idle = pool.size() // 2 if isinstance(pool, QueuePool) else 0

    @property
    def _pool(self) -> Any:
        """The current pool of the engine, which makes a new one when it is disposed."""
        assert self._engine is not None
        return self._engine.pool

    def deadline(self) -> float:
        """Return until when a connection checked out now may stay idle; 0.0 if it may not.

        It may not if the pool has listeners, since they would miss its uses.
        """
        if not self._max_idle:
            return 0.0
        events = self._pool.dispatch
        return 0.0 if events.checkout or events.checkin or events.reset else monotonic() + TRUSTED

    def take(self) -> IdleConnection | None:
        """Remove and return an idle connection, or None; return expired ones to the pool."""
        while True:
            try:
                idle = self._idle.pop()
            except IndexError:
                return None
            if monotonic() < idle[2]:
                return idle
            give_back(idle[0], switched=self._autocommit)

    def keep(self, connection: PoolProxiedConnection, cursor: Any, deadline: float) -> bool:
        """Keep *connection*, which must have no open transaction, until *deadline*; return False if it may not be kept."""
        if len(self._idle) >= self._max_idle or deadline - TRUSTED < self._disposed_at:
            return False
        if self._autocommit and cursor.rowcount > MAX_ROWS:
            cursor = connection.cursor()
        self._idle.append((connection, cursor, deadline))
        if self._engine.pool.overflow() >= 0:  # type: ignore[union-attr]
            self.make_room()  # another thread may be waiting by now
        return True

    def make_room(self) -> None:
        """Return an idle connection to the pool if the pool has none left within its size."""
        if self._idle and self._pool.overflow() >= 0 and not self._pool.checkedin():
            try:
                connection = self._idle.pop()[0]
            except IndexError:
                return
            give_back(connection, switched=self._autocommit)

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
            give_back(connection, switched=self._autocommit)

    def forget(self, *engine: Engine) -> None:
        """Close the idle connections, since their engine was disposed; those in use cannot be kept any more."""
        self._disposed_at = monotonic()
        while self._idle:
            try:
                connection = self._idle.pop()[0]
            except IndexError:
                return
            connection.invalidate()
            connection.close()

    def close(self) -> None:
        """Return the idle connections to the pool, and keep none from now on."""
        self._max_idle = 0
        self.clear()

    def abandon(self) -> None:
        """In a forked child: drop the parent's idle connections without closing them."""
        _inherited.extend(self._idle)
        self._idle.clear()


def switch_autocommit(connection: PoolProxiedConnection, *, on: bool) -> None:
    """Switch the driver's autocommit *on* or off. Raises what the driver raises."""
    driver: Any = connection.dbapi_connection
    if callable(driver.autocommit):
        driver.autocommit(on)
    else:
        driver.autocommit = on


def give_back(connection: PoolProxiedConnection, *, switched: bool) -> None:
    """Return *connection* to the pool; if *switched* to autocommit, switch it back, or invalidate it."""
    try:
        if switched and connection.is_valid:
            switch_autocommit(connection, on=False)
    except BaseException as error:
        connection.invalidate(error)
        if not isinstance(error, Exception):
            raise
    finally:
        connection.close()
