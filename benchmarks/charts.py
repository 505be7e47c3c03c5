"""Charts: what the plots of docs/performance.md show, as data made from the results; `drawing` makes SVG of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from benchmarks.contestant import HOUSE, OURS
from benchmarks.report import CLOCKS, short

TITLES = {
    "driver": "driver",
    "mapper": "mapper",
    "core": "Core",
    "core_objects": "Core objects",
    "microorm": "microorm",
    "django": "Django",
    "peewee": "peewee",
    "piccolo": "Piccolo",
    "pony": "Pony",
    "sqlalchemy_orm": "SQLAlchemy ORM",
    "sqlmodel": "SQLModel",
    "tortoise": "Tortoise",
}
DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
LEAST = 0.1
"""What is too small for a logarithmic axis is drawn as this."""

Kind = Literal["ours", "house", "peer"]
Results = Mapping[str, dict[str, Any]]


@dataclass(frozen=True)
class Bar:
    """One contestant: its value, its least value where there is one, and the label behind the bar."""

    name: str
    kind: Kind
    value: float
    least: float | None
    label: str


@dataclass(frozen=True)
class Line:
    """One contestant: its points."""

    name: str
    kind: Kind
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """Either bars below each other, or lines over the same axes, both logarithmic."""

    title: str
    bars: Sequence[Bar] = ()
    lines: Sequence[Line] = ()


@dataclass(frozen=True)
class Chart:
    title: str
    panels: Sequence[Panel]

    @property
    def digest(self) -> str:
        """What a drawing of this chart carries, so that a test can tell whether it is of these figures."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def charts(kept: Results) -> dict[str, Chart]:
    """Return every chart of the page by the name of its file."""
    growth = kept["growth"]
    made = {f"{key}.svg": _of_workload(kept, key) for key in kept["sqlite"]["workloads"]}
    made |= {f"growth-{key}.svg": _of_growth(job) for key, job in growth["jobs"].items()}
    return {**made, "memory.svg": _of_memory(growth)}


def _of_workload(kept: Results, key: str) -> Chart:
    panels = []
    for kind, title in DATABASES.items():
        workload = kept[kind]["workloads"].get(key)
        if workload is None:
            continue
        clock = kept[kind]["database"]["clock"]
        bars = [
            Bar(TITLES[name], _kind(name), each[f"{clock}_median"], each[f"{clock}_min"], _label(each, clock))
            for name, each in workload["contestants"].items()
            if "lacks" not in each
        ]
        panels.append(Panel(f"{title}: {CLOCKS[clock]}, {workload['unit']}", bars=bars))
    return Chart(kept["sqlite"]["workloads"][key]["title"], panels)


def _of_growth(job: dict[str, Any]) -> Chart:
    def lines(what: str) -> list[Line]:
        return [
            Line(
                TITLES[name],
                _kind(name),
                [(int(size), max(each[what], LEAST)) for size, each in sizes.items()],
            )
            for name, sizes in job["contestants"].items()
        ]

    panels = [
        Panel("CPU time per operation, µs, by rows", lines=lines("cpu")),
        Panel("growth of the process, MB (0.1 or more), by rows", lines=lines("peak")),
    ]
    return Chart(job["title"], panels)


def _of_memory(growth: dict[str, Any]) -> Chart:
    bars = [
        Bar(TITLES[name], _kind(name), each["traced"], None, f"{each['traced']:,} bytes")
        for name, each in sorted(growth["weights"].items(), key=lambda pair: pair[1]["traced"])
    ]
    panel = Panel(f"bytes, {growth['settings']['weighed']:,} instances", bars=bars)
    return Chart("memory of a loaded instance", [panel])


def _kind(name: str) -> Kind:
    return "ours" if name == OURS else "house" if name in HOUSE else "peer"


def _label(figures: dict[str, Any], clock: str) -> str:
    return f"{short(figures[f'{clock}_median'])} ({figures['to_driver']:.1f} × driver)"
