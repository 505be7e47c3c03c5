"""Interrupts: Ctrl-C in an open block, during a statement, or at the end of a block."""

import gc
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pymysql.cursors
import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

import microorm
from microorm import TransactionError
from microorm.signals import post_save, pre_save


class Interrupting:
    """Raise `KeyboardInterrupt` once, after the server has got the next statement with the given beginning."""

    def __init__(self) -> None:
        self._at: str | None = None

    def at(self, beginning: str) -> None:
        """Interrupt the next statement with this *beginning*."""
        self._at = beginning

    def heard(self, statement: Any) -> None:
        """Called by the cursors after each statement."""
        if self._at is not None and str(statement).startswith(self._at):
            self._at = None
            raise KeyboardInterrupt

    def attach(self, engine: Any) -> None:
        """Use interruptible cursors in all new connections of *engine*."""
        interrupting = self

        class Interrupted:
            def execute(self, statement: Any, *args: Any, **options: Any) -> Any:
                done = super().execute(statement, *args, **options)  # type: ignore[misc]
                interrupting.heard(statement)
                return done

        class SQLite(Interrupted, sqlite3.Cursor):
            pass

        class Psycopg(Interrupted, psycopg.Cursor[Any]):
            pass

        class PyMySQL(Interrupted, pymysql.cursors.Cursor):
            pass

        class Connection(sqlite3.Connection):
            def cursor(self, factory: Any = SQLite) -> Any:
                return super().cursor(factory)

        if engine.dialect.name == "sqlite":
            event.listen(engine, "do_connect", lambda d, r, args, options: options.update(factory=Connection))
        elif engine.dialect.name == "postgresql":
            event.listen(engine, "connect", lambda raw, _: setattr(raw, "cursor_factory", Psycopg))
        else:
            event.listen(engine, "connect", lambda raw, _: setattr(raw, "cursorclass", PyMySQL))


@pytest.fixture
def interrupt() -> Interrupting:
    """The object that interrupts the statements of the alias `default`."""
    return Interrupting()


@pytest.fixture
def databases(url: str, on_its_way: Any, interrupt: Interrupting) -> Iterator[microorm.Databases]:
    """The alias `default`, whose statements can be interrupted."""
    with microorm.Databases(url) as databases:
        interrupt.attach(databases.engine())
        yield on_its_way(databases)


@pytest.fixture
def closed(databases: microorm.Databases) -> Iterator[list[Any]]:
    """The connections that were invalidated."""
    closed: list[Any] = []
    event.listen(databases.engine(), "invalidate", lambda raw, *_: closed.append(raw))
    return closed


def works(databases: Any, Book: Any, titles: Callable[[], list[str]]) -> bool:
    """Check that later work succeeds, and that one connection at most is still in use."""
    before = titles()
    lone = Book(title="later").save()
    with databases.atomic():
        inside = Book(title="later still").save()
        with databases.atomic():
            inside.pages = 5
            inside.save()
    stored = titles() == sorted([*before, "later", "later still"])
    lone.delete()
    inside.delete()
    return stored and titles() == before and databases.engine().pool.checkedout() <= 1


def test_an_interrupt_in_a_block_undoes_it(
    databases: Any, Book: Any, titles: Any, look: Any, closed: Any
) -> None:
    """As any exception; the connection stays usable."""
    new, inner, ran = Book(title="new"), Book(title="inner"), []
    before = [look(new), look(inner)]
    with pytest.raises(KeyboardInterrupt), databases.atomic():
        databases.on_commit(lambda: ran.append("committed"))
        new.save()
        with databases.atomic():
            inner.save()
            raise KeyboardInterrupt
    assert [look(new), look(inner)] == before
    assert (titles(), ran, closed) == ([], [], [])
    assert works(databases, Book, titles)


@pytest.mark.parametrize("nested", [False, True])
def test_an_interrupted_statement_undoes_the_block(
    databases: Any, Book: Any, interrupt: Any, titles: Any, look: Any, closed: Any, nested: bool
) -> None:
    """The state of the connection is unknown, so it is closed; further statements are refused."""
    Book(title="kept").save()
    new, lost = Book(title="new"), Book(title="lost")
    before = [look(new), look(lost)]
    with pytest.raises(TransactionError) as caught, databases.atomic():
        new.save()
        interrupt.at("INSERT")
        with pytest.raises(KeyboardInterrupt) as interrupted:
            if nested:
                with databases.atomic():
                    lost.save()
            else:
                lost.save()
        with pytest.raises(
            TransactionError, match="^the block on 'default' is doomed by an earlier error: K"
        ):
            Book.objects.count()
    assert caught.value.__cause__ is interrupted.value
    assert [look(new), look(lost)] == before
    assert len(closed) == 1
    assert titles() == ["kept"]
    assert works(databases, Book, titles)


def test_an_interrupt_goes_through_all_blocks(
    databases: Any, Book: Any, interrupt: Any, titles: Any, look: Any, closed: Any
) -> None:
    """It is raised unchanged."""
    new, lost = Book(title="new"), Book(title="lost")
    before = [look(new), look(lost)]
    with pytest.raises(KeyboardInterrupt), databases.atomic():
        new.save()
        with databases.atomic(), databases.atomic(savepoint=False):
            interrupt.at("INSERT")
            lost.save()
    assert [look(new), look(lost)] == before
    assert (titles(), len(closed)) == ([], 1)
    assert works(databases, Book, titles)


def test_an_interrupted_lone_statement(
    databases: Any, Book: Any, interrupt: Any, titles: Any, look: Any, closed: Any
) -> None:
    """Its connection is closed, and the instance is as it was."""
    book = Book(title="kept").save()
    before = look(book)
    interrupt.at("SELECT")
    with pytest.raises(KeyboardInterrupt):
        Book.objects.get(title="kept")
    assert len(closed) == 1
    gc.collect()  # the traceback refers to the cursor, which locks a database in memory
    interrupt.at("UPDATE")
    book.pages = 7
    with pytest.raises(KeyboardInterrupt):
        book.save()
    assert book.changes() == {"pages": (0, 7)}
    book.pages = 0
    assert look(book) == before
    assert len(closed) == 2
    assert titles() == ["kept"]
    assert works(databases, Book, titles)


def test_an_interrupted_savepoint_undoes_all(
    databases: Any, Book: Any, interrupt: Any, titles: Any, look: Any
) -> None:
    """While it is set, released or rolled back; both blocks end, and the connection is closed."""
    new, lost = Book(title="new"), Book(title="lost")
    before = [look(new), look(lost)]
    for verb in ("SAVEPOINT", "RELEASE SAVEPOINT", "ROLLBACK TO SAVEPOINT"):
        with pytest.raises(KeyboardInterrupt), databases.atomic():
            new.save()
            interrupt.at(verb)
            with databases.atomic():
                lost.save()
                if verb.startswith("ROLLBACK"):
                    raise LookupError("mine")
        assert [look(new), look(lost)] == before
        assert titles() == []
    assert works(databases, Book, titles)


@pytest.mark.parametrize("signal", [pre_save, post_save])
def test_an_interrupted_receiver_undoes_the_save(
    databases: Any, Book: Any, titles: Any, look: Any, closed: Any, signal: Any
) -> None:
    """Outside and inside a block; the connection stays usable."""
    new, told = Book(title="new"), []
    before = look(new)

    def tell(instance: Any, **kwargs: Any) -> None:
        told.append(instance.title)
        if instance is new:
            raise KeyboardInterrupt

    signal.connect(tell, sender=Book)
    with pytest.raises(KeyboardInterrupt):
        new.save()
    assert (look(new), titles()) == (before, [])
    with pytest.raises(KeyboardInterrupt), databases.atomic():
        Book(title="other").save()
        new.save()
    assert (look(new), titles(), closed) == (before, [], [])
    assert told == ["new", "other", "new"]
    signal.disconnect(tell, sender=Book)
    new.save()
    assert titles() == ["new"]
    assert works(databases, Book, titles)


@pytest.mark.backends("sqlite-file", "sqlite-memory")
def test_a_statement_stopped_from_outside_is_an_operational_error(
    databases: Any, Book: Any, titles: Any, look: Any
) -> None:
    """An interrupt of SQLite, by a progress handler, dooms the block like any error."""
    new = Book(title="new")
    before = look(new)
    with pytest.raises(TransactionError) as caught, databases.atomic():
        new.save()
        with databases.connection() as connection:
            raw = connection.connection.dbapi_connection
            raw.set_progress_handler(lambda: 1, 1)
        with pytest.raises(
            OperationalError, match=r"^\(sqlite3\.OperationalError\) interrupted\n"
        ) as stopped:
            Book(title="lost").save()
        raw.set_progress_handler(None, 1)
    assert caught.value.__cause__ is stopped.value
    assert (look(new), titles()) == (before, [])
    assert works(databases, Book, titles)
