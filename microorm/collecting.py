"""Collecting: what goes along with rows that are deleted, as the `on_delete` of the foreign keys says (CONTRACT J).

Nothing is written here. Rows are asked for level by level, those of one key together: whole where somebody is told of
them, else their keys. Rows that nobody is told of and no table refers to are not asked for at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import select

from microorm.db.connection import Channel
from microorm.delete_order import Leaving
from microorm.errors import RestrictedError
from microorm.mapping.codegen import Row
from microorm.mapping.schema import Schema
from microorm.signals import post_delete, pre_delete
from microorm.sql.batches import batches
from microorm.sql.hydration import fields_of, instances_of
from microorm.sql.statements import key_row, plans_of

Values = dict[Any, Leaving]  # what is referred to → the row that has it

_KEYS_SHOWN = 3


def heard(schema: Schema) -> bool:
    """Whether anybody is told of deleted rows, so that they have to be fetched."""
    before = pre_delete._connections and pre_delete._route(schema.model)
    return bool(before or (post_delete._connections and post_delete._route(schema.model)))


def referred_to(schema: Schema) -> bool:
    """Whether a delete has to look for rows that refer to those it deletes."""
    keys = schema.registry.referring(schema.model)
    return bool(keys) and any(key.on_delete != "do_nothing" for key in keys)


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
        self._told: dict[Schema, bool] = {}
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

    def told(self, schema: Schema) -> bool:
        """Whether somebody was told of deleted rows of the model when they were collected."""
        if (told := self._told.get(schema)) is None:
            told = self._told[schema] = heard(schema)
        return told

    def names(self, schema: Schema) -> tuple[str, ...] | None:
        """The fields to load of rows that go: all (None) where somebody is told, else those that are keys."""
        if schema not in self._names:
            needed = {key.to.name for key in self.keys_to(schema)}
            needed.update(key.field.name for key in schema.foreign_keys)
            names = tuple([name for name in schema.names if name in needed or name in schema.key_names])
            whole = self.told(schema) or names == schema.names
            self._names[schema] = None if whole else names
        return self._names[schema]

    def keys_to(self, schema: Schema) -> list[Any]:
        """The foreign keys that refer to the model, and are not left to the database; of tables that are here."""
        found = self._keys.get(schema)
        if found is None:
            found = self._keys[schema] = [
                key
                for key in schema.registry.referring(schema.model)
                if key.on_delete != "do_nothing" and self._is_here(key.owner.__schema__)
            ]
        return found

    def dependants(self, schema: Schema) -> Iterator[Schema]:
        """The models whose rows go before those of *schema*."""
        for key in schema.registry.referring(schema.model):
            if key.on_delete != "set_null":
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
            place = schema.key_names.index(name)
            return {row.key[place]: row for row in found}
        values = {}
        for row in found:
            if row.instance is self._held:
                load = plans_of(schema, self.channel.database).load(schema.key_names, wanted=(name,))
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
        if key.on_delete in ("set_null", "set_default"):
            self.changed.setdefault(key, {}).update(values)
        elif key.on_delete == "restrict":
            for child in self._referring(key, values):
                self._restricting.append((key, child, _parent(key, child, values)))
        elif self.told(schema) or schema.registry.referring(schema.model):
            for child in self._referring(key, values):
                _parent(key, child, values).dependants.append((self._add(schema, child), key))
        else:
            self.unseen.setdefault(key, {}).update(values)

    def _referring(self, key: Any, values: Values) -> Iterator[Any]:
        """The rows that refer by *key* to one of *values*; one value is asked for by a prepared statement."""
        schema, channel = key.owner.__schema__, self.channel
        names, wanted = self.names(schema), list(values)
        if len(wanted) == 1:
            load = plans_of(schema, channel.database).load((key.field.name,), wanted=names)
            yield from load.instances(channel, (wanted[0],))
            return
        columns = [field.column for field in fields_of(schema, names)]
        for batch in batches(channel, wanted, lambda value: (value,), None):
            statement = select(*columns).where(key.field.column.in_(batch))
            found = channel.execute(statement).fetchall()
            yield from instances_of(schema, found, channel.database.alias, names)

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
