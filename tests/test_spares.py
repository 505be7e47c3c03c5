"""Spares: what is kept between two statements, and what is not."""

import threading
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import NullPool

from microorm import Databases, Field, Model, Registry, field
from microorm.spares import MOST


def world(url: Any) -> tuple[Databases, type[Any]]:
    databases = Databases({"default": url})
    registry = Registry(databases)

    class Note(Model, registry=registry):
        text: Field[str] = field(max_length=20, unique=True)

    registry.create_all()
    return databases, Note


def checked_out(databases: Databases) -> int:
    pool: Any = databases.engine().pool
    return int(pool.checkedout())


def test_the_next_lone_statement_uses_the_connection_of_the_last(sqlite_url: str) -> None:
    databases, note = world(sqlite_url)
    with databases:
        note(text="a").save()
        assert checked_out(databases) == 1
        first = databases.database("default").spares.take()
        assert first is not None
        assert databases.database("default").spares.keep(*first)
        assert note.objects.get(text="a").text == "a"
        again = databases.database("default").spares.take()
        assert again is not None
        assert again[0] is first[0]
        again[0].close()


def test_a_block_never_waits_for_a_spare(sqlite_url: str) -> None:
    """A pool that has no more connections than spares keeps none of them."""
    databases, note = world({"url": sqlite_url, "pool_size": MOST, "max_overflow": 0, "pool_timeout": 0.1})
    with databases:
        note(text="a").save()
        assert checked_out(databases) == 0
        with databases.atomic():
            note(text="b").save()
        assert note.objects.count() == 2


def test_a_pool_that_keeps_nothing_keeps_no_spares(tmp_path: Any) -> None:
    databases, note = world({"url": f"sqlite:///{tmp_path / 'a.db'}", "poolclass": NullPool})
    with databases:
        note(text="a").save()
        assert databases.database("default").spares.take() is None


def test_a_statement_that_failed_leaves_no_spare(sqlite_url: str) -> None:
    databases, note = world(sqlite_url)
    with databases:
        note(text="a").save()
        with pytest.raises(IntegrityError):
            note(text="a").save()
        assert checked_out(databases) == 0
        assert [each.text for each in note.objects.all()] == ["a"]


def test_threads_do_not_share_a_spare(sqlite_url: str) -> None:
    """More threads than spares, each reading and writing by itself; no row is lost, and few connections stay."""
    databases, note = world(sqlite_url)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(20):
                made = note(text=f"{number}-{turn}").save()
                assert note.objects.get(id=made.id).text == f"{number}-{turn}"
        except BaseException as error:  # noqa: BLE001 the test shows it
            failures.append(error)

    with databases:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert note.objects.count() == 120
        assert checked_out(databases) <= MOST


def test_closing_gives_the_spares_back(sqlite_url: str) -> None:
    databases, note = world(sqlite_url)
    note(text="a").save()
    database, pool = databases.database("default"), databases.engine().pool
    databases.close()
    assert database.spares.take() is None
    assert pool.checkedout() == 0  # type: ignore[attr-defined]
    spare = (object(), object())
    assert not database.spares.keep(*spare)  # type: ignore[arg-type]


def test_a_child_process_forgets_its_parents_spares(sqlite_url: str) -> None:
    databases, note = world(sqlite_url)
    with databases:
        note(text="a").save()
        spares = databases.database("default").spares
        spare = spares.take()
        assert spare is not None
        assert spares.keep(*spare)
        spares.abandon()
        assert spares.take() is None
        spare[0].close()
