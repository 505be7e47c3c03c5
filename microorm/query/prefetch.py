"""Prefetching: the related rows of a list of instances, loaded by one statement for each relation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Select, bindparam, literal, select, union_all
from sqlalchemy.sql import ClauseElement

from microorm.db.aio.twins import function_twin
from microorm.db.autocommit import READS, AutocommitConnection
from microorm.db.engines.engine import Database
from microorm.db.transaction import Transaction
from microorm.mapping.schema import Schema
from microorm.mapping.state import keep_related, kept_related
from microorm.messages import brief
from microorm.query.joins import Chain, chain_of, dotted, relate
from microorm.sql.batches import MAX_BYTES, MAX_PARAMETERS, sliced
from microorm.sql.hydration import Entry, fetched, fields_of

Owners = dict[Any, list[Any]]  # instances, by the key with which their related rows are found

MAX_COMPARED = 100
"""How many texts one statement compares with a column; SQLite takes a union of 500 SELECTs."""


class Prefetch:
    """Related rows that are loaded by *query*: `Prefetch(Author.books, Book.objects.order_by("title"))`.

    *path*: the relation, as a path or its dotted name. Of many related rows, only those that *query* finds are kept. A
    single one that it does not find is loaded when the attribute is read. Raises `TypeError` unless *query* is a query
    that is neither limited nor grouped.
    """

    __slots__ = ("path", "query")

    def __init__(self, path: type[Any] | str, query: Iterable[Any]) -> None:
        if not hasattr(query, "_prefetched"):
            raise TypeError(f"Prefetch() takes a query, not {brief(query)}")
        rows: Any = query
        if rows._limit is not None or rows._offset:
            raise TypeError("Prefetch() uses one query for all instances, so it cannot be limited")
        rows._refuse_grouped("Prefetch")
        self.path = path
        self.query = rows

    def __repr__(self) -> str:
        return f"Prefetch({self.path!r}, {self.query!r})"


class Fetch(NamedTuple):
    """A chain of relations, and the query of the rows at its end; None for all of them."""

    chain: Chain
    query: Any


class Level:
    """One relation, the query of its rows, and what to fetch from these rows on."""

    def __init__(self, relation: Any) -> None:
        self.relation = relation
        self.query: Any = None
        self.further: list[Fetch] = []


def fetches_of(schema: Schema, known: tuple[Fetch, ...], given: Sequence[Any]) -> tuple[Fetch, ...]:
    """Return the fetches *known* and those *given*: paths, dotted names and `Prefetch` objects."""
    found = list(known)
    queried = {dotted(fetch.chain) for fetch in known if fetch.query is not None}
    for each in given:
        path, query = (each.path, each.query) if isinstance(each, Prefetch) else (each, None)
        chain = chain_of(schema, "prefetch_related", path)
        if query is not None:
            name, target = dotted(chain), chain[-1].target
            if query._model is not target:
                raise TypeError(f"Prefetch({name!r}) takes a query of {target.__name__}, not {brief(query)}")
            if name in queried:
                raise ValueError(f"prefetch_related() got two queries for {name!r}")
            queried.add(name)
        found.append(Fetch(chain, query))
    return tuple(found)


def prefetch(instances: Iterable[Any], *paths: type[Any] | str | Prefetch) -> None:
    """Load the related rows of *instances*, all of one model, along *paths*, as `Query.prefetch_related` does.

    Example: `prefetch(authors, Author.books)`; then `author.books.all()` sends no statement.

    Rows that are loaded already are not loaded again, except by a `Prefetch`. Raises `TypeError` for instances of several
    models, and what `prefetch_related` and the database raise.
    """
    found = list(instances)
    if not found:
        return
    model = type(found[0])
    if not hasattr(model, "__schema__"):
        raise TypeError(f"prefetch() takes instances of a model, not {brief(found[0])}")
    if (other := next((each for each in found if type(each) is not model), None)) is not None:
        raise TypeError(f"prefetch() takes instances of one model, not {brief(found[0])} and {brief(other)}")
    prefetch_related(found, fetches_of(model.__schema__, (), paths), None)


aprefetch = function_twin(prefetch)


def prefetch_related(instances: Sequence[Any], fetches: Iterable[Fetch], using: str | None) -> None:
    """Load the related rows of *instances* along *fetches*: from *using*, else routed, by default from their own alias."""
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
        groups.setdefault(instance._row_state.alias, []).append(instance)
    for group in groups.values():
        for level in levels.values():
            _load(level, group, using)


def _load(level: Level, instances: list[Any], using: str | None) -> None:
    """Load one relation of *instances*, and then those that follow it."""
    relation, query = level.relation, level.query
    if query is not None and query._using is not None:
        using = query._using
    rows: Any = query
    further = level.further
    if query is None:  # a single row is found as by its attribute, without a default filter
        rows = relation.target._all_rows if relation.to_one else relation.target.objects
        further = [*rows._prefetched, *further]
    if owners := _owners(instances, relation, anew=query is not None):
        first = next(iter(owners.values()))[0]
        # The relations that follow determine which fields are needed; they are loaded after all rows are there.
        rows = rows._with(_owner=first, _using=using, _prefetched=tuple(further))._completed()
        rows = rows._with(_prefetched=())
        (_set_one if relation.to_one else _set_many)(relation, owners, rows)
    if further and (related := _related(instances, relation)):
        prefetch_related(related, further, using)


def _owners(instances: Iterable[Any], relation: Any, *, anew: bool) -> Owners:
    """Return those of *instances* whose related rows have to be loaded; *anew*: even those that are loaded already."""
    name, near = relation.name, relation.steps[0].near.name
    owners: Owners = {}
    for instance in instances:
        key = getattr(instance, near)
        if key is None or isinstance(key, ClauseElement):
            continue
        if not anew:
            loaded = kept_related(instance, name)
            if loaded is not None and loaded[0] == key:
                continue
        owners.setdefault(key, []).append(instance)
    return owners


def _related(instances: Iterable[Any], relation: Any) -> list[Any]:
    """Return the loaded instances that *instances* are related to, each once."""
    found: dict[int, Any] = {}
    for instance in instances:
        loaded = kept_related(instance, relation.name)
        if loaded is None or loaded[1] is None:
            continue
        for each in (loaded[1],) if relation.to_one else loaded[1]:
            found[id(each)] = each
    return list(found.values())


def _set_one(relation: Any, owners: Owners, query: Any) -> None:
    """Load the one row that each of *owners* is related to, and set it."""
    far = relation.steps[0].far
    found = {each.__dict__[far.name]: each for each in _found(query, far, owners)}
    # A text type of microorm compares as Python does; the collation of another one is unknown.
    if far.options.get("type_") is not None or found.keys() - owners.keys():
        equal = _equal_in_database(query, far.column, owners.keys() - found.keys())
        found |= {key: found[value] for key, value in equal.items() if value in found}
    everything = not (query._where or query._equal[0])
    pairs = [
        (owner, found.get(key))
        for key, same in owners.items()
        if everything or key in found
        for owner in same
    ]
    relate(relation, [owner for owner, _ in pairs], [one for _, one in pairs])


def _set_many(relation: Any, owners: Owners, query: Any) -> None:
    """Load the rows that each of *owners* is related to, and set them."""
    step, direct = relation.steps[0], len(relation.steps) == 1
    if direct:
        pairs = [(each.__dict__[step.far.name], each) for each in _found(query, step.far, owners)]
    else:
        pairs = list(_found_through(query, relation.steps, owners))
    first = next(iter(owners.values()))[0]
    same_alias = type(first)._all_rows._with(_using=first._row_state.alias)
    equal = _equal_in_database(same_alias, step.near.column, {value for value, _ in pairs} - owners.keys())
    lists: dict[Any, dict[int, Any]] = {key: {} for key in owners}
    for value, each in pairs:
        key = equal.get(value, value)
        if key not in lists:  # the key has been changed in the database: each attribute loads its rows
            return
        lists[key][id(each)] = each  # once, even if through rows relate it twice
        if direct:
            keep_related(each, step.foreign_key.name, (value, owners[key][0]))
    for key, same in owners.items():
        for owner in same:
            keep_related(owner, relation.name, (key, list(lists[key].values())))


def _equal_in_database(query: Any, column: Any, keys: Iterable[Any]) -> dict[Any, Any]:
    """Return the value of the unique *column* that the database finds equal to each of the texts among *keys*.

    A collation may find texts equal that Python does not, such as 'de' and 'DE'. *query* says which database is asked.
    """
    texts = [key for key in keys if isinstance(key, str)]
    if not texts:
        return {}
    database, transaction = query._place()
    found: dict[Any, Any] = {}
    for part in sliced(texts, MAX_COMPARED):
        pairs: Any = union_all(
            *[
                select(literal(index), column).where(column == bindparam(None, text, column.type))
                for index, text in enumerate(part)
            ]
        )
        with transaction or AutocommitConnection(database, READS) as channel:
            rows: Any = channel.fetch(pairs)
            found |= {part[index]: value for index, value in rows}
    return found


def _found(query: Any, far: Any, owners: Owners) -> Iterator[Any]:
    """Yield the instances of *query* whose field *far* is one of the keys of *owners*."""
    query = query._loading(
        frozenset(each.name for each in fields_of(query._schema, query._names)) | {far.name}
    )
    place = query._place()
    for rows in _executed(place, query.statement, far.column, owners, query._entries):
        yield from query._made(rows, place[0])


def _found_through(query: Any, steps: Sequence[Any], owners: Owners) -> Iterator[tuple[Any, Any]]:
    """Yield pairs of a key of *owners* and the instance of *query*, one for a row, that a through row relates to it."""
    schema: Schema = query._schema
    place = query._place()
    near, far = steps[0].far, steps[1]
    through = far.foreign_key.owner.__table__.alias()
    column = through.c[near.column.key]
    statement = query.statement.add_columns(column)
    statement = statement.join(through, through.c[far.near.column.key] == far.far.column)
    names = [each.name for each in fields_of(schema, query._names)]
    indexes = [names.index(name) for name in schema.key_names]
    known: dict[Any, Any] = {}
    for rows in _executed(place, statement, column, owners, [*query._entries, None]):
        keys = [tuple([row[index] for index in indexes]) for row in rows]
        fresh = {key: row[:-1] for key, row in zip(keys, rows, strict=True) if key not in known}
        known.update(zip(fresh, query._made(list(fresh.values()), place[0]), strict=True))
        for key, row in zip(keys, rows, strict=True):
            yield row[-1], known[key]


def _executed(
    place: tuple[Database, Transaction | None],
    statement: Select[Any],
    column: Any,
    owners: Owners,
    entries: Sequence[Entry],
) -> Iterator[Any]:
    """Yield the rows of *statement*, which have *entries*, whose *column* is one of the keys of *owners*, in as many parts as needed."""
    database, transaction = place
    for keys in _batches(database, statement, list(owners)):
        with transaction or AutocommitConnection(database, READS) as channel:
            rows = fetched(channel, statement.where(column.in_(keys)), entries)
        yield rows


def _batches(database: Database, statement: Select[Any], keys: list[Any]) -> Iterator[Sequence[Any]]:
    """Cut *keys* into parts that fit into one statement beside the parameters of *statement*."""
    size = MAX_PARAMETERS.get(database.dialect)
    if size is None:
        size = max(1, MAX_BYTES // max(len(repr(key)) + 2 for key in keys))
    elif len(keys) > size // 2:
        size -= len(statement.compile(dialect=database.engine.dialect).params)
    return sliced(keys, size)
