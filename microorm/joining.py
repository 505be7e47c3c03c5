"""Joining: rows that hold what several models' rows hold, made instances that know each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from microorm.chains import chain_of, other_side
from microorm.errors import FieldError
from microorm.mapping.foreign_key import Relation
from microorm.mapping.path import Path, alias_of, follow, root
from microorm.mapping.schema import Schema
from microorm.sql.hydration import fields_of, instances_of


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
    place = len(fields_of(schema, wanted))
    instances = instances_of(schema, [row[:place] for row in rows], alias, wanted)
    at: dict[Path, list[Any]] = {root(schema): instances}
    found: dict[Schema, dict[Any, Any]] = {}
    for branch in branches:
        parent, there = branch.path._parent, branch.path._schema
        assert parent is not None
        end = place + len(there.fields)
        keys = _keys(there, rows, place)
        known = found.setdefault(there, {})
        fresh = {key: row for key, row in zip(keys, rows, strict=True) if key not in known}
        fresh.pop(None, None)
        made = instances_of(there, [row[place:end] for row in fresh.values()], alias)
        known.update(zip(fresh, made, strict=True))
        at[branch.path] = [known.get(key) for key in keys]
        relate(branch.relation, at[parent], at[branch.path])
        place = end
    return instances


def _keys(schema: Schema, rows: Sequence[Any], start: int) -> list[Any]:
    """The key in each of *rows*, whose columns of *schema* begin at *start*; None where the row is missing."""
    places = [start + schema.names.index(name) for name in schema.key_names]
    if len(places) == 1:
        place = places[0]
        return [row[place] for row in rows]
    keys = [tuple([row[place] for place in places]) for row in rows]
    return [None if key[0] is None else key for key in keys]


def relate(relation: Any, near: Sequence[Any], far: Sequence[Any]) -> None:
    """Keep in each of *near* the instance of *far* in its place, or None, as what *relation* leads to.

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
