"""Run coroutines from synchronous code, and several concurrently. Standard library only.

This module imports asyncio, so it is loaded with the first async receiver.

Each thread keeps one `asyncio.Runner`, which is closed when the thread ends (the main thread's at exit); a forked
process makes its own. Background tasks that a coroutine leaves behind pause until the thread runs its next coroutine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from typing import Any, TypeVar, cast

_T = TypeVar("_T")
Awaiter = Callable[[Coroutine[Any, Any, Any]], Any]

awaiters: list[Callable[[], Awaiter | None]] = []
"""Functions that return how a coroutine is awaited in the synchronous function that is running, or None if it cannot be."""

_UNSET = object()


def run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run *coroutine* in this thread and return its result.

    Context variables that it sets are set for the caller, even if it fails. In an awaited call the task of the call awaits
    it; elsewhere on a running event loop, *coroutine* is closed without being run and RuntimeError is raised.
    """
    for find in awaiters:
        if (wait := find()) is not None:
            return cast(_T, wait(coroutine))
    try:
        refuse_running_loop("a coroutine")
    except RuntimeError:
        coroutine.close()
        raise
    before = copy_context()
    shared = before.copy()
    current = _thread_runner()
    try:
        return current.runner.run(coroutine, context=shared)
    except (KeyboardInterrupt, SystemExit):
        current.discard()
        raise
    finally:
        _copy_changes(before, shared)


async def run_concurrently(coroutines: Sequence[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Run *coroutines* concurrently and return their results in order.

    If one fails, the others are cancelled. A single error is raised unchanged, several as an ExceptionGroup. Context
    variables that they set are set for each other and for the caller.
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
        _copy_changes(before, shared)
    raise error  # outside the except clause, which would set its __context__


def refuse_running_loop(what: str, instead: str = "") -> None:
    """Raise RuntimeError, which names *what* cannot be run, if this thread runs an event loop, outside awaited calls.

    *instead*: what to write, as the end of the message.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    if any(find() is not None for find in awaiters):
        return
    raise RuntimeError(f"cannot run {what} synchronously on a running event loop{instead}")


def _copy_changes(before: Context, after: Context) -> None:
    """Set the variables that differ between *before* and *after* in the current context."""
    for variable, value in after.items():
        if before.get(variable, _UNSET) is not value:
            variable.set(value)


class _ThreadRunner:
    """The runner of one thread, closed when the thread ends."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner(loop_factory=None if sys.platform == "win32" else _polling_loop)
        self.pid = os.getpid()
        self.closing = weakref.finalize(self, _close, self.runner, self.pid)
        # Another thread's loop may run while the main thread exits.
        self.closing.atexit = threading.current_thread() is threading.main_thread()

    def discard(self) -> None:
        """Close the runner, whose loop an exit has stopped half-way."""
        with contextlib.suppress(KeyboardInterrupt, SystemExit):  # raised again by the task that it stopped
            self.closing()


_local = threading.local()


def _thread_runner() -> _ThreadRunner:
    """Return this thread's runner; make one if there is none or the process was forked."""
    runner: _ThreadRunner | None = getattr(_local, "runner", None)
    if runner is None or runner.pid != os.getpid() or not runner.closing.alive:
        runner = _local.runner = _ThreadRunner()
    return runner


def _close(runner: asyncio.Runner, pid: int) -> None:
    """Close *runner*; in a forked process, without running its tasks."""
    if os.getpid() == pid:
        try:
            runner.close()
        except RuntimeError:
            # Python 3.12 starts no thread at exit, and asyncio needs one to wait for those of `asyncio.to_thread`. They
            # have ended by then, and the loop is closed.
            if threading.main_thread().is_alive():
                raise
    elif not runner.get_loop().is_running():
        runner.get_loop().close()


def _polling_loop() -> asyncio.AbstractEventLoop:
    # An epoll object is shared with a forked child; the parent would receive no events after the child closes it.
    # On Windows, where nothing is forked, the default loop is used, which can do more.
    return asyncio.SelectorEventLoop(selectors.PollSelector())
