"""Related query: the rows related to one instance, as a query that can change which these are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID

from sqlalchemy import select

from microorm.db.context import refuse_lazy
from microorm.query.query import Query
from microorm.relations.foreign_key_rows import Belongings
from microorm.relations.through_rows import Pairs, pairs_of

M = TypeVar("M")

Key = int | str | bytes | UUID | Decimal | date | Enum
"""What may stand for an instance where rows are related by a many-to-many relation."""


class RelatedQuery(Query[M]):
    """The rows related to one instance: a query, which can also relate rows and part them.

    Rows that were loaded together with the instance are known and not asked for again, unless the query is refined,
    until what is related changes by way of the instance.
    """

    __slots__ = ("_key", "_refined", "_relation")

    _relation: Any
    _key: Any  # of the instance
    _refined: bool  # by more than `using()`

    if not TYPE_CHECKING:

        @cached_property
        def _where(self):
            # Made when it is asked for: of rows that are known it never is.
            steps = self._relation.steps
            if len(steps) == 1:
                return ()
            between = select(steps[1].near.column).where(steps[0].far.column == self._key)
            return (steps[1].far.column.in_(between),)

    def all(self) -> list[M]:
        """The instances. Raises what the database raises, and `LazyLoadError` where lazy loads are refused."""
        return super().all() if (known := self._known_or_lazy()) is None else list(known)

    def count(self) -> int:
        """How many rows there are. Raises as `all` does."""
        return super().count() if (known := self._known_or_lazy()) is None else len(known)

    def exists(self) -> bool:
        """Whether there is a row. Raises as `all` does."""
        return super().exists() if (known := self._known_or_lazy()) is None else bool(known)

    def create(self, /, *, through_defaults: Mapping[str, Any] | None = None, **values: Any) -> M:
        """Make an instance of *values*, insert it, and relate it: one transaction; *through_defaults* as in `add`.

        Raises what a save raises, and `TypeError` for a value of the foreign key, which is the instance's.
        """
        made: M = self._changes("create", defaults=through_defaults).create(values)
        return made

    def add(
        self, *objects: M | Key, bulk: bool = True, through_defaults: Mapping[str, Any] | None = None
    ) -> None:
        """Relate *objects*; all of it happens or nothing.

        By a foreign key: saved instances, by one UPDATE that sends `pre_update` and `post_update`; without *bulk* each
        is saved, with the signals of saves, and inserted where it is new. By a many-to-many relation: instances or
        keys, those that are related already left as they are; `m2m_changed` is sent. *through_defaults*: the other
        values, or functions that make them, of the rows between.

        Raises `TypeError` for other models' instances and for a refined query, `UnsavedError`, `InvalidValue` for what
        is no key, `CrossDatabaseRelation`, `Model.NotUpdated` where a row is gone, and what the database raises.
        """
        self._changes("add", bulk, through_defaults).add(objects)

    def remove(self, *objects: M | Key, bulk: bool = True) -> None:
        """Part *objects*, as `add` relates them.

        By a foreign key, which becomes None. By a many-to-many relation: instances or keys, related or not.

        Raises as `add` does; `FieldError` where the foreign key is never None, `Model.DoesNotExist` for an instance
        that belongs elsewhere.
        """
        self._changes("remove", bulk).remove(objects)

    def clear(self, *, bulk: bool = True) -> None:
        """Part all rows, as `remove` parts some; without *bulk* each is loaded and saved."""
        self._changes("clear", bulk).clear()

    def set(
        self,
        objects: Iterable[M | Key],
        *,
        bulk: bool = True,
        clear: bool = False,
        through_defaults: Mapping[str, Any] | None = None,
    ) -> None:
        """Relate *objects* and nothing else: what is too much is removed, then what is missing added.

        With *clear* all are parted first. Raises as `add` and `remove` do.
        """
        if isinstance(objects, (str, bytes)):
            raise TypeError(f"set() wants a list of instances or keys, not {objects!r}")
        given = tuple(objects)
        self._changes("set", bulk, through_defaults).set(given, clear=clear)

    def bulk_create(self, objects: Iterable[M], **options: Any) -> list[M]:
        """`TypeError`: nothing would relate *objects*."""
        raise TypeError(f"bulk_create() relates no rows, and this is a query of {self._relation.label}")

    def update(self, /, **values: Any) -> int:
        """As of any query."""
        try:
            return super().update(**values)
        finally:
            self._owner.__dict__.pop(self._relation.name, None)

    def delete(self) -> tuple[int, dict[str, int]]:
        """As of any query."""
        try:
            return super().delete()
        finally:
            self._owner.__dict__.pop(self._relation.name, None)

    @property
    def _known(self) -> list[M] | None:
        """The rows that are known: not of a query that may ask for others."""
        kept = None if self._refined or self._using else self._owner.__dict__.get(self._relation.name)
        return kept[1] if kept is not None and kept[0] == self._key else None

    def _known_or_lazy(self) -> list[M] | None:
        """The rows that are known, if they are; `LazyLoadError` where they should have been loaded before."""
        known = self._known
        if known is None and not self._refined and not self._using:
            refuse_lazy(self._owner, self._relation.name)
        return known

    def _changes(
        self, method: str, bulk: bool = True, defaults: Mapping[str, Any] | None = None
    ) -> Belongings | Pairs:
        """What changes the relation. `TypeError` for a refined query and options of another kind of relation."""
        label = self._relation.label
        if self._refined and method != "create":
            raise TypeError(f"{method}() is for all of {label}, and this query is refined")
        if pairs_of(self._relation) is not None:
            if not bulk:
                raise TypeError(f"{method}() of {label} saves nothing that bulk=False could be about")
            return Pairs(self, defaults)
        if defaults is not None:
            raise TypeError(
                f"{method}() of {label} goes through no model that through_defaults= could be about"
            )
        return Belongings(self, bulk=bulk)

    def _with_prefetched(self, instances: list[M]) -> list[M]:
        """*instances*, which know whose they are: to ask each for that is a statement for each."""
        made: list[Any] = instances
        step, owner = self._relation.steps[0], self._owner
        if made and len(self._relation.steps) == 1 and made[0]._origin.alias == owner._origin.alias:
            name, there = step.foreign_key.name, step.far.name
            for each in made:
                values = each.__dict__
                if (key := values.get(there)) == self._key:  # which may be deferred
                    values.setdefault(name, (key, owner))
        return super()._with_prefetched(instances)

    def _with(self, **changes: Any) -> Self:
        query = super()._with(**changes)
        query._relation, query._key = self._relation, self._key
        query._refined = self._refined or tuple(changes) != ("_using",)
        return query
