"""Drivers for asyncio: how each stops a statement, goes on after that, and closes a connection where nothing can be awaited."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakSet

from sqlalchemy import PoolProxiedConnection

from microorm.db.aio import calls
from microorm.db.aio.cursors import AiosqliteCursor, PsycopgCursor
from microorm.db.aio.loops import EventLoop

STATEMENT_TIMEOUT = 0.5
"""For how many seconds a cancelled task waits for the statement that it has left; a longer one costs the connection."""

Stop = Callable[[], Awaitable[object]]


class Driver:
    """What all drivers do, and asyncmy: a cancelled statement costs the connection."""

    def cursor(self, connection: PoolProxiedConnection) -> Any:
        """Return a cursor of *connection* for compiled statements."""
        return connection.cursor()

    def stop(self, driver: Any, *, reads: bool) -> Stop | None:
        """Return what stops the statement that runs on *driver*, the driver's own connection; None if nothing does.

        *reads*: the statement changes nothing.
        """
        return None

    def recovers(self, driver: Any) -> bool:
        """Return whether *driver* can be used again after a statement on it was cancelled."""
        return False

    def drop(self, connection: Any, loop: EventLoop | None) -> None:
        """Close SQLAlchemy's *connection* to the driver at once; *loop*: that which is running. May raise any error."""
        connection.terminate()


class Aiosqlite(Driver):
    """Each connection has a thread, which goes on with a statement that was cancelled, unless it is interrupted."""

    def __init__(self) -> None:
        self._stopped: WeakSet[Any] = WeakSet()

    def cursor(self, connection: PoolProxiedConnection) -> Any:
        """Return a cursor that makes one call of the thread for each statement."""
        return AiosqliteCursor(connection)

    def stop(self, driver: Any, *, reads: bool) -> Stop:
        """Return what interrupts a read, or waits for a write: SQLite rolls back the transaction of one that is interrupted."""
        stop: Stop = driver.interrupt if reads else wait
        return stop

    def recovers(self, driver: Any) -> bool:
        """Wait for a moment until the thread is done; return whether it is."""
        return calls.complete(lambda: calls.wait(_is_done(driver)))

    def drop(self, connection: Any, loop: EventLoop | None) -> None:
        """Let the thread close the connection and end, which *loop* waits for before it is closed."""
        driver = connection.driver_connection
        if driver in self._stopped:  # its thread would not answer again
            return
        self._stopped.add(driver)
        if asyncio._get_running_loop() is None:
            _in_thread(driver.stop)
            return
        ending = driver.stop()
        if loop is not None and ending is not None:
            loop.wait_for(ending)


class Psycopg(Driver):
    """The server is asked to cancel a statement, and says when it has."""

    def cursor(self, connection: PoolProxiedConnection) -> Any:
        """Return a cursor that awaits once for each statement."""
        driver: Any = connection.driver_connection
        return PsycopgCursor(driver.cursor())

    def stop(self, driver: Any, *, reads: bool) -> Stop:
        """Return what asks the server to cancel the statement."""
        stop: Stop = driver.cancel_safe
        return stop

    def recovers(self, driver: Any) -> bool:
        """Return whether the connection waits for a statement: psycopg has cancelled the last one."""
        return driver.info.transaction_status in (0, 2, 3)  # libpq: 0 is idle, 2 and 3 are in a transaction

    def drop(self, connection: Any, loop: EventLoop | None) -> None:
        """Close the connection by libpq, which waits for nothing."""
        connection.driver_connection.pgconn.finish()


_KINDS: dict[str, type[Driver]] = {
    "sqlite": Aiosqlite,
    "postgresql": Psycopg,
    "mysql": Driver,
    "mariadb": Driver,
}


def driver_of(dialect: str) -> Driver:
    """Return how the driver of *dialect* behaves: `urls.asynchronous` allows one driver for each."""
    return _KINDS[dialect]()


def _in_thread(stop: Callable[[], object]) -> None:
    """Call *stop* in a thread of its own: aiosqlite asks asyncio for an event loop, which would be made for this thread."""
    thread = threading.Thread(target=stop, name="microorm-aiosqlite-stop")
    try:
        thread.start()
    except RuntimeError:  # the interpreter is ending
        stop()
    else:
        thread.join()


async def wait() -> None:
    """Stop nothing: what was begun is waited for."""


async def _is_done(driver: Any) -> bool:
    """Wait until aiosqlite's connection *driver* has nothing to do any more; return False if that takes long."""
    try:
        async with asyncio.timeout(STATEMENT_TIMEOUT), driver.execute("SELECT 1"):
            return True
    except TimeoutError:
        return False
