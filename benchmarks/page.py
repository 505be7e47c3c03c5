"""Page: the tables and plots of docs/performance.md, from the results that are kept: `python -m benchmarks.page`.

What stands between `<!-- results: NAME -->` and `<!-- end -->` is made here, all else is left as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.drawing import Bar, Bars, Lines, bar_chart, line_chart
from benchmarks.report import CLOCKS, OURS, rival, short
from benchmarks.roster import HOUSE, PEERS

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "performance"
RESULTS = Path(__file__).parent / "results"
KINDS = ("sqlite", "postgresql", "growth")
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
BLOCK = re.compile(r"(<!-- results: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
NONE = "–"
LEAST = 0.1
"""What is too small for a logarithmic axis is drawn as this."""

Results = Mapping[str, dict[str, Any]]


def results() -> dict[str, dict[str, Any]]:
    """What is kept of the last run of each kind."""
    return {kind: json.loads((RESULTS / f"{kind}.json").read_text()) for kind in KINDS}


def filled(page: str, kept: Results) -> str:
    """The *page* with its tables made anew from what was *kept*.

    Raises KeyError for a block that nothing here makes.
    """
    made = {name: make(kept) for name, make in BLOCKS.items()}
    return BLOCK.sub(lambda found: f"{found[1]}\n{made[found[2]]}\n\n{found[3]}", page)


def plots(kept: Results) -> dict[str, str]:
    """Every plot by the name of its file."""
    drawn = {f"{key}.svg": _workload_plot(kept, key) for key in kept["sqlite"]["workloads"]}
    growth = kept["growth"]
    drawn |= {f"growth-{key}.svg": _growth_plot(job) for key, job in growth["jobs"].items()}
    bars = [
        Bar(TITLES[name], _kind(name), each["traced"], None, f"{each['traced']:,} bytes")
        for name, each in sorted(growth["weights"].items(), key=lambda pair: pair[1]["traced"])
    ]
    panel = Bars(f"bytes, {growth['settings']['weighed']:,} instances", bars)
    return {**drawn, "memory.svg": bar_chart("memory of a loaded instance", [panel])}


def main() -> None:
    """Make tables and plots anew."""
    kept = results()
    PAGE.write_text(filled(PAGE.read_text(), kept))
    PLOTS.mkdir(exist_ok=True)
    drawn = plots(kept)
    for path in PLOTS.glob("*.svg"):
        if path.name not in drawn:
            path.unlink()
    for name, text in drawn.items():
        (PLOTS / name).write_text(text)


def _kind(name: str) -> str:
    return "ours" if name == OURS else "house" if name in HOUSE else "peer"


def _workload_plot(kept: Results, key: str) -> str:
    panels = []
    for kind, title in DATABASES.items():
        workload = kept[kind]["workloads"].get(key)
        if workload is None:
            continue
        clock = kept[kind]["database"]["clock"]
        bars = [
            Bar(TITLES[name], _kind(name), each[f"{clock}_median"], each[f"{clock}_min"], _said(each, clock))
            for name, each in workload["contestants"].items()
            if "lacks" not in each
        ]
        panels.append(Bars(f"{title}: {CLOCKS[clock]}, {workload['unit']}", bars))
    return bar_chart(kept["sqlite"]["workloads"][key]["title"], panels)


def _said(figures: dict[str, Any], clock: str) -> str:
    return f"{short(figures[f'{clock}_median'])} ({figures['to_driver']:.1f} × driver)"


def _growth_plot(job: dict[str, Any]) -> str:
    def points(what: str) -> dict[str, list[tuple[float, float]]]:
        return {
            TITLES[name]: [(int(size), max(each[what], LEAST)) for size, each in sizes.items()]
            for name, sizes in job["contestants"].items()
        }

    panels = [
        Lines("CPU time per operation, µs, by rows", points("cpu")),
        Lines("growth of the process, MB (0.1 or more), by rows", points("peak")),
    ]
    return line_chart(job["title"], panels, own=TITLES[OURS])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|---|" + "--:|" * (len(head) - 1), *lines])


def _run(kind: str) -> Callable[[Results], str]:
    def text(kept: Results) -> str:
        run = kept[kind]
        machine, settings = run["machine"], run["settings"]
        versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
        lines = [
            f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, {machine['python']} (an empty call"
            f" takes {machine['empty call, ns']} ns), {run['database']['version']}.",
            f"{versions}.",
        ]
        if "rounds" in settings:
            lines.insert(1, f"{settings['rounds']} rounds of {settings['rows']:,} rows.")
        lines += [f"Missing: {TITLES[name]} ({why})." for name, why in run["missing"].items()]
        return "\n".join(lines)

    return text


def _all(kind: str) -> Callable[[Results], str]:
    def text(kept: Results) -> str:
        run = kept[kind]
        clock = run["database"]["clock"]
        names = list(next(iter(run["workloads"].values()))["contestants"])
        rows = []
        for workload in run["workloads"].values():
            cells = [workload["contestants"][name] for name in names]
            shown = [NONE if "lacks" in cell else short(cell[f"{clock}_median"]) for cell in cells]
            rows.append([f"{workload['title']}, {workload['unit']}", *shown])
        return _table([CLOCKS[clock], *(TITLES[name] for name in names)], rows)

    return text


def _ours(kind: str) -> Callable[[Results], str]:
    def text(kept: Results) -> str:
        run = kept[kind]
        clock = run["database"]["clock"]
        rows = []
        for workload in run["workloads"].values():
            ours = workload["contestants"][OURS]
            times = [short(ours[key]) for key in ("cpu_median", "cpu_min", "wall_median", "wall_min")]
            ratios = [f"{ours[key]:.2f}" if ours[key] else NONE for key in ("to_driver", "to_core")]
            rows.append(
                [f"{workload['title']}, {workload['unit']}", *times, *ratios, *_beside(workload, clock)]
            )
        of = CLOCKS[clock]
        head = ["microorm", "CPU", "least", "wall", "least", f"{of} / driver's", f"{of} / Core's"]
        return _table([*head, "best other ORM", "its / ours"], rows)

    return text


def _beside(workload: dict[str, Any], clock: str) -> tuple[str, str]:
    best = rival(workload, clock)
    if best is None:
        return NONE, NONE
    key = f"{clock}_median"
    theirs, ours = workload["contestants"][best][key], workload["contestants"][OURS][key]
    ratio = f"{theirs / ours:.2f}"
    return f"{TITLES[best]} {short(theirs)}", f"**{ratio}**" if theirs < ours else ratio


def _behind(kept: Results) -> str:
    """Where another ORM's median, or the memory of its instances, is below microorm's."""
    lines = []
    for kind, title in DATABASES.items():
        run = kept[kind]
        clock = run["database"]["clock"]
        for workload in run["workloads"].values():
            figures = workload["contestants"]
            ours = figures[OURS][f"{clock}_median"]
            ahead = [
                f"{TITLES[name]} ({short(figures[name][f'{clock}_median'])})"
                for name in PEERS
                if "lacks" not in figures.get(name, {"lacks": ""}) and figures[name][f"{clock}_median"] < ours
            ]
            if ahead:
                lines.append(
                    f"- {title}, {workload['title']}, {workload['unit']}: {', '.join(ahead)} before microorm ({short(ours)})"
                )
    weights = {name: each["traced"] for name, each in kept["growth"]["weights"].items()}
    lighter = [
        f"{TITLES[name]} ({weights[name]})"
        for name in PEERS
        if weights.get(name, weights[OURS]) < weights[OURS]
    ]
    if lighter:
        lines.append(
            f"- memory of a loaded instance, bytes: {', '.join(lighter)} before microorm ({weights[OURS]})"
        )
    return "\n".join(lines) or "Nowhere in these runs."


def _growth(kept: Results) -> str:
    parts = []
    for job in kept["growth"]["jobs"].values():
        sizes = kept["growth"]["settings"]["sizes"]
        rows = [
            [TITLES[name], *(_sample(each.get(str(size))) for size in sizes)]
            for name, each in job["contestants"].items()
        ]
        parts.append(_table([job["title"], *(f"{size:,} rows" for size in sizes)], rows))
    return "\n\n".join(parts)


def _sample(sample: dict[str, Any] | None) -> str:
    return NONE if sample is None else f"{short(sample['cpu'])} µs, {sample['peak']:,.0f} MB"


def _memory(kept: Results) -> str:
    weights = kept["growth"]["weights"]
    rows = [[TITLES[name], f"{each['traced']:,}", f"{each['resident']:,}"] for name, each in weights.items()]
    return _table(["bytes per loaded instance", "as Python counts", "as the process grows"], rows)


def _plots(prefix: str) -> Callable[[Results], str]:
    def text(kept: Results) -> str:
        titles = {f"growth-{key}": job["title"] for key, job in kept["growth"]["jobs"].items()}
        titles |= {key: workload["title"] for key, workload in kept["sqlite"]["workloads"].items()}
        chosen = {key: title for key, title in titles.items() if key.startswith("growth-") == bool(prefix)}
        return "\n\n".join(f"![{title}](performance/{key}.svg)" for key, title in chosen.items())

    return text


BLOCKS: dict[str, Callable[[Results], str]] = {
    "sqlite-run": _run("sqlite"),
    "sqlite-ours": _ours("sqlite"),
    "sqlite-all": _all("sqlite"),
    "postgresql-run": _run("postgresql"),
    "postgresql-ours": _ours("postgresql"),
    "postgresql-all": _all("postgresql"),
    "behind": _behind,
    "growth-run": _run("growth"),
    "growth": _growth,
    "memory": _memory,
    "plots": _plots(""),
    "growth-plots": _plots("growth-"),
}


if __name__ == "__main__":
    main()
