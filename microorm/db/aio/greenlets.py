"""Greenlets that are used again: to make one takes longer than all else that an awaited call adds to a synchronous one.

A greenlet is made by SQLAlchemy, so that `await_only` works in it: it hands what is to be awaited to the parent greenlet. It
is kept between two calls, where it waits for the next one, and `run` does for it what SQLAlchemy does for those of a single
call.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

from greenlet import getcurrent
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.util import await_only as await_only  # imported from there here only

KEPT = 16
"""How many greenlets are kept for one event loop."""
MAX_DEPTH = 150
"""In how many frames a greenlet may be made that is used again."""

_session = AsyncSession()  # only its `run_sync` is used, which has no state


class Worker:
    """A greenlet that makes one call after the other, each of which is switched to with a function and its arguments.

    It switches back with what is to be awaited, and with None when the function has returned or raised: *result*, *error*.
    *free*: it waits for a call. *worn*: it is not to be used again: a greenlet counts the depth of the recursion in which it
    was made, and does not forget that of a RecursionError.
    """

    __slots__ = ("_keeper", "error", "free", "greenlet", "result", "worn")

    greenlet: Any

    def __init__(self) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self.free = True
        self.worn = _is_deep()
        self._keeper: Any = _session.run_sync(self._work)
        self._keeper.send(None)  # until the greenlet waits for its first call

    def close(self) -> None:
        """End the greenlet."""
        with suppress(Exception):  # it belongs to another thread, which has ended
            self._keeper.close()

    def _work(self, session: object) -> None:
        this: Any = getcurrent()
        self.greenlet, parent = this, this.parent
        job: Any = await_only(_Parked())
        while True:
            self._call(*job)
            job = None
            job = parent.switch(None)

    def _call(self, function: Callable[..., Any], args: Any) -> None:
        try:
            self.result = function(*args)
        except BaseException as error:  # noqa: BLE001 raised in the coroutine
            self.error = error
            self.worn = self.worn or isinstance(error, RecursionError)


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
        here: Any = getcurrent()
        free = self._free
        # Only to its parent does a greenlet hand what is to be awaited.
        worker = free.pop() if free and free[-1].greenlet.parent is here else Worker()
        this, worker.free = worker.greenlet, False
        try:
            this.gr_context = here.gr_context
            awaitable = this.switch(function, args)
            while awaitable is not None:
                try:
                    value = await awaitable
                except BaseException:  # noqa: BLE001 raised in the function
                    awaitable = this.throw(*sys.exc_info())
                else:
                    awaitable = this.switch(value)
            this.gr_context = None
            worker.free = True
            result, worker.result = worker.result, None
            if worker.error is not None:
                error, worker.error = worker.error, None
                try:
                    raise error
                finally:
                    del error  # its traceback refers to this frame
            return result
        finally:
            if worker.free and not worker.worn and len(free) < KEPT:
                free.append(worker)
            elif worker.free:
                worker.close()

    def close(self) -> None:
        """End the greenlets."""
        while self._free:
            self._free.pop().close()

    def __del__(self) -> None:
        self.close()
