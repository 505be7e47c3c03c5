"""Pydantic models of models: what a web framework validates requests by, and writes responses with.

The types, lengths, digits and defaults are those of the fields, for the JSON schema. Values of an input are checked by the
fields themselves, validators too, so that what passes can be saved. In JSON they are what `to_dict` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    create_model,
)
from sqlalchemy.sql import ClauseElement

from microorm.errors import FieldError
from microorm.fields.checks import InvalidFieldValue
from microorm.fields.field import Field as ModelField
from microorm.mapping.schema import Schema
from microorm.messages import brief
from microorm.serialization import dump_value, load_value

_OWN_JSON: dict[Any, dict[str, Any]] = {
    datetime: {"type": "string", "format": "date-time"},
    timedelta: {"type": "integer", "description": "microseconds"},
    bytes: {"type": "string", "contentEncoding": "base64"},
}
"""The types that pydantic writes otherwise than `to_dict`, and their JSON schema."""

_OWN_FORM = (timedelta, bytes)
"""Those of them that it reads otherwise, too."""

_CONSTRAINTS = ("max_length", "max_digits", "decimal_places")


def pydantic_model(
    model: type[Any],
    mode: Literal["input", "output"],
    *,
    include: Iterable[Any] | None = None,
    exclude: Iterable[Any] = (),
    name: str | None = None,
) -> type[BaseModel]:
    """Return a pydantic model with the fields of *model*, by default named as that, or for an input as `BookInput`.

    *mode*: an `"input"` has the fields that the constructor takes, with their defaults, but no key that the database or a
    default makes; it refuses others. An `"output"` has all, and is made of an instance: `from_attributes` is set. *include*,
    *exclude*: these fields, by name or column; *include* may name others of the model, too.

    Raises `TypeError` for anything but a model and for a single name, `ValueError` for another *mode*, `FieldError` for an
    unknown field and for a name that pydantic uses itself, such as `model_config`.
    """
    if not isinstance(model, type) or not hasattr(model, "__schema__"):
        raise TypeError(f"pydantic_model() takes a model, not {brief(model)}")
    if mode not in ("input", "output"):
        raise ValueError(f"mode must be 'input' or 'output', not {brief(mode)}")
    schema: Schema = model.__schema__
    reads = mode == "input"
    chosen = [each for each in schema.fields if not reads or _is_input(each)]
    if include is not None:
        chosen = _fields(schema, "include", include)
    left_out = {each.name for each in _fields(schema, "exclude", exclude)}
    chosen = [each for each in chosen if each.name not in left_out]
    _refuse_own_names(schema, chosen)
    fields: dict[str, Any] = {each.name: _declared(schema, each, reads=reads) for each in chosen}
    config = ConfigDict(
        extra="forbid" if reads else "ignore",
        from_attributes=not reads,
        arbitrary_types_allowed=True,  # those of fields with a `type_=`
        protected_namespaces=(),  # a field may be called model_year
    )
    title = name or (f"{schema.name}Input" if reads else schema.name)
    made: type[BaseModel] = create_model(title, __config__=config, __module__=model.__module__, **fields)
    return made


def _is_input(field: ModelField[Any]) -> bool:
    made = field.implicit or field.generated or (field.primary_key and field.has_default)
    return field.init and not made and not field.computed


def _fields(schema: Schema, argument: str, given: Iterable[Any]) -> list[ModelField[Any]]:
    if isinstance(given, (str, bytes, ClauseElement)):
        raise TypeError(f"{argument}= must be a list of names or columns, not {brief(given)}")
    return [schema.field(name) for name in given]


def _refuse_own_names(schema: Schema, fields: Iterable[ModelField[Any]]) -> None:
    """Raise `FieldError` for a field that would take the place of what each pydantic model has, or that would be dropped."""
    for field in fields:
        if field.name.startswith("model_") and hasattr(BaseModel, field.name):
            raise FieldError(
                f"{schema.name}.{field.name} has a name that pydantic uses itself; leave it out by exclude=, or write the model "
                "with an alias"
            )


def _declared(schema: Schema, field: ModelField[Any], *, reads: bool) -> tuple[Any, Any]:
    """Return the type of *field* in a pydantic model, with what checks and writes its values, and its default."""
    kind: Any = field.python_type
    constraints = {each: field.options[each] for each in _CONSTRAINTS if field.options.get(each) is not None}
    parts: list[Any] = [Field(**constraints)] if constraints else []
    if reads:
        parts.append(AfterValidator(_refusing(lambda value: field.validated(field.clean(value)))))
        if kind in _OWN_FORM:
            load = partial(load_value, schema, field.name)
            parts.append(
                BeforeValidator(_refusing(lambda value: value if isinstance(value, kind) else load(value)))
            )
    if kind in _OWN_JSON:
        parts.append(WithJsonSchema(_OWN_JSON[kind]))
        parts.append(PlainSerializer(partial(dump_value, schema, field.name), when_used="json"))
    annotated: Any = kind
    for part in parts:
        annotated = Annotated[annotated, part]
    if field.nullable:
        annotated = annotated | None
    if not reads or not field.has_default or isinstance(field.default, ClauseElement):
        return annotated, ...
    if field.default_factory is not None:
        return annotated, Field(default_factory=field.default_factory)
    if (
        kind in _OWN_JSON and field.default is not None
    ):  # pydantic would try to write the value in its own form
        shown = {"default": dump_value(schema, field.name, field.default)}
        return annotated, Field(default_factory=lambda: field.default, json_schema_extra=shown)
    return annotated, Field(default=field.default)


def _refusing(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return *function* with the error of a field as the one that pydantic expects."""

    def call(value: Any) -> Any:
        try:
            return function(value)
        except InvalidFieldValue as error:
            raise ValueError(error.problem) from None

    return call
