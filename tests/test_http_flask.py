"""The request signals and blocks in an application of Flask, behind a server with a thread for each request."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import flask
import pytest
from werkzeug.serving import WSGIRequestHandler, make_server

from microorm import Databases, Field, Model, Registry
from microorm.http import WSGISignals
from microorm.signals import got_request_exception, request_finished, request_started
from tests.http_server import WAIT, ask
from tests.pools import unreturned

pytestmark = pytest.mark.backends("sqlite-file", "postgresql", "mariadb")

SIGNALS = {"started": request_started, "exception": got_request_exception, "finished": request_finished}


class Quiet(WSGIRequestHandler):
    """Logs no request."""

    def log(self, type: str, message: str, *arguments: Any) -> None:
        pass


class World:
    """A model, an application, and the names and paths of the signals that were sent, in order."""

    def __init__(self, databases: Databases) -> None:
        class Visit(Model, registry=Registry(databases), app="shop"):
            page: Field[str]

        self.databases, self.Visit = databases, Visit
        Visit.__schema__.registry.create_all()
        self.log: list[tuple[str, str]] = []
        self.finished = threading.Semaphore(0)
        self.app = flask.Flask(__name__)
        self.app.wsgi_app = WSGISignals(self.app.wsgi_app, databases=databases)  # type: ignore[method-assign]

    def note(self, name: str) -> Callable[..., None]:
        def receiver(environ: Any, **named: Any) -> None:
            self.log.append((name, environ["PATH_INFO"]))
            if name == "finished":
                self.finished.release()

        return receiver

    @contextlib.contextmanager
    def server(self) -> Iterator[int]:
        """Serve until the block ends, which waits for the threads of the requests; gives the port."""
        server = make_server("127.0.0.1", 0, self.app, threaded=True, request_handler=Quiet)
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(WAIT)
            server.server_close()

    def pages(self) -> list[str]:
        return [visit.page for visit in self.Visit.objects.order_by("id")]


@pytest.fixture
def world(databases: Databases) -> Iterator[World]:
    world = World(databases)
    held = {name: world.note(name) for name in SIGNALS}
    for name, receiver in held.items():
        SIGNALS[name].connect(receiver)
    yield world
    for name, receiver in held.items():
        SIGNALS[name].disconnect(receiver)


def test_a_view_in_a_block_is_undone_by_an_error(world: World) -> None:
    """An error of HTTP is an error like any other; the signals of a request come in order."""

    @world.app.get("/visits/<page>")
    @world.databases.atomic
    def visit(page: str) -> dict[str, str]:
        world.Visit(page=page).save()
        if flask.request.args.get("fail"):
            flask.abort(409)
        return {"page": page}

    with world.server() as port:
        assert [ask(port, path=path)[0] for path in ("/visits/a", "/visits/b?fail=1")] == [200, 409]
    assert world.pages() == ["a"]
    for path in (
        "/visits/a",
        "/visits/b",
    ):  # each in a thread of its own, which closes a request after the answer
        assert [each for each in world.log if each[1] == path] == [("started", path), ("finished", path)]


@pytest.mark.parametrize("propagate", [False, True])
def test_an_exception_is_told_if_flask_lets_it_pass(world: World, propagate: bool) -> None:
    """Else Flask has answered it, and no exception has left the application."""
    world.app.config["PROPAGATE_EXCEPTIONS"] = propagate

    @world.app.get("/broken")
    def broken() -> None:
        raise LookupError("no such page")

    with world.server() as port:
        assert ask(port, path="/broken")[0] == 500
    names = ["started", "exception", "finished"] if propagate else ["started", "finished"]
    assert world.log == [(name, "/broken") for name in names]


def test_requests_in_threads_side_by_side_keep_apart(world: World) -> None:
    """While all of them are inside their endpoints: each has its own signals, connection and rollback."""
    everybody = threading.Barrier(6)

    @world.app.get("/visits/<int:number>")
    def visit(number: int) -> dict[str, int]:
        everybody.wait(WAIT)
        with world.databases.atomic():
            world.Visit(page=str(number)).save()
            if number % 2:
                flask.abort(409)
        return {"number": number}

    def client(number: int) -> None:
        statuses.append((number, ask(port, path=f"/visits/{number}")[0]))

    statuses: list[tuple[int, int]] = []
    with world.server() as port:
        threads = [threading.Thread(target=client, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
    assert sorted(statuses) == [(number, 409 if number % 2 else 200) for number in range(6)]
    assert sorted(world.pages()) == ["0", "2", "4"]
    assert sorted(world.log) == [
        (name, f"/visits/{number}") for name in ("finished", "started") for number in range(6)
    ]
    assert unreturned(world.databases) == 0


@pytest.mark.parametrize("way", ["block", "rows"])
def test_a_client_that_goes_away_mid_stream_leaves_nothing_behind(world: World, way: str) -> None:
    """One `request_finished`; what the stream wrote is rolled back, and its connection is returned."""

    def rows() -> Iterator[str]:
        for visit in world.Visit.objects.iterate(chunk=1):
            while True:
                yield visit.page * 20_000

    def block() -> Iterator[str]:
        with world.databases.atomic():
            world.Visit(page="lost").save()
            yield from rows()

    @world.app.get("/stream")
    def stream() -> flask.Response:
        return flask.Response(block() if way == "block" else rows())

    world.Visit(page="first").save()
    with world.server() as port:
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as connection:
            connection.sendall(b"GET /stream HTTP/1.1\r\nHost: here\r\n\r\n")
            assert connection.recv(8).startswith(b"HTTP/1.")
        assert world.finished.acquire(timeout=WAIT)
    assert world.log == [("started", "/stream"), ("finished", "/stream")]
    assert world.pages() == ["first"]
    assert unreturned(world.databases) == 0


def test_a_block_that_a_view_leaves_open_is_rolled_back(world: World) -> None:
    """In the thread of the request."""

    @world.app.get("/forgetful")
    def forgetful() -> dict[str, str]:
        world.databases.atomic().__enter__()
        world.Visit(page="lost").save()
        return {}

    with world.server() as port:
        assert ask(port, path="/forgetful")[0] == 200
    assert world.pages() == []
    assert unreturned(world.databases) == 0
