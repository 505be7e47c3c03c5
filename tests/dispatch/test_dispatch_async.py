"""Async receivers, from `send` and from `asend`."""

import asyncio
import contextvars
import functools
import gc
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from microorm.dispatch import Signal, muted
from microorm.dispatch.receivers import Connection, Route
from microorm.dispatch.signal import run_coroutine

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class Book:
    pass


@pytest.fixture
def signal() -> Signal:
    return Signal()


def sync_named(name: str, calls: list[str]) -> Callable[..., Any]:
    def note(**kwargs: Any) -> str:
        calls.append(name)
        return name

    return note


def async_named(name: str, calls: list[str]) -> Callable[..., Any]:
    """Notes its name when it starts and, after letting the others run, when it ends."""

    async def note(**kwargs: Any) -> str:
        calls.append(f"{name} starts")
        await asyncio.sleep(0)
        calls.append(f"{name} ends")
        return name

    return note


def sends(signal: Signal, robust: bool = False) -> list[Callable[..., Any]]:
    """The synchronous and the asynchronous way to send, both as plain functions."""
    if robust:
        return [signal.send_robust, lambda *a, **k: asyncio.run(signal.asend_robust(*a, **k))]
    return [signal.send, lambda *a, **k: asyncio.run(signal.asend(*a, **k))]


WAYS = pytest.mark.parametrize("way", [0, 1], ids=["send", "asend"])


class Handler:
    async def __call__(self, **kwargs: Any) -> str:
        return "object"

    async def method(self, **kwargs: Any) -> str:
        return "method"


async def function(**kwargs: Any) -> str:
    return "function"


@WAYS
def test_every_kind_of_async_receiver_is_awaited(signal: Signal, way: int) -> None:
    """A coroutine function, a method or a partial of one, and an object whose `__call__` is one."""
    handler = Handler()
    kinds = [function, handler.method, functools.partial(function), handler]
    for each in kinds:
        signal.connect(each)
    assert sends(signal)[way](Book) == list(
        zip(kinds, ["function", "method", "function", "object"], strict=True)
    )


@WAYS
@pytest.mark.parametrize("robust", [False, True])
def test_sync_receivers_come_before_async_ones(signal: Signal, way: int, robust: bool) -> None:
    """The sync ones one by one, then the async ones side by side; results in that order."""
    calls: list[str] = []
    third, fourth = async_named("third", calls), async_named("fourth", calls)
    first, second = sync_named("first", calls), sync_named("second", calls)
    for each in (third, first, fourth, second):
        signal.connect(each)
    assert sends(signal, robust)[way](Book) == [
        (first, "first"),
        (second, "second"),
        (third, "third"),
        (fourth, "fourth"),
    ]
    assert calls == ["first", "second", "third starts", "fourth starts", "third ends", "fourth ends"]


@WAYS
@pytest.mark.parametrize("robust", [False, True])
def test_an_async_receiver_gets_the_same_arguments(signal: Signal, way: int, robust: bool) -> None:
    """By keyword, with one receiver and with several."""
    seen: list[dict[str, Any]] = []

    @signal.connect
    async def note(**kwargs: Any) -> None:
        seen.append(kwargs)

    sends(signal, robust)[way](Book, title="Lathe")
    signal.connect(note, dispatch_uid="again")
    sends(signal, robust)[way](Book, title="Lathe")
    assert seen == [{"signal": signal, "sender": Book, "title": "Lathe"}] * 3


@WAYS
@pytest.mark.parametrize("robust", [False, True])
def test_nobody_can_send_a_signal_argument(signal: Signal, way: int, robust: bool) -> None:
    """TypeError, before any receiver has run."""
    calls: list[str] = []
    waiting = async_named("waiting", calls)
    signal.connect(waiting)
    with pytest.raises(TypeError, match=r"^send\(\) passes signal= itself; it is not an argument$"):
        sends(signal, robust)[way](Book, signal=1)
    assert calls == []


def test_a_sync_send_runs_everything_in_the_calling_thread(signal: Signal) -> None:
    """There is no helper thread."""
    threads: list[int] = []

    @signal.connect
    def sync(**kwargs: Any) -> None:
        threads.append(threading.get_ident())

    @signal.connect
    async def waiting(**kwargs: Any) -> None:
        threads.append(threading.get_ident())

    signal.send(Book)
    assert threads == [threading.get_ident()] * 2


@pytest.mark.parametrize("send", ["send", "send_robust"])
def test_on_a_running_loop_a_sync_send_reaches_sync_receivers_only(signal: Signal, send: str) -> None:
    """RuntimeError before any receiver has run, if one of them is async."""
    calls: list[str] = []
    sync = sync_named("sync", calls)
    signal.connect(sync)

    async def here() -> Any:
        return getattr(signal, send)(Book)

    assert asyncio.run(here()) == [(sync, "sync")]
    signal.connect(function)
    with pytest.raises(RuntimeError) as caught:
        asyncio.run(here())
    assert (
        str(caught.value)
        == f"cannot run async receiver {__name__}.function synchronously on a running event loop; await asend() instead of send()"
    )
    assert calls == ["sync"]
    gc.collect()  # a coroutine that was made and never awaited would warn here


def test_asend_runs_sync_receivers_inline(signal: Signal) -> None:
    """In the thread and the task of the caller, whose context they change."""
    seen: list[object] = []

    @signal.connect
    def sync(**kwargs: Any) -> None:
        seen.extend((threading.get_ident(), asyncio.current_task()))
        variable.set("by a sync receiver")

    async def here() -> None:
        await signal.asend(Book)
        assert seen == [threading.get_ident(), asyncio.current_task()]
        assert variable.get() == "by a sync receiver"

    asyncio.run(here())


def test_a_lone_async_receiver_runs_in_the_senders_task(signal: Signal) -> None:
    """Several run in tasks of their own."""
    tasks: list[object] = []

    @signal.connect
    async def note(**kwargs: Any) -> None:
        tasks.append(asyncio.current_task())

    async def here() -> object:
        await signal.asend(Book)
        signal.connect(note, dispatch_uid="again")
        await signal.asend(Book)
        return asyncio.current_task()

    mine = asyncio.run(here())
    assert [task is mine for task in tasks] == [True, False, False]


@pytest.mark.parametrize("send", ["asend", "asend_robust"])
def test_asend_makes_no_thread(signal: Signal, send: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With sync and async receivers alike."""
    calls: list[str] = []
    first, second, third = sync_named("1", calls), async_named("2", calls), async_named("3", calls)
    for each in (first, second, third):
        signal.connect(each)
    monkeypatch.setattr(threading.Thread, "start", lambda thread: pytest.fail("a thread was started"))
    assert len(asyncio.run(getattr(signal, send)(Book))) == 3


@WAYS
@pytest.mark.parametrize("alone", [True, False])
def test_one_error_is_raised_as_it_is(signal: Signal, way: int, alone: bool) -> None:
    """And the siblings are cancelled; what its receiver chained to it stays."""
    calls: list[str] = []
    cause = KeyError("cause")
    error = LookupError("no such shelf")

    async def forever(**kwargs: Any) -> None:
        calls.append("waits")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            calls.append("cancelled")
            raise

    if not alone:
        signal.connect(forever)

    @signal.connect
    async def fail(**kwargs: Any) -> None:
        raise error from cause

    with pytest.raises(LookupError) as caught:
        sends(signal)[way](Book)
    assert caught.value is error
    assert error.__cause__ is cause
    assert error.__context__ is None
    assert calls == ([] if alone else ["waits", "cancelled"])


@WAYS
def test_several_errors_are_raised_as_a_group(signal: Signal, way: int) -> None:
    errors = [LookupError("one"), ValueError("two")]

    def failing(error: Exception) -> Callable[..., Any]:
        async def fail(**kwargs: Any) -> None:
            raise error

        return fail

    kept = [signal.connect(failing(error)) for error in errors]
    with pytest.raises(ExceptionGroup) as caught:
        sends(signal)[way](Book)
    assert list(caught.value.exceptions) == errors
    assert len(kept) == 2


@WAYS
def test_after_a_sync_error_no_async_receiver_runs(signal: Signal, way: int) -> None:
    calls: list[str] = []
    waiting = async_named("waiting", calls)
    signal.connect(waiting)

    @signal.connect
    def fail(**kwargs: Any) -> None:
        raise LookupError("no such shelf")

    with pytest.raises(LookupError, match="no such shelf"):
        sends(signal)[way](Book)
    assert calls == []
    gc.collect()


@WAYS
@pytest.mark.parametrize("alone", [True, False])
def test_a_robust_send_wraps_each_receiver_by_itself(
    signal: Signal, way: int, alone: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The text in the log is the same for both ways."""
    calls: list[str] = []
    error = LookupError("no such shelf")
    waiting, also_waiting = async_named("waiting", calls), async_named("also", calls)

    async def fail(**kwargs: Any) -> None:
        raise error

    for each in (fail,) if alone else (waiting, fail, also_waiting):
        signal.connect(each)
    responses = sends(signal, robust=True)[way](Book)
    assert (
        responses == [(fail, error)]
        if alone
        else [(waiting, "waiting"), (fail, error), (also_waiting, "also")]
    )
    assert error.__traceback__ is not None
    name = "test_a_robust_send_wraps_each_receiver_by_itself.<locals>.fail"
    [record] = [record for record in caplog.records if record.name == "microorm.dispatch"]
    assert record.levelno == logging.ERROR
    assert record.getMessage() == f"Error calling {name} in Signal.send_robust() (no such shelf)"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@WAYS
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
@pytest.mark.parametrize("alone", [True, False])
def test_a_robust_send_swallows_no_more_than_exceptions(
    signal: Signal, way: int, kind: type[BaseException], alone: bool
) -> None:
    waiting = async_named("waiting", [])
    if not alone:
        signal.connect(waiting)

    @signal.connect
    async def leave(**kwargs: Any) -> None:
        raise kind

    with pytest.raises(kind):
        sends(signal, robust=True)[way](Book)
    del leave
    gc.collect()  # asyncio tells of a task that such an error stopped, here and not in another test


@pytest.mark.parametrize("send", ["asend", "asend_robust"])
def test_cancelling_asend_cancels_its_receivers(signal: Signal, send: str) -> None:
    """And the cancellation goes on."""
    calls: list[str] = []

    async def forever(**kwargs: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            calls.append("cancelled")

    signal.connect(forever)
    signal.connect(forever, dispatch_uid="again")

    async def here() -> None:
        task = asyncio.create_task(getattr(signal, send)(Book))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(here())
    assert calls == ["cancelled", "cancelled"]


@WAYS
@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_what_receivers_set_reaches_the_sender(signal: Signal, way: int, robust: bool, count: int) -> None:
    """Async receivers share one context, and its changes are put back."""
    seen: list[str] = []

    async def extend(**kwargs: Any) -> None:
        seen.append(variable.get())
        variable.set(variable.get() + "+")

    for uid in range(1, count + 1):
        signal.connect(extend, dispatch_uid=uid)

    async def here() -> str:
        variable.set("sender")
        await (signal.asend_robust if robust else signal.asend)(Book)
        return variable.get()

    def there() -> str:
        variable.set("sender")
        (signal.send_robust if robust else signal.send)(Book)
        return variable.get()

    after = asyncio.run(here()) if way else contextvars.copy_context().run(there)
    assert after == "sender" + count * "+"
    assert seen == ["sender", "sender+"][:count]
    assert variable.get() == "unset"


@WAYS
@pytest.mark.parametrize("count", [1, 2])
def test_what_receivers_set_before_an_error_reaches_the_sender(signal: Signal, way: int, count: int) -> None:
    """As it does with sync receivers."""

    async def fail(**kwargs: Any) -> None:
        variable.set("before the error")
        raise LookupError

    async def other(**kwargs: Any) -> None: ...

    for each in (fail, other)[:count]:
        signal.connect(each)

    async def here() -> str:
        with pytest.raises(LookupError):
            await signal.asend(Book)
        return variable.get()

    def there() -> str:
        with pytest.raises(LookupError):
            signal.send(Book)
        return variable.get()

    after = asyncio.run(here()) if way else contextvars.copy_context().run(there)
    assert after == "before the error"


@pytest.mark.parametrize("send", ["asend", "asend_robust"])
def test_with_nobody_to_reach_asend_awaits_nothing(signal: Signal, send: str) -> None:
    """Nothing connected, another sender, muted: the coroutine ends at its first step."""

    def first_step() -> Any:
        coroutine = getattr(signal, send)(Book, title="Lathe")
        with pytest.raises(StopIteration) as ended:
            coroutine.send(None)
        return ended.value.value

    assert first_step() == []
    signal.connect(function, sender=Handler)
    assert first_step() == []
    signal.connect(function)
    with muted(signal):
        assert first_step() == []


def test_a_weak_async_receiver_may_die_before_its_turn(signal: Signal) -> None:
    """It is left out."""
    kept = [async_named("dies", [])]
    signal.connect(kept[0])

    @signal.connect
    def drop(**kwargs: Any) -> None:
        kept.clear()

    signal.connect(function)
    assert asyncio.run(signal.asend(Book)) == [(drop, None), (function, "function")]


def test_an_async_receiver_lives_while_it_runs(signal: Signal) -> None:
    """The send holds it."""
    kept: list[Any] = []

    async def drop(**kwargs: Any) -> str:
        kept.clear()
        gc.collect()
        await asyncio.sleep(0)
        return "done"

    kept.append(functools.partial(drop))
    signal.connect(kept[0])
    assert [response for _, response in signal.send(Book)] == ["done"]


class OneByOne(Signal):
    concurrent = False


@WAYS
def test_a_signal_may_run_its_async_receivers_one_by_one(way: int) -> None:
    """For model signals: in order, in the task of the caller, sharing its context."""
    signal, calls = OneByOne(), []
    first, second = async_named("first", calls), async_named("second", calls)
    signal.connect(first)
    signal.connect(second)
    assert sends(signal)[way](Book) == [(first, "first"), (second, "second")]
    assert calls == ["first starts", "first ends", "second starts", "second ends"]


@WAYS
def test_one_by_one_the_first_error_stops_the_rest(way: int) -> None:
    """For model signals: unless the send is robust."""
    signal, calls = OneByOne(), []
    first, last = async_named("first", calls), async_named("last", calls)
    error = LookupError("no such shelf")

    async def fail(**kwargs: Any) -> None:
        raise error

    for each in (first, fail, last):
        signal.connect(each)
    with pytest.raises(LookupError) as caught:
        sends(signal)[way](Book)
    assert caught.value is error
    assert calls == ["first starts", "first ends"]
    assert sends(signal, robust=True)[way](Book) == [(first, "first"), (fail, error), (last, "last")]


@WAYS
def test_a_subclass_may_deliver_otherwise(way: int) -> None:
    """To connections with options; what `_deliver` returns for an async receiver is awaited if it can be."""
    delivered: list[tuple[Any, ...]] = []

    class Postponing(Signal):
        def _deliver(
            self, connection: Connection, receiver: Any, sender: object, named: Mapping[str, Any]
        ) -> Any:
            delivered.append((connection.receiver, receiver, sender, dict(named)))
            return super()._deliver(connection, receiver, sender, named) if named["now"] else "later"

    signal = Postponing()
    sync = sync_named("sync", [])
    for each in (function, sync):
        signal._connect(each, None, True, None, {"delivery": "on_commit"})
    assert sends(signal)[way](Book, now=True) == [(sync, "sync"), (function, "function")]
    assert sends(signal)[way](Book, now=False) == [(sync, "later"), (function, "later")]
    assert delivered == [
        (each, each, Book, {"now": now}) for now in (True, False) for each in (sync, function)
    ]


@WAYS
def test_a_subclass_may_leave_out_connections_with_options(way: int) -> None:
    """It is asked at each send, about those alone that have options."""
    asked: list[Any] = []

    class Choosy(Signal):
        def _accepts(self, connection: Connection, named: Mapping[str, Any]) -> bool:
            asked.append((connection.receiver, dict(connection.options), dict(named)))
            return named["raw"] not in connection.options["skip"]

    signal = Choosy()
    picky, other = sync_named("picky", []), sync_named("other", [])
    waiting, also = async_named("waiting", []), async_named("also", [])
    for each in (picky, waiting):
        signal._connect(each, None, True, None, {"skip": [True]})
    for each in (other, also):
        signal.connect(each)
    everyone = [(picky, "picky"), (other, "other"), (waiting, "waiting"), (also, "also")]
    assert sends(signal)[way](Book, raw=False) == everyone
    assert sends(signal)[way](Book, raw=True) == [everyone[1], everyone[3]]
    assert asked == [
        (each, {"skip": [True]}, {"raw": raw}) for raw in (False, True) for each in (picky, waiting)
    ]


def test_a_plain_signal_accepts_connections_with_options(signal: Signal) -> None:
    waiting, sync = async_named("waiting", []), sync_named("sync", [])
    for each in (waiting, sync):
        signal._connect(each, None, True, None, {"any": 1})
    assert signal.send(Book) == [(sync, "sync"), (waiting, "waiting")]


def test_a_subclass_may_wait_in_its_own_way() -> None:
    """Asked once per synchronous send with async receivers, before any receiver has run."""
    calls: list[object] = []

    class Waiting(Signal):
        def _runner(self, route: Route) -> Any:
            calls.append([connection.receiver for connection in route])
            return lambda coroutine: [("waited", run_coroutine(coroutine))]

    signal = Waiting()
    sync = sync_named("sync", calls)  # type: ignore[arg-type]
    signal.connect(sync)
    assert signal.send(Book) == [(sync, "sync")]
    signal.connect(function)
    assert signal.send(Book) == [(sync, "sync"), ("waited", [(function, "function")])]
    assert calls == ["sync", [sync, function], "sync"]
    asyncio.run(signal.asend(Book))
    assert len(calls) == 4


LAZY = """
import sys, types
package = types.ModuleType("microorm")
package.__path__ = [sys.argv[1]]
sys.modules["microorm"] = package  # without the models, and what these need
from microorm.dispatch import Signal
signal = Signal()
calls = []
@signal.connect
def sync(**kwargs): calls.append("sync")
class Marked:
    _is_coroutine = None
    def __call__(self, **kwargs): calls.append("no coroutine")
signal.connect(marked := Marked())
signal.send(None)
assert "asyncio" not in sys.modules, "asyncio was imported for nothing"
@signal.connect
async def waiting(**kwargs): calls.append("waiting")
assert "asyncio" not in sys.modules, "asyncio was imported too early"
signal.send(None)
print(calls)
"""


def test_asyncio_is_imported_when_an_async_receiver_runs() -> None:
    """A program without async receivers does not pay for asyncio."""
    from_here = __import__("microorm.dispatch").__path__[0]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LAZY, from_here], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "['sync', 'no coroutine', 'sync', 'no coroutine', 'waiting']\n"
