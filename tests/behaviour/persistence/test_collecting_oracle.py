"""Random deletes, compared with a simple implementation of `on_delete` in Python."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, update

import microorm
from microorm import Field, ForeignKey, Model, RestrictedError, field, foreign_key  # noqa: F401 named as a string
from microorm.signals import post_delete, pre_delete
from tests.thorough import examples

KEYS = {  # the foreign keys of each model, and their targets: cycles, a tree, diamonds and leaves
    "A": {"up": "A", "b": "B"},
    "B": {"a": "A", "c": "C"},
    "C": {"a": "A", "b": "B", "up": "C"},
    "D": {"a": "A", "b": "B", "c": "C"},
}
SPARE = 100  # the row of each model to which only defaults refer
ROWS = 4

Rows = dict[str, dict[int, dict[str, int | None]]]


class Rule(NamedTuple):
    """The declaration of one foreign key."""

    on_delete: str
    default: int | None
    constraint: bool


class World(NamedTuple):
    """The declared models, the stored rows, and the delete: the rows of *model* with the keys *roots*."""

    rules: dict[tuple[str, str], Rule]
    rows: Rows
    model: str
    roots: tuple[int, ...]
    heard: frozenset[str]
    by_query: bool


KINDS = st.sampled_from(
    ["cascade", "cascade", "cascade", "restrict", "set_null", "set_default", "do_nothing"]
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    rules = {}
    for model, keys in KEYS.items():
        for name in keys:
            kind = draw(KINDS)
            # With do_nothing the database does not check the key either, so that the result is known.
            checked = kind != "do_nothing" and draw(st.booleans())
            rules[model, name] = Rule(kind, draw(st.sampled_from([None, SPARE])), checked)
    number = st.none() | st.integers(1, ROWS)
    rows: Rows = {}
    for model, keys in KEYS.items():
        rows[model] = {key: {name: draw(number) for name in keys} for key in range(1, ROWS + 1)}
        rows[model][SPARE] = dict.fromkeys(keys)
    by_query = draw(st.booleans())
    count = st.lists(st.integers(1, ROWS), max_size=3 if by_query else 1, min_size=0 if by_query else 1)
    heard = draw(st.frozensets(st.sampled_from(list(KEYS))))
    return World(rules, rows, draw(st.sampled_from("ABC")), tuple(set(draw(count))), heard, by_query)


def models_of(world: World, registry: "microorm.Registry") -> dict[str, Any]:
    """Return the models of *world*; some are declared before those that they refer to."""

    def keys(model: str) -> Iterator[tuple[str, Any]]:
        for name in KEYS[model]:
            rule = world.rules[model, name]
            yield (
                name,
                foreign_key(on_delete=rule.on_delete, constraint=rule.constraint, default=rule.default),
            )

    made = {}
    for model, names in KEYS.items():
        kinds = {name: f"ForeignKey[{target} | None]" for name, target in names.items()}
        body = {
            "__module__": __name__,
            "__qualname__": model,
            "__annotations__": {"id": Field[int], **kinds},
            "id": field(primary_key=True),
            **dict(keys(model)),
        }
        made[model] = type(Model)(model, (Model,), body, registry=registry)
    return made


def references(world: World) -> list[tuple[str, int, str, tuple[str, int | None]]]:
    """Return which row refers to which, and by which key."""
    return [
        (kind, number, name, (KEYS[kind][name], value))
        for kind, rows in world.rows.items()
        for number, values in rows.items()
        for name, value in values.items()
    ]


def expected(world: World) -> tuple[Rows, dict[str, int], set[tuple[str, int]]]:
    """Return the rows that stay, the number of deleted rows by model, and the rows that prevent the delete."""
    gone = {(world.model, key) for key in world.roots}
    left = list(gone)
    referring = references(world)
    in_the_way = set()
    while left:
        row = left.pop()
        for kind, number, name, target in referring:
            cascades = world.rules[kind, name].on_delete == "cascade"
            if cascades and target == row and (kind, number) not in gone:
                gone.add((kind, number))
                left.append((kind, number))
    stays: Rows = {kind: {} for kind in KEYS}
    for kind, rows in world.rows.items():
        for number, values in rows.items():
            if (kind, number) not in gone:
                stays[kind][number] = dict(values)
    for kind, number, name, target in referring:
        rule = world.rules[kind, name]
        if (kind, number) in gone or target not in gone:
            continue
        if rule.on_delete == "restrict":
            in_the_way.add((kind, number))
        elif rule.on_delete != "do_nothing":
            stays[kind][number][name] = rule.default if rule.on_delete == "set_default" else None
    numbers = {kind: sum(1 for each, _ in gone if each == kind) for kind in KEYS}
    return stays, {kind: number for kind, number in numbers.items() if number}, in_the_way


def before_what_it_refers_to(world: World, told: list[tuple[str, int]]) -> bool:
    """Return whether the signals of each row came before those of the rows it depends on, except in cycles."""
    edges: dict[Any, set[Any]] = {}
    for kind, number, name, target in references(world):
        if world.rules[kind, name].on_delete in ("cascade", "restrict"):
            edges.setdefault((kind, number), set()).add(target)

    def reached(row: Any) -> set[Any]:
        found, left = set(), [row]
        while left:
            new = edges.get(left.pop(), set()) - found
            found |= new
            left += new
        return found

    return all(
        told.index(row) < told.index(target)
        for row in told
        for target in edges.get(row, set())
        if target in told and row not in reached(target)
    )


def store(world: World, databases: "microorm.Databases", models: dict[str, Any]) -> None:
    with databases.engine().begin() as connection:
        for kind, model in models.items():
            connection.execute(insert(model.__table__), [{"id": key} for key in world.rows[kind]])
        for kind, model in models.items():
            table = model.__table__
            for number, values in world.rows[kind].items():
                named = {f"{name}_id": value for name, value in values.items()}
                connection.execute(update(table).where(table.c.id == number).values(named))


def stored(databases: "microorm.Databases", models: dict[str, Any]) -> Rows:
    found: Rows = {}
    with databases.engine().connect() as connection:
        for kind, model in models.items():
            rows = connection.execute(select(model.__table__)).mappings().all()
            found[kind] = {row["id"]: {name: row[f"{name}_id"] for name in KEYS[kind]} for row in rows}
        connection.rollback()
    return found


def try_out(world: World, databases: "microorm.Databases") -> None:
    registry = microorm.Registry(databases)
    models = models_of(world, registry)
    model = models[world.model]
    told: dict[Any, list[tuple[str, int]]] = {pre_delete: [], post_delete: []}

    def note(signal: Any, sender: Any, instance: Any, **kwargs: Any) -> None:
        told[signal].append((sender.__name__, instance.pk))

    registry.create_all("default")
    with ExitStack() as stack:
        stack.callback(registry.drop_all, "default")
        store(world, databases, models)
        for signal in told:
            for kind in world.heard:
                signal.connect(note, sender=models[kind], weak=False)
                stack.callback(signal.disconnect, note, sender=models[kind])
        if world.by_query:
            delete = model.objects.filter(model.id.in_(world.roots)).delete
        else:
            delete = model.objects.get(id=world.roots[0]).delete
        stays, numbers, in_the_way = expected(world)
        if in_the_way:
            with pytest.raises(RestrictedError) as raised:
                delete()
            assert {(type(each).__name__, each.pk) for each in raised.value.objects} == in_the_way
            assert (stored(databases, models), told[pre_delete]) == (world.rows, [])
            return
        labels = {models[kind].__schema__.label: number for kind, number in numbers.items()}
        assert delete() == (sum(numbers.values()), labels)
        assert stored(databases, models) == stays
    went = {(kind, key) for kind, rows in world.rows.items() for key in rows if key not in stays[kind]}
    assert before_what_it_refers_to(world, told[pre_delete])
    for keys in told.values():
        assert len(keys) == len(set(keys))
        assert set(keys) == {(kind, key) for kind, key in went if kind in world.heard}


GENTLY = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.mark.backends("sqlite-memory")
@given(world=worlds())
@settings(max_examples=examples(30), suppress_health_check=GENTLY)
def test_what_goes_stays_and_changes_is_as_declared(world, databases):
    try_out(world, databases)


@pytest.mark.servers_only
@given(world=worlds())
@settings(max_examples=examples(8), suppress_health_check=GENTLY)
def test_what_goes_stays_and_changes_on_a_server_is_as_declared(world, databases):
    try_out(world, databases)
