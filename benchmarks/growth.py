"""Growth: time and memory as the table grows, each sample in a process of its own: `python -m benchmarks.growth`.

SQLite only. A contestant other than the driver and microorm does not do ten times the rows when that would take
longer than a limit; the results name what was left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from sqlalchemy import URL

from benchmarks.contestant import HOUSE, OURS, PEERS, gather, versions
from benchmarks.databases import SQLite
from benchmarks.growth_jobs import JOBS
from benchmarks.report import machine
from benchmarks.table import Data

RESULTS = Path(__file__).parent / "results" / "latest-growth.json"
SIZES = (1_000, 10_000, 100_000, 1_000_000)
WEIGHED = 100_000
UNLIMITED = ("driver", OURS)
MICRO = 1e6
Say = Callable[[str], None]


@dataclass
class Growth:
    """The figures, and what was left out or wrong."""

    jobs: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    weights: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    mismatches: list[str] = field(default_factory=list)


@click.command()
@click.option("--peers", is_flag=True, help="Measure other ORMs, too (benchmarks/peers.txt).")
@click.option(
    "--most", default=SIZES[-1], show_default=True, type=click.IntRange(SIZES[0]), help="Rows at most."
)
@click.option(
    "--limit",
    default=8.0,
    show_default=True,
    help="Seconds of CPU that a sample may take where there is a limit.",
)
@click.option(
    "--json", "target", default=RESULTS, type=click.Path(path_type=Path), help="Where to keep it all."
)
def main(*, peers: bool, most: int, limit: float, target: Path) -> None:
    """Measure time and memory for a thousand rows and ever ten times more. Exits with 1 when rows differ."""
    present, missing = gather([*HOUSE, *(PEERS if peers else ())])
    names = [each.name for each in present if "insert" not in each.lacks]
    sizes = [size for size in SIZES if size <= most]
    found = grow(names, sizes, limit=limit, say=click.echo)
    kept = {
        "machine": machine(),
        "database": {"name": SQLite.name, "version": SQLite().version(), "clock": SQLite.clock},
        "settings": {"sizes": sizes, "limit": limit, "weighed": min(WEIGHED, most)},
        "versions": versions(present),
        "missing": missing,
        "left_out": found.left_out,
        "mismatches": found.mismatches,
        "jobs": {key: {"title": JOBS[key].title, "contestants": each} for key, each in found.jobs.items()},
        "weights": found.weights,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    for line in [*(f"missing: {name} ({why})" for name, why in missing.items()), *found.mismatches]:
        click.echo(line)
    if found.mismatches or not missing.keys().isdisjoint(HOUSE):
        raise SystemExit(1)


def grow(
    names: Sequence[str], sizes: Sequence[int], *, limit: float, say: Say, jobs: Iterable[str] = JOBS
) -> Growth:
    """Do every job with every size and contestant; the contestants of one job and size follow each other."""
    found = Growth()
    with TemporaryDirectory() as folder:
        source = Path(folder, "source.db")
        fill(source, sizes[-1])
        for job in jobs:
            for size in sizes:
                for name in names:
                    if _too_long(found, job, name, size, limit):
                        found.left_out.append(f"{name}, {job}, {size:,} rows")
                        continue
                    sample = in_process(name, job, size, source)
                    _compare(found, job, name, size, sample)
                    found.jobs.setdefault(job, {}).setdefault(name, {})[str(size)] = sample
                say(f"{job}, {size:,} rows")
        for name in names:
            found.weights[name] = in_process(name, "weigh", min(WEIGHED, sizes[-1]), source)
    _forget_rows(found.jobs.values())
    return found


def in_process(name: str, job: str, rows: int, source: Path) -> dict[str, Any]:
    """Return what the process prints. Raises CalledProcessError where it fails."""
    command = [sys.executable, "-m", "benchmarks.growth_jobs", name, job, str(rows), str(source)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def fill(source: Path, rows: int) -> None:
    """Make the database *source*, with the table and so many rows."""
    database = SQLite()
    with database.table(URL.create("sqlite", database=str(source)), lambda sql, rows: []) as table:
        table.create()
        table.fill(Data(rows).rows)


def _too_long(found: Growth, job: str, name: str, size: int, limit: float) -> bool:
    """Say whether the last size was left out, or took so long that this one would exceed *limit*."""
    if name in UNLIMITED or size == SIZES[0]:
        return False
    last = found.jobs[job][name].get(str(size // 10))
    steps = JOBS[job].steps(size)
    return last is None or steps * last["cpu"] / MICRO > limit


def _compare(found: Growth, job: str, name: str, size: int, sample: dict[str, Any]) -> None:
    right = found.jobs.get(job, {}).get("driver", {}).get(str(size), sample)
    for what in ("returned", "stored"):
        if sample[what] != right[what]:
            found.mismatches.append(
                f"{name}, {job}, {size:,} rows, {what}: {sample[what]!r} where the driver has {right[what]!r}"
            )


def _forget_rows(jobs: Iterable[dict[str, dict[str, Any]]]) -> None:
    """Remove what was only needed to compare."""
    for contestants in jobs:
        for sizes in contestants.values():
            for sample in sizes.values():
                del sample["returned"], sample["stored"]


if __name__ == "__main__":
    main()
