"""Steps that may hang, such as to connect to a server that does not answer, and that are waited for no longer than a limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar

from microorm.db.context import awaited_call

T = TypeVar("T")


class LimitReached(Exception):
    """A step has taken longer than its limit."""


def within(
    seconds: float, step: Callable[[], T], late: Callable[[T], object], ended: Callable[[], object]
) -> T:
    """Return what *step* returns. Raises what it raises, and `LimitReached` if it takes longer than *seconds*.

    The step runs in a thread, or in an awaited call in a task. After the limit it goes on alone: *late* takes what it returns
    then. *ended* is called at its end, in any case.
    """
    if awaited_call() is not None:
        from microorm.routers import awaited  # noqa: PLC0415 asyncio is slow to load

        return awaited.within(seconds, step, late, ended, LimitReached())
    attempt = _Attempt(step, late, ended)
    run = copy_context().run
    threading.Thread(target=run, args=(attempt.run,), name="microorm-connect", daemon=True).start()
    result: T = attempt.wait(seconds)
    return result


def pause(seconds: float) -> None:
    """Sleep; in an awaited call, let other tasks run meanwhile."""
    if awaited_call() is None:
        time.sleep(seconds)
        return
    from microorm.routers import awaited  # noqa: PLC0415 asyncio is slow to load

    awaited.sleep(seconds)


class _Attempt:
    """A step in a thread of its own, and its outcome."""

    def __init__(
        self, step: Callable[[], Any], late: Callable[[Any], object], ended: Callable[[], object]
    ) -> None:
        self._step, self._late, self._ended = step, late, ended
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._given_up = False
        self._result: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Run the step, and keep its outcome, or give it away if nothing waits for it any more."""
        result, error = None, None
        try:
            result = self._step()
        except BaseException as failure:  # noqa: BLE001 raised where it is waited for
            error = failure
        self._ended()
        with self._lock:
            given_up = self._given_up
            if not given_up:
                self._result, self._error = result, error
                self._done.set()
        if given_up and error is None:
            self._late(result)

    def wait(self, seconds: float) -> Any:
        """Return the outcome, or raise it; `LimitReached` after *seconds*."""
        try:
            self._done.wait(seconds)
        finally:
            with self._lock:
                self._given_up = not self._done.is_set()
        if self._given_up:
            raise LimitReached
        error, self._error = self._error, None
        if error is None:
            return self._result
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame
