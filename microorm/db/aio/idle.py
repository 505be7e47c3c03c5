"""The idle connections of one event loop, which tasks hand to each other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sized
from contextlib import suppress
from time import monotonic
from typing import Any

from sqlalchemy import Engine, PoolProxiedConnection
from sqlalchemy.exc import TimeoutError
from sqlalchemy.pool import QueuePool

from microorm.db.aio import calls
from microorm.db.engines.pool import TRUSTED, IdleConnection, IdleConnections

WAIT_FOR_ANOTHER = 0.01
"""For how many seconds a task waits for the connection of another one: less than it takes to open one on most servers."""
LOOK_AGAIN = 0.05
"""After how many seconds a task in the line sees whether a connection has gone back to the pool instead."""


class LoopConnections(IdleConnections):
    """The idle connections of one database on one event loop: as many as the pool keeps open.

    If the pool has none left within its size, a task waits for a moment for the next one that is done with a connection, before
    it opens one more. Where the pool may open no more, the task stays in the line: in that of the pool it would see others get
    the connections that tasks hand to each other. Those need neither a rollback nor a ping nor a new cursor, each of which
    is awaited.

    *guarded*: a guard limits how long the pool is waited for, so that each task goes there after that moment.
    """

    __slots__ = ("_guarded", "_max_overflow", "_waiting")

    def __init__(self, max_overflow: int, wanted: Sized = (), *, guarded: bool = False) -> None:
        super().__init__(wanted)
        self._max_overflow = max_overflow
        self._guarded = guarded
        self._waiting: deque[asyncio.Future[IdleConnection | None]] = deque()

    def allow(self, engine: Engine, *, autocommit: bool) -> None:
        """Allow idle connections of *engine*, as many as its pool keeps; *autocommit*: they are switched to it."""
        super().allow(engine, autocommit=autocommit)
        pool = engine.pool
        self._max_idle = pool.size() if isinstance(pool, QueuePool) else 0

    def take(self) -> IdleConnection | None:
        """Remove and return an idle connection, or None; wait for one if the pool has none within its size.

        Raises SQLAlchemy's `TimeoutError` as the pool does.
        """
        idle = super().take()
        if idle is not None or self._idle or not self._max_idle:
            return idle
        pool = self._pool
        if pool.overflow() >= 0 and (self._waiting or not pool.checkedin()):
            return calls.wait(self._handed())
        return None

    def keep(self, connection: PoolProxiedConnection, cursor: Any, deadline: float) -> bool:
        """Give *connection* to a task that waits, or keep it as the connections of threads are kept."""
        if self._waiting and self._max_idle and deadline - TRUSTED >= self._disposed_at:
            return monotonic() < deadline and self._hand_on((connection, cursor, deadline))
        return super().keep(connection, cursor, deadline)

    def note_returned(self) -> None:
        """Send the task that waits for the longest time to the pool, which has a connection again."""
        self._hand_on(None)

    def _hand_on(self, idle: IdleConnection | None) -> bool:
        """Hand *idle* to the task that waits for the longest time; return False if none does."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(idle)
                return True
        return False

    def make_room(self) -> None:
        """Return an idle connection to the pool if the pool has none left, beyond its size, too."""
        if self._idle and self._is_exhausted():
            super().make_room()

    def drop(self) -> None:
        """Forget the idle connections, whose driver's connections were dropped, so that the last of these can be freed."""
        self._max_idle = 0
        while self._idle:
            connection = self._idle.pop()[0]
            with suppress(Exception):  # the pool wakes a task of the event loop, which is closed
                connection.detach()
                connection.invalidate()

    def _is_exhausted(self) -> bool:
        return self._is_full() and not self._pool.checkedin()

    def _is_full(self) -> bool:
        """Return whether the pool may open no more connections."""
        return 0 <= self._max_overflow <= int(self._pool.overflow())

    async def _handed(self) -> IdleConnection | None:
        """Wait in line for the connection of another task; return None if the pool may open one, or has one for the first."""
        waiting, begun = asyncio.get_running_loop().create_future(), monotonic()
        self._waiting.append(waiting)
        try:
            await asyncio.wait([waiting], timeout=WAIT_FOR_ANOTHER)
            while not (waiting.done() or self._guarded) and self._is_full():
                if self._waiting[0] is waiting and self._pool.checkedin():
                    break
                if monotonic() - begun >= self._pool.timeout():
                    raise self._timed_out()
                await asyncio.wait([waiting], timeout=LOOK_AGAIN)
        except BaseException:
            if waiting.done() and (handed := waiting.result()) is not None and not self._hand_on(handed):
                self._idle.append(handed)
            raise
        finally:
            if not waiting.done():
                waiting.cancel()
                self._waiting.remove(waiting)
        return None if waiting.cancelled() else waiting.result()

    def _timed_out(self) -> TimeoutError:
        """Return the error of a pool that has had no connection for too long."""
        pool = self._pool
        return TimeoutError(
            f"QueuePool limit of size {pool.size()} overflow {self._max_overflow} reached, connection timed out, "
            f"timeout {pool.timeout():0.2f}",
            code="3o7r",
        )
