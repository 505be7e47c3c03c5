"""`explain()`: what the databases say, and what can be asked."""

import json
from typing import Any

import pytest
from sqlalchemy import func

from microorm.query.values import explanation_verb

MEMORY = pytest.mark.backends("sqlite-memory")


def test_each_database_tells_how_it_finds_the_rows(Book, shelf, databases, wire):
    """In its own words, and of this very query; one statement."""
    with wire.record() as rows, wire.everything() as sent:
        told = Book.objects.filter(id=3).explain()
    assert rows == []
    assert len([each for each in sent if each.startswith("EXPLAIN")]) == 1
    dialect = databases.database("default").dialect
    expected = {"sqlite": "SEARCH book USING INTEGER PRIMARY KEY", "postgresql": "Index Scan using pk_book"}
    assert expected.get(dialect, "PRIMARY") in told
    assert type(Book.objects.filter(Book.price > 2)[1:2].explain()) is str
    assert type(Book.objects.filter(Book.id.in_([1, 2]), Book.tags.is_not(None)).distinct().explain()) is str
    with databases.atomic(readonly=True):
        assert "book" in Book.objects.order_by(func.lower(Book.title)).explain()


@pytest.mark.backends("postgresql")
def test_postgresql_knows_all_options(Book, shelf):
    """One plan in each format."""
    assert "actual" in shelf.explain(analyze=True)
    assert "Output:" in shelf.explain(verbose=True, format="text")
    assert json.loads(shelf.explain(format="json"))[0]["Plan"]
    assert json.loads(shelf.explain(format="json", analyze=True, verbose=True))[0]["Plan"]["Actual Rows"] == 5
    assert shelf.explain(format="xml").startswith("<explain")
    assert shelf.explain(format="yaml").startswith("- Plan:")


@pytest.mark.backends("mariadb")
def test_mariadb_knows_json_and_analyze(Book, shelf):
    """A table as lines with a heading."""
    heading, row = shelf.explain(format="text").splitlines()
    assert heading.startswith("id | select_type | table")
    assert "book" in row
    assert json.loads(shelf.explain(format="json"))["query_block"]
    assert "r_rows" in shelf.explain(analyze=True)
    assert "r_total_time_ms" in shelf.explain(analyze=True, format="json")


def test_values_are_bound(Book, shelf, wire):
    """No text of a value is part of what is explained, on no database."""
    with wire.everything() as sent:
        Book.objects.filter(Book.title == "'; DROP TABLE book; --", Book.pages.in_([12345, 2])).explain()
    assert not [each for each in sent if "DROP" in each or "12345" in each]
    assert shelf.count() == 5


def test_an_unknown_option_is_an_error_and_nothing_is_sent(Book, shelf, databases, wire):
    """Only what is on the list becomes SQL."""
    with wire.everything() as sent:
        for option in ("JSON", "json) SELECT 1; --", "", "tree", 3, True, ["json"]):
            with pytest.raises(ValueError, match=r"^explain\(\): \w+ has no format="):
                Book.objects.explain(format=option)
        if databases.database("default").dialect == "sqlite":
            for options in ({"analyze": True}, {"verbose": True}):
                with pytest.raises(ValueError, match=r"^explain\(\): sqlite has no "):
                    Book.objects.explain(**options)
        with pytest.raises(TypeError, match=r"^explain\(\) needs rows"):
            Book.objects.group_by("pages").explain()
    assert sent == []


@pytest.mark.parametrize(
    ("dialect", "options", "verb"),
    [
        ("sqlite", {}, "EXPLAIN QUERY PLAN"),
        ("postgresql", {}, "EXPLAIN"),
        ("postgresql", {"analyze": True, "format": "json"}, "EXPLAIN (ANALYZE, FORMAT JSON)"),
        ("postgresql", {"verbose": True}, "EXPLAIN (VERBOSE)"),
        ("mariadb", {"analyze": True}, "ANALYZE"),
        ("mysql", {"format": "json"}, "EXPLAIN FORMAT=JSON"),
    ],
)
@MEMORY
def test_the_words_of_each_database(dialect: str, options: Any, verb: str) -> None:
    """They come from a list."""
    asked = {"analyze": False, "verbose": False, "format": None, **options}
    assert explanation_verb(dialect, **asked) == verb
