"""The generated `__init__` of a model.

The generated function takes keywords and sets all values at once. It calls `construct` for invalid arguments, for
relations, and when `pre_init` or `post_init` have receivers.
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
from microorm.messages import brief
from microorm.signals import post_init, pre_init


def make_init(schema: Schema) -> Callable[..., None]:
    """Generate the `__init__` of the model of *schema*, which takes keywords only."""
    # Names of fields do not begin with an underscore, so they do not collide with these.
    namespace: dict[str, Any] = {
        "_missing": MISSING,
        "_new": NEW,
        "_construct": construct,
        "_schema": schema,
        "_pre_init": pre_init,
        "_post_init": post_init,
    }
    arguments = [_argument(field, index, namespace) for index, field in enumerate(schema.fields)]
    taken = [name for field in schema.fields if field.init for name in _names(field)]
    odd = ["_args", "_unknown", "_pre_init._connections", "_post_init._connections"]
    relate = []
    for field in schema.fields:
        given = [f"{name} is _missing" for name in _names(field)]
        if field.required:
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
            "        _construct(_schema, _self, _args, _passed, _unknown)",
            "        return",
            f"    _self.__dict__ = {{{''.join(item for _, item in arguments)}}}",
            "    _self._row = None",
            "    _self._row_state = _new",
            "    _self._related = None",
            *relate,
        ]
    )
    init: Callable[..., None] = compiled("__init__", source, namespace)
    init.__signature__ = _signature(schema)  # type: ignore[attr-defined]
    return init


def _signature(schema: Schema) -> Signature:
    """Return the signature for `help()` and editors; `...` is the default of a field with a factory."""
    parameters = [Parameter("_self", Parameter.POSITIONAL_ONLY)]
    for field in schema.fields:
        if field.init:
            default = Parameter.empty if field.default is MISSING else field.default
            default = default if field.default_factory is None else ...
            default = None if field.implicit and not field.has_default else default
            kind = field.python_type if field.relation is None else field.relation.target
            kind = Union[kind, None] if field.nullable or default is None else kind  # noqa: UP007
            name = _names(field)[0]
            parameters.append(Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind))
    return Signature(parameters)


def _argument(field: Field[Any], index: int, namespace: dict[str, Any]) -> tuple[str, str]:
    """Return the source of a field: its parameter, and its item in the dictionary of the instance."""
    name = field.name
    others = "".join(f"{each}=_missing, " for each in _names(field) if each != name)
    if field.has_default:
        calls = field.default_factory is not None
        namespace[f"_d{index}"] = field.default_factory if calls else field.default
        made = f"_d{index}()" if calls else f"_d{index}"
        if field.init:
            # Not `name=made`: receivers of pre_init get the caller's arguments without defaults.
            return f"{others}{name}=_missing, ", f"{name!r}: {made} if {name} is _missing else {name}, "
        return "", f"{name!r}: {made}, "
    if field.required:
        return f"{others}{name}=_missing, ", f"{name!r}: {name}, "
    if field.init:
        return f"{name}=_missing, ", f"{name!r}: None if {name} is _missing else {name}, "
    return "", f"{name!r}: None, " if field.primary_key else ""


def _names(field: Field[Any]) -> tuple[str, ...]:
    """Return the keywords that set *field*: of a foreign key both `author` and `author_id`."""
    return (field.name,) if field.relation is None else (field.relation.name, field.name)


def construct(
    schema: Schema, instance: Any, args: tuple[Any, ...], passed: dict[str, Any], unknown: dict[str, Any]
) -> None:
    """Initialize *instance*, and send `pre_init`, whose receivers may change the keywords, and `post_init`."""
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
    """Set the values *given* and the defaults of the other fields. `TypeError` for an invalid argument."""
    name = schema.name
    if args:
        raise TypeError(f"{name}() takes keyword arguments only, but {len(args)} positional were given")
    for key in given:
        if key not in accepted:
            raise TypeError(f"{name}() has no argument {brief(key)}{nearest(key, accepted)}")
    values: dict[str, Any] = {}
    missing = []
    related = [field.relation for field in schema.fields if field.relation and field.relation.name in given]
    for relation in related:
        if relation.field.name in given:
            raise TypeError(f"{name}() takes {relation.name!r} or {relation.field.name!r}, not both")
    for field in schema.fields:
        if field.relation in related and field.relation is not None:
            values[field.name] = None  # set below
        elif field.name in given:
            values[field.name] = given[field.name]
        elif field.has_default:
            values[field.name] = field.new_default()
        elif field.required:
            missing.append(_names(field)[0])
        elif field.primary_key:
            values[field.name] = None
    if missing:
        raise TypeError(f"{name}() is missing {', '.join(map(repr, missing))}")
    instance.__dict__ = values
    instance._row = None
    instance._row_state = NEW
    instance._related = None
    for relation in related:
        relation.__set__(instance, given[relation.name])


def create_instance(schema: Schema, given: dict[str, Any]) -> Any:
    """Make an instance; *given* may include fields that are no arguments of the constructor.

    Raises `FieldError` for a field that the database computes.
    """
    schema.refuse_computed(given)
    fields = [field for field in schema.fields if not field.init or field.implicit]
    extra = {field.name: given.pop(field.name) for field in fields if field.name in given}
    instance = schema.model(**given)
    instance.__dict__.update(extra)
    return instance
