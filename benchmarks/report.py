"""Report: medians and ratios of the samples, as data to keep and as tables to read."""

from __future__ import annotations

import os
import platform
import timeit
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table as Grid

from benchmarks.contestant import ASYNCPG, BEFORE, HOUSE, OURS, Contestant, versions
from benchmarks.databases import Database
from benchmarks.rounds import Record, Sample, watched_rows
from benchmarks.table import Data
from benchmarks.workloads import Workload, lacking

SCALE = {"µs": 1e6, "ns": 1e9}
CALLS = 10_000
NONE = "-"
CLOCKS = {"cpu": "CPU time", "wall": "wall time"}
RATIOS = ("to_driver", "to_core", "to_core_objects")
WAYS = {OURS: "cursor", "sqlalchemy": "Connection"}


def summary(
    record: Record,
    contestants: Sequence[type[Contestant]],
    workloads: Sequence[Workload],
    database: Database,
    missing: dict[str, str],
    settings: dict[str, Any],
    *,
    samples: bool = True,
) -> dict[str, Any]:
    """Return all that is kept of a run, ready for JSON; each sample only where *samples* is true."""
    data, found = Data(settings["rows"]), {}
    for each in workloads:
        taken = _workload(record, each, contestants, database, data)
        if not samples:
            for figures in taken["contestants"].values():
                figures.pop("cpu", None)
                figures.pop("wall", None)
        found[each.key] = taken
    return {
        "machine": machine(),
        "database": {"name": database.name, "version": database.version(), "clock": database.clock},
        "settings": {**settings, "watched_rows": watched_rows(data.size), "ddl": list(database.wording.ddl)},
        "versions": versions(contestants),
        "missing": missing,
        "mismatches": record.mismatches,
        "workloads": found,
    }


def machine() -> dict[str, Any]:
    """Describe the machine by what bears on speed; leave out what would identify it."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "empty call, ns": round(min(timeit.repeat(_empty, number=CALLS, repeat=20)) / CALLS * 1e9),
    }


def _empty() -> None:
    """Do nothing: the cost of the call shows how the interpreter was built."""


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _workload(
    record: Record,
    workload: Workload,
    contestants: Sequence[type[Contestant]],
    database: Database,
    data: Data,
) -> dict[str, Any]:
    taken = record.samples.get(workload.key, {})
    scale = SCALE[workload.unit] / workload.operations(data)
    in_memory = "memory" in database.places
    return {
        "title": workload.title,
        "unit": workload.unit,
        "operations": workload.operations(data),
        "contestants": {
            each.name: _figures(taken[each.name], taken, scale, database.clock)
            | {"statements": dict(record.senders[workload.key][each.name])}
            if each.name in taken
            else {"lacks": lacking(each, workload, in_memory=in_memory)}
            for each in contestants
        },
    }


def _figures(
    samples: list[Sample], taken: dict[str, list[Sample]], scale: float, clock: str
) -> dict[str, Any]:
    cpu = [round(sample.cpu * scale, 3) for sample in samples]
    wall = [round(sample.wall * scale, 3) for sample in samples]
    return {
        "cpu_median": round(median(cpu), 3),
        "cpu_min": min(cpu),
        "wall_median": round(median(wall), 3),
        "wall_min": min(wall),
        "to_driver": _ratio(samples, taken.get("driver"), clock),
        "to_core": _ratio(samples, taken.get("core"), clock),
        "to_core_objects": _ratio(samples, taken.get("core_objects"), clock),
        "to_before": _ratio(samples, taken.get(BEFORE), clock),
        "cpu": cpu,
        "wall": wall,
    }


def _ratio(samples: list[Sample], others: list[Sample] | None, clock: str) -> float | None:
    """Return the median over the rounds of the time by *clock*, divided by another's in the same round."""
    if others is None:
        return None
    pairs = zip(samples, others, strict=True)
    return round(median(one.time(clock) / other.time(clock) for one, other in pairs), 3)


def comparison(kept: dict[str, Any]) -> Grid:
    """Show all contestants: median time by the database's clock, in brackets the ratio to the driver's."""
    clock = CLOCKS[kept["database"]["clock"]]
    grid = Grid(
        title=f"{clock} per operation, median (median ratio to the driver's {clock} in the same round)",
        title_justify="left",
    )
    grid.add_column("workload", no_wrap=True)
    names = list(next(iter(kept["workloads"].values()))["contestants"])
    for name in names:
        grid.add_column(name.replace("_", " "), justify="right")
    for workload in kept["workloads"].values():
        cells = [_cell(workload["contestants"][name], kept["database"]["clock"]) for name in names]
        grid.add_row(f"{workload['title']}, {workload['unit']}", *cells)
    return grid


def _cell(figures: dict[str, Any], clock: str) -> str:
    if "lacks" in figures:
        return NONE
    return f"{short(figures[f'{clock}_median'])} ({short(figures['to_driver'])})"


def closeup(kept: dict[str, Any]) -> Grid:
    """Show microorm alone: both clocks, median and least, ratios, senders of statements, the best other ORM."""
    clock = kept["database"]["clock"]
    grid = Grid(title=f"microorm; ratios are made of {CLOCKS[clock]}", title_justify="left")
    grid.add_column("workload", no_wrap=True)
    for title in ("CPU", "least", "wall", "least", "to driver", "to Core", "to its objects"):
        grid.add_column(title, justify="right")
    grid.add_column(f"way to the driver, {kept['settings']['watched_rows']} rows")
    grid.add_column("best other ORM")
    for workload in kept["workloads"].values():
        ours = workload["contestants"][OURS]
        times = [short(ours[key]) for key in ("cpu_median", "cpu_min", "wall_median", "wall_min")]
        ratios = [f"{ours[key]:.2f}" if ours[key] else NONE for key in RATIOS]
        title = f"{workload['title']}, {workload['unit']}"
        grid.add_row(title, *times, *ratios, _way(ours["statements"]), _best(workload, clock))
    return grid


def against(kept: dict[str, Any]) -> Grid:
    """Show microorm beside the one of the other checkout: times, ratios to the driver, and after divided by before."""
    clock = kept["database"]["clock"]
    grid = Grid(title=f"microorm before and after, by {CLOCKS[clock]}", title_justify="left")
    grid.add_column("workload", no_wrap=True)
    for title in ("before", "least", "after", "least", "before / driver", "after / driver"):
        grid.add_column(title, justify="right")
    for title in ("after / before", "of the least"):
        grid.add_column(title, justify="right", style="bold")
    for workload in kept["workloads"].values():
        before, after = (workload["contestants"][name] for name in (BEFORE, OURS))
        times = [short(each[f"{clock}_{kind}"]) for each in (before, after) for kind in ("median", "min")]
        ratios = [f"{each['to_driver']:.2f}" for each in (before, after)]
        least = after[f"{clock}_min"] / before[f"{clock}_min"]
        title = f"{workload['title']}, {workload['unit']}"
        grid.add_row(title, *times, *ratios, f"{after['to_before']:.3f}", f"{least:.3f}")
    return grid


def _way(statements: dict[str, int]) -> str:
    return ", ".join(f"{WAYS.get(sender, sender)} {count}" for sender, count in statements.items()) or NONE


def rival(workload: dict[str, Any], clock: str) -> str | None:
    """Return the quickest of the other ORMs, by its median; None where none was clocked."""
    others = {
        name: figures[f"{clock}_median"]
        for name, figures in workload["contestants"].items()
        if name not in HOUSE and name not in (ASYNCPG, BEFORE) and "lacks" not in figures
    }
    return min(others, key=others.__getitem__) if others else None


def _best(workload: dict[str, Any], clock: str) -> str:
    name = rival(workload, clock)
    return NONE if name is None else f"{name} {short(workload['contestants'][name][f'{clock}_median'])}"


def short(figure: float) -> str:
    """Write *figure* with about three digits."""
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"
