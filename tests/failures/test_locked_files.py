"""Locked files: another connection locks an SQLite file for longer than the timeout."""

import gc
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

import microorm
from microorm import TransactionError
from microorm.db.engines.pool import switch_readonly
from microorm.signals import post_save

pytestmark = pytest.mark.backends("sqlite-file")

LOCKED = r"^\(sqlite3\.OperationalError\) database is locked\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of the alias `default`."""
    return tmp_path / "held.db"


@pytest.fixture
def url(path: Path) -> str:
    """An empty file."""
    return f"sqlite:///{path}"


@pytest.fixture
def databases(url: str, on_its_way: Any) -> Iterator[microorm.Databases]:
    """The alias `default`, with a short timeout."""
    settings = {"url": url, "connect_args": {"timeout": 0.01}}
    with microorm.Databases({"default": settings}) as databases:
        yield on_its_way(databases)


@pytest.fixture
def held(path: Path) -> Callable[..., AbstractContextManager[None]]:
    """Return a context manager in which another connection locks the file by the given statements."""

    @contextmanager
    def held(*statements: str) -> Iterator[None]:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            for statement in statements:
                other.execute(statement).fetchall()
            yield

    return held


def test_a_locked_file_is_an_operational_error(
    databases: Any, Book: Any, held: Any, titles: Any, look: Any
) -> None:
    """For a single save and for a block that writes; reads succeed, and later the same save does."""
    kept, new = Book(title="kept").save(), Book(title="new")
    before = [look(kept), look(new)]
    kept.pages = 3
    with held("BEGIN IMMEDIATE"):
        for asked in (
            new.save,
            kept.save,
            kept.delete,
            lambda: Book.objects.filter(title="kept").update(pages=9),
            lambda: Book.objects.bulk_create([new]),
            databases.atomic().__enter__,
        ):
            with pytest.raises(OperationalError, match=LOCKED) as caught:
                asked()
            assert not caught.value.connection_invalidated
        assert Book.objects.get(title="kept").pages == 0
        with databases.atomic(readonly=True):
            assert Book.objects.count() == 1
        with pytest.raises(TransactionError), databases.atomic(readonly=True):
            new.save()
    assert kept.changes() == {"pages": (0, 3)}
    kept.pages = 0
    assert [look(kept), look(new)] == before
    new.save()
    kept.pages = 3
    with databases.atomic():
        kept.save()
    assert titles() == ["kept", "new"]
    assert [book.pages for book in Book.objects.order_by("id")] == [3, 0]


def test_a_locked_file_tells_no_receiver_and_runs_no_hook(
    databases: Any, Book: Any, held: Any, titles: Any, look: Any
) -> None:
    """The block of a save with receivers is never entered."""
    told: list[str] = []

    def tell(instance: Any, **kwargs: Any) -> None:
        told.append(instance.title)

    post_save.connect(tell, sender=Book)
    new = Book(title="new")
    before = look(new)
    with held("BEGIN IMMEDIATE"), pytest.raises(OperationalError, match=LOCKED):
        new.save()
    assert (told, look(new)) == ([], before)
    new.save()
    assert (told, titles()) == (["new"], ["new"])
    post_save.disconnect(tell, sender=Book)


def test_a_commit_that_finds_the_file_locked_has_failed_for_sure(
    url: str, path: Path, Book: Any, databases: Any, on_its_way: Any, held: Any, titles: Any, look: Any
) -> None:
    """Without WAL a reader blocks COMMIT: it is rolled back, and the error is raised unchanged."""
    Book(title="kept").save()
    databases.close()
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
    new, ran = Book(title="new"), []
    before = look(new)
    with held("BEGIN", "SELECT * FROM book"):
        databases.configure({"default": {"url": url, "connect_args": {"timeout": 0.01}}})
        on_its_way(databases)
        with pytest.raises(OperationalError, match=LOCKED), databases.atomic():
            databases.on_commit(lambda: ran.append("committed"))
            new.save()
        assert look(new) == before
        with pytest.raises(OperationalError, match=LOCKED):
            new.save()
        assert look(new) == before
    assert titles() == ["kept"]
    assert ran == []
    with databases.atomic():
        new.save()
    assert titles() == ["kept", "new"]


@pytest.mark.parametrize("way", ["driver", "listened"])
def test_a_file_that_is_held_at_the_first_connection_is_opened(
    url: str, path: Path, held: Any, on_its_way: Any
) -> None:
    """WAL cannot be set then, which is no error; a later connection sets it."""
    with held("CREATE TABLE t (x)", "BEGIN IMMEDIATE", "INSERT INTO t VALUES (1)"):
        settings = {"url": url, "connect_args": {"timeout": 0.01}}
        with microorm.Databases({"default": settings}) as databases:
            on_its_way(databases)
            with databases.connection() as connection:
                assert connection.exec_driver_sql("SELECT count(*) FROM t").scalar() == 0
                assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "delete"
                assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    with microorm.Databases(url) as databases, databases.connection() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_a_row_that_cannot_be_read_keeps_no_lock(backend: str, databases: Any, Book: Any, held: Any) -> None:
    """Outside a block and inside, although the error is kept, with its traceback."""
    Book(title="first").save()
    with databases.connection() as connection:
        connection.exec_driver_sql("INSERT INTO book (title, pages) VALUES (CAST(x'ff' AS TEXT), 0)")
        connection.exec_driver_sql("INSERT INTO book (title, pages) VALUES ('last', 0)")
    with pytest.raises(OperationalError, match="UTF-8") as outside:
        Book.objects.all()
    with pytest.raises(OperationalError, match="UTF-8") as inside, databases.atomic():
        Book.objects.all()
    with held("BEGIN IMMEDIATE", "DELETE FROM book WHERE title = 'last'", "COMMIT", "VACUUM"):
        pass
    assert Book(title="next").save().id
    assert outside.value.orig is not inside.value.orig


def test_a_read_only_block_that_is_dropped_leaves_its_connection_writable(
    databases: Any, Book: Any, titles: Any
) -> None:
    """As where its thread has died: the connection returns to the pool by the collector."""
    raw = databases.engine().connect()
    switch_readonly(raw)
    del raw
    gc.collect()
    for number in range(3):
        with databases.atomic():
            Book(title=f"{number}").save()
    assert titles() == ["0", "1", "2"]
