"""Owners: a transaction belongs to one task or thread at a time."""

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from microorm import TransactionSharedError
from microorm.db.owners import Owner, running_task


def in_thread(function: Callable[[], Any]) -> Any:
    """Run *function* in a new thread, and return its result or raise its error."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(function())
        except TransactionSharedError as error:
            results.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return results[0]


def refusal(owner: Owner) -> str | None:
    """Return the message of the error that *owner* raises here, or None."""
    try:
        owner.check("shop")
    except TransactionSharedError as error:
        return str(error)
    return None


def test_there_is_a_running_task_only_on_a_loop() -> None:
    """In any thread."""

    async def main() -> None:
        assert running_task() is asyncio.current_task()

    assert running_task() is None
    asyncio.run(main())


def test_the_thread_that_opened_it_may_use_it_and_another_may_not() -> None:
    """While the thread is alive; the message names the alias and the kind of owner."""
    owner = Owner()
    assert refusal(owner) is None
    assert in_thread(lambda: refusal(owner)) == "the open block on 'shop' belongs to another thread"
    assert refusal(owner) is None
    assert not owner.forked


def test_a_thread_that_has_ended_hands_over() -> None:
    """The next thread becomes the owner, and a third is refused."""
    owner = in_thread(Owner)
    assert refusal(owner) is None
    assert in_thread(lambda: refusal(owner)) == "the open block on 'shop' belongs to another thread"


def test_a_task_may_use_its_own_and_its_child_may_not() -> None:
    """A child task inherits an open block, and must not use it."""

    async def main() -> None:
        owner = Owner()

        async def child() -> str | None:
            return refusal(owner)

        assert refusal(owner) is None
        assert await asyncio.create_task(child()) == "the open block on 'shop' belongs to another task"
        assert await asyncio.to_thread(refusal, owner) == "the open block on 'shop' belongs to another thread"
        assert refusal(owner) is None

    asyncio.run(main())


def test_a_task_that_is_done_hands_over_to_one_other() -> None:
    """As with a fixture of pytest-asyncio: the next task becomes the owner."""

    async def opened() -> Owner:
        return Owner()

    async def use(owner: Owner, done: asyncio.Event) -> str | None:
        answer = refusal(owner)
        await done.wait()
        return answer

    async def main() -> None:
        task = asyncio.create_task(opened())
        owner, done = await task, asyncio.Event()
        first, second = asyncio.create_task(use(owner, done)), asyncio.create_task(use(owner, done))
        await asyncio.sleep(0)
        done.set()
        assert await first is None
        assert await second == "the open block on 'shop' belongs to another task"
        assert refusal(owner) is None

    asyncio.run(main())


def test_a_task_that_is_done_hands_over_to_a_thread_too() -> None:
    """Even while the thread that the task ran in is alive."""

    async def opened() -> Owner:
        return Owner()

    owner = asyncio.run(opened())
    assert in_thread(lambda: refusal(owner)) is None
    owner = asyncio.run(opened())
    gc.collect()
    assert refusal(owner) is None


def test_a_thread_lends_it_to_the_tasks_that_it_runs() -> None:
    """It waits for them, so async receivers share the transaction of a sync save."""
    owner = Owner()

    async def main() -> str | None:
        return refusal(owner)

    assert asyncio.run(main()) is None
    assert refusal(owner) is None


def test_a_task_of_another_thread_is_refused_like_the_thread() -> None:
    """Also if both threads run a loop."""
    started, done = threading.Event(), threading.Event()
    owners: list[Owner] = []

    async def own() -> None:
        owners.append(Owner())
        started.set()
        await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=asyncio.run, args=[own()])
    thread.start()
    started.wait()

    async def main() -> str | None:
        return refusal(owners[0])

    assert asyncio.run(main()) == "the open block on 'shop' belongs to another thread"
    assert refusal(owners[0]) == "the open block on 'shop' belongs to another thread"
    done.set()
    thread.join()
    assert refusal(owners[0]) is None


def test_what_was_inherited_through_a_fork_belongs_to_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every thread and task of the child is refused."""
    owner = Owner()
    monkeypatch.setattr("microorm.db.owners._Process.token", object())
    assert owner.forked
    assert refusal(owner) == "the open block on 'shop' belongs to another process"
    assert in_thread(lambda: refusal(owner)) == "the open block on 'shop' belongs to another process"
    assert not Owner().forked
