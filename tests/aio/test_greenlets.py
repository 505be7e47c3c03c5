"""Greenlets of awaited calls: used again, and as good as new after errors, cancellations and the end of a loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import pytest
from greenlet import getcurrent
from sqlalchemy.util import await_only

from microorm.db.aio.greenlets import KEPT, Greenlets

number: contextvars.ContextVar[int] = contextvars.ContextVar("number", default=0)


def on_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run the coroutine function *test* on an event loop of its own."""

    @wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


def waiting(seconds: float = 0) -> Any:
    await_only(asyncio.sleep(seconds))
    return getcurrent()


@on_loop
async def test_a_greenlet_makes_one_call_after_the_other() -> None:
    greenlets = Greenlets()

    first, second = await greenlets.run(waiting), await greenlets.run(waiting)
    assert first is second
    assert first is not getcurrent()
    greenlets.close()
    assert first.dead


@on_loop
async def test_calls_at_once_have_greenlets_of_their_own_and_few_are_kept() -> None:
    greenlets = Greenlets()

    used = await asyncio.gather(*(greenlets.run(waiting, 0.01) for _ in range(KEPT + 4)))
    assert len(set(used)) == KEPT + 4
    assert sum(not each.dead for each in used) == KEPT
    greenlets.close()
    assert all(each.dead for each in used)


@on_loop
async def test_an_error_of_a_call_is_raised_and_the_greenlet_is_used_again() -> None:
    greenlets = Greenlets()

    def failing() -> None:
        waiting()
        raise ValueError("no")

    before = await greenlets.run(waiting)
    with pytest.raises(ValueError, match="no"):
        await greenlets.run(failing)
    assert await greenlets.run(waiting) is before
    greenlets.close()


@on_loop
async def test_an_error_of_what_is_awaited_is_raised_in_the_function() -> None:
    greenlets = Greenlets()

    async def failing() -> None:
        raise ValueError("no")

    def catching() -> str:
        try:
            await_only(failing())
        except ValueError as error:
            return str(error)
        return ""

    assert await greenlets.run(catching) == "no"
    greenlets.close()


@on_loop
async def test_a_cancellation_is_raised_in_the_function_and_the_greenlet_is_used_again() -> None:
    greenlets, seen = Greenlets(), []

    def cancelled() -> None:
        try:
            waiting(60)
        except asyncio.CancelledError:
            seen.append(waiting())  # it may still await
            raise

    task = asyncio.create_task(greenlets.run(cancelled))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await greenlets.run(waiting) is seen[0]
    greenlets.close()


@on_loop
async def test_a_function_sees_and_sets_the_context_of_the_task_that_calls_it() -> None:
    greenlets = Greenlets()

    async def task(value: int) -> tuple[int, int, int]:
        number.set(value)
        seen = await greenlets.run(number.get)
        await greenlets.run(number.set, value + 1)
        return value, seen, number.get()

    for value in (10, 20):
        assert await asyncio.create_task(task(value)) == (value, value, value + 1)
    assert number.get() == 0
    greenlets.close()


@on_loop
async def test_a_call_inside_a_call_has_a_greenlet_of_its_own() -> None:
    greenlets = Greenlets()

    def outer() -> tuple[Any, Any]:
        return getcurrent(), await_only(greenlets.run(waiting))

    first, second = await greenlets.run(outer)
    assert first is not second
    greenlets.close()


@on_loop
async def test_a_coroutine_that_is_closed_ends_the_function() -> None:
    greenlets, ended = Greenlets(), []

    def closed() -> None:
        try:
            waiting(60)
        finally:
            ended.append(True)

    coroutine = greenlets.run(closed)
    coroutine.send(None)
    coroutine.close()
    assert ended == [True]
    greenlets.close()


def test_greenlets_of_another_thread_can_be_closed() -> None:
    greenlets = Greenlets()
    thread = threading.Thread(target=lambda: asyncio.run(greenlets.run(waiting)))
    thread.start()
    thread.join()

    greenlets.close()


@on_loop
async def test_nothing_of_a_call_is_kept_after_it() -> None:
    greenlets = Greenlets()

    class Value:
        pass

    value = Value()
    alive = weakref.ref(value)
    assert await greenlets.run(lambda given: given is not None, value)
    del value
    assert alive() is None
    greenlets.close()
