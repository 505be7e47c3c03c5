"""Spares: connections that stay ready for the next statement outside a block.

Taking a connection from SQLAlchemy's pool and giving it back costs more than most statements on SQLite do, and on a
server the pool's ping and what switches autocommit come on top. A few are kept out of the pool between two
statements, with their cursor, and on a server in autocommit. They go back before a block would have to wait for one.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from sqlalchemy import Connection, Engine, PoolProxiedConnection
from sqlalchemy.pool import QueuePool

TRUSTED = 1.0
"""For how many seconds a connection from the pool is used without asking the pool, which pings and recycles, again."""
MOST_ROWS = 100
"""How many rows a cursor that is kept may hold on to: drivers of servers keep the last result."""

Spare = tuple[PoolProxiedConnection, Any, float]

_inherited: list[Spare] = []


class Spares:
    """The spare connections of one database, each with its cursor and its deadline; none before `allow()`."""

    __slots__ = ("_autocommit", "_engine", "_forgotten", "_kept", "_most")

    def __init__(self) -> None:
        self._kept: list[Spare] = []
        self._engine: Engine | None = None
        self._most = 0
        self._autocommit = False
        self._forgotten = 0.0  # when the engine was disposed

    def allow(self, engine: Engine, *, autocommit: bool) -> None:
        """Keep spares of *engine* from now on, half of its pool at most; *autocommit*: they were switched to it."""
        pool = engine.pool
        self._engine, self._autocommit = engine, autocommit
        self._most = pool.size() // 2 if isinstance(pool, QueuePool) else 0

    @property
    def _pool(self) -> Any:
        """The pool of the engine, which makes another when it is disposed."""
        assert self._engine is not None
        return self._engine.pool

    def deadline(self) -> float:
        """Until when a connection that the pool gives out now may be a spare; 0.0 where none may."""
        if not self._most:
            return 0.0
        heard = self._pool.dispatch
        return 0.0 if heard.checkout or heard.checkin or heard.reset else monotonic() + TRUSTED

    def take(self) -> Spare | None:
        """A spare that nobody uses meanwhile, if there is one; the pool gets those back whose deadline is over."""
        while True:
            try:
                spare = self._kept.pop()
            except IndexError:
                return None
            if monotonic() < spare[2]:
                return spare
            give_back(spare[0], switched=self._autocommit)

    def keep(self, connection: PoolProxiedConnection, cursor: Any, deadline: float) -> bool:
        """Keep a connection that has nothing pending until *deadline*; False where there are enough."""
        if len(self._kept) >= self._most or deadline - TRUSTED < self._forgotten:
            return False
        if self._autocommit and cursor.rowcount > MOST_ROWS:
            cursor = connection.cursor()
        self._kept.append((connection, cursor, deadline))
        if self._engine.pool.overflow() >= 0:  # type: ignore[union-attr]
            self.make_room()  # somebody may be waiting by now
        return True

    def make_room(self) -> None:
        """Give a spare back if the pool has no connection left but those beyond its size."""
        if self._kept and self._pool.overflow() >= 0 and not self._pool.checkedin():
            try:
                connection = self._kept.pop()[0]
            except IndexError:
                return
            give_back(connection, switched=self._autocommit)

    def connect(self, engine: Engine) -> Connection:
        """SQLAlchemy's connection to *engine*, for which a spare makes room."""
        if self._kept:
            self.make_room()
        return engine.connect()

    def clear(self) -> None:
        """Give the spares back to the pool."""
        while self._kept:
            try:
                connection = self._kept.pop()[0]
            except IndexError:
                return
            give_back(connection, switched=self._autocommit)

    def forget(self, *engine: Engine) -> None:
        """Close the spares, and those in use when they come back: their engine was disposed."""
        self._forgotten = monotonic()
        while self._kept:
            try:
                connection = self._kept.pop()[0]
            except IndexError:
                return
            connection.invalidate()
            connection.close()

    def close(self) -> None:
        """Give the spares back, and keep no more of them."""
        self._most = 0
        self.clear()

    def abandon(self) -> None:
        """In a forked child: forget the parent's spares without closing them."""
        _inherited.extend(self._kept)
        self._kept.clear()


def switch_autocommit(connection: PoolProxiedConnection, *, on: bool) -> None:
    """Let each statement commit by itself, or no longer. Raises what the driver raises."""
    driver: Any = connection.dbapi_connection
    if callable(driver.autocommit):
        driver.autocommit(on)
    else:
        driver.autocommit = on


def give_back(connection: PoolProxiedConnection, *, switched: bool) -> None:
    """Let the pool have *connection*; one that was *switched* to autocommit is switched back, or dropped."""
    try:
        if switched and connection.is_valid:
            switch_autocommit(connection, on=False)
    except BaseException as error:
        connection.invalidate(error)
        if not isinstance(error, Exception):
            raise
    finally:
        connection.close()
