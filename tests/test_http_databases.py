"""What a request leaves open in the databases does not reach the next one."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from microorm import Databases, Field, Model, Registry, UnknownAlias
from microorm.dispatch import Signal
from microorm.errors import CommitOutcomeUnknown, TransactionError
from microorm.http import SignalsMiddleware, WSGISignals
from microorm.signals import got_request_exception, request_finished, request_started


@pytest.fixture
def connect() -> Iterator[Any]:
    """Connects a function to a signal for this test only."""
    with contextlib.ExitStack() as stack:

        def connect(signal: Signal, receiver: Any) -> None:
            signal.connect(receiver)
            stack.callback(signal.disconnect, receiver)

        yield connect


@pytest.fixture(params=["wsgi", "asgi"])
def answer(request: pytest.FixtureRequest) -> Any:
    """Answers one request by running a function in it, under either middleware."""

    def by_wsgi(function: Any, databases: Databases) -> None:
        def app(environ: Any, start_response: Any) -> list[bytes]:
            function()
            return []

        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        body: Any = WSGISignals(app, databases=databases)(environ, lambda *arguments: None)
        body.close()

    def by_asgi(function: Any, databases: Databases) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            function()

        async def silence(*message: Any) -> Any:
            raise AssertionError  # pragma: no cover

        # Driven by hand: in this thread's own context, which is then looked at, as a server's would be.
        coroutine = SignalsMiddleware(app, databases=databases)({"type": "http"}, silence, silence)
        with pytest.raises(StopIteration):
            coroutine.send(None)

    return by_wsgi if request.param == "wsgi" else by_asgi


@pytest.fixture
def world(sqlite_url: str, fresh_file: Any) -> Iterator[Any]:
    """Two databases, and a model."""
    with Databases({"default": sqlite_url, "other": fresh_file()}) as databases:
        yield make_world(databases)


def make_world(databases: Databases) -> Any:
    class World:
        registry = Registry(databases)

        class Visit(Model, registry=registry, app="shop"):
            page: Field[str]

            def __repr__(self) -> str:
                return self.page

        def pages(self, alias: str = "default") -> list[str]:
            return [visit.page for visit in self.Visit.objects.using(alias).order_by(self.Visit.id)]

    World.databases = databases
    World.registry.create_all()
    return World()


def test_a_block_left_open_is_rolled_back(databases: Any, answer: Any, caplog: Any) -> None:
    """Rows, instances and `on_commit` functions; it is logged, and the next request finds nothing open."""
    world = make_world(databases)
    visit, hooks = world.Visit(page="lost"), []

    def forget() -> None:
        databases.atomic().__enter__()
        visit.save()
        databases.on_commit(lambda: hooks.append("ran"))

    with caplog.at_level(logging.WARNING, logger="microorm.http"):
        answer(forget, databases)
    assert world.pages() == []
    assert (visit.pk, visit._state.adding, hooks) == (None, True, [])
    assert [record.getMessage() for record in caplog.records] == [
        "a request left a block on 'default' open; it was rolled back"
    ]
    answer(lambda: visit.save(), databases)
    assert world.pages() == ["lost"]
    with databases.atomic(durable=True):
        assert world.Visit.objects.count() == 1


def test_blocks_in_blocks_and_on_other_aliases_are_rolled_back_too(world: Any, answer: Any) -> None:
    """The innermost first."""

    def forget() -> None:
        for alias in ("default", "other", "default"):
            world.databases.atomic(alias).__enter__()
            world.Visit(page=alias).save(using=alias)

    answer(forget, world.databases)
    assert (world.pages(), world.pages("other")) == ([], [])
    with world.databases.atomic(durable=True), world.databases.atomic("other", durable=True):
        pass


def test_a_using_block_left_open_is_closed(world: Any, answer: Any, caplog: Any) -> None:
    """Else the next request of the thread would go to another database; that is no rollback, and not logged."""
    answer(lambda: world.databases.using("other").__enter__(), world.databases)
    world.Visit(page="home").save()
    assert (world.pages("default"), world.pages("other")) == (["home"], [])
    assert caplog.records == []


def test_a_request_that_leaves_nothing_open_commits_as_it_said(world: Any, answer: Any, caplog: Any) -> None:
    """Only what is left open is touched."""

    def work() -> None:
        with world.databases.atomic():
            world.Visit(page="kept").save()
        world.Visit(page="alone").save()

    answer(work, world.databases)
    assert world.pages() == ["kept", "alone"]
    assert caplog.records == []


def test_the_callers_own_block_stays_open(world: Any, answer: Any) -> None:
    """A request may be made inside a block, by a test above all; the request's own part is undone."""
    with world.databases.atomic():
        world.Visit(page="before").save()

        def forget() -> None:
            world.databases.atomic().__enter__()
            world.Visit(page="lost").save()

        answer(forget, world.databases)
        world.Visit(page="after").save()
        assert world.pages() == ["before", "after"]
    assert world.pages() == ["before", "after"]


def test_a_joined_block_that_is_left_open_dooms_the_callers(world: Any, answer: Any) -> None:
    """Without a savepoint of its own, its part cannot be undone alone."""

    def forget() -> None:
        world.databases.atomic(savepoint=False).__enter__()
        world.Visit(page="lost").save()

    left = pytest.raises(TransactionError, match="rolled back because of an earlier error.*was left open")
    with left, world.databases.atomic():
        answer(forget, world.databases)
    assert world.pages() == []


def test_a_block_opened_between_the_chunks_of_a_body_is_its_callers(world: Any) -> None:
    """Whoever reads a streamed body may use the databases meanwhile."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        world.databases.atomic("other").__enter__()
        yield b"1"
        yield b"2"

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    body: Any = WSGISignals(app, databases=world.databases)(environ, lambda *arguments: None)
    assert next(body) == b"1"
    with world.databases.atomic():
        world.Visit(page="kept").save()
        assert next(body) == b"2"
        body.close()
        world.Visit(page="kept, too").save()
    assert world.pages() == ["kept", "kept, too"]
    with world.databases.atomic("other", durable=True):
        pass


def test_a_generator_may_hold_a_block_open_while_it_streams(world: Any) -> None:
    """It commits when it has run to its end, and is rolled back when it was closed before."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        with world.databases.atomic():
            world.Visit(page=environ["PATH_INFO"]).save()
            yield b"1"
            yield b"2"

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    site = WSGISignals(app, databases=world.databases)
    body: Any = site({**environ, "PATH_INFO": "/read"}, lambda *arguments: None)
    assert list(body) == [b"1", b"2"]
    body.close()
    body = site({**environ, "PATH_INFO": "/left"}, lambda *arguments: None)
    assert next(body) == b"1"
    body.close()
    assert world.pages() == ["/read"]


def test_a_body_closed_in_another_thread_ends_what_its_own_left_open(world: Any) -> None:
    """Servers that send files in a thread of their own close them there."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        world.databases.atomic().__enter__()
        world.Visit(page="lost").save()
        return []

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    body: Any = WSGISignals(app, databases=world.databases)(environ, lambda *arguments: None)
    thread = threading.Thread(target=body.close)
    thread.start()
    thread.join()
    with world.databases.atomic(durable=True):
        assert world.pages() == []


def test_the_rollback_comes_before_the_last_signal(world: Any, answer: Any, connect: Any) -> None:
    """What a receiver of `request_finished` writes is not lost with it."""

    def forget() -> None:
        world.databases.atomic().__enter__()
        world.Visit(page="lost").save()

    def finished(**kwargs: Any) -> None:
        world.Visit(page="finished").save()

    connect(request_finished, finished)
    answer(forget, world.databases)
    assert world.pages() == ["finished"]


def test_the_rollback_comes_before_the_exception_is_told(world: Any, answer: Any, connect: Any) -> None:
    """A receiver may write down what went wrong, in a doomed block as well."""

    def fail() -> None:
        world.databases.atomic().__enter__()
        world.Visit(page="lost").save()
        with world.databases.connection() as connection:
            connection.execute(text("no sql"))

    def remember(exception: Exception, **kwargs: Any) -> None:
        world.Visit(page=type(exception).__name__).save()

    connect(got_request_exception, remember)
    with pytest.raises(DBAPIError):
        answer(fail, world.databases)
    assert world.pages() == ["OperationalError"]


def test_a_block_from_the_first_signal_to_the_last_is_the_receivers(
    world: Any, answer: Any, connect: Any
) -> None:
    """A pair of receivers may hold one around each request; what is still open after the last is undone."""
    block, ends = world.databases.atomic(), []

    def started(**kwargs: Any) -> None:
        block.__enter__()

    def finished(**kwargs: Any) -> None:
        if ends.pop():
            block.__exit__(None, None, None)

    connect(request_started, started)
    connect(request_finished, finished)
    ends.append(True)
    answer(lambda: world.Visit(page="kept").save(), world.databases)
    assert world.pages() == ["kept"]
    ends.append(False)
    answer(lambda: world.Visit(page="lost").save(), world.databases)
    assert world.pages() == ["kept"]
    with world.databases.atomic(durable=True):
        pass


@pytest.mark.parametrize("signal", [request_started, request_finished], ids=["started", "finished"])
def test_a_block_that_a_receiver_leaves_open_is_rolled_back(
    world: Any, answer: Any, connect: Any, signal: Signal
) -> None:
    """It would reach the next request as any other."""

    def forget(**kwargs: Any) -> None:
        world.databases.atomic().__enter__()
        world.Visit(page="lost").save()

    connect(signal, forget)
    answer(lambda: None, world.databases)
    assert world.pages() == []
    with world.databases.atomic(durable=True):
        pass


def test_a_failing_request_rolls_back_what_it_left_open(world: Any, answer: Any) -> None:
    """With no receiver at all."""

    def fail() -> None:
        world.databases.atomic().__enter__()
        world.Visit(page="lost").save()
        raise LookupError

    with pytest.raises(LookupError):
        answer(fail, world.databases)
    assert world.pages() == []


def test_other_databases_are_none_of_its_business(world: Any, answer: Any) -> None:
    """A middleware looks after the databases it was given."""
    with Databases("sqlite://") as mine:
        block = world.databases.atomic()
        answer(lambda: block.__enter__(), mine)
        world.Visit(page="kept").save()
        block.__exit__(None, None, None)
    assert world.pages() == ["kept"]


def test_databases_that_nobody_configured_are_left_alone(answer: Any) -> None:
    """The default ones may never be used, and a request may find that out by itself."""
    databases = Databases()
    answer(lambda: None, databases)
    with pytest.raises(UnknownAlias):
        answer(lambda: databases.engine(), databases)


def test_a_cancelled_request_rolls_back_what_it_left_open(world: Any) -> None:
    """In the task of the request."""

    async def main() -> None:
        begun = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            world.databases.atomic().__enter__()
            world.Visit(page="lost").save()
            begun.set()
            await asyncio.Event().wait()

        async def silence(*message: Any) -> Any:
            raise AssertionError  # pragma: no cover

        site = SignalsMiddleware(app, databases=world.databases)
        task = asyncio.create_task(site({"type": "http"}, silence, silence))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # From here on, outside that task: the lock is free.
        world.Visit(page="next").save()

    asyncio.run(main())
    assert world.pages() == ["next"]


KILL = {
    "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({}, 5000)"),
    "mariadb": ("SELECT CONNECTION_ID()", "KILL CONNECTION {}"),
}


@pytest.fixture
def killed(backend: str, url: str) -> Iterator[Any]:
    """A world on a server where nobody pings, and whose three connections were killed while they were idle."""
    identify, kill = KILL[backend]
    with Databases({"default": {"url": url, "pool_pre_ping": False, "pool_size": 3}}) as databases:
        world = make_world(databases)

        def connected(count: int) -> set[int]:
            """Check out so many connections at once, and put them back; their numbers on the server."""
            with contextlib.ExitStack() as stack:
                connections = [stack.enter_context(databases.engine().connect()) for _ in range(count)]
                return {connection.exec_driver_sql(identify).scalar_one() for connection in connections}

        world.connected, world.dead = connected, connected(3)
        with Databases(url) as admin, admin.connection() as connection:
            for number in world.dead:
                connection.execute(text(kill.format(number)))
        yield world


@pytest.mark.servers_only
def test_connections_that_went_bad_are_dropped_between_requests(killed: Any, answer: Any) -> None:
    """The request that finds one fails and takes the idle ones along; the next has new ones, and keeps them."""
    databases = killed.databases
    pool = databases.engine().pool
    with pytest.raises((DBAPIError, CommitOutcomeUnknown)):
        answer(lambda: killed.Visit(page="lost").save(), databases)
    assert databases.engine().pool is not pool
    answer(lambda: killed.Visit(page="found").save(), databases)
    assert killed.pages() == ["found"]
    alive = killed.connected(3)
    assert alive & killed.dead == set()
    answer(lambda: killed.Visit(page="again").save(), databases)
    assert killed.connected(3) == alive


@pytest.mark.servers_only
def test_a_connection_lost_outside_a_request_does_not_reach_one(killed: Any, answer: Any) -> None:
    """A request begins with what is known to be good."""
    with pytest.raises((DBAPIError, CommitOutcomeUnknown)):
        killed.Visit(page="lost").save()
    answer(lambda: killed.Visit(page="found").save(), killed.databases)
    assert killed.pages() == ["found"]
