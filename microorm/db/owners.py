"""Owners: the task or thread that may use a transaction, and what becomes of connections in a forked process.

Context variables are inherited, so child tasks, threads that run in a copied context and forked processes see the blocks
of their parents. A connection serves one user at a time, so an `Owner` refuses them. Connections that a forked process
has inherited are dropped without being closed, since the parent continues to use them.

The functions of microorm are synchronous: while one waits, no task of its thread runs. If a task holds a block over an
`await`, and has locked the database by it, another task that needs the lock would wait until the database gives up, so it is
refused (`refuse_to_wait`).
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from contextvars import ContextVar
from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol

from microorm.errors import TransactionSharedError

if TYPE_CHECKING:
    import asyncio

    from microorm.db.engines.engine import Database
    from microorm.db.transaction import Transaction


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
    """Note that *transaction*, which has begun, belongs to a task, until `owners.forget` is called for it."""
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
