"""Associations: many-to-many relations, and the model between two others whose rows they are."""

from __future__ import annotations

from contextlib import suppress
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from sqlalchemy import UniqueConstraint

from microorm.errors import ModelError, nearest
from microorm.fields.type_map import type_name
from microorm.mapping.definition import table_name
from microorm.mapping.foreign_key import ForeignKey, Relation, foreign_key
from microorm.mapping.path import Path, Step
from microorm.relations.related_query import RelatedQuery
from microorm.relations.reverse import rows_of
from microorm.relations.through_rows import pairs_of

M = TypeVar("M")


class ManyToMany(Relation, Generic[M]):
    """Rows of another model, each of which may be related to many rows of this one."""

    waits = True
    many_to_many = True

    def __init__(
        self,
        through: Any = None,
        through_fields: tuple[str, str] | None = None,
        *,
        symmetrical: bool = False,
    ) -> None:
        self._through = through
        self._through_fields = through_fields
        self.symmetrical = symmetrical
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
        bound._refuse_contradictions()
        if self._through is None:
            bound._through = self._made
        return bound

    @property
    def target(self) -> Any:
        """The model that it leads to; one that was defined again has taken its place."""
        return self.owner.__schema__.registry.newest(self._target)

    @property
    def through(self) -> Any:
        """The model between the two, whose rows relate them. `ModelError` where it is not what it should be."""
        return self.steps[0].foreign_key.owner

    @property
    def steps(self) -> tuple[Step, ...]:
        """From a row to those between, and on to the other model's."""
        sides = self.owner.__schema__.sides
        found: tuple[Step, ...] | None = sides.get(self.name)
        if found is None:
            near, far = self.foreign_keys
            found = sides[self.name] = (Step(near, reverse=True), Step(far, reverse=False))
        return found

    @property
    def foreign_keys(self) -> tuple[ForeignKey[Any], ForeignKey[Any]]:
        """The two of the through model: to the relation's own model, and to the other.

        `ModelError` where there are not two, one to each.
        """
        through = self._between()
        keys = through.__schema__.foreign_keys
        if self._through_fields is not None:
            named = {key.name: key for key in keys}
            near, far = ([named[name]] if name in named else [] for name in self._through_fields)
        else:
            near = [key for key in keys if key.target is self.owner]
            far = [key for key in keys if key.target is self.target]
            if self.target is self.owner:
                near, far = near[:1], near[1:]
        right = len(near) == len(far) == 1 and near[0] is not far[0]
        if not right or near[0].target is not self.owner or far[0].target is not self.target:
            which = (
                "one foreign key to each side"
                if self._through_fields is None
                else f"the foreign keys {self._through_fields!r}"
            )
            raise ModelError(
                f"{self.label}: {through.__name__} wants {which}, from {self.owner.__name__} to "
                f"{self.target.__name__}; it has {', '.join(f'{k.name} to {k.target.__name__}' for k in keys) or 'none'}"
            )
        return near[0], far[0]

    def _between(self) -> Any:
        registry = self.owner.__schema__.registry
        if not isinstance(self._through, str):
            return registry.newest(self._through)
        models = registry.by_name()
        if (found := models.get(self._through)) is None:
            raise ModelError(
                f"{self.label}: no model is called {self._through!r}{nearest(self._through, models)}"
            )
        return found

    def _refuse_contradictions(self) -> None:
        through, fields = self._through, self._through_fields
        if not isinstance(self._target, type):
            raise ModelError(f"{self.label}: ManyToMany[...] wants a model, not {type_name(self._target)}")
        if through is not None and not isinstance(through, (type, str)):
            raise ModelError(f"{self.label}: through= wants a model or its name, not {through!r}")
        if type(self.symmetrical) is not bool:
            raise ModelError(f"{self.label}: symmetrical= wants a bool, not {self.symmetrical!r}")
        if self.symmetrical and self._target is not self.owner:
            raise ModelError(f"{self.label}: symmetrical=True is for relations of a model to itself")
        if fields is None:
            return
        if through is None:
            raise ModelError(f"{self.label}: through_fields= says nothing without through=")
        if not isinstance(fields, tuple) or [*map(type, fields)] != [str, str]:
            raise ModelError(f"{self.label}: through_fields= wants two names, not {fields!r}")


def many_to_many(
    *,
    through: Any = None,
    through_fields: tuple[str, str] | None = None,
    symmetrical: bool = False,
    init: Literal[False] = False,
) -> Any:
    """Declare a many-to-many relation: `tags: ManyToMany[Tag] = many_to_many()`.

    *through*: the model between the two, or its class name; it has a foreign key to each. Else one is made, called
    `Post_tags`, whose rows are pairs. *through_fields*: its two foreign keys, to this model and to the other, where it
    has more. *symmetrical*, of a model to itself: who is related to a row has that row related, too. *init* is for
    type checkers: the constructor has none. Seen from the other side: `posts: Related["Post"] = related("tags")`.

    What does not go together is a `ModelError`: at the class definition, or where *through* is not what it should be,
    at the first use.
    """
    return ManyToMany(through, through_fields, symmetrical=symmetrical)


def through(relation: object) -> type[Any]:
    """The model between the two sides of a many-to-many relation: `through(Post.tags)`, the sender of `m2m_changed`.

    *relation*: the relation as the class has it, from either side. `TypeError` for anything else.
    """
    if isinstance(relation, Path) and (parent := relation._parent) is not None:
        start = parent._parent
        steps = (parent._step, relation._step)
        for each in () if start is None else start._schema.relations.values():
            with suppress(ModelError):  # what is declared wrongly is found where it is used
                if (pairs := pairs_of(each)) is not None and each.steps == steps:
                    model: type[Any] = pairs.through
                    return model
    raise TypeError(f"through() wants a many-to-many relation of a model, not {relation!r}")


def _made_between(owner: Any, name: str, target: Any, registry: Any) -> Any:
    """The model whose rows are the pairs of *owner* and *target* that the relation *name* of *owner* relates."""
    near, far = owner.__name__.lower(), target.__name__.lower()
    root = next(parent for parent in reversed(owner.__mro__) if "__options__" in vars(parent))
    if (
        near == far
        or {near, far} & {f"{near}_id", f"{far}_id"}
        or not (_free(root, near) and _free(root, far))
    ):
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


def _free(root: type, name: str) -> bool:
    """Whether a relation of a model can be called *name*."""
    return not (name.startswith("_") or iskeyword(name) or name == "id" or name in dir(root))
