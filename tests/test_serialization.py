"""A row survives JSON: every value of every type of field, on every database."""

import enum
import itertools
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import PickleType

import microorm
from microorm import Databases, Field, FieldError, ForeignKey, InvalidValue, Registry, foreign_key
from microorm.serialization import (
    MAX_DEPTH,
    decode,
    dump_key,
    dump_row,
    encode,
    load_key,
    load_row,
)
from tests.fields.test_types import ROWS, SERVER_ROWS, Row, same, without_signs

NUMBERS = itertools.count(1)
ALL_ROWS = {**ROWS, **SERVER_ROWS}


def thing(row: Row, base: Any) -> Any:
    class Thing(base, table=f"thing_{next(NUMBERS)}"):
        value: Field[row.annotation] = microorm.field(**row.options)
        perhaps: Field[row.annotation | None] = microorm.field(default=None, **row.options)

    return Thing


def through_json(instance: Any, alias: str = "default") -> Any:
    text = encode(dump_row(instance), max_bytes=10_000_000)
    return load_row(instance.__schema__, decode(text, max_bytes=10_000_000), alias)


def unsigned(value: Any) -> Any:
    """Return *value*, a document as it is once it was stored: that of an instance that was saved is as it was given."""
    return without_signs(value) if isinstance(value, (dict, list)) else value


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
@pytest.mark.parametrize("row", ALL_ROWS.values(), ids=ALL_ROWS)
def test_each_value_survives_a_save_and_json(row, registry, Base, backend) -> None:
    if row in SERVER_ROWS.values() and backend.startswith("sqlite"):
        pytest.skip("SQLite has 15 digits")
    Thing = thing(row, Base)
    registry.create_all()
    with registry.databases.atomic():
        for value in row.edges:
            saved = Thing(value=value, perhaps=value).save()
            loaded = Thing.objects.get(id=saved.id)
            for each in (saved, loaded):
                copy = through_json(each)
                assert same(unsigned(copy.value), loaded.value)
                assert same(unsigned(copy.perhaps), loaded.perhaps)
                assert (copy == each, copy.changes(), copy._state.db) == (True, {}, "default")
        empty = Thing(value=row.edges[0]).save()
        assert through_json(empty).perhaps is None


def model(**fields: Any) -> Any:
    """A model without a database, of the annotations and fields."""
    body: dict[str, Any] = {"__annotations__": {}, "__module__": __name__}
    for name, declared in fields.items():
        annotation, options = declared if isinstance(declared, tuple) else (declared, {})
        body["__annotations__"][name] = annotation
        body[name] = microorm.field(**options)

    class Base(microorm.Model, registry=Registry(Databases()), abstract=True):
        pass

    return type(Base)("Thing", (Base,), body)


def test_the_forms_are_those_that_the_page_names() -> None:
    class Colour(enum.Enum):
        RED = "red"

    Thing = model(
        money=(Field[Decimal], {"max_digits": 9, "decimal_places": 2}),
        at=Field[datetime],
        span=Field[timedelta],
        raw=Field[bytes],
        colour=Field[Colour],
        uid=Field[UUID],
        document=Field[dict[str, Any]],
    )
    made = Thing(
        money=Decimal("1.50"),
        at=datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
        span=timedelta(days=1, microseconds=1),
        raw=b"\0\xff",
        colour=Colour.RED,
        uid=UUID(int=1),
        document={"a": [1, 1.0, None]},
    )
    made.id = 7
    assert dump_row(made) == {
        "id": 7,
        "money": "1.50",
        "at": "2026-01-02T03:04:05.000006+00:00",
        "span": 86_400_000_001,
        "raw": "AP8=",
        "colour": "red",
        "uid": "00000000-0000-0000-0000-000000000001",
        "document": {"a": [1, 1.0, None]},
    }


def test_a_row_is_dumped_as_it_was_saved_whatever_was_assigned_since(registry, Base) -> None:
    class Book(Base):
        title: Field[str]
        tags: Field[list[str]]

    registry.create_all()
    book = Book(title="a", tags=["x"]).save()
    book.title = "b"
    book.tags.append("y")
    assert dump_row(book) == {"id": book.id, "title": "a", "tags": ["x"]}


def test_the_values_of_an_instance_made_of_json_are_its_own(registry, Base) -> None:
    class Book(Base):
        tags: Field[list[str]]

    registry.create_all()
    book = through_json(Book(tags=["x"]).save())
    book.tags.append("y")
    assert book.changes() == {"tags": (["x"], ["x", "y"])}
    book.save()
    assert Book.objects.get().tags == ["x", "y"]


def test_a_foreign_key_is_the_key(registry, Base) -> None:
    class Author(Base):
        name: Field[str]

    class Book(Base):
        author: ForeignKey[Author | None] = foreign_key(on_delete="cascade")

    registry.create_all()
    author = Author(name="a").save()
    book = through_json(Book(author=author).save())
    assert (book.author_id, book.author.name) == (author.id, "a")
    assert through_json(Book(author=None).save()).author is None


def test_a_field_that_is_missing_is_loaded_when_it_is_read(registry, Base) -> None:
    class Book(Base):
        title: Field[str]
        pages: Field[int]

    registry.create_all()
    book = Book(title="a", pages=5).save()
    part = Book.objects.only("title").get()
    assert dump_row(part) == {"id": book.id, "title": "a"}
    assert through_json(part).pages == 5


def test_receivers_of_post_init_see_the_instance(registry, Base) -> None:
    class Book(Base):
        title: Field[str]

    seen = []

    def note(instance, **kwargs):
        seen.append(instance.title)

    registry.create_all()
    book = Book(title="a").save()
    microorm.signals.post_init.connect(note, sender=Book)
    through_json(book)
    assert seen == ["a"]


def test_a_composite_key_is_an_object(registry, Base) -> None:
    class Seat(Base):
        row: Field[int] = microorm.field(primary_key=True)
        letter: Field[str] = microorm.field(primary_key=True, max_length=1)

    seat = Seat(row=3, letter="b")
    assert dump_key(seat) == {"row": 3, "letter": "b"}
    assert load_key(Seat.__schema__, {"row": 3, "letter": "b"}) == {"row": 3, "letter": "b"}
    with pytest.raises(InvalidValue, match="Seat.letter is missing, and part of the key"):
        load_key(Seat.__schema__, {"row": 3})


def test_a_value_without_a_json_form_names_model_and_field() -> None:
    Thing = model(value=(Field[object], {"type_": PickleType()}), count=Field[int])
    with pytest.raises(InvalidValue, match=r"Thing.value must be a value that JSON can represent, not set"):
        dump_row(Thing(value={1}, count=1))
    with pytest.raises(InvalidValue, match=r"Thing.count must be int, not str 'x'"):
        dump_row(Thing(value=1, count="x"))
    with pytest.raises(InvalidValue, match=r"Thing.count must be int"):
        dump_row(Thing(value=1, count=Thing.count + 1))


VALID = {
    "id": 1,
    "money": "1.50",
    "at": "2026-01-02T03:04:05+00:00",
    "span": 5,
    "raw": "AP8=",
    "uid": str(UUID(int=1)),
    "count": 1,
    "share": 0.5,
    "flag": True,
    "name": "x",
    "document": {},
}
WRONG = {
    "money": [1.5, "x", "1.555", "NaN", "Infinity", True, None, []],
    "at": ["2026-01-02T03:04:05", "yesterday", 0, None, "2026-13-01T00:00:00+00:00"],
    "span": ["5", 1.5, True, 10**30],
    "raw": ["AP8", "é", b"", 5],
    "uid": ["x", 5, "{00000000-0000-0000-0000-000000000001}"],
    "count": ["1", 1.0, True, 2**63, None],
    "share": ["0.5", True, 10**400, float("nan"), float("inf")],
    "flag": [1, "true", None],
    "name": [5, ["x"], "x\0", "\ud800", "x" * 11],
    "document": [[], "x", None, {"a": float("nan")}],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, each) for name, values in WRONG.items() for each in values]
)
def test_a_value_of_another_type_names_model_and_field(name: str, value: Any) -> None:
    Thing = model(
        money=(Field[Decimal], {"max_digits": 9, "decimal_places": 2}),
        at=Field[datetime],
        span=Field[timedelta],
        raw=Field[bytes],
        uid=Field[UUID],
        count=Field[int],
        share=Field[float],
        flag=Field[bool],
        name=(Field[str], {"max_length": 10}),
        document=Field[dict[str, Any]],
    )
    assert load_row(Thing.__schema__, VALID, "default").money == Decimal("1.50")
    with pytest.raises(InvalidValue, match=rf"^Thing\.{name} must be ") as raised:
        load_row(Thing.__schema__, VALID | {name: value}, "default")
    assert list(raised.value.problems) == [name]


def test_all_invalid_fields_are_named_at_once() -> None:
    Thing = model(count=Field[int], flag=Field[bool])
    with pytest.raises(InvalidValue) as raised:
        load_row(Thing.__schema__, {"id": None, "count": "x", "flag": 1}, "default")
    assert list(raised.value.problems) == ["id", "count", "flag"]


@pytest.mark.parametrize("data", [None, [], "x", 5])
def test_a_row_is_an_object(data: Any) -> None:
    Thing = model(count=Field[int])
    with pytest.raises(InvalidValue, match="must be in an object with the fields"):
        load_row(Thing.__schema__, data, "default")


def test_an_unknown_field_is_refused_with_the_nearest_one_or_ignored() -> None:
    Thing = model(count=Field[int])
    data = {"id": 1, "count": 2, "cuont": 3}
    with pytest.raises(FieldError, match="Thing has no field 'cuont'; nearest: 'count'"):
        load_row(Thing.__schema__, data, "default")
    assert load_row(Thing.__schema__, data, "default", unknown="ignore").count == 2


def test_equal_values_have_equal_texts() -> None:
    assert encode({"b": 1, "a": [1, "é"]}) == encode({"a": [1, "é"], "b": 1}) == '{"a":[1,"\\u00e9"],"b":1}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1}, b"x"])
def test_what_json_cannot_hold_is_not_encoded(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode(value)


def test_a_text_is_no_longer_than_allowed() -> None:
    assert encode("a" * 98, max_bytes=100)
    with pytest.raises(ValueError, match="the JSON has 101 bytes, more than 100"):
        encode("a" * 99, max_bytes=100)
    assert decode('"' + "é" * 49 + '"', max_bytes=100) == "é" * 49
    with pytest.raises(ValueError, match="more than 100 bytes"):
        decode('"' + "é" * 50 + '"', max_bytes=100)


def test_a_text_is_no_deeper_than_allowed() -> None:
    brackets = '"[[[[[" '
    for opening, closing in ("[]", ("{" + '"a":', "}")):
        inner = "[]"
        assert decode(opening * (MAX_DEPTH - 1) + inner + closing * (MAX_DEPTH - 1))
        with pytest.raises(ValueError, match=f"more than {MAX_DEPTH} levels"):
            decode(opening * MAX_DEPTH + inner + closing * MAX_DEPTH)
    with pytest.raises(ValueError, match="levels"):
        decode("[" * 100_000 + "]" * 100_000, max_bytes=1_000_000)
    assert decode(f"[{','.join([brackets] * 20)}]") == ["[[[[["] * 20
    assert decode(json.dumps(['\\"[' * 50])) == ['\\"[' * 50]


@pytest.mark.parametrize(
    "text", ["", "{", "NaN", "[Infinity]", "{'a': 1}", "\x80", None, b"{}", 5, "1" * 5000]
)
def test_other_than_json_is_refused(text: Any) -> None:
    with pytest.raises(ValueError):
        decode(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_json_survives_its_text(value: Any) -> None:
    assert decode(encode(value)) == value


@given(st.text(max_size=200))
def test_any_text_is_json_or_a_value_error(text: str) -> None:
    try:
        json.loads(text)
    except ValueError:
        with pytest.raises(ValueError):
            decode(text)
