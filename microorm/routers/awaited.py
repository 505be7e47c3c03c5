"""Steps with a limit in awaited calls: see `bounded`, which loads this module with the first of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar, cast

from microorm.db.aio.calls import AwaitedCall, outside, wait
from microorm.db.aio.loops import EventLoop, task_of_its_own
from microorm.db.context import awaited_call

T = TypeVar("T")


def within(
    seconds: float,
    step: Callable[[], T],
    late: Callable[[T], object],
    ended: Callable[[], object],
    limit: Exception,
) -> T:
    """Return what *step* returns; raise *limit* if it takes longer than *seconds*. The step is cancelled then."""
    return wait(_within(cast(AwaitedCall, awaited_call()).loop, seconds, step, late, ended, limit))


async def _within(
    loop: EventLoop,
    seconds: float,
    step: Callable[[], T],
    late: Callable[[T], object],
    ended: Callable[[], object],
    limit: Exception,
) -> T:
    waiting = True

    def over(task: asyncio.Task[T]) -> None:
        ended()
        if not waiting and not task.cancelled() and task.exception() is None:
            outside(lambda: late(task.result()))

    inner = task_of_its_own(loop.greenlets.run(AwaitedCall(loop).call, None, step, (), {}))
    inner.add_done_callback(over)
    try:
        done, _ = await asyncio.wait([inner], timeout=seconds)
    except asyncio.CancelledError:
        waiting = False
        inner.cancel()
        raise
    if not done:
        waiting = False
        inner.cancel()
        raise limit
    return cast(T, inner.result())


def sleep(seconds: float) -> None:
    """Let other tasks run for *seconds*."""
    wait(asyncio.sleep(seconds))
