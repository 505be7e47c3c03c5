"""PrimaryReplica(causal=True): a replica is read as soon as it has replayed what was written, which PostgreSQL tells."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import make_url

from microorm.testing import count_statements
from tests.routers.cluster import Cluster

pytestmark = pytest.mark.backends("postgresql")


class Standby:
    """A cluster whose replica says what a test lets it say: its schema has a `pg_last_wal_replay_lsn` of its own."""

    def __init__(self, fresh_url: Callable[[], str], **options: Any) -> None:
        url = make_url(fresh_url())
        settings = str(url.query["options"]).replace(" ", ",pg_catalog ", 1)
        urls = {"default": fresh_url(), "one": url.update_query_dict({"options": settings})}
        self.cluster = Cluster(urls, ["one"], causal=True, **options)
        self.router, self.Tag = self.cluster.router, self.cluster.Tag
        self.registry = self.cluster.registry
        self.registry.metadata  # noqa: B018 prepares the models
        for alias in ("default", "one"):
            with self.cluster.databases.connection(alias) as connection:
                self.Tag.__table__.create(connection)
        with self.cluster.databases.connection("one") as connection:
            connection.exec_driver_sql("CREATE TABLE replayed (lsn pg_lsn)")
            connection.exec_driver_sql("INSERT INTO replayed VALUES ('0/0')")
            connection.exec_driver_sql(
                "CREATE FUNCTION pg_last_wal_replay_lsn() RETURNS pg_lsn LANGUAGE sql AS 'SELECT lsn FROM replayed'"
            )
        self.cluster.forget()

    def catch_up(self, position: str = "pg_current_wal_insert_lsn()") -> None:
        """Let the replica have all that the primary has; but no rows, by which a test can tell them apart."""
        with self.cluster.databases.connection("one") as connection:
            connection.exec_driver_sql(f"UPDATE replayed SET lsn = {position}")

    def alias(self) -> str:
        return self.cluster.alias_of_read(self.Tag.objects.count)


@pytest.fixture
def standby(fresh_url: Callable[[], str]) -> Iterator[Callable[..., Standby]]:
    made: list[Standby] = []

    def standby(**options: Any) -> Standby:
        made.append(Standby(fresh_url, **options))
        return made[-1]

    yield standby
    for each in made:
        each.cluster.databases.close()


def test_a_replica_is_read_again_once_it_has_replayed_the_commit(standby: Callable[..., Standby]) -> None:
    """Whatever `sticky` says."""
    here = standby(causal_wait=0, sticky=0)
    assert here.alias() == "one"
    here.Tag(name="a").save()
    assert [here.alias(), here.alias()] == ["default", "default"]
    here.catch_up()
    assert here.alias() == "one"
    assert here.router.stats().sticky == 2
    here.Tag(name="b").save()
    assert here.alias() == "default"


def test_a_read_waits_for_the_replica_once(
    standby: Callable[..., Standby], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, pauses = standby(causal_wait=3600), []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            here.catch_up()

    monkeypatch.setattr("microorm.routers.replicas.pause", pause)
    here.Tag(name="a").save()
    assert here.alias() == "one"
    assert pauses == [0.001, 0.002, 0.004]


def test_the_wait_is_bounded_and_not_repeated(
    standby: Callable[..., Standby], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, pauses = standby(causal_wait=0.01), []
    now = 1000.0

    def pause(seconds: float) -> None:
        nonlocal now
        pauses.append(seconds)
        now += seconds

    monkeypatch.setattr("microorm.routers.replicas.pause", pause)
    monkeypatch.setattr("microorm.routers.replicas.monotonic", lambda: now)
    here.Tag(name="a").save()
    assert (here.alias(), len(pauses)) == ("default", 4)
    assert (here.alias(), len(pauses)) == ("default", 4)


def test_the_primary_is_asked_once_for_each_write_that_is_read_after(standby: Callable[..., Standby]) -> None:
    here = standby(causal_wait=0)
    with count_statements("default", databases=here.cluster.databases) as statements:
        here.Tag(name="a").save()
        here.Tag(name="b").save()
        here.alias()
        here.alias()
    asked = [each for each in statements.statements if "pg_current_wal_insert_lsn" in each]
    assert len(asked) == 1
    here.catch_up()
    here.alias()
    with count_statements("one", databases=here.cluster.databases) as statements:
        assert here.alias() == "one"
    assert len(statements) == 1  # it is known to have the write


def test_a_token_carries_the_position(standby: Callable[..., Standby]) -> None:
    here = standby(causal_wait=0)
    with here.router.session() as session:
        here.Tag(name="a").save()
        token = session.token()
    moment, _, position = token.partition("-")
    assert moment.isdecimal()
    assert int(position, 16) > 0
    here.cluster.forget()
    with here.router.session(token) as session:
        assert here.alias() == "default"
        assert session.token() == token
        here.catch_up()
        assert here.alias() == "one"
        assert session.token() == ""


def test_a_server_that_is_no_standby_is_not_trusted(standby: Callable[..., Standby]) -> None:
    here = standby()
    with here.cluster.databases.connection("one") as connection:
        connection.exec_driver_sql("UPDATE replayed SET lsn = NULL")
    here.Tag(name="a").save()
    assert here.alias() == "default"


def test_tasks_wait_as_well(standby: Callable[..., Standby]) -> None:
    here = standby(causal_wait=60)

    async def main() -> tuple[int, int, str]:
        with here.router.session() as session:
            await here.Tag(name="a").asave()
            waiting = asyncio.create_task(here.Tag.objects.acount())
            await asyncio.sleep(0)  # meanwhile other tasks run
            await asyncio.to_thread(here.catch_up, "'FFFFFFFF/0'")
            found = await waiting
            await here.Tag(name="b").asave()
            return found, await here.Tag.objects.acount(), await session.atoken()

    async def whole() -> tuple[int, int, str]:
        found = await main()
        await here.cluster.databases.aclose()
        return found

    assert asyncio.run(whole()) == (0, 0, "")
