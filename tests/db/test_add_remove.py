"""Aliases that come and go while the others are used."""

import asyncio
import gc
import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from microorm import ConfigurationError, Databases, Field, TransactionError, UnknownAlias
from microorm.db import owners
from microorm.signals import connection_created


@pytest.fixture
def Book(Base) -> Any:
    class Book(Base):
        title: Field[str]

    return Book


@pytest.fixture
def added(databases, Book, fresh_url) -> Databases:
    """`databases` with one more alias, `new`, with tables on all."""
    databases.add("new", fresh_url())
    Book.__schema__.registry.create_all()
    return databases


def in_thread(function: Any) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_an_added_alias_is_used_as_a_configured_one_is(added, Book) -> None:
    with added.atomic("new"):
        book = Book(title="Lathe").save(using="new")
    assert (book._state.db, added.aliases) == ("new", ("default", "other", "new"))
    assert (Book.objects.using("new").count(), Book.objects.count()) == (1, 0)


def test_the_tables_of_one_alias_can_be_made(databases, Book, fresh_url) -> None:
    databases.add("new", fresh_url())
    Book.__schema__.registry.create_all(using="new")
    assert Book.objects.using("new").count() == 0


def test_an_added_alias_announces_its_connections(databases, fresh_url) -> None:
    seen = []

    def note(alias: str, **kwargs: Any) -> None:
        seen.append(alias)

    connection_created.connect(note, sender=databases)
    databases.add("new", fresh_url())
    with databases.connection("new") as connection:
        connection.execute(text("SELECT 1"))
    assert seen == ["new"]


def test_adding_the_same_settings_again_changes_nothing(added, Book, url) -> None:
    before = added.database("default")
    book = Book(title="Lathe").save()
    added.add("default", url)
    added.add("default", {"url": url})
    assert added.database("default") is before
    book.refresh_from_db()


def test_adding_an_alias_with_other_settings_is_an_error(databases, url, fresh_url) -> None:
    before = databases.database("other")
    others: list[Any] = [{"url": url, "pool_size": 3}, create_engine("sqlite://")]
    if url != "sqlite://":  # two databases in memory have the same URL
        others.append(fresh_url())
    for settings in others:
        with pytest.raises(ConfigurationError, match="^'other' has other settings already; remove it first$"):
            databases.add("other", settings)
    assert databases.database("other") is before


@pytest.mark.parametrize(
    ("alias", "settings", "message"),
    [
        ("4two", "sqlite://", "invalid alias '4two': use ASCII letters"),
        (None, "sqlite://", "invalid alias None"),
        ("new", "sqlit://", "names 'sqlit'"),
        ("new", {"pool_size": 1}, "database 'new' has no 'url'; given: 'pool_size'"),
        ("new", 5, "database 'new' must be a URL, an Engine or a mapping, not int"),
    ],
)
def test_what_cannot_be_added_is_an_error_and_adds_nothing(
    sqlite_url, alias: Any, settings: Any, message: str
) -> None:
    with Databases(sqlite_url) as databases:
        with pytest.raises(ConfigurationError, match=message):
            databases.add(alias, settings)
        assert databases.aliases == ("default",)


def test_databases_may_begin_with_an_added_alias(sqlite_url) -> None:
    with Databases() as databases:
        databases.add("only", sqlite_url)
        with databases.connection("only") as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_nothing_is_added_to_databases_that_were_closed(sqlite_url) -> None:
    databases = Databases(sqlite_url)
    databases.close()
    with pytest.raises(ConfigurationError, match="'new' cannot be added, since the databases were closed"):
        databases.add("new", sqlite_url)
    assert databases.aliases == ()
    databases.configure(sqlite_url)
    databases.add("new", sqlite_url)
    databases.close()
    assert databases.aliases == ()


def test_a_removed_alias_is_unknown(added, Book) -> None:
    book = Book(title="Lathe").save(using="new")
    added.remove("new")
    assert added.aliases == ("default", "other")
    book.title = "Heaven"
    for use in (
        book.save,
        book.delete,
        book.refresh_from_db,
        lambda: Book.objects.using("new").count(),
        lambda: added.using("new"),
        lambda: added.atomic("new").__enter__(),
        lambda: added.remove("new"),
    ):
        with pytest.raises(
            UnknownAlias, match="^no database named 'new'; it was removed; configured: 'default', "
        ) as raised:
            use()
        assert raised.value.removed
    assert (book.title, book._state.db, book.changed_fields) == ("Heaven", "new", {"title"})
    assert book.save(using="default", force_insert=True)._state.db == "default"


def test_an_alias_that_was_removed_can_be_added_again(added, Book, url) -> None:
    book = Book(title="Lathe").save(using="new")
    added.remove("new")
    added.add("new", url)
    Book.__schema__.registry.create_all(using="new")
    book.save(force_insert=True)
    assert Book.objects.using("new").get().title == "Lathe"


def test_an_alias_that_never_was_is_not_said_to_be_removed(databases) -> None:
    with pytest.raises(UnknownAlias, match="^no database named 'never'; configured: 'default', 'other'$"):
        databases.remove("never")


def test_removing_closes_the_connections(added, Book) -> None:
    Book(title="Lathe").save(using="new")
    (record,) = added.database("new").idle_connections.records
    added.remove("new")
    assert record.dbapi_connection is None


@pytest.mark.parametrize("where", ["here", "in another thread"])
def test_an_alias_with_an_open_block_is_not_removed(added, Book, where: str) -> None:
    with added.atomic("new"):
        book = Book(title="Lathe").save(using="new")
        with pytest.raises(
            TransactionError,
            match="^'new' cannot be removed while a block is open on it, or a statement uses it$",
        ):
            added.remove("new") if where == "here" else in_thread(lambda: added.remove("new"))
        book.title = "Heaven"
        book.save()
    assert Book.objects.using("new").get().title == "Heaven"
    added.remove("new")
    assert "new" not in added.aliases


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")  # rows in memory are read at once
def test_an_alias_whose_rows_are_read_is_not_removed(added, Book) -> None:
    Book.objects.using("new").bulk_create([Book(title=str(number)) for number in range(5)])
    rows = Book.objects.using("new").iterate(chunk=2)
    next(rows)
    with pytest.raises(TransactionError):
        added.remove("new")
    assert len(list(rows)) == 4
    added.remove("new")


def test_a_connection_that_was_handed_out_keeps_its_alias(added) -> None:
    with added.connection("new") as connection:
        with pytest.raises(TransactionError):
            added.remove("new")
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    added.remove("new")


def test_an_engine_that_was_given_stays_open(sqlite_url) -> None:
    engine = create_engine(sqlite_url)
    with Databases(sqlite_url) as databases:
        databases.add("given", engine)
        with databases.atomic("given"):
            with pytest.raises(TransactionError):
                databases.remove("given")
        databases.remove("given")
        with engine.connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
    engine.dispose()


def test_a_block_of_using_on_a_removed_alias_says_so(added, Book) -> None:
    with added.using("new"):
        added.remove("new")
        with pytest.raises(UnknownAlias, match="it was removed"):
            Book.objects.count()
    assert Book.objects.count() == 0


def test_threads_that_add_one_alias_have_one_engine(databases, fresh_url) -> None:
    url, start, engines = fresh_url(), threading.Barrier(8), []

    def work() -> None:
        start.wait()
        databases.add("new", url)
        engines.append(databases.engine("new"))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(engines), len(set(engines))) == (8, 1)


def test_one_of_the_threads_that_remove_an_alias_does(databases, fresh_url) -> None:
    databases.add("new", fresh_url())
    start, done = threading.Barrier(8), []

    def work() -> None:
        start.wait()
        try:
            databases.remove("new")
            done.append(True)
        except UnknownAlias:
            done.append(False)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [False] * 7 + [True]


@pytest.mark.backends("sqlite-file")
def test_threads_add_use_and_remove_aliases_of_their_own(databases, Book, fresh_file) -> None:
    registry, failures = Book.__schema__.registry, []
    registry.create_all()

    def work(number: int) -> None:
        try:
            for turn in range(6):
                alias = f"tenant_{number}_{turn}"
                databases.add(alias, fresh_file())
                registry.create_all(using=alias)
                Book(title=alias).save(using=alias)
                Book(title=alias).save()
                assert Book.objects.using(alias).get().title == alias
                databases.remove(alias)
        except Exception as error:  # noqa: BLE001 the test fails by it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert (databases.aliases, Book.objects.count()) == (("default", "other"), 36)


@pytest.mark.timeout(30)
@pytest.mark.backends("sqlite-file", "postgresql")
def test_a_thread_that_uses_an_alias_as_it_is_removed_finishes_or_says_so(added, Book) -> None:
    """What a write that was begun has done is committed; one that begins later is an error."""
    started, pause, written, failures = threading.Event(), threading.Event(), [], []

    def work() -> None:
        try:
            while True:
                written.append(Book(title="x").save(using="new").pk)
                started.set()
                pause.wait(0.002)
        except ConfigurationError as error:
            failures.append(error)

    url = added.database("new").url
    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    while True:
        try:
            added.remove("new")
            break
        except TransactionError:  # a statement was running
            pass
    thread.join()
    assert len(failures) == 1
    added.add("again", url)
    assert Book.objects.using("again").count() == len(written)


def test_coroutines_add_and_remove(databases, Book, fresh_url) -> None:
    async def main() -> None:
        databases.add("new", fresh_url())
        await Book.__schema__.registry.acreate_all(using="new")
        async with databases.atomic("new"):
            book = await Book(title="Lathe").asave(using="new")
            for remove in (databases.aremove, lambda alias: asyncio.to_thread(databases.remove, alias)):
                with pytest.raises(TransactionError, match="cannot be removed while a block is open"):
                    await remove("new")
        records = list(databases.awaited(databases.database("new")).idle_connections.records)
        await databases.aremove("new")
        assert [record.dbapi_connection for record in records] == [None]
        with pytest.raises(UnknownAlias, match="it was removed"):
            await book.asave()

    asyncio.run(main())


def test_a_thread_removes_what_a_coroutine_has_used(databases, Book, fresh_url) -> None:
    async def main() -> None:
        databases.add("new", fresh_url())
        await Book.__schema__.registry.acreate_all(using="new")
        await Book(title="Lathe").asave(using="new")
        await asyncio.to_thread(databases.remove, "new")
        assert "new" not in databases.aliases

    asyncio.run(main())


@pytest.mark.backends("sqlite-file")
def test_what_was_compiled_for_a_removed_alias_is_freed(databases, Book, fresh_file) -> None:
    registry = Book.__schema__.registry

    def come_and_go(count: int) -> None:
        for number in range(count):
            databases.add(f"tenant_{number}", url)
            Book(title="x").save(using=f"tenant_{number}")
            databases.remove(f"tenant_{number}")

    url = fresh_file()
    databases.add("first", url)
    registry.create_all(using="first")
    come_and_go(3)
    gc.collect()
    before = len(gc.get_objects())
    come_and_go(20)
    gc.collect()
    assert len(gc.get_objects()) - before < 200  # less than one alias has
    assert not any("tenant" in database.alias for database in Book.__schema__.plans)


@pytest.mark.slow
@pytest.mark.backends("sqlite-file")
def test_many_aliases_come_and_go_without_a_trace(databases, Book, fresh_file, monkeypatch) -> None:
    """Neither memory, nor open files, nor the list of what a fork closes grows, also where coroutines have used them."""
    url = fresh_file()
    databases.add("first", url)
    Book.__schema__.registry.create_all(using="first")
    monkeypatch.setattr(databases, "_removed", deque(maxlen=50))

    def sizes() -> tuple[int, int, int]:
        gc.collect()
        return len(gc.get_objects()), len(owners._watched), len(os.listdir("/proc/self/fd"))

    async def come_and_go(count: int) -> None:
        for number in range(count):
            alias = f"tenant_{number}"
            databases.add(alias, url)
            Book(title="x").save(using=alias)
            await Book(title="x").asave(using=alias)
            await databases.aremove(alias)

    async def main() -> None:
        await come_and_go(55)  # more names of removed ones than are remembered
        before = sizes()
        await come_and_go(50)
        after = sizes()
        assert after[0] - before[0] < 50
        assert after[1:] == before[1:]

    asyncio.run(main())


def test_an_error_names_few_of_many_aliases() -> None:
    error = UnknownAlias("tenant_499x", [f"tenant_{number}" for number in range(1000)])
    assert len(error.known) == 1000
    assert str(error).startswith("no database named 'tenant_499x'; configured: ")
    assert "'tenant_499'" in str(error)
    assert "and 980 more; nearest: 'tenant_499'" in str(error)
    assert len(str(error)) < 500
