"""Values inside JSON, reached by keys that are bound: in conditions, order and columns, on every database."""

from typing import Any

import pytest
from sqlalchemy import func
from sqlalchemy.exc import StatementError

from microorm import Field, FieldError, field

MEMORY = pytest.mark.backends("sqlite-memory")
HOSTILE = (
    "a'b",
    "a.b",
    "a\\b",
    "a\\\\",
    "$",
    "$.a",
    "",
    " ",
    "é",
    "中\U0001f600",
    "[0]",
    "a]b",
    "*",
    "%s",
    "%(x)s",
    ":x",
    "?",
    "a/b",
    "a,b",
    "{a}",
    "a\nb\t\x01\x7f",
    "'; DROP TABLE note; --",
    "\\u0061",
    "NULL",
    "0",
    "x" * 200,
)
ODD = ("-1", "-", "--x", 'a"b', 'x"."y', '"', '\\"', '"a"')


@pytest.fixture
def Note(Base: Any, registry: Any) -> Any:
    class Note(Base):
        extra: Field[dict[str, Any]] = field(default_factory=dict)
        words: Field[list[Any] | None] = field(default=None)

    registry.create_all("default")
    return Note


def test_values_are_reached_by_key_and_place(Note):
    """One in the other, by one key after the other or by several at once; as a text, a number or a flag."""
    inner = {"b": "deep", "n": 7, "f": 1.5, "yes": True, "no": None, "list": [1, "two", {"three": 3}]}
    one = Note(extra={"a": inner}, words=["x", "y"]).save()
    Note(extra={"a": "flat"}).save()
    Note(extra={}).save()
    extra, found = Note.extra, Note.objects
    assert found.filter(extra["a"]["b"].as_string() == "deep").all() == [one]
    assert found.filter(extra["a", "b"].as_string() == "deep").all() == [one]
    assert found.filter(extra["a"]["n"].as_integer() > 6).all() == [one]
    assert found.filter(extra["a"]["f"].as_float() < 2).all() == [one]
    assert found.filter(extra["a"]["yes"].as_boolean()).all() == [one]
    assert found.filter(extra["a"]["list"][1].as_string() == "two").all() == [one]
    assert found.filter(extra["a", "list", 2, "three"].as_integer() == 3).all() == [one]
    assert found.filter(Note.words[1].as_string() == "y").get() == one
    assert found.filter(extra["a"].as_string() == "flat").count() == 1
    assert found.filter(extra["a"]["b"].as_string().is_(None)).count() == 2
    assert found.exclude(extra["a"]["b"].as_string() == "deep").count() == 2
    assert found.filter(extra["z"]["z"][3]["z"].as_string().is_(None)).count() == 3
    by_n = found.order_by(extra["a"]["n"].as_integer(), "id")
    assert one in (by_n.first(), by_n.last())
    assert found.order_by("id").scalars(extra["a"]["b"].as_string()) == ["deep", None, None]
    assert found.order_by("id").scalars(extra["a"]) == [inner, "flat", None]
    assert found.filter(words=["x", "y"]).scalars(Note.words[0]) == ["x"]
    assert found.aggregate(n=func.sum(extra["a"]["n"].as_integer())).n == 7
    number = extra["a"]["n"].as_integer().label("number")
    groups = found.group_by(number).values(number, func.count())
    assert {row.number: row[1] for row in groups} == {7: 1, None: 2}
    assert found.filter(extra["a"]["n"].as_integer() == 7).update(words=[]) == 1


def test_a_key_is_only_a_key(Note, wire, subtests):
    """Whatever is in it: it finds its value and no other, and is bound."""
    for key in HOSTILE:
        with subtests.test(key=key):
            Note.objects.delete()
            check_key(Note, wire, key)


def check_key(Note: Any, wire: Any, key: str) -> None:
    note = Note(extra={key: "here", "a": {"b": "there"}, "x": {"y": "there"}}).save()
    with wire.record() as sent:
        assert Note.objects.scalars(Note.extra[key].as_string()) == ["here"]
        assert Note.objects.filter(Note.extra[key].as_string() == "here").all() == [note]
        assert Note.objects.filter(Note.extra[key + "!"].as_string() == "here").all() == []
        assert Note.objects.scalars(Note.extra[key, "deeper"].as_string()) == [None]
    assert not [text for text in sent if len(key) > 2 and key != "NULL" and key in text]
    note.extra = {"outer": {key: ["in"]}}
    note.save()
    assert Note.objects.scalars(Note.extra["outer"][key][0].as_string()) == ["in"]
    assert Note.objects.scalars(Note.extra["outer", key, 0].as_string()) == ["in"]


def test_a_key_that_a_database_has_no_path_to_is_refused(Note, databases, subtests):
    """SQLite for one with a double quote, MariaDB for one that begins with a minus: never another's value, nor none."""
    for key in ODD:
        with subtests.test(key=key):
            Note.objects.delete()
            check_odd_key(Note, databases, key)


def check_odd_key(Note: Any, databases: Any, key: str) -> None:
    Note(extra={key: "here", "x": {"y": "there"}, "a": "there"}).save()
    query = Note.objects.filter(Note.extra[key].as_string().is_not(None))
    refused = {"sqlite": '"' in key, "postgresql": False}
    if refused.get(databases.database("default").dialect, key.startswith("-")):
        with pytest.raises(StatementError, match="cannot address a JSON key"):
            query.all()
        assert Note.objects.count() == 1
    else:
        assert query.scalars(Note.extra[key].as_string()) == ["here"]


@MEMORY
def test_what_cannot_be_a_key_is_refused(Note):
    """When the expression is made."""
    for key in ("a\0", "\ud800", ("a", "\0")):
        with pytest.raises(FieldError, match=r"^not a possible key in JSON: "):
            Note.extra[key]
    for key in (1.5, None, True, b"a", slice(1, 2), ("a", None), Note.extra):
        with pytest.raises(TypeError):
            Note.extra[key]
