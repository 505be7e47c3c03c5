"""Awaited calls: synchronous functions that run in a coroutine, and wait there for the database.

There is one implementation of each operation, which is synchronous. `run` calls it in a greenlet, in which SQLAlchemy's
drivers for asyncio look synchronous: where they wait, the greenlet is left, the task awaits, and the greenlet goes on. So
`await book.asave()` is `book.save()`, on the engine of the running event loop.

This module imports asyncio and greenlet, so it is loaded with the first awaited call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar, cast

from greenlet import getcurrent, greenlet

from microorm.db.aio.greenlets import await_only
from microorm.db.aio.loops import EventLoop, event_loop, task_of_its_own
from microorm.db.context import AWAITED, Scope, awaited_call
from microorm.dispatch import runner
from microorm.errors import TransactionError

P = ParamSpec("P")
T = TypeVar("T")


class AwaitedCall(Scope):
    """The scope of an awaited call: code that runs in its greenlet may wait for the event loop.

    *loop*: the loop that it runs on. *closing*: the coroutine is being closed, so that nothing can be awaited any more.
    *cancelled*: a cancellation that came while a step was completed, and that is raised later. *shielded*: this is such a step.
    """

    __slots__ = ("cancelled", "closing", "greenlet", "loop", "shielded")

    def __init__(self, loop: EventLoop, *, shielded: bool = False) -> None:
        # The attributes of `Scope`, too, in one call, since each awaited call makes one.
        self.kind = AWAITED
        self.owner = None
        self.alias = ""
        self.closed = self.plain = self.of_test = False
        self.parent = None
        self.loop = loop
        self.shielded = shielded
        self.closing = False
        self.cancelled: asyncio.CancelledError | None = None
        self.greenlet: greenlet | None = None

    @property
    def is_running(self) -> bool:
        """Whether this code runs in the greenlet of the call, and not in a coroutine that the call awaits."""
        return self.greenlet is getcurrent() and not self.closing

    def call(self, session: object, function: Callable[..., T], args: Any, named: Any) -> T:
        """Call *function* in this scope, in the current greenlet."""
        self.greenlet = getcurrent()
        self.open()
        try:
            return function(*args, **named)
        finally:
            self.close()
            self.greenlet = None  # which refers to this frame


def here(function: Callable[..., Any]) -> EventLoop:
    """Return what is kept for the running event loop, on which *function* is to be awaited. Raises `TransactionError`."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        name = getattr(function, "__name__", "a function")
        raise TransactionError(
            f"{name}() cannot be awaited here, since no event loop of asyncio is running; call it without await"
        ) from None
    return event_loop(loop)


async def run(function: Callable[P, T], /, *args: P.args, **named: P.kwargs) -> T:
    """Call the synchronous *function* so that it awaits the database, and return what it returns.

    Raises `TransactionError` where no event loop of asyncio is running.
    """
    call = AwaitedCall(here(function))
    try:
        result: T = await call.loop.greenlets.run(call.call, None, function, args, named)
    except BaseException as error:
        if call.cancelled is not None and call.cancelled is not error:
            raise call.cancelled from error
        raise
    if call.cancelled is not None:
        raise call.cancelled
    return result


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """In an awaited call: await *coroutine* in the task of the call, and return its result."""
    return await_only(coroutine)


def complete(
    step: Callable[[], T],
    stop: Callable[[], Awaitable[object]] | None = None,
    undo: Callable[[T], object] | None = None,
) -> T:
    """Return what *step* returns; in an awaited call, run it to its end even if the task is cancelled meanwhile.

    The cancellation is raised at the end of the call. *stop* makes *step* end soon, by an error; the cancellation is raised
    after *step*. If that has succeeded nevertheless, what it returns is handed to *undo*.
    """
    call: AwaitedCall | None = awaited_call()
    if call is None or call.shielded:
        return step()
    if call.cancelled is not None and stop is not None:
        raise call.cancelled
    result = await_only(_completed(call, step, stop))
    if call.cancelled is not None and stop is not None:
        if undo is not None:
            undo(result)
        raise call.cancelled
    return result


async def _completed(
    call: AwaitedCall, step: Callable[[], T], stop: Callable[[], Awaitable[object]] | None
) -> T:
    shielded = AwaitedCall(call.loop, shielded=True)
    inner = task_of_its_own(call.loop.greenlets.run(shielded.call, None, step, (), {}))
    tasks = [inner]
    while not all(each.done() for each in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as error:
            if call.cancelled is None and stop is not None:
                tasks.append(task_of_its_own(_suppressed(stop)))
            call.cancelled = error
    if call.cancelled is not None and stop is not None and inner.exception() is not None:
        raise call.cancelled  # the step has raised that it was stopped
    return cast(T, inner.result())


async def _suppressed(stop: Callable[[], Awaitable[object]]) -> None:
    with suppress(Exception):  # the step takes its time, then
        await stop()


def outside(step: Callable[[], T]) -> T:
    """Return what *step* returns, in a greenlet that cannot await, so that drivers close connections at once."""
    return cast(T, greenlet(step).switch())


def _awaiter() -> Callable[[Coroutine[Any, Any, Any]], Any] | None:
    return None if awaited_call() is None else wait


runner.awaiters.append(_awaiter)
