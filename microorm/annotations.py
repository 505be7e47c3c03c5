"""Annotations: what the annotations of a class body mean, strings and names yet to come included.

The only place that looks at frames: a class inside a function may name that function's locals, which no
module knows.
"""

from __future__ import annotations

import builtins
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from types import FrameType, UnionType
from typing import Any, ForwardRef, Union, get_args, get_origin


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
