"""Waiting: run coroutines to their end, from synchronous code or side by side. Standard library only.

A module of its own, so that a program without async receivers never imports asyncio.

Each thread that waits keeps one runner. It is closed with the thread (the main thread's at exit), and a forked
process makes its own. Background tasks that a coroutine leaves behind pause until the thread waits again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import sys
import threading
import weakref
from collections.abc import Coroutine, Sequence
from contextvars import Context, copy_context
from typing import Any, TypeVar

_T = TypeVar("_T")
_UNSET = object()


def run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run *coroutine* in this thread and return its result.

    It runs in a copy of the caller's context; the variables it changed are changed for the caller, too, also
    when it fails (F10). RuntimeError on a running event loop; *coroutine* is closed then, without having run.
    """
    try:
        refuse_running_loop("a coroutine")
    except RuntimeError:
        coroutine.close()
        raise
    before = copy_context()
    shared = before.copy()
    kept = _kept()
    try:
        return kept.runner.run(coroutine, context=shared)
    except (KeyboardInterrupt, SystemExit):
        kept.give_up()
        raise
    finally:
        _put_back(before, shared)


async def side_by_side(coroutines: Sequence[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Run *coroutines* concurrently and return their results in order (F7).

    When one fails, the others are cancelled; a single error is raised as it is, several as an ExceptionGroup.
    They share one copy of the context, and the variables they changed are changed for the caller, too (F10).
    """
    before = copy_context()
    shared = before.copy()
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine, context=shared) for coroutine in coroutines]
    except BaseExceptionGroup as several:
        if len(several.exceptions) != 1:
            raise
        error = several.exceptions[0]
    else:
        return [task.result() for task in tasks]
    finally:
        _put_back(before, shared)
    raise error  # outside the except clause, so that its context stays what the receiver made it


def refuse_running_loop(what: str) -> None:
    """RuntimeError, naming *what*, where this thread runs an event loop and so cannot wait for it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(f"cannot wait for {what} on a running event loop")


def _put_back(before: Context, after: Context) -> None:
    """Set what differs in *after* from *before* in the current context, and leave alone what does not."""
    for variable, value in after.items():
        if before.get(variable, _UNSET) is not value:
            variable.set(value)


class _Kept:
    """A runner, closed when the thread that holds this object ends."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner(loop_factory=_loop_factory())
        self.pid = os.getpid()
        self.closing = weakref.finalize(self, _close, self.runner, self.pid)
        # Another thread's loop may run while the main thread exits.
        self.closing.atexit = threading.current_thread() is threading.main_thread()

    @property
    def usable(self) -> bool:
        return self.pid == os.getpid() and self.closing.alive

    def give_up(self) -> None:
        """Close the runner; these two errors stop a loop in the middle, and later runs would go on from there."""
        with contextlib.suppress(KeyboardInterrupt, SystemExit):  # a task stopped by one raises it again
            self.closing()


_here = threading.local()


def _kept() -> _Kept:
    """The runner of this thread and process, made when there is none."""
    kept: _Kept | None = getattr(_here, "kept", None)
    if kept is None or not kept.usable:
        kept = _here.kept = _Kept()
    return kept


def _close(runner: asyncio.Runner, pid: int) -> None:
    """Close *runner*; in a process forked from the one that made it, without running any of its tasks."""
    if os.getpid() == pid:
        runner.close()
    elif not runner.get_loop().is_running():
        runner.get_loop().close()


def _loop_factory() -> Any:
    if sys.platform == "win32":  # pragma: no cover - no fork there, and its own loop can do more
        return None
    return _polling_loop


def _polling_loop() -> asyncio.AbstractEventLoop:
    # epoll lives in the kernel and is shared with a forked child, whose closing it would deafen the parent.
    return asyncio.SelectorEventLoop(selectors.PollSelector())
