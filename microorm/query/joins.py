"""Joining: rows that hold what several models' rows hold, made instances that know each other.

Chains: the relations that a path or a dotted name goes along, one after the other.

Following: the one instance that another refers to, or that refers to it, loaded when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy.sql import ClauseElement

from microorm.db.context import refuse_lazy
from microorm.errors import FieldError, nearest
from microorm.mapping.foreign_key import Relation
from microorm.mapping.path import Path, Step, alias_of, follow, root
from microorm.mapping.schema import Schema
from microorm.sql.hydration import fields_of, hydrate


class Branch(NamedTuple):
    """A relation to one row, which is loaded in the same statement, and the path that stands for that row."""

    relation: Relation
    path: Path


def branches_of(schema: Schema, known: tuple[Branch, ...], given: Sequence[Any]) -> tuple[Branch, ...]:
    """The branches *known* and those to the rows that *given*, paths or dotted names, lead to, each after its parent.

    Raises `FieldError` for an unknown name and for a path to many rows, `TypeError` for what is no path.
    """
    found = dict.fromkeys(known)
    for each in given:
        path = root(schema)
        for relation in chain_of(schema, "select_related", each):
            if not relation.to_one:
                raise FieldError(
                    f"select_related(): {relation.label} leads to many rows, which prefetch_related() loads"
                )
            path = follow(path, relation)
            found[Branch(relation, path)] = None
    return tuple(found)


def columns_of(branches: Sequence[Branch]) -> list[Any]:
    """The columns of the rows at the ends of *branches*.

    They are taken from these rows throughout, keys included, so that a row that is missing is seen to be.
    """
    return [
        alias_of(branch.path).c[field.column.key]
        for branch in branches
        for field in branch.path._schema.fields
    ]


def joined_instances(
    schema: Schema,
    branches: Sequence[Branch],
    rows: Sequence[Any],
    alias: str,
    wanted: tuple[str, ...] | None,
) -> list[Any]:
    """The instances of *rows*, which hold the fields *wanted*, then those of the *branches*: one of each related row.

    They refer to each other, in both directions where each is to one.
    """
    index = len(fields_of(schema, wanted))
    instances = hydrate(schema, [row[:index] for row in rows], alias, wanted)
    at: dict[Path, list[Any]] = {root(schema): instances}
    found: dict[Schema, dict[Any, Any]] = {}
    for branch in branches:
        parent, there = branch.path._parent, branch.path._schema
        assert parent is not None
        end = index + len(there.fields)
        keys = _keys(there, rows, index)
        known = found.setdefault(there, {})
        fresh = {key: row for key, row in zip(keys, rows, strict=True) if key not in known}
        fresh.pop(None, None)
        made = hydrate(there, [row[index:end] for row in fresh.values()], alias)
        known.update(zip(fresh, made, strict=True))
        at[branch.path] = [known.get(key) for key in keys]
        relate(branch.relation, at[parent], at[branch.path])
        index = end
    return instances


def _keys(schema: Schema, rows: Sequence[Any], start: int) -> list[Any]:
    """The key in each of *rows*, whose columns of *schema* begin at *start*; None where the row is missing."""
    indexes = [start + schema.names.index(name) for name in schema.key_names]
    if len(indexes) == 1:
        index = indexes[0]
        return [row[index] for row in rows]
    keys = [tuple([row[index] for index in indexes]) for row in rows]
    return [None if key[0] is None else key for key in keys]


def relate(relation: Any, near: Sequence[Any], far: Sequence[Any]) -> None:
    """Keep in each of *near* the instance of *far* in its index, or None, as what *relation* leads to.

    And the other way around, where that is to one, too. Of *near* there may be None, of which nothing is known.
    """
    step = relation.steps[0]
    name, here, there = relation.name, step.near.name, step.far.name
    for one, other in zip(near, far, strict=True):
        if one is not None:
            values = one.__dict__
            values[name] = (values[here], other)
    back = step.foreign_key.name if step.reverse else other_side(step.foreign_key)
    if back is None:
        return
    for one, other in zip(near, far, strict=True):
        if one is not None and other is not None:
            values = other.__dict__
            values[back] = (values[there], one)


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


def load_related(instance: Any, relation: Any, key: Any) -> Any:
    """What *relation* of *instance* leads to by *key*: one statement, on the instance's alias unless routed; or None.

    Where it is the only one that leads back, what is found refers to *instance*, too. Raises `LazyLoadError` where lazy
    loads are refused.
    """
    refuse_lazy(instance, relation.name)
    step = relation.steps[-1]
    rows = step.schema.model.objects
    found = rows._with(_equal=((step.far.name,), (key,)), _owner=instance).all()
    if not found:
        return None
    back = step.foreign_key.name if step.reverse else other_side(step.foreign_key)
    if back is not None:
        found[0].__dict__[back] = (key, instance)
    return found[0]
