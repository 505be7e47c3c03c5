"""Binding: what class bodies declare, made the fields and relations of one model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from microorm.declarations import Declaration
from microorm.errors import ModelError, nearest
from microorm.fields.field import Field, split_optional
from microorm.fields.type_map import type_name
from microorm.registry import Registry, default_registry
from microorm.relations import ForeignKey, Reference
from microorm.schema import implicit_key, key_type

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
