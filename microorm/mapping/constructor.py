"""Constructor: the generated `__init__` of a model, and the careful way round it.

The generated function takes keywords with their defaults and fills the instance by one dictionary; it steps
aside for whatever is out of the ordinary: wrong arguments, and listeners of `pre_init` and `post_init`.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any, Union

from microorm.errors import nearest
from microorm.fields.field import MISSING, Field
from microorm.mapping.codegen import compiled
from microorm.mapping.schema import Schema
from microorm.mapping.state import NEW
from microorm.signals import post_init, pre_init


def make_init(schema: Schema) -> Callable[..., None]:
    """The `__init__` of the model of *schema*: keywords only, `TypeError` for anything else."""
    # No field begins with an underscore, so none is called as a name of the source.
    namespace: dict[str, Any] = {
        "_missing": MISSING,
        "_new": NEW,
        "_careful": careful,
        "_schema": schema,
        "_pre_init": pre_init,
        "_post_init": post_init,
    }
    arguments = [_argument(field, place, namespace) for place, field in enumerate(schema.fields)]
    taken = [name for field in schema.fields if field.init for name in _names(field)]
    odd = ["_args", "_unknown", "_pre_init._connections", "_post_init._connections"]
    relate = []
    for field in schema.fields:
        given = [f"{name} is _missing" for name in _names(field)]
        if field.init and not field.has_default:
            odd.append(f"({' and '.join(given)})")
        if (relation := field.relation) is not None:
            odd.append(f"not ({' or '.join(given)})")
            namespace[f"_relate_{relation.name}"] = relation.__set__
            relate.append(f"    if {relation.name} is not _missing:")
            relate.append(f"        _relate_{relation.name}(_self, {relation.name})")
    source = "\n".join(
        [
            f"def __init__(_self, /, *_args, {''.join(parameter for parameter, _ in arguments)}**_unknown):",
            f"    if {' or '.join(odd)}:",
            f"        _passed = {{{', '.join(f'{name!r}: {name}' for name in taken)}}}",
            "        _careful(_schema, _self, _args, _passed, _unknown)",
            "        return",
            f"    _self.__dict__ = {{{''.join(item for _, item in arguments)}}}",
            "    _self._row = None",
            "    _self._origin = _new",
            *relate,
        ]
    )
    init: Callable[..., None] = compiled("__init__", source, namespace)
    init.__signature__ = _signature(schema)  # type: ignore[attr-defined]
    return init


def _signature(schema: Schema) -> Signature:
    """What `help()` and editors show: the keywords, with `...` for a default that is made each time."""
    parameters = [Parameter("_self", Parameter.POSITIONAL_ONLY)]
    for field in schema.fields:
        if field.init:
            default = ... if field.default_factory is not None else field.default
            kind = field.python_type if field.relation is None else field.relation.target
            kind = Union[kind, None] if field.nullable else kind  # noqa: UP007
            parameters.append(
                Parameter(
                    _names(field)[0],
                    Parameter.KEYWORD_ONLY,
                    default=Parameter.empty if default is MISSING else default,
                    annotation=kind,
                )
            )
    return Signature(parameters)


def _argument(field: Field[Any], place: int, namespace: dict[str, Any]) -> tuple[str, str]:
    """The source of one field: its parameter, if it has one, and its item in the instance's dictionary."""
    name = field.name
    others = "".join(f"{each}=_missing, " for each in _names(field) if each != name)
    if field.has_default:
        calls = field.default_factory is not None
        namespace[f"_d{place}"] = field.default_factory if calls else field.default
        made = f"_d{place}()" if calls else f"_d{place}"
        if field.init:
            # Not `name=made`: a listener of pre_init is told what the caller gave, and no defaults.
            return f"{others}{name}=_missing, ", f"{name!r}: {made} if {name} is _missing else {name}, "
        return "", f"{name!r}: {made}, "
    if field.init:
        return f"{others}{name}=_missing, ", f"{name!r}: {name}, "
    return "", f"{name!r}: None, " if field.primary_key else ""


def _names(field: Field[Any]) -> tuple[str, ...]:
    """The keywords that set *field*: of a foreign key the relation, or its column's value."""
    return (field.name,) if field.relation is None else (field.relation.name, field.name)


def careful(
    schema: Schema, instance: Any, args: tuple[Any, ...], passed: dict[str, Any], unknown: dict[str, Any]
) -> None:
    """Fill *instance* step by step, telling `pre_init` and `post_init` (CONTRACT G2, G3).

    `pre_init` gets the live dictionary of keywords before anything is checked.
    """
    given = {name: value for name, value in passed.items() if value is not MISSING}
    given.update(unknown)
    if pre_init._connections:
        pre_init.send(schema.model, args=args, kwargs=given)
    accepted = frozenset(name for field in schema.fields if field.init for name in _names(field))
    fill(schema, instance, args, given, accepted)
    if post_init._connections:
        post_init.send(schema.model, instance=instance)


def fill(
    schema: Schema, instance: Any, args: tuple[Any, ...], given: dict[str, Any], accepted: frozenset[str]
) -> None:
    """Give *instance* the values *given* and the defaults of the other fields. `TypeError` for a wrong argument."""
    name = schema.name
    if args:
        raise TypeError(f"{name}() takes keywords only, not positional arguments ({len(args)} given)")
    for key in given:
        if key not in accepted:
            raise TypeError(f"{name}() has no field {key!r} to set{nearest(key, accepted)}")
    values: dict[str, Any] = {}
    lacking = []
    related = [field.relation for field in schema.fields if field.relation and field.relation.name in given]
    for relation in related:
        if relation.field.name in given:
            raise TypeError(f"{name}() takes {relation.name!r} or {relation.field.name!r}, not both")
    for field in schema.fields:
        if field.relation in related and field.relation is not None:
            values[field.name] = None  # until it is related, below
        elif field.name in given:
            values[field.name] = given[field.name]
        elif field.default_factory is not None:
            values[field.name] = field.default_factory()
        elif field.default is not MISSING:
            values[field.name] = field.default
        elif field.init:
            lacking.append(_names(field)[0])
        elif field.primary_key:
            values[field.name] = None
    if lacking:
        raise TypeError(f"{name}() lacks {', '.join(map(repr, lacking))}")
    instance.__dict__ = values
    instance._row = None
    instance._origin = NEW
    for relation in related:
        relation.__set__(instance, given[relation.name])


def create_instance(schema: Schema, given: dict[str, Any]) -> Any:
    """An instance as the constructor makes it, from keywords that may also set fields it does not take."""
    extra = {f.name: given.pop(f.name) for f in schema.fields if not f.init and f.name in given}
    instance = schema.model(**given)
    instance.__dict__.update(extra)
    return instance
