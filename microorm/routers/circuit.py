"""The circuit of a replica: whether it can be reached, and which request finds that out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from microorm.db.engines.engine import Database
from microorm.db.engines.guards import Guard
from microorm.db.engines.pool import close_connection
from microorm.messages import brief
from microorm.routers.bounded import LimitReached, within

T = TypeVar("T")

UNKNOWN, UP, DOWN = "unknown", "up", "down"
UNREACHABLE = (DBAPIError, PoolTimeout, OSError)
"""The errors by which a connection cannot be made, as a program sees them."""
PATIENCE = 0.1
"""The part of its limit for which an attempt to connect may last before other requests pass the replica over.

A request that has waited longer in vain reads from the primary, so that it does not wait for one replica after another.
"""
LONG = "microorm_long"
"""The attribute of an error that says that the request has waited long for the connection."""
MAX_HANGING = 3
"""How many attempts may hang beyond their limit before a replica is not tried any more until one of them ends."""

_log = logging.getLogger("microorm.routers")


class Replica:
    """One replica: its alias, its share of the reads, and its state.

    A replica that is `UP` is read by all. Any other is tried by one request at a time: at once if its state is `UNKNOWN`, and
    *retry_after* seconds after the last failure if it is `DOWN`. Meanwhile the others pass it over.
    """

    def __init__(self, alias: str, weight: float, timeout: float, retry_after: float) -> None:
        self.alias = alias
        self.weight = weight
        self.turn = 0.0  # in a weighted round robin
        self.replayed = 0  # the position in the log of the primary that it was seen to have reached
        self.state = UNKNOWN
        self.failures = 0
        self._timeout = timeout
        self._retry_after = retry_after
        self._bounded = True
        self._lock = threading.Lock()
        self._retry_at = 0.0
        self._probing = False
        self._hanging = 0  # and those attempts that are still within their limit
        self._attempts: dict[object, float] = {}

    def reset(self, database: Database) -> None:
        """Begin anew with *database*, of which nothing is known."""
        self.__init__(self.alias, self.weight, self._timeout, self._retry_after)  # type: ignore[misc]
        self._bounded = not database.is_sqlite  # which has no network

    def ready(self, database: Callable[[], Database]) -> bool:
        """Return whether *database* can be read; if that is not known, connect to it, unless another request does."""
        with self._lock:
            now = monotonic()
            if self.state is UP:
                return not any(map(self._is_long, self._attempts.values()))
            if self._probing or now < self._retry_at or self._hanging >= MAX_HANGING:
                return False
            self._probing = True
        try:
            close_connection(database().connect())
        except UNREACHABLE:
            return False
        finally:
            self._probing = False
        return True

    def reach(self, connect: Callable[[], T]) -> T:
        """Return the connection that *connect* makes, within the limit, and take note of the outcome."""
        attempt, begun = object(), monotonic()
        with self._lock:
            self._attempts[attempt] = begun
        try:
            connection = connect() if not self._bounded else self._within_limit(connect)
        except UNREACHABLE as error:
            self.failed(error)
            setattr(error, LONG, self._is_long(begun))
            raise
        finally:
            with self._lock:
                del self._attempts[attempt]
        if self.state is not UP:
            self._answered()
        return connection

    def has_kept_waiting(self, begun: float) -> bool:
        """Return whether a request has waited for the replica since *begun* in vain, and too long to try another one."""
        return self.state is DOWN and self._is_long(begun)

    def failed(self, error: BaseException) -> None:
        """Pass the replica over for a while."""
        with self._lock:
            self.failures += 1
            fell, self.state = self.state is not DOWN, DOWN
            self._retry_at = monotonic() + self._retry_after
        if fell:
            _log.warning(
                "the replica %r cannot be reached, and is asked again after %g s: %s",
                self.alias,
                self._retry_after,
                brief(error),
            )

    def _is_long(self, begun: float) -> bool:
        return monotonic() - begun > PATIENCE * self._timeout

    def _answered(self) -> None:
        with self._lock:
            came_back, self.state = self.state is DOWN, UP
        if came_back:
            _log.warning("the replica %r can be reached again", self.alias)

    def _within_limit(self, connect: Callable[[], T]) -> T:
        with self._lock:
            self._hanging += 1
        try:
            connection: T = within(self._timeout, connect, _give_back, self._ended)
        except LimitReached:
            raise PoolTimeout(f"no connection to {self.alias!r} within {self._timeout:g} s") from None
        return connection

    def _ended(self) -> None:
        with self._lock:
            self._hanging -= 1


class ReplicaGuard(Guard):
    """Watches the connections to a replica; *instead* says where to read if it cannot be reached."""

    def __init__(
        self, replica: Replica, copy_of: str, instead: Callable[[Replica, bool], Database | None]
    ) -> None:
        self.copy_of = copy_of
        self._replica = replica
        self._instead = instead

    def reach(self, connect: Callable[[], T]) -> T:
        """Return the connection that *connect* makes, or raise that it cannot be made in time."""
        return self._replica.reach(connect)

    def instead(self, error: BaseException) -> Database | None:
        """Return where to read instead, if *error* says that the replica cannot be reached."""
        if not isinstance(error, UNREACHABLE):
            return None
        return self._instead(self._replica, getattr(error, LONG, False))


def _give_back(connection: Any) -> None:
    """Return a connection to its pool that was made too late."""
    try:
        connection.close()
    except SQLAlchemyError as error:
        _log.debug("a late connection cannot be given back: %s", error)
