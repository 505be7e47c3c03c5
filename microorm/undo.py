"""Undo: the instances of a transaction, as they were before it.

One log per transaction, one level per savepoint, one before-image per instance and level. An image holds its
instance weakly: nothing is kept alive for the sake of a rollback that may never come.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from weakref import ref

from microorm.fields import MISSING

Image = tuple["ref[Any]", Any, Any, dict[str, tuple[Any, Any]]]


def image_of(instance: Any) -> Image:
    """What a save or a delete may change in *instance*: its origin, its loaded row, and made values."""
    return (ref(instance), instance._origin, instance._row, {})


def settle(instance: Any, image: Image, made: dict[str, Any]) -> None:
    """Give *instance* the values *made* by the database or by microorm, remembering those they replace."""
    values, before = instance.__dict__, image[3]
    for name, value in made.items():
        first = before[name][0] if name in before else values.get(name, MISSING)
        before[name] = (first, value)
        values[name] = value


def restore(image: Image) -> None:
    """Put the instance of *image* back, if it is still there; what its user has set since stays."""
    instance = image[0]()
    if instance is None:
        return
    instance._origin = image[1]
    instance._row = image[2]
    values = instance.__dict__
    for name, (before, made) in image[3].items():
        if values.get(name, MISSING) is made:
            if before is MISSING:
                del values[name]
            else:
                values[name] = before


class UndoLog:
    """The before-images of one transaction."""

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        self._levels: list[dict[int, Image]] = [{}]

    def push(self) -> None:
        """Open a level, for a savepoint."""
        self._levels.append({})

    def record(self, image: Image) -> None:
        """Keep *image* in the innermost level; an older image of the same instance there takes its made values."""
        level = self._levels[-1]
        instance = image[0]()
        key = id(instance)
        known = level.get(key)
        if known is None or known[0]() is not instance:
            level[key] = image
            return
        for name, (before, made) in image[3].items():
            earlier = known[3].get(name)
            # What was made earlier goes back to what was there before that; what the user has set stays.
            known[3][name] = (earlier[0] if earlier is not None and earlier[1] is before else before, made)

    def record_all(self, images: Iterable[Image]) -> None:
        """Keep *images* of different instances."""
        level = self._levels[-1]
        for image in images:
            key = id(image[0]())
            if key in level:
                self.record(image)
            else:
                level[key] = image

    def release(self) -> None:
        """Close the innermost level, handing its images to the one around it."""
        inner = self._levels.pop()
        for image in inner.values():
            if image[0]() is not None:
                self.record(image)

    def roll_back(self) -> None:
        """Close the innermost level and restore its instances, the newest first."""
        inner = self._levels.pop()
        for image in reversed(inner.values()):
            restore(image)
