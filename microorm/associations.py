"""Associations: many-to-many relations, and the model between two others whose rows they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from sqlalchemy import UniqueConstraint

from microorm.binding import table_name
from microorm.errors import ModelError, nearest
from microorm.paths import Step
from microorm.related import RelatedQuery, rows_of
from microorm.relations import ForeignKey, Relation, foreign_key

M = TypeVar("M")


class ManyToMany(Relation, Generic[M]):
    """Rows of another model, each of which may be related to many rows of this one."""

    waits = True
    many_to_many = True

    def __init__(self, through: Any = None) -> None:
        self._through = through
        self._target: Any = None

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
            raise AttributeError(f"{self.label} is changed by its add(), remove() and set()")

    def models_between(self, owner: Any, name: str, kind: Any, registry: Any) -> list[Any]:
        """The through model, made unless one was given."""
        if self._through is not None:
            return []
        model = _made_between(owner, name, kind, registry)
        self._made = model
        return [model]

    def bind(self, owner: Any, name: str, kind: Any) -> Any:
        """A copy that is *name* of *owner* and leads to rows of *kind*."""
        bound = self.belonging_to(owner, name)
        bound._target = kind
        if self._through is None:
            bound._through = self._made
        return bound

    @property
    def target(self) -> Any:
        """The model that it leads to."""
        return self._target

    @property
    def through(self) -> Any:
        """The model between the two, whose rows relate them. `ModelError` where a label names none."""
        if isinstance(self._through, str):
            models = self.owner.__schema__.registry.by_name()
            if (found := models.get(self._through)) is None:
                raise ModelError(
                    f"{self.label}: no model is called {self._through!r}{nearest(self._through, models)}"
                )
            self._through = found
        return self._through

    @property
    def steps(self) -> tuple[Step, ...]:
        """From a row to those between, and on to the other model's."""
        near, far = self.foreign_keys
        return (Step(near, reverse=True), Step(far, reverse=False))

    @property
    def foreign_keys(self) -> tuple[ForeignKey[Any], ForeignKey[Any]]:
        """The two of the through model: to the relation's own model, and to the other.

        `ModelError` where there are not two, one to each.
        """
        through = self.through
        keys = through.__schema__.foreign_keys
        near = [key for key in keys if key.target is self.owner]
        far = [key for key in keys if key.target is self.target and key is not near[0]] if near else []
        if self.target is self.owner:
            near = near[:1]
        if len(near) != 1 or len(far) != 1:
            raise ModelError(
                f"{self.label}: {through.__name__} wants one foreign key to {self.owner.__name__} and one to "
                f"{self.target.__name__}"
            )
        return near[0], far[0]


def many_to_many(*, through: Any = None, init: Literal[False] = False) -> Any:
    """Declare a many-to-many relation: `tags: ManyToMany[Tag] = many_to_many()`.

    *through*: the model between the two, or its class name; it has a foreign key to each. Else one is made, called
    `Post_tags`, whose rows are pairs. *init* is for type checkers: the constructor has none. Seen from the other side: `posts: Related["Post"] = related("tags")`.
    """
    return ManyToMany(through)


def _made_between(owner: Any, name: str, target: Any, registry: Any) -> Any:
    """The model whose rows are the pairs of *owner* and *target* that the relation *name* of *owner* relates."""
    near, far = owner.__name__.lower(), target.__name__.lower()
    if near == far:
        near, far = f"from_{near}", f"to_{far}"
    label = registry.label(owner, owner.__options__.app)
    table = table_name(owner)
    body = {
        "__module__": owner.__module__,
        "__qualname__": f"{owner.__name__}_{name}",
        "__annotations__": {near: ForeignKey[owner], far: ForeignKey[target]},
        near: foreign_key(on_delete="cascade"),
        far: foreign_key(on_delete="cascade"),
    }
    root = next(parent for parent in reversed(owner.__mro__) if "__options__" in vars(parent))
    return type(root)(
        f"{owner.__name__}_{name}",
        (root,),
        body,
        table=f"{table}_{name}",
        app=label.partition(".")[0],
        database=owner.__options__.database,
        registry=registry,
        table_args=(UniqueConstraint(f"{near}_id", f"{far}_id"),),
    )
