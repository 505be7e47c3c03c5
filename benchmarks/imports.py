"""Imports: how long `import microorm` with one model takes, beside `import sqlalchemy` with one Table.

Each sample is a fresh process, and they take turns. The bytecode is cached: the first process of each kind, which
writes it, is not counted. The clocks start when the interpreter has started.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from rich.table import Table as Grid

from benchmarks.contestant import BEFORE, OURS
from benchmarks.elsewhere import ROOT, ProcessFailed, environment

CORE = "sqlalchemy"
TABLE = """
from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table
Table("item", MetaData(), Column("id", Integer, primary_key=True), Column("name", String(100), nullable=False),
    Column("amount", BigInteger, nullable=False))
"""
MODEL = """
from microorm import Field, Model, field
class Item(Model, table="item"):
    name: Field[str] = field(max_length=100)
    amount: Field[int]
"""
TITLES = {
    CORE: "import sqlalchemy, one Table",
    BEFORE: "import microorm (before), one model",
    OURS: "import microorm, one model",
}
CLOCKED = """
import time
wall, cpu = time.perf_counter(), time.process_time()
{}
print(time.perf_counter() - wall, time.process_time() - cpu)
"""

Figures = dict[str, dict[str, float]]


def measure_imports(processes: int, before: Path | None = None) -> Figures:
    """Import in so many fresh processes each; return least and median of both clocks, in milliseconds.

    *before* is another checkout, whose microorm is measured beside this one's.
    """
    sources = {CORE: (TABLE, ROOT), OURS: (MODEL, ROOT)}
    if before is not None:
        sources[BEFORE] = (MODEL, before)
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in sources}
    for number in range(processes + 1):
        for name, (source, checkout) in sources.items():
            sample = _imported(source, checkout)
            if number:
                samples[name].append(sample)
    return {name: _figures(samples[name]) for name in TITLES if name in samples}


def _imported(source: str, checkout: Path) -> tuple[float, float]:
    command = [sys.executable, "-P", "-c", CLOCKED.format(source)]
    done = subprocess.run(command, env=environment(checkout), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ProcessFailed(f"the import from {checkout} ended with exit code {done.returncode}")
    wall, cpu = map(float, done.stdout.split())
    return wall * 1e3, cpu * 1e3


def _figures(samples: list[tuple[float, float]]) -> dict[str, float]:
    walls, cpus = zip(*samples, strict=True)
    figures = {
        "wall_min": min(walls),
        "wall_median": median(walls),
        "cpu_min": min(cpus),
        "cpu_median": median(cpus),
    }
    return {key: round(figure, 1) for key, figure in figures.items()}


def table_of_imports(found: Mapping[str, Mapping[str, float]], processes: int) -> Grid:
    """Show the figures, and how many milliseconds the least of each clock is above SQLAlchemy's."""
    grid = Grid(title=f"imports, ms, {processes} fresh processes each", title_justify="left")
    grid.add_column("import", no_wrap=True)
    for title in (
        "wall, least",
        "wall, median",
        "CPU, least",
        "CPU, median",
        "wall above Core's",
        "CPU above Core's",
    ):
        grid.add_column(title, justify="right")
    for name, figures in found.items():
        above = [figures[key] - found[CORE][key] for key in ("wall_min", "cpu_min")]
        shown = [f"{figures[key]:.1f}" for key in ("wall_min", "wall_median", "cpu_min", "cpu_median")]
        grid.add_row(TITLES[name], *shown, *("-" if name == CORE else f"{each:+.1f}" for each in above))
    return grid
