"""Foreign key rows: add, remove and set the rows that refer to an instance by a foreign key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from typing import Any

from microorm.db.atomic import UnitOfWork, unit_of_work
from microorm.db.databases import Databases
from microorm.db.engines.engine import Database
from microorm.db.snapshots import Snapshot, take_snapshot
from microorm.errors import CrossDatabaseRelation, FieldError, UnsavedError
from microorm.fields.checks import shown
from microorm.mapping.schema import Schema
from microorm.mapping.state import drop_related, kept_related, new_in, placeholder
from microorm.messages import brief
from microorm.persistence.versions import NO_VERSION, next_version
from microorm.persistence.written import mark_saved
from microorm.query.query import Query
from microorm.query.results import MAX_VALUES
from microorm.sql.batches import sliced
from microorm.sql.statements import plans_of


class ForeignKeyRows:
    """Change which rows refer to the owner of *query* by the foreign key of its relation.

    With *bulk* one UPDATE changes them, without the signals of a save. Otherwise each row is saved.
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
        """Make an instance of *values* that refers to the owner, and insert it."""
        for name in (self._foreign_key.name, self._field):
            if name in values:
                raise TypeError(
                    f"create() of {self._relation.label} sets {name!r} to {brief(self._owner)}; leave it out"
                )
        row = placeholder(self._schema.model, self._database.alias)
        if not self._databases.allows_relation(row, self._owner):
            raise CrossDatabaseRelation(f"{self._shown} cannot have rows in {self._database.alias!r}")
        drop_related(self._owner, self._relation.name)
        return self._query._insert(**values, **{self._foreign_key.name: self._owner})

    def add(self, objects: Sequence[Any]) -> None:
        """Set the foreign key of *objects* to the owner."""
        self._check("add", objects, saved=self._bulk)
        if objects:
            with self._unit() as whole:
                self._relate(whole, objects, self._owner)

    def remove(self, objects: Sequence[Any]) -> None:
        """Set the foreign key of *objects*, which refer to the owner, to NULL."""
        self._refuse_required("remove")
        self._check("remove", objects, saved=True)
        for each in objects:
            if getattr(each, self._field) != self._key:
                raise self._schema.model.DoesNotExist(f"{brief(each)} is not among {self._shown}")
        if objects:
            with self._unit() as whole:
                self._relate(whole, objects, None)

    def clear(self) -> None:
        """Set the foreign key of all rows that refer to the owner to NULL."""
        self._refuse_required("clear")
        with self._unit() as whole:
            self._clear(whole)

    def set(self, objects: Sequence[Any], *, clear: bool) -> None:
        """Let *objects* and no other rows refer to the owner; with *clear* remove all rows first."""
        self._check("set", objects, saved=self._bulk)
        if clear:
            self._refuse_required("clear")
        with self._unit() as whole:
            if clear:
                self._clear(whole)
                self._relate(whole, objects, self._owner)
                return
            present = {each.pk: each for each in self._rows.all()}
            wanted = {each.pk for each in objects if not each._row_state.adding}
            known = {each.pk: each for each in self._query._known or ()}
            surplus = [known.get(key, each) for key, each in present.items() if key not in wanted]
            if surplus:
                self._refuse_required("remove")
                self._relate(whole, surplus, None)
            new = [each for each in objects if each._row_state.adding or each.pk not in present]
            self._relate(whole, new, self._owner)
            for each in objects:
                if each.pk in present:
                    self._mark_written(whole, each, take_snapshot(each), self._owner, changed=False)

    @property
    def _rows(self) -> Query[Any]:
        """The rows that refer to the owner, and that its relation shows, in the database that is written to."""
        rows: Query[Any] = self._schema.model.objects
        return rows.using(self._database.alias).filter(**{self._field: self._key})

    @property
    def _shown(self) -> str:
        return f"{self._relation.name} of {brief(self._owner)}"

    def _unit(self) -> Any:
        return unit_of_work(self._databases, self._database)

    def _check(self, method: str, objects: Sequence[Any], *, saved: bool) -> None:
        """Raise an error for an object that cannot be related; *saved*: each has to have a row."""
        model, alias = self._schema.model, self._database.alias
        for each in objects:
            if type(each) is not model:
                raise TypeError(
                    f"{method}() of {self._relation.label} takes instances of {model.__name__}, not {shown(each)}"
                )
            theirs, placed = each._row_state.alias, each
            if theirs is None:
                placed = copy(each)
                placed._row_state = new_in(alias)
            if theirs not in (None, alias) or not self._databases.allows_relation(placed, self._owner):
                raise CrossDatabaseRelation(
                    f"{self._shown}, written to {alias!r}, cannot have {brief(each)} of {theirs!r}"
                )
            if saved and (each._row_state.adding or each.pk is None):
                raise UnsavedError(
                    f"{method}() of {self._relation.label} needs saved instances; {brief(each)} is not saved"
                )
            if not self._bulk:  # what its save would refuse
                for foreign_key in self._schema.foreign_keys:
                    if foreign_key is not self._foreign_key:
                        foreign_key.outdated(each)

    def _refuse_required(self, method: str) -> None:
        if not self._foreign_key.field.nullable:
            raise FieldError(
                f"{method}() of {self._relation.label} sets foreign keys to None, "
                f"and {self._foreign_key.label} is never None"
            )

    def _relate(self, whole: UnitOfWork, objects: Sequence[Any], owner: Any) -> None:
        """Let *objects* refer to *owner*, or to no row."""
        whole.forget(self._owner, [self._relation.name])
        if self._bulk:
            self._update(whole, objects, owner)
            return
        for each in objects:
            if owner is not None:
                self._forget_previous(whole, each)
            self._refer(whole, each, owner)
            fields = [self._foreign_key.name] if owner is None else None
            each.save(using=self._database.alias, update_fields=fields)
            whole.dirty = True

    def _clear(self, whole: UnitOfWork) -> None:
        known = {each.pk: each for each in self._query._known or ()}
        if not self._bulk:
            self._relate(whole, [known.get(each.pk, each) for each in self._rows.all()], None)
            return
        whole.forget(self._owner, [self._relation.name])
        images = [(each, take_snapshot(each)) for each in known.values()]
        self._rows.update(**{self._field: None})
        whole.dirty = True
        for each, image in images:
            if getattr(each, self._field) == self._key:
                self._mark_written(whole, each, image, None)

    def _update(self, whole: UnitOfWork, objects: Sequence[Any], owner: Any) -> None:
        """Write the key of *owner*, or NULL, to the rows of *objects*. Raises `NotUpdated` if a row is missing."""
        images = [take_snapshot(each) for each in objects]
        asked = {each.pk for each in objects}
        count = 0
        for query in self._batches(list(asked), related=owner is None):
            count += query.update(**{self._field: None if owner is None else self._key})
            whole.dirty = True
        if count != len(asked):
            raise self._schema.model.NotUpdated(
                f"{count} of {len(asked)} rows could be changed for {self._shown} in {self._database.alias!r}"
            )
        for each, image in zip(objects, images, strict=True):
            self._mark_written(whole, each, image, owner)

    def _batches(self, keys: list[Any], *, related: bool) -> Iterator[Query[Any]]:
        """Yield queries of the rows of *keys*, as many as a statement takes; *related*: of the owner's rows only."""
        rows: Query[Any] = self._schema.model._all_rows.using(self._database.alias)
        if related:
            rows = rows.filter(**{self._field: self._key})
        for part in sliced(keys, MAX_VALUES // len(self._schema.key)):
            yield rows._with(_where=(self._schema.key_in(part),))

    def _refer(
        self,
        whole: UnitOfWork,
        instance: Any,
        owner: Any,
        image: Snapshot | None = None,
        version: Mapping[str, int] = NO_VERSION,
    ) -> None:
        """Let *instance* refer to *owner*, or to no row; a rollback restores it from *image*, or as it is now."""
        key = None if owner is None else self._key
        related = {self._foreign_key.name: (key, owner)}
        whole.change(instance, {self._field: key, **version}, image, related=related)

    def _mark_written(
        self, whole: UnitOfWork, instance: Any, image: Snapshot, owner: Any, *, changed: bool = True
    ) -> None:
        """Note in *instance* that its row refers to *owner* now, or to no row; *changed*: it was updated."""
        self._forget_previous(whole, instance)
        plans = plans_of(self._schema, self._database)
        key = None if owner is None else self._key
        version = next_version(self._schema, instance) if changed else NO_VERSION

        def keep(snapshot: Snapshot) -> None:
            self._refer(whole, instance, owner, snapshot, version)

        names, row = (self._field, *version), (key, *version.values())
        mark_saved(self._schema, plans, instance, names, row, image, keep)

    def _forget_previous(self, whole: UnitOfWork, instance: Any) -> None:
        """Drop the related rows that the previous owner of *instance* has loaded, if that owner is known."""
        kept = kept_related(instance, self._foreign_key.name)
        if kept is not None and kept[1] is not None and kept[1] is not self._owner:
            whole.forget(kept[1], [self._relation.name])
