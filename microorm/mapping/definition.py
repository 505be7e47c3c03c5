"""Definition: what happens at the class statement of a model.

The class keywords are checked, the annotations read, and, unless the model is abstract or waits for a name, its
schema, table, errors and constructor are made and the model is registered.

Binding: what class bodies declare, made the fields and relations of one model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from threading import RLock
from typing import Any

from sqlalchemy import MetaData, Table

from microorm.db.databases import ALIAS
from microorm.errors import (
    ModelError,
    MultipleObjectsReturned,
    NotUpdated,
    ObjectDoesNotExist,
    nearest,
)
from microorm.fields.field import Field, split_optional
from microorm.fields.type_map import type_name
from microorm.mapping.constructor import make_init
from microorm.mapping.declarations import (
    Declaration,
    Names,
    PendingName,
    enclosing_frames,
    has_fields,
    read_declarations,
    refuse_overwritten,
)
from microorm.mapping.foreign_key import ForeignKey, Reference, Relation
from microorm.mapping.schema import Schema, implicit_key, key_type, make_schema
from microorm.registry import NAMING, Registry, default_registry
from microorm.signals import class_prepared

KEYWORDS = ("abstract", "app", "database", "registry", "table", "table_args")
# A model that waits for a name is prepared by whoever uses it first, in whatever thread.
_preparing = RLock()


class Options:
    """The class keywords of a model, those of its abstract bases included."""

    __slots__ = (*KEYWORDS, "own", "own_args")

    abstract: bool
    app: str | None
    database: str | None
    registry: Registry | None
    table: str | None
    table_args: tuple[Any, ...]
    own: dict[str, Any]
    own_args: tuple[Any, ...]

    def __init__(self, parents: list[Options], given: dict[str, Any], name: str) -> None:
        if unknown := sorted(given.keys() - set(KEYWORDS)):
            raise ModelError(
                f"{name}: no class keyword {unknown[0]!r}; known: {', '.join(KEYWORDS)}"
                f"{nearest(unknown[0], KEYWORDS)}"
            )
        self.abstract = given.get("abstract", False)
        self.table = given.get("table")
        self.own = given
        # As with any attribute: what a later base states itself counts more than what an earlier one inherits.
        for option in ("app", "database", "registry"):
            stated = [each.own[option] for each in (self, *parents) if option in each.own]
            setattr(self, option, stated[0] if stated else None)
        self.own_args = given.get("table_args", ())
        self._check(name)
        # Each base adds its constraints: one that a mixin states is never lost for another's sake.
        self.table_args = sum((parent.own_args for parent in reversed(parents)), ()) + self.own_args

    def _check(self, name: str) -> None:
        for option in ("table", "app", "database"):
            value = getattr(self, option)
            if value is not None and (not isinstance(value, str) or not value):
                raise ModelError(f"{name}: {option}= wants a name, not {value!r}")
        if self.app is not None and not self.app.isidentifier():
            raise ModelError(f"{name}: app= wants an identifier, not {self.app!r}")
        if self.database is not None and not ALIAS.fullmatch(self.database):
            raise ModelError(
                f"{name}: database= wants an alias (letters, digits, underscores), not {self.database!r}"
            )
        if not isinstance(self.abstract, bool):
            raise ModelError(f"{name}: abstract= wants a bool, not {self.abstract!r}")
        if self.registry is not None and not isinstance(self.registry, Registry):
            raise ModelError(f"{name}: registry= wants a Registry, not {self.registry!r}")
        if not isinstance(self.own_args, tuple):
            raise ModelError(f"{name}: table_args= wants a tuple, not {self.own_args!r}")
        if self.abstract and self.table is not None:
            raise ModelError(f"{name}: an abstract model has no table=")


class LazySchema:
    """`Model.__schema__` of a model whose annotations name what was not defined yet: read at the first use."""

    def __get__(self, instance: Any, owner: Any) -> Schema:
        if owner.__options__.abstract:
            raise AttributeError(f"{owner.__name__} is abstract and has no schema")
        try:
            return prepare(owner)
        except PendingName as pending:
            raise ModelError(f"{owner.__name__}: {pending}") from None


class LazyTable:
    """`Model.__table__`, by way of the schema."""

    def __get__(self, instance: Any, owner: Any) -> Table:
        table: Table = owner.__schema__.table
        return table


def define(cls: Any, root: type, given: dict[str, Any]) -> None:
    """Read the class statement of *cls*. `ModelError` says what is wrong with it."""
    parents = [parent for parent in cls.__mro__[1:] if "__options__" in vars(parent)]
    for parent in parents:
        if not parent.__options__.abstract:
            raise ModelError(
                f"{cls.__name__} derives from {parent.__name__}, which has a table; only abstract "
                "models are derived from"
            )
    _refuse_plain_mixins(cls)
    cls.__options__ = options = Options([parent.__options__ for parent in parents], given, cls.__name__)
    registry = options.registry or default_registry
    names = Names(cls, enclosing_frames(cls, 3), registry.by_name)
    refuse_overwritten(cls, iter(inherited(cls)))
    cls.__declarations__ = read_declarations(cls, names, taken_names(root))
    for name, declaration in (cls.__declarations__ if options.abstract else inherited(cls)).items():
        setattr(cls, name, declaration.field)
        if isinstance(declaration.field, ForeignKey):  # until the schema is made, its column asks for that
            column: Field[Any] = Field()
            column.name = f"{name}_id"
            setattr(cls, column.name, column)
    if options.abstract:
        return
    label = registry.label(cls, options.app)
    older = registry.models.get(label)
    try:
        prepare(cls)
    except PendingName:
        registry.postpone(cls, label)
    except BaseException:
        registry.take_back(cls, label, older)
        raise


def prepare(cls: Any) -> Schema:
    """Make the schema of *cls* and all that hangs on it, register the model, and tell `class_prepared` (G1).

    Raises `ModelError`, and `PendingName` where a name in an annotation is not defined yet.
    """
    options = cls.__options__
    registry = options.registry or default_registry
    with _preparing:
        if "__schema__" in vars(cls):
            schema: Schema = cls.__schema__
            return schema
        declarations = understood(cls)
        label = registry.label(cls, options.app)
        known = dict(registry.models)
        between = _models_between(cls, declarations, registry)
        try:
            older = registry.check_free(cls, label)
            schema = _make(cls, declarations, label, registry, older)
        except BaseException:
            for model in between:
                registry.take_back(model, model.__schema__.label, known.get(model.__schema__.label))
            raise
        registry.add(cls, label)
    class_prepared.send(cls)
    return schema


def _make(cls: Any, declarations: Understood, label: str, registry: Registry, older: Any) -> Schema:
    """The schema of *cls*, installed; *older*, whose place it takes, is there until it can be made."""
    options = cls.__options__

    def make(metadata: MetaData) -> Schema:
        return make_schema(
            cls,
            [bound(cls, name, declared, kind, registry) for name, (declared, kind) in declarations.items()],
            label=label,
            table=table_name(cls),
            home=options.database,
            registry=registry,
            metadata=metadata,
            table_args=options.table_args,
        )

    if older is not None:
        make(MetaData(naming_convention=NAMING))  # the older model stays where the new one cannot be made
        registry.forget_table(older)
    schema = make(registry.tables)
    _install(cls, schema)
    return schema


def _models_between(cls: Any, declarations: Understood, registry: Registry) -> list[Any]:
    """The models that relations of *cls* to many rows make for themselves: they come before *cls* (CONTRACT G1)."""
    return [
        model
        for name, (declared, kind) in declarations.items()
        if isinstance(declared, Relation)
        for model in declared.models_between(cls, name, kind, registry)
    ]


def _refuse_plain_mixins(cls: type) -> None:
    for parent in cls.__mro__[1:]:
        if "__options__" not in vars(parent) and has_fields(parent):
            raise ModelError(
                f"{cls.__name__}: {parent.__name__} has fields but is no model; "
                f"class {parent.__name__}(Model, abstract=True) is one"
            )


def _install(cls: Any, schema: Schema) -> None:
    for each in schema.fields:
        setattr(cls, each.name, each)
    for relation in schema.relations.values():
        setattr(cls, relation.name, relation)
    for kind in (ObjectDoesNotExist, MultipleObjectsReturned, NotUpdated):
        name = "DoesNotExist" if kind is ObjectDoesNotExist else kind.__name__
        own = {"__module__": cls.__module__, "__qualname__": f"{cls.__qualname__}.{name}"}
        setattr(cls, name, type(name, (kind,), own))
    _lay_out(cls, schema.names)
    cls.__table__ = schema.table
    cls.__declarations__ = {}
    cls.__construct__ = make_init(schema)
    root = next(parent for parent in reversed(cls.__mro__) if "__options__" in vars(parent))
    if not any("__init__" in vars(parent) for parent in cls.__mro__[: cls.__mro__.index(root)]):
        cls.__init__ = cls.__construct__
    cls.__schema__ = schema  # last: another thread that sees it uses the rest


def _lay_out(cls: type, names: tuple[str, ...]) -> None:
    """Let CPython keep the values of an instance in a row of places, by telling it *names* before all others.

    An instance whose attributes are set one by one then needs half the memory of one that has a dictionary.
    """
    instance: Any = object.__new__(cls)
    for name in names:
        object.__setattr__(instance, name, None)


def taken_names(root: type) -> frozenset[str]:
    """The names that a field cannot have: those of the methods and attributes of every model.

    Methods that talk to a database have their async twins' names reserved, too, before these exist.
    """
    twins = {"asave", "adelete", "arefresh_from_db"}
    return (frozenset(name for name in dir(root) if not name.startswith("__")) | twins) - {"id"}


Understood = Mapping[str, tuple[Any, Any]]  # what is declared, with its type


def inherited(cls: type) -> dict[str, Declaration]:
    """The fields of *cls*, those of its bases first."""
    found: dict[str, Declaration] = {}
    for parent in reversed(cls.__mro__):
        found.update(vars(parent).get("__declarations__", {}))
    return found


def understood(cls: type) -> Understood:
    """The fields and relations of *cls* with their types; what is understood is so for the bases, too."""
    for parent in cls.__mro__:
        own = vars(parent).get("__declarations__", {})
        own.update({name: declaration.understood() for name, declaration in own.items()})
    return {name: (each.field, each.annotation) for name, each in inherited(cls).items()}


def bound(cls: Any, name: str, declared: Any, kind: Any, registry: Registry) -> Any:
    """The field or relation *name* of *cls*."""
    if not isinstance(declared, ForeignKey):
        return declared.bind(cls, name, kind)
    target, nullable = split_optional(kind)
    options = getattr(target, "__options__", None)
    if options is None or options.abstract:
        raise ModelError(f"{cls.__name__}.{name}: {type_name(target)} is no model that has rows")
    if (options.registry or default_registry) is not registry:
        raise ModelError(f"{cls.__name__}.{name}: {target.__name__} is of another registry")
    reference = _reference(f"{cls.__name__}.{name}", target, declared.options["to_field"], registry)
    return declared.bind(cls, name, reference, nullable=nullable)


def _reference(where: str, target: Any, name: str | None, registry: Registry) -> Reference:
    """What a foreign key *where* refers to: the field *name* of *target*, else its key.

    It needs no schema of *target*, which may refer back. Raises `ModelError`.
    """
    if "__schema__" in vars(target):
        known = {field.name: (field, field.python_type) for field in target.__schema__.fields}
    else:
        known = {
            each.name: (each.field, each.understood().annotation)
            for each in inherited(target).values()
            if isinstance(each.field, Field) and (each.field.primary_key or each.name == name)
        }
        if not any(field.primary_key for field, _ in known.values()):
            known["id"] = (implicit_key(target), key_type(target))
    keys = [field for field, _ in known.values() if field.primary_key]
    if name is None and len(keys) > 1:
        raise ModelError(f"{where}: {target.__name__} has a key of several fields, and to_field= names none")
    fit = {field.name for field, _ in known.values() if field in keys or field.options.get("unique")}
    if name is not None and name not in fit:
        raise ModelError(
            f"{where}: to_field={name!r} is no unique field of {target.__name__}{nearest(name, fit)}"
        )
    key, kind = known[name or keys[0].name]
    label = registry.label(target, target.__options__.app)
    column = f"{table_key(target)}.{key.options.get('column') or key.name}"
    return Reference(target, label, registry.models, key, kind, column)


def table_name(cls: Any) -> str:
    """The name of the table of *cls*."""
    return cls.__options__.table or snake_case(cls.__name__)


def table_key(cls: Any) -> str:
    """The name by which the metadata know the table of *cls*: with the database's schema, where it has one."""
    given = (each.get("schema") for each in cls.__options__.table_args if isinstance(each, Mapping))
    schema = next(filter(None, given), None)
    return table_name(cls) if schema is None else f"{schema}.{table_name(cls)}"


def snake_case(name: str) -> str:
    """`HTTPLogEntry` as `http_log_entry`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
