"""Scopes: what is going on here and now, per thread and per task.

One context variable holds a chain of scopes, innermost first: `using()` blocks, running receivers, open `atomic`
blocks, and where nothing may be loaded lazily. A scope is never taken out with `Token.reset`, which fails where a
generator is closed in another context: it is marked closed, and closed ones are passed over.

Hooks: functions that wait for a commit, and run one after another when it has happened.

Owners: the thread or task that an open transaction belongs to.

Context variables are inherited, so a child task, a thread that runs in a copied context and a forked process
all see the blocks of their parents. They must not use them: a connection serves one at a time.

Forks: what a child process inherits and must not use, since its parent goes on using it. Standard library only.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from microorm.errors import LazyLoadError, TransactionSharedError

if TYPE_CHECKING:
    import asyncio

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
        latest = _innermost.get()
        if isinstance(latest, Entered) and latest.entrance is self and not latest.closed:
            return latest
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


Hook = tuple[Callable[[], Any], bool]


class Receiving(Scope):
    """A receiver is running because of a write to *alias*: a scope that is open from the start, and keeps functions.

    They are those of receivers that wait for the commit of a write that committed by itself: all of them run at the
    end, as they would after a block.
    """

    __slots__ = ("hooks",)

    def __init__(self, owner: object, alias: str) -> None:
        # What `Scope` does when it is made and opened, in one call: each save that is heard makes one.
        self.kind = RECEIVER
        self.owner = owner
        self.alias = alias
        self.closed = self.plain = False
        self.hooks: list[Hook] | None = None
        parent = latest()
        while parent is not None and parent.closed:
            parent = parent.parent
        self.parent = parent
        make_latest(self)

    def __enter__(self) -> None:
        """Nothing to do."""

    def postpone(self, function: Callable[[], Any]) -> None:
        """Run *function* at the end of this scope."""
        if self.hooks is None:
            self.hooks = []
        self.hooks.append((function, False))

    def finish(self) -> None:
        """End this scope, and run what was postponed."""
        self.closed = True
        if latest() is self:
            make_latest(self.parent)
        if self.hooks is not None:
            run_hooks(self.hooks)

    def __exit__(self, *exc: object) -> None:
        if exc[0] is None:
            self.finish()
        else:
            self.close()


def run_hooks(hooks: list[Hook]) -> None:
    """Run every hook in order; the first error of those that are not robust is raised after the last.

    The others are its notes (CONTRACT O16); an error of a robust one is logged (O17).
    """
    failures: list[Exception] = []
    for function, robust in hooks:
        try:
            function()
        except Exception as error:  # noqa: BLE001 logged, or raised when all have run
            if robust:
                name = getattr(function, "__qualname__", None) or repr(function)
                _log.error("on_commit function %s failed: %s", name, error, exc_info=True)
            else:
                failures.append(error)
    if failures:
        for other in failures[1:]:
            failures[0].add_note(f"another on_commit function failed, too: {other!r}")
        raise failures[0]


def running_task() -> asyncio.Task[Any] | None:
    """The task that is running in this thread, if any."""
    loaded = sys.modules.get("asyncio")  # no task runs where it was never imported
    try:
        return None if loaded is None else loaded.current_task()
    except RuntimeError:
        return None


class Owner:
    """Who opened a transaction: a task, or else a thread. One that has ended hands over to whoever comes next.

    What a thread owns is open to the tasks that it runs, since it waits for them. *thread* is the one that may go on
    without another question, if there is one.
    """

    __slots__ = ("_process", "_task", "_thread", "_thread_id", "thread")

    _task: weakref.ref[asyncio.Task[Any]] | None
    thread: int | None

    def __init__(self) -> None:
        self._take()

    @property
    def forked(self) -> bool:
        """Whether the transaction was inherited through a fork."""
        return self._process is not process()

    def check(self, alias: str) -> None:
        """Raise `TransactionSharedError` unless this thread and task may use the transaction on *alias*."""
        if self.thread == threading.get_ident() and not self.forked:
            return
        if (owner := self._other()) is not None:
            raise TransactionSharedError(f"the open block on {alias!r} belongs to another {owner}")

    def after_fork(self) -> None:
        """In the child, whose thread has the number of its parent's: it has to ask."""
        self.thread = None

    def _take(self) -> None:
        task = running_task()
        self._process = process()
        self._thread = threading.current_thread()
        self._thread_id = threading.get_ident()
        self._task = None if task is None else weakref.ref(task)
        self.thread = self._thread_id if task is None else None

    def _other(self) -> str | None:
        """What kind of owner this is, if it is another than who asks; None after a transaction changed hands."""
        if self.forked:
            return "process"
        here = self._thread_id == threading.get_ident()
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
        return "task" if here else "thread"


class Inheritable(Protocol):
    """What holds connections."""

    def before_fork(self) -> None:
        """Get ready, in the parent."""
        ...

    def after_fork(self) -> None:
        """Let go in the child, without a word to whom the parent is talking to."""
        ...


_watched: dict[int, weakref.ref[Inheritable]] = {}
_held: list[Inheritable] = []


class _Process:
    """A token of this process: a fork replaces it, so that what was inherited is known for what it is."""

    token = object()


def process() -> object:
    """A token of this process, other than that of its parent."""
    return _Process.token


def watch(inheritable: Inheritable) -> None:
    """Tell *inheritable* of forks from now on; it is not kept alive."""
    key = id(inheritable)
    _watched[key] = weakref.ref(inheritable, lambda _: _watched.pop(key, None))


def forget(inheritable: Inheritable) -> None:
    """Tell *inheritable* of forks no more."""
    _watched.pop(id(inheritable), None)


def _before() -> None:
    # Held, since in the child the other threads are gone, and with them what kept their connections: collected
    # there, these would say goodbye to a server that is serving the parent.
    _held.extend(each for known in list(_watched.values()) if (each := known()) is not None)
    for each in _held:
        each.before_fork()


def _after_in_child() -> None:
    _Process.token = object()
    for each in _held:
        each.after_fork()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_held.clear, after_in_child=_after_in_child)
