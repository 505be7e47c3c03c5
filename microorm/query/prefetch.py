"""Prefetching: what a list of instances is related to, loaded by one statement for each relation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Select
from sqlalchemy.sql import ClauseElement

from microorm.db.connection import Lone
from microorm.db.engine import Database
from microorm.db.transaction import Transaction
from microorm.mapping.schema import Schema
from microorm.query.joins import Chain, chain_of, dotted, relate
from microorm.sql.batches import MOST_BYTES, MOST_PARAMETERS
from microorm.sql.hydration import fields_of

Owners = dict[Any, list[Any]]  # the instances by the key that their related rows are found by


class Prefetch:
    """What a path, or its dotted name, leads to, loaded by *query*: `Prefetch(Author.books, Book.objects.order_by("title"))`.

    Of many rows those that *query* leaves out are not among the related ones; a single row that it leaves out is loaded
    when it is asked for. Raises `TypeError` where *query* is none, is limited, or is grouped.
    """

    __slots__ = ("path", "query")

    def __init__(self, path: type[Any] | str, query: Iterable[Any]) -> None:
        if not hasattr(query, "_prefetched"):
            raise TypeError(f"Prefetch() wants a query, not {query!r}")
        asked: Any = query
        if asked._limit is not None or asked._offset:
            raise TypeError("Prefetch() shares one query among many instances, and this one is limited")
        asked._refuse_grouped("Prefetch")
        self.path = path
        self.query = asked

    def __repr__(self) -> str:
        return f"Prefetch({self.path!r}, {self.query!r})"


class Fetch(NamedTuple):
    """The relations to go along, and the query of what is at their end, unless that is all there is."""

    chain: Chain
    query: Any


@dataclass(slots=True)
class Level:
    """One relation, the query of its rows, and what to fetch from there."""

    relation: Any
    query: Any = None
    further: list[Fetch] = field(default_factory=list)


def fetches_of(schema: Schema, known: tuple[Fetch, ...], given: Sequence[Any]) -> tuple[Fetch, ...]:
    """The fetches *known*, and those of *given*: paths, dotted names and `Prefetch`es.

    Raises `FieldError` for an unknown name, `TypeError` for what is no path and for a query of another model,
    `ValueError` for a second query of the same rows.
    """
    found = list(known)
    queried = {dotted(fetch.chain) for fetch in known if fetch.query is not None}
    for each in given:
        path, query = (each.path, each.query) if isinstance(each, Prefetch) else (each, None)
        chain = chain_of(schema, "prefetch_related", path)
        if query is not None:
            name, target = dotted(chain), chain[-1].target
            if query._model is not target:
                raise TypeError(f"Prefetch({name!r}) wants a query of {target.__name__}, not {query!r}")
            if name in queried:
                raise ValueError(f"prefetch_related() was given two queries for {name!r}")
            queried.add(name)
        found.append(Fetch(chain, query))
    return tuple(found)


def prefetch(instances: Iterable[Any], *paths: type[Any] | str | Prefetch) -> None:
    """Load what *instances*, all of one model, are related to along *paths*, as `Query.prefetch_related` does.

    What is known already is not loaded again, unless a `Prefetch` asks for it. Raises `TypeError` for instances of
    several models, and what `prefetch_related` and the database raise.
    """
    found = list(instances)
    if not found:
        return
    model = type(found[0])
    if not hasattr(model, "__schema__"):
        raise TypeError(f"prefetch() wants instances of a model, not {found[0]!r}")
    if (other := next((each for each in found if type(each) is not model), None)) is not None:
        raise TypeError(f"prefetch() wants instances of one model, not {found[0]!r} and {other!r}")
    prefetch_related(found, fetches_of(model.__schema__, (), paths), None)


def prefetch_related(instances: Sequence[Any], fetches: Iterable[Fetch], using: str | None) -> None:
    """Load what *instances* are related to along *fetches*: from *using*, else from their own alias unless routed."""
    levels: dict[str, Level] = {}
    for (relation, *rest), query in fetches:
        level = levels.setdefault(relation.name, Level(relation))
        if rest:
            level.further.append(Fetch(tuple(rest), query))
        elif query is not None:
            level.query = query
            level.further[:0] = query._prefetched
    groups: dict[str | None, list[Any]] = {}
    for instance in instances:
        groups.setdefault(instance._origin.alias, []).append(instance)
    for group in groups.values():
        for level in levels.values():
            _load(level, group, using)


def _load(level: Level, instances: list[Any], using: str | None) -> None:
    """Load one level, and what lies behind it."""
    relation, query = level.relation, level.query
    if query is not None and query._using is not None:
        using = query._using
    if owners := _owners(instances, relation, anew=query is not None):
        first = next(iter(owners.values()))[0]
        asked = relation.target.objects if query is None else query
        # What lies behind it says which fields are needed, and is loaded once all rows are there.
        rows = asked._with(_owner=first, _using=using, _prefetched=tuple(level.further))._completed()
        rows = rows._with(_prefetched=())
        (_keep_one if relation.to_one else _keep_many)(relation, owners, rows)
    if level.further and (related := _related(instances, relation)):
        prefetch_related(related, level.further, using)


def _owners(instances: Iterable[Any], relation: Any, *, anew: bool) -> Owners:
    """Those of *instances* whose related rows are to be loaded: *anew*, or because they are not known."""
    name, near = relation.name, relation.steps[0].near.name
    owners: Owners = {}
    for instance in instances:
        key = getattr(instance, near)
        if key is None or isinstance(key, ClauseElement):
            continue
        if not anew:
            kept = instance.__dict__.get(name)
            if kept is not None and kept[0] == key:
                continue
        owners.setdefault(key, []).append(instance)
    return owners


def _related(instances: Iterable[Any], relation: Any) -> list[Any]:
    """The instances that *instances* are known to be related to, each once."""
    found: dict[int, Any] = {}
    for instance in instances:
        kept = instance.__dict__.get(relation.name)
        if kept is None or kept[1] is None:
            continue
        for each in (kept[1],) if relation.to_one else kept[1]:
            found[id(each)] = each
    return list(found.values())


def _keep_one(relation: Any, owners: Owners, query: Any) -> None:
    """Load the one row that each of *owners* is related to."""
    far = relation.steps[0].far
    found = {each.__dict__[far.name]: each for each in _found(query, far, owners)}
    everything = not (query._where or query._equal[0]) and found.keys() <= owners.keys()
    pairs = [
        (owner, found.get(key))
        for key, same in owners.items()
        if everything or key in found
        for owner in same
    ]
    relate(relation, [owner for owner, _ in pairs], [one for _, one in pairs])


def _keep_many(relation: Any, owners: Owners, query: Any) -> None:
    """Load the rows that each of *owners* is related to.

    A database may hold keys for equal that are none here, by the collation of a text: then nobody can tell whose a row
    is, and all is left to be loaded when it is asked for.
    """
    lists: dict[Any, dict[int, Any]] = {key: {} for key in owners}
    astray: dict[int, Any] = {}
    if len(relation.steps) == 1:
        step = relation.steps[0]
        name, there = step.foreign_key.name, step.far.name
        for each in _found(query, step.far, owners):
            key = each.__dict__[there]
            lists.get(key, astray)[id(each)] = each
            if not astray:
                each.__dict__[name] = (key, owners[key][0])
    else:
        for key, each in _found_beyond(query, relation.steps, owners):
            lists.get(key, astray)[id(each)] = each  # which may be related to it twice
    if astray:
        return
    for key, same in owners.items():
        related = list(lists[key].values())
        for owner in same:
            owner.__dict__[relation.name] = (key, related)


def _found(query: Any, far: Any, owners: Owners) -> Iterator[Any]:
    """The instances of *query* whose field *far* is one of the keys of *owners*."""
    query = query._loading(
        frozenset(each.name for each in fields_of(query._schema, query._names)) | {far.name}
    )
    place = query._place()
    for rows in _sent(place, query.statement, far.column, owners):
        yield from query._made(rows, place[0])


def _found_beyond(query: Any, steps: Sequence[Any], owners: Owners) -> Iterator[tuple[Any, Any]]:
    """The instances of *query* that rows between relate to the keys of *owners*, each with that key; one of each row."""
    schema: Schema = query._schema
    place = query._place()
    near, far = steps[0].far, steps[1]
    between = far.foreign_key.owner.__table__.alias()
    column = between.c[near.column.key]
    statement = query.statement.add_columns(column)
    statement = statement.join(between, between.c[far.near.column.key] == far.far.column)
    names = [each.name for each in fields_of(schema, query._names)]
    places = [names.index(name) for name in schema.key_names]
    known: dict[Any, Any] = {}
    for rows in _sent(place, statement, column, owners):
        keys = [tuple([row[place] for place in places]) for row in rows]
        fresh = {key: row[:-1] for key, row in zip(keys, rows, strict=True) if key not in known}
        known.update(zip(fresh, query._made(list(fresh.values()), place[0]), strict=True))
        for key, row in zip(keys, rows, strict=True):
            yield row[-1], known[key]


def _sent(
    place: tuple[Database, Transaction | None], statement: Select[Any], column: Any, owners: Owners
) -> Iterator[Any]:
    """The rows of *statement* whose *column* is one of the keys of *owners*, in as many parts as the database wants."""
    database, transaction = place
    for keys in _batches(database, statement, list(owners)):
        with transaction or Lone(database, writes=False) as channel:
            rows = channel.execute(statement.where(column.in_(keys))).fetchall()
        yield rows


def _batches(database: Database, statement: Select[Any], keys: list[Any]) -> Iterator[list[Any]]:
    """Cut *keys* into parts that the database takes beside the parameters of *statement*."""
    most = MOST_PARAMETERS.get(database.dialect)
    if most is None:
        most = max(1, MOST_BYTES // max(len(repr(key)) + 2 for key in keys))
    elif len(keys) > most // 2:
        most -= len(statement.compile(dialect=database.engine.dialect).params)
    for start in range(0, len(keys), most):
        yield keys[start : start + most]
