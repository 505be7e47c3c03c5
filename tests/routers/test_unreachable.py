"""Replicas that cannot be reached: one request finds out, no other waits, and reads go on elsewhere."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from threading import Event
from typing import Any

import pytest
from sqlalchemy.exc import SQLAlchemyError

from microorm.db.aio.twins import run
from microorm.routers.bounded import LimitReached, within
from microorm.testing import count_statements
from tests.routers.cluster import Cluster, Proxy, behind_proxy

pytestmark = pytest.mark.servers_only
READERS = 8
A_MOMENT, LONG = 0.3, 60.0


class World:
    """A primary with one author, and the replica `one` with the same behind a proxy."""

    def __init__(self, urls: dict[str, Any], proxy: Proxy, **options: Any) -> None:
        self.proxy = proxy
        options = {"connect_timeout": LONG, "retry_after": LONG, **options}
        self.cluster = Cluster(urls, ["one"], **options)
        self.databases, self.router = self.cluster.databases, self.cluster.router
        self.registry = self.cluster.registry
        self.registry.metadata  # noqa: B018 prepares the models
        table = self.cluster.Author.__table__
        for alias in ("default", "one"):
            with self.databases.connection(alias) as connection:
                table.create(connection)
                connection.execute(table.insert().values(name=alias))
        self.cluster.forget()

    def lose(self, mode: str) -> None:
        """Let the replica be gone in this *mode*, and close the connections to it."""
        database = self.databases.database("one")
        database.idle_connections.clear()
        database.engine.dispose()
        self.proxy.mode = mode
        self.proxy.cut()
        self.proxy.attempts = 0

    def begin_anew(self, mode: str) -> None:
        """Let nothing be known of the replica, which is gone in this *mode*."""
        self.lose(mode)
        replica = self.router._replicas["one"]
        replica.reset(self.databases.database("one"))

    def names(self) -> list[str]:
        return [each.name for each in self.cluster.Author.objects.all()]


@pytest.fixture
def world(fresh_url: Callable[[], str]) -> Iterator[Callable[..., World]]:
    """Make a world; options are those of the router."""
    with ExitStack() as ending:

        def world(**options: Any) -> World:
            proxy, url = ending.enter_context(behind_proxy(fresh_url()))
            made = World({"default": fresh_url(), "one": url}, proxy, **options)
            ending.callback(made.databases.close)
            return made

        yield world


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "microorm.routers"]


@pytest.mark.parametrize(("mode", "timeout"), [("silent", A_MOMENT), ("closed", LONG)])
def test_one_of_many_requests_finds_out_and_no_other_asks(
    mode: str, timeout: float, world: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    """A server that accepts and never answers costs one request its time-out, once; the others read from the primary."""
    here = world(connect_timeout=timeout)
    here.begin_anew(mode)
    caplog.set_level(logging.WARNING, "microorm.routers")
    with ThreadPoolExecutor(READERS) as threads:
        found = list(threads.map(lambda _: here.names(), range(READERS)))
    assert found == [["default"]] * READERS
    assert [here.names() for _ in range(3)] == [["default"]] * 3
    stats = here.router.stats()
    assert (here.proxy.attempts, stats.failures, stats.states) == (1, {"one": 1}, {"one": "down"})
    assert (stats.fallbacks, stats.reads) == (READERS + 3, {"default": READERS + 3})
    first, second = messages(caplog)
    assert first.startswith("the replica 'one' cannot be reached, and is asked again after 60 s: ")
    assert second == "no replica of 'default' can be reached: all reads go to it"


def test_one_of_many_tasks_finds_out_and_no_other_asks(world: Callable[..., World]) -> None:
    here = world(connect_timeout=A_MOMENT)
    here.begin_anew("silent")

    async def main() -> list[int]:
        found = await asyncio.gather(*[here.cluster.Author.objects.acount() for _ in range(READERS)])
        await here.databases.aclose()
        return found

    assert asyncio.run(main()) == [1] * READERS
    assert (here.proxy.attempts, here.router.stats().failures) == (1, {"one": 1})


def test_it_is_asked_again_later_and_read_again(
    world: Callable[..., World], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    monkeypatch.setattr("microorm.routers.circuit.monotonic", lambda: now)
    here = world()
    here.begin_anew("closed")
    assert here.names() == ["default"]
    here.proxy.mode = "open"
    now += LONG - 1
    assert (here.names(), here.proxy.attempts) == (["default"], 1)
    caplog.clear()
    caplog.set_level(logging.WARNING, "microorm.routers")
    now += 1
    assert (here.names(), here.router.stats().states) == (["one"], {"one": "up"})
    assert messages(caplog) == [
        "the replica 'one' can be reached again",
        "a replica of 'default' can be reached again",
    ]


READS: dict[str, Callable[[Any], Any]] = {
    "all": lambda query: [each.name for each in query.all()],
    "get": lambda query: [query.get(id=1).name],
    "filter": lambda query: [each.name for each in query.filter(query._model.name != "x")],
    "scalars": lambda query: query.scalars("name"),
    "iterate": lambda query: [each.name for each in query.iterate()],
    "raw": lambda query: [each.name for each in query.raw("SELECT * FROM author")],
}


@pytest.mark.parametrize("way", ["driver", "listened"])
def test_a_read_that_got_no_connection_is_repeated_on_the_primary(
    way: str, world: Callable[..., World]
) -> None:
    """Of each kind, with the errors of the driver and of SQLAlchemy's connection."""
    here = world(retry_after=0)
    for name, read in READS.items():
        here.begin_anew("open")
        if way == "listened":
            with count_statements("one", databases=here.databases):
                assert list(read(here.cluster.Author.objects)) == ["one"], name
                here.lose("closed")
                assert list(read(here.cluster.Author.objects)) == ["default"], name
            continue
        assert list(read(here.cluster.Author.objects)) == ["one"], name
        here.lose("closed")
        assert list(read(here.cluster.Author.objects)) == ["default"], name


def test_awaited_reads_are_repeated_too(world: Callable[..., World]) -> None:
    here = world()

    async def main() -> list[str]:
        found = [(await here.cluster.Author.objects.aget()).name]
        here.proxy.mode = "closed"
        here.proxy.cut()
        database = here.databases.awaited(here.databases.database("one"))
        await run(database.idle_connections.clear)
        found += [(await here.cluster.Author.objects.aget()).name for _ in range(2)]
        found += [each.name async for each in here.cluster.Author.objects.iterate()]
        await here.databases.aclose()
        return found

    assert asyncio.run(main()) == ["one", "default", "default", "default"]
    assert here.router.stats().failures == {"one": 1}


def test_a_replica_whose_connections_are_all_in_use_is_waited_for_no_longer_than_one_that_is_gone(
    fresh_url: Callable[[], str],
) -> None:
    """A server that has stopped in the middle of statements looks like that; the pool itself would wait for minutes."""
    few = {"url": fresh_url(), "pool_size": 1, "max_overflow": 0, "pool_timeout": 200}
    cluster = Cluster(
        {"default": fresh_url(), "one": few}, ["one"], connect_timeout=A_MOMENT, retry_after=LONG
    )

    async def main() -> list[int]:
        assert await cluster.Author.objects.acount() == 0
        async with cluster.databases.atomic("one", readonly=True):
            assert await cluster.Author.objects.using("one").acount() == 0
            readers = [
                asyncio.create_task(cluster.Author.objects.acount(), context=outside.copy()) for _ in range(3)
            ]
            found = await asyncio.gather(*readers)
        await cluster.databases.aclose()
        return found

    for alias in ("default", "one"):
        with cluster.databases.connection(alias) as connection:
            cluster.Author.__table__.create(connection)
    cluster.forget()  # what was written above
    outside = copy_context()
    with cluster.databases:
        assert asyncio.run(main()) == [0, 0, 0]
        assert cluster.router.stats().failures["one"] > 0


def test_a_statement_that_has_begun_is_not_repeated(world: Callable[..., World]) -> None:
    """Its error comes out; the next read finds that the replica is gone."""
    here = world()
    assert here.names() == ["one"]
    here.proxy.mode = "closed"
    here.proxy.cut()
    with pytest.raises(SQLAlchemyError):
        here.names()
    assert here.names() == ["default"]


def test_a_block_on_a_replica_goes_nowhere_else(world: Callable[..., World]) -> None:
    here = world()
    here.lose("closed")
    with pytest.raises(SQLAlchemyError), here.databases.atomic("one", readonly=True):
        pass
    with pytest.raises(SQLAlchemyError), here.databases.connection("one"):
        pass
    with pytest.raises(SQLAlchemyError):
        here.cluster.Author(name="x").save(using="one")
    assert here.cluster.Author.objects.using("default").count() == 1


def test_an_attempt_that_lasts_long_lets_others_pass(world: Callable[..., World]) -> None:
    """A replica that was up, and does not answer any more, is not waited for by each request that needs a connection."""
    here = world(connect_timeout=A_MOMENT)
    assert here.names() == ["one"]
    here.lose("silent")
    replica = here.router._replicas["one"]
    replica._attempts["one that hangs"] = 0.0
    assert [here.names() for _ in range(3)] == [["default"]] * 3
    assert (here.proxy.attempts, here.router.stats().failures) == (0, {"one": 0})


@pytest.fixture
def two(fresh_url: Callable[[], str]) -> Iterator[Callable[..., tuple[Cluster, list[Proxy]]]]:
    """Make a cluster whose replicas `one` and `two` hang, each behind a proxy; *known*: they were up before."""
    with ExitStack() as ending:

        def two(*, known: bool = True, **options: Any) -> tuple[Cluster, list[Proxy]]:
            proxies, urls = zip(
                *[ending.enter_context(behind_proxy(fresh_url())) for _ in range(2)], strict=True
            )
            aliases = {"default": fresh_url(), "one": urls[0], "two": urls[1]}
            cluster = Cluster(aliases, connect_timeout=A_MOMENT, retry_after=LONG, **options)
            ending.callback(cluster.databases.close)
            cluster.create_all("one", "two")
            for alias, proxy in zip(("one", "two"), proxies, strict=True):
                database = cluster.databases.database(alias)
                database.engine.dispose()
                if not known:
                    cluster.router._replicas[alias].reset(database)
                proxy.mode, proxy.attempts = "silent", 0
                proxy.cut()
            states = set(cluster.router.stats().states.values())
            assert states == {"up" if known else "unknown"}
            return cluster, list(proxies)

        yield two


@pytest.mark.parametrize("known", [True, False], ids=["up", "unknown"])
def test_a_request_waits_for_one_replica_only(
    known: bool, two: Callable[..., tuple[Cluster, list[Proxy]]]
) -> None:
    """Of two that hang. Then it reads from the primary, and the next request finds out about the other one."""
    cluster, proxies = two(known=known)
    for attempts in (1, 2):
        assert cluster.Author.objects.count() == 0
        assert sum(each.attempts for each in proxies) == attempts
    assert [each.attempts for each in proxies] == [1, 1]


@pytest.mark.backends("postgresql")
def test_a_question_waits_for_one_replica_only(two: Callable[..., tuple[Cluster, list[Proxy]]]) -> None:
    """What a replica has replayed is asked of no other server, so the read counts once."""
    cluster, proxies = two(causal=True)
    cluster.Author(name="x").save()
    before = cluster.router.stats()
    assert cluster.Author.objects.count() == 1
    assert sum(each.attempts for each in proxies) == 1
    stats = cluster.router.stats()
    assert stats.reads["default"] - before.reads.get("default", 0) == 1
    assert (stats.fallbacks - before.fallbacks, stats.sticky - before.sticky) == (1, 0)


def test_a_replica_that_refuses_is_passed_over_at_once(
    two: Callable[..., tuple[Cluster, list[Proxy]]],
) -> None:
    """One that does not keep the request waiting leaves it time for the next."""
    cluster, proxies = two()
    for proxy in proxies:
        proxy.mode = "closed"
    cluster.router._replicas["one"]._timeout = cluster.router._replicas["two"]._timeout = LONG
    assert cluster.Author.objects.count() == 0
    assert [each.attempts for each in proxies] == [1, 1]


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
def test_a_connection_that_has_been_idle_for_long_is_waited_for_no_longer(
    awaited: bool, world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To return it to the pool may need an answer of the server, which does not answer any more; so may to close it."""
    here = world(connect_timeout=A_MOMENT)
    monkeypatch.setattr("microorm.db.engines.pool.TRUSTED", 0.0)

    async def names() -> list[str]:
        return [each.name for each in await here.cluster.Author.objects.aall()]

    async def main() -> list[list[str]]:
        found = [await names()]
        here.proxy.mode = "silent"
        found.append(await names())
        await here.databases.aclose()
        return found

    if awaited:
        assert asyncio.run(main()) == [["one"], ["default"]]
        return
    assert here.names() == ["one"]
    here.proxy.mode = "silent"
    assert here.names() == ["default"]
    here.databases.close()


def test_an_alias_is_closed_without_an_answer_of_its_server(world: Callable[..., World]) -> None:
    """Its idle connections need none, so that nothing waits for one that does not answer."""
    here = world()
    assert here.names() == ["one"]
    database = here.databases.database("one")
    assert database.idle_connections.has_idle()
    here.proxy.mode = "silent"
    assert database.rest()
    here.databases.close()


def test_an_attempt_that_has_failed_takes_no_place_among_the_connections(
    world: Callable[..., World],
) -> None:
    """Although it was made in a thread of its own; the error, which the program may keep, refers to what it has made."""
    here = world(max_connections=3)
    here.lose("closed")
    with pytest.raises(SQLAlchemyError) as caught, here.databases.connection("one"):
        pass
    assert caught.value.__traceback__ is not None
    assert {holder.alias for holder, _ in here.databases._limits._slots.values()} == {"default"}


def test_attempts_that_hang_are_not_added_up(world: Callable[..., World]) -> None:
    """Threads that wait for a server without end are few, however often it is asked."""
    here = world(retry_after=0)
    here.begin_anew("silent")
    replica = here.router._replicas["one"]
    replica._hanging = 3
    assert (here.names(), here.proxy.attempts) == (["default"], 0)


def test_a_connection_that_comes_too_late_is_given_back(world: Callable[..., World]) -> None:
    here = world()
    go, given, ended = Event(), Event(), Event()

    def late() -> str:
        go.wait()
        return "late"

    with pytest.raises(LimitReached):
        within(0.01, late, lambda result: given.set() if result == "late" else None, ended.set)
    assert [given.is_set(), ended.is_set()] == [False, False]
    go.set()
    assert given.wait(30)
    assert ended.is_set()
    assert here.names() == ["one"]
