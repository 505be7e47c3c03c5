"""Page: the tables and plots of docs/performance.md, made from `results/`: `python -m benchmarks.page`.

This writes what stands between `<!-- results: NAME -->` and `<!-- end -->` and leaves the rest of the page alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.charts import DATABASES, TITLES, Results, charts
from benchmarks.contestant import OURS, PEERS
from benchmarks.imports import TITLES as IMPORTS
from benchmarks.report import CLOCKS, rival, short

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "performance"
RESULTS = Path(__file__).parent / "results"
KINDS = ("sqlite", "postgresql", "growth")
BLOCK = re.compile(r"(<!-- results: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
NONE = "–"


def results() -> dict[str, dict[str, Any]]:
    """Return what is kept of the last run of each kind."""
    return {kind: json.loads((RESULTS / f"{kind}.json").read_text()) for kind in KINDS}


def filled(page: str, kept: Results) -> str:
    """Return *page* with its tables made anew from *kept*.

    Raises KeyError for a block of an unknown name.
    """
    made = {name: make(kept) for name, make in BLOCKS.items()}
    return BLOCK.sub(lambda found: f"{found[1]}\n{made[found[2]]}\n\n{found[3]}", page)


def main() -> None:
    """Make tables and plots anew."""
    from benchmarks.drawing import svg  # noqa: PLC0415 matplotlib takes half a second; the tables do not need it

    kept = results()
    PAGE.write_text(filled(PAGE.read_text(), kept))
    PLOTS.mkdir(exist_ok=True)
    made = charts(kept)
    for path in PLOTS.glob("*.svg"):
        if path.name not in made:
            path.unlink()
    for name, chart in made.items():
        (PLOTS / name).write_text(svg(chart))


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
    """List where another ORM's median, or the memory of its instances, is below microorm's."""
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


def _imports(kept: Results) -> str:
    run = kept["sqlite"]["imports"]
    core = run["found"]["sqlalchemy"]
    rows = []
    for name, figures in run["found"].items():
        shown = [figures[key] for key in ("wall_min", "wall_median", "cpu_min", "cpu_median")]
        above = [figures[key] - core[key] for key in ("wall_min", "cpu_min")]
        rows.append([IMPORTS[name], *(f"{each:.0f}" for each in [*shown, *above])])
    clocks = ["wall, least", "median", "CPU, least", "median", "wall above Core's", "CPU above Core's"]
    return _table([f"ms, {run['processes']} processes each", *clocks], rows)


def _plots(prefix: str) -> Callable[[Results], str]:
    def text(kept: Results) -> str:
        titles = {f"growth-{key}": job["title"] for key, job in kept["growth"]["jobs"].items()}
        titles |= {key: workload["title"] for key, workload in kept["sqlite"]["workloads"].items()}
        chosen = {key: title for key, title in titles.items() if key.startswith("growth-") == bool(prefix)}
        return "\n".join(f"![{title}](performance/{key}.svg)" for key, title in chosen.items())

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
    "imports": _imports,
    "plots": _plots(""),
    "growth-plots": _plots("growth-"),
}


if __name__ == "__main__":
    main()
