"""Growth jobs: one contestant does one job in a process of its own, so that its memory can be measured.

`python -m benchmarks.growth_jobs NAME JOB ROWS SOURCE` copies the table of the file SOURCE, works, and prints JSON.
"""

from __future__ import annotations

import gc
import json
import resource
import sqlite3
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contestant import Contestant, gather
from benchmarks.databases import SQLite
from benchmarks.table import Data, Row

WARM = 100
MANY = 2000
STATUS = Path("/proc/self/status")
FORGET = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Job:
    """What is done to a table that grows.

    *steps* returns the number of operations for a number of rows; *given* runs before the clock starts, *work* under
    it.
    """

    title: str
    steps: Callable[[int], int]
    work: Callable[[Contestant, Data, Any], Any]
    filled: bool = True
    given: Callable[[Contestant, Data, int], Any] = lambda contestant, data, steps: data.keys[:steps]


def _each(rows: int) -> int:
    return rows


def _some(rows: int) -> int:
    return min(rows, MANY)


def _new(contestant: Contestant, data: Data, steps: int) -> list[Any]:
    make = data.row if contestant.takes == "rows" else data.record
    return [make(number) for number in range(steps)]


def _levels(contestant: Contestant, data: Data, steps: int) -> range:
    return data.levels[:steps]


def _insert(contestant: Contestant, data: Data, given: Any) -> None:
    with contestant.transaction():
        contestant.insert(given)


def _bulk(contestant: Contestant, data: Data, given: Any) -> None:
    with contestant.transaction():
        contestant.bulk(given)


def _change(contestant: Contestant, data: Data, given: Any) -> None:
    with contestant.transaction():
        contestant.change(given)


def _delete(contestant: Contestant, data: Data, given: Any) -> None:
    with contestant.transaction():
        contestant.delete(given)


JOBS = {
    "insert": Job("insert one by one, in one transaction", _each, _insert, filled=False, given=_new),
    "bulk": Job("bulk insert, all at once", _each, _bulk, filled=False, given=_new),
    "load": Job("load all", _each, lambda contestant, data, given: contestant.load()),
    "change": Job("load, change, save each, in one transaction", _each, _change),
    "get": Job("get by pk, among so many rows", _some, lambda contestant, data, given: contestant.get(given)),
    "filter": Job(
        "20 rows by filter(level=…), among so many rows",
        lambda rows: max(1, _some(rows) // 20),
        lambda contestant, data, given: contestant.by_level(given),
        given=_levels,
    ),
    "delete": Job(
        "delete one, among so many rows",
        _some,
        _delete,
        given=lambda contestant, data, steps: contestant.fetch(data.keys[:steps]),
    ),
}


def measured(kind: type[Contestant], job: Job, rows: int, source: Path) -> dict[str, Any]:
    """Do *job* once with few rows, to warm up, and once with *rows*; return times, memory and what was stored.

    Times are microseconds for each operation; the peak is what the process grew by, in megabytes.
    """
    data, steps = Data(rows), job.steps(rows)
    with _opened(kind) as (contestant, path):
        _hold(path, source, WARM if job.filled else 0)
        warm = Data(WARM)
        job.work(contestant, warm, job.given(contestant, warm, job.steps(WARM)))
        _hold(path, source, rows if job.filled else 0)
        given = job.given(contestant, data, steps)
        gc.collect()
        gc.freeze()
        before = _forget()
        wall, cpu = time.perf_counter(), time.process_time()
        result = job.work(contestant, data, given)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        grown = _megabytes("VmHWM") - before
        return {
            "steps": steps,
            "cpu": round(cpu / steps * 1e6, 3),
            "wall": round(wall / steps * 1e6, 3),
            "peak": round(max(0.0, grown), 1),
            "returned": len(result) if result is not None else None,
            "stored": _sums(path),
        }


def weighed(kind: type[Contestant], rows: int, source: Path) -> dict[str, Any]:
    """Return the bytes that each loaded instance takes: as the process grew, and as Python's allocator counted them."""
    with _opened(kind) as (contestant, path):
        _hold(path, source, WARM)
        contestant.load()
        _hold(path, source, rows)
        gc.collect()
        before = _megabytes("VmRSS")
        loaded = contestant.load()
        gc.collect()
        resident = _megabytes("VmRSS") - before
        count = len(loaded)
        del loaded
        gc.collect()
        tracemalloc.start()
        loaded = contestant.load()
        gc.collect()
        traced, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return {
            "rows": len(loaded),
            "resident": round(resident * (1 << 20) / count),
            "traced": round(traced / len(loaded)),
        }


@contextmanager
def _opened(kind: type[Contestant]) -> Iterator[tuple[Contestant, str]]:
    database, contestant = SQLite(), kind()
    with database.rooms("file") as room:
        url = room(kind.name)
        with database.table(url, contestant.plain) as table:
            table.create()
            contestant.open(url)
            yield contestant, str(url.database)
            contestant.close()


def _hold(path: str, source: Path, rows: int) -> None:
    """Let the table hold the first *rows* of *source*, by SQL alone, so that no objects are made of them here."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("ATTACH ? AS source", (str(source),))
        connection.execute("DELETE FROM main.item")
        connection.execute("INSERT INTO main.item SELECT * FROM source.item ORDER BY id LIMIT ?", (rows,))
        connection.execute("DETACH source")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _sums(path: str) -> Row:
    with closing(sqlite3.connect(path)) as connection:
        found: Row = connection.execute("SELECT count(*), sum(amount), sum(level) FROM item").fetchone()
        return found


def _forget() -> float:
    """Reset the peak that Linux keeps of this process; return its size now, in megabytes."""
    if FORGET.exists():
        FORGET.write_text("5")
    return _megabytes("VmRSS")


def _megabytes(key: str) -> float:
    if STATUS.exists():
        (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
        return int(line.split()[1]) / (1 << 10)
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # elsewhere only the peak is known
    return size / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def main(name: str, job: str, rows: int, source: Path) -> None:
    """Print what was measured. A contestant that cannot be imported is reported, with exit code 3."""
    present, missing = gather([name])
    if not present:
        sys.stderr.write(f"{missing[name]}\n")
        raise SystemExit(3)
    found = (
        weighed(present[0], rows, source) if job == "weigh" else measured(present[0], JOBS[job], rows, source)
    )
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
