"""Collector: the rows of a delete, their dependent rows as `on_delete` says, and the order to delete them in.

Nothing is written here. Dependent rows are loaded level by level, with one query for each foreign key: all fields if the
model has receivers, else only keys. Rows without receivers or dependants are not loaded; they are deleted by the value
of their foreign key.

Rows that refer to others are deleted first. This is an order of models, unless these refer to each other in a cycle, or
one refers to itself: then the rows themselves are ordered. Cycles of rows are broken by setting foreign keys to NULL.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import select

from microorm.db.connection import Channel
from microorm.db.snapshots import Snapshot
from microorm.errors import RestrictedError
from microorm.mapping.codegen import Row
from microorm.mapping.schema import Schema
from microorm.signals import post_delete, pre_delete
from microorm.sql.batches import batches
from microorm.sql.hydration import fields_of, hydrate
from microorm.sql.statements import key_row, plans_of

Values = dict[Any, "CollectedRow"]  # referenced value → the row that has it

_KEYS_SHOWN = 3


def has_receivers(schema: Schema) -> bool:
    """Return whether the delete signals have receivers for the model, so that its rows have to be loaded."""
    before = pre_delete._connections and pre_delete._route(schema.model)
    return bool(before or (post_delete._connections and post_delete._route(schema.model)))


def referred_to(schema: Schema) -> bool:
    """Return whether a delete has to look for dependent rows."""
    keys = schema.registry.referring(schema.model)
    return bool(keys) and any(key.action.effect != "ignore" for key in keys)


class Collection:
    """The rows to delete and to change.

    *rows*: the collected rows by model and key. *fast_deletes*, *changed*: by foreign key, the referenced values whose rows
    are deleted without being loaded, or have the key set to NULL or its default.
    """

    def __init__(self, channel: Channel, schema: Schema) -> None:
        self.channel = channel
        self.rows: dict[Schema, dict[Row, CollectedRow]] = {}
        self.fast_deletes: dict[Any, Values] = {}
        self.changed: dict[Any, Values] = {}
        self._schema = schema
        self._restricting: list[tuple[Any, Any, CollectedRow]] = []
        self._pending: dict[Schema, list[CollectedRow]] = {}
        self._keys: dict[Schema, list[Any]] = {}
        self._has_receivers: dict[Schema, bool] = {}
        self._names: dict[Schema, tuple[str, ...] | None] = {}
        self._roots: list[CollectedRow] = []
        # Instances of which only the key is used, since their other values may differ from the row.
        self._held: set[int] = set()

    def add(self, instances: Iterable[Any], held: Any = None) -> None:
        """Collect *instances* of the model to delete from, and their dependent rows. *held*: an instance of the caller.

        Raises `RestrictedError` if a row that is not deleted refers to a collected one by a key with
        `on_delete="restrict"`.
        """
        schema = self._schema
        self._held.add(id(held))
        for instance in instances:
            key = key_row(schema, instance) if instance is held else key_of(schema, instance)
            self._roots.append(self._add(schema, key, instance))
        self._collect()

    def again(self) -> Collection:
        """Collect the dependent rows of the same rows again, since receivers may have moved, added or deleted some.

        Rows that were collected before keep their instances. Raises what `add` raises.
        """
        fresh = Collection(self.channel, self._schema)
        for root in self._roots:
            fresh._held.add(id(root.instance))
            fresh._roots.append(fresh._add(self._schema, root.key, root.instance))
        fresh._collect()
        for schema, rows in fresh.rows.items():
            known = self.rows.get(schema, {})
            for key, row in rows.items():
                if (earlier := known.get(key)) is not None:
                    row.continue_with(earlier)
        return fresh

    def _collect(self) -> None:
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
        """Return whether the delete signals had receivers for the model when its first row was collected."""
        if (found := self._has_receivers.get(schema)) is None:
            found = self._has_receivers[schema] = has_receivers(schema)
        return found

    def names(self, schema: Schema) -> tuple[str, ...] | None:
        """Return the fields to load of rows to delete: all (None) if there are receivers, else the keys."""
        if schema not in self._names:
            needed = {key.to.name for key in self.keys_to(schema)}
            needed.update(key.field.name for key in schema.foreign_keys)
            names = tuple([name for name in schema.names if name in needed or name in schema.key_names])
            whole = self.has_receivers(schema) or names == schema.names
            self._names[schema] = None if whole else names
        return self._names[schema]

    def keys_to(self, schema: Schema) -> list[Any]:
        """Return the foreign keys to the model that `on_delete` does not leave to the database, in tables of this alias."""
        found = self._keys.get(schema)
        if found is None:
            found = self._keys[schema] = [
                key
                for key in schema.registry.referring(schema.model)
                if key.action.effect != "ignore" and self._has_table(key.owner.__schema__)
            ]
        return found

    def dependants(self, schema: Schema) -> Iterator[Schema]:
        """Yield the models whose rows are deleted before those of *schema*."""
        for key in schema.registry.referring(schema.model):
            if key.action.keeps_reference(key):
                yield key.owner.__schema__

    def _has_table(self, schema: Schema) -> bool:
        databases = schema.registry.databases
        return not databases.routers or databases.allows_migration(
            self.channel.database.alias, schema.label, schema.model
        )

    def _add(self, schema: Schema, key: Row, instance: Any) -> CollectedRow:
        known = self.rows.setdefault(schema, {})
        if (row := known.get(key)) is None:
            row = known[key] = CollectedRow(schema, key, instance)
            self._pending.setdefault(schema, []).append(row)
        return row

    def _values(self, schema: Schema, name: str, found: list[CollectedRow]) -> Values:
        """Return the rows *found* by their values of the field *name*, in the database rather than in a held instance."""
        if name in schema.key_names:
            index = schema.key_names.index(name)
            return {row.key[index]: row for row in found}
        values = {}
        for row in found:
            if id(row.instance) in self._held:
                load = plans_of(schema, self.channel.database).select(schema.key_names, wanted=(name,))
                values.update({value: row for (value,) in load.values(self.channel, row.key)})
            else:
                values[row.instance.__dict__[name]] = row
        values.pop(None, None)
        return values

    def _follow(self, key: Any, values: Values) -> None:
        """Collect, by the `on_delete` of *key*, the rows that refer by it to one of *values*."""
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
                row = self._add(schema, key_of(schema, child), child)
                _parent(key, child, values).dependants.append((row, key))
        else:
            self.fast_deletes.setdefault(key, {}).update(values)

    def _referring(self, key: Any, values: Values) -> Iterator[Any]:
        """Yield instances of the rows that refer by *key* to one of *values*; for one value, by a compiled statement."""
        schema, channel = key.owner.__schema__, self.channel
        names, wanted = self.names(schema), list(values)
        if len(wanted) == 1:
            load = plans_of(schema, channel.database).select((key.field.name,), wanted=names)
            yield from load.instances(channel, (wanted[0],))
            return
        columns = [field.column for field in fields_of(schema, names)]
        for batch in batches(channel, wanted, lambda value: (value,), None):
            statement = select(*columns).where(key.field.column.in_(batch))
            found = channel.fetch(statement)
            yield from hydrate(schema, found, channel.database.row_alias, names)

    def _refuse_restricted(self) -> None:
        remaining: dict[Any, dict[Row, Any]] = {}
        for key, child, parent in self._restricting:
            schema: Schema = key.owner.__schema__
            row = key_of(schema, child)
            if (collected := self.rows.get(schema, {}).get(row)) is not None:
                parent.dependants.append((collected, key))
            elif not self._is_fast_deleted(schema, child):
                remaining.setdefault(key, {})[row] = child
        if remaining:
            shown = " and ".join(_shown(key, list(found)) for key, found in remaining.items())
            objects = [child for found in remaining.values() for child in found.values()]
            raise RestrictedError(f"{self._schema.name} cannot be deleted while {shown}", objects)

    def _is_fast_deleted(self, schema: Schema, child: Any) -> bool:
        return any(
            key in self.fast_deletes and child.__dict__.get(key.field.name) in self.fast_deletes[key]
            for key in schema.foreign_keys
        )


def key_of(schema: Schema, instance: Any) -> Row:
    """Return the key of *instance* as a row."""
    values = instance.__dict__
    return tuple([values[name] for name in schema.key_names])


def _parent(key: Any, child: Any, values: Values) -> CollectedRow:
    """Return the row that *child* refers to by *key*; any row if only the collation makes the values equal."""
    return values.get(child.__dict__[key.field.name]) or next(iter(values.values()))


def _shown(key: Any, rows: Sequence[Row]) -> str:
    """Describe the rows that refer by *key*: their number, model and first keys."""
    keys = "key " if len(rows) == 1 else "keys "
    keys += ", ".join(repr(row[0] if len(row) == 1 else row) for row in rows[:_KEYS_SHOWN])
    more = ", …" if len(rows) > _KEYS_SHOWN else ""
    refer = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
    verb = "refers" if len(rows) == 1 else "refer"
    return f"{refer} of {key.owner.__schema__.label} ({keys}{more}) {verb} to {key.target.__name__} by {key.name!r}"


T = TypeVar("T", bound=Hashable)


class CollectedRow:
    """A row to delete: its key, its instance, and the rows to delete that refer to it, each with its foreign key.

    *announced*: `pre_delete` was sent. *snapshot*: that of the instance, if the caller or a receiver may hold it.
    """

    __slots__ = ("announced", "dependants", "instance", "key", "schema", "snapshot")

    def __init__(self, schema: Any, key: tuple[Any, ...], instance: Any) -> None:
        self.schema = schema
        self.key = key
        self.instance = instance
        self.dependants: list[tuple[CollectedRow, Any]] = []
        self.announced = False
        self.snapshot: Snapshot | None = None

    def continue_with(self, earlier: CollectedRow) -> None:
        """Take over the instance of *earlier*, the same row as it was collected before."""
        self.instance, self.announced, self.snapshot = earlier.instance, earlier.announced, earlier.snapshot


class Step(NamedTuple):
    """Rows of one model to delete together, in layers: no row refers to another of its own layer or an earlier one."""

    schema: Any
    layers: list[list[CollectedRow]]


NulledKeys = dict[Any, dict[CollectedRow, None]]  # foreign key to set to NULL → the rows to set it in


def delete_order(
    groups: dict[T, list[CollectedRow]], dependants: Callable[[T], Iterable[T]], *, row_by_row: bool = False
) -> tuple[list[Step], NulledKeys]:
    """Return the order in which to delete the rows of *groups*, and the foreign keys to set to NULL before.

    *dependants(model)* yields the models that refer to *model*, which may include itself. *row_by_row*: the database
    checks foreign keys after each row, so that a row which refers to itself cannot be deleted.
    """
    steps: list[Step] = []
    nulled: NulledKeys = {}

    def among(model: T) -> Iterable[T]:
        return (each for each in dependants(model) if each in groups)

    for cycle in connected_components(list(groups), among):
        rows = [row for model in cycle for row in groups[model]]
        if len(cycle) == 1 and cycle[0] not in among(cycle[0]):
            _append(steps, rows)
            continue
        for layer in _layers(rows, nulled):
            _append(steps, layer)
        for row in rows if row_by_row else ():
            for child, key in row.dependants:
                if child is row and key.constrained and key.field.nullable:
                    nulled.setdefault(key, {})[row] = None
    return steps, nulled


def connected_components(items: Sequence[T], following: Callable[[T], Iterable[T]]) -> list[list[T]]:
    """Return the strongly connected components of *items*, each after those that it leads to (Tarjan's algorithm)."""
    components: list[list[T]] = []
    index: dict[T, int] = {}
    lowest: dict[T, int] = {}
    stack: list[T] = []
    on_stack: set[T] = set()
    for start in items:
        path = [] if start in index else [start]
        successors: dict[T, Any] = {}
        while path:
            item = path[-1]
            if item not in index:
                index[item] = lowest[item] = len(index)
                stack.append(item)
                on_stack.add(item)
                successors[item] = iter(following(item))
            for other in successors[item]:
                if other not in index:
                    path.append(other)
                    break
                if other in on_stack:
                    lowest[item] = min(lowest[item], index[other])
            else:
                path.pop()
                if path:
                    lowest[path[-1]] = min(lowest[path[-1]], lowest[item])
                if lowest[item] == index[item]:
                    component = [stack.pop()]
                    while component[-1] is not item:
                        component.append(stack.pop())
                    on_stack.difference_update(component)
                    components.append(component[::-1])
    return components


def _layers(rows: list[CollectedRow], nulled: NulledKeys) -> list[list[CollectedRow]]:
    """Order *rows* in layers, rows without dependants first; add the keys that break cycles to *nulled*."""
    among = set(rows)
    counts: dict[CollectedRow, int] = dict.fromkeys(rows, 0)  # of the dependants that are not in a layer yet
    parents: dict[CollectedRow, list[tuple[CollectedRow, Any]]] = {row: [] for row in rows}
    for row in rows:
        for child, key in row.dependants:
            if child is not row and child in among:
                counts[row] += 1
                parents[child].append((row, key))
    layers: list[list[CollectedRow]] = []
    _append_layers([row for row in rows if not counts[row]], counts, parents, layers)
    if rest := [row for row in rows if counts[row]]:
        _append_layers(_break_cycles(rest, counts, parents, nulled), counts, parents, layers)
        # A cycle of keys that are checked and not nullable; a deferred check may allow the delete.
        if rest := [row for row in rest if counts[row]]:
            layers.append(rest)
    return layers


def _append_layers(
    layer: list[CollectedRow],
    counts: dict[CollectedRow, int],
    parents: dict[CollectedRow, list[tuple[CollectedRow, Any]]],
    layers: list[list[CollectedRow]],
) -> None:
    """Append *layer* to *layers*, then the rows whose last dependants are in it, and so on."""
    while layer:
        layers.append(layer)
        following: list[CollectedRow] = []
        for row in layer:
            for parent, _ in parents[row]:
                counts[parent] -= 1
                if not counts[parent]:
                    following.append(parent)
        layer = following


def _break_cycles(
    rows: list[CollectedRow],
    counts: dict[CollectedRow, int],
    parents: dict[CollectedRow, list[tuple[CollectedRow, Any]]],
    nulled: NulledKeys,
) -> list[CollectedRow]:
    """Break the cycles among *rows* at keys that are nullable or not checked; return the rows without dependants."""
    among = set(rows)

    def following(row: CollectedRow) -> Iterable[CollectedRow]:
        return (child for child, _ in row.dependants if child in among)

    for component in connected_components(rows, following):
        cycle = set(component)
        for row in component if len(component) > 1 else ():
            kept = []
            for parent, key in parents[row]:
                if parent not in cycle or not (key.field.nullable or not key.constrained):
                    kept.append((parent, key))
                    continue
                counts[parent] -= 1
                if key.constrained:
                    nulled.setdefault(key, {})[row] = None
            parents[row] = kept
    return [row for row in rows if not counts[row]]


def _append(steps: list[Step], layer: list[CollectedRow]) -> None:
    """Append the rows of *layer* to *steps*, by model; to the last step if it is of their model."""
    by_model: dict[Any, list[CollectedRow]] = {}
    for row in layer:
        by_model.setdefault(row.schema, []).append(row)
    last = steps[-1].schema if steps else None
    for schema in sorted(by_model, key=lambda schema: schema is not last):
        if steps and steps[-1].schema is schema:
            steps[-1].layers.append(by_model[schema])
        else:
            steps.append(Step(schema, [by_model[schema]]))
