"""Declarations: what a class body says of its fields: `field()`, and how the body is read.

Annotations: what the annotations of a class body mean, strings and names yet to come included.

The only place that looks at frames: a class inside a function may name that function's locals, which no
module knows.
"""

from __future__ import annotations

import builtins
import inspect
import keyword
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from types import FrameType, UnionType
from typing import Any, ClassVar, ForwardRef, Literal, TypeVar, Union, get_args, get_origin, overload
from unicodedata import normalize

from sqlalchemy.types import TypeEngine

from microorm.errors import ModelError, nearest
from microorm.fields.field import MISSING, Field
from microorm.fields.type_map import type_name
from microorm.mapping.foreign_key import Relation

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
    """A field or a relation as it stands in a class body; *names* are None once its annotation is understood."""

    owner: str
    name: str
    annotation: Any
    field: Any
    names: Names | None

    def understood(self) -> Declaration:
        """The same with its type in the place of the annotation.

        `PendingName` where a name is not defined yet, `ModelError` where the annotation is not of the kind that is
        declared. What is understood needs its names, and the frames behind them, no longer.
        """
        if self.names is None:
            return self
        waits = isinstance(self.field, Field) or self.field.waits
        try:
            annotation = evaluate(self.annotation, self.names if waits else Outlined(self.names))
            if (made := self._made(get_origin(annotation))) is not None:
                (argument,) = get_args(annotation)
                if waits:
                    return Declaration(self.owner, self.name, evaluate(argument, self.names), made, None)
                return Declaration(self.owner, self.name, Later(argument, self.names), made, None)
        except PendingName:
            raise
        except Exception as error:
            raise ModelError(
                f"{self.owner}.{self.name}: the annotation {self._shown()} is not understood: {error}"
            ) from error
        origin = get_origin(annotation)
        if type(self.field) is Field and isinstance(origin, type) and issubclass(origin, Relation):
            kind = getattr(origin, "annotation_name", origin.__name__)
            raise ModelError(
                f"{self.owner}.{self.name}: an annotation {self._shown()} without a {_function(kind)}()"
            )
        wanted = _annotation(self.field)
        raise ModelError(f"{self.owner}.{self.name}: the annotation {self._shown()} is not {wanted}[...]")

    def _made(self, origin: Any) -> Any:
        """What is declared, of the kind that the annotation names; None where these do not go together."""
        if origin is type(self.field):
            return self.field
        special = isinstance(origin, type) and issubclass(origin, type(self.field))
        return self.field.of_kind(origin) if special else None

    def _shown(self) -> str:
        return repr(self.annotation if isinstance(self.annotation, str) else type_name(self.annotation))


class Later:
    """The model that a relation leads to, which may be defined after the one that has the relation."""

    def __init__(self, annotation: Any, names: Names) -> None:
        self._annotation = annotation
        self._names: Names | None = names

    def __call__(self) -> Any:
        """The type; `PendingName` where it is not defined yet."""
        if self._names is not None:
            self._annotation, self._names = evaluate(self._annotation, self._names), None
        return self._annotation


def read_declarations(cls: type, names: Names, reserved: frozenset[str]) -> dict[str, Declaration]:
    """The fields and relations written in the body of *cls* itself. `ModelError` says what is wrong with one."""
    found: dict[str, Declaration] = {}
    for name, annotation in declared(cls).items():
        if _is_class_variable(annotation):
            continue
        _refuse_name(cls, name, reserved)
        written = cls.__dict__.get(name, MISSING)
        if written is not MISSING and not is_declared(written):
            raise ModelError(
                f"{cls.__name__}.{name}: {written!r} is not a field(); a default is field(default=...)"
            )
        made: Any = Field() if written is MISSING else copy(written)
        made.name = name
        found[name] = Declaration(cls.__name__, name, annotation, made, names)
        with suppress(PendingName):  # an error at the first use, if the name is not defined by then
            found[name] = found[name].understood()
    for name, value in cls.__dict__.items():
        if is_declared(value) and name not in found:
            kind = _annotation(value)
            raise ModelError(
                f"{cls.__name__}.{name}: a {_function(kind)}() without an annotation {kind}[...]"
            )
    return found


def is_declared(value: Any) -> bool:
    """Whether *value* is what a class body declares a field or a relation with."""
    return isinstance(value, (Field, Relation))


def refuse_overwritten(cls: type, inherited: Iterator[str]) -> None:
    """Raise `ModelError` where the body of *cls* gives an *inherited* field's name to something else."""
    for name in inherited:
        if name in cls.__dict__ and not is_declared(cls.__dict__[name]):
            raise ModelError(f"{cls.__name__}.{name}: {name!r} is a field that {cls.__name__} inherits")


def has_fields(cls: type) -> bool:
    """Whether the body of *cls*, which is no model, has a `field()` or an annotation `Field[...]`."""
    if any(map(is_declared, vars(cls).values())):
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
    if normalize("NFKC", name) != name:
        raise ModelError(f"{cls.__name__}.{name}: to Python this name is {normalize('NFKC', name)!r}")
    if name in reserved:
        raise ModelError(f"{cls.__name__}.{name}: {name!r} is taken by Model.{name}")


def _annotation(value: Any) -> str:
    return getattr(value, "annotation_name", type(value).__name__)


def _function(kind: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()


def _is_class_variable(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return re.match(r"(typing\.|t\.)?ClassVar\b", annotation) is not None
    return annotation is ClassVar or get_origin(annotation) is ClassVar


class PendingName(Exception):
    """An annotation names something that is not defined yet."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"name {name!r} is not defined")


class Names(dict[str, Any]):
    """The names an annotation of *cls* can see: class, enclosing frames, module, builtins, models.

    *models* gives those that are known when a name is looked for.
    """

    def __init__(
        self, cls: type, frames: tuple[FrameType, ...], models: Callable[[], Mapping[str, type]]
    ) -> None:
        super().__init__()
        self._cls = cls
        self._frames = frames
        self._models = models

    def _places(self) -> Iterator[Mapping[str, Any]]:
        # A field may be called as its type is: `date: Field[date]` means the type.
        fields = declared(self._cls)
        yield {name: value for name, value in vars(self._cls).items() if name not in fields}
        yield {self._cls.__name__: self._cls}
        for frame in self._frames:
            yield frame.f_locals
        module = sys.modules.get(self._cls.__module__)
        yield vars(module) if module is not None else {}
        yield vars(builtins)
        yield self._models()

    def __missing__(self, name: str) -> Any:
        for place in self._places():
            if name in place:
                return place[name]
        raise PendingName(name)


class Outlined(dict[str, Any]):
    """The same names, of which those that are not defined yet stand for themselves."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self._names = names

    def __missing__(self, name: str) -> Any:
        try:
            return self._names[name]
        except PendingName:
            return ForwardRef(name)


def declared(cls: type) -> dict[str, Any]:
    """The annotations written in the body of *cls* itself, unevaluated where they are strings."""
    if sys.version_info >= (3, 14):
        import annotationlib  # noqa: PLC0415 exists since 3.14 only

        return dict(annotationlib.get_annotations(cls, format=annotationlib.Format.FORWARDREF))
    return inspect.get_annotations(cls)


def enclosing_frames(cls: type, depth: int) -> tuple[FrameType, ...]:
    """The frames of the functions that *cls* is written in, innermost first; empty at module level."""
    frames: list[FrameType] = []
    if "<locals>" not in cls.__qualname__:
        return ()
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None:
        inside = cls.__qualname__.startswith(f"{frame.f_code.co_qualname}.")
        if inside and frame.f_globals.get("__name__") == cls.__module__:
            frames.append(frame)
        frame = frame.f_back
    return tuple(frames)


def evaluate(annotation: Any, names: Names | Outlined) -> Any:
    """The object that *annotation* means. `PendingName` where a name in it is not defined yet."""
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        return evaluate(eval(annotation, {"__builtins__": builtins}, names), names)
    if get_origin(annotation) in (Union, UnionType):
        return Union[tuple(evaluate(each, names) for each in get_args(annotation))]  # noqa: UP007
    return annotation
