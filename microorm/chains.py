"""Chains: the relations that a path or a dotted name goes along, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy.sql import ClauseElement

from microorm.errors import FieldError, nearest
from microorm.mapping.foreign_key import Relation
from microorm.mapping.path import Path, Step
from microorm.mapping.schema import Schema

Chain = tuple[Relation, ...]


def chain_of(schema: Schema, method: str, given: Any) -> Chain:
    """The relations from the model of *schema* that *given* goes along, which *method* got.

    A path that goes along a many-to-many relation is taken to mean that, and not the rows between; a dotted name
    tells the two apart. Raises `FieldError` for an unknown name, for a column, and for a path that begins elsewhere;
    `TypeError` for anything else.
    """
    if isinstance(given, str):
        return _named(schema, method, given)
    if isinstance(given, Path):
        if given._root is not schema:
            raise FieldError(f"{method}(): {given!r} does not begin at {schema.name}")
        return _along(schema, given)
    if isinstance(given, ClauseElement):
        raise FieldError(f"{method}() wants relations, and {given} is a column")
    raise TypeError(f"{method}() wants paths or their dotted names, not {given!r}")


def dotted(chain: Chain) -> str:
    """The name of *chain*: `author.country`."""
    return ".".join(relation.name for relation in chain)


def other_side(foreign_key: Any) -> str | None:
    """The name under which the row that the unique *foreign_key* refers to knows the one that has it, if it does."""
    if not foreign_key.unique:
        return None
    for name, relation in foreign_key.target.__schema__.relations.items():
        if relation.to_one and not relation.is_foreign_key and relation.steps[0].foreign_key is foreign_key:
            return str(name)
    return None


def _named(schema: Schema, method: str, names: str) -> Chain:
    chain: list[Relation] = []
    for name in names.split("."):
        relation = schema.relations.get(name)
        if relation is None:
            what = "is no relation" if name in schema.by_name else "does not exist"
            raise FieldError(f"{method}(): {schema.name}.{name} {what}{nearest(name, schema.relations)}")
        chain.append(relation)
        schema = relation.target.__schema__
    return tuple(chain)


def _along(schema: Schema, path: Path) -> Chain:
    preferred = set(path._label.split("."))
    steps: list[Step] = []
    while path._step is not None and path._parent is not None:
        steps.insert(0, path._step)
        path = path._parent
    return next(_chains(schema, tuple(steps), preferred))


def _chains(schema: Schema, steps: tuple[Step, ...], preferred: set[str]) -> Iterator[Chain]:
    """The chains along *steps*, those of the longest relations first, and of two alike the *preferred*."""
    if not steps:
        yield ()
        return
    fitting = [each for each in schema.relations.values() if each.steps == steps[: len(each.steps)]]
    for relation in sorted(fitting, key=lambda each: (-len(each.steps), each.name not in preferred)):
        for rest in _chains(relation.target.__schema__, steps[len(relation.steps) :], preferred):
            yield (relation, *rest)
