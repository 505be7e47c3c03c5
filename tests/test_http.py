"""The request signals around a WSGI application, called as a server would call it."""

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

from microorm.dispatch import Signal
from microorm.http import WSGISignals
from microorm.signals import got_request_exception, request_finished, request_started

SIGNALS = {"started": request_started, "exception": got_request_exception, "finished": request_finished}


class Log(list[Any]):
    """What happened, in order, and what was sent with each signal."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, Any, dict[str, Any]]] = []


@pytest.fixture
def log() -> Iterator[Log]:
    """Hears the three signals from every sender."""
    log = Log()

    def listen(name: str, signal: Signal) -> Any:
        def receiver(sender: Any, **named: Any) -> None:
            assert named.pop("signal") is signal
            log.append(name)
            log.sent.append((name, sender, named))

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


def environ(**more: Any) -> dict[str, Any]:
    """The environ of a request, as a server makes it."""
    made: dict[str, Any] = {"QUERY_STRING": "", **more}
    setup_testing_defaults(made)
    return made


def nothing(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
    """A server's start_response."""
    return lambda data: None


def answer(app: Any, **more: Any) -> bytes:
    """Do what a server does: call, read, close."""
    body = app(environ(**more), nothing)
    try:
        return b"".join(body)
    finally:
        body.close()


def ok(start_response: Any, body: Any) -> Any:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return body


def test_the_signals_of_a_request_come_in_order_around_it(log: Log) -> None:
    """Started when the environ arrives, finished at the end; sender and arguments are exactly these."""

    def app(environ: Any, start_response: Any) -> Any:
        log.append("app")
        return ok(start_response, [b"a", b"b"])

    site = WSGISignals(app)
    made = environ()
    body = site(made, nothing)
    assert log == ["started", "app"]
    assert b"".join(body) == b"ab"
    assert log == ["started", "app"]
    body.close()
    assert log == ["started", "app", "finished"]
    assert log.sent == [
        ("started", WSGISignals, {"environ": made}),
        ("finished", WSGISignals, {"environ": made}),
    ]
    assert all(named["environ"] is made for _, _, named in log.sent)


def test_the_environ_can_be_changed_before_the_application_sees_it(connect: Any) -> None:
    """`request_started` has the live environ."""

    def started(environ: Any, **kwargs: Any) -> None:
        environ["shop.customer"] = b"Ann"

    connect(request_started, started)
    site = WSGISignals(lambda environ, start_response: ok(start_response, [environ["shop.customer"]]))
    assert answer(site) == b"Ann"


def test_a_derived_middleware_is_a_sender_of_its_own(log: Log, connect: Any) -> None:
    """The sender is the class of the middleware."""

    class Mine(WSGISignals):
        pass

    heard = []

    def receiver(sender: Any, **kwargs: Any) -> None:
        heard.append(sender)

    request_started.connect(receiver, sender=Mine)
    try:
        answer(Mine(lambda environ, start_response: ok(start_response, [])))
        answer(WSGISignals(lambda environ, start_response: ok(start_response, [])))
    finally:
        assert request_started.disconnect(receiver, sender=Mine)
    assert heard == [Mine]
    assert [sender for _, sender, _ in log.sent] == [Mine, Mine, WSGISignals, WSGISignals]


def test_the_body_is_closed_before_the_request_is_finished(log: Log) -> None:
    """The application's own `close` runs first."""

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"x"])

        def close(self) -> None:
            log.append("closed")

    assert answer(WSGISignals(lambda environ, start_response: ok(start_response, Body()))) == b"x"
    assert log == ["started", "closed", "finished"]


def test_a_second_close_does_nothing(log: Log) -> None:
    """Once, however often the server closes."""
    closed = []

    class Body(list[bytes]):
        def close(self) -> None:
            closed.append(1)

    body: Any = WSGISignals(lambda environ, start_response: ok(start_response, Body([b"x"])))(
        environ(), nothing
    )
    body.close()
    body.close()
    assert (log, closed) == (["started", "finished"], [1])


def test_a_generator_runs_between_started_and_finished(log: Log) -> None:
    """Streaming finishes when it is closed, not when the application returns; an early close is one, too."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        log.append("first")
        start_response("200 OK", [])
        try:
            yield b"1"
            log.append("second")
            yield b"2"
        finally:
            log.append("cleaned")

    assert answer(WSGISignals(app)) == b"12"
    assert log == ["started", "first", "second", "cleaned", "finished"]
    log.clear()
    body: Any = WSGISignals(app)(environ(), nothing)
    assert next(body) == b"1"
    body.close()
    assert log == ["started", "first", "cleaned", "finished"]
    assert list(body) == []


def test_a_body_that_is_never_read_is_finished_all_the_same(log: Log) -> None:
    """A HEAD request, or a client that is gone: the server only closes."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        yield b"not wanted"  # pragma: no cover

    body: Any = WSGISignals(app)(environ(REQUEST_METHOD="HEAD"), nothing)
    body.close()
    assert log == ["started", "finished"]


def test_what_is_written_goes_to_the_server(log: Log) -> None:
    """An application that calls `write` finishes after its body was closed, as others do."""
    written = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        written.append(status)
        return written.append

    def app(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("201 Created", [])
        write(b"one")
        log.append("written")
        return []

    body: Any = WSGISignals(app)(environ(), start_response)
    assert written == ["201 Created", b"one"]
    assert list(body) == []
    body.close()
    assert log == ["started", "written", "finished"]


@pytest.mark.parametrize("body", [[b"one"], (b"one", b"two"), []], ids=["one", "two", "none"])
def test_a_body_with_a_length_keeps_it(body: Any) -> None:
    """A server can tell the length of a list of one chunk; so it can through the middleware."""
    made: Any = WSGISignals(lambda environ, start_response: ok(start_response, body))(environ(), nothing)
    assert len(made) == len(body)
    assert list(made) == list(body)
    made.close()


def test_a_generator_gets_no_length() -> None:
    made: Any = WSGISignals(lambda environ, start_response: ok(start_response, iter([b"one"])))(
        environ(), nothing
    )
    assert not hasattr(made, "__len__")
    made.close()


def test_a_file_stays_the_file_of_the_server(log: Log) -> None:
    """The server may send its own wrapper by other means than reading it; closing it finishes the request."""
    file = io.BytesIO(b"content")

    def app(environ: Any, start_response: Any) -> Any:
        return ok(start_response, environ["wsgi.file_wrapper"](file, 4))

    body: Any = WSGISignals(app)(environ(**{"wsgi.file_wrapper": FileWrapper}), nothing)
    assert isinstance(body, FileWrapper)
    assert list(body) == [b"cont", b"ent"]
    assert (log, file.closed) == (["started"], False)
    body.close()
    body.close()
    assert (log, file.closed) == (["started", "finished"], True)


def test_a_file_wrapper_that_cannot_be_changed_is_read(log: Log) -> None:
    """Servers written in C have such; a wrapper that is a function makes who knows what."""

    class Fixed:
        __slots__ = ("file",)

        def __init__(self, file: Any) -> None:
            self.file = file

        def __iter__(self) -> Iterator[bytes]:
            return iter(self.file)

        def close(self) -> None:
            self.file.close()

    for wrapper in (Fixed, lambda file: Fixed(file)):
        file = io.BytesIO(b"line 1\nline 2")

        def app(environ: Any, start_response: Any, file: Any = file) -> Any:
            return ok(start_response, environ["wsgi.file_wrapper"](file))

        assert answer(WSGISignals(app), **{"wsgi.file_wrapper": wrapper}) == b"line 1\nline 2"
        assert file.closed
    assert log == ["started", "finished"] * 2


def test_the_middleware_keeps_the_protocol_on_both_sides(log: Log) -> None:
    """PEP 3333, as the standard library's checker reads it, seen by the server and by the application."""

    def app(environ: Any, start_response: Any) -> Any:
        return ok(start_response, [b"checked"])

    assert answer(validator(WSGISignals(validator(app)))) == b"checked"
    assert log == ["started", "finished"]


def test_an_exception_of_the_application_is_told_and_goes_on(log: Log, connect: Any) -> None:
    """Kwargs `exception` and `environ`; it is the active exception meanwhile; then the request is finished."""
    error = LookupError("no such page")
    active: list[Any] = []

    def remember(**kwargs: Any) -> None:
        active.append(sys.exc_info()[1])

    def app(environ: Any, start_response: Any) -> Any:
        raise error

    connect(got_request_exception, remember)
    made = environ()
    with pytest.raises(LookupError) as caught:
        WSGISignals(app)(made, nothing)
    assert caught.value is error
    assert active == [error]
    assert log == ["started", "exception", "finished"]
    assert log.sent[1] == ("exception", WSGISignals, {"exception": error, "environ": made})


def test_an_exception_in_the_middle_of_a_body_is_told_once(log: Log) -> None:
    """The server gets it while it reads, and closes; that finishes the request."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        yield b"1"
        raise LookupError("half-way")

    body: Any = WSGISignals(app)(environ(), nothing)
    assert next(body) == b"1"
    with pytest.raises(LookupError, match="half-way"):
        next(body)
    assert log == ["started", "exception"]
    body.close()
    assert log == ["started", "exception", "finished"]


def test_an_exception_in_the_close_of_a_body_is_told_and_goes_on(log: Log) -> None:
    """It leaves the application, too, and does not keep the request from being finished."""

    class Body(list[bytes]):
        def close(self) -> None:
            raise OSError("the disk is gone")

    body: Any = WSGISignals(lambda environ, start_response: ok(start_response, Body()))(environ(), nothing)
    with pytest.raises(OSError, match="the disk is gone"):
        body.close()
    assert log == ["started", "exception", "finished"]
    body.close()
    assert log == ["started", "exception", "finished"]


@pytest.mark.parametrize("body", [None, 5], ids=repr)
def test_an_application_that_returns_no_body_fails_as_one(log: Log, body: Any) -> None:
    """The server finds out while it reads."""
    made: Any = WSGISignals(lambda environ, start_response: ok(start_response, body))(environ(), nothing)
    with pytest.raises(TypeError, match="not iterable"):
        next(made)
    made.close()
    assert log == ["started", "exception", "finished"]


def test_a_body_of_wrong_chunks_is_the_servers_to_judge() -> None:
    """Nothing that the application yields is taken for the end of its body."""
    made: Any = WSGISignals(lambda environ, start_response: ok(start_response, [None, b""]))(
        environ(), nothing
    )
    assert list(made) == [None, b""]
    made.close()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_stopping_the_program_is_no_error_of_the_application(log: Log, stop: type[BaseException]) -> None:
    """No `got_request_exception`; the request is finished all the same."""

    def app(environ: Any, start_response: Any) -> Any:
        raise stop

    with pytest.raises(stop):
        WSGISignals(app)(environ(), nothing)
    assert log == ["started", "finished"]


def test_a_stopiteration_out_of_the_application_is_an_error(log: Log) -> None:
    """Only the end of a body is its end."""

    def app(environ: Any, start_response: Any) -> Any:
        return next(iter([]))

    with pytest.raises(StopIteration):
        WSGISignals(app)(environ(), nothing)
    assert log == ["started", "exception", "finished"]


def test_an_error_response_is_no_exception(log: Log) -> None:
    """What the application answers itself has not left it."""

    def app(environ: Any, start_response: Any) -> Any:
        try:
            raise LookupError
        except LookupError:
            start_response("500 Internal Server Error", [], sys.exc_info())
            return [b"sorry"]

    assert answer(WSGISignals(app)) == b"sorry"
    assert log == ["started", "finished"]


def test_an_error_of_a_receiver_goes_to_the_server(log: Log, connect: Any) -> None:
    """Out of the call, or out of `close`; the request is finished once, and no exception of the application."""
    calls = []

    def app(environ: Any, start_response: Any) -> Any:
        calls.append(environ)
        return ok(start_response, [])

    def fail(**kwargs: Any) -> None:
        raise PermissionError("by a receiver")

    site = WSGISignals(app)
    connect(request_finished, fail)
    body: Any = site(environ(), nothing)
    with pytest.raises(PermissionError):
        body.close()
    body.close()
    assert log == ["started", "finished"]
    request_finished.disconnect(fail)
    log.clear()
    calls.clear()
    connect(request_started, fail)
    with pytest.raises(PermissionError):
        site(environ(), nothing)
    assert (log, calls) == (["started", "finished"], [])


def test_an_error_of_the_exception_receiver_names_the_first(log: Log, connect: Any) -> None:
    """The second error goes on, the application's is its context, and the request is finished."""
    error = LookupError()

    def app(environ: Any, start_response: Any) -> Any:
        raise error

    def fail(**kwargs: Any) -> None:
        raise PermissionError

    connect(got_request_exception, fail)
    with pytest.raises(PermissionError) as caught:
        WSGISignals(app)(environ(), nothing)
    assert caught.value.__context__ is error
    assert log == ["started", "exception", "finished"]


def test_async_receivers_hear_a_wsgi_request(connect: Any) -> None:
    """A synchronous send runs them in the server's thread, before it goes on."""
    heard = []

    async def receiver(environ: Any, **kwargs: Any) -> None:
        heard.append(environ["PATH_INFO"])

    connect(request_started, receiver)
    connect(request_finished, receiver)
    answer(WSGISignals(lambda environ, start_response: ok(start_response, [])), PATH_INFO="/news")
    assert heard == ["/news", "/news"]
