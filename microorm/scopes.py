"""Scopes: what is going on here and now, per thread and per task.

One context variable holds a chain of scopes, innermost first: `using()` blocks, running receivers, open `atomic`
blocks, and where nothing may be loaded lazily. A scope is never taken out with `Token.reset`, which fails where a
generator is closed in another context: it is marked closed, and closed ones are passed over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from microorm.errors import LazyLoadError

_log = logging.getLogger("microorm.transactions")

USING = "using"
RECEIVER = "receiver"
BLOCK = "block"
EAGER = "eager"


class Scope:
    """One alias of one `Databases`, current while this scope is open."""

    __slots__ = ("alias", "closed", "kind", "owner", "parent", "plain")

    def __init__(self, kind: str, owner: object, alias: str) -> None:
        self.kind = kind
        self.owner = owner
        self.alias = alias
        self.closed = False
        self.parent: Scope | None = None
        self.plain = False

    def open(self) -> None:
        """Make this the innermost scope."""
        parent: Scope | None = _innermost.get()
        while parent is not None and parent.closed:
            parent = parent.parent
        self.parent = parent
        # Nothing but blocks of one owner: what routes is then known without going through the chain.
        self.plain = self.kind is BLOCK and (parent is None or (parent.plain and parent.owner is self.owner))
        _innermost.set(self)

    def close(self) -> None:
        """End this scope, wherever it stands in the chain."""
        self.closed = True
        if _innermost.get() is self:
            _innermost.set(self.parent)

    def __enter__(self) -> None:
        self.open()

    def __exit__(self, *exc: object) -> None:
        self.close()


_innermost: ContextVar[Scope | None] = ContextVar("microorm_scope", default=None)


class Entered(Scope):
    """A scope that was opened by entering an `Entrance`."""

    __slots__ = ("entrance",)

    def __init__(self, kind: str, entrance: Entrance, alias: str) -> None:
        super().__init__(kind, entrance.owner, alias)
        self.entrance = entrance

    def open(self) -> None:
        """Make this the innermost scope."""
        super().open()
        self.entrance.entered.append(self)

    def close(self) -> None:
        """End this scope, wherever it stands in the chain."""
        super().close()
        self.entrance.entered.remove(self)


class Entrance:
    """What a `with` is given: a scope is opened each time, so it can be reused, shared, and entered in itself."""

    __slots__ = ("entered", "owner")

    def __init__(self, owner: object) -> None:
        self.owner = owner
        self.entered: list[Any] = []

    def leaving(self) -> Any:
        """The scope to end: the innermost that was opened here, or None where all have ended.

        A generator may be closed in another context than it was started in: then it is the newest of all.
        """
        for scope in open_scopes(self.owner):
            if isinstance(scope, Entered) and scope.entrance is self:
                return scope
        return self.entered[-1] if self.entered else None


class Using(Entrance):
    """`with using(alias)`: the alias for everything in the block."""

    __slots__ = ("alias",)

    def __init__(self, owner: object, alias: str) -> None:
        super().__init__(owner)
        self.alias = alias

    def __enter__(self) -> None:
        Entered(USING, self, self.alias).open()

    def __exit__(self, *exc: object) -> None:
        if (scope := self.leaving()) is not None:
            scope.close()


latest: Callable[[], Any] = _innermost.get
"""The scope that was opened last, in this thread or task, and may be closed by now; or None."""

make_latest: Callable[[Any], object] = _innermost.set
"""Make a scope, or None, the one that was opened last."""


def innermost() -> Scope | None:
    """The innermost open scope of this thread or task, or None."""
    scope = _innermost.get()
    while scope is not None and scope.closed:
        scope = scope.parent
    return scope


def open_scopes(owner: object) -> Iterator[Any]:
    """The open scopes of *owner*, innermost first."""
    scope = _innermost.get()
    while scope is not None:
        if scope.owner is owner and not scope.closed:
            yield scope
        scope = scope.parent


def open_block(owner: object, alias: str) -> Any:
    """The innermost open block of *owner* on *alias*, or None."""
    scope = _innermost.get()
    while scope is not None:
        if scope.kind is BLOCK and scope.alias == alias and scope.owner is owner and not scope.closed:
            return scope
        scope = scope.parent
    return None


def routed_aliases(owner: object) -> tuple[str | None, str | None]:
    """The aliases of the innermost `using()` block and of the innermost running receiver of *owner*."""
    using = receiver = None
    scope = _innermost.get()
    while scope is not None:
        if scope.kind is not BLOCK and scope.owner is owner and not scope.closed:
            if scope.kind is USING:
                using = using or scope.alias
            else:
                receiver = receiver or scope.alias
        scope = scope.parent
    return using, receiver


def current_alias(owner: object, *kinds: str) -> str | None:
    """The alias of the innermost open scope of *owner* that is of one of *kinds*, or None."""
    scope = _innermost.get()
    while scope is not None:
        if scope.owner is owner and scope.kind in kinds and not scope.closed:
            return scope.alias
        scope = scope.parent
    return None


def refuse_lazy(instance: object, name: str) -> None:
    """Raise `LazyLoadError` where no attribute may be loaded by a statement of its own, as *name* is to be now."""
    scope = _innermost.get()
    while scope is not None:
        if scope.kind is EAGER and not scope.closed:
            raise LazyLoadError(
                f"{type(instance).__name__}.{name} of {instance!r} is not loaded, and no_lazy_loads() is on"
            )
        scope = scope.parent


def note_split_write(owner: object, alias: str) -> None:
    """Log once per transaction that a write goes to *alias*, on which no block is open, while one is elsewhere."""
    if latest() is None:
        return
    for scope in open_scopes(owner):
        if scope.kind == BLOCK:
            if not scope.transaction.warned:
                scope.transaction.warned = True
                _log.warning(
                    "a write to %r inside a block on %r is a transaction of its own", alias, scope.alias
                )
            return
