"""`Relation`, the base of all relations, and `ForeignKey`.

On a class, a relation is a path; on an instance, the related instance or instances. `author` and `author_id` are the
same column. A related instance is cached together with the key by which it was found, and is used as long as the key has
not changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypedDict, TypeVar, Union, overload

from sqlalchemy import ForeignKey as Constraint
from sqlalchemy.sql import ClauseElement

from microorm.errors import CrossDatabaseRelation, FieldError, InvalidValue, ModelError, UnsavedError, nearest
from microorm.fields.checks import shown
from microorm.fields.field import MISSING, Field
from microorm.mapping.on_delete import ACTIONS, Action, OnDelete
from microorm.mapping.path import Step, follow, root
from microorm.mapping.state import NEW, drop_related, keep_related, new_in
from microorm.messages import brief

M = TypeVar("M")
R = TypeVar("R")

# The options of a key that determine its type, so that a column which refers to it needs them as well.
TYPE_OPTIONS = ("max_length", "max_digits", "decimal_places", "type_", "timezone")


class ConstraintOptions(TypedDict, total=False):
    """The options of a foreign key's constraint in the database, as in SQLAlchemy's `ForeignKey`."""

    name: str
    ondelete: str
    onupdate: str
    deferrable: bool
    initially: str


CONSTRAINT_OPTIONS = tuple(ConstraintOptions.__annotations__)


class Reference(NamedTuple):
    """The field that a foreign key refers to; the schema of its model may not exist yet.

    *models* are those of the registry, in which *model* may be replaced by a later one with its label.
    """

    model: Any
    label: str
    models: Mapping[str, Any]
    key: Field[Any]
    kind: Any
    column: str


class Relation:
    """A relation of a model."""

    name: str
    label: str
    owner: Any
    field: Any = None  # the column of a foreign key
    is_foreign_key: ClassVar[bool] = False
    many_to_many: ClassVar[bool] = False
    to_one: ClassVar[bool] = False  # whether it leads to at most one row
    waits: ClassVar[bool] = False  # whether the model cannot be prepared before the target is defined
    init: ClassVar[bool] = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {getattr(self, 'label', 'unbound')}>"

    def through_models(self, owner: Any, name: str, kind: Any, registry: Any) -> list[Any]:
        """Define the through models that the relation *name* of *owner* to *kind* needs in *registry*: none."""
        return []

    def bound_to(self, owner: Any, name: str) -> Any:
        """Return a copy that is the relation *name* of *owner*."""
        bound = copy(self)
        bound.name, bound.owner = name, owner
        bound.label = f"{owner.__name__}.{name}"
        return bound

    def check(self) -> None:
        """Raise `ModelError` if what is known already shows that the relation is wrong."""

    @property
    def target(self) -> Any:
        """The model at the other end."""
        raise NotImplementedError

    @property
    def steps(self) -> tuple[Step, ...]:
        """The foreign keys that lead to the target."""
        raise NotImplementedError

    @property
    def key_field(self) -> Any:
        """The field of the target that identifies a row in conditions."""
        last = self.steps[-1]
        return self.target.__schema__.key[0] if last.reverse else last.far

    def path(self, owner: Any) -> Any:
        """Return the path along this relation from *owner*."""
        schema = owner.__schema__
        return follow(root(schema), schema.relations[self.name])

    def key_of(self, value: Any) -> Any:
        """Return the key of *value* if it is an instance, else *value* itself.

        Raises `InvalidValue` for an instance of another model, `UnsavedError` for one without a key.
        """
        if isinstance(value, self.target):
            if (key := getattr(value, self.key_field.name)) is None:
                raise UnsavedError(f"{self.label}: {brief(value)} has no key; save it first")
            return key
        if hasattr(type(value), "__schema__"):
            raise self._wrong_model(self.owner, value)
        return value

    def _wrong_model(self, owner: Any, value: Any) -> InvalidValue:
        problem = f"must be {self.target.__name__}, not {shown(value)}"
        return InvalidValue(owner.__name__, {self.name: problem})


class ForeignKey(Relation, Generic[R]):
    """A column with the key of a row of the model R; it is nullable if R includes None.

    *options* are those of `foreign_key`.
    """

    is_foreign_key = True
    to_one = True
    waits = True

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.on_delete: str = options.get("on_delete", "restrict")
        self.unique: bool = bool(options.get("unique", False))
        self.constrained: bool = options.get("constraint", True) is not False
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
            related = instance._related
            kept = None if related is None else related.get(self.name)
            if kept is None or (kept[0] is not key and (isinstance(key, ClauseElement) or kept[0] != key)):
                kept = (key, None if key is None else self._load(instance, key))
                keep_related(instance, self.name, kept)
            if kept[1] is None and not self.field.nullable:
                name = self.target.__name__
                absent = "is assigned" if key is None else f"with {self.to.name}={brief(key)}"
                raise self.target.DoesNotExist(f"{self.label} of {brief(instance)}: no {name} {absent}")
            return kept[1]

        def __set__(self, instance, value):
            values = instance.__dict__
            if value is None:
                values[self.field.name] = None
                drop_related(instance, self.name)
                return
            if not isinstance(value, self.target):
                raise self._wrong_model(type(instance), value)
            self.check_alias(instance, value)
            # None while the instance is not saved: then a save takes the key that it has by then, or refuses.
            values[self.field.name] = key = getattr(value, self.to.name)
            if (related := instance._related) is None:
                instance._related = {self.name: (key, value)}
            else:
                related[self.name] = (key, value)

    @property
    def target(self) -> Any:
        """The model it refers to, or the later model that has replaced it."""
        reference: Reference = self._reference
        return reference.models.get(reference.label, reference.model)

    @property
    def to(self) -> Field[Any]:
        """The field of the target it refers to: the key, or `to_field=`."""
        schema, name = self.target.__schema__, self.options.get("to_field")
        field: Field[Any] = schema.key[0] if name is None else schema.by_name[name]
        return field

    @property
    def steps(self) -> tuple[Step, ...]:
        """The foreign key itself."""
        return self._steps

    @property
    def optional(self) -> bool:
        """Whether there may be no row with its key: it is nullable, or without a constraint."""
        return bool(self.field.nullable or not self.constrained)

    @property
    def action(self) -> Action:
        """What happens to the row when the row it refers to is deleted."""
        return ACTIONS[self.on_delete]

    def bind(
        self,
        owner: Any,
        name: str,
        reference: Reference,
        *,
        nullable: bool,
        declared: Field[Any] | None = None,
    ) -> ForeignKey[R]:
        """Return a copy that is *name* of *owner*, with a field of the type that *reference* leads to.

        *nullable*: whether the key may be NULL. *declared*: the field of its column, if the class body declares that,
        too; its options are added. Raises `ModelError`.
        """
        bound: ForeignKey[R] = self.bound_to(owner, name)
        bound._reference, bound._steps = reference, (Step(bound, reverse=False),)
        bound._check_options(nullable)
        given, key = self.options, reference.key
        options = {option: key.options[option] for option in TYPE_OPTIONS if option in key.options}
        if "default" in given:
            options["default"] = given["default"]
        added = {} if declared is None else bound._options_beside(declared, options)
        bound.unique = bool(self.unique or added.get("unique"))
        options |= {"column": given["column"] or f"{name}_id", "unique": given["unique"]}
        options["index"] = given.get("index", not bound.unique)
        options |= added
        kind = Union[reference.kind, None] if nullable else reference.kind  # noqa: UP007
        bound.field = Field(**options).bind(owner, f"{name}_id", kind)
        bound.field.relation = bound
        if self.constrained:
            stated = given["constraint"] if isinstance(given["constraint"], Mapping) else {}
            bound.field.column.append_foreign_key(Constraint(reference.column, **stated))
        return bound

    def check_alias(self, instance: Any, value: Any) -> None:
        """Raise `CrossDatabaseRelation` if *instance* may not refer to *value*; route *instance* if it has no alias."""
        theirs = value._row_state.alias
        if theirs is None:
            return
        schema = self.owner.__schema__
        databases, state = schema.registry.databases, instance._row_state
        if state.alias is None:
            alias = databases.for_write(schema.model, schema.home, None, value).alias
            instance._row_state = state = new_in(alias) if state is NEW else state.moved(alias)
        if state.alias == theirs and not databases.routers:
            return
        if not databases.allows_relation(instance, value):
            raise CrossDatabaseRelation(
                f"{self.label} of {state.alias!r} cannot refer to {brief(value)} of {theirs!r}"
            )

    def assigned(self, instance: Any) -> Any:
        """Return the related instance that *instance* holds, or None; a key that was set later counts instead of it."""
        related = instance._related
        kept = None if related is None else related.get(self.name)
        return None if kept is None or kept[0] is not instance.__dict__.get(self.field.name) else kept[1]

    def outdated(self, instance: Any) -> Any:
        """Return the related instance whose present key or alias *instance* has not taken yet, or None.

        Raises `UnsavedError` where the related instance has no key, or has lost it by a delete or a rollback.
        """
        if (other := self.assigned(instance)) is None:
            return None
        if (key := getattr(other, self.to.name)) is None:
            owner = self.owner.__name__
            raise UnsavedError(
                f"{self.label}: {brief(other)} has no key; save it before the {owner} that refers to it"
            )
        moved = instance._row_state.alias is None and other._row_state.alias is not None
        return other if moved or key != instance.__dict__[self.field.name] else None

    def _load(self, instance: Any, key: Any) -> Any:
        if isinstance(key, ClauseElement):
            raise FieldError(f"{self.label} is an SQL expression; save the instance to read it")
        return instance._follow(self, key)

    def _options_beside(self, declared: Field[Any], key_options: dict[str, Any]) -> dict[str, Any]:
        """Return the options of the field *declared* for the same column. `ModelError` if they contradict the key.

        A *type_* of its own, which an existing table may have, counts instead of the type in *key_options*.
        """
        own = {option: value for option, value in self.options.items() if value not in (None, False)}
        known = {**key_options, **own}
        if own_type := declared.options.get("type_"):
            known = {option: value for option, value in known.items() if option not in TYPE_OPTIONS}
            for option in TYPE_OPTIONS:
                key_options.pop(option, None)
            known["type_"] = own_type
        for option, value in declared.options.items():
            expected = known.get(option, None if option in TYPE_OPTIONS else value)
            if repr(expected) != repr(value):  # types of SQLAlchemy are equal only to themselves
                raise ModelError(
                    f"{self.owner.__name__}.{declared.name}: {option}= contradicts {self.label}, which has the same column"
                )
        return {option: value for option, value in declared.options.items() if option != "init"}

    def _check_options(self, nullable: bool) -> None:
        options = self.options
        if self.on_delete not in ACTIONS:
            raise ModelError(
                f"{self.label}: on_delete= must be one of {', '.join(ACTIONS)}, not {brief(self.on_delete)}"
                f"{nearest(self.on_delete, ACTIONS)}"
            )
        required, fulfilled = self.action.requires
        if not fulfilled(self, nullable):
            raise ModelError(f"{self.label}: on_delete={brief(self.on_delete)} needs {required}")
        for option in ("unique", "index"):
            if not isinstance(value := options.get(option, False), (bool, str)) or value == "":
                raise ModelError(f"{self.label}: {option}= must be a bool, or its name, not {brief(value)}")
        given = options.get("constraint", True)
        if type(given) is not bool and not isinstance(given, Mapping):
            raise ModelError(
                f"{self.label}: constraint= must be a bool or a dict of its options, not {brief(given)}"
            )
        for option in given if isinstance(given, Mapping) else ():
            if option not in CONSTRAINT_OPTIONS:
                raise ModelError(
                    f"{self.label}: constraint= has no option {option!r}; known: {', '.join(CONSTRAINT_OPTIONS)}"
                    f"{nearest(option, CONSTRAINT_OPTIONS)}"
                )


def foreign_key(
    *,
    on_delete: OnDelete = "restrict",
    unique: bool | str = False,
    index: bool | str | None = None,
    column: str | None = None,
    to_field: str | None = None,
    constraint: bool | ConstraintOptions = True,
    default: Any = MISSING,
) -> Any:
    """Declare a foreign key: `author: ForeignKey[Author] = foreign_key()`.

    *on_delete*: what happens to the row when the row it refers to is deleted: it is deleted as well (`"cascade"`),
    prevents the delete (`"restrict"`), has its key set to NULL (`"set_null"`) or to *default* (`"set_default"`), or is
    left to the database (`"do_nothing"`). *unique*: a one-to-one relation. *index*: whether to index the column; by
    default, unless it is *unique*. *column*: the name of the column, by default the name of the relation and `_id`.
    *unique* and *index* may be the name of the constraint or index. *to_field*: a unique field of the other model to refer to, by default its key. *constraint=False*: do not create a
    constraint in the database; a dict has the options of the constraint. *default*: a key, or None; `...` is no default, and tells type checkers that the argument may
    be left out, where the constructor gets the key instead.

    Invalid options are a `ModelError` when the class is defined.
    """
    options: dict[str, Any] = {"on_delete": on_delete, "unique": unique, "constraint": constraint}
    options |= {"column": column, "to_field": to_field}
    if index is not None:
        options["index"] = index
    if default is not MISSING and default is not ...:
        options["default"] = default
    return ForeignKey(**options)
