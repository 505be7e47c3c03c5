"""How a relay waits for events: for some time, or on PostgreSQL until a commit notifies it.

A notification only shortens a pause. Where it cannot be received, the relay looks once in each pause.

On PostgreSQL a save notifies only while a relay waits. A waiting relay holds an advisory lock; a save that gets a share of
it until its commit does not notify. So a relay that gets the lock knows that no such save is in progress, looks once more,
and is notified of whatever comes later.
"""

from __future__ import annotations

import logging
import os
import selectors
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import PoolProxiedConnection

from microorm.db.databases import Databases
from microorm.outbox.delivery import CHANNEL, WAITS
from microorm.outbox.options import LONGEST

_log = logging.getLogger("microorm.outbox")

_SHORT = 0.02
"""The first pause in seconds while saves, or another relay, hold the lock; each further one is twice as long."""


class Waiter:
    """Waits for notifications of *databases*; `wake()`, from another thread or a signal handler, ends a pause."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self._listening: dict[str, PoolProxiedConnection | None] = {}
        self._locked: set[str] = set()
        self._short = _SHORT
        self._pipe: tuple[int, int] | None = None

    def wait(self, aliases: Sequence[str], seconds: float, stopping: threading.Event) -> None:
        """Return after *seconds*, or earlier if an event was stored on one of *aliases*, or if *stopping* is set.

        It returns at once when it has begun to be notified: an event may have been stored before.
        """
        for alias in set(self._listening).difference(aliases):
            _end(self._listening.pop(alias))
            self._locked.discard(alias)
        begun, notified = False, True
        for alias in aliases:
            if self._connection(alias) is None or alias in self._locked:
                continue
            if self._ask(alias, f"SELECT pg_try_advisory_lock({WAITS})"):
                self._locked.add(alias)
                begun = True
            else:
                notified = False
        if begun:
            return
        if not notified:
            seconds = min(seconds, self._short)
        self._short = _SHORT if notified else min(2 * self._short, LONGEST)
        listening = {found: alias for alias in aliases if (found := self._listening.get(alias)) is not None}
        if listening:
            self._select(listening, seconds, stopping)
        else:
            stopping.wait(seconds)

    def _select(
        self, listening: Mapping[PoolProxiedConnection, str], seconds: float, stopping: threading.Event
    ) -> None:
        """Wait for a notification on one of *listening*, after which its alias notifies no more."""
        if self._pipe is None:
            self._pipe = os.pipe()
            os.set_blocking(self._pipe[1], False)
        if stopping.is_set():
            return
        sockets = {each.dbapi_connection.fileno(): alias for each, alias in listening.items()}  # type: ignore[union-attr]
        with selectors.DefaultSelector() as selector:  # `select` refuses descriptors from 1024 on
            for each in (*sockets, self._pipe[0]):
                selector.register(each, selectors.EVENT_READ)
            ready = [key.fd for key, _ in selector.select(seconds)]
        for number in ready:
            if (alias := sockets.get(number)) is not None:
                self._short = _SHORT
                if alias in self._locked:
                    self._locked.discard(alias)
                    self._ask(alias, f"SELECT pg_advisory_unlock({WAITS})")
                self._read(alias)

    def wake(self) -> None:
        """End the pause."""
        if self._pipe is not None:
            with suppress(OSError):
                os.write(self._pipe[1], b"\0")

    def close(self) -> None:
        """Give up the connections."""
        for connection in self._listening.values():
            _end(connection)
        self._listening.clear()
        self._locked.clear()
        pipe, self._pipe = self._pipe, None
        for end in pipe or ():
            os.close(end)

    def _connection(self, alias: str) -> PoolProxiedConnection | None:
        """Return a connection that listens; None if this database, or its driver, has no notifications."""
        known = self._listening.get(alias)
        if alias in self._listening and (known is None or known.is_valid):
            return known
        self._listening[alias] = None
        self._locked.discard(alias)
        connection: PoolProxiedConnection | None = None
        try:
            database = self._databases.database(alias)
            if database.dialect != "postgresql" or database.engine.dialect.driver != "psycopg":
                return None
            if database.limits.max_connections is not None:  # each alias would keep one from the others
                return None
            connection = database.engine.raw_connection()
            connection.detach()  # so that the alias can be removed
            driver: Any = connection.dbapi_connection
            driver.autocommit = True
            driver.execute(f"LISTEN {CHANNEL}")
        except Exception as error:  # noqa: BLE001 the driver's own; without notifications the pauses are whole
            _log.debug("no notifications of %r: %s", alias, error)
            del self._listening[alias]
            _end(connection)
            return None
        self._listening[alias] = connection
        return connection

    def _ask(self, alias: str, sql: str) -> bool:
        """Return the answer of *alias* to *sql*; False if its connection was lost."""
        return bool(self._used(alias, lambda driver: driver.execute(sql).fetchone()[0]))

    def _read(self, alias: str) -> None:
        """Forget the notifications of *alias* that have arrived."""
        self._used(alias, lambda driver: [*driver.notifies(timeout=0)])

    def _used(self, alias: str, use: Callable[[Any], object]) -> object:
        """Call *use* with the driver's connection to *alias*; None if it was lost."""
        connection = self._listening.get(alias)
        if connection is None:
            return None
        try:
            return use(connection.dbapi_connection)
        except Exception as error:  # noqa: BLE001 the driver's own
            _log.debug("a connection that waits for notifications was lost: %s", error)
            _end(connection)
            del self._listening[alias]
            self._locked.discard(alias)
            return None


def _end(connection: PoolProxiedConnection | None) -> None:
    """Close *connection*, which is not to be used by others, since it listens."""
    if connection is not None:
        with suppress(Exception):  # it was lost
            connection.close()
