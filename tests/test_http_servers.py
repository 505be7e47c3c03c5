"""The request signals under real servers over loopback: the standard library's for WSGI, uvicorn for ASGI.

A server's thread is joined before a test looks, so that nothing waits for a clock.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.util import FileWrapper

import pytest
import uvicorn

from microorm import Databases, Field, Model, Registry
from microorm.dispatch import Signal
from microorm.http import SignalsMiddleware, WSGISignals
from microorm.signals import got_request_exception, request_finished, request_started
from tests.http_server import WAIT, asgi_server, ask

SIGNALS = {"started": request_started, "exception": got_request_exception, "finished": request_finished}


@pytest.fixture
def log() -> Iterator[list[Any]]:
    """Hears the three signals: their names and the paths of their requests, in order."""
    log: list[Any] = []

    def listen(name: str, signal: Signal) -> Any:
        def receiver(environ: Any = None, scope: Any = None, **kwargs: Any) -> None:
            log.append((name, environ["PATH_INFO"] if scope is None else scope["path"]))

        return signal.connect(receiver)

    held = {name: listen(name, signal) for name, signal in SIGNALS.items()}
    yield log
    for name, receiver in held.items():
        assert SIGNALS[name].disconnect(receiver)


class Quiet(WSGIRequestHandler):
    """Logs no request."""

    def log_message(self, *arguments: Any) -> None:
        pass


@contextlib.contextmanager
def wsgi_server(app: Any, requests: int = 1) -> Iterator[int]:
    """Serve that many requests, in one thread; gives the port."""
    with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
        server.timeout = WAIT

        def serve() -> None:
            for _ in range(requests):
                server.handle_request()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.server_port
        finally:
            thread.join(WAIT)
            assert not thread.is_alive()


def ask_and_leave(port: int) -> None:
    """Make one request, read where its answer begins, and go away."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as connection:
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: here\r\n\r\n")
        assert connection.recv(8).startswith(b"HTTP/1.")


def test_a_wsgi_request_is_started_and_finished_once(log: list[Any]) -> None:
    """A body of one chunk keeps the length that the server finds out by itself."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]

    with wsgi_server(WSGISignals(app), requests=2) as port:
        status, headers, body = ask(port, path="/get")
        assert (status, headers["Content-Length"], body) == (200, "5", b"hello")
        assert ask(port, "HEAD", "/head")[::2] == (200, b"")
    assert log == [
        ("started", "/get"),
        ("finished", "/get"),
        ("started", "/head"),
        ("finished", "/head"),
    ]


def test_a_wsgi_stream_is_finished_after_its_last_byte(log: list[Any]) -> None:
    """The generator has run to its end by then, and what it wrote itself came first."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])(b"0")
        yield b"1"
        log.append("streaming")
        yield b"2"

    with wsgi_server(WSGISignals(app)) as port:
        assert ask(port)[2] == b"012"
    assert log == [("started", "/"), "streaming", ("finished", "/")]


def test_a_wsgi_file_is_finished_after_it_was_sent(log: list[Any], tmp_path: Path) -> None:
    """The server knows its own wrapper again, and the file is closed."""
    path, files = tmp_path / "page.txt", []
    path.write_bytes(b"content of a file")

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        assert environ["wsgi.file_wrapper"] is FileWrapper
        files.append(path.open("rb"))
        return environ["wsgi.file_wrapper"](files[0])

    with wsgi_server(WSGISignals(app)) as port:
        assert ask(port)[2] == b"content of a file"
    assert log == [("started", "/"), ("finished", "/")]
    assert files[0].closed


@pytest.mark.parametrize("stage", ["call", "first chunk", "close"])
def test_a_wsgi_exception_reaches_the_server(log: list[Any], capfd: Any, stage: str) -> None:
    """Told, then the server's to answer and to log; the request is finished once."""

    class Body(list[bytes]):
        def close(self) -> None:
            raise LookupError("no such page")

    def stream() -> Iterator[bytes]:
        raise LookupError("no such page")
        yield b""  # type: ignore[unreachable]

    def app(environ: Any, start_response: Any) -> Any:
        if stage == "call":
            raise LookupError("no such page")
        start_response("200 OK", [])
        return stream() if stage == "first chunk" else Body([b"sent"])

    with wsgi_server(WSGISignals(app)) as port:
        assert ask(port)[0] == (200 if stage == "close" else 500)
    assert log == [("started", "/"), ("exception", "/"), ("finished", "/")]
    assert "LookupError: no such page" in capfd.readouterr().err


def test_a_wsgi_client_that_goes_away_finishes_the_request_once(log: list[Any]) -> None:
    """The server cannot write any more and closes the body; that is no exception of the application."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            while True:
                yield b"x" * 65536
        finally:
            log.append("closed")

    with wsgi_server(WSGISignals(app)) as port:
        ask_and_leave(port)
    assert log == [("started", "/endless"), "closed", ("finished", "/endless")]


def test_an_error_of_a_receiver_reaches_the_wsgi_server(capfd: Any) -> None:
    """It goes out of the `close` of the body; the client had its answer already."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]

    def fail(**kwargs: Any) -> None:
        raise PermissionError("by a receiver")

    request_finished.connect(fail)
    try:
        with wsgi_server(WSGISignals(app)) as port:
            assert ask(port)[2] == b"hello"
    finally:
        assert request_finished.disconnect(fail)
    assert "PermissionError: by a receiver" in capfd.readouterr().err


def test_a_wsgi_request_leaves_nothing_open_for_the_next_of_its_thread(sqlite_url: str) -> None:
    """The second request would wait for a lock that nobody gives back, in a block that nobody ends."""
    with Databases(sqlite_url) as databases:
        registry = Registry(databases)

        class Visit(Model, registry=registry):
            page: Field[str]

        registry.create_all()

        def app(environ: Any, start_response: Any) -> list[bytes]:
            if environ["PATH_INFO"] == "/forgets":
                databases.atomic().__enter__()
            Visit(page=environ["PATH_INFO"]).save()
            start_response("200 OK", [])
            return []

        with wsgi_server(WSGISignals(app, databases=databases), requests=2) as port:
            assert ask(port, path="/forgets")[0] == 200
            assert ask(port, path="/next")[0] == 200
        assert [visit.page for visit in Visit.objects] == ["/next"]


async def begin(send: Any, *chunks: bytes) -> None:
    """Send the status and some chunks of a body that goes on."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def end(send: Any) -> None:
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def test_an_asgi_request_is_started_and_finished_once(log: list[Any]) -> None:
    """After the body was sent; the server's lifespan passes, and is no request."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for stage in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{stage}"
                log.append(stage)
                await send({"type": f"lifespan.{stage}.complete"})
            return
        await begin(send, b"1", b"2")
        await end(send)
        log.append("sent")

    with asgi_server(SignalsMiddleware(app), lifespan="on") as (port, _):
        assert ask(port, path="/page")[::2] == (200, b"12")
    assert log == ["startup", ("started", "/page"), "sent", ("finished", "/page"), "shutdown"]


def test_an_asgi_exception_reaches_the_server(log: list[Any], caplog: Any) -> None:
    """Told, then the server's to answer and to log; the request is finished once."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("no such page")

    with asgi_server(SignalsMiddleware(app), lifespan="off") as (port, _):
        assert ask(port)[0] == 500
    assert log == [("started", "/"), ("exception", "/"), ("finished", "/")]
    errors = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert [repr(error) for error in errors] == ["LookupError('no such page')"]


def test_an_asgi_client_that_goes_away_finishes_the_request_once(log: list[Any]) -> None:
    """The application hears of it from the server."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await begin(send, b"first")
        while (await receive())["type"] != "http.disconnect":
            pass
        log.append("gone")

    with asgi_server(SignalsMiddleware(app), lifespan="off") as (port, _):
        ask_and_leave(port)
    assert log == [("started", "/endless"), "gone", ("finished", "/endless")]


def test_an_asgi_server_that_stops_cancels_and_finishes_once(log: list[Any]) -> None:
    """A request that will not end is cancelled, which is no exception of the application."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await begin(send, b"first")
        server.should_exit = True
        await receive()
        await asyncio.Event().wait()

    server: uvicorn.Server
    with asgi_server(SignalsMiddleware(app), lifespan="off", timeout_graceful_shutdown=0) as (port, server):
        ask_and_leave(port)
    assert log == [("started", "/endless"), ("finished", "/endless")]
