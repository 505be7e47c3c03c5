"""Belonging: which rows refer to an instance by a foreign key, changed from that instance (CONTRACT M1, M3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

from sqlalchemy import tuple_

from microorm.db.atomic import UnitOfWork, unit_of_work
from microorm.db.databases import Databases
from microorm.db.engine import Database
from microorm.db.snapshots import Image, image_of
from microorm.errors import CrossDatabaseRelation, FieldError, UnsavedError
from microorm.fields.checks import shown
from microorm.mapping.schema import Schema
from microorm.mapping.state import Origin
from microorm.persistence.save import mark_saved
from microorm.query.query import Query
from microorm.query.results import MOST_VALUES
from microorm.sql.statements import plans_of


class Belongings:
    """The rows that *query* of one instance's related rows stands for, and how they are changed.

    *bulk*: by one UPDATE, without the signals of saves; else each is saved.
    """

    def __init__(self, query: Any, *, bulk: bool) -> None:
        self._query = query
        self._relation = query._relation
        self._owner, self._key = query._owner, query._key
        self._foreign_key = self._relation.reverse_of
        self._field: str = self._foreign_key.field.name
        self._schema: Schema = self._foreign_key.owner.__schema__
        self._bulk = bulk
        self._databases: Databases = self._schema.registry.databases
        self._database: Database = query._write_database()

    def create(self, values: dict[str, Any]) -> Any:
        """Make an instance of *values* that belongs to the owner, and insert it."""
        for name in (self._foreign_key.name, self._field):
            if name in values:
                raise TypeError(
                    f"create() of {self._relation.label} takes no {name!r}: it is {self._owner!r}"
                )
        stand_in = object.__new__(self._schema.model)
        stand_in._row, stand_in._origin = None, Origin(self._database.alias, None, adding=True)
        if not self._databases.allows_relation(stand_in, self._owner):
            raise CrossDatabaseRelation(f"{self._mine} cannot have rows in {self._database.alias!r}")
        self._owner.__dict__.pop(self._relation.name, None)
        return Query.create(self._query, **values, **{self._foreign_key.name: self._owner})

    def add(self, objects: Sequence[Any]) -> None:
        """Make *objects* the owner's."""
        self._check("add", objects, saved=self._bulk)
        if objects:
            with self._unit() as whole:
                self._relate(whole, objects)

    def remove(self, objects: Sequence[Any]) -> None:
        """Make *objects*, which are the owner's, nobody's."""
        self._refuse_required("remove")
        self._check("remove", objects, saved=True)
        for each in objects:
            if getattr(each, self._field) != self._key:
                raise self._schema.model.DoesNotExist(f"{each!r} is not among {self._mine}")
        if objects:
            with self._unit() as whole:
                self._part(whole, objects)

    def clear(self) -> None:
        """Make all that is the owner's nobody's."""
        self._refuse_required("clear")
        with self._unit() as whole:
            self._clear(whole)

    def set(self, objects: Sequence[Any], *, clear: bool) -> None:
        """Make *objects*, and nothing else, the owner's; *clear*: by way of having none."""
        self._check("set", objects, saved=self._bulk)
        if clear:
            self._refuse_required("clear")
        with self._unit() as whole:
            if clear:
                self._clear(whole)
                self._relate(whole, objects)
                return
            there = {each.pk: each for each in self._rows.all()}
            wanted = {each.pk for each in objects if not each._origin.adding}
            known = {each.pk: each for each in self._query._known or ()}
            gone = [known.get(key, each) for key, each in there.items() if key not in wanted]
            if gone:
                self._refuse_required("remove")
                self._part(whole, gone)
            self._relate(whole, [each for each in objects if each._origin.adding or each.pk not in there])
            for each in objects:
                if each.pk in there:
                    self._settle(whole, each, image_of(each), self._owner)

    @property
    def _rows(self) -> Query[Any]:
        """The owner's rows where they are written."""
        return Query(self._schema.model).using(self._database.alias).filter(**{self._field: self._key})

    @property
    def _mine(self) -> str:
        return f"{self._relation.name} of {self._owner!r}"

    def _unit(self) -> Any:
        return unit_of_work(self._databases, self._database)

    def _check(self, method: str, objects: Sequence[Any], *, saved: bool) -> None:
        """Raise `TypeError`, `UnsavedError` or `CrossDatabaseRelation` for what cannot be among *objects*."""
        model, alias = self._schema.model, self._database.alias
        for each in objects:
            if type(each) is not model:
                raise TypeError(
                    f"{method}() of {self._relation.label} wants instances of {model.__name__}, not {shown(each)}"
                )
            theirs, judged = each._origin.alias, each
            if theirs is None:
                judged = copy(each)
                judged._origin = Origin(alias, None, adding=True)
            if theirs not in (None, alias) or not self._databases.allows_relation(judged, self._owner):
                raise CrossDatabaseRelation(
                    f"{self._mine}, written to {alias!r}, cannot have {each!r} of {theirs!r}"
                )
            if saved and (each._origin.adding or each.pk is None):
                raise UnsavedError(
                    f"{method}() of {self._relation.label} changes saved rows, and {each!r} is none"
                )

    def _refuse_required(self, method: str) -> None:
        if not self._foreign_key.field.nullable:
            raise FieldError(
                f"{self._relation.label} can lose no row by {method}(): {self._foreign_key.label} is never None"
            )

    def _relate(self, whole: UnitOfWork, objects: Sequence[Any]) -> None:
        whole.forget(self._owner, [self._relation.name])
        if self._bulk:
            self._update(whole, objects, self._owner)
            return
        for each in objects:
            self._leave(whole, each)
            whole.change(each, self._values(self._owner))
            each.save(using=self._database.alias)
            whole.dirty = True

    def _part(self, whole: UnitOfWork, objects: Sequence[Any]) -> None:
        whole.forget(self._owner, [self._relation.name])
        if self._bulk:
            self._update(whole, objects, None)
            return
        for each in objects:
            whole.change(each, self._values(None))
            each.save(using=self._database.alias, update_fields=[self._foreign_key.name])
            whole.dirty = True

    def _clear(self, whole: UnitOfWork) -> None:
        known = {each.pk: each for each in self._query._known or ()}
        if not self._bulk:
            self._part(whole, [known.get(each.pk, each) for each in self._rows.all()])
            return
        whole.forget(self._owner, [self._relation.name])
        images = [(each, image_of(each)) for each in known.values()]
        self._rows.update(**{self._field: None})
        whole.dirty = True
        for each, image in images:
            if getattr(each, self._field) == self._key:
                self._settle(whole, each, image, None)

    def _update(self, whole: UnitOfWork, objects: Sequence[Any], owner: Any) -> None:
        """Write the key of *owner*, or None, to the rows of *objects*. `NotUpdated` where one is not there."""
        images = [image_of(each) for each in objects]
        asked = {each.pk for each in objects}
        count = 0
        for query in self._queries(list(asked), mine=owner is None):
            count += query.update(**{self._field: None if owner is None else self._key})
            whole.dirty = True
        if count != len(asked):
            raise self._schema.model.NotUpdated(
                f"of {len(asked)} rows {count} could be changed for {self._mine} in {self._database.alias!r}"
            )
        for each, image in zip(objects, images, strict=True):
            self._settle(whole, each, image, owner)

    def _queries(self, keys: list[Any], *, mine: bool) -> Iterator[Query[Any]]:
        """The rows of *keys*, only the owner's if *mine*, in parts that one statement takes."""
        columns = [field.column for field in self._schema.key]
        key = columns[0] if len(columns) == 1 else tuple_(*columns)
        rows = self._rows if mine else Query(self._schema.model).using(self._database.alias)
        size = MOST_VALUES // len(columns)
        for start in range(0, len(keys), size):
            yield rows._with(_where=(key.in_(keys[start : start + size]),))

    def _values(self, owner: Any) -> dict[str, Any]:
        """What an instance holds that belongs to *owner*, or to nobody."""
        key = None if owner is None else self._key
        return {self._field: key, self._foreign_key.name: (key, owner)}

    def _settle(self, whole: UnitOfWork, instance: Any, image: Image, owner: Any) -> None:
        """Let *instance* know that its row belongs to *owner* now, or to nobody."""
        self._leave(whole, instance)
        values = self._values(owner)
        mark_saved(
            self._schema,
            plans_of(self._schema, self._database),
            instance,
            (self._field,),
            (values[self._field],),
        )
        whole.change(instance, values, image)

    def _leave(self, whole: UnitOfWork, instance: Any) -> None:
        """Let the one that *instance* belonged to, if that is known, forget the rows that it knows."""
        kept = instance.__dict__.get(self._foreign_key.name)
        if kept is not None and kept[1] is not None and kept[1] is not self._owner:
            whole.forget(kept[1], [self._relation.name])
