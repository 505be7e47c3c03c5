"""Values inside JSON, reached by keys that are bound: in conditions, order and columns, on every database."""

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import JSON, func
from sqlalchemy.exc import StatementError

from microorm import Field, FieldError, field
from microorm.fields.documents import MAX_LISTED
from tests.behaviour.wire import ONE_WAY, parameters

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


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
@ONE_WAY
def test_a_key_is_only_a_key(Note, wire):
    """Whatever is in it: it finds its value and no other, and is bound."""
    values = {key: f"v{number}" for number, key in enumerate(HOSTILE)}
    note = Note(extra={**values, "a": {"b": "there"}, "x": {"y": "there"}}).save()
    extra, found = Note.extra, Note.objects
    with wire.record() as sent:
        assert found.values(*[extra[key].as_string() for key in HOSTILE]) == [tuple(values.values())]
        missing = [None] * len(HOSTILE)
        assert found.values(*[extra[key + "!"].as_string() for key in HOSTILE]) == [tuple(missing)]
        assert found.values(*[extra[key, "deeper"].as_string() for key in HOSTILE]) == [tuple(missing)]
        for key, value in values.items():
            assert found.filter(extra[key].as_string() == value).all() == [note]
    for key in HOSTILE:
        assert not [text for text in sent if len(key) > 2 and key != "NULL" and key in text]
    note.extra = {"outer": {key: [value] for key, value in values.items()}}
    note.save()
    for reached in (lambda key: extra["outer"][key][0], lambda key: extra["outer", key, 0]):
        assert found.values(*[reached(key).as_string() for key in HOSTILE]) == [tuple(values.values())]


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
@ONE_WAY
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


VALUES = (
    "x",
    "X",
    "x ",
    "",
    "true",
    "1",
    "é\n\\",
    0,
    1,
    -7,
    2**31 + 5,
    2**53 + 1,
    2**63 - 1,
    10**30,
    -(2**63),
    1.0,
    1.75,
    -2.5,
    1e20,
    True,
    False,
    None,
    [],
    {},
    [1, "é"],
    {"b": [1, "é"], "a": None},
)


@pytest.fixture
def notes(Note: Any) -> Any:
    """A row for each of the values, and one without."""
    Note.objects.bulk_create([Note(extra={"v": value}) for value in VALUES])
    Note(extra={}).save()
    return Note


def same(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal; true is not 1, but 1.0 is."""
    booleans = isinstance(left, bool) or isinstance(right, bool)
    return left is right if booleans else bool(left == right)


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
@ONE_WAY
def test_a_part_is_equal_to_what_json_holds_for_equal(notes):
    part = notes.extra["v"]
    indexes = range(len(VALUES))
    for value in VALUES:
        if value is None:
            continue
        equal = [n + 1 for n in indexes if same(VALUES[n], value)]
        others = [n + 1 for n in indexes if not same(VALUES[n], value)]
        assert notes.objects.filter(part == value).order_by("id").scalars("id") == equal, value
        assert notes.objects.filter(part != value).order_by("id").scalars("id") == others, value
        assert notes.objects.filter(part.in_([value, "no"])).order_by("id").scalars("id") == equal, value
        distinct = [n for n in range(1, len(VALUES) + 2) if n not in equal]
        assert notes.objects.filter(part.is_distinct_from(value)).order_by("id").scalars("id") == distinct
        assert notes.objects.filter(part.is_not_distinct_from(value)).order_by("id").scalars("id") == equal
    assert notes.objects.filter(part == [1.0, "é"]).count() == 0
    null = [VALUES.index(None) + 1]
    assert notes.objects.filter(part == JSON.NULL).scalars("id") == null
    assert notes.objects.filter(part.is_(None)).scalars("id") == [len(VALUES) + 1]
    assert notes.objects.filter(part == None).scalars("id") == [len(VALUES) + 1]  # noqa: E711
    assert notes.objects.filter(part == notes.extra["v"]).count() == len(VALUES)
    assert notes.objects.exclude(part == "x").count() == len(VALUES)
    assert notes.objects.order_by("id").scalars(part) == [*VALUES, None]


def test_a_part_is_read_as_what_it_is_or_null(notes):
    """The same on each database."""

    def read(expression: Any) -> list[Any]:
        return notes.objects.order_by("id").scalars(expression)[:-1]

    def kind(value: Any, *kinds: type) -> bool:
        return type(value) in kinds

    part = notes.extra["v"]
    assert read(part.as_boolean()) == [value if kind(value, bool) else None for value in VALUES]
    numbers = [value if kind(value, int, float) else None for value in VALUES]
    small = [None if value is None or abs(value) > 2**63 else int(value) for value in numbers]
    assert read(part.as_integer()) == small
    assert read(part.as_float()) == [None if value is None else float(value) for value in numbers]
    places = [
        None if value is None else Decimal(value) for value in numbers if value is None or abs(value) < 9
    ]
    assert (
        notes.objects.filter(part.as_float().is_(None) | (func.abs(part.as_float()) < 9))
        .order_by("id")
        .scalars(part.as_numeric(6, 2))[:-1]
        == places
    )
    texts = [value for value in read(part.as_string()) if value is not None]
    assert texts[:15] == [*VALUES[:7], "0", "1", "-7", *map(str, VALUES[10:15])]
    assert texts[15:21] == ["1.0", "1.75", "-2.5", "100000000000000000000.0", "true", "false"]
    assert notes.objects.filter(~part.as_boolean()).count() == 1
    assert notes.objects.filter(part.as_string() == "x").count() == 1
    assert notes.objects.filter(part.as_string().is_(None)).count() == 2
    assert notes.objects.filter(part.as_integer() == 2**53 + 1).count() == 1


def test_an_index_may_count_from_the_end(Note):
    Note(words=["a", "b", "c"]).save()
    assert Note.objects.scalars(Note.words[-1]) == ["c"]
    assert Note.objects.scalars(Note.words[-3].as_string()) == ["a"]
    assert Note.objects.scalars(Note.words[-4]) == [None]


@MEMORY
def test_what_json_does_not_have_is_refused_with_what_to_write(Note, wire):
    part = Note.extra["v"]
    with wire.record() as sent:
        for wrong in (
            lambda: part > 1,
            lambda: part.between(1, 2),
            lambda: part.startswith("x"),
            lambda: part + 1,
            lambda: Note.extra > {},
            lambda: part == Note.id,
        ):
            with pytest.raises(FieldError, match=r"say what it is, as in column\['key'\]\.as_string\(\)"):
                wrong()
        with pytest.raises(FieldError, match="JSON cannot have the value"):
            _ = part == b"x"
        with pytest.raises(FieldError, match="takes a list of values"):
            part.in_("x")
        with pytest.raises(FieldError, match="name a key"):
            Note.extra.as_string()
    assert not sent


@MEMORY
def test_paths_can_be_shown(Note):
    """As SQL, and in the message of an error."""
    with pytest.raises(Note.DoesNotExist, match=r"extra ->"):
        Note.objects.get(Note.extra["a"] == {"b": 1})
    for shown in (
        Note.extra["a"].as_integer(),
        Note.extra["a", 0].as_boolean(),
        ~Note.extra["a"].as_string().in_(["x"]),
    ):
        assert "note.extra ->" in str(shown)


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
def test_only_a_list_has_items(Note):
    note = Note(extra={"n": 5, "t": "x", "o": {"a": 1}, "l": [[7], 8]}, words=[1]).save()
    extra = Note.extra
    for key in ("n", "t", "o", "missing"):
        for index in (0, -1, 1):
            assert Note.objects.filter(extra[key, index].is_(None)).all() == [note], (key, index)
            assert Note.objects.scalars(extra[key, index].as_string()) == [None]
    assert Note.objects.filter(extra[0].is_(None), extra[-1].is_(None)).count() == 1
    assert Note.objects.filter(extra["l", 1, 0].is_(None), extra["l", 2].is_(None)).count() == 1
    assert Note.objects.values(extra["l", 0, 0], extra["l", -2, -1], Note.words[0]) == [(7, 7, 1)]


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
def test_a_number_of_more_digits_than_asked_for_is_null(Note):
    Note(extra={"a": 5000, "b": 99.94, "c": 99.96, "d": -100, "e": -99.9}).save()
    numbers = [Note.extra[key].as_numeric(3, 1) for key in "abcde"]
    assert Note.objects.values(*numbers) == [(None, Decimal("99.9"), None, None, Decimal("-99.9"))]
    assert Note.objects.filter(numbers[0].is_(None), numbers[1] > 99).count() == 1


@ONE_WAY
@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
def test_a_list_may_have_many_values(Note):
    many = [*range(2, MAX_LISTED + 5), "a\"b'\\é%", {"b": 1.0, "a": [1]}, [1e30], True, JSON.NULL]
    values = [2, 3.0, *many[-5:-1], None, 1, 2.5, "2", False, {"b": 1}]
    for value in values:
        Note(extra={"v": value}).save()
    Note(extra={}).save()
    condition = Note.extra["v"].in_(many)
    found = Note.objects.order_by("id")
    assert [each.extra["v"] for each in found.filter(condition)] == values[:7]
    assert [each.extra["v"] for each in found.filter(Note.extra["v"].not_in(many))] == values[7:]
    assert found.exclude(condition).count() == 6


@pytest.mark.backends("sqlite-memory", "postgresql")
@ONE_WAY
def test_a_long_list_of_values_takes_one_parameter(Note, wire):
    """So it may be longer than a statement may have parameters."""
    Note(extra={"v": 5}).save()
    with wire.record() as sent:
        assert Note.objects.filter(Note.extra["v"].in_(range(MAX_LISTED + 1))).count() == 1
    assert 0 < sum(map(parameters, sent)) < 5
