"""Event loops: what is kept for one, until it ends.

A connection for asyncio belongs to the event loop in which it was opened. So each loop has engines of its own, and a loop
that ends closes them: `asyncio.run` and other runners end the asynchronous generators of their loop, and one waits here
for that. The connections of a loop that was closed without this are dropped when the next one begins.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary, ref

from microorm.db.aio.greenlets import Greenlets
from microorm.db.context import awaited_call

if TYPE_CHECKING:
    from microorm.db.aio.database import AsyncDatabase, LoopEngine
    from microorm.db.blocks import AtomicBlock

T = TypeVar("T")

_log = logging.getLogger("microorm.engines")

STREAMS_TIMEOUT = 2.0
"""For how many seconds the end of an event loop waits for streams that are not closed."""


class EventLoop:
    """The engines of one event loop, by database, and what it has to wait for before it is closed.

    *blocks*: the open blocks of its tasks. They are kept alive, so that the garbage collector does not take the connection
    of a block before it closes the coroutine that has the block open. *ending*: connections that were dropped, whose threads
    answer the loop once more.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)
        self.engines: dict[AsyncDatabase, LoopEngine] = {}
        self.greenlets = Greenlets()
        self.blocks: set[AtomicBlock] = set()
        self._streams = 0
        self._no_streams = asyncio.Event()
        self.ending: set[asyncio.Future[Any]] = set()
        self._keeper = self._until_it_ends()
        with suppress(StopIteration):  # it yields at once, and awaits nothing before
            self._keeper.asend(None).send(None)

    @property
    def is_closed(self) -> bool:
        """Whether the loop was closed."""
        loop = self._loop()
        return loop is None or loop.is_closed()

    @property
    def is_here(self) -> bool:
        """Whether the loop is running in this thread."""
        return asyncio._get_running_loop() is self._loop()

    @property
    def can_close(self) -> bool:
        """Whether the loop runs, and can run a step of `begin` soon: synchronous code in one of its tasks does not hold it up."""
        loop = self._loop()
        return loop is not None and loop.is_running() and not (self.is_here and awaited_call() is None)

    def begin(self, step: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run the coroutine that *step* makes in a task of the loop, from any thread; do nothing if the loop is closed.

        The loop waits for it before it is closed.
        """

        def begin() -> None:
            self.wait_for(task_of_its_own(_logged(step)))

        loop = self._loop()
        with suppress(RuntimeError):  # the loop is closed, maybe just now
            if loop is not None:
                loop.call_soon_threadsafe(begin)

    def wait_for(self, ending: asyncio.Future[Any]) -> None:
        """Wait for *ending* before the loop is closed."""
        self.ending.add(ending)
        ending.add_done_callback(self.ending.discard)

    def abandon(self) -> None:
        """Drop all connections, whose loop does not run any more."""
        while self.engines:
            self.engines.popitem()[1].abandon()
        self.greenlets.close()

    def begin_stream(self) -> None:
        """Let the end of the loop wait for one more stream."""
        self._streams += 1

    async def end_stream(self, closing: Coroutine[Any, Any, None]) -> None:
        """Await *closing*, which closes a stream, in a task of its own.

        If the loop ends as a generator is left, Python 3.11 cancels the generator and does not resume it after that.
        """
        task = task_of_its_own(closing)
        task.add_done_callback(self._end_stream)
        await asyncio.shield(task)

    def _end_stream(self, task: asyncio.Task[None]) -> None:
        self._streams -= 1
        self._no_streams.set()

    async def _until_it_ends(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            # The loop closes its other generators at the same time. A stream may be in one that the program still reads.
            with suppress(TimeoutError):
                async with asyncio.timeout(STREAMS_TIMEOUT):
                    while self._streams:
                        self._no_streams.clear()
                        await self._no_streams.wait()
            while self.engines:
                database, engine = self.engines.popitem()
                await engine.aclose()
                database.forget(self)
            while self.ending:
                await asyncio.wait([*self.ending])
            self.greenlets.close()


async def _logged(step: Callable[[], Coroutine[Any, Any, object]]) -> None:
    try:
        await step()
    except Exception as error:  # noqa: BLE001 there is no caller to raise it to
        _log.debug("idle connections could not be closed: %s", error)


def task_of_its_own(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Return a task of *coroutine* that `asyncio.run` does not cancel when the main coroutine has ended.

    It cancels all registered tasks, and waits for them. The task that waits for this one is among them.
    """
    task = asyncio.create_task(coroutine)
    asyncio._unregister_task(task)  # documented, for implementations of tasks
    return task


_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, EventLoop] = WeakKeyDictionary()
_lock = threading.Lock()


def event_loop(loop: asyncio.AbstractEventLoop) -> EventLoop:
    """Return what is kept for *loop*, which is running."""
    found = _loops.get(loop)
    if found is None:
        with _lock:
            found = _loops[loop] = EventLoop(loop)
            ended = [(each, kept) for each, kept in _loops.items() if each.is_closed()]
            for each, _ in ended:
                del _loops[each]
        for _, kept in ended:
            kept.abandon()
    return found
