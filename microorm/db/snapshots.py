"""Snapshots: the state of instances, restored when a transaction is rolled back.

A transaction has one undo log with a level for each savepoint. A level has one snapshot for each instance, or one for a
batch of new instances. Snapshots refer to their instances weakly, so a transaction keeps no instance alive.

A snapshot undoes one step in the history of an instance: from the loaded row that it had to the one that the write gave
it. The transactions of two aliases may have steps of one instance. A rollback undoes its own steps only: if a later step
is not undone, because it was committed or is still open elsewhere, the instance stays as that step has left it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any
from weakref import ref

from microorm.db.context import BLOCK, open_scopes
from microorm.fields.field import MISSING

Snapshot = tuple["ref[Any]", Any, Any, dict[str, tuple[Any, Any]]]
"""An instance, its row state, its loaded row, and by name the pairs of each value before and after the write."""

ROW = "_row"
"""The name of the pair of loaded rows. Without it, the write has not replaced the loaded row."""


def take_snapshot(instance: Any) -> Snapshot:
    """Return a snapshot of what a save or a delete may change: row state, loaded row, and (none yet) generated values."""
    return (ref(instance), instance._row_state, instance._row, {})


def note_row(snapshot: Snapshot, row: Any) -> None:
    """Add to *snapshot* that *row* replaces the loaded row. Call it before the row is replaced."""
    snapshot[3][ROW] = (snapshot[2], row)


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
    """Restore the instance of *snapshot*, if it is still alive; values that the user has set meanwhile stay.

    If another transaction has written the instance since, it stays as it is. If that one is still open, its rollback will
    restore what *snapshot* has.
    """
    instance = snapshot[0]()
    if instance is None:
        return
    _, state, row, changed = snapshot
    written = changed.get(ROW)
    if instance._row is row or (written is not None and instance._row is written[1]):
        instance._row_state = state
        instance._row = row
    elif written is not None:
        _hand_over(instance, snapshot)
        return
    fields, related = instance.__dict__, instance._related or ()
    for name, (before, generated) in changed.items():
        values = instance._related if name in related else fields
        if values.get(name, MISSING) is generated and name != ROW:
            if before is MISSING:
                del values[name]
            else:
                values[name] = before


def _hand_over(instance: Any, snapshot: Snapshot) -> None:
    """Let the open transaction that has written *instance* after *snapshot* restore what *snapshot* has."""
    for scope in open_scopes(instance.__schema__.registry.databases):
        if scope.kind is BLOCK and scope.transaction.undo.take_over(instance, snapshot):
            return


class Batch:
    """One snapshot for many new instances: all of the same row state, without a row and without a key.

    *rows*: the loaded row that each gets. *key*: the name of the generated key, whose values, in order, are *generated*;
    None if the key is not generated.
    """

    __slots__ = ("_generated", "_key", "_references", "_row_state", "_rows")

    def __init__(
        self,
        instances: Sequence[Any],
        state: Any,
        rows: Sequence[Any],
        key: str | None,
        generated: Sequence[Any],
    ) -> None:
        self._references = list(map(ref, instances))
        self._row_state = state
        self._rows = rows
        self._key = key
        self._generated = generated

    def snapshots(self) -> Iterator[Snapshot]:
        """Yield the snapshot of each instance that is still alive."""
        generated = repeat(None) if self._key is None else self._generated
        for reference, row, value in zip(self._references, self._rows, generated, strict=False):
            if reference() is not None:
                changed = {ROW: (None, row)}
                if self._key is not None:
                    changed[self._key] = (None, value)
                yield (reference, self._row_state, None, changed)


Entry = Snapshot | Batch | list[Snapshot]
"""An entry of a level. A list, oldest first, has steps between which another transaction has written the instance."""


class SnapshotLog:
    """The snapshots of one transaction."""

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        # By the id of the instance or batch. The id of a collected instance may be reused: see `record`.
        self._levels: list[dict[int, Any]] = [{}]

    def push(self) -> None:
        """Open a level, for a savepoint."""
        self._levels.append({})

    def record(self, snapshot: Snapshot, level: dict[int, Any] | None = None) -> None:
        """Keep *snapshot* in a *level*, by default the innermost.

        If the instance has a snapshot there, the generated values are added to that.
        """
        if level is None:
            level = self._levels[-1]
        instance = snapshot[0]()
        key = id(instance)
        entry = level.setdefault(key, snapshot)
        if entry is snapshot:
            return
        older: Snapshot = entry[-1] if entry.__class__ is list else entry
        if older[0]() is not instance:
            level[key] = snapshot
            return
        rows = older[3].get(ROW)
        if rows is not None and snapshot[2] is not rows[0] and snapshot[2] is not rows[1]:
            level[key] = [*_steps(entry), snapshot]
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
                self.record(snapshot, level)
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
        for entry in self._levels[-1].values():
            if entry.__class__ is Batch:
                self._record_batch(outer, entry)
                continue
            for snapshot in _steps(entry):
                if snapshot[0]() is not None:
                    self.record(snapshot, outer)
        self._levels.pop()

    def roll_back(self) -> None:
        """Close the innermost level, and restore its instances, newest first. Can be repeated after an interrupt."""
        if not self._levels:
            return
        inner = self._levels[-1]
        while inner:
            key = next(reversed(inner))
            self._undo(inner[key], self._levels[:-1])
            del inner[key]
        self._levels.pop()

    def undo(self, step: Snapshot | Batch) -> None:
        """Restore the instances of *step*, a write that has failed, and remove it from all levels."""
        if isinstance(step, Batch):
            for level in self._levels:
                level.pop(id(step), None)
        self._undo(step, self._levels)

    def take_over(self, instance: Any, snapshot: Snapshot) -> bool:
        """Merge *snapshot* into that of the next write of *instance*, if this log has it; return whether it has."""
        for level in reversed(self._levels):
            steps = _steps(level.get(id(instance), []))
            for index, later in enumerate(steps):
                if later[0]() is instance and later[3].get(ROW, _NONE)[0] is snapshot[3][ROW][1]:
                    merged = [*steps]
                    merged[index] = _joined(snapshot, later)
                    level[id(instance)] = merged
                    return True
        return False

    def _undo(self, entry: Entry, levels: Sequence[dict[int, Any]]) -> None:
        """Restore the instances of *entry*, and remove what *levels* have merged from it."""
        steps = entry.snapshots() if isinstance(entry, Batch) else reversed(_steps(entry))
        for snapshot in steps:
            restore(snapshot)
            for level in levels:
                _take_back(level, snapshot)


_NONE = (object(),)


def _steps(entry: Any) -> list[Snapshot]:
    """Return the snapshots of one instance in *entry*, oldest first."""
    return entry if entry.__class__ is list else [entry]


def _joined(snapshot: Snapshot, later: Snapshot) -> Snapshot:
    """Return a snapshot that undoes what *snapshot* does, and *later*, the step that began where *snapshot* ended."""
    changed = dict(later[3])
    for name, (before, generated) in snapshot[3].items():
        known = changed.get(name)
        if known is None:
            changed[name] = (before, generated)
        elif known[0] is generated:
            changed[name] = (before, known[1])
    return (*snapshot[:3], changed)


def _take_back(level: dict[int, Any], snapshot: Snapshot) -> None:
    """Remove from *level* what it has merged from *snapshot*, which was restored."""
    instance = snapshot[0]()
    steps = _steps(level.get(id(instance), []))
    if not steps or steps[-1][0]() is not instance:
        return
    known = steps[-1][3]
    for name, (before, generated) in [*snapshot[3].items()]:
        if name in known and known[name][1] is generated:
            if known[name][0] is before:
                del known[name]
            else:
                known[name] = (known[name][0], before)
    if not known:
        level[id(instance)] = steps[:-1]
        if not steps[:-1]:
            del level[id(instance)]
