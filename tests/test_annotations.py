"""What an annotation in a class body means: the class, its functions, its module, builtins and models are asked in turn."""

import gc
import sys
import typing
import weakref
from datetime import date
from typing import Any, ForwardRef, Union

import pytest

from microorm.annotations import Names, PendingName, declared, enclosing_frames, evaluate

HERE = "module"
shadowed = "module"


def names_of(cls: type, depth: int = 2, **models: Any) -> Names:
    return Names(cls, enclosing_frames(cls, depth), models)


def test_names_are_looked_up_from_the_inside_out() -> None:
    shadowed = "function"
    int = "function"

    class Book:
        inner = "class"

        def method(self) -> None: ...

    names = names_of(Book, Model="model", HERE="model", list="model")
    found = {name: names[name] for name in ("inner", "shadowed", "int", "HERE", "list", "Model", "Book")}
    assert found == {
        "inner": "class",
        "shadowed": "function",
        "int": "function",
        "HERE": "module",
        "list": list,
        "Model": "model",
        "Book": Book,
    }
    assert (shadowed, int) == ("function", "function")
    with pytest.raises(PendingName, match="^name 'nowhere' is not defined$") as pending:
        names["nowhere"]
    assert pending.value.name == "nowhere"


def test_a_field_may_be_called_as_its_type_is() -> None:
    """`date: Field[date] = field()` under postponed annotations means the type."""
    Book = type(
        "Book", (), {"date": 5, "other": 6, "__annotations__": {"date": "date"}, "__module__": __name__}
    )
    names = names_of(Book)
    assert evaluate("date", names) is date
    assert evaluate("other", names) == 6


def test_only_functions_that_enclose_the_class_are_looked_into() -> None:
    def caller() -> tuple[type, Names]:
        secret = "the caller's"  # noqa: F841

        return definer()

    def definer() -> tuple[type, Names]:
        own = "the definer's"  # noqa: F841

        class Book:
            pass

        return Book, names_of(Book)

    _, names = caller()
    assert names["own"] == "the definer's"
    with pytest.raises(PendingName):
        names["secret"]


def test_a_name_defined_later_in_the_function_is_seen_when_asked() -> None:
    class Book:
        pass

    names = names_of(Book)
    with pytest.raises(PendingName):
        names["Colour"]
    Colour = int
    assert names["Colour"] is Colour


class Outside:
    pass


def test_a_class_of_a_module_holds_no_frames() -> None:
    assert enclosing_frames(Outside, 1) == ()
    assert Names(Outside, (), {})["HERE"] == "module"


def test_a_class_whose_module_is_gone_still_knows_the_builtins() -> None:
    Book = type("Book", (), {"__module__": "no.such.module"})
    assert "no.such.module" not in sys.modules
    assert Names(Book, (), {})["int"] is int


@pytest.mark.parametrize(
    ("annotation", "meant"),
    [
        (int, int),
        ("int", int),
        ("'int'", int),
        (ForwardRef("int"), int),
        ("list[int] | None", list[int] | None),
        (typing.Optional["int"], int | None),
        (Union["int", "str", None], int | str | None),
        ("Outside", Outside),
        ("typing.Any", Any),
    ],
)
def test_an_annotation_is_what_it_would_be_in_the_body(annotation, meant) -> None:
    assert evaluate(annotation, Names(Outside, (), {})) == meant


def test_the_annotations_of_a_class_are_its_own() -> None:
    class Base:
        a: int

    class Derived(Base):
        b: "str"

    class Bare(Base):
        pass

    assert (declared(Base), declared(Derived), declared(Bare)) == ({"a": int}, {"b": "str"}, {})
    declared(Base)["c"] = 1
    assert declared(Base) == {"a": int}


def test_names_let_go_of_their_frames() -> None:
    class Big:
        pass

    def define() -> tuple["weakref.ref[Big]", Names]:
        big = Big()

        class Book:
            pass

        return weakref.ref(big), names_of(Book)

    reference, names = define()
    assert reference() is not None
    del names
    gc.collect()
    assert reference() is None
