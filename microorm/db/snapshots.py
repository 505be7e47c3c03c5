"""Undo: the instances of a transaction, as they were before it.

One log per transaction, one level per savepoint, one before-image per instance and level, or one for a batch of new
instances. An image holds its
instance weakly: nothing is kept alive for the sake of a rollback that may never come.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any
from weakref import ref

from microorm.fields.field import MISSING

Image = tuple["ref[Any]", Any, Any, dict[str, tuple[Any, Any]]]


def image_of(instance: Any) -> Image:
    """What a save or a delete may change in *instance*: its origin, its loaded row, and made values."""
    return (ref(instance), instance._origin, instance._row, {})


def note_generated(instance: Any, snapshot: Image, names: Iterable[str], generated: Iterable[Any]) -> None:
    """Note in *snapshot* the values that *generated* ones of the fields *names* are about to replace."""
    values, before = instance.__dict__, snapshot[3]
    for name, value in zip(names, generated, strict=False):
        before[name] = (before[name][0] if name in before else values.get(name, MISSING), value)


def apply_generated(instance: Any, snapshot: Image, generated: Mapping[str, Any]) -> None:
    """Give *instance* the values *generated* by the database or by microorm; *snapshot* remembers those replaced."""
    note_generated(instance, snapshot, generated, generated.values())
    instance.__dict__.update(generated)


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


class Batch:
    """The before-image of many instances that were alike: of one *origin*, and without a row.

    They were without a *key*, too, which was *made* of each, in order; where that is None, nothing was made.
    """

    __slots__ = ("_key", "_made", "_origin", "_references")

    def __init__(self, instances: Sequence[Any], origin: Any, key: str | None, made: Sequence[Any]) -> None:
        self._references = list(map(ref, instances))
        self._origin = origin
        self._key = key
        self._made = made

    def images(self) -> Iterator[Image]:
        """The image of each instance that is still there."""
        made = repeat(None) if self._key is None else self._made
        for reference, value in zip(self._references, made, strict=False):
            if reference() is not None:
                yield (reference, self._origin, None, {} if self._key is None else {self._key: (None, value)})

    def restore(self) -> None:
        """Put the instances back, as `restore` does for one."""
        for image in self.images():
            restore(image)


class UndoLog:
    """The before-images of one transaction."""

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        # By the identity of the instance, or of the batch: what is alive in here has an identity of its own.
        self._levels: list[dict[int, Any]] = [{}]

    def push(self) -> None:
        """Open a level, for a savepoint."""
        self._levels.append({})

    def record(self, image: Image) -> None:
        """Keep *image* in the innermost level; an older image of the same instance there takes its made values."""
        level = self._levels[-1]
        instance = image[0]()
        key = id(instance)
        known: Image | None = level.get(key)
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

    def record_batch(self, batch: Batch) -> None:
        """Keep *batch*; one by one, if there is an older image of one of its instances, which takes its values."""
        level, images = self._levels[-1], list(batch.images()) if self._levels[-1] else []
        if level.keys().isdisjoint([id(image[0]()) for image in images]):
            level[id(batch)] = batch
        else:
            self.record_all(images)

    def release(self) -> None:
        """Close the innermost level, handing its images to the one around it."""
        inner = self._levels.pop()
        for image in inner.values():
            if image.__class__ is Batch:
                self.record_batch(image)
            elif image[0]() is not None:
                self.record(image)

    def roll_back(self) -> None:
        """Close the innermost level and restore its instances, the newest first."""
        inner = self._levels.pop()
        for image in reversed(inner.values()):
            if image.__class__ is Batch:
                image.restore()
            else:
                restore(image)
