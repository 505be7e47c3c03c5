"""Guards: what a router attaches to an alias, to watch the connections to it and to hear of what is written there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from microorm.db.engines.engine import Database

T = TypeVar("T")


class Guard:
    """Watch one alias for a router. Each method does what is done without a guard; override what you need.

    *copy_of*: the alias of which this one is a copy. Its rows are those of that alias: an instance that is loaded here
    belongs there.
    """

    copy_of: str | None = None

    def reach(self, connect: Callable[[], T]) -> T:
        """Return what *connect* returns: a connection, new or from the pool."""
        return connect()

    def instead(self, error: BaseException) -> Database | None:
        """Return where to read instead, after `reach` has raised *error* and nothing was sent; None to raise it."""
        return None

    def written(self) -> None:
        """Note that this thread or task has written something, which is committed now."""


def attach(router: Any, databases: Any, aliases: Any) -> None:
    """Call `configured(databases, aliases)` of *router*, if it has that method."""
    configured = getattr(router, "configured", None)
    if configured is not None:
        configured(databases, aliases)
