"""Greenlets that are used again: to make one takes longer than all else that an awaited call adds to a synchronous one.

A greenlet is made by SQLAlchemy, so that `await_only` works in it: it hands what is to be awaited to the parent greenlet. It
is kept between two calls, where it waits for the next one, and `run` does for it what SQLAlchemy does for those of a single
call.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any, cast

from greenlet import getcurrent, greenlet
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.util import await_only as await_only  # imported from there here only

KEPT = 16
"""How many greenlets are kept for one event loop."""
MAX_DEPTH = 150
"""In how many frames a greenlet may be made that is used again."""

_session = AsyncSession()  # only its `run_sync` is used, which has no state


class Worker:
    """A greenlet that makes one call after the other.

    *free*: it waits for a call. *worn*: it is not to be used again: a greenlet counts the depth of the recursion in which it
    was made, and does not forget that of a RecursionError.
    """

    __slots__ = ("_error", "_greenlet", "_job", "_keeper", "_result", "free", "worn")

    def __init__(self) -> None:
        self._job: Any = None
        self._result: Any = None
        self._error: BaseException | None = None
        self._greenlet: greenlet | None = None
        self.free = True
        self.worn = _is_deep()
        self._keeper: Any = _session.run_sync(self._work)
        self._keeper.send(None)  # until the greenlet waits for its first call

    def is_here(self) -> bool:
        """Whether this code runs in the parent of the greenlet, to which it hands what is to be awaited."""
        return self._greenlet is not None and self._greenlet.parent is getcurrent()

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return what *function* returns, which may call `await_only`."""
        worker = cast(Any, self._greenlet)
        self.free, self._job = False, (function, args)
        worker.gr_context = cast(Any, getcurrent()).gr_context
        awaitable = worker.switch()
        while awaitable is not None:
            try:
                value = await awaitable
            except BaseException:  # noqa: BLE001 raised in the function
                awaitable = worker.throw(*sys.exc_info())
            else:
                awaitable = worker.switch(value)
        worker.gr_context = None
        self.free = True
        result, self._result = self._result, None
        error, self._error = self._error, None
        if error is not None:
            self.worn = self.worn or isinstance(error, RecursionError)
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame
        return result

    def close(self) -> None:
        """End the greenlet."""
        with suppress(Exception):  # it belongs to another thread, which has ended
            self._keeper.close()

    def _work(self, session: object) -> None:
        this = self._greenlet = getcurrent()
        await_only(_Parked())
        parent = cast(greenlet, this.parent)
        while True:
            self._call()
            parent.switch(None)

    def _call(self) -> None:
        (function, args), self._job = self._job, None
        try:
            self._result = function(*args)
        except BaseException as error:  # noqa: BLE001 raised in the coroutine
            self._error = error


def _is_deep() -> bool:
    """Return whether the caller is deep in a recursion, such as of receivers that save what has receivers."""
    frame = sys._getframe()
    for _ in range(MAX_DEPTH):
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return True


class _Parked:
    """What the first wait of a greenlet awaits, and is never done."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Greenlets:
    """The greenlets of one event loop."""

    __slots__ = ("_free",)

    def __init__(self) -> None:
        self._free: list[Worker] = []

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return what *function* returns, called in a greenlet in which `await_only` works."""
        worker = self._free.pop() if self._free and self._free[-1].is_here() else Worker()
        try:
            return await worker.run(function, *args)
        finally:
            if worker.free and not worker.worn and len(self._free) < KEPT:
                self._free.append(worker)
            elif worker.free:
                worker.close()

    def close(self) -> None:
        """End the greenlets."""
        while self._free:
            self._free.pop().close()

    def __del__(self) -> None:
        self.close()
