"""Awaited blocks and the signals of requests, in real applications of FastAPI behind a real server."""

import asyncio
import contextlib
import json
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Route

from microorm import Databases, Field, Model, Registry
from microorm.dispatch import Signal
from microorm.errors import CommitOutcomeUnknown
from microorm.http import SignalsMiddleware
from microorm.signals import got_request_exception, request_finished, request_started
from tests.http_server import WAIT, asgi_server, ask
from tests.pools import aunreturned

pytestmark = pytest.mark.backends("sqlite-file", "postgresql", "mariadb")

SIGNALS = {"started": request_started, "exception": got_request_exception, "finished": request_finished}


class World:
    """A model, and an application whose signals are written down."""

    def __init__(self, databases: Databases) -> None:
        class Visit(Model, registry=Registry(databases), app="shop"):
            page: Field[str]

        self.databases, self.Visit = databases, Visit
        Visit.__schema__.registry.create_all()
        self.log: list[tuple[str, str]] = []
        self.ended = threading.Semaphore(0)
        self.app = FastAPI()
        self.app.add_api_route("/unreturned", self.unreturned)

    async def save(self, page: str, *, fail: bool = False) -> dict[str, str]:
        """Save a visit, and answer with an error if *fail*."""
        await self.Visit(page=page).asave()
        if fail:
            raise HTTPException(409)
        return {"page": page}

    async def pages(self) -> list[str]:
        return [visit.page async for visit in self.Visit.objects.order_by("id")]

    async def unreturned(self) -> list[str]:
        """Answer when all connections are back, with the pages that are stored."""
        while await aunreturned(self.databases):
            await asyncio.sleep(0)
        return await self.pages()

    def note(self, name: str) -> Callable[..., None]:
        def receiver(scope: Any, **named: Any) -> None:
            if scope["path"] != "/unreturned":
                self.log.append((name, scope["path"]))

        return receiver

    def site(self, app: Any = None) -> Any:
        """The application, by default that of FastAPI in the middleware, whose requests are counted when they have ended."""
        inner = app or SignalsMiddleware(self.app, databases=self.databases)

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            try:
                await inner(scope, receive, send)
            finally:
                if scope.get("path", "/unreturned") != "/unreturned":
                    self.ended.release()

        return counted

    def wait(self) -> None:
        """Wait until a request has ended, which may be after its answer."""
        assert self.ended.acquire(timeout=WAIT)

    def ask(self, *paths: str) -> list[Any]:
        """Ask for *paths* one after the other; return the statuses, and the pages that are stored at the end."""
        with asgi_server(self.site()) as (port, _):
            statuses = []
            for path in paths:
                statuses.append(ask(port, path=path)[0])
                self.wait()
            return [*statuses, json.loads(ask(port, path="/unreturned")[2])]

    def leave(self, port: int, path: str, *, after: bytes = b"piece") -> list[str]:
        """Go away *after* a part of an answer; wait for the end of the request, and return the pages that are stored."""
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
            received = b""
            while after not in received:
                part = connection.recv(65536)
                assert part, received
                received += part
        self.wait()
        stored: list[str] = json.loads(ask(port, path="/unreturned")[2])
        return stored


@pytest.fixture
def world(databases: Databases) -> Iterator[World]:
    world = World(databases)
    held = {name: world.note(name) for name in SIGNALS}
    for name, receiver in held.items():
        SIGNALS[name].connect(receiver)
    yield world
    for name, receiver in held.items():
        SIGNALS[name].disconnect(receiver)


@pytest.fixture
def connect() -> Iterator[Any]:
    """Connects a function to a signal for this test only."""
    with contextlib.ExitStack() as stack:

        def connect(signal: Signal, receiver: Any) -> None:
            signal.connect(receiver)
            stack.callback(signal.disconnect, receiver)

        yield connect


def test_an_endpoint_in_an_awaited_block_is_undone_by_an_error(world: World) -> None:
    """By the decorator and by `async with`; the commit comes before the answer."""

    @world.app.get("/decorated/{page}")
    @world.databases.atomic
    async def decorated(page: str, fail: bool = False) -> dict[str, str]:
        return await world.save(page, fail=fail)

    @world.app.get("/with/{page}")
    async def within(page: str, fail: bool = False) -> dict[str, str]:
        async with world.databases.atomic():
            return await world.save(page, fail=fail)

    paths = ["/decorated/a", "/decorated/b?fail=1", "/with/c", "/with/d?fail=1", "/with/e?fail=nonsense"]
    assert world.ask(*paths) == [200, 409, 200, 409, 422, ["a", "c"]]
    wanted = [(name, path.partition("?")[0]) for path in paths for name in ("started", "finished")]
    assert world.log == wanted


def test_a_class_of_routes_puts_endpoints_of_both_kinds_into_blocks(world: World) -> None:
    class AtomicRoute(APIRoute):
        def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
            super().__init__(path, world.databases.atomic(endpoint), **options)

    router = APIRouter(route_class=AtomicRoute)

    @router.get("/awaited")
    async def awaited(fail: bool = False) -> dict[str, str]:
        return await world.save("awaited", fail=fail)

    @router.get("/sync")
    def sync(fail: bool = False) -> dict[str, str]:
        world.Visit(page="sync").save()
        if fail:
            raise HTTPException(409)
        return {}

    world.app.include_router(router)
    paths = ["/awaited?fail=1", "/sync?fail=1", "/awaited", "/sync"]
    assert world.ask(*paths) == [409, 409, 200, 200, ["awaited", "sync"]]


@pytest.mark.parametrize("scope", ["function", "request"])
def test_an_async_dependency_may_hold_a_block_for_an_async_endpoint(world: World, scope: Any) -> None:
    """An error of the endpoint is raised in the dependency."""

    async def transaction() -> AsyncIterator[None]:
        async with world.databases.atomic():
            yield

    @world.app.get("/{page}", dependencies=[Depends(transaction, scope=scope)])
    async def endpoint(page: str, fail: bool = False) -> dict[str, str]:
        return await world.save(page, fail=fail)

    world.app.router.routes.sort(key=lambda route: getattr(route, "path", "") == "/{page}")
    assert world.ask("/a", "/b?fail=1", "/c") == [200, 409, 200, ["a", "c"]]


@pytest.mark.parametrize(("scope", "status"), [("function", 500), ("request", 200)])
def test_a_block_in_a_dependency_of_scope_function_ends_before_the_answer(
    world: World, scope: Any, status: int
) -> None:
    """By default FastAPI sends the answer first, so the client does not learn that the block was rolled back."""

    async def transaction() -> AsyncIterator[None]:
        async with world.databases.atomic():
            yield

    @world.app.get("/twice", dependencies=[Depends(transaction, scope=scope)])
    async def twice() -> None:
        await world.Visit(id=1, page="first").asave()
        with contextlib.suppress(IntegrityError):
            await world.Visit(id=1, page="second").asave(force_insert=True)

    assert world.ask("/twice") == [status, []]
    assert world.log == [(name, "/twice") for name in ("started", "exception", "finished")]


def test_requests_side_by_side_have_blocks_of_their_own(world: World) -> None:
    """Each fails or succeeds alone, while another awaits inside its block."""

    @world.app.get("/visits/{page}")
    @world.databases.atomic
    async def visit(page: str, fail: bool = False) -> dict[str, str]:
        await world.Visit.objects.acount()
        await asyncio.sleep(0)
        return await world.save(page, fail=fail)

    def client(number: int) -> None:
        statuses.append((number, ask(port, path=f"/visits/{number}?fail={number % 2}")[0]))

    statuses: list[tuple[int, int]] = []
    with asgi_server(world.site()) as (port, _):
        threads = [threading.Thread(target=client, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
            world.wait()
        stored = json.loads(ask(port, path="/unreturned")[2])
    assert sorted(statuses) == [(number, 409 if number % 2 else 200) for number in range(12)]
    assert sorted(stored, key=int) == ["0", "2", "4", "6", "8", "10"]
    assert len(world.log) == 24


async def forget(world: World, page: str) -> None:
    """Save in a block that is never left."""
    await world.databases.atomic().__aenter__()
    await world.Visit(page=page).asave()


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("child", [False, True], ids=["its own task", "a child task"])
def test_an_awaited_block_left_open_is_rolled_back(
    world: World, child: bool, fail: bool, caplog: Any, connect: Any
) -> None:
    """Also that of a task that has ended; the connection is returned, and receivers find nothing open."""

    @world.app.get("/forgetful")
    async def endpoint() -> None:
        if child:
            await asyncio.create_task(forget(world, "lost"))
        else:
            await forget(world, "lost")
        if fail:
            raise LookupError("no such page")

    async def finished(scope: Any, **named: Any) -> None:
        if scope["path"] == "/forgetful":
            await world.Visit(page="finished").asave()

    async def failed(exception: Exception, **named: Any) -> None:
        async with world.databases.atomic(durable=True):
            await world.Visit(page=type(exception).__name__).asave()

    connect(request_finished, finished)
    connect(got_request_exception, failed)
    with caplog.at_level(logging.WARNING, logger="microorm.http"):
        answer = world.ask("/forgetful")
    assert answer == ([500, ["LookupError", "finished"]] if fail else [200, ["finished"]])
    told = [record.getMessage() for record in caplog.records if record.name == "microorm.http"]
    assert told == ["a request left a block on 'default' open; it was rolled back"]
    names = ["started", "exception", "finished"] if fail else ["started", "finished"]
    assert world.log == [(name, "/forgetful") for name in names]


def test_a_block_of_a_task_that_outlives_the_request_goes_on(world: World) -> None:
    """It ends by itself."""
    tasks: list[asyncio.Task[None]] = []
    answered = asyncio.Event()

    async def work() -> None:
        async with world.databases.atomic():
            await world.Visit(page="later").asave()
            begun.set()
            await answered.wait()

    begun = asyncio.Event()

    @world.app.get("/starts")
    async def starts() -> None:
        tasks.append(asyncio.create_task(work()))
        await begun.wait()

    @world.app.get("/ends")
    async def ends() -> None:
        answered.set()
        await tasks[0]

    assert world.ask("/starts", "/ends") == [200, 200, ["later"]]


def test_two_async_receivers_may_hold_a_block_around_each_request(world: World, connect: Any) -> None:
    block = world.databases.atomic()

    async def started(scope: Any, **named: Any) -> None:
        if scope["path"] != "/unreturned":
            await block.__aenter__()

    async def finished(scope: Any, **named: Any) -> None:
        if scope["path"] == "/left":
            await block.__aexit__(None, None, None)

    @world.app.get("/{page}")
    async def endpoint(page: str) -> dict[str, str]:
        return await world.save(page)

    connect(request_started, started)
    connect(request_finished, finished)
    world.app.router.routes.sort(key=lambda route: getattr(route, "path", "") == "/{page}")
    assert world.ask("/left", "/open") == [200, 200, ["left"]]


def test_a_request_that_takes_too_long_is_rolled_back(world: World) -> None:
    """By a time-out inside of which its block is."""

    @world.app.get("/slow")
    async def slow() -> dict[str, str]:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                async with world.databases.atomic():
                    await world.Visit(page="lost").asave()
                    await asyncio.Event().wait()
        return await world.save("after")

    assert world.ask("/slow") == [200, ["after"]]


def test_a_server_that_stops_rolls_back_the_requests_that_it_cancels(world: World) -> None:
    """It tells of no exception of the application."""

    @world.app.get("/endless")
    async def endless() -> None:
        async with world.databases.atomic():
            await world.Visit(page="lost").asave()
            server.should_exit = True
            await asyncio.Event().wait()

    with asgi_server(world.site(), timeout_graceful_shutdown=0) as (port, server):
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as connection:
            connection.sendall(b"GET /endless HTTP/1.1\r\nHost: here\r\n\r\n")
            world.wait()
    assert world.log == [("started", "/endless"), ("finished", "/endless")]
    assert world.Visit.objects.count() == 0


MAX_PIECES = 3_000
"""How many pieces of 80 kB a body has at most: a server that misses that its client is gone must not send for ever."""


def stream(world: World, way: str) -> Callable[[], AsyncIterator[str]]:
    """A body that does not end before its client is gone, and how it holds the database meanwhile."""

    async def rows() -> AsyncIterator[str]:
        async for visit in world.Visit.objects.iterate(chunk=1):
            yield f"piece of {visit.page}"
            for _ in range(MAX_PIECES):
                await asyncio.sleep(0)  # else the server would never see that the client is gone
                yield "more" * 20_000
            world.log.append(("not stopped", way))

    async def block() -> AsyncIterator[str]:
        async with world.databases.atomic():
            await world.Visit(page="lost").asave()
            for _ in range(MAX_PIECES):
                await asyncio.sleep(0)
                yield "piece" * 20_000
            world.log.append(("not stopped", way))

    async def rows_in_a_block() -> AsyncIterator[str]:
        async with world.databases.atomic():
            await world.Visit(page="lost").asave()
            async for each in rows():
                yield each

    async def awaiting() -> AsyncIterator[str]:
        async with world.databases.atomic():
            await world.Visit(page="lost").asave()
            yield "piece"
            await asyncio.Event().wait()

    return {"rows": rows, "block": block, "rows in a block": rows_in_a_block, "awaiting": awaiting}[way]


def streaming(world: World, way: str, middleware: str) -> Any:
    """An application of Starlette, with the *middleware* of the signals *outermost*, or outside or inside another."""
    body = stream(world, way)

    async def endpoint(request: Any) -> StreamingResponse:
        return StreamingResponse(body())

    async def unreturned(request: Any) -> Any:
        return StreamingResponse(iter([json.dumps(await world.unreturned())]))

    async def pass_on(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    routes = [Route("/stream", endpoint), Route("/unreturned", unreturned)]
    signals = Middleware(SignalsMiddleware, databases=world.databases)
    other = [Middleware(BaseHTTPMiddleware, dispatch=pass_on)]
    stack = {"outermost": [], "outside another": [signals, *other], "inside another": [*other, signals]}
    app: Any = Starlette(routes=routes, middleware=stack[middleware])
    if middleware == "outermost":
        app = SignalsMiddleware(app, databases=world.databases)
    return world.site(app)


@pytest.mark.parametrize(
    ("body", "middleware"),
    [
        *((way, "outermost") for way in ("rows", "block", "rows in a block", "awaiting")),
        *((way, "outside another") for way in ("rows", "awaiting")),
        *((way, "inside another") for way in ("block", "rows in a block")),
    ],
)
def test_a_client_that_goes_away_mid_stream_leaves_nothing_behind(
    world: World, body: str, middleware: str, caplog: Any
) -> None:
    """One `request_finished`; what the stream wrote is rolled back, and its connection is returned."""
    world.Visit(page="first").save()
    with asgi_server(streaming(world, body, middleware)) as (port, _):
        assert world.leave(port, "/stream") == ["first"]
        assert world.leave(port, "/stream") == ["first"]
    assert world.log == [("started", "/stream"), ("finished", "/stream")] * 2
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("middleware", ["outermost", "outside another"])
@pytest.mark.parametrize("way", ["rows", "block"])
def test_a_client_that_goes_away_before_the_first_row_leaves_nothing_behind(
    world: World, way: str, middleware: str, caplog: Any
) -> None:
    """While the connection is opened, the block begins, or the query runs."""
    world.Visit(page="first").save()
    with asgi_server(streaming(world, way, middleware)) as (port, _):
        assert world.leave(port, "/stream", after=b"\r\n\r\n") == ["first"]
    assert world.log == [("started", "/stream"), ("finished", "/stream")]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


KILL = {
    "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({}, 5000)"),
    "mariadb": ("SELECT CONNECTION_ID()", "KILL CONNECTION {}"),
}


@pytest.mark.backends("postgresql", "mariadb")
def test_connections_of_coroutines_that_went_bad_are_dropped_between_requests(backend: str, url: str) -> None:
    """The request that finds one fails and takes the idle ones along; the next has new ones, and keeps them."""
    identify, kill = KILL[backend]

    async def silence(*message: Any) -> Any:
        raise AssertionError  # pragma: no cover

    async def connected(databases: Databases, count: int) -> set[int]:
        """Check out so many connections at once, and put them back; their numbers on the server."""
        engine = databases.async_engine()
        async with contextlib.AsyncExitStack() as stack:
            connections = [await stack.enter_async_context(engine.connect()) for _ in range(count)]
            return {(await each.exec_driver_sql(identify)).scalar_one() for each in connections}

    async def main() -> None:
        settings = {"default": {"url": url, "pool_pre_ping": False, "pool_size": 3}}
        async with Databases(settings) as databases:
            world = World(databases)

            async def app(scope: Any, receive: Any, send: Any) -> None:
                await world.save(scope["path"])

            site = SignalsMiddleware(app, databases=databases)
            dead = await connected(databases, 3)
            with Databases(url) as admin, admin.connection() as connection:
                for number in dead:
                    connection.execute(text(kill.format(number)))
            with pytest.raises((DBAPIError, CommitOutcomeUnknown)):
                await site({"type": "http", "path": "lost"}, silence, silence)
            await site({"type": "http", "path": "found"}, silence, silence)
            assert await world.pages() == ["found"]
            alive = await connected(databases, 3)
            assert alive & dead == set()
            await site({"type": "http", "path": "again"}, silence, silence)
            assert await connected(databases, 3) == alive

    asyncio.run(main())
