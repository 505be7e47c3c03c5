"""Indexes with a descending column are compared, created and dropped like others."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Index, desc

from microorm import Databases, Field, field
from tests.migrations.shop import define, execute, history, migrated, new_base

ALL = pytest.mark.backends("sqlite-file", "postgresql", "mariadb")


def books(databases: Databases, *order: Any, **options: Any) -> Any:
    base = new_base(databases)
    index = Index("newest", *order, **options)
    fields = {"title": (Field[str], field(max_length=9)), "year": Field[int]}
    define(base, "Book", fields, table_args=(index,) if order else ())
    return base


@ALL
def test_a_descending_index_is_found_once(database: Databases, folder: Path) -> None:
    plain = books(database)
    migrated(plain, folder, "first")
    sorted_ = migrated(books(database, desc("year"), "title"), folder, "sorted")
    assert sorted_.check() == []
    other = history(books(database, desc("year"), desc("title"), unique=True), folder)
    assert {each.text for each in other.check()} >= {
        "the index 'newest' of 'book' is missing"
    } or other.check()
    assert other.make("other") is not None
    other.migrate()
    assert other.check() == []
    other.migrate("0002")
    assert sorted_.compare() == []
    other.migrate("0001")
    assert history(plain, folder).compare() == []
    other.migrate()
    gone = migrated(books(database), folder, "gone")
    assert gone.check() == []
    gone.migrate("0003")
    assert other.compare() == []
    execute(database, "INSERT INTO book (title, year) VALUES ('Dune', 1965)")


@ALL
def test_a_new_table_may_have_a_descending_index(database: Databases, folder: Path) -> None:
    migrations = migrated(books(database, desc("year")), folder, "first")
    assert migrations.check() == []
    migrations.migrate("base")
