"""`field()`, and what a class body says of its fields, with the errors that say how to mend it."""

import inspect
import typing
from typing import Any, ClassVar

import pytest

from microorm import Field, ForeignKey, ModelError, RelatedOne, field
from microorm.mapping.declarations import Names, read_declarations, refuse_overwritten
from microorm.registry import PendingName


def read(body: dict[str, Any], annotations: dict[str, Any], **known: Any) -> dict[str, Any]:
    cls = type("Book", (), {**body, "__annotations__": annotations, "__module__": __name__})
    return read_declarations(
        cls, Names(cls, (), lambda name, final: known.get(name)), frozenset({"save", "objects"})
    )


def test_an_unknown_option_is_a_type_error_with_the_nearest() -> None:
    with pytest.raises(TypeError, match=r"^field\(\) has no option 'max_lenght'; nearest: 'max_length'$"):
        field(max_lenght=5)
    for option in ("null", "nullable", "nulable"):
        with pytest.raises(TypeError) as caught:
            field(**{option: True})
        assert str(caught.value) == (
            f"field() has no option {option!r}; annotate a field that may be None as Field[int | None]"
        )
    with pytest.raises(TypeError, match=r"^field\(\) has no option 'qqq'$"):
        field(qqq=5)
    with pytest.raises(TypeError):
        field(5)  # type: ignore[call-overload]


def test_every_option_that_checkers_know_is_known_at_run_time() -> None:
    for overload in typing.get_overloads(field):
        parameters = inspect.signature(overload).parameters.values()
        options = dict.fromkeys(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)
        assert isinstance(field(**options), Field)
        assert options


def test_fields_are_what_is_annotated_as_such() -> None:
    declared = field(default=1)
    found = read(
        {"number": declared, "limit": 5},
        {
            "title": Field[str],
            "number": "Field[int | None]",
            "limit": ClassVar[int],
            "other": "ClassVar[str]",
        },
    )
    assert {name: each.annotation for name, each in found.items()} == {"title": str, "number": int | None}
    assert found["number"].field.default == 1
    assert found["number"].field is not declared
    assert [each.names for each in found.values()] == [None, None]
    assert [each.field.name for each in found.values()] == ["title", "number"]


@pytest.mark.parametrize(
    "written", [ClassVar, ClassVar[int], "ClassVar", "ClassVar[int]", "typing.ClassVar[int]", "t.ClassVar"]
)
def test_a_class_variable_is_no_field(written) -> None:
    assert read({"x": 1}, {"x": written}) == {}


def test_an_annotation_may_name_what_is_not_there_yet() -> None:
    found = read(
        {},
        {
            "colour": "Field[Colour]",
            "shades": Field["list[Shade] | None"],
            "maybe": Field[typing.Optional["Colour"]],
        },
    )
    with pytest.raises(PendingName, match="^name 'Colour' is not defined$"):
        found["colour"].resolved()
    found["colour"].names.update(Colour=int, Shade=str)
    assert found["colour"].resolved().annotation is int
    found["shades"].names.update(Colour=int, Shade=str)
    assert found["shades"].resolved().annotation == list[str] | None
    found["maybe"].names.update(Colour=int)
    assert found["maybe"].resolved().annotation == int | None
    resolved = found["colour"].resolved()
    assert resolved.resolved() is resolved


WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"title": str}, "Book.title: annotate it as Field[...], not 'str'"),
    ({}, {"title": "str"}, "Book.title: annotate it as Field[...], not 'str'"),
    ({}, {"title": Field}, "Book.title: annotate it as Field[...], not 'Field'"),
    ({}, {"title": int | None}, "Book.title: annotate it as Field[...], not 'int | None'"),
    (
        {},
        {"title": ForeignKey[int]},
        "Book.title: annotated 'ForeignKey[int]', but not declared by foreign_key()",
    ),
    (
        {},
        {"title": RelatedOne[int]},
        "Book.title: annotated 'RelatedOne[int]', but not declared by related()",
    ),
    (
        {},
        {"title": "Field[int"},
        "Book.title: invalid annotation 'Field[int': '[' was never closed",
    ),
    (
        {},
        {"title": "Field[int, str]"},
        "Book.title: invalid annotation 'Field[int, str]': Too many",
    ),
    (
        {"title": 5},
        {"title": Field[int]},
        "Book.title: 5 is not a field(); write a default as field(default=...)",
    ),
    (
        {"title": None},
        {"title": Field[int]},
        "Book.title: None is not a field(); write a default as field(default=...)",
    ),
    ({"title": field()}, {}, "Book.title: a field() without an annotation; annotate it as Field[...]"),
    (
        {"_x": field()},
        {"_x": Field[int]},
        "Book._x: the name of a field must be an identifier without a leading underscore",
    ),
    (
        {},
        {"a b": Field[int]},
        "Book.a b: the name of a field must be an identifier without a leading underscore",
    ),
    (
        {},
        {"class": Field[int]},
        "Book.class: the name of a field must be an identifier without a leading underscore",
    ),
    ({}, {"save": Field[int]}, "Book.save: the name is used by Model.save"),
    ({}, {"objects": Field[int]}, "Book.objects: the name is used by Model.objects"),
]


@pytest.mark.parametrize(
    ("body", "annotations", "message"), WRONG, ids=[message[:60] for *_, message in WRONG]
)
def test_what_is_wrong_in_a_class_body_is_told(body, annotations, message) -> None:
    with pytest.raises(ModelError) as error:
        read(body, annotations, Field=Field)
    assert str(error.value).startswith(message)


def test_an_inherited_field_is_not_given_away() -> None:
    """An attribute of the same name would be replaced by the field without a word."""

    def refuse(value: Any) -> None:
        refuse_overwritten(type("Book", (), {"title": value}), iter(["title", "x"]))

    refuse(field())
    for value in (None, "x", property(str)):
        with pytest.raises(
            ModelError,
            match=r"^Book\.title: 'title' is an inherited field; only another field can replace it$",
        ):
            refuse(value)
