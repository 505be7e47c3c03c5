"""Defines a model when its class statement runs.

The class keywords are checked and the annotations read. Then the schema, table, exceptions and constructor are made and
the model is registered, unless it is abstract or uses a name that is not defined yet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import copy
from functools import partial
from threading import RLock
from typing import Any

from sqlalchemy import MetaData, Table

from microorm.db.databases import ALIAS
from microorm.errors import (
    ModelError,
    MultipleObjectsReturned,
    NotUpdated,
    ObjectDoesNotExist,
    StaleUpdate,
    nearest,
)
from microorm.fields.field import Field, split_optional
from microorm.fields.type_map import type_name
from microorm.mapping.constructor import make_init
from microorm.mapping.declarations import (
    Declaration,
    Names,
    enclosing_frames,
    has_fields,
    read_declarations,
    refuse_overwritten,
)
from microorm.mapping.foreign_key import TYPE_OPTIONS, ForeignKey, Reference, Relation
from microorm.mapping.schema import Schema, implicit_key, key_type
from microorm.messages import brief
from microorm.registry import NAMING, PendingName, Registry, default_registry
from microorm.signals import class_prepared

KEYWORDS = (
    "abstract",
    "app",
    "database",
    "managed",
    "natural_key",
    "read_only",
    "registry",
    "table",
    "table_args",
)
# A model with undefined names is prepared at its first use, which may be in any thread.
_preparing = RLock()


class Options:
    """The class keywords of a model and its abstract bases."""

    app: str | None
    database: str | None
    natural_key: tuple[str, ...] | None
    registry: Registry | None
    managed: bool | None  # False: neither `create_all` nor migrations touch the table
    read_only: bool | None

    def __init__(self, parents: list[Options], given: dict[str, Any], name: str) -> None:
        if unknown := sorted(given.keys() - set(KEYWORDS)):
            raise ModelError(
                f"{name}: no class keyword {unknown[0]!r}; known: {', '.join(KEYWORDS)}"
                f"{nearest(unknown[0], KEYWORDS)}"
            )
        self.abstract: bool = given.get("abstract", False)
        self.table: str | None = given.get("table")
        self.own = given
        # In the method resolution order, like an attribute.
        for option in ("app", "database", "managed", "natural_key", "read_only", "registry"):
            stated = [each.own[option] for each in (self, *parents) if option in each.own]
            setattr(self, option, stated[0] if stated else None)
        self.own_args: tuple[Any, ...] = given.get("table_args", ())
        self._check(name)
        # Constraints are added up, so that none of a mixin is lost.
        self.table_args = sum((parent.own_args for parent in reversed(parents)), ()) + self.own_args

    def _check(self, name: str) -> None:
        for option in ("table", "app", "database"):
            value = getattr(self, option)
            if value is not None and (not isinstance(value, str) or not value):
                raise ModelError(f"{name}: {option}= must be a name, not {brief(value)}")
        if self.app is not None and not self.app.isidentifier():
            raise ModelError(f"{name}: app= must be an identifier, not {brief(self.app)}")
        if self.database is not None and not ALIAS.fullmatch(self.database):
            raise ModelError(
                f"{name}: database= must be an alias (letters, digits, underscores), not {brief(self.database)}"
            )
        for option in ("abstract", "managed", "read_only"):
            if not isinstance(value := self.own.get(option, False), bool):
                raise ModelError(f"{name}: {option}= must be a bool, not {brief(value)}")
        if self.registry is not None and not isinstance(self.registry, Registry):
            raise ModelError(f"{name}: registry= must be a Registry, not {brief(self.registry)}")
        if not isinstance(self.own_args, tuple):
            raise ModelError(f"{name}: table_args= must be a tuple, not {brief(self.own_args)}")
        natural = self.natural_key
        if natural is not None and (not isinstance(natural, tuple) or {*map(type, natural)} != {str}):
            raise ModelError(
                f"{name}: natural_key= must be a tuple of names, such as ('isbn',), not {brief(natural)}"
            )
        if self.abstract and self.table is not None:
            raise ModelError(f"{name}: an abstract model cannot have table=")


class LazySchema:
    """`Model.__schema__` of a model with names that were not defined yet: makes the schema at its first use."""

    def __get__(self, instance: Any, owner: Any) -> Schema:
        if owner.__options__.abstract:
            raise AttributeError(f"{owner.__name__} is abstract and has no schema")
        try:
            return prepare(owner)
        except PendingName as pending:
            raise ModelError(f"{owner.__name__}: {pending}") from pending


class LazyTable:
    """`Model.__table__`, from the schema."""

    def __get__(self, instance: Any, owner: Any) -> Table:
        table: Table = owner.__schema__.table
        return table


def define(cls: Any, root: type, given: dict[str, Any]) -> None:
    """Define the model *cls*, which derives from *root*, with the class keywords *given*. Raises `ModelError`."""
    parents = [parent for parent in cls.__mro__[1:] if "__options__" in vars(parent)]
    for parent in parents:
        if not parent.__options__.abstract:
            raise ModelError(
                f"{cls.__name__} derives from {parent.__name__}, which has a table; "
                f"only abstract models can be base classes"
            )
    for parent in cls.__mro__[1:]:
        if "__options__" not in vars(parent) and has_fields(parent):
            raise ModelError(
                f"{cls.__name__}: {parent.__name__} has fields but is not a model; "
                f"declare it as class {parent.__name__}(Model, abstract=True)"
            )
    _refuse_foreign_options(cls, root)
    cls.__options__ = options = Options([parent.__options__ for parent in parents], given, cls.__name__)
    registry = options.registry or default_registry
    names = Names(cls, enclosing_frames(cls, 3), partial(registry.find, cls))
    refuse_overwritten(cls, iter(inherited(cls)))
    _refuse_other_objects(cls, root)
    cls.__declarations__ = read_declarations(cls, names, taken_names(root))
    for name, declaration in (cls.__declarations__ if options.abstract else inherited(cls)).items():
        setattr(cls, name, declaration.field)
        if isinstance(declaration.field, ForeignKey):  # makes the schema when it is accessed
            column: Field[Any] = Field()
            column.name = f"{name}_id"
            setattr(cls, column.name, column)
    label = registry.label(cls, options.app)
    if options.abstract:
        registry.add_abstract(cls, label)
        return
    older = registry.models.get(label)
    try:
        prepare(cls, final=False)
    except PendingName:
        registry.postpone(cls, label)
    except BaseException:
        registry.take_back(cls, label, older)
        raise


def _refuse_other_objects(cls: type, root: type) -> None:
    """Raise `ModelError` if the body of *cls* sets `objects` to anything but what `as_objects()` returns."""
    made: type = type(vars(root)["objects"])
    written = vars(cls).get("objects")
    if written is not None and not isinstance(written, made):
        raise ModelError(
            f"{cls.__name__}.objects: {brief(written)} is not what queries begin with; write objects = Class.as_objects() "
            "for a class that derives from Query"
        )


# How other ORMs write an option in the class body, and the class keyword for it.
_FOREIGN_OPTIONS = {
    "db_table": "table=",
    "table_name": "table=",
    "table": "table=",
    "__tablename__": "table=",
    "abstract": "abstract=True",
    "__abstract__": "abstract=True",
    "app_label": "app=",
    "app": "app=",
    "constraints": "table_args=",
    "indexes": "table_args=",
    "unique_together": "table_args=",
    "index_together": "table_args=",
    "__table_args__": "table_args=",
    "database": "database=",
    "__bind_key__": "database=",
    "managed": "managed=",
    "ordering": "order_by() of a query",
    "schema": 'table_args=({"schema": …},)',
}


def _refuse_foreign_options(cls: type, root: type) -> None:
    """Raise `ModelError` for options in the class body, which other ORMs read there and microorm would ignore."""
    for parent in cls.__mro__[: cls.__mro__.index(root)]:
        meta = vars(parent).get("Meta")
        given = [f"Meta.{name}" for name in vars(meta)] if isinstance(meta, type) else []
        given += [name for name in vars(parent) if name.startswith("__")]
        found = [name for name in given if name.removeprefix("Meta.") in _FOREIGN_OPTIONS]
        if not (found or isinstance(meta, type)):
            continue
        pairs = [f"{_FOREIGN_OPTIONS[name.removeprefix('Meta.')]} instead of {name}" for name in found]
        what = "Meta" if isinstance(meta, type) else found[0]
        raise ModelError(
            f"{parent.__name__}: {what} in the class body has no effect; write class keywords, "
            f"class {parent.__name__}(Model, table=…): {', '.join(pairs) or 'known: ' + ', '.join(KEYWORDS)}"
        )


def prepare(cls: Any, *, final: bool = True) -> Schema:
    """Make the schema, constructor and exceptions of *cls*, register it, and send `class_prepared`.

    Not *final*: names are looked up as at a class statement, after which other models may be defined.
    Raises `ModelError`, or `PendingName` if a name in an annotation is not defined yet.
    """
    options = cls.__options__
    registry = options.registry or default_registry
    with _preparing:
        if "__schema__" in vars(cls):
            schema: Schema = cls.__schema__
            return schema
        declarations = resolve(cls, final=final)
        label = registry.label(cls, options.app)
        known = dict(registry.models)
        throughs = [
            model
            for name, (declared, kind) in declarations.items()
            if isinstance(declared, Relation)
            for model in declared.through_models(cls, name, kind, registry)
        ]
        try:
            older = registry.check_free(cls, label)
            schema = _make(cls, declarations, label, registry, older)
        except BaseException:
            for model in throughs:
                registry.take_back(model, model.__schema__.label, known.get(model.__schema__.label))
            raise
        registry.add(cls, label)
    class_prepared.send(cls)
    return schema


def _make(cls: Any, declarations: Resolved, label: str, registry: Registry, older: Any) -> Schema:
    """Make and install the schema of *cls*, which replaces the model *older* if there is one."""

    def make(metadata: MetaData) -> Schema:
        parts = [
            bound(cls, name, declared, kind, registry, declarations)
            for name, (declared, kind) in declarations.items()
        ]
        return Schema(cls, parts, label=label, table=table_name(cls), registry=registry, metadata=metadata)

    if older is not None:
        make(MetaData(naming_convention=NAMING))  # raises an error before the older model is touched
        registry.tables.remove(older.__table__)
    schema = make(registry.tables)
    _install(cls, schema)
    return schema


def _install(cls: Any, schema: Schema) -> None:
    for each in schema.fields:
        setattr(cls, each.name, each)
    for relation in schema.relations.values():
        setattr(cls, relation.name, relation)
    for kind in (ObjectDoesNotExist, MultipleObjectsReturned, NotUpdated, StaleUpdate):
        name = "DoesNotExist" if kind is ObjectDoesNotExist else kind.__name__
        own = {"__module__": cls.__module__, "__qualname__": f"{cls.__qualname__}.{name}"}
        setattr(cls, name, type(name, (kind,), own))
    # CPython stores inline the attributes that are set on a first instance; an instance whose attributes
    # are then set one by one needs half the memory of one with a dictionary.
    first = object.__new__(cls)
    for name in schema.names:
        object.__setattr__(first, name, None)
    cls.__table__ = schema.table
    cls.__declarations__ = {}
    cls.__construct__ = make_init(schema)
    root = next(parent for parent in reversed(cls.__mro__) if "__options__" in vars(parent))
    if not any("__init__" in vars(parent) for parent in cls.__mro__[: cls.__mro__.index(root)]):
        cls.__init__ = cls.__construct__
    cls.__schema__ = schema  # last, since other threads check it without a lock


def taken_names(root: type) -> frozenset[str]:
    """Return the names that a field cannot have: the attributes of *root*."""
    return frozenset(name for name in dir(root) if not name.startswith("__")) - {"id"}


Resolved = Mapping[str, tuple[Any, Any]]  # the field or relation, and its type


def inherited(cls: type) -> dict[str, Declaration]:
    """Return the declarations of *cls*, with those of its bases first."""
    found: dict[str, Declaration] = {}
    for parent in reversed(cls.__mro__):
        found.update(vars(parent).get("__declarations__", {}))
    return found


def resolve(cls: type, *, final: bool) -> Resolved:
    """Return the fields and relations of *cls* with their types, and store the types in *cls* and its bases."""
    for parent in cls.__mro__:
        own = vars(parent).get("__declarations__", {})
        own.update({name: declaration.resolved(final=final) for name, declaration in own.items()})
    return {name: (each.field, each.annotation) for name, each in inherited(cls).items()}


def bound(cls: Any, name: str, declared: Any, kind: Any, registry: Registry, declarations: Resolved) -> Any:
    """Bind the field or relation *declared* to *cls*, whose *declarations* may include the column of a foreign key."""
    if not isinstance(declared, ForeignKey):
        return declared.bind(cls, name, kind)
    target, nullable = split_optional(kind)
    options = getattr(target, "__options__", None)
    if options is None or options.abstract:
        raise ModelError(f"{cls.__name__}.{name}: {type_name(target)} is not a model with a table")
    if (options.registry or default_registry) is not registry:
        raise ModelError(f"{cls.__name__}.{name}: {target.__name__} belongs to another registry")
    reference = _reference(f"{cls.__name__}.{name}", target, declared.options["to_field"], registry)
    beside, _ = declarations.get(f"{name}_id", (None, None))
    column = beside if isinstance(beside, Field) else None
    made = declared.bind(cls, name, reference, nullable=nullable, declared=column)
    keys = [each for each, _ in declarations.values() if isinstance(each, Field) and each.primary_key]
    if keys == [column]:  # it is the whole primary key
        made.unique = True
    return made


def _reference(
    where: str, target: Any, name: str | None, registry: Registry, seen: tuple[Any, ...] = ()
) -> Reference:
    """Return the field *name* of *target*, or its key, for the foreign key *where*. Raises `ModelError`.

    *seen*: the models whose keys lead here.
    """
    # The schema of the target may not exist yet, since the target may refer back.
    made = "__schema__" in vars(target)
    if made:
        known = {field.name: (field, field.python_type) for field in target.__schema__.fields}
    else:
        known = {
            each.field.name: (each.field, each.resolved().annotation)
            for each in inherited(target).values()
            if isinstance(each.field, Field) and (each.field.primary_key or each.field.name == name)
        }
        if not any(field.primary_key for field, _ in known.values()):
            known["id"] = (implicit_key(target), key_type(target))
    keys = [field for field, _ in known.values() if field.primary_key]
    if name is None and len(keys) > 1:
        raise ModelError(
            f"{where}: {target.__name__} has a composite key, and a foreign key to several columns is "
            f"not supported; name a unique field as to_field=, or give {target.__name__} a key of one field"
        )
    fit = {field.name for field, _ in known.values() if field in keys or field.options.get("unique")}
    if name is not None and name not in fit:
        raise ModelError(
            f"{where}: to_field={name!r} is not a unique field of {target.__name__}{nearest(name, fit)}"
        )
    key, kind = known[name or keys[0].name]
    key = key if made else _key_to_be(where, target, key, registry, (*seen, target))
    label = registry.label(target, target.__options__.app)
    column = f"{table_key(target)}.{_column_name(target, key)}"
    return Reference(target, label, registry.models, key, kind, column)


def _key_to_be(
    where: str, target: Any, key: Field[Any], registry: Registry, seen: tuple[Any, ...]
) -> Field[Any]:
    """Return *key* of *target*, which has no schema yet, with the type of the key that it refers to itself, if it does."""
    beside = inherited(target).get(key.name.removesuffix("_id"))
    if beside is None or not isinstance(beside.field, ForeignKey) or key.options.get("type_") is not None:
        return key
    further, _ = split_optional(beside.resolved().annotation)
    if further in seen or not hasattr(further, "__options__"):
        return key
    there = _reference(where, further, beside.field.options["to_field"], registry, seen).key
    typed = copy(key)
    typed.options = {
        **key.options,
        **{each: there.options[each] for each in TYPE_OPTIONS if each in there.options},
    }
    return typed


def _column_name(target: Any, key: Field[Any]) -> str:
    """Return the name of the column of *key*, which may be that of a foreign key of *target*."""
    relation = inherited(target).get(key.name.removesuffix("_id"))
    stated = relation.field.options if relation is not None and isinstance(relation.field, ForeignKey) else {}
    return str(key.options.get("column") or stated.get("column") or key.name)


def table_name(cls: Any) -> str:
    """Return the name of the table of *cls*."""
    return cls.__options__.table or snake_case(cls.__name__)


def table_key(cls: Any) -> str:
    """Return the name of the table of *cls*, with its database schema if it has one."""
    given = (each.get("schema") for each in cls.__options__.table_args if isinstance(each, Mapping))
    schema = next(filter(None, given), None)
    return table_name(cls) if schema is None else f"{schema}.{table_name(cls)}"


def snake_case(name: str) -> str:
    """Convert `HTTPLogEntry` to `http_log_entry`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
