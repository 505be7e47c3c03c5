"""Related query: the rows related to one instance, to read, add and remove."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

from sqlalchemy import select

from microorm.db.aio.twins import twin
from microorm.db.context import refuse_lazy
from microorm.mapping.state import drop_related, keep_related, kept_related
from microorm.messages import brief
from microorm.query.objects import query_class_of
from microorm.query.query import Query
from microorm.relations.foreign_key_rows import ForeignKeyRows
from microorm.relations.through_rows import ThroughRows, many_to_many_of

M = TypeVar("M")

Key = int | str | bytes | UUID | Decimal | date | Enum
"""A primary key, which many-to-many relations accept instead of an instance."""


class RelatedQuery(Query[M]):
    """A query of the rows related to one instance, which can also add and remove such rows.

    Rows that were prefetched are not loaded again, until the relation is changed through the instance. A refined query
    (filtered, ordered, limited) always asks the database.
    """

    __slots__ = ("_key", "_refined", "_relation")

    _shown = "Query"
    _relation: Any
    _key: Any  # of the instance
    _refined: bool  # by more than `using()`

    if not TYPE_CHECKING:

        @cached_property
        def _where(self):
            # Made at the first use: prefetched rows never need it.
            steps = self._relation.steps
            if len(steps) == 1:
                return ()
            between = select(steps[1].near.column).where(steps[0].far.column == self._key)
            return (steps[1].far.column.in_(between),)

    def all(self) -> list[M]:
        """Return the instances. Raises the errors of the database, and `LazyLoadError` where lazy loads are refused."""
        return super().all() if (known := self._known_or_lazy()) is None else list(known)

    def count(self) -> int:
        """Count the rows. Raises as `all` does."""
        return super().count() if (known := self._known_or_lazy()) is None else len(known)

    def exists(self) -> bool:
        """Return whether there is a row. Raises as `all` does."""
        return super().exists() if (known := self._known_or_lazy()) is None else bool(known)

    def create(self, /, *, through_defaults: Mapping[str, Any] | None = None, **values: Any) -> M:
        """Make an instance of *values*, insert it and relate it, in one transaction; *through_defaults* as in `add`.

        Raises what a save raises, and `TypeError` for a value of the foreign key, which is set already.
        """
        made: M = self._writer("create", defaults=through_defaults).create(values)
        return made

    def _insert(self, /, **values: Any) -> M:
        """Insert an instance of *values*, which does not relate it yet."""
        made: M = super().create(**values)
        return made

    def add(
        self, *objects: M | Key, bulk: bool = True, through_defaults: Mapping[str, Any] | None = None
    ) -> None:
        """Relate *objects*, all or none of them.

        By a foreign key: saved instances, by one UPDATE that sends `pre_update` and `post_update`. With `bulk=False`
        each instance is saved with its own signals, and inserted if it is new. By a many-to-many relation: instances
        or keys; those that are related already stay so, and `m2m_changed` is sent. *through_defaults*: values for the
        other fields of the through rows, or functions that return them.

        Raises `TypeError` for instances of another model and for a refined query, `UnsavedError` for an instance that
        is not saved, `InvalidValue` for a wrong key, `CrossDatabaseRelation`, `Model.NotUpdated` for a row that does
        not exist any more, and the errors of the database.
        """
        self._writer("add", bulk, through_defaults).add(objects)

    def remove(self, *objects: M | Key, bulk: bool = True) -> None:
        """Remove the relation to *objects*.

        By a foreign key: it becomes None. By a many-to-many relation: instances or keys, related or not.

        Raises as `add` does, `FieldError` if the foreign key is never None, and `Model.DoesNotExist` for an instance
        that does not refer to this one.
        """
        self._writer("remove", bulk).remove(objects)

    def clear(self, *, bulk: bool = True) -> None:
        """Remove the relation to all rows, as `remove` does; with `bulk=False` each is loaded and saved."""
        self._writer("clear", bulk).clear()

    def set(
        self,
        objects: Iterable[M | Key],
        *,
        bulk: bool = True,
        clear: bool = False,
        through_defaults: Mapping[str, Any] | None = None,
    ) -> None:
        """Relate *objects* and no others: surplus rows are removed first, then missing ones are added.

        With *clear* all rows are removed first. Raises as `add` and `remove` do.
        """
        if isinstance(objects, (str, bytes)):
            raise TypeError(f"set() takes a list of instances or keys, not {brief(objects)}")
        given = tuple(objects)
        self._writer("set", bulk, through_defaults).set(given, clear=clear)

    def bulk_create(self, /, objects: Iterable[M], **options: Any) -> list[M]:
        """Raise `TypeError`, since the rows would not be related to the instance."""
        raise TypeError(
            f"bulk_create() does not relate rows, and this is a query of {self._relation.label}; "
            f"use {self._model.__name__}.objects.bulk_create()"
        )

    def update(self, /, **values: Any) -> int:
        """Update the rows as any query does, and drop those that were prefetched."""
        try:
            return super().update(**values)
        finally:
            drop_related(self._owner, self._relation.name)

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete the rows as any query does, and drop those that were prefetched."""
        try:
            return super().delete()
        finally:
            drop_related(self._owner, self._relation.name)

    acreate = twin(create)
    aadd = twin(add)
    aremove = twin(remove)
    aclear = twin(clear)
    aset = twin(set)
    abulk_create = twin(bulk_create)

    def _begun(self) -> Self:
        query = super()._begun()
        query._refined = False  # the default filter is a part of the relation
        return query

    @property
    def _known(self) -> list[M] | None:
        """The prefetched rows; None if there are none, or if the query may find others."""
        kept = None if self._refined or self._using else kept_related(self._owner, self._relation.name)
        return kept[1] if kept is not None and kept[0] == self._key else None

    def _known_or_lazy(self) -> list[M] | None:
        """Return the prefetched rows, if any. Raises `LazyLoadError` where loading the rows now is refused."""
        known = self._known
        if known is None and not self._refined and not self._using:
            refuse_lazy(self._owner, self._relation.name)
        return known

    def _writer(
        self, method: str, bulk: bool = True, defaults: Mapping[str, Any] | None = None
    ) -> ForeignKeyRows | ThroughRows:
        """Return the object that changes the rows. Raises `TypeError` for a refined query or an option that does not fit."""
        label = self._relation.label
        if self._refined and method != "create":
            raise TypeError(f"{method}() changes all of {label}, and this query is refined")
        if many_to_many_of(self._relation) is not None:
            if not bulk:
                raise TypeError(f"{method}() of {label} takes no bulk=: it is a many-to-many relation")
            return ThroughRows(self, defaults)
        if defaults is not None:
            raise TypeError(f"{method}() of {label} takes no through_defaults=: it has no through model")
        return ForeignKeyRows(self, bulk=bulk)

    def _with_prefetched(self, instances: list[M]) -> list[M]:
        """Set the owner in *instances*, so that reading it from each does not cost a statement."""
        made: list[Any] = instances
        step, owner = self._relation.steps[0], self._owner
        if made and len(self._relation.steps) == 1 and made[0]._row_state.alias == owner._row_state.alias:
            name, there = step.foreign_key.name, step.far.name
            for each in made:
                # The key may be deferred.
                if (key := each.__dict__.get(there)) == self._key and kept_related(each, name) is None:
                    keep_related(each, name, (key, owner))
        return super()._with_prefetched(instances)

    def _with(self, **changes: Any) -> Self:
        query = super()._with(**changes)
        query._relation, query._key = self._relation, self._key
        query._refined = self._refined or tuple(changes) != ("_using",)
        return query


def related_query_of(model: Any) -> RelatedQuery[Any]:
    """Return a query of the rows of *model* that are related to an instance, with the methods of its `objects`."""
    kind: type[RelatedQuery[Any]] | None = model.__dict__.get("__related_query__")
    if kind is None:
        kind = _combined(query_class_of(model))
        type.__setattr__(model, "__related_query__", kind)
    return kind(model)


def _combined(kind: type[Any]) -> type[RelatedQuery[Any]]:
    """Return `RelatedQuery` with the methods of *kind*."""
    if issubclass(RelatedQuery, kind):
        return RelatedQuery
    if issubclass(kind, RelatedQuery):
        return kind
    body = {"__module__": kind.__module__, "__doc__": kind.__doc__, "_shown": kind._shown}
    return type(kind.__name__, (RelatedQuery, kind), body)
