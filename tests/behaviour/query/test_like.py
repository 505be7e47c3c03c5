"""Searching in texts: what is searched for is found as it is, on every database."""

from typing import Any

import pytest
from sqlalchemy import String, func, not_

from microorm import Field, field
from tests.behaviour.wire import ONE_WAY

TEXTS = ("a%b", "a_b", "a\\b", "a/b", "axb", "a\\", "%", "_", "\\", "/", "\\%", "'\"", "")


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
    columns = (Word.text, Word.own, Word.long, Word.extra["t"].as_string(), func.coalesce(Word.text, ""))
    for wanted in TEXTS:
        for column in columns:
            for condition, holds in (
                (column.contains(wanted), str.__contains__),
                (column.startswith(wanted), str.startswith),
                (column.endswith(wanted), str.endswith),
                (column.icontains(wanted), str.__contains__),
                (column.contains(wanted, autoescape=True), str.__contains__),
            ):
                right = [text for text in TEXTS if holds(text, wanted)]
                found = Word.objects.order_by("id")
                assert found.filter(condition).scalars("text") == right, (wanted, str(condition))
                others = [text for text in TEXTS if not holds(text, wanted)]
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
