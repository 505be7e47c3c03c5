"""Transactions: how one begins, what it refuses, how it ends, and what an error at its end leaves."""

import asyncio
import contextlib
import gc
import logging
import sqlite3
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import QueuePool, create_engine, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from microorm import (
    CommitOutcomeUnknown,
    ConfigurationError,
    Databases,
    Field,
    Model,
    Registry,
    TransactionError,
    field,
)
from microorm.db import owners as forks
from microorm.db import transaction as transactions
from microorm.db.context import ReceiverScope, innermost, open_scopes
from microorm.db.engines import urls as inherited_files
from microorm.db.routing import postpone
from microorm.db.transaction import open_transaction
from microorm.signals import post_save, pre_save
from tests.pools import unreturned

memory = pytest.mark.backends("sqlite-memory")
ways = pytest.mark.parametrize("listened", [False, True], ids=["driver", "listened"])


@pytest.fixture
def Book(Base: Any, registry: Any) -> Any:
    """A model with a table on both aliases; titles are unique."""

    class Book(Base):
        title: Field[str] = field(max_length=40, unique=True)

    registry.create_all()
    return Book


@pytest.fixture
def titles(Book: Any) -> Callable[..., list[str]]:
    """Return a function that returns the stored titles of an alias."""
    return lambda alias="default": [book.title for book in Book.objects.using(alias).order_by("title")]


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """Check that a test leaves no block open."""
    yield
    assert innermost() is None


@contextlib.contextmanager
def recorded(databases: Any, alias: str = "default") -> Iterator[list[str]]:
    """Record the SQL; the listener makes all statements go through SQLAlchemy."""
    sent: list[str] = []

    def record(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        sent.append(statement)

    engine = databases.engine(alias)
    event.listen(engine, "before_cursor_execute", record)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", record)


def drivers(databases: Any) -> Iterator[Any]:
    """Return the driver's connection that a statement would use."""
    with databases.connection("default") as connection:
        yield connection.connection.driver_connection


@memory
def test_a_block_says_begin_immediate_and_savepoints_by_number(databases: Any, Book: Any) -> None:
    """SQLite takes the lock at the beginning; a read-only block takes none."""
    with recorded(databases) as sent, databases.atomic():
        with databases.atomic(), databases.atomic():
            pass
        with contextlib.suppress(LookupError), databases.atomic():
            raise LookupError
        with databases.atomic(savepoint=False):
            pass
    plain = [each.replace('"', "") for each in sent]
    assert [each for each in plain if "sa_savepoint" not in each] == ["BEGIN IMMEDIATE"]
    assert len(plain) == 7
    with recorded(databases) as sent, databases.atomic(readonly=True):
        Book.objects.count()
    assert sent[:2] == ["BEGIN", "PRAGMA query_only=ON"]
    with recorded(databases) as sent:
        Book.objects.count()
        Book(title="a").save()
    assert [each.split()[0] for each in sent] == ["SELECT", "INSERT"]


@memory
def test_savepoints_go_to_the_cursor_where_nobody_listens(databases: Any, Book: Any) -> None:
    """With one name for each depth."""
    sent: list[str] = []
    with databases.atomic():
        (driver,) = drivers(databases)
        driver.set_trace_callback(sent.append)
        with databases.atomic(), databases.atomic():
            pass
        with contextlib.suppress(LookupError), databases.atomic():
            raise LookupError
        with databases.atomic(savepoint=False):
            pass
    driver.set_trace_callback(None)
    assert sent == [
        "SAVEPOINT microorm_1",
        "SAVEPOINT microorm_2",
        "RELEASE SAVEPOINT microorm_2",
        "RELEASE SAVEPOINT microorm_1",
        "SAVEPOINT microorm_1",
        "ROLLBACK TO SAVEPOINT microorm_1",
        "RELEASE SAVEPOINT microorm_1",
        "COMMIT",
    ]


def test_a_readonly_block_reads_and_refuses_to_write(databases: Any, Book: Any, titles: Any) -> None:
    """TransactionError for each write through a model, before any signal; the block is not doomed."""
    kept = Book(title="a").save()
    sent: list[Any] = []
    pre_save.connect(lambda **kwargs: sent.append(kwargs), sender=Book, weak=False, dispatch_uid="readonly")
    with databases.atomic(readonly=True):
        for write in (
            lambda: Book(title="b").save(),
            lambda: kept.save(),
            lambda: kept.delete(),
            lambda: Book.objects.create(title="b"),
            lambda: Book.objects.bulk_create([Book(title="b")]),
            lambda: Book.objects.update(title="b"),
            lambda: Book.objects.delete(),
        ):
            with pytest.raises(TransactionError, match=r"^the block on 'default' is read-only$"):
                write()
        with (
            databases.atomic(),
            pytest.raises(TransactionError, match=r"^the block on 'default' is read-only$"),
        ):
            Book(title="b").save()
        assert Book.objects.get() == kept
    assert pre_save.disconnect(sender=Book, dispatch_uid="readonly")
    assert sent == []
    assert (kept.id is not None, kept.changed_fields) == (True, frozenset())
    assert titles() == ["a"]


def test_the_database_refuses_a_raw_write_in_a_readonly_block(databases: Any, Book: Any, titles: Any) -> None:
    """Its error dooms the block; later the connection can write again."""
    with pytest.raises(TransactionError) as caught, databases.atomic(readonly=True):
        with databases.connection() as connection, pytest.raises(DBAPIError) as refused:
            connection.execute(Book.__table__.insert().values(title="b"))
        with pytest.raises(TransactionError, match="is doomed by an earlier error"):
            Book.objects.count()
    assert caught.value.__cause__ is refused.value
    for title in "ab":
        with databases.atomic():
            Book(title=title).save()
    with pytest.raises(LookupError), databases.atomic(readonly=True):
        raise LookupError
    Book(title="c").save()
    assert titles() == ["a", "b", "c"]


def test_a_readonly_block_inside_another_ends_with_itself(databases: Any, Book: Any, titles: Any) -> None:
    """The outer block can write afterwards; other aliases are not affected."""
    with databases.atomic():
        Book(title="a").save()
        for options in ({}, {"savepoint": False}):
            with databases.atomic(readonly=True, **options):
                with pytest.raises(TransactionError, match=r"^the block on 'default' is read-only$"):
                    Book(title="lost").save()
                Book(title=f"there {options}").save(using="other")
                assert titles() == ["a"]
        Book(title="b").save()
    assert titles() == ["a", "b"]
    assert len(titles("other")) == 2


@pytest.mark.backends("sqlite-file")
def test_a_block_for_reading_does_not_wait_for_a_writer(databases: Any, Book: Any, titles: Any) -> None:
    """It begins deferred, and WAL lets it read what is committed."""
    Book(title="a").save()
    with contextlib.closing(sqlite3.connect(databases.engine().url.database, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO book (title) VALUES ('b')")
        with databases.atomic(readonly=True):
            assert titles() == ["a"]
        writer.rollback()
    assert titles() == ["a"]


class World:
    """One database, with tables whose foreign key is checked at COMMIT."""

    def __init__(self, databases: Databases) -> None:
        self.databases = databases
        registry = Registry(databases)

        class Book(Model, registry=registry):
            title: Field[str] = field(max_length=40)

        registry.create_all()
        self.Book: Any = Book
        with databases.connection("default") as connection:
            for statement in (
                "CREATE TABLE shelf (id INTEGER PRIMARY KEY)",
                "CREATE TABLE place (shelf INTEGER REFERENCES shelf (id) DEFERRABLE INITIALLY DEFERRED)",
            ):
                connection.exec_driver_sql(statement)

    def break_the_commit(self) -> None:
        """Do something that the database refuses only at COMMIT."""
        with self.databases.connection("default") as connection:
            connection.exec_driver_sql("INSERT INTO place VALUES (7)")

    def titles(self) -> list[str]:
        return [book.title for book in self.Book.objects.order_by("title")]


@pytest.fixture
def world(databases: Any) -> World:
    """A world in `default`."""
    return World(databases)


@pytest.mark.backends("sqlite-file", "sqlite-memory", "postgresql")
@ways
def test_a_commit_that_fails_is_a_rollback(world: World, caplog: Any, listened: bool) -> None:
    """The error is raised, functions do not run, instances are as before, and the connection is usable."""
    databases, Book, ran = world.databases, world.Book, []
    if listened:
        event.listen(databases.engine(), "before_cursor_execute", lambda *_: None)
    book = Book(title="a")
    with pytest.raises(IntegrityError), databases.atomic():
        databases.on_commit(lambda: ran.append("never"))
        with databases.atomic():
            book.save()
        world.break_the_commit()
    assert ran == []
    assert (book.id, book._state.adding, book._state.db) == (None, True, None)
    assert world.titles() == []
    with databases.atomic():
        databases.on_commit(lambda: ran.append("then"))
        book.save()
    assert (world.titles(), ran) == (["a"], ["then"])


@pytest.mark.backends("sqlite-memory", "postgresql")
def test_a_save_whose_commit_fails_leaves_nothing(world: World) -> None:
    """The transaction that a save begins for its receivers behaves like any other."""
    Book = world.Book

    def spoil(**kwargs: Any) -> None:
        world.break_the_commit()

    post_save.connect(spoil, sender=Book)
    book = Book(title="a")
    with pytest.raises(IntegrityError):
        book.save()
    assert post_save.disconnect(spoil, sender=Book)
    assert (book.id, book._state.adding) == (None, True)
    assert world.titles() == []
    assert book.save().id


@memory
def test_an_error_of_a_listener_at_commit_is_a_rollback(databases: Any, Book: Any, titles: Any) -> None:
    """Whatever the error is, nothing was committed."""

    def fail(connection: Any) -> None:
        raise LookupError("no COMMIT")

    event.listen(databases.engine(), "commit", fail)
    book = Book(title="a")
    with pytest.raises(LookupError, match="no COMMIT"), databases.atomic():
        book.save()
    event.remove(databases.engine(), "commit", fail)
    assert (book.id, titles()) == (None, [])
    with databases.atomic():
        book.save()
    assert titles() == ["a"]


@memory
def test_an_interrupt_just_before_the_commit_rolls_back(databases: Any, Book: Any, titles: Any) -> None:
    """SQLite tells that the transaction is still open, so the instance is as it was, and the function does not run."""

    def interrupt(connection: Any) -> None:
        raise KeyboardInterrupt

    ran: list[int] = []
    connections: list[Any] = []
    event.listen(databases.engine(), "commit", interrupt)
    book = Book(title="a")
    with pytest.raises(KeyboardInterrupt), databases.atomic():
        connections += drivers(databases)
        databases.on_commit(lambda: ran.append(1))
        book.save()
    event.remove(databases.engine(), "commit", interrupt)
    assert (ran, book._state.adding, book.id) == ([], True, None)
    assert titles() == []
    with databases.atomic():
        Book(title="b").save()
    assert titles() == ["b"]


class Interrupting(sqlite3.Connection):
    """A connection that is interrupted when its COMMIT is done."""

    def commit(self) -> None:
        super().commit()
        raise KeyboardInterrupt


def test_an_interrupt_just_after_the_commit_changes_nothing(tmp_path: Path) -> None:
    """SQLite tells that the transaction has ended: the instance stays saved, and the functions run."""
    databases, ran = Databases(), list[int]()
    registry = Registry(databases)
    databases.configure(
        {
            "default": {
                "url": f"sqlite:///{tmp_path / 'a.db'}",
                "connect_args": {"factory": Interrupting},
            }
        }
    )

    class Note(Model, registry=registry):
        title: Field[str]

    with databases.connection() as connection:
        connection.exec_driver_sql("CREATE TABLE note (id INTEGER PRIMARY KEY, title TEXT NOT NULL)")
    note = Note(title="a")
    with pytest.raises(KeyboardInterrupt) as caught, databases.atomic():
        databases.on_commit(lambda: ran.append(1))
        databases.on_commit(lambda: ran.append(2))
        note.save()
    assert type(caught.value) is KeyboardInterrupt
    assert (ran, note._state.adding, note.id) == ([1, 2], False, 1)
    assert [each.title for each in Note.objects] == ["a"]
    assert unreturned(databases) == 0
    databases.close()


@memory
def test_a_connection_lost_at_commit_leaves_the_outcome_unknown(databases: Any, Book: Any) -> None:
    """Functions do not run; instances keep their saved state, so that the program can look for the rows."""
    ran: list[int] = []
    lost = OperationalError("COMMIT", None, OSError("gone"), connection_invalidated=True)

    def lose(connection: Any) -> None:
        raise lost

    event.listen(databases.engine(), "commit", lose)
    book = Book(title="a")
    with pytest.raises(CommitOutcomeUnknown) as caught, databases.atomic():
        databases.on_commit(lambda: ran.append(1))
        book.save()
    event.remove(databases.engine(), "commit", lose)
    assert str(caught.value) == "the connection to 'default' was lost while COMMIT ran"
    assert caught.value.__cause__ is lost
    assert (ran, book._state.adding) == ([], False)


@memory
def test_a_read_that_fails_dooms_the_block_too(databases: Any, Book: Any) -> None:
    """The error shows the statement."""
    with pytest.raises(TransactionError) as caught, databases.atomic():
        with databases.connection() as connection:
            connection.exec_driver_sql("DROP TABLE book")
        with pytest.raises(OperationalError, match="no such table: book") as lost:
            Book.objects.get(title="a")
    assert caught.value.__cause__ is lost.value
    assert lost.value.statement.startswith("SELECT book.id, book.title")
    assert lost.value.params[0] == "a"
    assert Book.objects.count() == 0


@memory
@ways
def test_a_connection_lost_in_an_inner_block_dooms_the_outer(
    databases: Any, Book: Any, listened: bool
) -> None:
    """Writes before the inner block are lost as well."""
    if listened:
        event.listen(databases.engine(), "before_cursor_execute", lambda *_: None)
    book = Book(title="a")
    with pytest.raises(TransactionError) as caught, databases.atomic():
        book.save()
        with pytest.raises(LookupError) as lost, databases.atomic():
            with databases.connection() as connection:
                connection.invalidate()
            raise LookupError
    assert caught.value.__cause__ is lost.value
    assert (book._state.adding, Book.objects.count()) == (True, 0)


@memory
def test_a_connection_is_watched_only_where_it_was_handed_out(databases: Any, Book: Any) -> None:
    """And once, however many of its blocks are doomed."""
    Book(title="a").save()

    def doom() -> None:
        with pytest.raises(TransactionError), databases.atomic(), contextlib.suppress(IntegrityError):
            Book(title="a").save()

    with databases.atomic():
        connection = next(open_scopes(databases)).transaction.connection
        doom()
        assert len(connection.dispatch.before_cursor_execute) == 0
        with databases.connection() as handed_out:
            assert handed_out is connection
        for _ in range(2):
            doom()
            assert len(connection.dispatch.before_cursor_execute) == 1


@memory
def test_a_rollback_that_fails_drops_the_connection(
    databases: Any, Book: Any, titles: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The error that caused it is raised; the instances are as before."""

    def fail(connection: Any) -> None:
        raise OSError("no ROLLBACK")

    caplog.set_level(logging.DEBUG, logger="microorm.transactions")
    event.listen(databases.engine(), "rollback", fail)
    book = Book(title="a")
    with pytest.raises(LookupError), databases.atomic():
        connections = list(drivers(databases))
        book.save()
        raise LookupError
    event.remove(databases.engine(), "rollback", fail)
    assert [each.getMessage() for each in caplog.records] == ["rollback on 'default' failed: no ROLLBACK"]
    assert (book.id, book._state.adding) == (None, True)
    assert next(drivers(databases)) is not connections[0]
    assert titles() == []
    with databases.atomic():
        book.save()
    assert titles() == ["a"]


@memory
@ways
def test_a_savepoint_that_the_database_has_forgotten_dooms_the_block_around(
    databases: Any, Book: Any, titles: Any, listened: bool
) -> None:
    """After some errors (deadlocks) a database rolls back the whole transaction; half of it is never committed."""
    if listened:
        event.listen(databases.engine(), "before_cursor_execute", lambda *_: None)
    with databases.connection("default") as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER wipe BEFORE INSERT ON book WHEN new.title = 'poison'"
            " BEGIN SELECT RAISE(ROLLBACK, 'all is lost'); END"
        )
    books = [Book(title=title) for title in ("a", "poison", "b")]
    with pytest.raises(TransactionError) as caught, databases.atomic():
        books[0].save()
        with pytest.raises(IntegrityError, match="all is lost") as lost, databases.atomic():
            books[1].save()
        with pytest.raises(TransactionError, match="^the block on 'default' is doomed by an earlier error"):
            books[2].save()
    assert caught.value.__cause__ is lost.value
    assert [(book.id, book._state.adding) for book in books] == [(None, True)] * 3
    assert titles() == []
    books[2].save()
    assert titles() == ["b"]


@memory
@ways
def test_a_savepoint_that_cannot_be_released_dooms_the_block_around(
    databases: Any, Book: Any, titles: Any, listened: bool
) -> None:
    """Its error leaves the inner block, and the outer one is rolled back; instances of both are as before."""
    if listened:
        event.listen(databases.engine(), "before_cursor_execute", lambda *_: None)
    first, second = Book(title="a"), Book(title="b")
    with pytest.raises(TransactionError) as caught, databases.atomic():
        first.save()
        with pytest.raises(OperationalError, match="no such savepoint") as lost, databases.atomic():
            second.save()
            (driver,) = drivers(databases)
            driver.rollback()
    assert caught.value.__cause__ is lost.value
    assert lost.value.statement == f"RELEASE SAVEPOINT {'sa_savepoint' if listened else 'microorm'}_1"
    assert [(book.id, book._state.adding) for book in (first, second)] == [(None, True)] * 2
    assert titles() == []
    with pytest.raises(TransactionError) as caught, databases.atomic():
        first.save()
        with pytest.raises(LookupError), databases.atomic():
            (driver,) = drivers(databases)
            driver.rollback()
            raise LookupError
    assert isinstance(caught.value.__cause__, OperationalError)
    assert first._state.adding


def test_an_error_on_the_connection_dooms_the_block(databases: Any, Book: Any, titles: Any) -> None:
    """The connection that was handed out then refuses statements. Outside a block it does not."""
    with databases.connection() as connection:
        with pytest.raises(DBAPIError):
            connection.exec_driver_sql("SELECT no_such_column FROM book")
    with pytest.raises(TransactionError) as caught, databases.atomic():
        Book(title="a").save()
        with databases.connection() as connection:
            connection.execute(Book.__table__.insert().values(title="b"))
            with pytest.raises(DBAPIError) as lost:
                connection.exec_driver_sql("SELECT no_such_column FROM book")
            with pytest.raises(TransactionError) as refused:
                connection.execute(Book.__table__.insert().values(title="c"))
    assert refused.value.__cause__ is lost.value
    assert str(refused.value) == f"the block on 'default' is doomed by an earlier error: {lost.value!r}"
    assert caught.value.__cause__ is lost.value
    assert titles() == []


def test_a_connection_goes_on_after_the_savepoint_of_its_error(
    databases: Any, Book: Any, titles: Any
) -> None:
    """The nested block is doomed, not the connection."""
    with databases.atomic():
        with databases.connection() as connection:
            for title in "ab":
                connection.execute(Book.__table__.insert().values(title=title))
                with pytest.raises(DBAPIError), databases.atomic():
                    connection.exec_driver_sql("SELECT no_such_column FROM book")
                with pytest.raises(TransactionError), databases.atomic():
                    with contextlib.suppress(DBAPIError):
                        connection.exec_driver_sql("SELECT no_such_column FROM book")
                    with pytest.raises(TransactionError):
                        connection.execute(Book.__table__.insert().values(title="lost"))
    assert titles() == ["a", "b"]


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
def test_a_connection_that_commits_by_itself_has_no_blocks(url: str) -> None:
    """An engine in AUTOCOMMIT could not roll back; single saves work."""
    if url.startswith("sqlite"):
        settings: Any = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=QueuePool, pool_size=1)
    else:
        settings = {"url": url, "isolation_level": "AUTOCOMMIT"}
    with Databases({"default": settings}) as databases:
        registry = Registry(databases)

        class Book(Model, registry=registry):
            title: Field[str] = field(max_length=40)

        registry.create_all()
        for _ in range(2):
            Book(title="a").save()
            with pytest.raises(ConfigurationError) as caught:
                databases.atomic().__enter__()
            assert str(caught.value) == (
                "the connections of 'default' are in autocommit mode, and a block needs a transaction"
            )
        assert Book.objects.count() == 2
        assert unreturned(databases) == 0
        engine = databases.engine()
    engine.dispose()


@memory
def test_a_driver_that_cannot_tell_whether_it_commits_is_trusted(url: str, monkeypatch: Any) -> None:
    """Not every driver reports it."""
    engine = create_engine(url, poolclass=QueuePool)

    def unknown(raw: Any) -> bool:
        raise NotImplementedError

    monkeypatch.setattr(engine.dialect, "detect_autocommit_setting", unknown)
    with Databases(engine) as databases, databases.atomic():
        assert innermost() is not None
    engine.dispose()


@pytest.mark.backends("sqlite-file")
@pytest.mark.parametrize("lost", [False, True])
def test_a_child_keeps_what_it_inherited_without_using_it(
    databases: Any, Book: Any, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    """If it was collected, it would be closed on the server. A lost one needs nothing."""
    inherited: list[Any] = []
    monkeypatch.setattr(transactions, "_inherited", inherited)
    monkeypatch.setattr(inherited_files, "_inherited_files", set())
    databases.atomic(readonly=True).__enter__()
    (opened,) = open_scopes(databases)
    connection = opened.transaction.connection
    if lost:
        connection.invalidate()
    opened.transaction.after_fork()
    opened.close()
    assert inherited == [(connection, None)]
    assert not connection.closed
    connection.close()
    if lost:
        Book(title="a").save()
        return
    with pytest.raises(
        TransactionError, match="^this process cannot use the file of 'default': it was forked"
    ):
        Book(title="a").save()


@memory
def test_what_has_no_connection_has_nothing_to_let_go_of(databases: Any, Book: Any) -> None:
    """In a forked child; a database in memory is a copy of the child, and is rolled back."""
    block = databases.atomic()
    block.__enter__()
    Book(title="a").save()
    (opened,) = open_scopes(databases)
    for _ in range(2):
        opened.transaction.after_fork()
    opened.close()
    assert Book.objects.count() == 0


@memory
def test_a_write_elsewhere_is_noted_once_per_transaction(
    databases: Any, Book: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """For each kind of write; not if a block is open on that alias, and not for a read."""
    text = (
        "a write to 'other' inside a block on 'default' is not part of the block: it is committed separately"
    )
    there = Book.objects.using("other")
    kept = Book(title="kept").save(using="other")

    def tell(**kwargs: Any) -> None: ...

    def noted() -> list[tuple[str, str, str]]:
        found = [(each.name, each.levelname, each.getMessage()) for each in caplog.records]
        caplog.clear()
        return found

    for write in (
        lambda: Book(title="a").save(using="other"),
        lambda: there.create(title="b"),
        lambda: there.bulk_create([Book(title="c"), Book(title="d")]),
        lambda: there.filter(title="a").update(title="e"),
        lambda: there.filter(title="e").delete(),
        lambda: kept.delete(),
    ):
        with databases.atomic():
            write()
            Book(title=f"again {id(write)}").save(using="other")
        assert noted() == [("microorm.transactions", "WARNING", text)]
    post_save.connect(tell, sender=Book)
    with databases.atomic():
        Book(title="f").save(using="other")
        Book(title="g").save(using="other")
    assert post_save.disconnect(tell, sender=Book)
    assert noted() == [("microorm.transactions", "WARNING", text)]
    with databases.atomic(), databases.atomic("other"):
        Book(title="h").save(using="other")
        Book(title="h").save()
    with databases.atomic():
        assert there.count() > 0
        assert there.get(title="h").title == "h"
    with databases.atomic("other"):
        Book(title="i").save(using="other")
    Book(title="j").save(using="other")
    assert noted() == []


@memory
def test_the_note_names_the_innermost_block(databases: Any, Book: Any, caplog: Any) -> None:
    """Of another alias than the one written to; once for each transaction."""
    with Databases({"a": "sqlite://", "b": "sqlite://", "c": "sqlite://"}) as three:
        registry = Registry(three)

        class Page(Model, registry=registry):
            pass

        registry.create_all()
        with three.atomic("a"):
            Page().save(using="c")
            with three.atomic("b"), three.atomic("b"):
                Page().save(using="c")
                Page().save(using="c")
            Page().save(using="c")
    assert [each.getMessage() for each in caplog.records] == [
        "a write to 'c' inside a block on 'a' is not part of the block: it is committed separately",
        "a write to 'c' inside a block on 'b' is not part of the block: it is committed separately",
    ]


@memory
def test_what_is_open_is_found_by_alias(databases: Any, Book: Any) -> None:
    """One transaction per alias, however deep its blocks are nested."""
    assert open_transaction(databases, "default") is None
    with databases.atomic():
        transaction = open_transaction(databases, "default")
        assert transaction is not None
        assert transaction.database.alias == "default"
        assert open_transaction(databases, "other") is None
        assert open_transaction(object(), "default") is None
        with databases.atomic(), databases.atomic("other"):
            assert open_transaction(databases, "default") is transaction
            assert [block.alias for block in transaction.blocks] == ["default", "default"]
            assert open_transaction(databases, "other") is not transaction
        assert databases.transaction(databases.database("default")) is transaction
        assert id(transaction) in forks._watched
    assert open_transaction(databases, "default") is None
    assert (transaction.cursor, transaction._connection) == (None, None)
    assert id(transaction) not in forks._watched


@memory
def test_what_is_put_off_waits_for_the_commit_or_for_the_receiver(databases: Any, Book: Any) -> None:
    """Without a block and a receiver, `postpone` returns False."""
    ran: list[str] = []

    def put_off(name: str, alias: str = "default") -> bool:
        return postpone(databases, alias, lambda: ran.append(name))

    assert put_off("never") is False
    with ReceiverScope(databases, "default"):
        assert put_off("after the receiver")
        assert put_off("never", "other") is False
        with databases.atomic():
            assert put_off("after the commit")
            assert ran == []
        assert ran == ["after the commit"]
    assert ran == ["after the commit", "after the receiver"]
    with databases.atomic("other"), ReceiverScope(databases, "default"):
        assert put_off("last")
        assert put_off("after all", "other")
    assert ran[2:] == ["last", "after all"]

    async def inherit() -> None:
        with pytest.raises(TransactionError, match="^the open block on 'default' belongs to another task$"):
            put_off("never")

    async def main() -> None:
        with databases.atomic():
            await asyncio.create_task(inherit())

    asyncio.run(main())


@memory
def test_a_transaction_that_nobody_ends_lets_go_of_its_connection(databases: Any, Book: Any) -> None:
    """When its context is collected, the pool takes the connection back and rolls it back."""
    block = databases.atomic()
    block.__enter__()
    Book(title="a").save()
    (opened,) = open_scopes(databases)
    dropped = weakref.ref(opened.transaction)
    opened.close()
    del block, opened
    gc.collect()
    assert dropped() is None
    assert Book.objects.count() == 0
    with databases.atomic():
        Book(title="b").save()
    assert Book.objects.count() == 1


@memory
@pytest.mark.parametrize("commits", [True, False])
def test_a_transaction_that_has_ended_is_freed_without_the_collector(
    databases: Any, Book: Any, commits: bool
) -> None:
    """A program with many small transactions would run the collector often."""

    def run(title: str) -> weakref.ref[Any]:
        with contextlib.suppress(LookupError), databases.atomic():
            Book(title=title).save()
            (opened,) = open_scopes(databases)
            ended = weakref.ref(opened.transaction)
            if not commits:
                raise LookupError
        return ended

    run("a")  # what is kept for later is made now
    gc.collect()
    gc.disable()
    try:
        assert run("b")() is None
    finally:
        gc.enable()


def test_a_statement_sees_what_the_block_did_before(databases: Any, Book: Any) -> None:
    """Models and the connection share one transaction, which is isolated from others."""
    with databases.atomic():
        Book(title="a").save()
        with databases.connection() as connection:
            connection.execute(Book.__table__.insert().values(title="b"))
            count = connection.execute(text("SELECT count(*) FROM book")).scalar_one()
        assert count == 2
        assert Book.objects.count() == 2
        with databases.connection() as again:
            assert again is connection
    assert Book.objects.count() == 2
