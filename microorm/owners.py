"""Owners: the thread or task that an open transaction belongs to.

Context variables are inherited, so a child task, a thread that runs in a copied context and a forked process
all see the blocks of their parents. They must not use them: a connection serves one at a time.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from typing import Any

from microorm.errors import TransactionSharedError
from microorm.forks import process


def running_task() -> asyncio.Task[Any] | None:
    """The task that is running in this thread, if any."""
    try:
        return asyncio.current_task()
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
