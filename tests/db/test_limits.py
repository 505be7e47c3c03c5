"""Limits for all aliases together: `max_connections`, and `idle_timeout`."""

import asyncio
import os
import threading
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from microorm import ConfigurationError, Databases, Field, Model, Registry
from microorm.db.aio.calls import run
from microorm.db.engines import limits, pool

ALIASES = ("a", "b", "c", "d")


@pytest.fixture
def make(fresh_url):
    """Makes databases with these limits, and a model with tables on all; closed after the test."""
    made = []

    def make(pool_timeout: float = 5, **given: Any) -> tuple[Databases, Any]:
        settings = {alias: {"url": fresh_url(), "pool_timeout": pool_timeout} for alias in ALIASES}
        databases = Databases(settings, **given)
        made.append(databases)
        registry = Registry(databases)

        class Book(Model, registry=registry):
            title: Field[str]

        registry.create_all()
        return databases, Book

    yield make
    for databases in made:
        databases.close()


def opened(databases: Databases) -> int:
    return sum(
        len(list(each.idle_connections.records))
        for alias in databases.aliases
        if (each := databases._databases[alias])
    )


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "10"])
def test_max_connections_is_a_number_of_connections(sqlite_url, value: Any) -> None:
    with pytest.raises(ConfigurationError, match="^max_connections= must be an int from 1 on, or None, not "):
        Databases(sqlite_url, max_connections=value)


@pytest.mark.parametrize("value", [0, -1, True, float("nan"), float("inf"), "10"])
def test_idle_timeout_is_a_number_of_seconds(sqlite_url, value: Any) -> None:
    with pytest.raises(
        ConfigurationError, match="^idle_timeout= must be a number of seconds above 0, or None, not "
    ):
        Databases(sqlite_url, idle_timeout=value)


def test_an_invalid_limit_leaves_the_configuration_as_it_was(sqlite_url) -> None:
    with Databases(sqlite_url) as databases:
        with pytest.raises(ConfigurationError):
            databases.configure({"other": sqlite_url}, max_connections=0)
        assert databases.aliases == ("default",)


def test_idle_connections_of_other_aliases_are_closed_first(make) -> None:
    databases, Book = make(max_connections=2)
    for turn in range(2):
        for alias in ALIASES:
            Book(title=alias).save(using=alias)
            assert opened(databases) <= 2, turn
    assert [Book.objects.using(alias).count() for alias in ALIASES] == [2, 2, 2, 2]


def test_the_alias_that_was_used_longest_ago_loses_its_connection(make) -> None:
    databases, Book = make(max_connections=2)
    for alias in ("a", "b", "c"):
        Book.objects.using(alias).count()
    assert [databases.database(alias).has_idle() for alias in ALIASES] == [False, True, True, False]


def test_at_the_limit_an_error_names_those_that_hold_connections(make) -> None:
    databases, Book = make(max_connections=2, pool_timeout=0.05)
    with databases.atomic("a"), databases.atomic("b"):
        with pytest.raises(
            PoolTimeout,
            match="^no connection to 'c' within 0.05 seconds: all 2 of max_connections are in use, by '[ab]' 1, '[ab]' 1$",
        ):
            Book(title="c").save(using="c")
        Book(title="a").save(using="a")
    Book(title="c").save(using="c")
    assert opened(databases) <= 2


def test_a_thread_waits_for_a_connection_of_another_alias(make) -> None:
    databases, Book = make(max_connections=1)
    began, done = threading.Event(), threading.Event()

    def work() -> None:
        with databases.atomic("a"):
            began.set()
            while not databases._limits.waiting:
                done.wait(0.001)
            Book(title="a").save(using="a")

    thread = threading.Thread(target=work)
    thread.start()
    began.wait()
    Book(title="b").save(using="b")
    thread.join()
    assert (Book.objects.using("a").count(), Book.objects.using("b").count()) == (1, 1)


def test_many_threads_share_few_connections(make) -> None:
    databases, Book = make(max_connections=3, pool_timeout=30)
    failures: list[BaseException] = []
    most = []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                alias = ALIASES[(number + turn) % 4]
                with databases.atomic(alias):
                    Book(title=alias).save(using=alias)
                    most.append(len(databases._limits._slots))
                Book.objects.using(alias).count()
        except Exception as error:  # noqa: BLE001 the test fails by it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sum(Book.objects.using(alias).count() for alias in ALIASES) == 80
    assert max(most) <= 3
    assert not databases._limits.waiting


def test_tasks_share_few_connections(make) -> None:
    databases, Book = make(max_connections=2, pool_timeout=30)

    async def work(number: int) -> None:
        for turn in range(5):
            alias = ALIASES[(number + turn) % 4]
            async with databases.atomic(alias):
                await Book(title=alias).asave(using=alias)
                assert len(databases._limits._slots) <= 2
            await Book.objects.using(alias).acount()

    async def main() -> None:
        await asyncio.gather(*map(work, range(6)))

    asyncio.run(main())
    assert sum(Book.objects.using(alias).count() for alias in ALIASES) == 30


def test_threads_and_tasks_count_together(make) -> None:
    databases, Book = make(max_connections=1, pool_timeout=0.05)

    async def main() -> None:
        with databases.atomic("a"):
            with pytest.raises(PoolTimeout, match="in use, by 'a' 1$"):
                await Book(title="b").asave(using="b")
        await Book(title="b").asave(using="b")
        assert len(databases._limits._slots) == 1

    asyncio.run(main())
    Book(title="a").save(using="a")
    assert len(databases._limits._slots) == 1


def test_connections_of_an_event_loop_that_does_not_run_are_closed_at_the_limit(make) -> None:
    """Such as that of a thread which has run an async receiver; it opens others when it runs again."""
    _, Book = make(max_connections=1, pool_timeout=0.5)
    loop = asyncio.new_event_loop()
    try:
        for turn in range(2):
            loop.run_until_complete(Book(title="a").asave(using="a"))
            Book(title="b").save(using="b")
            assert loop.run_until_complete(Book.objects.using("a").acount()) == turn + 1
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    assert Book.objects.using("b").count() == 2


def test_synchronous_code_in_a_coroutine_does_not_wait_for_its_own_loop(make) -> None:
    _, Book = make(max_connections=1, pool_timeout=0.5)

    async def main() -> None:
        await Book(title="a").asave(using="a")
        Book(title="b").save(using="b")
        assert await Book.objects.using("a").acount() == 1

    asyncio.run(main())
    assert Book.objects.using("b").count() == 1


def test_what_a_loop_that_does_not_run_still_uses_is_left_alone(make) -> None:
    """A task with an open block goes on when its loop does."""
    databases, Book = make(max_connections=1, pool_timeout=0.05)
    loop = asyncio.new_event_loop()
    go = asyncio.Event()

    async def work(begun: asyncio.Event) -> None:
        async with databases.atomic("a"):
            await Book(title="a").asave(using="a")
            begun.set()
            await go.wait()

    async def begin() -> "asyncio.Task[None]":
        begun = asyncio.Event()
        task = asyncio.create_task(work(begun))
        await begun.wait()
        return task

    try:
        task = loop.run_until_complete(begin())
        with pytest.raises(PoolTimeout, match="in use, by 'a' 1$"):
            Book(title="b").save(using="b")
        go.set()
        loop.run_until_complete(task)
        Book(title="b").save(using="b")
        assert loop.run_until_complete(Book.objects.using("a").acount()) == 1
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def test_a_task_that_is_cancelled_as_it_waits_leaves_the_line(make) -> None:
    databases, Book = make(max_connections=1)

    async def main() -> None:
        async with databases.atomic("a"):
            waiting = asyncio.create_task(Book(title="b").asave(using="b"))
            while not databases._limits.waiting:
                await asyncio.sleep(0.001)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert not databases._limits.waiting
        await Book(title="b").asave(using="b")

    asyncio.run(main())


@pytest.mark.parametrize("listened", [False, True])
def test_a_connection_that_cannot_be_opened_takes_no_slot(fresh_file, tmp_path, listened: bool) -> None:
    broken = tmp_path / "broken.db"
    broken.mkdir()
    kept = []
    with Databases(
        {"default": fresh_file(), "broken": f"sqlite:///{broken}"}, max_connections=1
    ) as databases:
        if listened:
            event.listen(databases.engine("broken"), "before_cursor_execute", lambda *_: None)
        for _ in range(3):
            with pytest.raises(OperationalError) as raised:
                databases.atomic("broken").__enter__()
            kept.append(raised.value)  # its traceback keeps the record of the pool
        with databases.connection() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
    assert len(kept) == 3


def test_closing_frees_all_slots(make) -> None:
    databases, Book = make(max_connections=3)
    for alias in ("a", "b", "c"):
        Book(title=alias).save(using=alias)
    databases.remove("a")
    assert len(databases._limits._slots) == 2
    databases.close()
    assert (len(databases._limits._slots), databases._limits._used) == (0, {})


@pytest.mark.backends("sqlite-file")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="only POSIX forks")
def test_a_forked_child_counts_its_own_connections(make) -> None:
    databases, Book = make(max_connections=2)
    for alias in ("a", "b"):
        Book(title=alias).save(using=alias)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            slots = len(databases._limits._slots)
            Book(title="c").save(using="c")
            status = 0 if (slots, len(databases._limits._slots)) == (0, 1) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class Clock:
    """The time of limits and pools, which a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    for module in (limits, pool):
        monkeypatch.setattr(module, "monotonic", clock)
    return clock


def engines(databases: Databases) -> list[str]:
    return [alias for alias in databases.aliases if databases._databases[alias]._engine is not None]


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_an_engine_that_was_not_used_for_long_is_closed_and_made_again(make, clock) -> None:
    databases, Book = make(idle_timeout=60)
    assert engines(databases) == list(ALIASES)
    book = Book(title="Lathe").save(using="a")
    (record,) = databases.database("a").idle_connections.records
    clock.now += 30
    Book.objects.using("b").count()
    clock.now += 40
    Book.objects.using("c").count()
    assert engines(databases) == ["b", "c"]
    assert record.dbapi_connection is None
    assert not any(each.alias == "a" for each in Book.__schema__.plans)
    book.title = "Heaven"
    book.save()
    assert Book.objects.using("a").get().title == "Heaven"


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_an_engine_in_use_is_not_closed(make, clock) -> None:
    databases, Book = make(idle_timeout=60)
    with databases.atomic("a"):
        clock.now += 100
        Book.objects.using("b").count()
        assert engines(databases) == ["a", "b"]
        Book(title="a").save(using="a")
    clock.now += 100
    Book.objects.using("b").count()
    assert engines(databases) == ["b"]
    assert Book.objects.using("a").count() == 1


@pytest.mark.backends("sqlite-memory")
def test_a_database_in_memory_keeps_its_rows(make, clock) -> None:
    _, Book = make(idle_timeout=60)
    Book(title="a").save(using="a")
    clock.now += 100
    Book.objects.using("b").count()
    assert Book.objects.using("a").count() == 1


@pytest.mark.backends("sqlite-file")
def test_an_engine_that_the_program_listens_to_loses_its_connections_only(make, clock) -> None:
    databases, Book = make(idle_timeout=60)
    statements = []
    engine = databases.engine("a")
    event.listen(
        engine, "before_cursor_execute", lambda c, cursor, statement, *_: statements.append(statement)
    )
    Book.objects.using("a").count()
    clock.now += 100
    Book.objects.using("b").count()
    assert databases.engine("a") is engine
    assert list(databases.database("a").idle_connections.records) == []
    Book.objects.using("a").count()
    assert len(statements) == 2


@pytest.mark.backends("sqlite-file")
def test_few_engines_are_closed_at_once(make, clock, fresh_file) -> None:
    databases, Book = make(idle_timeout=60)
    for number in range(8):
        databases.add(f"more_{number}", fresh_file())
        Book.__schema__.registry.create_all(using=f"more_{number}")
    clock.now += 100
    Book.objects.using("a").count()
    assert len(engines(databases)) == 12 - limits.AT_ONCE
    clock.now += 2
    Book.objects.using("a").count()
    clock.now += 2
    Book.objects.using("a").count()
    assert engines(databases) == ["a"]


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_an_event_loop_closes_its_engines_that_are_not_used(make, clock) -> None:
    databases, Book = make(idle_timeout=60)

    async def main() -> None:
        for alias in ("a", "b"):
            await Book(title=alias).asave(using=alias)
        unused = databases.awaited(databases.database("a"))
        records = list(unused.idle_connections.records)
        clock.now += 100
        await Book(title="c").asave(using="c")
        while any(record.dbapi_connection for record in records):
            await asyncio.sleep(0.001)
        assert (len(records), unused.engines, unused in Book.__schema__.plans) == (1, {}, False)
        await Book(title="again").asave(using="a")
        assert await Book.objects.using("a").acount() == 2

    asyncio.run(main())


def test_an_engine_that_rests_twice_leaves_alone_the_one_in_its_place(make) -> None:
    """An event loop that is busy for long closes it later than it was asked to, and may be asked again meanwhile."""
    databases, Book = make(idle_timeout=10)

    async def main() -> None:
        await Book(title="a").asave(using="a")
        engines = databases.awaited(databases.database("a")).engines
        (first,) = engines.values()
        await run(first._rest)
        await Book(title="b").asave(using="a")
        (second,) = engines.values()
        await run(first._rest)
        assert list(engines.values()) == [second]
        assert not second.ended

    asyncio.run(main())


@pytest.mark.backends("sqlite-file", "postgresql")
def test_engines_are_closed_and_made_again_while_threads_and_tasks_use_them(make, monkeypatch) -> None:
    monkeypatch.setattr(limits, "TRUSTED", 0.0)
    monkeypatch.setattr(pool, "TRUSTED", 0.0)  # each use is a check-out
    databases, Book = make(idle_timeout=1e-9, max_connections=3, pool_timeout=30)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(12):
                alias = ALIASES[(number + turn) % 4]
                Book(title=alias).save(using=alias)
                with databases.atomic(alias):
                    assert Book.objects.using(alias).exists()
        except Exception as error:  # noqa: BLE001 the test fails by it
            failures.append(error)

    async def awaited(number: int) -> None:
        for turn in range(6):
            alias = ALIASES[(number + turn) % 4]
            await Book(title=alias).asave(using=alias)

    async def main() -> None:
        await asyncio.gather(*map(awaited, range(4)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    asyncio.run(main())
    for thread in threads:
        thread.join()
    assert failures == []
    assert sum(Book.objects.using(alias).count() for alias in ALIASES) == 4 * 12 + 4 * 6
    assert len(databases._limits._slots) <= 3


@pytest.mark.backends("sqlite-file")
def test_without_limits_nothing_listens_to_check_outs(make) -> None:
    databases, Book = make()
    Book.objects.using("a").count()
    assert not databases.engine("a").pool.dispatch.checkout
    assert databases._limits._used == {}
