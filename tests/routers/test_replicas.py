"""PrimaryReplica: where reads and writes go, what sticks to the primary, and rows of a replica that are those of the primary."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from microorm import Databases, Model, Registry, Router
from microorm.errors import ConfigurationError, TransactionError
from microorm.routers import PrimaryReplica
from microorm.testing import count_statements, rolled_back
from tests.routers.cluster import Cluster
from tests.routers.conftest import Clock

PRIMARY, REPLICAS = "default", {"one", "two"}

pytestmark = pytest.mark.backends(
    "sqlite-file", "postgresql"
)  # tables take long on MariaDB: some tests name it


@pytest.mark.backends("sqlite-file", "mariadb")
def test_a_read_goes_to_a_replica_and_a_write_to_the_primary(cluster: Cluster) -> None:
    assert cluster.Book.objects.get().title == "stale"
    cluster.Book(title="new").save()
    with cluster.databases.connection(PRIMARY) as connection:
        titles = connection.exec_driver_sql("SELECT title FROM book ORDER BY id").scalars().all()
    assert list(titles) == ["fresh", "new"]


READS: dict[str, Callable[[Any], Any]] = {
    "all": lambda query: query.all(),
    "get": lambda query: query.get(),
    "first": lambda query: query.first(),
    "count": lambda query: query.count(),
    "exists": lambda query: query.exists(),
    "values": lambda query: query.values("title"),
    "iterate": lambda query: list(query.iterate()),
    "in_bulk": lambda query: query.in_bulk([1]),
    "raw": lambda query: query.raw("SELECT * FROM book"),
    "explain": lambda query: query.explain(),
}


def test_each_kind_of_read_is_routed_once(cluster: Cluster) -> None:
    for number, (name, read) in enumerate(READS.items(), 1):
        assert cluster.alias_of_read(lambda read=read: read(cluster.Book.objects)) in REPLICAS, name
        assert sum(cluster.router.stats().reads.values()) == number, name


def raw(cluster: Cluster) -> None:
    with cluster.databases.connection() as connection:
        connection.exec_driver_sql("UPDATE author SET name = 'raw'")


def raw_in_block(cluster: Cluster) -> None:
    with cluster.databases.atomic():
        raw(cluster)


WRITES: dict[str, Callable[[Cluster], Any]] = {
    "save": lambda cluster: cluster.Author(name="a").save(),
    "save using=": lambda cluster: cluster.Author(name="b").save(using=PRIMARY),
    "create": lambda cluster: cluster.Author.objects.create(name="c"),
    "bulk_create": lambda cluster: cluster.Author.objects.bulk_create([cluster.Author(name="d")]),
    "update": lambda cluster: cluster.Author.objects.update(name="a"),
    "bulk_update": lambda cluster: cluster.Author.objects.bulk_update(
        cluster.Author.objects.using(PRIMARY).all(), ["name"]
    ),
    "delete": lambda cluster: cluster.Tag.objects.delete(),
    "get_or_create": lambda cluster: cluster.Author.objects.get_or_create(name="e"),
    "add": lambda cluster: cluster.Book.objects.using(PRIMARY).get().tags.create(name="a"),
    "raw": raw,
    "raw in a block": raw_in_block,
}


def test_after_each_kind_of_write_reads_stick_to_the_primary(cluster: Cluster, clock: Clock) -> None:
    """For `sticky` seconds."""
    for name, write in WRITES.items():
        write(cluster)
        sticky = cluster.router.stats().sticky
        assert cluster.Book.objects.get().title == "fresh", name
        clock.now += 1.99
        assert cluster.Book.objects.get().title == "fresh", name
        assert cluster.router.stats().sticky == sticky + 2
        clock.now += 0.01
        assert cluster.Book.objects.get().title == "stale", name


def nothing(cluster: Cluster) -> None:
    with cluster.databases.atomic():
        cluster.Author.objects.get()


def read_only(cluster: Cluster) -> None:
    with cluster.databases.atomic(readonly=True), cluster.databases.connection() as connection:
        connection.exec_driver_sql("SELECT 1")


def rolled_back_write(cluster: Cluster) -> None:
    with pytest.raises(ZeroDivisionError), cluster.databases.atomic():
        cluster.Author(name="a").save()
        raise ZeroDivisionError


@pytest.mark.parametrize("act", [nothing, read_only, rolled_back_write])
def test_what_writes_nothing_does_not_stick(act: Callable[[Cluster], None], cluster: Cluster) -> None:
    act(cluster)
    assert cluster.Book.objects.get().title == "stale"


def test_a_block_that_was_not_committed_by_its_savepoint_alone_sticks_once_it_is(cluster: Cluster) -> None:
    """A savepoint that was rolled back leaves the block as it is: it may have written before."""
    with cluster.databases.atomic():
        cluster.Author(name="a").save()
        with pytest.raises(ZeroDivisionError), cluster.databases.atomic():
            raise ZeroDivisionError
    assert cluster.Book.objects.get().title == "fresh"


def test_the_sticky_time_of_a_block_begins_at_its_commit(cluster: Cluster, clock: Clock) -> None:
    with cluster.databases.atomic():
        cluster.Author(name="a").save()
        clock.now += 60
    assert cluster.Book.objects.get().title == "fresh"
    clock.now += 1.99
    assert cluster.Book.objects.get().title == "fresh"
    clock.now += 0.01
    assert cluster.Book.objects.get().title == "stale"


def test_functions_that_wait_for_the_commit_read_what_it_has_written(cluster: Cluster) -> None:
    seen = []
    with cluster.databases.atomic():
        cluster.Book.objects.update(title="newest")
        cluster.databases.on_commit(lambda: seen.append(cluster.Book.objects.get().title))
    assert seen == ["newest"]


def test_inside_a_block_on_the_primary_it_is_read(cluster: Cluster) -> None:
    with cluster.databases.atomic():
        assert cluster.Book.objects.get().title == "fresh"
    assert cluster.router.stats().reads == {}


def test_a_long_sticky_time_is_that_of_the_option(make: Callable[..., Cluster], clock: Clock) -> None:
    cluster = make(sticky=100)
    cluster.Author(name="a").save()
    clock.now += 99
    assert cluster.alias_of_read(cluster.Author.objects.count) == PRIMARY
    clock.now += 1
    assert cluster.alias_of_read(cluster.Author.objects.count) in REPLICAS


# Rows of a replica are rows of the primary.


@pytest.mark.backends("sqlite-file", "mariadb")
def test_an_instance_of_a_replica_belongs_to_the_primary(cluster: Cluster) -> None:
    for book in (
        cluster.Book.objects.get(),
        cluster.Book.objects.filter(cluster.Book.title.like("s%")).get(),
        cluster.Book.objects.select_related("author").get(),
        cluster.Book.objects.raw("SELECT * FROM book")[0],
        *cluster.Book.objects.iterate(),
    ):
        assert (book.title, book._state.db) == ("stale", PRIMARY)


@pytest.mark.parametrize("options", [{}, {"force_update": True}, {"update_fields": ["title"]}])
def test_a_save_of_it_is_an_update_on_the_primary(options: dict[str, Any], cluster: Cluster) -> None:
    book = cluster.Book.objects.get()
    book.title = "changed"
    with count_statements(PRIMARY, databases=cluster.databases) as there:
        book.save(**options)
    assert [each.split()[0] for each in there.statements] == ["UPDATE"]
    assert [each.title for each in cluster.Book.objects.using(PRIMARY).all()] == ["changed"]
    assert cluster.Book.objects.using("one").get().title == "stale"


def test_a_delete_of_it_deletes_the_row_of_the_primary(cluster: Cluster) -> None:
    book = cluster.Book.objects.get()
    assert book.delete() == (1, {book.__schema__.label: 1})
    assert (book.id, cluster.Book.objects.using(PRIMARY).count()) == (None, 0)


def test_it_can_be_related_to_rows_that_were_written_or_read_elsewhere(cluster: Cluster) -> None:
    old = cluster.Author.objects.get()
    new = cluster.Author(name="new").save()
    cluster.forget()
    book = cluster.Book.objects.get()
    for author in (
        new,
        old,
        cluster.Author.objects.using("one").get(),
        cluster.Author.objects.using(PRIMARY).first(),
    ):
        book.author = author
        book.save()
        assert cluster.Book.objects.using(PRIMARY).get().author_id == author.id
    assert cluster.Book(title="by it", author=old).save()._state.db == PRIMARY


def test_its_related_rows_are_read_as_any_rows_are(cluster: Cluster) -> None:
    """From a replica, or from the primary after a write."""
    book, author = cluster.Book.objects.get(), cluster.Author.objects.get()
    assert (book.author.name, [each.title for each in author.books.all()]) == ("stale", ["stale"])
    assert cluster.Book.objects.prefetch_related("author").get().author.name == "stale"
    assert cluster.Book.objects.filter(author=author).count() == 1
    cluster.Tag(name="a").save()
    book, author = cluster.Book.objects.get(), cluster.Author.objects.get()
    assert (book.author.name, [each.title for each in author.books.all()]) == ("fresh", ["fresh"])


@pytest.mark.backends("sqlite-file", "mariadb")
def test_its_related_rows_are_written_to_the_primary(cluster: Cluster) -> None:
    author, book = cluster.Author.objects.get(), cluster.Book.objects.get()
    author.books.create(title="second")
    book.tags.add(cluster.Tag(name="a").save())
    author.books.add(cluster.Book(title="third").save())
    assert author.books.count() == 3
    cluster.forget()
    assert author.books.count() == 1
    assert cluster.Tag.objects.using("one").count() == 0


def test_refreshing_it_reads_as_any_read_does(cluster: Cluster) -> None:
    book = cluster.Book.objects.using(PRIMARY).get()
    book.refresh_from_db()
    assert (book.title, book._state.db) == ("stale", PRIMARY)
    book.refresh_from_db(using=PRIMARY)
    assert book.title == "fresh"
    cluster.Tag(name="a").save()
    book.title = ""
    book.refresh_from_db()
    assert book.title == "fresh"
    cluster.forget()
    with cluster.databases.atomic():
        book.title = ""
        book.refresh_from_db()
        assert book.title == "fresh"


def test_deferred_fields_are_read_as_any_row_is(cluster: Cluster) -> None:
    book, other = cluster.Book.objects.only("pages").all() + cluster.Book.objects.only("pages").all()
    assert book.title == "stale"
    cluster.Tag(name="a").save()
    assert other.title == "fresh"


def test_deferred_fields_that_a_save_writes_are_those_of_the_primary(cluster: Cluster) -> None:
    """An old value of a replica would undo what another program has written."""
    book = cluster.Book.objects.only("pages").get()
    book.save(update_fields=["title"])
    assert cluster.Book.objects.using(PRIMARY).get().title == "fresh"


def test_values_that_were_assigned_are_compared_with_the_primary(cluster: Cluster) -> None:
    book = cluster.Book.objects.only("pages").get()
    book.title = "other"
    assert book.changes()["title"] == ("fresh", "other")


def test_other_models_are_left_to_other_routers(fresh_url: Callable[[], str]) -> None:
    """Those with another home, and instances of another alias."""

    class Logs(Router):
        def db_for_read(self, model: Any, **hints: Any) -> str | None:
            return "logs" if model.__name__ == "Routed" else None

        db_for_write = db_for_read

    router = PrimaryReplica("default", "one")
    urls = {alias: fresh_url() for alias in ("default", "one", "logs")}
    with Databases(urls, routers=[Logs(), router]) as databases:
        registry = Registry(databases)

        class Homed(Model, registry=registry, database="logs"):
            pass

        class Routed(Model, registry=registry):
            pass

        class Usual(Model, registry=registry):
            pass

        registry.create_all()
        assert (Homed().save()._state.db, Routed().save()._state.db) == ("logs", "logs")
        assert (Homed.objects.count(), Routed.objects.count()) == (1, 1)
        moved = Usual().save(using="logs")
        moved.save()
        assert (moved._state.db, Usual.objects.using("default").count()) == ("logs", 0)
        assert router.stats().reads == {}


def test_the_tables_of_a_replica_come_from_the_primary(fresh_url: Callable[[], str]) -> None:
    cluster = Cluster({"default": fresh_url(), "one": fresh_url()})
    with cluster.databases:
        cluster.registry.create_all()
        assert not cluster.databases.allows_migration("one", "book")
        assert not cluster.databases.database("one").opened
        assert cluster.registry.tables_by_alias("one") == [("one", [])]


def test_in_a_test_that_is_rolled_back_all_reads_go_to_the_primary(cluster: Cluster) -> None:
    """Nothing copies what it writes."""
    with rolled_back(cluster.databases):
        cluster.Book.objects.update(title="by the test")
        cluster.forget()
        assert cluster.Book.objects.get().title == "by the test"
    assert cluster.Book.objects.using(PRIMARY).get().title == "fresh"
    cluster.forget()
    assert cluster.Book.objects.get().title == "stale"


# Sessions.


def test_a_thread_does_not_inherit_what_another_has_written(cluster: Cluster) -> None:
    seen = []
    cluster.Tag(name="a").save()
    thread = threading.Thread(target=lambda: seen.append(cluster.Book.objects.get().title))
    thread.start()
    thread.join()
    assert (seen, cluster.Book.objects.get().title) == (["stale"], "fresh")


def test_a_child_task_inherits_what_was_written_and_keeps_its_own_writes(cluster: Cluster) -> None:
    async def title() -> str:
        return str((await cluster.Book.objects.aget()).title)

    async def write() -> str:
        await cluster.Tag(name="a").asave()
        return await title()

    async def main() -> list[str]:
        own = await asyncio.create_task(write())
        before = await title()
        await cluster.Tag(name="b").asave()
        found = [own, before, await title(), await asyncio.create_task(title())]
        async with cluster.databases.atomic():
            await cluster.Tag(name="c").asave()
        await cluster.databases.aclose()
        return found

    assert asyncio.run(main()) == ["fresh", "stale", "fresh", "fresh"]


def test_tasks_and_threads_in_a_session_share_it(cluster: Cluster) -> None:
    async def main() -> list[str]:
        with cluster.router.session():
            await asyncio.create_task(cluster.Tag(name="a").asave())
            first = (await cluster.Book.objects.aget()).title
        cluster.forget()
        found = [first, (await asyncio.create_task(cluster.Book.objects.aget())).title]
        await cluster.databases.aclose()
        return found

    with cluster.router.session():
        asyncio.run(asyncio.to_thread(cluster.Tag(name="b").save))  # type: ignore[arg-type]
        assert cluster.Book.objects.get().title == "fresh"
    cluster.forget()
    assert asyncio.run(main()) == ["fresh", "stale"]


def test_a_token_carries_a_session_on(cluster: Cluster, clock: Clock) -> None:
    with cluster.router.session() as session:
        assert session.token() == ""
        cluster.Tag(name="a").save()
        token = session.token()
    assert token.isdecimal()
    cluster.forget()
    with cluster.router.session(token):
        assert cluster.Book.objects.get().title == "fresh"
    cluster.forget()
    with cluster.router.session(token):
        clock.now += 2
        assert cluster.Book.objects.get().title == "stale"
    cluster.forget()
    with cluster.router.session(token) as session:
        clock.now += 2
        assert session.token() == ""


def test_what_a_session_has_written_is_known_after_it(cluster: Cluster) -> None:
    with cluster.router.session(), cluster.router.session():
        cluster.Tag(name="a").save()
    assert cluster.Book.objects.get().title == "fresh"
    cluster.forget()
    with cluster.router.session():
        pass
    assert cluster.Book.objects.get().title == "stale"


@pytest.mark.backends("sqlite-memory")
@pytest.mark.parametrize("token", [None, "", "x", "12-", "-1", "9" * 40, "1e9", "12-zz", "١٢", b"12", 12])
def test_what_is_no_token_is_ignored(token: Any, cluster: Cluster) -> None:
    """A cookie is what a browser sends."""
    with cluster.router.session(token):
        assert cluster.Book.objects.get().title == "stale"


@pytest.mark.backends("sqlite-memory")
def test_a_token_of_the_future_sticks_no_longer_than_any(cluster: Cluster, clock: Clock) -> None:
    with cluster.router.session("999999999999999"):
        assert cluster.Book.objects.get().title == "fresh"
        clock.now += 2
        assert cluster.Book.objects.get().title == "stale"


def test_the_reads_of_a_session_stay_on_one_replica(make: Callable[..., Cluster]) -> None:
    cluster = make(choose="round_robin")
    with cluster.router.session():
        assert len({cluster.alias_of_read(cluster.Book.objects.count) for _ in range(6)}) == 1
    assert {cluster.alias_of_read(cluster.Book.objects.count) for _ in range(6)} == REPLICAS


# The choice.


@pytest.mark.backends("sqlite-memory")
def test_round_robin_follows_the_weights(make: Callable[..., Cluster]) -> None:
    cluster = make(replicas={"one": 2, "two": 1}, choose="round_robin")
    found = [cluster.alias_of_read(cluster.Book.objects.count) for _ in range(6)]
    assert found == ["one", "two", "one"] * 2


@pytest.mark.backends("sqlite-memory")
def test_a_random_choice_follows_the_weights(
    make: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heavier replica is chosen for the same share of all random numbers."""
    cluster = make(replicas={"one": 3, "two": 1})
    steps = [(number + 0.5) / 20 for number in range(20)]
    numbers = iter([each for first in steps for second in steps for each in (first, second)])
    monkeypatch.setattr("microorm.routers.replicas.random.random", lambda: next(numbers))
    for _ in range(400):
        cluster.Book.objects.count()
    assert 290 < cluster.router.stats().reads["one"] < 310


@pytest.mark.backends("sqlite-memory")
@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("default", []), {}, "at least one replica"),
        (("default", 5), {}, "replicas= must be a list of aliases, or a mapping to weights, not 5"),
        (("default", ["a", "a"]), {}, "'a' twice"),
        (("default", ["default"]), {}, "'default' twice"),
        (("default", {"a": 0}), {}, "weight of 'a'"),
        (("default", {"a": True}), {}, "weight of 'a'"),
        (("default", "a"), {"choose": "best"}, "'random' or 'round_robin', not 'best'"),
        (("default", "a"), {"sticky": -1}, "sticky= must be a number of seconds"),
        (("default", "a"), {"sticky": "2"}, "sticky= must be a number of seconds"),
        (("default", "a"), {"connect_timeout": 0}, "connect_timeout= must be"),
        (("default", "a"), {"retry_after": float("inf")}, "retry_after= must be"),
    ],
)
def test_options_that_cannot_be_are_refused(arguments: Any, options: Any, message: str, backend: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        PrimaryReplica(*arguments, **options)


@pytest.mark.backends("sqlite-memory")
def test_aliases_that_do_not_fit_are_refused_and_change_nothing(backend: str) -> None:
    cluster = Cluster({"default": "sqlite://", "one": "sqlite://"})
    databases = cluster.databases
    before = databases.database("default")
    for router, message in (
        (
            PrimaryReplica("defalt", "one"),
            "no database named 'defalt'; configured: 'default', 'one'; nearest: 'default'",
        ),
        (PrimaryReplica("default", "three"), "no database named 'three'"),
        (
            PrimaryReplica("default", "server"),
            "'server' is postgresql, and no replica of 'default', which is sqlite",
        ),
        (
            PrimaryReplica("default", "one", causal=True),
            "causal=True needs PostgreSQL, and 'default' is sqlite",
        ),
    ):
        settings = {"default": "sqlite://", "one": "sqlite://", "server": "postgresql://127.0.0.1/x"}
        if "configured" in message:
            del settings["server"]
        with pytest.raises(ConfigurationError, match=message):
            databases.configure(settings, routers=[router])
    assert databases.database("default") is before
    with pytest.raises(ConfigurationError, match="watched by two routers"):
        databases.configure(
            {"default": "sqlite://", "one": "sqlite://", "two": "sqlite://"},
            routers=[PrimaryReplica("default", "one"), PrimaryReplica("default", "two")],
        )
    with pytest.raises(ConfigurationError, match="belongs to other databases already"):
        Databases({"default": "sqlite://", "one": "sqlite://"}, routers=[cluster.router])
    databases.close()
    with Databases({"default": "sqlite://", "one": "sqlite://"}, routers=[cluster.router]) as others:
        assert others.copied == {"default"}


@pytest.mark.backends("sqlite-memory")
def test_an_alias_that_a_router_watches_cannot_be_removed(cluster: Cluster) -> None:
    """Reads would be routed to it all the same, and nothing would watch a database that took its place."""
    for alias in ("default", "one"):
        with pytest.raises(
            ConfigurationError, match=f"'{alias}' cannot be removed, since a router watches it"
        ):
            cluster.databases.remove(alias)
    assert cluster.Author.objects.count() == 1
    cluster.databases.add("other", "sqlite://")
    cluster.databases.remove("other")


def test_get_or_create_looks_on_the_primary(cluster: Cluster) -> None:
    """A replica might not have the row yet."""
    for method in ("get_or_create", "update_or_create"):
        author, created = getattr(cluster.Author.objects, method)(name="fresh")
        assert (author.name, created) == ("fresh", False)
        cluster.forget()
        new, created = getattr(cluster.Author.objects, method)(name=method)
        assert (new._state.db, created) == ("default", True)
        cluster.forget()
    assert cluster.Author.objects.using("default").count() == 3
    assert cluster.Author.objects.using("one").count() == 1


def test_a_router_of_no_databases_says_so(backend: str) -> None:
    cluster = Cluster({"default": "sqlite://", "one": "sqlite://"})
    cluster.databases.close()
    with pytest.raises(ConfigurationError, match=r"pass it to configure\(routers="):
        PrimaryReplica().db_for_read(cluster.Book)


def test_a_block_that_cannot_be_used_does_not_lead_to_a_replica(cluster: Cluster) -> None:
    with pytest.raises(TransactionError, match="doomed"):
        with cluster.databases.atomic():
            with pytest.raises(Exception, match="no_such_table"):
                with cluster.databases.connection() as connection:
                    connection.exec_driver_sql("SELECT * FROM no_such_table")
            cluster.Book.objects.count()
