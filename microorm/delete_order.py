"""Delete order: in what order rows go, those that refer to others first.

Models that do not refer to each other in a circle go one after another. Inside a circle of models, a tree in one
table among them, the rows decide; where rows refer to each other in a circle, some of these keys have to be NULL
before.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T", bound=Hashable)


class Leaving:
    """A row that goes: its instance, and those of the rows that go which refer to it, each with its foreign key."""

    __slots__ = ("dependants", "instance", "key", "schema")

    def __init__(self, schema: Any, key: tuple[Any, ...], instance: Any) -> None:
        self.schema = schema
        self.key = key
        self.instance = instance
        self.dependants: list[tuple[Leaving, Any]] = []


class Step(NamedTuple):
    """Rows of one model that go together; no row of a layer refers to another of the same or a later layer."""

    schema: Any
    layers: list[list[Leaving]]


Cut = dict[Any, dict[Leaving, None]]  # the foreign keys to set to NULL → in which rows


def delete_order(
    groups: dict[T, list[Leaving]], dependants: Callable[[T], Iterable[T]], *, row_by_row: bool = False
) -> tuple[list[Step], Cut]:
    """The order in which the rows of *groups* go, by model, and which of their keys have to be NULL before.

    *dependants* gives the models that refer to one, itself included. *row_by_row*: the database checks each row as it
    goes, so that one which refers to itself is in its own way.
    """
    steps: list[Step] = []
    cut: Cut = {}

    def among(model: T) -> Iterable[T]:
        return (each for each in dependants(model) if each in groups)

    for circle in circles(list(groups), among):
        rows = [row for model in circle for row in groups[model]]
        if len(circle) == 1 and circle[0] not in among(circle[0]):
            _append(steps, rows)
            continue
        for layer in _layers(rows, cut):
            _append(steps, layer)
        for row in rows if row_by_row else ():
            for child, key in row.dependants:
                if child is row and key.constrained and key.field.nullable:
                    cut.setdefault(key, {})[row] = None
    return steps, cut


def circles(items: Sequence[T], following: Callable[[T], Iterable[T]]) -> list[list[T]]:
    """*items* in parts, those that lead to others after these: one item, or all that lead to each other (Tarjan)."""
    found: list[list[T]] = []
    place: dict[T, int] = {}
    lowest: dict[T, int] = {}
    line: list[T] = []
    inside: set[T] = set()
    for start in items:
        trail = [] if start in place else [start]
        rest: dict[T, Any] = {}
        while trail:
            item = trail[-1]
            if item not in place:
                place[item] = lowest[item] = len(place)
                line.append(item)
                inside.add(item)
                rest[item] = iter(following(item))
            for other in rest[item]:
                if other not in place:
                    trail.append(other)
                    break
                if other in inside:
                    lowest[item] = min(lowest[item], place[other])
            else:
                trail.pop()
                if trail:
                    lowest[trail[-1]] = min(lowest[trail[-1]], lowest[item])
                if lowest[item] == place[item]:
                    circle = [line.pop()]
                    while circle[-1] is not item:
                        circle.append(line.pop())
                    inside.difference_update(circle)
                    found.append(circle[::-1])
    return found


def _layers(rows: list[Leaving], cut: Cut) -> list[list[Leaving]]:
    """*rows* in layers, those that nobody refers to first; what keeps a circle together is added to *cut*."""
    among = set(rows)
    waits: dict[Leaving, int] = dict.fromkeys(rows, 0)
    referred: dict[Leaving, list[tuple[Leaving, Any]]] = {row: [] for row in rows}
    for row in rows:
        for child, key in row.dependants:
            if child is not row and child in among:
                waits[row] += 1
                referred[child].append((row, key))
    layers: list[list[Leaving]] = []
    _peel([row for row in rows if not waits[row]], waits, referred, layers)
    if rest := [row for row in rows if waits[row]]:
        _peel(_cut_circles(rest, waits, referred, cut), waits, referred, layers)
        # What is left cannot be cut: a database that checks at the end of the statement may let it go.
        if rest := [row for row in rest if waits[row]]:
            layers.append(rest)
    return layers


def _peel(
    layer: list[Leaving],
    waits: dict[Leaving, int],
    referred: dict[Leaving, list[tuple[Leaving, Any]]],
    layers: list[list[Leaving]],
) -> None:
    """Add *layer* to *layers*, then the rows that only its rows referred to, and so on."""
    while layer:
        layers.append(layer)
        freed: list[Leaving] = []
        for row in layer:
            for parent, _ in referred[row]:
                waits[parent] -= 1
                if not waits[parent]:
                    freed.append(parent)
        layer = freed


def _cut_circles(
    rows: list[Leaving],
    waits: dict[Leaving, int],
    referred: dict[Leaving, list[tuple[Leaving, Any]]],
    cut: Cut,
) -> list[Leaving]:
    """Cut the circles among *rows* where a key may be NULL, or is not checked; the rows that nobody refers to then."""
    among = set(rows)

    def following(row: Leaving) -> Iterable[Leaving]:
        return (child for child, _ in row.dependants if child in among)

    for circle in circles(rows, following):
        here = set(circle)
        for row in circle if len(circle) > 1 else ():
            stays = []
            for parent, key in referred[row]:
                if parent not in here or not (key.field.nullable or not key.constrained):
                    stays.append((parent, key))
                    continue
                waits[parent] -= 1
                if key.constrained:
                    cut.setdefault(key, {})[row] = None
            referred[row] = stays
    return [row for row in rows if not waits[row]]


def _append(steps: list[Step], layer: list[Leaving]) -> None:
    """Add the rows of *layer* to *steps*: to the last one where they are of its model."""
    by_model: dict[Any, list[Leaving]] = {}
    for row in layer:
        by_model.setdefault(row.schema, []).append(row)
    last = steps[-1].schema if steps else None
    for schema in sorted(by_model, key=lambda schema: schema is not last):
        if steps and steps[-1].schema is schema:
            steps[-1].layers.append(by_model[schema])
        else:
            steps.append(Step(schema, [by_model[schema]]))
