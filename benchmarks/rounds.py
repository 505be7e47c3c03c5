"""Rounds: every contestant does every workload in turn, again and again, in one process.

Neighbours in time share the machine's mood, so a ratio is taken within a round; the order of the contestants
moves on by one each round, so that none always follows the same neighbour. Garbage from before a sample is
collected and what survives is frozen first; during the sample the collector runs as in any program, unless
asked to stay off, so that each pays for its own garbage and for nobody else's heap.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.contestant import Contestant
from benchmarks.databases import Database
from benchmarks.table import Data, Row, Table
from benchmarks.ways import watched
from benchmarks.workloads import Workload, lacking

Step = Callable[[], None]
WATCHED = 100


@dataclass(frozen=True)
class Sample:
    """One contestant, one workload, one round: seconds, and what there was to see afterwards."""

    cpu: float
    wall: float
    seen: dict[str, Any]

    def time(self, clock: str) -> float:
        return self.cpu if clock == "cpu" else self.wall


@dataclass
class Record:
    """All samples of a run, by workload and contestant, and the workloads a contestant got wrong."""

    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    senders: dict[str, dict[str, Counter[str]]] = field(default_factory=dict)
    mismatches: list[str] = field(default_factory=list)

    def add(self, workload: Workload, taken: dict[str, Sample], *, right: str) -> None:
        """Keep one round's samples of a workload, and note whoever saw other rows than *right* did."""
        for name, sample in taken.items():
            self.samples.setdefault(workload.key, {}).setdefault(name, []).append(sample)
        self.compare(workload, taken, right=right)

    def compare(self, workload: Workload, taken: dict[str, Sample], *, right: str) -> None:
        """Note whoever saw other rows than *right* did; what was seen is dropped."""
        for name, sample in taken.items():
            for what, expected in taken[right].seen.items():
                if difference := _difference(expected, sample.seen[what]):
                    self.mismatches.append(f"{name}, {workload.key}, {what}: {difference}")
        for sample in taken.values():
            sample.seen.clear()


@dataclass(frozen=True)
class Entry:
    """A contestant that is open, and the table it works on."""

    contestant: Contestant
    table: Table
    place: str

    def can(self, workload: Workload) -> bool:
        return lacking(type(self.contestant), workload, in_memory=self.place == "memory") is None


def measure(
    contestants: Sequence[type[Contestant]],
    workloads: Sequence[Workload],
    *,
    database: Database,
    rows: int,
    rounds: int,
    collect: bool = True,
    step: Step = lambda: None,
) -> Record:
    """Run *rounds* of all workloads; return the samples.

    A round that is not clocked comes first: it warms up, and the ways of the statements are watched in it.
    The first contestant is the one whose rows are right: whatever another stores or returns otherwise is a
    mismatch. *collect* leaves the garbage collector on under the clock. *step* is called after each sample.
    """
    record, data = Record(), Data(rows)
    for place in database.places:
        here = [each for each in workloads if place == database.places[-1 if each.alone else 0]]
        if not here:
            continue
        with opened(contestants, database, place) as entries:
            right = entries[0].contestant.name
            for workload in here:
                _watch(record, workload, entries, Data(watched_rows(rows)), right=right)
            for number in range(rounds):
                turned = _turned(entries, number)
                for workload in here:
                    taken = {}
                    for entry in _able(turned, workload):
                        taken[entry.contestant.name] = _sample(entry, workload, data, _quiet(collect=collect))
                        step()
                    record.add(workload, taken, right=right)
    return record


@contextmanager
def opened(contestants: Sequence[type[Contestant]], database: Database, place: str) -> Iterator[list[Entry]]:
    """Open each contestant on a database of its own, with the table made and its promises checked."""
    with ExitStack() as stack:
        room = stack.enter_context(database.rooms(place))
        entries = []
        for kind in contestants:
            if place == "memory" and kind.lacks_in_memory is not None:
                continue
            contestant, url = kind(), room(kind.name)
            table = stack.enter_context(database.table(url, contestant.plain))
            if place == "memory":  # there is no database before somebody opened it
                contestant.open(url)
                stack.callback(contestant.close)
                table.create()
            else:
                table.create()
                contestant.open(url)
                stack.callback(contestant.close)
            contestant.check()
            entries.append(Entry(contestant, table, place))
        yield entries


def watched_rows(rows: int) -> int:
    """How many rows the round has in which statements are watched; no more are needed to tell who sent them."""
    return min(WATCHED, rows)


def _watch(record: Record, workload: Workload, entries: Sequence[Entry], data: Data, *, right: str) -> None:
    taken = {}
    senders = record.senders.setdefault(workload.key, {})
    for entry in _able(entries, workload):
        name = entry.contestant.name
        senders[name] = Counter()
        taken[name] = _sample(entry, workload, data, watched(senders[name]))
    record.compare(workload, taken, right=right)


def _able(entries: Sequence[Entry], workload: Workload) -> list[Entry]:
    return [entry for entry in entries if entry.can(workload)]


def _turned(entries: list[Entry], number: int) -> list[Entry]:
    start = number % len(entries)
    return entries[start:] + entries[:start]


def _sample(entry: Entry, workload: Workload, data: Data, around: AbstractContextManager[None]) -> Sample:
    contestant = entry.contestant
    if workload.filled:
        entry.table.fill(data.rows)
    else:
        entry.table.empty()
    given = workload.given(contestant, data)
    with around:
        wall, cpu = time.perf_counter(), time.process_time()
        result = workload.work(contestant, data, given)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    seen = {"returned": _values(contestant, workload, result)}
    if workload.settle is not None:
        seen["receiver called"] = [(workload.settle(given),)]
    if workload.writes:
        seen["stored"] = entry.table.rows()
    return Sample(cpu, wall, seen)


@contextmanager
def _quiet(*, collect: bool) -> Iterator[None]:
    gc.collect()
    gc.freeze()
    if not collect:
        gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def _values(contestant: Contestant, workload: Workload, result: Any) -> list[Row]:
    if workload.returns == "values":
        return [(value,) for value in result]
    if workload.returns == "instances":
        return [contestant.row(instance) for instance in result]
    if workload.returns == "groups":
        return [contestant.row(instance) for group in result for instance in group]
    return []


def _difference(expected: list[Row], got: list[Row]) -> str | None:
    """Say where rows differ, the types of their values included; None when they do not."""
    if len(expected) != len(got):
        return f"{len(got)} rows where the driver has {len(expected)}"
    for right, row in zip(expected, got, strict=True):
        if right != row or [*map(type, right)] != [*map(type, row)]:
            return f"{row!r} where the driver has {right!r}"
    return None
