"""Spares: connections that stay ready for the next statement outside a block.

Taking a connection from SQLAlchemy's pool and giving it back costs more than most statements on SQLite do. A few
are kept out of the pool between two statements, never so many that a block would have to wait for one.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, PoolProxiedConnection
from sqlalchemy.pool import QueuePool

MOST = 2

Spare = tuple[PoolProxiedConnection, Any]

_inherited: list[Spare] = []


class Spares:
    """The spare connections of one database, each with its cursor; none before `allow()`."""

    __slots__ = ("_kept", "_most")

    def __init__(self) -> None:
        self._kept: list[Spare] = []
        self._most = 0

    def allow(self, engine: Engine) -> None:
        """Keep spares from now on, if the pool of *engine* has more connections than that."""
        pool = engine.pool
        self._most = MOST if isinstance(pool, QueuePool) and pool.size() > MOST else 0

    def take(self) -> Spare | None:
        """A spare that nobody uses meanwhile, if there is one."""
        try:
            return self._kept.pop()
        except IndexError:
            return None

    def keep(self, connection: PoolProxiedConnection, cursor: Any) -> bool:
        """Keep a connection that has nothing pending; False where there are enough."""
        if len(self._kept) >= self._most:
            return False
        self._kept.append((connection, cursor))
        return True

    def clear(self) -> None:
        """Give the spares back to the pool."""
        while (spare := self.take()) is not None:
            spare[0].close()

    def close(self) -> None:
        """Give the spares back, and keep no more of them."""
        self._most = 0
        self.clear()

    def abandon(self) -> None:
        """In a forked child: forget the parent's spares without closing them."""
        _inherited.extend(self._kept)
        self._kept.clear()
