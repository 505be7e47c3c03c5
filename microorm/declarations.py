"""Declarations: what a class body says of its fields: `field()`, and how the body is read."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, overload

from sqlalchemy.types import TypeEngine

from microorm.annotations import Names, PendingName, declared, evaluate
from microorm.errors import ModelError, nearest
from microorm.fields import MISSING, Field
from microorm.kinds import type_name

T = TypeVar("T")


# A checker takes the first that fits, so those that keep a field out of the constructor come first.
@overload
def field(
    *,
    on_update: Callable[[], T],
    init: Literal[False] = False,
    unique: bool = ...,
    index: bool = ...,
    max_length: int | None = ...,
    max_digits: int | None = ...,
    decimal_places: int | None = ...,
    type_: TypeEngine[Any] | type[TypeEngine[Any]] | None = ...,
    column: str | None = ...,
    timezone: bool | None = ...,
    server_default: Any = ...,
) -> Any: ...
@overload
def field(
    *,
    server_default: Any,
    init: Literal[False] = False,
    primary_key: bool = ...,
    unique: bool = ...,
    index: bool = ...,
    max_length: int | None = ...,
    max_digits: int | None = ...,
    decimal_places: int | None = ...,
    type_: TypeEngine[Any] | type[TypeEngine[Any]] | None = ...,
    column: str | None = ...,
    timezone: bool | None = ...,
) -> Any: ...
@overload
def field(
    *,
    default: T,
    primary_key: bool = ...,
    on_update: Callable[[], T] | None = ...,
    server_default: Any = ...,
    unique: bool = ...,
    index: bool = ...,
    max_length: int | None = ...,
    max_digits: int | None = ...,
    decimal_places: int | None = ...,
    type_: TypeEngine[Any] | type[TypeEngine[Any]] | None = ...,
    column: str | None = ...,
    timezone: bool | None = ...,
    init: bool = ...,
) -> Field[T]: ...
@overload
def field(
    *,
    default_factory: Callable[[], T],
    primary_key: bool = ...,
    on_update: Callable[[], T] | None = ...,
    server_default: Any = ...,
    unique: bool = ...,
    index: bool = ...,
    max_length: int | None = ...,
    max_digits: int | None = ...,
    decimal_places: int | None = ...,
    type_: TypeEngine[Any] | type[TypeEngine[Any]] | None = ...,
    column: str | None = ...,
    timezone: bool | None = ...,
    init: bool = ...,
) -> Field[T]: ...
@overload
def field(
    *,
    primary_key: bool = ...,
    unique: bool = ...,
    index: bool = ...,
    max_length: int | None = ...,
    max_digits: int | None = ...,
    decimal_places: int | None = ...,
    type_: TypeEngine[Any] | type[TypeEngine[Any]] | None = ...,
    column: str | None = ...,
    timezone: bool | None = ...,
    init: bool = ...,
) -> Any: ...
def field(**options: Any) -> Any:
    """Declare a field of a model.

    *primary_key*: the column is (part of) the key. *default*, *default_factory*: what a constructor without
    the field gives it. *on_update*: called at each save that writes the field and is not raw, to fill
    the value; `update_fields` without it and `Query.update` leave it. *server_default*: SQL (or a string) by which the database makes the value where none was given; it is read back. *unique*,
    *index*: of this column alone. *max_length* in characters (bytes for `bytes`), *max_digits* and
    *decimal_places* for `Decimal`. *type_*: a SQLAlchemy type instead of the table's. *column*: the column's
    name, else the field's. *timezone=False*: a naive `datetime`. *init=False*: not in the constructor.

    Raises `TypeError` for an unknown option; options that do not go together are a `ModelError` at the class
    definition, which names the field.
    """
    for option in options:
        if option not in _OPTIONS:
            hint = nearest(option, _OPTIONS)
            if nearest(option, ("null", "nullable")):
                hint = "; a field that may be None says so in its annotation: Field[int | None]"
            raise TypeError(f"field() has no option {option!r}{hint}")
    return Field(**options)


_OPTIONS = (
    *("default", "default_factory", "on_update", "server_default", "init", "primary_key", "unique", "index"),
    *("max_length", "max_digits", "decimal_places", "type_", "column", "timezone"),
)


@dataclass(frozen=True, slots=True)
class Declaration:
    """A field as it stands in a class body; *names* are None once its annotation is understood."""

    owner: str
    name: str
    annotation: Any
    field: Field[Any]
    names: Names | None

    def understood(self) -> Declaration:
        """The same with its type in the place of the annotation.

        `PendingName` where a name is not defined yet, `ModelError` where the annotation is not `Field[...]`.
        What is understood needs its names, and the frames behind them, no longer.
        """
        if self.names is None:
            return self
        try:
            annotation = evaluate(self.annotation, self.names)
            if get_origin(annotation) is Field:
                (argument,) = get_args(annotation)
                kind = evaluate(argument, self.names)
                return Declaration(self.owner, self.name, kind, self.field, None)
        except PendingName:
            raise
        except Exception as error:
            raise ModelError(
                f"{self.owner}.{self.name}: the annotation {self._shown()} is not understood: {error}"
            ) from error
        raise ModelError(f"{self.owner}.{self.name}: the annotation {self._shown()} is not Field[...]")

    def _shown(self) -> str:
        return repr(self.annotation if isinstance(self.annotation, str) else type_name(self.annotation))


def read_declarations(cls: type, names: Names, reserved: frozenset[str]) -> dict[str, Declaration]:
    """The fields written in the body of *cls* itself. `ModelError` says what is wrong with one."""
    found: dict[str, Declaration] = {}
    for name, annotation in declared(cls).items():
        if _is_class_variable(annotation):
            continue
        _refuse_name(cls, name, reserved)
        written = cls.__dict__.get(name, MISSING)
        if written is not MISSING and not isinstance(written, Field):
            raise ModelError(
                f"{cls.__name__}.{name}: {written!r} is not a field(); a default is field(default=...)"
            )
        made: Field[Any] = Field() if written is MISSING else copy(written)
        made.name = name
        found[name] = Declaration(cls.__name__, name, annotation, made, names)
        with suppress(PendingName):  # an error at the first use, if the name is not defined by then
            found[name] = found[name].understood()
    for name, value in cls.__dict__.items():
        if isinstance(value, Field) and name not in found:
            raise ModelError(f"{cls.__name__}.{name}: a field() without an annotation Field[...]")
    return found


def refuse_overwritten(cls: type, inherited: Iterator[str]) -> None:
    """Raise `ModelError` where the body of *cls* gives an *inherited* field's name to something else."""
    for name in inherited:
        if name in cls.__dict__ and not isinstance(cls.__dict__[name], Field):
            raise ModelError(f"{cls.__name__}.{name}: {name!r} is a field that {cls.__name__} inherits")


def has_fields(cls: type) -> bool:
    """Whether the body of *cls*, which is no model, has a `field()` or an annotation `Field[...]`."""
    if any(isinstance(value, Field) for value in vars(cls).values()):
        return True
    return any(
        re.match(r"(\w+\.)?Field\[", each) if isinstance(each, str) else get_origin(each) is Field
        for each in declared(cls).values()
    )


def _refuse_name(cls: type, name: str, reserved: frozenset[str]) -> None:
    if name.startswith("_") or not name.isidentifier() or keyword.iskeyword(name):
        raise ModelError(
            f"{cls.__name__}.{name}: a field's name is an identifier without a leading underscore"
        )
    if name in reserved:
        raise ModelError(f"{cls.__name__}.{name}: {name!r} is taken by Model.{name}")


def _is_class_variable(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return re.match(r"(typing\.|t\.)?ClassVar\b", annotation) is not None
    return annotation is ClassVar or get_origin(annotation) is ClassVar
