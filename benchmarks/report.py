"""Report: samples → medians and ratios, as data to keep and as tables to read."""

from __future__ import annotations

import os
import platform
import sqlite3
import timeit
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table as Grid

from benchmarks.contestant import Contestant
from benchmarks.roster import versions
from benchmarks.rounds import WATCHED, Record, Sample
from benchmarks.table import DDL, Data
from benchmarks.workloads import Workload

SCALE = {"µs": 1e6, "ns": 1e9}
OURS = "microorm"
CALLS = 10_000
NONE = "-"
RATIOS = ("to_driver", "to_core", "to_core_objects")
WAYS = {OURS: "cursor", "sqlalchemy": "Connection"}


def summary(
    record: Record,
    contestants: Sequence[type[Contestant]],
    workloads: Sequence[Workload],
    missing: dict[str, str],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Everything there is to keep of a run, ready for JSON."""
    data = Data(settings["rows"])
    return {
        "machine": machine(),
        "settings": {**settings, "watched_rows": WATCHED, "ddl": list(DDL)},
        "versions": versions(contestants),
        "missing": missing,
        "mismatches": record.mismatches,
        "workloads": {each.key: _workload(record, each, contestants, data) for each in workloads},
    }


def machine() -> dict[str, Any]:
    """Describe the machine by what bears on speed, and by nothing that names it."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "empty call, ns": round(min(timeit.repeat(_empty, number=CALLS, repeat=20)) / CALLS * 1e9),
    }


def _empty() -> None:
    """Do nothing: what calling it costs tells how this interpreter was built."""


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _workload(
    record: Record, workload: Workload, contestants: Sequence[type[Contestant]], data: Data
) -> dict[str, Any]:
    taken = record.samples.get(workload.key, {})
    scale = SCALE[workload.unit] / workload.operations(data)
    return {
        "title": workload.title,
        "unit": workload.unit,
        "operations": workload.operations(data),
        "contestants": {
            each.name: _figures(taken[each.name], taken, scale)
            | {"statements": dict(record.senders[workload.key][each.name])}
            if each.name in taken
            else {"lacks": each.lacks[workload.key]}
            for each in contestants
        },
    }


def _figures(samples: list[Sample], taken: dict[str, list[Sample]], scale: float) -> dict[str, Any]:
    cpu = [round(sample.cpu * scale, 3) for sample in samples]
    wall = [round(sample.wall * scale, 3) for sample in samples]
    return {
        "cpu_median": median(cpu),
        "cpu_min": min(cpu),
        "wall_median": median(wall),
        "wall_min": min(wall),
        "to_driver": _ratio(samples, taken.get("driver")),
        "to_core": _ratio(samples, taken.get("core")),
        "to_core_objects": _ratio(samples, taken.get("core_objects")),
        "cpu": cpu,
        "wall": wall,
    }


def _ratio(samples: list[Sample], others: list[Sample] | None) -> float | None:
    """The median over the rounds of CPU time against another's in the same round."""
    if others is None:
        return None
    return round(median(one.cpu / other.cpu for one, other in zip(samples, others, strict=True)), 3)


def comparison(kept: dict[str, Any]) -> Grid:
    """All contestants side by side: CPU time, and in brackets how many times the driver's."""
    grid = Grid(
        title="CPU time per operation, median (median ratio to the driver in the same round)",
        title_justify="left",
    )
    grid.add_column("workload", no_wrap=True)
    names = list(next(iter(kept["workloads"].values()))["contestants"])
    for name in names:
        grid.add_column(name.replace("_", " "), justify="right")
    for workload in kept["workloads"].values():
        cells = [_cell(workload["contestants"][name]) for name in names]
        grid.add_row(f"{workload['title']}, {workload['unit']}", *cells)
    return grid


def _cell(figures: dict[str, Any]) -> str:
    if "lacks" in figures:
        return NONE
    return f"{_short(figures['cpu_median'])} ({_short(figures['to_driver'])})"


def closeup(kept: dict[str, Any]) -> Grid:
    """microorm alone: both clocks, median and least, the ratios, the way to the driver, the next best ORM."""
    grid = Grid(title="microorm", title_justify="left")
    grid.add_column("workload", no_wrap=True)
    for title in ("CPU", "least", "wall", "least", "to driver", "to Core", "to its objects"):
        grid.add_column(title, justify="right")
    grid.add_column(f"way to the driver, {WATCHED} rows")
    grid.add_column("best other ORM")
    for workload in kept["workloads"].values():
        ours = workload["contestants"][OURS]
        times = [_short(ours[key]) for key in ("cpu_median", "cpu_min", "wall_median", "wall_min")]
        ratios = [f"{ours[key]:.2f}" if ours[key] else NONE for key in RATIOS]
        title = f"{workload['title']}, {workload['unit']}"
        grid.add_row(title, *times, *ratios, _way(ours["statements"]), _rival(workload))
    return grid


def _way(statements: dict[str, int]) -> str:
    return ", ".join(f"{WAYS.get(sender, sender)} {count}" for sender, count in statements.items()) or NONE


def _rival(workload: dict[str, Any]) -> str:
    house = ("driver", "mapper", "core", "core_objects", OURS)
    others = {
        name: figures["cpu_median"]
        for name, figures in workload["contestants"].items()
        if name not in house and "lacks" not in figures
    }
    if not others:
        return NONE
    name = min(others, key=others.__getitem__)
    return f"{name} {_short(others[name])}"


def _short(figure: float) -> str:
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"
