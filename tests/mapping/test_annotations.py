# ruff: noqa: UP007, UP045 - both spellings of a union are what is tested
"""What the annotations of a class body mean, and what a name in them is looked up in."""

import builtins
import enum
import sys
import types
from typing import Annotated, Any, ForwardRef, Literal, NewType, Optional, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypeAliasType

from microorm.fields.field import Field
from microorm.mapping.declarations import Names, declared, enclosing_frames, evaluate
from microorm.registry import PendingName


class Colour(enum.Enum):
    RED = 1


def names_of(cls: type, depth: int = 1, **models: type) -> Names:
    return Names(cls, enclosing_frames(cls, depth + 1), lambda name, final: models.get(name))


Size = NewType("Size", int)
Width = NewType("Width", Size)
Alias = TypeAliasType("Alias", Union[Size, None])


class Thing:
    """A class at module level."""

    Inner = dict
    size: "int"
    colour: Field["Colour"]
    plain: int


@pytest.mark.parametrize(
    ("annotation", "meaning"),
    [
        (int, int),
        ("int", int),
        ("'int'", int),
        ("Colour", Colour),
        ("Inner", dict),
        ("Thing", Thing),
        ("enum.Enum", enum.Enum),
        (ForwardRef("Colour"), Colour),
        (ForwardRef("'Colour'"), Colour),
        ("Colour | None", Optional[Colour]),
        (Optional["Colour"], Optional[Colour]),
        (Optional["int | str"], Union[int, str, None]),
        (Union["int", None, "Colour"], Union[int, None, Colour]),
        (int | None, Optional[int]),
        ("Optional['Colour']", Optional[Colour]),
        (Literal["Later", "x"], Literal["Later", "x"]),
        ("Literal['Later', 3]", Literal["Later", 3]),
        ("list[int]", list[int]),
        ("dict[str, Any]", dict[str, Any]),
        ("Field[int]", Field[int]),
        ("None", None),
        (Size, int),
        ("Width", int),
        (Annotated[int, "cm"], int),
        ("Annotated[Width | None, 1]", Optional[int]),
        (Annotated["Colour", "x"] | None, Optional[Colour]),
        (Union[Width, None], Optional[int]),
        (Alias, Optional[int]),
    ],
)
def test_an_annotation_means_what_it_says(annotation, meaning) -> None:
    assert evaluate(annotation, names_of(Thing)) == meaning


@pytest.mark.parametrize(
    ("annotation", "missing"),
    [
        ("Later", "Later"),
        ("Later | None", "Later"),
        ("int | Later", "Later"),
        (Optional["Later"], "Later"),
        (Optional["Colour | Later"], "Later"),
        (ForwardRef("Later"), "Later"),
        ("later.Type", "later"),
        ("'Later'", "Later"),
        ("Field[Later]", "Later"),
    ],
)
def test_a_name_that_is_not_there_yet_is_pending(annotation, missing) -> None:
    with pytest.raises(PendingName) as caught:
        evaluate(annotation, names_of(Thing))
    assert caught.value.name == missing
    assert str(caught.value) == f"name {missing!r} is not defined"


@pytest.mark.parametrize(
    ("annotation", "error"),
    [("int[", SyntaxError), ("enum.Nope", AttributeError), ("1 / 0", ZeroDivisionError)],
)
def test_what_cannot_be_evaluated_raises_as_python_does(annotation, error) -> None:
    with pytest.raises(error):
        evaluate(annotation, names_of(Thing))


def test_the_nearer_place_wins() -> None:
    """Class, then the class itself by name, functions from the inside out, module, builtins, models."""
    Colour = "outer"
    hidden = "outer"

    def inside() -> Names:
        Colour = "inner"

        class Local:
            str = "in the class"
            int: "int"

        Local.int = "a field's value is no type"
        assert Colour == "inner"
        return names_of(Local, Book=float, list=float, Local=float)

    names = inside()
    assert hidden == Colour
    assert names["str"] == "in the class"
    assert names["int"] is int
    assert names["Colour"] == "inner"
    assert names["hidden"] == "outer"
    assert names["Thing"] is Thing
    assert names["list"] is list
    assert names["Book"] is float
    assert names["Local"].__name__ == "Local"
    with pytest.raises(PendingName):
        names["nowhere"]


def test_a_name_may_come_after_the_class() -> None:
    class Local:
        size: "Later"

    names = names_of(Local)
    with pytest.raises(PendingName):
        evaluate("Later", names)
    Later = int
    assert evaluate("Later", names) is Later


def test_functions_that_only_called_are_no_place_for_names() -> None:
    """A name of the caller, or of a function that is called alike in another module, is not seen."""

    def maker() -> Names:
        class Local:
            pass

        return names_of(Local)

    def caller() -> Names:
        unseen = 1
        assert unseen
        return maker()

    with pytest.raises(PendingName):
        caller()["unseen"]
    other = types.ModuleType("other")
    other.names_of, other.sys = names_of, sys
    exec(
        "def test_functions_that_only_called_are_no_place_for_names():\n"
        "    secret = 1\n"
        "    class Local: pass\n"
        "    Local.__module__ = 'tests.elsewhere'\n"
        "    return names_of(Local)\n",
        vars(other),
    )
    with pytest.raises(PendingName):
        other.test_functions_that_only_called_are_no_place_for_names()["secret"]


def test_a_class_at_module_level_needs_no_frames() -> None:
    here = "seen by nobody"
    assert here
    assert enclosing_frames(Thing, 1) == ()
    with pytest.raises(PendingName):
        names_of(Thing)["here"]


def test_a_class_in_a_class_in_a_function_sees_both() -> None:
    local = int

    class Outer:
        shelf = str

        class Inner:
            names: Any = None

        Inner.names = names_of(Inner)

    assert Outer.Inner.names["local"] is local
    assert [frame.f_code.co_name for frame in Outer.Inner.names._frames][-1] == (
        "test_a_class_in_a_class_in_a_function_sees_both"
    )


def test_a_class_of_no_module_sees_the_builtins() -> None:
    made = type("Made", (), {"__module__": "gone.module"})
    assert names_of(made)["int"] is builtins.int
    with pytest.raises(PendingName):
        names_of(made)["Colour"]


def test_declared_gives_the_annotations_of_the_body_alone() -> None:
    class Child(Thing):
        own: int

    assert declared(Thing) == {"size": "int", "colour": Field["Colour"], "plain": int}
    assert list(declared(Child)) == ["own"]
    assert declared(type("Bare", (Thing,), {})) == {}


TYPES = st.sampled_from([int, str, float, bytes, Colour])


@given(st.lists(TYPES, min_size=1, max_size=4), st.booleans(), st.booleans())
def test_a_union_means_the_same_however_it_is_written(kinds, optional, reference) -> None:
    parts = [*kinds, *([None] if optional else [])]
    text = " | ".join("None" if part is None else part.__name__ for part in parts)
    as_union = Union[tuple(part if part is None else ForwardRef(part.__name__) for part in parts)]
    expected = Union[tuple(parts)]
    assert evaluate(ForwardRef(text) if reference else text, names_of(Thing)) == expected
    assert evaluate(as_union, names_of(Thing)) == expected
