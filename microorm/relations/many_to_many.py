"""Many to many: the relation, and the through model whose rows are its pairs."""

from __future__ import annotations

from contextlib import suppress
from keyword import iskeyword
from typing import Any, Literal, TypeVar

from sqlalchemy import UniqueConstraint

from microorm.errors import ModelError, nearest
from microorm.fields.type_map import type_name
from microorm.mapping.definition import table_name
from microorm.mapping.foreign_key import ForeignKey, foreign_key
from microorm.mapping.path import Path, Step
from microorm.messages import brief
from microorm.relations.reverse import ToMany

M = TypeVar("M")


class ManyToMany(ToMany[M]):
    """A relation to rows of another model, each of which may be related to many rows of this one.

    *through*, *through_fields* and *symmetrical* are those of `many_to_many`.
    """

    waits = True
    many_to_many = True

    def __init__(
        self, through: Any = None, through_fields: tuple[str, str] | None = None, *, symmetrical: bool = False
    ) -> None:
        self._through = through
        self._through_fields = through_fields
        self.symmetrical = symmetrical
        self._target: Any = None

    def through_models(self, owner: Any, name: str, kind: Any, registry: Any) -> list[Any]:
        """Return the through model that is made for the relation *name* of *owner* to *kind*: none where one was given.

        It is a model of *registry*.
        """
        if self._through is not None:
            return []
        model = _make_through(owner, name, kind, registry)
        self._made = model
        return [model]

    def bind(self, owner: Any, name: str, kind: Any) -> Any:
        """Return a copy that is the relation *name* of *owner* to rows of *kind*."""
        bound = self.bound_to(owner, name)
        bound._target = kind
        bound._refuse_contradictions()
        if self._through is None:
            bound._through = self._made
        return bound

    @property
    def makes_through(self) -> bool:
        """Whether the through model was made for the relation."""
        return hasattr(self, "_made")

    @property
    def target(self) -> Any:
        """The model that it leads to: the newest one, if that model was defined again."""
        return self.owner.__schema__.registry.newest(self._target)

    @property
    def through(self) -> Any:
        """The model whose rows are the pairs. Raises `ModelError` if it lacks one of the two foreign keys."""
        return self.steps[0].foreign_key.owner

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps from a row to its through rows, and from there to the rows of the other model."""
        sides = self.owner.__schema__.sides
        found: tuple[Step, ...] | None = sides.get(self.name)
        if found is None:
            near, far = self.foreign_keys
            found = sides[self.name] = (Step(near, reverse=True), Step(far, reverse=False))
        return found

    @property
    def foreign_keys(self) -> tuple[ForeignKey[Any], ForeignKey[Any]]:
        """The two foreign keys of the through model: to the relation's own model, and to the other one.

        Raises `ModelError` unless there is exactly one to each.
        """
        through = self._through_model()
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
                else f"the foreign keys {brief(self._through_fields)}"
            )
            raise ModelError(
                f"{self.label}: {through.__name__} needs {which}, from {self.owner.__name__} to "
                f"{self.target.__name__}; it has {', '.join(f'{k.name} to {k.target.__name__}' for k in keys) or 'none'}"
            )
        return near[0], far[0]

    def _through_model(self) -> Any:
        registry, through = self.owner.__schema__.registry, self._through
        if not isinstance(through, str):
            return registry.newest(through)
        known = registry.known()
        try:
            found = known[through] if through in known else registry.find(self.owner, through)
        except ModelError as error:
            raise ModelError(f"{self.label}: {error}") from None
        if not isinstance(found, type):
            names = known if "." in through else [model.__name__ for model in known.values()]
            raise ModelError(f"{self.label}: no model is called {through!r}{nearest(through, names)}")
        return found

    def _refuse_contradictions(self) -> None:
        through, fields = self._through, self._through_fields
        if not isinstance(self._target, type):
            raise ModelError(
                f"{self.label}: ManyToMany[...] must name a model, not {type_name(self._target)}"
            )
        if through is not None and not isinstance(through, (type, str)):
            raise ModelError(f"{self.label}: through= must be a model or its name, not {brief(through)}")
        if type(self.symmetrical) is not bool:
            raise ModelError(f"{self.label}: symmetrical= must be a bool, not {brief(self.symmetrical)}")
        if self.symmetrical and self._target is not self.owner:
            raise ModelError(f"{self.label}: symmetrical=True is for relations of a model to itself")
        if fields is None:
            return
        if through is None:
            raise ModelError(f"{self.label}: through_fields= needs through=")
        if not isinstance(fields, tuple) or [*map(type, fields)] != [str, str]:
            raise ModelError(f"{self.label}: through_fields= must be two names, not {brief(fields)}")


def many_to_many(
    *,
    through: Any = None,
    through_fields: tuple[str, str] | None = None,
    symmetrical: bool = False,
    init: Literal[False] = False,
) -> Any:
    """Declare a many-to-many relation: `tags: ManyToMany[Tag] = many_to_many()`.

    *through*: a model with a foreign key to each side, or its class name; by default one is made, called `Post_tags`.
    *through_fields*: the names of its foreign keys to this model and to the other, if it has more than two.
    *symmetrical*: a pair counts in both directions, in a relation of a model to itself. *init* is for type checkers:
    the constructor takes no such argument. The other side is declared as `posts: Related["Post"] = related("tags")`.

    Raises `ModelError` at the class definition for options that contradict each other, and at the first use for a
    *through* without the foreign keys.
    """
    return ManyToMany(through, through_fields, symmetrical=symmetrical)


def through(relation: object) -> type[Any]:
    """Return the through model of a many-to-many relation, which is the sender of `m2m_changed`: `through(Post.tags)`.

    *relation*: the attribute of the class, from either side. Raises `TypeError` for anything else.
    """
    from microorm.relations.through_rows import many_to_many_of  # noqa: PLC0415 not every program needs it

    if isinstance(relation, Path) and (parent := relation._parent) is not None:
        start = parent._parent
        steps = (parent._step, relation._step)
        for each in () if start is None else start._schema.relations.values():
            with suppress(ModelError):  # a wrong declaration is reported when it is used
                if (found := many_to_many_of(each)) is not None and each.steps == steps:
                    model: type[Any] = found.through
                    return model
    raise TypeError(f"through() takes a many-to-many relation of a model, not {brief(relation)}")


def _make_through(owner: Any, name: str, target: Any, registry: Any) -> Any:
    """Make the through model of the relation *name* of *owner* to *target*."""
    near, far = owner.__name__.lower(), target.__name__.lower()
    root = next(parent for parent in reversed(owner.__mro__) if "__options__" in vars(parent))
    if (
        near == far
        or {near, far} & {f"{near}_id", f"{far}_id"}
        or not (_is_free(root, near) and _is_free(root, far))
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


def _is_free(root: type, name: str) -> bool:
    """Whether *name* can be the name of a relation of a model that derives from *root*."""
    return not (name.startswith("_") or iskeyword(name) or name == "id" or name in dir(root))
