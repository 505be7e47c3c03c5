"""Constructor: the generated `__init__` of a model, and the careful way round it.

The generated function takes keywords with their defaults and fills the instance by one dictionary; it steps
aside for whatever is out of the ordinary: wrong arguments, and listeners of `pre_init` and `post_init`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from microorm.codegen import compiled
from microorm.errors import nearest
from microorm.fields import MISSING
from microorm.schema import Schema
from microorm.signals import post_init, pre_init
from microorm.state import NEW

MOST_GENERATED = 200


def make_init(schema: Schema) -> Callable[..., None]:
    """The `__init__` of the model of *schema*: keywords only, `TypeError` for anything else."""
    parameters, items, required, passed = [], [], [], []
    namespace: dict[str, Any] = {
        "missing": MISSING,
        "new": NEW,
        "careful": careful,
        "schema": schema,
        "pre_init": pre_init,
        "post_init": post_init,
    }
    for place, field in enumerate(schema.fields):
        name = field.name
        if field.default_factory is not None:
            namespace[f"f{place}"] = field.default_factory
        if not field.init:
            if field.default_factory is not None:
                items.append(f"{name!r}: f{place}()")
            elif field.default is not MISSING:
                namespace[f"c{place}"] = field.default
                items.append(f"{name!r}: c{place}")
            elif field.generated or field.primary_key:
                items.append(f"{name!r}: None")
            continue
        passed.append(f"{name!r}: {name}")
        if field.default_factory is not None:
            parameters.append(f"{name}=missing")
            items.append(f"{name!r}: f{place}() if {name} is missing else {name}")
        elif field.default is not MISSING:
            namespace[f"c{place}"] = field.default
            parameters.append(f"{name}=c{place}")
            items.append(f"{name!r}: {name}")
        else:
            parameters.append(f"{name}=missing")
            required.append(f" or {name} is missing")
            items.append(f"{name!r}: {name}")
    source = "\n".join(
        [
            f"def __init__(_self, /, *_args, {''.join(p + ', ' for p in parameters)}**_unknown):",
            f"    if _args or _unknown or pre_init._connections or post_init._connections{''.join(required)}:",
            f"        careful(schema, _self, _args, {{{', '.join(passed)}}}, _unknown)",
            "        return",
            f"    _self.__dict__ = {{{', '.join(items)}}}",
            "    _self._row = None",
            "    _self._origin = new",
        ]
    )
    # A field may be called as one of the names above; then those step aside.
    init: Callable[..., None] = compiled("__init__", source, namespace)
    return init


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
        raise TypeError(f"{name}() takes keywords only, not {len(args)} positional arguments")
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
