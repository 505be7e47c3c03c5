"""Reads the fields and relations of a class body, and evaluates their annotations.

An annotation may be a string, and may use names that are defined later. Stack frames are inspected here: an
annotation of a class inside a function may use the local variables of that function.
"""

from __future__ import annotations

import builtins
import inspect
import keyword
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from copy import copy
from types import FrameType, ModuleType, UnionType
from typing import Any, ClassVar, ForwardRef, NamedTuple, Union, get_args, get_origin

from microorm.errors import ModelError
from microorm.fields.field import MISSING, Field
from microorm.fields.type_map import plain_type, type_name
from microorm.mapping.annotation import Annotation
from microorm.mapping.foreign_key import Relation
from microorm.messages import brief
from microorm.registry import LabelledModels, PendingName


class Declaration(NamedTuple):
    """A field or relation in a class body; *names* is None once the annotation is resolved to a type."""

    label: str
    annotation: Any
    field: Any
    names: Names | None

    def resolved(self, *, final: bool = True) -> Declaration:
        """Return the declaration with its annotation evaluated, without references to names and stack frames.

        Not *final*: models of other applications are not found by their names, see `Names`.
        Raises `PendingName` if a name is not defined yet, `ModelError` if the annotation does not match the field.
        """
        if self.names is None:
            return self
        waits = isinstance(self.field, Field) or self.field.waits
        names: Any = self.names if final else NamesSoFar(self.names)
        try:
            annotation = evaluate(self.annotation, names if waits else LenientNames(self.names))
            if (made := self._made(get_origin(annotation))) is not None:
                (argument,) = get_args(annotation)
                target = evaluate(argument, names) if waits else LazyTarget(argument, self.names)
                return Declaration(self.label, target, made, None)
        except PendingName:
            raise
        except Exception as error:
            raise ModelError(f"{self.label}: invalid annotation {self._shown()}: {error}") from error
        origin = get_origin(annotation)
        if type(self.field) is Field and isinstance(origin, type) and issubclass(origin, Relation):
            kind = getattr(origin, "annotation_name", origin.__name__)
            raise ModelError(
                f"{self.label}: annotated {self._shown()}, but not declared by {_function(kind)}()"
            )
        raise ModelError(f"{self.label}: annotate it as {_annotation(self.field)}[...], not {self._shown()}")

    def _made(self, origin: Any) -> Any:
        """Return the field as an instance of the annotated class; None if the two do not match."""
        if origin is type(self.field):
            return self.field
        subclass = isinstance(origin, type) and issubclass(origin, type(self.field))
        return self.field.of_kind(origin) if subclass else None

    def _shown(self) -> str:
        return repr(self.annotation if isinstance(self.annotation, str) else type_name(self.annotation))


class LazyTarget:
    """The target of a relation, which may be defined after the model that has the relation."""

    def __init__(self, annotation: Any, names: Names) -> None:
        self._annotation = annotation
        self._names: Names | None = names

    def __call__(self) -> Any:
        """Return the target. Raises `PendingName` if it is not defined yet."""
        if self._names is not None:
            self._annotation, self._names = evaluate(self._annotation, self._names), None
        return self._annotation


def read_declarations(cls: type, names: Names, reserved: frozenset[str]) -> dict[str, Declaration]:
    """Return the fields and relations in the body of *cls*. Raises `ModelError` if one is invalid."""
    found: dict[str, Declaration] = {}
    for name, annotation in declared(cls).items():
        if _is_class_variable(annotation):
            continue
        label = f"{cls.__name__}.{name}"
        _refuse_name(label, name, reserved)
        written = cls.__dict__.get(name, MISSING)
        if _declares_annotation(label, annotation, written):
            continue
        if written is not MISSING and not is_declared(written):
            raise ModelError(
                f"{label}: {brief(written)} is not a field(); write a default as field(default=...)"
            )
        made: Any = Field() if written is MISSING else copy(written)
        made.name = name
        found[name] = Declaration(label, annotation, made, names)
        with suppress(PendingName):  # raised again at the first use of the model
            found[name] = found[name].resolved(final=False)
    for name, value in cls.__dict__.items():
        if is_declared(value) and name not in found:
            kind = _annotation(value)
            raise ModelError(
                f"{cls.__name__}.{name}: a {_function(kind)}() without an annotation; annotate it as {kind}[...]"
            )
    return found


def _declares_annotation(label: str, written: Any, value: Any) -> bool:
    """Whether *value*, annotated as *written*, is an attribute for `annotate()`. Raises `ModelError` if one of both is."""
    annotated = (
        _written_class(written) == "Annotation"
        if isinstance(written, str)
        else get_origin(written) is Annotation
    )
    if annotated is not isinstance(value, Annotation):
        raise ModelError(f"{label}: write {label.rpartition('.')[2]}: Annotation[...] = annotation()")
    return annotated


def is_declared(value: Any) -> bool:
    """Whether *value* is a field or a relation."""
    return isinstance(value, (Field, Relation))


def refuse_overwritten(cls: type, inherited: Iterator[str]) -> None:
    """Raise `ModelError` if the body of *cls* uses the name of an *inherited* field for anything else."""
    for name in inherited:
        if name in cls.__dict__ and not is_declared(cls.__dict__[name]):
            raise ModelError(
                f"{cls.__name__}.{name}: {name!r} is an inherited field; only another field can replace it"
            )


def has_fields(cls: type) -> bool:
    """Whether the body of a class that is not a model has a `field()` or an annotation `Field[...]`."""
    return any(map(is_declared, vars(cls).values())) or any(
        _written_class(each) == "Field" if isinstance(each, str) else get_origin(each) is Field
        for each in declared(cls).values()
    )


def _refuse_name(label: str, name: str, reserved: frozenset[str]) -> None:
    if name.startswith("_") or not name.isidentifier() or keyword.iskeyword(name):
        raise ModelError(f"{label}: the name of a field must be an identifier without a leading underscore")
    (normalized,) = compile(name, "<field>", "eval").co_names  # Python normalizes identifiers by NFKC
    if normalized != name:
        raise ModelError(f"{label}: Python reads this name as {normalized!r}")
    if name in reserved:
        raise ModelError(f"{label}: the name is used by Model.{name}")


def _annotation(value: Any) -> str:
    return getattr(value, "annotation_name", type(value).__name__)


def _function(kind: str) -> str:
    """Return the name of the function that declares a *kind*: `foreign_key` for `ForeignKey`."""
    return "".join(f"_{each}" if each.isupper() else each for each in kind).lower().lstrip("_")


def _is_class_variable(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return _written_class(annotation) == "ClassVar"
    return annotation is ClassVar or get_origin(annotation) is ClassVar


def _written_class(annotation: str) -> str:
    """Return the name in front of the brackets of an annotation, without its module."""
    return annotation.partition("[")[0].strip().rpartition(".")[2]


class Names(dict[str, Any]):
    """The namespace of the annotations of *cls*: class, enclosing functions, module, builtins, then all models.

    *models* is called with a name that none of the others has, and `final=`: whether all models are defined. It returns
    the model of this name, or None.
    """

    def __init__(self, cls: type, frames: tuple[FrameType, ...], models: Callable[..., Any]) -> None:
        super().__init__()
        self._cls = cls
        self._frames = frames
        self._models = models

    def _namespaces(self) -> Iterator[Mapping[str, Any]]:
        # A field may have the name of its type: `date: Field[date]`.
        fields = declared(self._cls)
        yield {name: value for name, value in vars(self._cls).items() if name not in fields}
        yield {self._cls.__name__: self._cls}
        for frame in self._frames:
            yield frame.f_locals
        module = sys.modules.get(self._cls.__module__)
        yield vars(module) if module is not None else {}
        yield vars(builtins)

    def look_up(self, name: str, *, final: bool) -> Any:
        """Return the meaning of *name*. Raises `PendingName`, and `ModelError` for a name of several models."""
        for namespace in self._namespaces():
            if name in namespace:
                found = namespace[name]
                if isinstance(found, ModuleType):
                    models = self._models(name, final=final)
                    return models.beside(found) if isinstance(models, LabelledModels) else found
                return found
        if (model := self._models(name, final=final)) is None:
            raise PendingName(name)
        return model

    def __missing__(self, name: str) -> Any:
        return self.look_up(name, final=True)


class NamesSoFar(dict[str, Any]):
    """The same names while other models are still being defined."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self._names = names

    def __missing__(self, name: str) -> Any:
        return self._names.look_up(name, final=False)


class LenientNames(dict[str, Any]):
    """A namespace in which names that are not defined yet are forward references."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self._names = names

    def __missing__(self, name: str) -> Any:
        try:
            return self._names[name]
        except PendingName:
            return ForwardRef(name)


def declared(cls: type) -> dict[str, Any]:
    """Return the annotations in the body of *cls*; strings are not evaluated."""
    if sys.version_info >= (3, 14):
        import annotationlib  # noqa: PLC0415 new in Python 3.14

        return dict(annotationlib.get_annotations(cls, format=annotationlib.Format.FORWARDREF))
    return inspect.get_annotations(cls)


def enclosing_frames(cls: type, depth: int) -> tuple[FrameType, ...]:
    """Return the frames of the functions that contain the class statement of *cls*, innermost first."""
    frames: list[FrameType] = []
    frame = sys._getframe(depth) if "<locals>" in cls.__qualname__ else None
    while frame is not None:
        inside = cls.__qualname__.startswith(f"{frame.f_code.co_qualname}.")
        if inside and frame.f_globals.get("__name__") == cls.__module__:
            frames.append(frame)
        frame = frame.f_back
    return tuple(frames)


def evaluate(annotation: Any, names: Names | NamesSoFar | LenientNames) -> Any:
    """Evaluate *annotation*: `Annotated`, `NewType` and `type` aliases stand for the type that they are made of.

    Raises `PendingName` if a name in it is not defined yet.
    """
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        return evaluate(eval(annotation, {"__builtins__": builtins}, names), names)
    if get_origin(annotation) in (Union, UnionType):
        return Union[tuple(evaluate(each, names) for each in get_args(annotation))]  # noqa: UP007
    plain = plain_type(annotation)
    return annotation if plain is annotation else evaluate(plain, names)
