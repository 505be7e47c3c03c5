"""Searching in texts: what is searched for is found as it is, on every database."""

from typing import Any

import pytest
from sqlalchemy import String, func, not_

from microorm import Field, field
from tests.behaviour.wire import ONE_WAY

TEXTS = ("a%b", "a_b", "a\\b", "a/b", "axb", "a\\", "%", "_", "\\", "/", "\\%", "'\"", "")


HOLDS = (str.__contains__, str.__contains__, str.__contains__, str.startswith, str.endswith)


@pytest.fixture
def Word(Base: Any, registry: Any) -> Any:
    class Word(Base):
        text: Field[str] = field(max_length=9)
        own: Field[str] = field(type_=String(9))
        long: Field[str]
        extra: Field[dict[str, Any]]

    registry.create_all("default")
    Word.objects.bulk_create([Word(text=text, own=text, long=text, extra={"t": text}) for text in TEXTS])
    return Word


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
@ONE_WAY
def test_a_text_is_searched_for_as_it_is(Word):
    """Each text in each kind of column by each method, each of which is a column of one SELECT; and some as conditions."""
    columns = (Word.text, Word.own, Word.long, Word.extra["t"].as_string(), func.coalesce(Word.text, ""))
    found = Word.objects.order_by("id")
    for place, wanted in enumerate(TEXTS):
        searched = [
            condition
            for column in columns
            for condition in (
                column.contains(wanted),
                column.icontains(wanted),
                column.contains(wanted, autoescape=True),
                column.startswith(wanted),
                column.endswith(wanted),
            )
        ]
        right = [[holds(text, wanted) for holds in HOLDS] * len(columns) for text in TEXTS]
        selected = [each.label(f"c{number}") for number, each in enumerate(searched)]
        assert [[bool(each) for each in row] for row in found.values(*selected)] == right, wanted
        for number in range(place % 5, len(searched), 5):
            condition, holds = searched[number], HOLDS[number % 5]
            others = [text for text in TEXTS if not holds(text, wanted)]
            assert found.filter(condition).scalars("text") == [text for text in TEXTS if text not in others]
            assert found.filter(not_(condition)).scalars("text") == others
            assert found.exclude(condition).scalars("text") == others


def test_the_text_of_another_column_is_searched_for_as_it_is(Word):
    assert Word.objects.filter(Word.text.contains(Word.own)).count() == len(TEXTS)
    assert Word.objects.filter(Word.text.startswith(Word.long), Word.text != Word.own).count() == 0
    Word.objects.update(long="_")
    assert Word.objects.order_by("id").filter(Word.text.contains(Word.long)).scalars("text") == ["a_b", "_"]


def test_a_pattern_has_the_wildcards_of_like_and_the_backslash(Word):
    found = Word.objects.order_by("id")
    for pattern, right in (
        ("a_b", ["a%b", "a_b", "a\\b", "a/b", "axb"]),
        (r"a\_b", ["a_b"]),
        (r"a\\%", ["a\\b", "a\\"]),
        (r"\%", ["%"]),
        (r"\\\%", ["\\%"]),
        ("a/b", ["a/b"]),
    ):
        assert found.filter(Word.text.like(pattern)).scalars("text") == right, pattern
        assert found.filter(Word.text.ilike(pattern)).scalars("text") == right, pattern
        assert found.filter(Word.text.not_like(pattern)).count() == len(TEXTS) - len(right)
    assert found.filter(Word.text.like("a!_b", escape="!")).scalars("text") == ["a_b"]
    assert found.filter(Word.text.contains("!_", escape="!")).scalars("text") == ["a_b", "_"]


@pytest.mark.backends("sqlite-memory")
def test_a_pattern_that_ends_within_an_escape_is_refused(Word):
    for pattern in ("\\", "a\\\\\\"):
        with pytest.raises(ValueError, match="ends in a backslash"):
            Word.text.like(pattern)
    assert Word.text.like("a\\\\") is not None
