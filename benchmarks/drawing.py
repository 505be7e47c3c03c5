"""Drawing: charts as SVG, by matplotlib; the same bytes for the same figures and the same matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.charts import Bar, Chart, Line, Panel

STYLE: Any = {
    "svg.hashsalt": "microorm",
    "svg.fonttype": "none",  # text stays text, which keeps the files small
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8c959f",
}
METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
COLOURS = {"ours": "#0969da", "peer": "#c98a2b", "house": "#8c959f"}
LINES = (
    "#7f7f7f", "#2ca02c", "#bcbd22", "#d62728", "#9467bd", "#17becf",
    "#8c564b", "#e377c2", "#00552b", "#ff7f0e", "#111166",
)  # fmt: skip
WIDTH = 8.2
FAR = 2.5
"""How many times the second longest bar the longest may be before it is cut."""


def svg(chart: Chart) -> str:
    """Draw *chart*; the file's identifier is the digest of what it shows."""
    with rc_context(STYLE):
        figure = _bars(chart) if chart.panels[0].bars else _lines(chart)
        written = StringIO()
        figure.savefig(
            written, format="svg", metadata={**METADATA, "Title": chart.title, "Identifier": chart.digest}
        )
    return "".join(f"{line.strip()}\n" for line in written.getvalue().splitlines())


def _bars(chart: Chart) -> Figure:
    """Draw panels below each other, each with a scale of its own."""
    counts = [len(panel.bars) for panel in chart.panels]
    figure = Figure(figsize=(WIDTH, 0.5 + 0.45 * len(counts) + 0.22 * sum(counts)), layout="constrained")
    figure.suptitle(chart.title, fontweight="bold", x=0.01, ha="left")
    axes = figure.subplots(len(counts), 1, squeeze=False, height_ratios=counts)
    for panel, (ax,) in zip(chart.panels, axes, strict=True):
        _bar_panel(ax, panel)
    return figure


def _bar_panel(ax: Axes, panel: Panel) -> None:
    end = _end(panel.bars)
    places = range(len(panel.bars))
    ax.barh(
        places,
        [min(bar.value, end) for bar in panel.bars],
        height=0.7,
        color=[COLOURS[bar.kind] for bar in panel.bars],
        clip_on=False,
    )
    for place, bar in zip(places, panel.bars, strict=True):
        if bar.least is not None and bar.value <= end:
            ax.vlines(bar.least, place - 0.35, place + 0.35, color="#1f2328", linewidth=1)
        cut = "→ " if bar.value > end else ""
        ax.text(min(bar.value, end) + end / 100, place, f"{cut}{bar.label}", va="center")
    ax.set_title(panel.title, loc="left", fontsize=9, fontweight="bold")
    ax.set_yticks(places, [bar.name for bar in panel.bars])
    ax.set_ylim(len(panel.bars) - 0.5, -0.5)
    ax.set_xlim(0, 1.3 * end)  # room for the labels
    ax.set_xticks([])
    ax.tick_params(left=False)
    ax.spines["bottom"].set_visible(False)


def _end(bars: Sequence[Bar]) -> float:
    """Return the longest value, or the second longest where the longest would dwarf it."""
    values = sorted((bar.value for bar in bars), reverse=True)
    return values[1] if len(values) > 1 and values[0] > FAR * values[1] else values[0]


def _lines(chart: Chart) -> Figure:
    """Draw panels side by side above one list of names; the line of microorm is thick."""
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    figure.suptitle(chart.title, fontweight="bold", x=0.01, ha="left")
    axes = figure.subplots(1, len(chart.panels), squeeze=False)
    for panel, ax in zip(chart.panels, axes[0], strict=True):
        others = iter(LINES)
        for line in panel.lines:
            _line(ax, line, COLOURS["ours"] if line.kind == "ours" else next(others))
        ax.set_title(panel.title, loc="left", fontsize=9, fontweight="bold")
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.minorticks_off()
        ax.grid(axis="y", color="#d1d9e0", linewidth=0.5)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(lambda value, place: f"{value:,.12g}")
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower left", ncols=6, frameon=False, fontsize=8)
    return figure


def _line(ax: Axes, line: Line, colour: str) -> None:
    xs, ys = zip(*line.points, strict=True) if line.points else ((), ())
    ax.plot(
        xs,
        ys,
        label=line.name,
        color=colour,
        marker="o",
        markersize=3,
        linewidth=3 if line.kind == "ours" else 1,
    )
