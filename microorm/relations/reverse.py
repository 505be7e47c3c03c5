"""Related: the other side of a relation, seen from the rows that it leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from microorm.errors import ModelError, UnsavedError, nearest
from microorm.fields.field import split_optional
from microorm.mapping.foreign_key import Relation
from microorm.mapping.path import Step
from microorm.mapping.state import keep_related, kept_related
from microorm.messages import brief
from microorm.registry import PendingName

if TYPE_CHECKING:
    from microorm.relations.related_query import RelatedQuery

M = TypeVar("M")
R = TypeVar("R")


class ToMany(Relation, Generic[M]):
    """A relation to many rows: a path on the class, a query on an instance."""

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: Any) -> type[M]: ...
        @overload
        def __get__(self, instance: object, owner: Any) -> RelatedQuery[M]: ...
        def __get__(self, instance: Any, owner: Any) -> Any: ...

    else:

        def __get__(self, instance, owner):
            return self.path(owner) if instance is None else rows_of(instance, self)

        def __set__(self, instance, value):
            raise AttributeError(f"{self.label} cannot be assigned; use its add(), remove() or set()")


class Reverse(Relation):
    """The other side of the relation *via* of another model: what `Related` and `RelatedOne` share."""

    annotation_name = "Related"

    def __init__(self, via: str) -> None:
        self.via = via
        self._kind: Any = None

    def of_kind(self, kind: Any) -> Any:
        """Return the same relation as the class *kind* that its annotation names: `Related` or `RelatedOne`."""
        made = kind(self.via)
        made.name = self.name
        return made

    def bind(self, owner: Any, name: str, kind: Any) -> Any:
        """Return a copy that is the relation *name* of *owner*; *kind* is called for its model at the first use."""
        bound = self.bound_to(owner, name)
        bound._kind = kind
        return bound

    def check(self) -> None:
        """Raise `ModelError` if the other model is defined, and has no relation of this name that leads here."""
        try:
            self._kind()
        except (PendingName, ModelError):  # it may be defined later
            return
        _ = self.reverse_of

    @property
    def target(self) -> Any:
        """The model that it leads to."""
        return self.reverse_of.owner

    @property
    def reverse_of(self) -> Any:
        """The relation that this is the other side of. Raises `ModelError` if the other model has none of this name."""
        return self._side[0]

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of that relation, backwards."""
        return self._side[1]

    @property
    def _side(self) -> tuple[Any, tuple[Step, ...]]:
        sides = self.owner.__schema__.sides
        found: tuple[Any, tuple[Step, ...]] | None = sides.get(self.name)
        if found is None:
            relation = self._find()
            steps = tuple(Step(each.foreign_key, not each.reverse) for each in reversed(relation.steps))
            found = sides[self.name] = (relation, steps)
        return found

    def _find(self) -> Any:
        try:
            target = self.owner.__schema__.registry.newest(split_optional(self._kind())[0])
        except (PendingName, ModelError) as problem:
            raise ModelError(f"{self.label}: {problem}") from None
        relations = target.__schema__.relations
        found = relations.get(self.via)
        if found is None or not (found.is_foreign_key or found.many_to_many):
            raise ModelError(
                f"{self.label}: {target.__name__} has no foreign key or many-to-many relation {self.via!r}"
                f"{nearest(self.via, relations)}"
            )
        if found.target is not self.owner:
            raise ModelError(f"{self.label}: {found.label} leads to {found.target.__name__}")
        return found


class Related(Reverse, ToMany[M]):
    """A relation to the rows of another model that refer to a row by a foreign key or a many-to-many relation."""


class RelatedOne(Reverse, Generic[R]):
    """A relation to the one row that refers to a row by a unique foreign key; R includes None if it may be missing.

    *via* is that of `related`.
    """

    to_one = True

    if TYPE_CHECKING:

        @overload
        def __get__(self: RelatedOne[M | None], instance: None, owner: Any) -> type[M]: ...
        @overload
        def __get__(self: RelatedOne[M], instance: None, owner: Any) -> type[M]: ...
        @overload
        def __get__(self, instance: object, owner: Any) -> R: ...
        def __get__(self, instance: Any, owner: Any) -> Any: ...

    else:

        def __get__(self, instance, owner):
            if instance is None:
                return self.path(owner)
            key = getattr(instance, self.reverse_of.to.name)
            kept = kept_related(instance, self.name)
            if kept is None or kept[0] != key:
                kept = (key, None if key is None else instance._follow(self, key))
                keep_related(instance, self.name, kept)
            if kept[1] is None and not self.nullable:
                raise self.target.DoesNotExist(
                    f"{self.label} of {brief(instance)}: no {self.target.__name__} refers to it"
                )
            return kept[1]

        def __set__(self, instance, value):
            raise AttributeError(
                f"{self.label} cannot be assigned; assign {self.reverse_of.label} of the other instance"
            )

    @property
    def nullable(self) -> bool:
        """Whether the row may be missing."""
        return split_optional(self._kind())[1]

    def _find(self) -> Any:
        found = super()._find()
        if not (found.is_foreign_key and found.unique):
            raise ModelError(
                f"{self.label}: {found.label} is no unique foreign key; annotate Related[...], or declare it unique=True"
            )
        return found


def related(via: str, *, init: Literal[False] = False) -> Any:
    """Declare the other side of a relation: `books: Related["Book"] = related("author")`.

    *via*: the name of the foreign key or many-to-many relation of the other model. Annotate `RelatedOne[...]` if the
    foreign key is unique. *init* is for type checkers: the constructor takes no such argument.

    Raises `TypeError` if *via* is no name, and `ModelError` at the first use if the other model has no such relation.
    """
    if not isinstance(via, str):
        raise TypeError(f"related() takes the name of a relation, not {brief(via)}")
    return Reverse(via)


def rows_of(instance: Any, relation: Any) -> RelatedQuery[Any]:
    """Return a query of the rows that *instance* is related to. Raises `UnsavedError` if it has no key yet."""
    steps = relation.steps
    key = getattr(instance, steps[0].near.name)
    if key is None:
        raise UnsavedError(f"{relation.label}: {brief(instance)} has no key yet; save it first")
    from microorm.relations.related_query import related_query_of  # noqa: PLC0415 not every program needs it

    query: RelatedQuery[Any] = related_query_of(relation.target)
    query._relation, query._owner, query._key, query._refined = relation, instance, key, False
    if len(steps) == 1:
        query._equal = ((steps[0].far.name,), (key,))
    return query._begun()
