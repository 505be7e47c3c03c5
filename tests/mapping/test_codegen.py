"""The generated loops do what the obvious slow Python does, for any fields and rows."""

import ast
import gc
import string
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, literal
from sqlalchemy.sql import ClauseElement

from microorm import Databases, Field, InvalidValue, Model, Registry, field
from microorm.mapping.codegen import ExpressionRow, binder, builder, clean_all, collector, compiled, gatherer

NAMES = ("id", "title", "pages", "price", "rare", "tags", "day", "count")


class Shelf(Model, registry=Registry()):
    """Fields of every kind of check: generated, limited, nullable, converted, mutable, constant."""

    title: Field[str] = field(max_length=3)
    pages: Field[int]
    price: Field[float]
    rare: Field[bool | None]
    tags: Field[dict[str, Any]]
    day: Field[date | None]
    count: Field[int] = field(on_update=lambda: 1)


FIELDS = {each.name: each for each in Shelf.__schema__.fields}
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "id": st.none() | st.integers(1, 9),
    "title": st.text(string.ascii_letters, max_size=3),
    "pages": st.integers(-(2**63), 2**63 - 1),
    "price": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9),
    "rare": st.none() | st.booleans(),
    "tags": st.dictionaries(st.sampled_from("ab"), st.lists(st.integers(0, 2), max_size=2), max_size=2),
    "day": st.none() | st.dates(),
    "count": st.integers(0, 3),
}
BAD = st.sampled_from(
    ["long", "a\0", 2**63, float("nan"), float("inf"), object, None, b"", {"a": object}, []]
)
EXPRESSIONS = st.sampled_from([func.made_up(), func.made_up(FIELDS["pages"].column), literal(None)])
CHOSEN = st.lists(st.sampled_from(NAMES), unique=True)


@st.composite
def chosen_values(draw: Any, mixed: bool) -> tuple[list[str], dict[str, Any]]:
    """Some fields in some order, and values for (nearly) all fields."""
    names = draw(CHOSEN)
    strategies = {name: good | BAD | EXPRESSIONS if mixed else good for name, good in GOOD.items()}
    values = {name: draw(strategy) for name, strategy in strategies.items()}
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=2)) if mixed else ():
        values.pop(name, None)
    return names, values


def slow_row(names: Sequence[str], values: dict[str, Any]) -> Any:
    """The row, or the names of the bad fields in order, in the most obvious way."""
    row: list[Any] = []
    bad = []
    for name in names:
        each, value = FIELDS[name], values.get(name)
        if isinstance(value, ClauseElement):
            row.append("expression")
        elif value is None and each.generated:
            row.append(None)
        else:
            try:
                row.append(each.clean(value))
            except Exception:  # noqa: BLE001 whatever it is, the field is bad
                bad.append(name)
    return bad or tuple(row)


@given(chosen_values(mixed=True) | chosen_values(mixed=False))
def test_a_collector_gives_the_row_that_checking_each_field_gives(chosen) -> None:
    names, values = chosen
    before = dict(values)
    expected = slow_row(names, values)
    collect = collector("Shelf", [FIELDS[name] for name in names])
    if isinstance(expected, list):
        with pytest.raises(InvalidValue) as caught:
            collect(values)
        problems = caught.value.problems
        assert list(problems) == expected
        assert str(caught.value) == "; ".join(f"Shelf.{name} {problems[name]}" for name in expected)
        with pytest.raises(InvalidValue) as careful:
            clean_all("Shelf", [FIELDS[name] for name in names], values)
        assert careful.value.problems == problems
    else:
        row = collect(values)
        plain = ["expression" if isinstance(value, ClauseElement) else value for value in row]
        assert tuple(plain) == expected
        assert list(map(type, plain)) == list(map(type, expected))
        has_expression = any(isinstance(values.get(name), ClauseElement) for name in names)
        assert type(row) is (ExpressionRow if has_expression else tuple)
    assert all(values[name] is before[name] for name in before)
    assert len(values) == len(before)


def test_every_bad_field_is_named_in_field_order() -> None:
    """`InvalidValue` names the model, every bad field, what it wants, and what it got."""
    collect = Shelf.__schema__.collector(NAMES)
    values = {"id": None, "title": "long", "pages": "x", "price": 1.0, "rare": 1, "tags": {}, "day": None}
    with pytest.raises(InvalidValue) as caught:
        collect({**values, "count": None})
    assert caught.value.model == "Shelf"
    assert list(caught.value.problems) == ["title", "pages", "rare", "count"]
    assert str(caught.value).startswith("Shelf.title must be str")
    assert "; Shelf.pages must be int, not str 'x'; Shelf.rare must be bool, not int 1; " in str(caught.value)
    assert str(caught.value).endswith("; Shelf.count must be int, not None")


def test_a_collector_is_made_once_for_each_choice_of_fields() -> None:
    schema = Shelf.__schema__
    assert schema.collector(("title",)) is schema.collector(("title",))
    assert schema.collector(("title",)) is not schema.collector(("title", "pages"))
    assert schema.collector(())({"title": 1}) == ()


PROCESSES: list[Callable[[Any], Any] | None] = [None, str, lambda value: (value, value)]


@given(st.data())
def test_a_binder_gives_the_parameters_that_a_loop_gives(data) -> None:
    row = tuple(data.draw(st.lists(st.integers() | st.text(), min_size=1, max_size=5)))
    places = data.draw(st.lists(st.integers(0, len(row) - 1), max_size=6))
    kinds = [data.draw(st.sampled_from(range(3))) for _ in places]
    order = [
        (place, f"n{index}", PROCESSES[kind])
        for index, (place, kind) in enumerate(zip(places, kinds, strict=True))
    ]
    slow = [row[place] if process is None else process(row[place]) for place, _, process in order]
    bind = binder(order, positional=True, width=len(row))
    if places == list(range(len(row))) and not any(kinds):
        assert bind is None
    else:
        assert bind is not None
        assert bind(row) == tuple(slow)
    named = binder(order, positional=False, width=len(row))
    assert named is not None
    assert named(row) == {name: value for (_, name, _), value in zip(order, slow, strict=True)}


def test_a_parameters_name_is_data_and_never_code() -> None:
    trap = "'): __import__('os').abort() #"
    bind = binder([(0, trap, None)], positional=False, width=1)
    assert bind is not None
    assert bind((1,)) == {trap: 1}


@given(st.lists(st.fixed_dictionaries(GOOD), max_size=3), st.booleans(), st.sets(st.sampled_from(NAMES)))
def test_a_builder_gives_the_instances_that_a_loop_gives(rows, raw, decoded) -> None:
    fields = [FIELDS[name] for name in NAMES]
    decoders = [(lambda value: (value,)) if name in decoded else None for name in NAMES]
    tuples = [tuple(row[name] for name in NAMES) for row in rows]
    state = object()
    instances = builder(Shelf, fields, decoders, raw=raw)(tuples, state)
    assert len(instances) == len(rows)
    for instance, row in zip(instances, tuples, strict=True):
        assert type(instance) is Shelf
        slow = {
            name: (value,) if raw and name in decoded else value
            for name, value in zip(NAMES, row, strict=True)
        }
        assert vars(instance) == slow
        assert list(vars(instance)) == list(NAMES)
        assert instance._row_state is state
        assert instance._row == row
        assert type(instance._row) is tuple
        tags = NAMES.index("tags")
        if not (raw and "tags" in decoded):
            assert instance._row[tags] is not instance.__dict__["tags"]
            instance.__dict__["tags"]["z"] = [0]
            assert "z" not in instance._row[tags]


def test_a_builder_without_mutable_values_keeps_the_drivers_own_row() -> None:
    """Nothing is copied on a load; what is no plain tuple becomes one."""

    class Row(tuple):
        """SQLAlchemy's row stands for more than its values."""

    fields = [FIELDS[name] for name in ("id", "title")]
    row = (1, "t")
    (instance,) = builder(Shelf, fields, [None, None], raw=True)([row], None)
    assert instance._row is row
    (instance,) = builder(Shelf, fields, [None, None], raw=False)([Row(row)], None)
    assert type(instance._row) is tuple
    assert instance._row == row


def test_the_source_can_be_read_and_holds_only_names_and_places() -> None:
    """No value and no text of the user's but identifiers stands in it."""
    nasty = "'); raise SystemExit('"

    class Trap(Model, registry=Registry(), table="trap"):
        note: Field[str] = field(default=nasty, column=nasty[:5], max_length=40)

    schema = Trap.__schema__
    collect = schema.collector(schema.names)
    build = builder(Trap, schema.fields, [None, str], raw=True)
    bind = binder([(1, "note", str)], positional=True, width=2)
    assert bind.__source__ == "def bind(row):\n    return (p0(row[1]), )"
    for function in (collect, build, bind, Trap.__init__):
        source = function.__source__
        assert nasty[:5] not in source
        words = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
        assert words <= {"id", "note", None, 0, 1, 40, -(2**63), 2**63 - 1, 2**63, "\0"}
    assert Trap().note == nasty
    assert collect({"id": 1, "note": nasty}) == (1, nasty)


def test_compiled_says_where_its_code_is_from() -> None:
    made = compiled("twice", "def twice(x):\n    return factor * x", {"factor": 2})
    assert made(4) == 8
    assert made.__source__ == "def twice(x):\n    return factor * x"
    assert made.__code__.co_filename == "<microorm twice>"


@pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="how instances are laid out is CPython's matter"
)
def test_loaded_instances_are_small() -> None:
    """Without a dictionary each, where CPython can do without; else with one that is no larger than it must be."""
    with Databases("sqlite://") as databases:

        class Book(Model, registry=Registry(databases)):
            title: Field[str]
            pages: Field[int]
            price: Field[float]
            shelf: Field[str]

        Book.__schema__.registry.create_all()
        Book.objects.bulk_create(
            [Book(title=f"book {number}", pages=number, price=0.5, shelf="a") for number in range(1000)]
        )
        Book.objects.all()
        gc.collect()  # in the middle, it would free what was measured
        tracemalloc.start()
        try:
            books = Book.objects.all()
            size, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert size < len(books) * (400 if sys.version_info < (3, 13) else 540)


@given(st.data())
def test_a_gatherer_gives_what_a_collector_does_or_nothing(data: Any) -> None:
    """For new instances that are alike; else it leaves them to others."""
    fields = [each for name, each in FIELDS.items() if name not in ("id", "tags")]
    collect = collector("Shelf", fields)
    strategies = {name: GOOD[name] for name in ("title", "pages", "rare", "day")}
    given_values = data.draw(st.lists(st.fixed_dictionaries(strategies), min_size=1, max_size=4))
    shelves = [Shelf(tags={}, price=1.5, **values) for values in given_values]
    for shelf in shelves:
        shelf.count = 1
    former = shelves[0]._row_state
    gather = gatherer(fields, "id")
    assert gather(shelves, former) == [collect(vars(shelf)) for shelf in shelves]
    odd, kind = shelves[-1], data.draw(st.sampled_from(("value", "lacks", "key", "keyless", "row", "state")))
    match kind:
        case "value":
            vars(odd)["pages"] = data.draw(st.sampled_from(["many", None, 2**63]) | EXPRESSIONS)
        case "lacks":
            del vars(odd)["pages"]
        case "key":
            vars(odd)["id"] = 1
        case "keyless":
            del vars(odd)["id"]
        case "row":
            odd._row = ()
        case "state":
            odd._row_state = object()
    assert gather(shelves, former) is None
