"""Rounds: every contestant does every workload in turn, again and again.

What is measured close in time shares the state of the machine, so a ratio is taken within a round; the order of the
contestants changes with each round. Garbage from before a sample is collected and what survives is frozen first;
during the sample the collector runs as in any program, unless it is switched off, so that each contestant pays for
its own garbage and not for the objects of others.
"""

from __future__ import annotations

import gc
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

from sqlalchemy import URL

from benchmarks.contestant import Contestant
from benchmarks.databases import Database, Rooms
from benchmarks.table import Data, Row, Table
from benchmarks.workloads import Workload, lacking

WATCHED = 100
CALLS = {"execute", "executemany"}
COMPILED: tuple[type, ...] = (sqlite3.Cursor, sqlite3.Connection)
WRITTEN = "psycopg"  # its cursors are written in Python


@dataclass(frozen=True)
class Sample:
    """One contestant, one workload, one round: seconds, and the rows that were seen afterwards."""

    cpu: float
    wall: float
    seen: dict[str, list[Row]]

    def time(self, clock: str) -> float:
        return self.cpu if clock == "cpu" else self.wall


@dataclass
class Record:
    """All samples of a run, by workload and contestant, and where a contestant's rows were wrong."""

    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    senders: dict[str, dict[str, Counter[str]]] = field(default_factory=dict)
    mismatches: list[str] = field(default_factory=list)

    def add(self, workload: Workload, taken: dict[str, Sample], *, right: str) -> None:
        """Keep one round's samples of a workload, and compare them with those of *right*."""
        for name, sample in taken.items():
            self.samples.setdefault(workload.key, {}).setdefault(name, []).append(sample)
        self.compare(workload, taken, right=right)

    def compare(self, workload: Workload, taken: dict[str, Sample], *, right: str) -> None:
        """Note the contestants whose rows differ from those of *right*, and forget the rows."""
        for name, sample in taken.items():
            for what, expected in taken[right].seen.items():
                if difference := _difference(expected, sample.seen[what]):
                    self.mismatches.append(f"{name}, {workload.key}, {what}: {difference}")
        for sample in taken.values():
            sample.seen.clear()


class Entry(Protocol):
    """A contestant that takes part, in this process or in another."""

    @property
    def kind(self) -> type[Contestant]: ...

    def begin_round(self) -> None:
        """Prepare for a round; not clocked."""

    def sample(self, workload: Workload, data: Data, *, collect: bool) -> Sample:
        """Do *workload* once, under the clock."""
        ...

    def watch(self, workload: Workload, data: Data) -> tuple[Sample, Counter[str]]:
        """Do *workload* once; return also how many statements each package sent to the driver."""
        ...


@dataclass(frozen=True)
class LocalEntry:
    """A contestant that is open in this process, and the table that it works on."""

    contestant: Contestant
    table: Table

    @property
    def kind(self) -> type[Contestant]:
        return type(self.contestant)

    def begin_round(self) -> None:
        """Do nothing: what is open stays open."""

    def sample(self, workload: Workload, data: Data, *, collect: bool) -> Sample:
        return self._sample(workload, data, _quiet(collect=collect))

    def watch(self, workload: Workload, data: Data) -> tuple[Sample, Counter[str]]:
        senders: Counter[str] = Counter()
        return self._sample(workload, data, watched(senders)), senders

    def _sample(self, workload: Workload, data: Data, around: AbstractContextManager[None]) -> Sample:
        contestant = self.contestant
        if workload.filled:
            self.table.fill(data.rows)
        else:
            self.table.empty()
        given = workload.given(contestant, data)
        with around:
            wall, cpu = time.perf_counter(), time.process_time()
            result = workload.work(contestant, data, given)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        seen = {"returned": _values(contestant, workload, result)}
        if workload.count_calls is not None:
            seen["receiver called"] = [(workload.count_calls(given),)]
        if workload.writes:
            seen["stored"] = self.table.rows()
        return Sample(cpu, wall, seen)


Enter = Callable[[type[Contestant], Database, str, Rooms], AbstractContextManager[Entry]]
"""Gives the entry of a contestant, for a database, a place of it and the function that makes rooms there."""


def measure(
    contestants: Sequence[type[Contestant]],
    workloads: Sequence[Workload],
    *,
    database: Database,
    rows: int,
    rounds: int,
    collect: bool = True,
    enter: Enter | None = None,
    step: Callable[[], None] = lambda: None,
) -> Record:
    """Run *rounds* of all workloads; return the samples.

    A round that is not clocked comes first: it warms up, and the senders of the statements are watched in it. The
    rows of the first contestant are taken to be right: a contestant that stores or returns others is a mismatch.
    *collect* leaves the garbage collector on under the clock. *enter* opens a contestant, by default in this
    process. *step* is called after each sample.
    """
    record, data, right = Record(), Data(rows), contestants[0].name
    for place in database.places:
        here = [each for each in workloads if place == database.places[-1 if each.alone else 0]]
        if not here:
            continue
        with _entries(contestants, database, place, enter or open_here) as entries:
            for workload in here:
                _watch(record, workload, _able(entries, workload, place), data, right=right)
            for number in range(rounds):
                for entry in entries:
                    entry.begin_round()
                for workload in here:
                    taken = {}
                    for entry in _able(_turned(entries, number), workload, place):
                        taken[entry.kind.name] = entry.sample(workload, data, collect=collect)
                        step()
                    record.add(workload, taken, right=right)
    return record


@contextmanager
def _entries(
    contestants: Sequence[type[Contestant]], database: Database, place: str, enter: Enter
) -> Iterator[list[Entry]]:
    with ExitStack() as stack:
        room = stack.enter_context(database.rooms(place))
        yield [
            stack.enter_context(enter(kind, database, place, room))
            for kind in contestants
            if place != "memory" or kind.lacks_in_memory is None
        ]


@contextmanager
def open_here(kind: type[Contestant], database: Database, place: str, room: Rooms) -> Iterator[Entry]:
    """Open a contestant in this process, in a room of its own."""
    with opened(kind, database, room(kind.name)) as entry:
        yield entry


@contextmanager
def opened(kind: type[Contestant], database: Database, url: URL) -> Iterator[LocalEntry]:
    """Open a contestant on the empty database *url*, make the table and check what the contestant promises."""
    contestant = kind()
    with ExitStack() as stack:
        table = stack.enter_context(database.table(url, contestant.plain))
        if url.database is None:  # a database in memory exists only once it was opened
            contestant.open(url)
            stack.callback(contestant.close)
            table.create()
        else:
            table.create()
            contestant.open(url)
            stack.callback(contestant.close)
        contestant.check()
        yield LocalEntry(contestant, table)


def watched_rows(rows: int) -> int:
    """Return how many rows the watched round has; more are not needed to tell who sent the statements."""
    return min(WATCHED, rows)


def _watch(record: Record, workload: Workload, entries: Sequence[Entry], data: Data, *, right: str) -> None:
    few, taken = Data(watched_rows(data.size)), {}
    senders = record.senders.setdefault(workload.key, {})
    for entry in entries:
        name = entry.kind.name
        taken[name], senders[name] = entry.watch(workload, few)
    record.compare(workload, taken, right=right)


def _able(entries: Sequence[Entry], workload: Workload, place: str) -> list[Entry]:
    return [each for each in entries if lacking(each.kind, workload, in_memory=place == "memory") is None]


def _turned(entries: Sequence[Entry], number: int) -> list[Entry]:
    """Begin with another entry in each round, and go backwards in every other one."""
    start = number % len(entries)
    turned = [*entries[start:], *entries[:start]]
    return turned[::-1] if number % 2 else turned


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


@contextmanager
def watched(senders: Counter[str]) -> Iterator[None]:
    """Count into *senders* the statements of this thread, by the package that sent them; not to be clocked.

    microorm sends compiled statements to the driver's cursor itself and all others through SQLAlchemy's
    `Connection`. Rather than believe it, this watches the calls into `sqlite3` and psycopg and looks at the caller.
    Other drivers are not watched.
    """

    def see(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call":
            if called.__name__ in CALLS and isinstance(called.__self__, COMPILED):
                senders[_package(frame)] += 1
        elif event == "call" and frame.f_code.co_name in CALLS and _package(frame) == WRITTEN:
            # Its Connection calls its own Cursor, which is not to be counted twice.
            senders.update({_package(frame.f_back)} - {WRITTEN})

    earlier = sys.getprofile()
    sys.setprofile(see)
    try:
        yield
    finally:
        sys.setprofile(earlier)


def _package(frame: FrameType | None) -> str:
    # Generated code may run in a namespace without a name; its caller has one.
    while frame is not None and "__name__" not in frame.f_globals:
        frame = frame.f_back
    return "unknown" if frame is None else str(frame.f_globals["__name__"]).partition(".")[0]


def _values(contestant: Contestant, workload: Workload, result: Any) -> list[Row]:
    if workload.returns == "values":
        return [(value,) for value in result]
    if workload.returns == "instances":
        return [contestant.row(instance) for instance in result]
    if workload.returns == "groups":
        return [contestant.row(instance) for group in result for instance in group]
    return []


def _difference(expected: list[Row], got: list[Row]) -> str | None:
    """Say where rows differ, the types of their values included; None where they do not."""
    if len(expected) != len(got):
        return f"{len(got)} rows where the driver has {len(expected)}"
    for right, row in zip(expected, got, strict=True):
        if right != row or [*map(type, right)] != [*map(type, row)]:
            return f"{row!r} where the driver has {right!r}"
    return None
