"""The runner that each thread keeps: one loop, closed in time, not shared with a forked process."""

import asyncio
import contextvars
import gc
import os
import selectors
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from microorm.dispatch import runner as runner_module
from microorm.dispatch.runner import refuse_running_loop, run, run_concurrently
from microorm.dispatch.signal import run_coroutine

T = TypeVar("T")
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
other: contextvars.ContextVar[str] = contextvars.ContextVar("other", default="unset")


async def loop_here() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


async def give(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


async def fail(error: BaseException) -> None:
    raise error


# In development mode asyncio warns of what takes longer than a tenth of a second, as all may on a busy machine.
PATIENT = "import logging; logging.getLogger('asyncio').addFilter(lambda record: ' took ' not in record.getMessage())\n"


def python(source: str) -> str:
    """What a fresh process prints when it runs *source*, where every warning is an error and none was."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PATIENT + source],
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("runs", [run, run_coroutine])
def test_a_coroutine_runs_to_its_end(runs: Any) -> None:
    """Its result is returned, its error raised as it is."""
    assert runs(give(5)) == 5
    error = LookupError("no such shelf")
    with pytest.raises(LookupError) as caught:
        runs(fail(error))
    assert caught.value is error
    assert runs(give(6)) == 6


def test_a_thread_keeps_its_loop() -> None:
    """Another thread has another."""
    mine = run(loop_here())
    assert run(loop_here()) is mine
    others: list[asyncio.AbstractEventLoop] = []
    thread = threading.Thread(target=lambda: others.extend((run(loop_here()), run(loop_here()))))
    thread.start()
    thread.join()
    assert others[0] is others[1]
    assert others[0] is not mine
    assert not mine.is_closed()
    assert others[0].is_closed()


def test_the_event_loop_of_the_program_is_left_alone() -> None:
    """Asyncio's own current loop is neither set nor unset."""
    mine = asyncio.new_event_loop()
    asyncio.set_event_loop(mine)
    try:
        assert run(loop_here()) is not mine
        assert asyncio.get_event_loop_policy().get_event_loop() is mine
    finally:
        asyncio.set_event_loop(None)
        mine.close()


@pytest.mark.parametrize("runs", [run, run_coroutine])
def test_on_a_running_loop_nothing_can_be_waited_for(runs: Any) -> None:
    """RuntimeError; the coroutine is closed, so that Python does not complain of it."""
    coroutine = give(5)

    async def here() -> None:
        with pytest.raises(
            RuntimeError, match="^cannot run a coroutine synchronously on a running event loop$"
        ):
            runs(coroutine)

    asyncio.run(here())
    assert coroutine.cr_frame is None
    refuse_running_loop("anything")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_after_an_interrupt_the_next_run_starts_afresh(kind: type[BaseException]) -> None:
    """What such an error stopped in the middle is cancelled, and never resumed."""
    calls: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(0)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            calls.append("cancelled")
            raise

    async def interrupt() -> None:
        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        raise kind(str(task))

    before = run(loop_here())
    with pytest.raises(kind):
        run(interrupt())
    assert before.is_closed()
    assert calls == ["cancelled"]
    assert run(loop_here()) is not before
    with pytest.raises(kind):
        run(run_concurrently([fail(kind()), give(5)]))
    assert run(give(5)) == 5


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_the_first_interrupt_is_the_one_that_is_raised(kind: type[BaseException]) -> None:
    """Another one, while the loop is given up, does not take its place."""

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise kind("second") from None

    async def interrupt() -> None:
        asyncio.ensure_future(stubborn())  # noqa: RUF006 - it is cancelled before it could be collected
        await asyncio.sleep(0)
        raise kind("first")

    with pytest.raises(kind, match="^first$"):
        run(interrupt())
    assert run(give(5)) == 5
    gc.collect()  # asyncio tells of a task that such an error stopped, here and not in another test


def test_other_errors_keep_the_loop() -> None:
    before = run(loop_here())
    for error in (LookupError(), asyncio.CancelledError(), GeneratorExit()):
        with pytest.raises(type(error)):
            run(fail(error))
    assert run(loop_here()) is before


def in_a_thread(function: Callable[[], T]) -> T:
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


@pytest.mark.skipif(sys.platform == "win32", reason="this system cannot fork, and has loops of another kind")
def test_a_kept_loop_shares_nothing_with_a_forked_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """It selects by poll; an epoll is the kernel's, and so the parent's and the child's in one."""
    made: list[object] = []

    class Noted(selectors.PollSelector):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(selectors, "PollSelector", Noted)
    in_a_thread(lambda: run(loop_here()))
    assert len(made) == 1


def test_only_the_main_thread_closes_its_loop_at_exit() -> None:
    """Other threads close theirs when they end, and may still run them while the program exits."""
    assert runner_module._thread_runner().closing.atexit is True
    assert in_a_thread(lambda: runner_module._thread_runner().closing.atexit) is False


def test_an_inherited_loop_is_closed_without_running_its_tasks() -> None:
    """Unless it runs, because the fork happened on it."""
    another_process = os.getpid() + 1
    runner = asyncio.Runner()
    calls: list[str] = []

    async def task() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            calls.append("ended")

    async def here() -> None:
        tasks.append(asyncio.create_task(task()))
        await asyncio.sleep(0)
        runner_module._close(runner, another_process)
        assert not asyncio.get_running_loop().is_closed()

    tasks: list[Any] = []
    runner.run(here())
    loop = runner.get_loop()
    runner_module._close(runner, another_process)
    assert loop.is_closed()
    assert calls == []
    tasks.pop().get_coro().close()
    gc.collect()


def test_variables_come_back_to_the_caller() -> None:
    """Those that were set, also before an error, and no others."""

    async def set_it() -> str:
        before = variable.get()
        variable.set("set")
        return before

    async def set_and_fail() -> None:
        variable.set("set before the error")
        raise LookupError

    def here() -> None:
        other.set("mine")
        assert run(set_it()) == "unset"
        assert variable.get() == "set"
        with pytest.raises(LookupError):
            run(set_and_fail())
        assert variable.get() == "set before the error"
        assert other.get() == "mine"

    context = contextvars.copy_context()
    context.run(here)
    assert variable.get() == "unset"
    assert context[variable] == "set before the error"


def test_an_unchanged_variable_is_not_set_anew() -> None:
    """So that two runs in one context do not undo each other; and None is a value."""

    async def here() -> list[str]:
        changed = asyncio.Event()

        async def leave_alone() -> None:
            await changed.wait()

        async def change() -> None:
            variable.set("changed")
            changed.set()

        async def nested() -> None:
            await run_concurrently([leave_alone(), leave_alone()])

        variable.set("before")
        await run_concurrently([nested(), change()])
        return [variable.get()]

    assert asyncio.run(here()) == ["changed"]


def test_a_variable_set_to_none_comes_back() -> None:
    nullable: contextvars.ContextVar[object] = contextvars.ContextVar("nullable")

    async def clear() -> None:
        nullable.set(None)

    def here() -> object:
        run(clear())
        return nullable.get("unset")

    assert contextvars.copy_context().run(here) is None


def test_a_variable_set_to_an_equal_value_comes_back() -> None:
    """What counts is the object."""
    first, second = [1], [1]
    listed: contextvars.ContextVar[list[int]] = contextvars.ContextVar("listed")

    async def replace() -> None:
        listed.set(second)

    def here() -> object:
        listed.set(first)
        run(replace())
        return listed.get()

    assert contextvars.copy_context().run(here) is second


def test_run_concurrently_gives_results_in_order() -> None:
    """Whoever is first to end."""

    async def after(turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return turns

    assert run(run_concurrently([after(3), after(0), after(2)])) == [3, 0, 2]
    assert run(run_concurrently([])) == []


def test_run_concurrently_raises_one_error_bare_and_several_as_a_group() -> None:
    """A group that is a receiver's own error is one error."""
    error, group = LookupError("one"), ExceptionGroup("own", [ValueError("two")])
    for each in (error, group):
        with pytest.raises(type(each)) as caught:
            run(run_concurrently([give(1), fail(each)]))
        assert caught.value is each
        assert each.__context__ is None
    with pytest.raises(ExceptionGroup) as several:
        run(run_concurrently([fail(error), give(1), fail(group)]))
    assert list(several.value.exceptions) == [error, group]
    with pytest.raises(asyncio.CancelledError):
        run(run_concurrently([fail(asyncio.CancelledError()), give(1)]))


THREAD = """
import asyncio, gc, threading
from microorm.dispatch.runner import run
async def here():
    asyncio.create_task(asyncio.sleep(3600))
    return asyncio.get_running_loop()
loops = []
for _ in range(3):
    thread = threading.Thread(target=lambda: loops.append(run(here())))
    thread.start()
    thread.join()
gc.collect()
print([loop.is_closed() for loop in loops])
"""


@pytest.mark.slow
def test_a_thread_that_ends_closes_its_loop() -> None:
    """No ResourceWarning, and no task is left pending."""
    assert python(THREAD) == "[True, True, True]\n"


EXIT = """
import atexit, asyncio, sys
def late():
    print("late", run(here()).is_closed(), loop.is_closed())
atexit.register(late)
from microorm.dispatch.runner import run
async def here():
    return asyncio.get_running_loop()
loop = run(here())
def early():
    print("early", run(here()) is loop)
atexit.register(early)
"""


@pytest.mark.slow
def test_the_main_thread_closes_its_loop_at_exit() -> None:
    """Who runs a coroutine later still gets a loop."""
    assert (
        python(EXIT.replace("run(here()).is_closed()", "loop.is_closed()")) == "early True\nlate True True\n"
    )
    done = subprocess.run([sys.executable, "-c", EXIT], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("early True\nlate False True\n", "")


TO_THREAD = """
import asyncio
from microorm.dispatch.runner import run
print(run(asyncio.to_thread(lambda: "done")))
"""


@pytest.mark.slow
def test_a_program_that_used_threads_of_asyncio_exits_in_silence() -> None:
    assert python(TO_THREAD) == "done\n"


DAEMON = """
import asyncio, threading
from microorm.dispatch.runner import run
running = threading.Event()
async def forever():
    running.set()
    await asyncio.Event().wait()
threading.Thread(target=lambda: run(forever()), daemon=True).start()
running.wait()
print("exits")
"""


@pytest.mark.slow
def test_a_running_daemon_thread_does_not_disturb_the_exit() -> None:
    """Its loop is not the main thread's to close."""
    assert python(DAEMON) == "exits\n"


FORK = """
import asyncio, gc, os, sys
from microorm.dispatch.runner import run
async def here():
    return asyncio.get_running_loop()
async def elsewhere():
    await asyncio.to_thread(lambda: None)  # needs the loop to be woken up from another thread
    return "woken"
async def leave_behind():
    async def task():
        try:
            await asyncio.Event().wait()
        finally:
            print("cancelled in", "parent" if os.getpid() == parent else "child", flush=True)
    tasks.append(asyncio.create_task(task()))
    await asyncio.sleep(0)
tasks, parent = [], os.getpid()
loop = run(here())
run(leave_behind())
def in_child(function):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function()
            sys.stdout.flush()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
def send():
    inherited = loop
    own = run(here())
    print("child has its own:", own is not inherited, inherited.is_closed(), flush=True)
    assert run(here()) is own
    assert run(elsewhere()) == "woken"
in_child(send)
assert run(here()) is loop
print("parent is", run(elsewhere()), flush=True)
async def fork_inside():
    in_child(lambda: print("forked on the loop:", run(here()) is not loop, loop.is_closed()))
run(fork_inside())
print("parent is", run(elsewhere()), flush=True)
"""

FORK_AND_EXIT = """
import asyncio, os, sys
from microorm.dispatch.runner import run
async def elsewhere():
    await asyncio.to_thread(lambda: None)
    return "woken"
run(elsewhere())
sys.stdout.flush()
pid = os.fork()
if pid == 0:
    sys.exit()  # runs what is registered for the exit, in the child
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
print("parent is", run(elsewhere()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_makes_its_own_loop() -> None:
    """It runs none of the parent's tasks, and the parent's loop works on."""
    assert python(FORK).splitlines() == [
        "child has its own: True True",
        "parent is woken",
        "forked on the loop: True False",
        "parent is woken",
        "cancelled in parent",
    ]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_that_exits_leaves_the_parent_alone() -> None:
    """The loop is closed in the child without being deaf in the parent."""
    assert python(FORK_AND_EXIT) == "parent is woken\n"
