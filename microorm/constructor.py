"""Constructor: the generated `__init__` of a model, and the careful way round it.

The generated function takes keywords with their defaults and fills the instance by one dictionary; it steps
aside for whatever is out of the ordinary: wrong arguments, and listeners of `pre_init` and `post_init`.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any, Union

from microorm.codegen import compiled
from microorm.errors import nearest
from microorm.fields import MISSING, Field
from microorm.schema import Schema
from microorm.signals import post_init, pre_init
from microorm.state import NEW


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
    taken = [field.name for field in schema.fields if field.init]
    required = [field.name for field in schema.fields if field.init and not field.has_default]
    odd = ["_args", "_unknown", "_pre_init._connections", "_post_init._connections"]
    source = "\n".join(
        [
            f"def __init__(_self, /, *_args, {''.join(parameter for parameter, _ in arguments)}**_unknown):",
            f"    if {' or '.join(odd + [f'{name} is _missing' for name in required])}:",
            f"        _passed = {{{', '.join(f'{name!r}: {name}' for name in taken)}}}",
            "        _careful(_schema, _self, _args, _passed, _unknown)",
            "        return",
            f"    _self.__dict__ = {{{''.join(item for _, item in arguments)}}}",
            "    _self._row = None",
            "    _self._origin = _new",
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
            kind = Union[field.python_type, None] if field.nullable else field.python_type  # noqa: UP007
            parameters.append(
                Parameter(
                    field.name,
                    Parameter.KEYWORD_ONLY,
                    default=Parameter.empty if default is MISSING else default,
                    annotation=kind,
                )
            )
    return Signature(parameters)


def _argument(field: Field[Any], place: int, namespace: dict[str, Any]) -> tuple[str, str]:
    """The source of one field: its parameter, if it has one, and its item in the instance's dictionary."""
    name = field.name
    if field.has_default:
        calls = field.default_factory is not None
        namespace[f"_d{place}"] = field.default_factory if calls else field.default
        made = f"_d{place}()" if calls else f"_d{place}"
        if field.init:
            # Not `name=made`: a listener of pre_init is told what the caller gave, and no defaults.
            return f"{name}=_missing, ", f"{name!r}: {made} if {name} is _missing else {name}, "
        return "", f"{name!r}: {made}, "
    if field.init:
        return f"{name}=_missing, ", f"{name!r}: {name}, "
    return "", f"{name!r}: None, " if field.primary_key else ""


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
    fill(schema, instance, args, given, frozenset(field.name for field in schema.fields if field.init))
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
    for field in schema.fields:
        if field.name in given:
            values[field.name] = given[field.name]
        elif field.default_factory is not None:
            values[field.name] = field.default_factory()
        elif field.default is not MISSING:
            values[field.name] = field.default
        elif field.init:
            lacking.append(field.name)
        elif field.primary_key:
            values[field.name] = None
    if lacking:
        raise TypeError(f"{name}() lacks {', '.join(map(repr, lacking))}")
    instance.__dict__ = values
    instance._row = None
    instance._origin = NEW


def create_instance(schema: Schema, given: dict[str, Any]) -> Any:
    """An instance as the constructor makes it, from keywords that may also set fields it does not take."""
    extra = {f.name: given.pop(f.name) for f in schema.fields if not f.init and f.name in given}
    instance = schema.model(**given)
    instance.__dict__.update(extra)
    return instance
