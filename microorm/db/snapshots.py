"""Snapshots: the state of instances, restored when a transaction is rolled back.

A transaction has one undo log with a level for each savepoint. A level has one snapshot for each instance, or one for a
batch of new instances. Snapshots refer to their instances weakly, so a transaction keeps no instance alive.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any
from weakref import ref

from microorm.fields.field import MISSING

Snapshot = tuple["ref[Any]", Any, Any, dict[str, tuple[Any, Any]]]


def take_snapshot(instance: Any) -> Snapshot:
    """Return a snapshot of what a save or a delete may change: row state, loaded row, and (none yet) generated values."""
    return (ref(instance), instance._row_state, instance._row, {})


def note_generated(instance: Any, snapshot: Snapshot, names: Iterable[str], generated: Iterable[Any]) -> None:
    """Add to *snapshot* the current values of the fields *names*, which *generated* values will replace."""
    values, before = instance.__dict__, snapshot[3]
    for name, value in zip(names, generated):  # noqa: B905 a keyword would cost more than the call
        before[name] = (before[name][0] if name in before else values.get(name, MISSING), value)


def apply_generated(instance: Any, snapshot: Snapshot, generated: Mapping[str, Any]) -> None:
    """Set *generated* values on *instance*; the replaced values are added to *snapshot*."""
    note_generated(instance, snapshot, generated, generated.values())
    instance.__dict__.update(generated)


def apply_related(instance: Any, snapshot: Snapshot, related: Mapping[str, Any]) -> None:
    """Cache *related* rows of *instance*, by the names of relations; those replaced are added to *snapshot*."""
    if (known := instance._related) is None:
        known = instance._related = {}
    before = snapshot[3]
    for name, new in related.items():
        before[name] = (before[name][0] if name in before else known.get(name), new)
        known[name] = new


def restore(snapshot: Snapshot) -> None:
    """Restore the instance of *snapshot*, if it is still alive; values that the user has set meanwhile stay."""
    instance = snapshot[0]()
    if instance is None:
        return
    instance._row_state = snapshot[1]
    instance._row = snapshot[2]
    fields, related = instance.__dict__, instance._related or ()
    for name, (before, generated) in snapshot[3].items():
        values = instance._related if name in related else fields
        if values.get(name, MISSING) is generated:
            if before is MISSING:
                del values[name]
            else:
                values[name] = before


class Batch:
    """One snapshot for many new instances: all of the same row state, without a row and without a key.

    *key*: the name of the generated key, whose values, in order, are *generated*; None if the key is not generated.
    """

    __slots__ = ("_generated", "_key", "_references", "_row_state")

    def __init__(
        self, instances: Sequence[Any], state: Any, key: str | None, generated: Sequence[Any]
    ) -> None:
        self._references = list(map(ref, instances))
        self._row_state = state
        self._key = key
        self._generated = generated

    def snapshots(self) -> Iterator[Snapshot]:
        """Yield the snapshot of each instance that is still alive."""
        generated = repeat(None) if self._key is None else self._generated
        for reference, value in zip(self._references, generated, strict=False):
            if reference() is not None:
                yield (
                    reference,
                    self._row_state,
                    None,
                    {} if self._key is None else {self._key: (None, value)},
                )

    def restore(self) -> None:
        """Restore all instances that are still alive."""
        for snapshot in self.snapshots():
            restore(snapshot)


class SnapshotLog:
    """The snapshots of one transaction."""

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        # By the id of the instance or batch. The id of a collected instance may be reused: see `record`.
        self._levels: list[dict[int, Any]] = [{}]

    def push(self) -> None:
        """Open a level, for a savepoint."""
        self._levels.append({})

    def record(self, snapshot: Snapshot) -> None:
        """Keep *snapshot* in the innermost level; if the instance has a snapshot there, add the generated values to it."""
        self._record(self._levels[-1], snapshot)

    def _record(self, level: dict[int, Any], snapshot: Snapshot) -> None:
        instance = snapshot[0]()
        key = id(instance)
        older: Snapshot = level.setdefault(key, snapshot)
        if older is snapshot:
            return
        if older[0]() is not instance:
            level[key] = snapshot
            return
        for name, (before, generated) in snapshot[3].items():
            earlier = older[3].get(name)
            # If *before* was generated as well, restore the value before that; else the user has set it, and it stays.
            older[3][name] = (
                earlier[0] if earlier is not None and earlier[1] is before else before,
                generated,
            )

    def record_all(self, snapshots: Iterable[Snapshot]) -> None:
        """Keep *snapshots* of different instances."""
        self._record_all(self._levels[-1], snapshots)

    def _record_all(self, level: dict[int, Any], snapshots: Iterable[Snapshot]) -> None:
        for snapshot in snapshots:
            key = id(snapshot[0]())
            if key in level:
                self._record(level, snapshot)
            else:
                level[key] = snapshot

    def record_batch(self, batch: Batch) -> None:
        """Keep *batch*, or its snapshots one by one if one of its instances already has a snapshot in this level."""
        self._record_batch(self._levels[-1], batch)

    def _record_batch(self, level: dict[int, Any], batch: Batch) -> None:
        snapshots = list(batch.snapshots()) if level else []
        if level.keys().isdisjoint([id(snapshot[0]()) for snapshot in snapshots]):
            level[id(batch)] = batch
        else:
            self._record_all(level, snapshots)

    def release(self) -> None:
        """Close the innermost level, after its snapshots are in the surrounding one: an interrupt loses none."""
        outer = self._levels[-2]
        for snapshot in self._levels[-1].values():
            if snapshot.__class__ is Batch:
                self._record_batch(outer, snapshot)
            elif snapshot[0]() is not None:
                self._record(outer, snapshot)
        self._levels.pop()

    def roll_back(self) -> None:
        """Close the innermost level, and restore its instances, newest first. Can be repeated after an interrupt."""
        if not self._levels:
            return
        inner = self._levels[-1]
        while inner:
            key = next(reversed(inner))
            snapshot = inner[key]
            if snapshot.__class__ is Batch:
                snapshot.restore()
            else:
                restore(snapshot)
            del inner[key]
        self._levels.pop()
