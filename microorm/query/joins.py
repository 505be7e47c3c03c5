"""Related rows: those that `select_related` loads in the same statement, and the one that an attribute loads.

A path (`Book.author.country`) or a dotted name (`"author.country"`) is resolved to a chain of relations. Rows of a join become
instances that refer to each other.
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
from microorm.mapping.state import keep_related
from microorm.messages import brief
from microorm.sql.hydration import fields_of, hydrate


class Branch(NamedTuple):
    """A relation to one row, which is loaded in the same statement, and the path to that row."""

    relation: Relation
    path: Path


def branches_of(schema: Schema, known: tuple[Branch, ...], given: Sequence[Any]) -> tuple[Branch, ...]:
    """Return the branches *known* and those of the paths or dotted names *given*, each after its parent."""
    found = dict.fromkeys(known)
    for each in given:
        path = root(schema)
        for relation in chain_of(schema, "select_related", each):
            if not relation.to_one:
                raise FieldError(
                    f"select_related(): {relation.label} leads to many rows; use prefetch_related()"
                )
            path = follow(path, relation)
            found[Branch(relation, path)] = None
    return tuple(found)


def columns_of(branches: Sequence[Branch]) -> list[Any]:
    """Return the columns of the rows at the ends of *branches*, keys included: the key of a missing row is NULL."""
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
    """Return the instances of *rows*, which have the fields *wanted* and then those of the *branches*.

    There is one instance for each related row. Instances refer to each other, in both directions where both are to one.
    """
    start = len(fields_of(schema, wanted))
    instances = hydrate(schema, [row[:start] for row in rows], alias, wanted)
    at: dict[Path, list[Any]] = {root(schema): instances}
    found: dict[Schema, dict[Any, Any]] = {}
    for branch in branches:
        parent, there = branch.path._parent, branch.path._schema
        assert parent is not None
        end = start + len(there.fields)
        keys = _keys(there, rows, start)
        known = found.setdefault(there, {})
        fresh = {key: row for key, row in zip(keys, rows, strict=True) if key not in known}
        fresh.pop(None, None)
        made = hydrate(there, [row[start:end] for row in fresh.values()], alias)
        known.update(zip(fresh, made, strict=True))
        at[branch.path] = [known.get(key) for key in keys]
        relate(branch.relation, at[parent], at[branch.path])
        start = end
    return instances


def _keys(schema: Schema, rows: Sequence[Any], start: int) -> list[Any]:
    """Return the key in each of *rows*, whose columns of *schema* begin at *start*; None where the row is missing."""
    indexes = [start + schema.names.index(name) for name in schema.key_names]
    if len(indexes) == 1:
        index = indexes[0]
        return [row[index] for row in rows]
    keys = [tuple([row[index] for index in indexes]) for row in rows]
    return [None if key[0] is None else key for key in keys]


def relate(relation: Any, near: Sequence[Any], far: Sequence[Any]) -> None:
    """Set in each instance of *near* the related one of *far*, or None, and the reverse where that is to one, too.

    *near* may contain None.
    """
    step = relation.steps[0]
    name, here, there = relation.name, step.near.name, step.far.name
    for one, other in zip(near, far, strict=True):
        if one is not None:  # as keep_related() does, without a call for each row
            if one._related is None:
                one._related = {name: (one.__dict__[here], other)}
            else:
                one._related[name] = (one.__dict__[here], other)
    back = step.foreign_key.name if step.reverse else other_side(step.foreign_key)
    if back is None:
        return
    for one, other in zip(near, far, strict=True):
        if one is not None and other is not None:
            keep_related(other, back, (other.__dict__[there], one))


Chain = tuple[Relation, ...]


def chain_of(schema: Schema, method: str, given: Any) -> Chain:
    """Return the relations of the path or dotted name *given* to *method*, from the model of *schema* on.

    A path along a many-to-many relation means that relation, not the through rows; a dotted name can name either. Raises
    `FieldError` for an unknown name, a column, and a path of another model, `TypeError` for anything else.
    """
    if isinstance(given, str):
        return _named(schema, method, given)
    if isinstance(given, Path):
        if given._root is not schema:
            raise FieldError(f"{method}(): {brief(given)} does not start at {schema.name}")
        return _along(schema, given)
    if isinstance(given, ClauseElement):
        raise FieldError(f"{method}() takes relations; {given} is a column")
    raise TypeError(f"{method}() takes paths or dotted names, not {brief(given)}")


def dotted(chain: Chain) -> str:
    """Return the dotted name of *chain*: `author.country`."""
    return ".".join(relation.name for relation in chain)


def other_side(foreign_key: Any) -> str | None:
    """Return the name of the relation to one row that reverses the unique *foreign_key*; None where there is none."""
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
            what = "is not a relation" if name in schema.by_name else "does not exist"
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
    """Yield the chains along *steps*: first those of relations with most steps, and of these the *preferred* names."""
    if not steps:
        yield ()
        return
    fitting = [each for each in schema.relations.values() if each.steps == steps[: len(each.steps)]]
    for relation in sorted(fitting, key=lambda each: (-len(each.steps), each.name not in preferred)):
        for rest in _chains(relation.target.__schema__, steps[len(relation.steps) :], preferred):
            yield (relation, *rest)


def load_related(instance: Any, relation: Any, key: Any) -> Any:
    """Return the row that *relation* of *instance* leads to by *key*, or None; one statement, routed as a read.

    Where the reverse is to one, the row found refers to *instance*. Raises `LazyLoadError` inside `no_lazy_loads()`.
    """
    refuse_lazy(instance, relation.name)
    step = relation.steps[-1]
    rows = step.schema.model._all_rows
    found = rows._with(_equal=((step.far.name,), (key,)), _owner=instance).all()
    if not found:
        return None
    back = step.foreign_key.name if step.reverse else other_side(step.foreign_key)
    if back is not None:
        keep_related(found[0], back, (key, instance))
    return found[0]
