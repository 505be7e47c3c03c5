"""How many rows go over at once."""

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from microorm import Field, Model, field
from microorm.sql.batches import MAX_BYTES, MAX_ROWS, batches, max_rows


@pytest.fixture
def channel(databases):
    """The open transaction of `default`."""
    database = databases.database("default")
    with databases.atomic(), databases.channel(database, writes=True) as channel:
        yield channel


def sizes(channel: Any, rows: list[Any], asked: int | None = None) -> list[int]:
    """How many of *rows* go together; all of them do, in order."""
    parts = [list(part) for part in batches(channel, rows, lambda row: row, asked)]
    assert [row for part in parts for row in part] == rows
    return [len(part) for part in parts]


def test_a_batch_is_no_larger_than_it_was_asked_to_be(channel):
    rows = [(number, "x") for number in range(10)]
    assert sizes(channel, rows, 4) == [4, 4, 2]
    assert sizes(channel, rows, 10) == sizes(channel, rows) == [10]
    assert sizes(channel, [], 4) == []
    assert max_rows(channel, 1, MAX_ROWS * 9) == MAX_ROWS


@pytest.mark.sync_only("the driver for asyncio cannot lower the limit of a connection")
def test_a_batch_has_no_more_parameters_than_the_database_takes(channel, backend):
    """SQLite says how many, PostgreSQL counts in 16 bits, MariaDB does not count them."""
    most = {"postgresql": 65_535, "mariadb": MAX_ROWS * 40}.get(backend)
    if most is None:
        driver = channel.connection.connection.dbapi_connection
        most = driver.getlimit(9)
        assert max_rows(channel, 40) == min(MAX_ROWS, most // 40)
        driver.setlimit(9, 100)
        try:
            assert max_rows(channel, 40) == 2
            assert sizes(channel, [tuple(range(40))] * 5) == [2, 2, 1]
            assert max_rows(channel, 101) == 1
        finally:
            driver.setlimit(9, most)
    assert max_rows(channel, 40) == min(MAX_ROWS, most // 40)


@pytest.mark.backends("sqlite-file", "sqlite-memory")
def test_a_batch_has_no_more_parameters_than_the_library_of_sqlite_takes(channel):
    with closing(sqlite3.connect(":memory:")) as connection:
        most = connection.getlimit(9)
    assert max_rows(channel, 40) == min(MAX_ROWS, most // 40)


@pytest.mark.backends("mariadb")
def test_a_batch_fits_into_a_packet_of_mariadb(channel):
    """By the length of its values; a row that is longer goes alone."""
    third = "x" * (MAX_BYTES // 3 - 10)
    assert sizes(channel, [(number, third) for number in range(7)]) == [3, 3, 1]
    assert sizes(channel, [(1, b"x"), (2, b"x" * MAX_BYTES), (3, b"x")]) == [1, 1, 1]
    assert sizes(channel, [({"long": third},), ({"long": third},)] * 2) == [2, 2]


@pytest.mark.parametrize("write", ["bulk_create", "upsert", "bulk_update"])
@pytest.mark.parametrize("way", ["driver"])  # many bytes, which take time
def test_many_wide_rows_are_written_whatever_the_limits(Base, registry, backend, stored, write):
    """To MariaDB more bytes than its packet takes; no batch size has to be given."""
    number, length = (300, 60_000) if backend == "mariadb" else (1_100, 400)

    class Wide(Base):
        name: Field[str] = field(max_length=9, unique=True)
        text: Field[str]
        rank: Field[int] = field(server_default="7")

    registry.create_all("default")
    rows = [Wide(name=f"n{number}", text="x" * length) for number in range(number)]
    Wide.objects.bulk_create(rows, on_conflict="update" if write == "upsert" else None)
    if write == "bulk_update":
        for row in rows:
            row.text = "y" + row.name
        assert Wide.objects.bulk_update(rows, ["text"]) == number
    assert stored(Wide, "id", "name") == [(row.id, row.name) for row in rows]
    assert stored(Wide, "text") == [row.text for row in rows]
    assert {row.rank for row in rows} == {7}


@pytest.mark.backends("sqlite-memory")
@pytest.mark.sync_only("the driver for asyncio cannot lower the limit of a connection")
def test_a_library_of_sqlite_that_takes_fewer_is_asked(registry, databases, stored):
    """The limit is the connection's; older libraries take 999."""

    class Tag(Model, registry=registry):
        name: Field[str] = field(max_length=9, unique=True)

    registry.create_all("default")
    tags = [Tag(name=f"n{number}") for number in range(500)]
    with databases.atomic(), databases.connection() as connection:
        driver: Any = connection.connection.dbapi_connection
        assert isinstance(driver, sqlite3.Connection)
        before = driver.setlimit(9, 99)
        try:
            Tag.objects.bulk_create(tags[:300])
            Tag.objects.bulk_create(tags, on_conflict="update", batch_size=400)
            Tag.objects.bulk_update(tags, ["name"])
        finally:
            driver.setlimit(9, before)
    assert sorted(stored(Tag)) == sorted((tag.id, tag.name) for tag in tags)
