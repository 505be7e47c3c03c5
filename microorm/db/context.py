"""The state of a thread or task: its open scopes, the ownership of transactions, and forks.

One context variable holds a linked list of scopes, innermost first: `using()` blocks, running receivers, open `atomic()`
blocks and `no_lazy_loads()` blocks. A scope that ends is marked closed, and closed scopes are skipped. `Token.reset` is
not used, since it fails if a generator is closed in another context than the one it was started in.

Context variables are inherited, so child tasks, threads that run in a copied context and forked processes see the blocks
of their parents. A connection serves one user at a time, so an `Owner` refuses them. Connections that a forked process
has inherited are dropped without being closed, since the parent continues to use them.

The functions of microorm are synchronous: while one waits, no task of its thread runs. If a task holds a block over an
`await`, and has locked the database by it, another task that needs the lock would wait until the database gives up, so it is
refused (`refuse_to_wait`).
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from microorm.db.hooks import Hook, run_hooks
from microorm.errors import LazyLoadError, TransactionSharedError
from microorm.messages import brief

if TYPE_CHECKING:
    import asyncio

    from microorm.db.engine import Database
    from microorm.db.transaction import Transaction

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


def running_task() -> asyncio.Task[Any] | None:
    """Return the task that is running in this thread, or None."""
    module: Any = sys.modules.get("asyncio")  # without the import, no task can be running
    # In asyncio's `__all__`, for event loops; unlike `get_running_loop`, it costs no exception where there is none.
    if module is None or (loop := module._get_running_loop()) is None:
        return None
    task: asyncio.Task[Any] | None = module.current_task(loop)
    return task


class Owner:
    """The task or thread that has opened a transaction. After it has ended, the next user becomes the owner.

    Tasks may use the transactions of the thread that runs them, since it waits for them meanwhile. *thread*: the number
    of the thread that may use the transaction without further checks, or None.
    """

    __slots__ = ("_process", "_task", "_thread", "_thread_id", "thread")

    _task: weakref.ref[asyncio.Task[Any]] | None
    thread: int | None

    def __init__(self) -> None:
        task = running_task()
        self._process = _Process.token
        self._thread = threading.current_thread()
        self._thread_id = get_ident()
        self._task = None if task is None else weakref.ref(task)
        self.thread = self._thread_id if task is None else None

    @property
    def forked(self) -> bool:
        """Whether the transaction was inherited through a fork."""
        return self._process is not _Process.token

    @property
    def ended(self) -> bool:
        """Whether the task has ended, or the thread if it was no task."""
        if self._task is None:
            return not self._thread.is_alive()
        task = self._task()
        return task is None or task.done()

    def check(self, alias: str) -> None:
        """Raise `TransactionSharedError` unless this thread and task may use the transaction on *alias*."""
        if self._process is _Process.token:
            if self.thread == get_ident():
                return
            if self._task is not None and (task := self._task()) is not None and task is running_task():
                return
        if (owner := self._foreign_kind()) is not None:
            raise TransactionSharedError(f"the open block on {alias!r} belongs to another {owner}")

    def waiting_task(self) -> asyncio.Task[Any] | None:
        """Return the task that owns the transaction, if it has not ended and runs in this thread; else None."""
        task = None if self._task is None else self._task()
        mine = self._thread_id == get_ident() and not self.forked
        return task if mine and task is not None and not task.done() else None

    def after_fork(self) -> None:
        """In a forked child, whose thread has the same number: require the full check."""
        self.thread = None

    def _foreign_kind(self) -> str | None:
        """Return the kind of the owner, which is not the caller, if the caller must not use the transaction, else None.

        If the owner has ended, the caller becomes the owner.
        """
        if self.forked:
            return "process"
        if self.ended:
            Owner.__init__(self)
            return None
        return "task" if self._thread_id == get_ident() else "thread"


class Inheritable(Protocol):
    """An object that holds connections, which a forked child inherits."""

    def before_fork(self) -> None:
        """Prepare for the fork, in the parent."""
        ...

    def after_fork(self) -> None:
        """Drop the connections, in the child, without closing them on the server."""
        ...


_watched: dict[int, weakref.ref[Inheritable]] = {}
_held: list[Inheritable] = []
held_by_tasks: dict[int, weakref.ref[Any]] = {}
"""The transactions that a task of an event loop has begun and not ended; see `refuse_to_wait`."""
begun_by_tasks: ContextVar[dict[int, Transaction] | None] = ContextVar("microorm_begun", default=None)
"""Where this task and its child tasks note the transactions that they have begun and not ended, if anywhere."""


def note_task(transaction: Transaction) -> None:
    """Note that *transaction*, which has begun, belongs to a task, until `context.forget` is called for it."""
    held_by_tasks[id(transaction)] = weakref.ref(transaction)
    if (begun := begun_by_tasks.get()) is not None:
        begun[id(transaction)] = transaction


def held_transactions(home: object) -> list[Transaction]:
    """Return the transactions that tasks of *home*, an event loop, have begun and not ended."""
    found = [reference() for reference in list(held_by_tasks.values())]
    return [each for each in found if each is not None and each.home is home]


def refuse_to_wait(database: Database) -> None:
    """Raise `TransactionSharedError` if a task that cannot run now, since this thread would wait, has locked *database*.

    That is so on SQLite, where a block locks the whole database as it begins. The servers lock rows, which only they know.
    An awaited call does not stop the thread while it waits.
    """
    if database.is_async:
        return
    for key, reference in list(held_by_tasks.items()):
        transaction = reference()
        if transaction is None:  # it was dropped, not ended
            held_by_tasks.pop(key, None)
            continue
        if not transaction.database.is_sqlite or transaction.database.url != database.url:
            continue
        task = transaction.owner.waiting_task()
        if task is None or task is running_task() or transaction.blocks[0].readonly:
            continue
        raise TransactionSharedError(
            f"{database.alias!r} is locked by the block that the task {task.get_name()!r} has open while it awaits "
            "something; to wait for it here would stop the event loop, and so that task. Await the call, as in `await "
            "book.asave()` for `book.save()`, and write `async with atomic():`"
        )


class _Process:
    """The token of this process, which a fork replaces."""

    token = object()


def process() -> object:
    """Return an object that identifies this process; a forked child has another one."""
    return _Process.token


def watch(inheritable: Inheritable, *, dies: bool = False) -> None:
    """Call the methods of *inheritable* at each fork from now on, as long as it is alive; *dies*: nothing forgets it before."""
    key = id(inheritable)
    _watched[key] = weakref.ref(inheritable, (lambda _: _watched.pop(key, None)) if dies else None)


def forget(inheritable: Inheritable) -> None:
    """Stop calling the methods of *inheritable* at forks."""
    _watched.pop(id(inheritable), None)
    if held_by_tasks:
        held_by_tasks.pop(id(inheritable), None)
        if (begun := begun_by_tasks.get()) is not None:
            begun.pop(id(inheritable), None)


def _before() -> None:
    # Kept alive, since the child has no other threads, and so nothing that holds their connections: collected there,
    # these would end the sessions of the parent on the server.
    _held.extend(found for reference in list(_watched.values()) if (found := reference()) is not None)
    for inheritable in _held:
        inheritable.before_fork()


def _after_in_child() -> None:
    _Process.token = object()
    for inheritable in _held:
        inheritable.after_fork()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_held.clear, after_in_child=_after_in_child)
