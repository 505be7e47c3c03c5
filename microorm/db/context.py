"""The state of a thread or task: its open scopes.

One context variable holds a linked list of scopes, innermost first: `using()` blocks, running receivers, open `atomic()`
blocks and `no_lazy_loads()` blocks. A scope that ends is marked closed, and closed scopes are skipped. `Token.reset` is
not used, since it fails if a generator is closed in another context than the one it was started in.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from microorm.db.hooks import Hook, run_hooks
from microorm.db.owners import running_task
from microorm.errors import LazyLoadError
from microorm.messages import brief

if TYPE_CHECKING:
    pass

T = TypeVar("T")

_log = logging.getLogger("microorm.transactions")

USING = "using"
RECEIVER = "receiver"
BLOCK = "block"
EAGER = "eager"
EXPLICIT = "explicit"
AWAITED = "awaited"


class Scope:
    """An alias of *owner*, a `Databases`, that applies while this scope is open.

    *plain*: this scope and those around it are blocks of one owner, so none of them affects the routing. *of_test*: a block that
    a test has opened around the code under test, and that it rolls back.
    """

    __slots__ = ("alias", "closed", "kind", "of_test", "owner", "parent", "plain")

    def __init__(self, kind: str, owner: object, alias: str) -> None:
        self.kind = kind
        self.owner = owner
        self.alias = alias
        self.closed = False
        self.parent: Scope | None = None
        self.plain = self.of_test = False

    def open(self) -> None:
        """Make this the innermost scope."""
        self._put_inside(_innermost.get())
        _innermost.set(self)

    def close(self) -> None:
        """End this scope, even if it is not the innermost."""
        self.closed = True
        innermost: Scope | None = _innermost.get()
        if innermost is self:
            _innermost.set(self.parent)
        elif innermost is not None and innermost.parent is self:
            # A block that `async with` has begun in an awaited call, which has ended: from now on it is as any other.
            innermost._put_inside(self.parent)

    def _put_inside(self, parent: Scope | None) -> None:
        while parent is not None and parent.closed:
            parent = parent.parent
        self.parent = parent
        self.plain = self.kind is BLOCK and (parent is None or (parent.plain and parent.owner is self.owner))

    def abandon(self) -> None:
        """End this scope because its `with` is over, although it was not left in the regular way."""
        if not self.closed:
            self.close()

    def __enter__(self) -> None:
        self.open()

    def __exit__(self, *exc: object) -> None:
        self.close()


_innermost: ContextVar[Scope | None] = ContextVar("microorm_scope", default=None)


current_scope: Callable[[], Any] = _innermost.get
"""Return the scope that this thread or task has opened last, which may be closed by now, or None."""

set_current_scope: Callable[[Any], object] = _innermost.set
"""Make a scope, or None, the one that `current_scope` returns."""


def innermost() -> Scope | None:
    """Return the innermost open scope of this thread or task, or None."""
    scope = _innermost.get()
    while scope is not None and scope.closed:
        scope = scope.parent
    return scope


def open_scopes(owner: object) -> Iterator[Any]:
    """Yield the open scopes of *owner*, innermost first."""
    return (scope for scope in _all_open() if scope.owner is owner)


def _all_open() -> Iterator[Any]:
    scope = _innermost.get()
    while scope is not None:
        if not scope.closed:
            yield scope
        scope = scope.parent


def open_block(owner: object, alias: str) -> Any:
    """Return the innermost open block of *owner* on *alias*, or None."""
    scope = _innermost.get()
    while scope is not None:
        if scope.kind is BLOCK and scope.alias == alias and scope.owner is owner and not scope.closed:
            return scope
        scope = scope.parent
    return None


def routed_aliases(owner: object) -> tuple[str | None, str | None]:
    """Return the aliases of the innermost `using()` block and of the innermost running receiver of *owner*."""
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
    """Return the alias of the innermost open scope of *owner* that is of one of *kinds*, or None.

    The blocks that a test opens on all aliases do not count: the code under test is routed as it is without them.
    """
    scope = _innermost.get()
    while scope is not None:
        if scope.owner is owner and scope.kind in kinds and not (scope.closed or scope.of_test):
            return scope.alias
        scope = scope.parent
    return None


def awaited_call() -> Any:
    """Return the scope of the awaited call, such as `await book.asave()`, in which this code runs, or None.

    Coroutines that the call awaits, such as async receivers, and tasks that they start are not in it: they can await.
    """
    scope: Any = _innermost.get()
    while scope is not None:
        if scope.kind is AWAITED and not scope.closed:
            return scope if scope.is_running else None
        scope = scope.parent
    return None


def refuse_lazy(instance: Any, name: str, twin: str | None = None) -> None:
    """Raise `LazyLoadError` where the attribute *name* must not be loaded on access; *twin*: what to await first.

    That is so inside `no_lazy_loads()`, and in a coroutine for an instance that an awaited call has loaded or saved.
    """
    why = ""
    if instance._row_state.awaited and running_task() is not None and awaited_call() is None:
        why = f"; in a coroutine, await {twin or f'aload({name!r})'} of the instance first"
    elif next((scope.kind for scope in _all_open() if scope.kind in (EAGER, EXPLICIT)), None) is EAGER:
        why = ", and no_lazy_loads() is on"
    if why:
        raise LazyLoadError(f"{type(instance).__name__}.{name} of {brief(instance)} is not loaded{why}")


def warn_write_outside_block(owner: object, alias: str) -> None:
    """Warn, once per transaction, of a write to *alias* inside a block that is on other aliases only."""
    if current_scope() is None:
        return
    for scope in open_scopes(owner):
        if scope.kind == BLOCK:
            if not scope.transaction.warned:
                scope.transaction.warned = True
                _log.warning(
                    "a write to %r inside a block on %r is not part of the block: it is committed separately",
                    alias,
                    scope.alias,
                )
            return


class ReceiverScope(Scope):
    """The scope of receivers that run because of a write to *alias*.

    For a write outside a block it also collects the calls of `on_commit` receivers, and makes them when it ends, as a
    block would after its commit. *committed*: the write is committed already, so that there is no such block.
    """

    __slots__ = ("committed", "hooks")

    def __init__(self, owner: object, alias: str, committed: bool = False) -> None:
        # `Scope.__init__` in one call with this, since each save with a receiver makes one.
        self.kind = RECEIVER
        self.owner = owner
        self.alias = alias
        self.closed = self.plain = self.of_test = False
        self.parent = None
        self.committed = committed
        self.hooks: deque[Hook] | None = None

    def run(self, function: Callable[..., T], /, *arguments: Any, **named: Any) -> T:
        """Call *function* in this scope, then the postponed functions, and return what *function* returns."""
        try:
            self.open()
            result = function(*arguments, **named)
            self.finish()
        except BaseException as error:
            self.abandon(error)
            raise
        return result

    def postpone(self, function: Callable[[], Any], robust: bool = False) -> None:
        """Call *function* at the end of this scope; log its errors if it is *robust*."""
        if self.hooks is None:
            self.hooks = deque()
        self.hooks.append((function, robust))

    def finish(self, error: BaseException | None = None) -> None:
        """End this scope, and call the postponed functions; *error* is on its way already."""
        self.closed = True  # as `close` does, without the cost of a call
        if _innermost.get() is self:
            _innermost.set(self.parent)
        if self.hooks is not None:
            run_hooks(self.hooks, self.alias if self.committed else None, error)

    def abandon(self, error: BaseException | None = None) -> None:
        """End this scope after an *error*. The postponed functions are called only if the write is *committed*."""
        if self.committed:
            self.finish(error)
        else:
            self.close()

    def __exit__(self, *exc: Any) -> None:
        if exc[0] is None:
            self.finish()
        else:
            self.abandon(exc[1])
