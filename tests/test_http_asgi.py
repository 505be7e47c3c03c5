"""The request signals around an ASGI application, called as a server would call it."""

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from microorm.dispatch import Signal
from microorm.http import SignalsMiddleware
from microorm.signals import got_request_exception, request_finished, request_started

SIGNALS = {"started": request_started, "exception": got_request_exception, "finished": request_finished}


@pytest.fixture
def log() -> Iterator[list[Any]]:
    """Hears the three signals: their names, in order, with those that the test adds."""
    log: list[Any] = []

    def listen(name: str, signal: Signal) -> Any:
        def receiver(**kwargs: Any) -> None:
            log.append(name)

        return signal.connect(receiver)

    held = {name: listen(name, signal) for name, signal in SIGNALS.items()}
    yield log
    for name, receiver in held.items():
        assert SIGNALS[name].disconnect(receiver)


@pytest.fixture
def connect() -> Iterator[Any]:
    """Connects a function to a signal for this test only."""
    with contextlib.ExitStack() as stack:

        def connect(signal: Signal, receiver: Any) -> None:
            signal.connect(receiver)
            stack.callback(signal.disconnect, receiver)

        yield connect


def scope(kind: str = "http", path: str = "/") -> dict[str, Any]:
    return {"type": kind, "path": path}


async def receive() -> dict[str, Any]:
    """An empty request, then a client that stays."""
    return {"type": "http.request", "body": b"", "more_body": False}


class Sent(list[Any]):
    """What an application sent."""

    async def __call__(self, message: Any) -> None:
        self.append(message)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """Answers in two chunks."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"a", "more_body": True})
    await send({"type": "http.response.body", "body": b"b"})


def test_the_signals_of_a_request_come_in_order_around_it(log: list[Any], connect: Any) -> None:
    """Sync and async receivers alike, with exactly these arguments; the last after the body was sent."""
    made, sent, heard = scope(), Sent(), []

    async def receiver(**named: Any) -> None:
        heard.append(named)

    async def send(message: Any) -> None:
        log.append(message["type"])
        await sent(message)

    for signal in (request_started, request_finished):
        connect(signal, receiver)
    asyncio.run(SignalsMiddleware(hello)(made, receive, send))
    assert log == [
        "started",
        "http.response.start",
        "http.response.body",
        "http.response.body",
        "finished",
    ]
    assert heard == [
        {"signal": signal, "sender": SignalsMiddleware, "scope": made}
        for signal in (request_started, request_finished)
    ]
    assert all(named["scope"] is made for named in heard)


def test_the_signals_are_sent_in_the_task_of_the_request(connect: Any) -> None:
    """By `asend`, with no thread between, so that receivers of both kinds share its context."""
    tasks = []

    def receiver(**kwargs: Any) -> None:
        tasks.append(asyncio.current_task())

    async def async_receiver(**kwargs: Any) -> None:
        tasks.append(asyncio.current_task())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        tasks.append(asyncio.current_task())

    for signal in (request_started, request_finished):
        connect(signal, receiver)
        connect(signal, async_receiver)
    asyncio.run(SignalsMiddleware(app)(scope(), receive, Sent()))
    assert len(tasks) == 5
    assert len(set(tasks)) == 1


def test_the_application_gets_the_very_channels_of_the_server() -> None:
    """R: nothing is buffered and nothing wrapped."""
    given: list[Any] = []

    async def app(*arguments: Any) -> None:
        given.extend(arguments)

    made = [scope(), receive, Sent()]
    asyncio.run(SignalsMiddleware(app)(*made))
    assert all(one is other for one, other in zip(given, made, strict=True))


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
def test_other_scopes_pass_untouched(log: list[Any], kind: str) -> None:
    """No signal for what is no request, and its exceptions are not told."""
    error = LookupError()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": f"{kind}.seen"})
        raise error

    sent = Sent()
    with pytest.raises(LookupError) as caught:
        asyncio.run(SignalsMiddleware(app)(scope(kind), receive, sent))
    assert caught.value is error
    assert sent == [{"type": f"{kind}.seen"}]
    assert log == []


def test_a_derived_middleware_is_a_sender_of_its_own() -> None:
    """The sender is the class of the middleware."""

    class Mine(SignalsMiddleware):
        pass

    heard = []

    def receiver(sender: Any, **kwargs: Any) -> None:
        heard.append(sender)

    request_finished.connect(receiver, sender=Mine)
    try:
        asyncio.run(Mine(hello)(scope(), receive, Sent()))
        asyncio.run(SignalsMiddleware(hello)(scope(), receive, Sent()))
    finally:
        assert request_finished.disconnect(receiver, sender=Mine)
    assert heard == [Mine]


def test_an_exception_of_the_application_is_told_and_goes_on(log: list[Any], connect: Any) -> None:
    """Kwargs `exception` and `scope`; it is the active exception meanwhile; then the request is finished."""
    error, made = LookupError("no such page"), scope()
    heard: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    async def remember(**named: Any) -> None:
        heard.append((named, sys.exc_info()[1]))

    connect(got_request_exception, remember)
    with pytest.raises(LookupError) as caught:
        asyncio.run(SignalsMiddleware(app)(made, receive, Sent()))
    assert caught.value is error
    named = {
        "signal": got_request_exception,
        "sender": SignalsMiddleware,
        "exception": error,
        "scope": made,
    }
    assert heard == [(named, error)]
    assert log == ["started", "exception", "finished"]


def test_a_cancelled_request_is_finished_once(log: list[Any], connect: Any) -> None:
    """A cancellation is the client's or the server's doing, no exception of the application."""
    reached = []

    async def finish_slowly(**kwargs: Any) -> None:
        await asyncio.sleep(0)
        reached.append("end")

    async def main() -> None:
        begun = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                log.append("cleaned")

        task = asyncio.create_task(SignalsMiddleware(app)(scope(), receive, Sent()))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    connect(request_finished, finish_slowly)
    asyncio.run(main())
    assert log == ["started", "cleaned", "finished"]
    assert reached == ["end"]


def test_a_request_whose_client_goes_away_is_finished_once(log: list[Any]) -> None:
    """The application hears of it by `http.disconnect`, and returns without an answer or in the middle."""
    messages = [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}]

    async def gone() -> Any:
        return messages.pop(0)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        log.append("gone")

    asyncio.run(SignalsMiddleware(app)(scope(), gone, Sent()))
    assert log == ["started", "gone", "finished"]


def test_a_send_that_fails_is_told_as_the_applications_exception(log: list[Any]) -> None:
    """Some servers raise OSError where the client is gone; an application may let it pass."""

    async def broken(message: Any) -> None:
        raise OSError("client is gone")

    with pytest.raises(OSError, match="client is gone"):
        asyncio.run(SignalsMiddleware(hello)(scope(), receive, broken))
    assert log == ["started", "exception", "finished"]


def test_work_after_the_answer_belongs_to_the_request(log: list[Any]) -> None:
    """Starlette runs background tasks there, which may use the databases."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        await asyncio.sleep(0)
        log.append("background")

    asyncio.run(SignalsMiddleware(app)(scope(), receive, Sent()))
    assert log == ["started", "background", "finished"]


def test_an_error_of_a_receiver_goes_to_the_server(log: list[Any], connect: Any) -> None:
    """It is no exception of the application, and the request is finished once."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        log.append("app")

    async def fail(**kwargs: Any) -> None:
        raise PermissionError("by a receiver")

    connect(request_finished, fail)
    with pytest.raises(PermissionError):
        asyncio.run(SignalsMiddleware(app)(scope(), receive, Sent()))
    assert log == ["started", "app", "finished"]
    request_finished.disconnect(fail)
    log.clear()
    connect(request_started, fail)
    with pytest.raises(PermissionError):
        asyncio.run(SignalsMiddleware(app)(scope(), receive, Sent()))
    assert log == ["started", "finished"]


def test_requests_side_by_side_keep_apart(connect: Any) -> None:
    """Each is started and finished with its own scope."""
    heard: list[Any] = []

    def started(scope: Any, **kwargs: Any) -> None:
        heard.append(("started", scope["path"]))

    def finished(scope: Any, **kwargs: Any) -> None:
        heard.append(("finished", scope["path"]))

    async def main() -> None:
        turn = {"/first": asyncio.Event(), "/second": asyncio.Event()}

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await turn[scope["path"]].wait()

        site = SignalsMiddleware(app)
        first, second = (asyncio.create_task(site(scope(path=path), receive, Sent())) for path in turn)
        await asyncio.sleep(0)
        turn["/second"].set()
        await second
        turn["/first"].set()
        await first

    connect(request_started, started)
    connect(request_finished, finished)
    asyncio.run(main())
    assert heard == [
        ("started", "/first"),
        ("started", "/second"),
        ("finished", "/second"),
        ("finished", "/first"),
    ]
