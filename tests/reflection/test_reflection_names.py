"""The names of fields, classes and members are valid, free, and none that Python or a model reserves."""

import keyword

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microorm.reflection.names import RESERVED_FIELDS, class_name, field_name, member_name, plural, quoted


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("AlbumId", "album_id"),
        ("class", "class_"),
        ("save", "save_"),
        ("1st", "column_1st"),
        ("a b", "a_b"),
        ("_private_", "private"),
        ("§", "column"),
        ("int", "int_"),
        ("field", "field_"),
        ("HTTPCode", "http_code"),
        ("L", "l_"),
    ],
)
def test_a_column_becomes_a_field_in_snake_case(column, name):
    assert field_name(column, ()) == name
    assert field_name(column, {name}) == f"{name}_2"


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("film_actor", "FilmActor"),
        ("Album", "Album"),
        ("ORDER", "Order"),
        ("field", "FieldRow"),
        ("model", "ModelRow"),
        ("2024", "Table2024"),
        ("§", "Table"),
    ],
)
def test_a_table_becomes_a_class(table, name):
    assert class_name(table, ()) == name
    assert class_name(table, {name}) == f"{name}_2"


def test_a_value_becomes_a_member():
    names = [member_name(each, ()) for each in ("very happy", "", "1st", "i", "o", "None")]
    assert names == ["VERY_HAPPY", "EMPTY", "VALUE_1ST", "VALUE_I", "VALUE_O", "NONE"]


def test_words_in_the_plural_stay_as_they_are():
    words = ("city", "day", "books", "address", "box", "branch", "film")
    assert [plural(word) for word in words] == [
        "cities",
        "days",
        "books",
        "addresses",
        "boxes",
        "branches",
        "films",
    ]


@given(st.text(max_size=12))
def test_any_text_becomes_a_valid_name(text):
    for name in (field_name(text, ()), class_name(text, ()), member_name(text, ())):
        assert name.isidentifier()
        assert not keyword.iskeyword(name)
        assert compile(name, "<name>", "eval").co_names in ((name,), ())  # None and the like have no name
    name = field_name(text, ())
    assert not name.startswith("_")
    assert name not in RESERVED_FIELDS
    assert eval(quoted(text)) == text
