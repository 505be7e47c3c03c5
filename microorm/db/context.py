"""The state of a thread or task: its open scopes, the ownership of transactions, and forks.

One context variable holds a linked list of scopes, innermost first: `using()` blocks, running receivers, open `atomic()`
blocks and `no_lazy_loads()` blocks. A scope that ends is marked closed, and closed scopes are skipped. `Token.reset` is
not used, since it fails if a generator is closed in another context than the one it was started in.

Context variables are inherited, so child tasks, threads that run in a copied context and forked processes see the blocks
of their parents. A connection serves one user at a time, so an `Owner` refuses them. Connections that a forked process
has inherited are dropped without being closed, since the parent continues to use them.

Functions that wait for a commit are run here as well (`run_hooks`). The functions of microorm are synchronous: while one
waits, no task of its thread runs. If a task holds a block over an `await`, and has locked the database by it, another task
that needs the lock would wait until the database gives up, so it is refused (`refuse_to_wait`).
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
from operator import call, itemgetter
from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from microorm.errors import LazyLoadError, TransactionSharedError, after_commit, is_interrupt
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


class Scope:
    """An alias of *owner*, a `Databases`, that applies while this scope is open.

    *plain*: this scope and those around it are blocks of one owner, so none of them affects the routing.
    """

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
        self.plain = self.kind is BLOCK and (parent is None or (parent.plain and parent.owner is self.owner))
        _innermost.set(self)

    def close(self) -> None:
        """End this scope, even if it is not the innermost."""
        self.closed = True
        if _innermost.get() is self:
            _innermost.set(self.parent)

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
    scope = _innermost.get()
    while scope is not None:
        if scope.owner is owner and not scope.closed:
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
    """Return the alias of the innermost open scope of *owner* that is of one of *kinds*, or None."""
    scope = _innermost.get()
    while scope is not None:
        if scope.owner is owner and scope.kind in kinds and not scope.closed:
            return scope.alias
        scope = scope.parent
    return None


def refuse_lazy(instance: object, name: str) -> None:
    """Raise `LazyLoadError` inside `no_lazy_loads()`, where the attribute *name* must not be loaded on access."""
    scope = _innermost.get()
    while scope is not None:
        if scope.kind is EAGER and not scope.closed:
            raise LazyLoadError(
                f"{type(instance).__name__}.{name} of {brief(instance)} is not loaded, and no_lazy_loads() is on"
            )
        scope = scope.parent


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


Hook = tuple[Callable[[], Any], bool]
"""A function, and whether it is robust: its errors are logged."""


def run_hooks(hooks: deque[Hook], committed: str | None, error: BaseException | None = None) -> None:
    """Run all *hooks* in order, even if one is interrupted, and remove each from the list as it begins.

    Errors of robust functions are logged. After the last function, the first interrupt is raised, or else the first error:
    as the cause of an `AfterCommitError` if the functions run after a commit on the alias *committed*. Further errors are
    its notes. An interrupt *error* that is on its way already gets the notes, and nothing is raised.
    """
    failures: list[tuple[BaseException, str]] = []
    # Removed and called in one step of the interpreter, so that an interrupt neither loses a function nor repeats one.
    steps = map(call, map(itemgetter(0), iter(hooks.popleft, None)))
    while hooks:
        function, robust = hooks[0]
        try:
            next(steps)
        except BaseException as failure:  # noqa: BLE001 logged, or raised after the last
            name = getattr(function, "__qualname__", None) or brief(function)
            if robust and not is_interrupt(failure):
                _log.error("on_commit function %s failed: %s", name, failure, exc_info=True)
            else:
                failures.append((failure, name))
    if failures:
        failures.sort(key=lambda failure: not is_interrupt(failure[0]))
        try:
            _raise_first(failures, committed, error)
        finally:
            failures.clear()  # else the error and this frame would refer to each other


def _raise_first(
    failures: list[tuple[BaseException, str]], committed: str | None, error: BaseException | None
) -> None:
    first, name = failures[0]
    raised, others = first, failures[1:]
    try:
        if error is not None and is_interrupt(error):
            raised, others = error, failures
        elif committed is not None and is_interrupt(first):
            first.add_note(
                f"the rows in {committed!r} are committed: the on_commit function {name} was interrupted"
            )
        elif committed is not None:
            raised = after_commit(committed, name, first, brief(first))
        for other, function in others:
            raised.add_note(f"the on_commit function {function} failed as well: {brief(other)}")
        if raised is error:
            return
        if raised is first:
            raise first
        raise raised from first
    finally:
        del first, raised, others, error


class ReceiverScope(Scope):
    """The scope of receivers that run because of a write to *alias*.

    For a write outside a block it also collects the calls of `on_commit` receivers, and makes them when it ends, as a
    block would after its commit. *committed*: the write is committed already, so that there is no such block.
    """

    __slots__ = ("committed", "hooks")

    def __init__(self, owner: object, alias: str, *, committed: bool = False) -> None:
        # `Scope.__init__` in one call with this, since each save with a receiver makes one.
        self.kind = RECEIVER
        self.owner = owner
        self.alias = alias
        self.closed = self.plain = False
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
        self.close()
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
    if module is None or module._get_running_loop() is None:
        return None
    task: asyncio.Task[Any] | None = module.current_task()
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
        self._take()

    @property
    def forked(self) -> bool:
        """Whether the transaction was inherited through a fork."""
        return self._process is not _Process.token

    def check(self, alias: str) -> None:
        """Raise `TransactionSharedError` unless this thread and task may use the transaction on *alias*."""
        if self.thread == get_ident() and self._process is _Process.token:
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

    def _take(self) -> None:
        task = running_task()
        self._process = _Process.token
        self._thread = threading.current_thread()
        self._thread_id = get_ident()
        self._task = None if task is None else weakref.ref(task)
        self.thread = self._thread_id if task is None else None

    def _foreign_kind(self) -> str | None:
        """Return the kind of the owner if the caller must not use the transaction, else None.

        If the owner has ended, the caller becomes the owner.
        """
        if self.forked:
            return "process"
        same_thread = self._thread_id == get_ident()
        if self._task is None:
            ended = not self._thread.is_alive()
        else:
            task = self._task()
            if task is not None and task is running_task():
                return None
            ended = task is None or task.done()
        if ended:
            self._take()
            return None
        return "task" if same_thread else "thread"


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


def note_task(transaction: Transaction) -> None:
    """Note that *transaction*, which has begun, belongs to a task, until `context.forget` is called for it."""
    held_by_tasks[id(transaction)] = weakref.ref(transaction)


def refuse_to_wait(database: Database) -> None:
    """Raise `TransactionSharedError` if a task that cannot run now, since this thread would wait, has locked *database*.

    That is so on SQLite, where a block locks the whole database as it begins. The servers lock rows, which only they know.
    """
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
            "something; to wait for it here would stop the event loop, and so that task. Await nothing in a block: "
            "write a function that is decorated with @atomic, and `await asyncio.to_thread(function)`"
        )


class _Process:
    """The token of this process, which a fork replaces."""

    token = object()


def process() -> object:
    """Return an object that identifies this process; a forked child has another one."""
    return _Process.token


def watch(inheritable: Inheritable) -> None:
    """Call the methods of *inheritable* at each fork from now on, as long as it is alive."""
    _watched[id(inheritable)] = weakref.ref(
        inheritable
    )  # if it dies, the next object with this id replaces it


def forget(inheritable: Inheritable) -> None:
    """Stop calling the methods of *inheritable* at forks."""
    _watched.pop(id(inheritable), None)
    if held_by_tasks:
        held_by_tasks.pop(id(inheritable), None)


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
