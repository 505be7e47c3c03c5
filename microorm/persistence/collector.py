"""Collecting: what goes along with rows that are deleted, as the `on_delete` of the foreign keys says (CONTRACT J).

Nothing is written here. Rows are asked for level by level, those of one key together: whole where somebody is told of
them, else their keys. Rows that nobody is told of and no table refers to are not asked for at all.

Delete order: in what order rows go, those that refer to others first.

Models that do not refer to each other in a circle go one after another. Inside a circle of models, a tree in one
table among them, the rows decide; where rows refer to each other in a circle, some of these keys have to be NULL
before.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import select

from microorm.db.connection import Channel
from microorm.errors import RestrictedError
from microorm.mapping.codegen import Row
from microorm.mapping.schema import Schema
from microorm.signals import post_delete, pre_delete
from microorm.sql.batches import batches
from microorm.sql.hydration import fields_of, hydrate
from microorm.sql.statements import key_row, plans_of

Values = dict[Any, "Leaving"]  # what is referred to → the row that has it

_KEYS_SHOWN = 3


def has_receivers(schema: Schema) -> bool:
    """Whether anybody is told of deleted rows, so that they have to be fetched."""
    before = pre_delete._connections and pre_delete._route(schema.model)
    return bool(before or (post_delete._connections and post_delete._route(schema.model)))


def referred_to(schema: Schema) -> bool:
    """Whether a delete has to look for rows that refer to those it deletes."""
    keys = schema.registry.referring(schema.model)
    return bool(keys) and any(key.action.effect != "ignore" for key in keys)


class Collection:
    """The rows that go, by model and key; by foreign key the values whose rows go unseen, and whose rows change."""

    def __init__(self, channel: Channel, schema: Schema) -> None:
        self.channel = channel
        self.rows: dict[Schema, dict[Row, Leaving]] = {}
        self.unseen: dict[Any, Values] = {}
        self.changed: dict[Any, Values] = {}
        self._schema = schema
        self._restricting: list[tuple[Any, Any, Leaving]] = []
        self._pending: dict[Schema, list[Leaving]] = {}
        self._keys: dict[Schema, list[Any]] = {}
        self._has_receivers: dict[Schema, bool] = {}
        self._names: dict[Schema, tuple[str, ...] | None] = {}
        self._held: Any = None

    def add(self, instances: Iterable[Any], held: Any = None) -> None:
        """Collect *instances* of the model that the delete is of, and all that goes along with them.

        Of *held*, which is the caller's, only the key is believed: its other values may not be those of the row.
        Raises `RestrictedError` where a row that stays refers to one that goes and may not.
        """
        self._held = held
        for instance in instances:
            self._add(self._schema, instance)
        while self._pending:
            schema = next(iter(self._pending))
            found = self._pending.pop(schema)
            referred: dict[str, Values] = {}
            for key in self.keys_to(schema):
                if (values := referred.get(key.to.name)) is None:
                    values = referred[key.to.name] = self._values(schema, key.to.name, found)
                self._follow(key, values)
        self._refuse_restricted()

    def has_receivers(self, schema: Schema) -> bool:
        """Whether somebody was told of deleted rows of the model when they were collected."""
        if (found := self._has_receivers.get(schema)) is None:
            found = self._has_receivers[schema] = has_receivers(schema)
        return found

    def names(self, schema: Schema) -> tuple[str, ...] | None:
        """The fields to load of rows that go: all (None) where somebody is told, else those that are keys."""
        if schema not in self._names:
            needed = {key.to.name for key in self.keys_to(schema)}
            needed.update(key.field.name for key in schema.foreign_keys)
            names = tuple([name for name in schema.names if name in needed or name in schema.key_names])
            whole = self.has_receivers(schema) or names == schema.names
            self._names[schema] = None if whole else names
        return self._names[schema]

    def keys_to(self, schema: Schema) -> list[Any]:
        """The foreign keys that refer to the model, and are not left to the database; of tables that are here."""
        found = self._keys.get(schema)
        if found is None:
            found = self._keys[schema] = [
                key
                for key in schema.registry.referring(schema.model)
                if key.action.effect != "ignore" and self._is_here(key.owner.__schema__)
            ]
        return found

    def dependants(self, schema: Schema) -> Iterator[Schema]:
        """The models whose rows go before those of *schema*."""
        for key in schema.registry.referring(schema.model):
            if key.action.keeps_reference(key):
                yield key.owner.__schema__

    def _is_here(self, schema: Schema) -> bool:
        databases = schema.registry.databases
        return not databases.routers or databases.allows_migration(
            self.channel.database.alias, schema.label, schema.model
        )

    def _add(self, schema: Schema, instance: Any) -> Leaving:
        known = self.rows.setdefault(schema, {})
        key = key_row(schema, instance) if instance is self._held else key_of(schema, instance)
        if (row := known.get(key)) is None:
            row = known[key] = Leaving(schema, key, instance)
            self._pending.setdefault(schema, []).append(row)
        return row

    def _values(self, schema: Schema, name: str, found: list[Leaving]) -> Values:
        """What of *found* is referred to: the values in the database, whatever the caller's instance has by now."""
        if name in schema.key_names:
            index = schema.key_names.index(name)
            return {row.key[index]: row for row in found}
        values = {}
        for row in found:
            if row.instance is self._held:
                load = plans_of(schema, self.channel.database).select(schema.key_names, wanted=(name,))
                values.update({value: row for (value,) in load.values(self.channel, row.key)})
            else:
                values[row.instance.__dict__[name]] = row
        values.pop(None, None)
        return values

    def _follow(self, key: Any, values: Values) -> None:
        """Note what becomes of the rows that refer by *key* to one of *values*."""
        schema: Schema = key.owner.__schema__
        if not values:
            return
        if key.action.effect == "update":
            self.changed.setdefault(key, {}).update(values)
        elif key.action.effect == "refuse":
            for child in self._referring(key, values):
                self._restricting.append((key, child, _parent(key, child, values)))
        elif self.has_receivers(schema) or schema.registry.referring(schema.model):
            for child in self._referring(key, values):
                _parent(key, child, values).dependants.append((self._add(schema, child), key))
        else:
            self.unseen.setdefault(key, {}).update(values)

    def _referring(self, key: Any, values: Values) -> Iterator[Any]:
        """The rows that refer by *key* to one of *values*; one value is asked for by a prepared statement."""
        schema, channel = key.owner.__schema__, self.channel
        names, wanted = self.names(schema), list(values)
        if len(wanted) == 1:
            load = plans_of(schema, channel.database).select((key.field.name,), wanted=names)
            yield from load.instances(channel, (wanted[0],))
            return
        columns = [field.column for field in fields_of(schema, names)]
        for batch in batches(channel, wanted, lambda value: (value,), None):
            statement = select(*columns).where(key.field.column.in_(batch))
            found = channel.execute(statement).fetchall()
            yield from hydrate(schema, found, channel.database.alias, names)

    def _refuse_restricted(self) -> None:
        in_the_way: dict[Any, dict[Row, Any]] = {}
        for key, child, parent in self._restricting:
            schema: Schema = key.owner.__schema__
            row = key_of(schema, child)
            if (known := self.rows.get(schema, {}).get(row)) is not None:
                parent.dependants.append((known, key))
            elif not self._goes_unseen(schema, child):
                in_the_way.setdefault(key, {})[row] = child
        if in_the_way:
            shown = " and ".join(_shown(key, list(found)) for key, found in in_the_way.items())
            objects = [child for found in in_the_way.values() for child in found.values()]
            raise RestrictedError(f"{self._schema.name} cannot be deleted while {shown}", objects)

    def _goes_unseen(self, schema: Schema, child: Any) -> bool:
        return any(
            key in self.unseen and child.__dict__.get(key.field.name) in self.unseen[key]
            for key in schema.foreign_keys
        )


def key_of(schema: Schema, instance: Any) -> Row:
    """The key of *instance* as a row."""
    values = instance.__dict__
    return tuple([values[name] for name in schema.key_names])


def _parent(key: Any, child: Any, values: Values) -> Leaving:
    """The row that *child* refers to by *key*; some row where a collation finds values equal that are not."""
    return values.get(child.__dict__[key.field.name]) or next(iter(values.values()))


def _shown(key: Any, rows: Sequence[Row]) -> str:
    """Which rows refer by *key*: how many, of what, and some of their keys."""
    keys = ", ".join(repr(row[0] if len(row) == 1 else row) for row in rows[:_KEYS_SHOWN])
    more = ", …" if len(rows) > _KEYS_SHOWN else ""
    refer = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
    verb = "refers" if len(rows) == 1 else "refer"
    return f"{refer} of {key.owner.__schema__.label} {verb} to {key.target.__name__} by {key.name!r}: {keys}{more}"


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
    index: dict[T, int] = {}
    lowest: dict[T, int] = {}
    line: list[T] = []
    inside: set[T] = set()
    for start in items:
        trail = [] if start in index else [start]
        rest: dict[T, Any] = {}
        while trail:
            item = trail[-1]
            if item not in index:
                index[item] = lowest[item] = len(index)
                line.append(item)
                inside.add(item)
                rest[item] = iter(following(item))
            for other in rest[item]:
                if other not in index:
                    trail.append(other)
                    break
                if other in inside:
                    lowest[item] = min(lowest[item], index[other])
            else:
                trail.pop()
                if trail:
                    lowest[trail[-1]] = min(lowest[trail[-1]], lowest[item])
                if lowest[item] == index[item]:
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
