"""Relations: what all of them share, and the foreign key, which is one and a field as well.

On a class a relation is a path, on an instance what the instance is related to. `author` and `author_id` are two
views of one column. A related instance is kept beside the key that it was found by, and counts only while the key
is the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, TypeVar, Union, overload

from sqlalchemy import ForeignKey as Constraint
from sqlalchemy.sql import ClauseElement

from microorm.errors import CrossDatabaseRelation, FieldError, InvalidValue, ModelError, UnsavedError, nearest
from microorm.fields.checks import shown
from microorm.fields.field import MISSING, Field
from microorm.mapping.path import Step, follow, root
from microorm.mapping.state import NEW, new_in

M = TypeVar("M")
R = TypeVar("R")

OnDelete = Literal["cascade", "restrict", "set_null", "set_default", "do_nothing"]
ON_DELETE = ("cascade", "restrict", "set_null", "set_default", "do_nothing")

# The options of a key that a column which refers to it must share, to be of the same type.
_OF_THE_TYPE = ("max_length", "max_digits", "decimal_places", "type_", "timezone")


class Reference(NamedTuple):
    """What a foreign key refers to: a field of a model, perhaps before its schema is there.

    *models* are those of the registry, where another may take the label of *model*.
    """

    model: Any
    label: str
    models: Mapping[str, Any]
    key: Field[Any]
    kind: Any
    column: str


class Relation:
    """A relation of a model: its way to the rows it leads to, and what stands for such a row."""

    name: str
    label: str
    owner: Any
    field: Any = None  # the column of a foreign key
    is_foreign_key: ClassVar[bool] = False
    many_to_many: ClassVar[bool] = False
    to_one: ClassVar[bool] = False  # whether an instance has what it leads to, and not a query of that
    waits: ClassVar[bool] = False  # whether a model cannot be made before the relation's model is named
    init: ClassVar[bool] = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {getattr(self, 'label', 'unbound')}>"

    def models_between(self, owner: Any, name: str, kind: Any, registry: Any) -> list[Any]:
        """The models that the relation *name* of *owner* needs besides, made for it."""
        return []

    def belonging_to(self, owner: Any, name: str) -> Any:
        """A copy that is the relation *name* of *owner*."""
        bound = copy(self)
        bound.name, bound.owner = name, owner
        bound.label = f"{owner.__name__}.{name}"
        return bound

    @property
    def target(self) -> Any:
        """The model that it leads to."""
        raise NotImplementedError

    @property
    def steps(self) -> tuple[Step, ...]:
        """The foreign keys that lead there."""
        raise NotImplementedError

    @property
    def key_field(self) -> Any:
        """The field of its model whose value stands for a row."""
        last = self.steps[-1]
        return self.target.__schema__.key[0] if last.reverse else last.far

    def path(self, owner: Any) -> Any:
        """The path of this relation from *owner*."""
        schema = owner.__schema__
        return follow(root(schema), schema.relations[self.name])

    def key_of(self, value: Any) -> Any:
        """What stands for *value* in a condition or an assignment: of an instance its key, else *value* itself.

        Raises `InvalidValue` for an instance of another model, `UnsavedError` for one without a key.
        """
        if isinstance(value, target := self.target):
            if (key := getattr(value, self.key_field.name)) is None:
                raise UnsavedError(f"{self.label} wants {target.__name__} with a key, and {value!r} has none")
            return key
        if hasattr(type(value), "__schema__"):
            raise InvalidValue(
                self.owner.__name__, {self.name: f"wants {target.__name__}, not {shown(value)}"}
            )
        return value


class ForeignKey(Relation, Generic[R]):
    """A column that holds the key of a row of another model: of R, or of none where R includes None."""

    is_foreign_key = True
    to_one = True
    waits = True

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.on_delete: str = options.get("on_delete", "restrict")
        self.unique: bool = options.get("unique", False)
        self.constrained: bool = options.get("constraint", True)
        self._reference: Any = None
        self._steps = (Step(self, reverse=False),)

    if TYPE_CHECKING:

        @overload
        def __get__(self: ForeignKey[M | None], instance: None, owner: Any) -> type[M]: ...
        @overload
        def __get__(self: ForeignKey[M], instance: None, owner: Any) -> type[M]: ...
        @overload
        def __get__(self, instance: object, owner: Any) -> R: ...
        def __get__(self, instance: Any, owner: Any) -> Any: ...
        def __set__(self, instance: object, value: R) -> None: ...

    else:

        def __get__(self, instance, owner):
            if instance is None:
                return self.path(owner)
            key = instance.__dict__.get(self.field.name, MISSING)
            if key is MISSING:
                key = getattr(instance, self.field.name)
            kept = instance.__dict__.get(self.name)
            if kept is None or (kept[0] is not key and (isinstance(key, ClauseElement) or kept[0] != key)):
                kept = (key, None if key is None else self._load(instance, key))
                instance.__dict__[self.name] = kept
            if kept[1] is None and not self.field.nullable:
                raise self.target.DoesNotExist(f"{self.label} of {instance!r}: {self._absent(key)}")
            return kept[1]

        def __set__(self, instance, value):
            values = instance.__dict__
            if value is None:
                values[self.field.name] = None
                values.pop(self.name, None)
                return
            key = self.key_of(value)
            if key is value:
                problem = f"wants {self.target.__name__}, not {shown(value)}"
                raise InvalidValue(type(instance).__name__, {self.name: problem})
            self.refuse_elsewhere(instance, value)
            values[self.field.name] = key
            values[self.name] = (key, value)

    @property
    def target(self) -> Any:
        """The model whose key it holds; one that was defined again has taken its place."""
        reference: Reference = self._reference
        return reference.models.get(reference.label, reference.model)

    @property
    def to(self) -> Field[Any]:
        """The field of the target that it holds: its key, unless `to_field=` says otherwise."""
        schema, name = self.target.__schema__, self.options.get("to_field")
        field: Field[Any] = schema.key[0] if name is None else schema.by_name[name]
        return field

    @property
    def steps(self) -> tuple[Step, ...]:
        """The one step to the row that it refers to."""
        return self._steps

    @property
    def optional(self) -> bool:
        """Whether there may be no row that it refers to: it is NULL, or nobody has made sure."""
        return bool(self.field.nullable or not self.constrained)

    def bind(self, owner: Any, name: str, reference: Reference, *, nullable: bool) -> ForeignKey[R]:
        """A copy that is *name* of *owner*, with a field of the type of the key it refers to.

        Raises `ModelError` where the declaration is wrong.
        """
        bound: ForeignKey[R] = self.belonging_to(owner, name)
        bound._reference, bound._steps = reference, (Step(bound, reverse=False),)
        bound._refuse_contradictions(nullable)
        given, key = self.options, reference.key
        options = {option: key.options[option] for option in _OF_THE_TYPE if option in key.options}
        if "default" in given:
            options["default"] = given["default"]
        options["column"] = given["column"] or f"{name}_id"
        options["unique"] = self.unique
        options["index"] = given.get("index", not self.unique)
        kind = Union[reference.kind, None] if nullable else reference.kind  # noqa: UP007
        bound.field = Field(**options).bind(owner, f"{name}_id", kind)
        bound.field.relation = bound
        if self.constrained:
            bound.field.column.append_foreign_key(Constraint(reference.column))
        return bound

    def refuse_elsewhere(self, instance: Any, value: Any) -> None:
        """Raise `CrossDatabaseRelation` where *instance* may not refer to *value*, which is of another alias.

        An instance that has no alias yet gets the one it would be written to for the sake of *value* (CONTRACT N11).
        """
        theirs = value._origin.alias
        if theirs is None:
            return
        schema = self.owner.__schema__
        databases, origin = schema.registry.databases, instance._origin
        if origin.alias is None:
            alias = databases.for_write(schema.model, schema.home, None, value).alias
            instance._origin = origin = new_in(alias) if origin is NEW else origin.moved(alias)
        if origin.alias == theirs and not databases.routers:
            return
        if not databases.allows_relation(instance, value):
            raise CrossDatabaseRelation(
                f"{self.label} of {origin.alias!r} cannot refer to {value!r} of {theirs!r}"
            )

    def settle(self, instance: Any) -> None:
        """Take the key of the kept instance anew, which may have got another since it was assigned.

        Raises `UnsavedError` where it has lost it, by a delete or a rollback (CONTRACT I19).
        """
        values = instance.__dict__
        kept = values.get(self.name)
        if kept is None or kept[1] is None or kept[0] is not values.get(self.field.name):
            return
        key = self.key_of(kept[1])
        if key != kept[0]:
            values[self.field.name] = key
            values[self.name] = (key, kept[1])

    def _load(self, instance: Any, key: Any) -> Any:
        if isinstance(key, ClauseElement):
            raise FieldError(f"{self.label} is an SQL expression until the instance is saved")
        return instance._follow(self, key)

    def _absent(self, key: Any) -> str:
        if key is None:
            return f"no {self.target.__name__} is assigned"
        return f"no {self.target.__name__} with {self.to.name}={key!r}"

    def _refuse_contradictions(self, nullable: bool) -> None:
        options = self.options
        if self.on_delete not in ON_DELETE:
            raise ModelError(
                f"{self.label}: on_delete= is one of {', '.join(ON_DELETE)}, not {self.on_delete!r}"
                f"{nearest(self.on_delete, ON_DELETE)}"
            )
        if self.on_delete == "set_null" and not nullable:
            raise ModelError(f"{self.label}: on_delete='set_null' wants ForeignKey[... | None]")
        if self.on_delete == "set_default" and "default" not in options:
            raise ModelError(f"{self.label}: on_delete='set_default' wants default=")
        for option in ("unique", "index", "constraint"):
            if type(options.get(option, False)) is not bool:
                raise ModelError(f"{self.label}: {option}= wants a bool, not {options[option]!r}")


def foreign_key(
    *,
    on_delete: OnDelete = "restrict",
    unique: bool = False,
    index: bool | None = None,
    column: str | None = None,
    to_field: str | None = None,
    constraint: bool = True,
    default: Any = MISSING,
) -> Any:
    """Declare a foreign key: `author: ForeignKey[Author] = foreign_key()`.

    *on_delete*: what becomes of the row when the one it refers to is deleted: it goes, too (`"cascade"`), keeps that
    one from going (`"restrict"`), has the key set to NULL (`"set_null"`) or to *default* (`"set_default"`), or is
    left to the database (`"do_nothing"`). *unique*: a one-to-one relation. *index*: of the column, made unless it is
    *unique* or False. *column*: its name, else the relation's with `_id`. *to_field*: a unique field of the other
    model to refer to, else its key. *constraint=False*: the database does not check that there is such a row.
    *default*: a key, or None.

    What does not go together is a `ModelError` at the class definition, which names the relation.
    """
    options: dict[str, Any] = {"on_delete": on_delete, "unique": unique, "constraint": constraint}
    options |= {"column": column, "to_field": to_field}
    if index is not None:
        options["index"] = index
    if default is not MISSING:
        options["default"] = default
    return ForeignKey(**options)
