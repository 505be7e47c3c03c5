"""Drawing: bars and lines as SVG, the same for the same figures, readable on light and on dark pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH = 780
MARGIN = 16
LABELS = 116
"""The width that names take."""
FIGURES = 150
"""The width kept free behind the longest bar, for what it says."""
ROW = 20
HEAD = 46
PANEL = 26
PLOT = 250
FAR = 2.5
"""How many times the next longest bar the longest may be before it is cut."""
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 }
.panel { font-weight: 600 }
.page { fill: #ffffff; stroke: #d1d9e0 }
.grid { stroke: #d1d9e0 }
.ours { fill: #0969da } .peer { fill: #c98a2b } .house { fill: #8c959f }
.least { stroke: #1f2328; stroke-width: 1.5 }
.line { fill: none; stroke-width: 1.5 } .own { stroke-width: 3.5 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.page { fill: #0d1117; stroke: #3d444d }
.grid { stroke: #3d444d }
.ours { fill: #4493f8 } .peer { fill: #d9a441 } .house { fill: #7d8590 }
.least { stroke: #e6edf3 }
}
"""
COLOURS = (
    "#8c959f", "#57ab5a", "#c98a2b", "#d1566a", "#8957e5", "#1b9aaa",
    "#b5651d", "#e377c2", "#6b8e23", "#cc5500", "#7f7fd5",
)  # fmt: skip
OWN = "#2f81f7"


@dataclass(frozen=True)
class Bar:
    """One contestant: what its bar is long, where its least is marked, and what stands behind it."""

    name: str
    kind: str
    value: float
    least: float | None
    said: str


@dataclass(frozen=True)
class Bars:
    title: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Lines:
    """Points of several names over the same axis; both axes are logarithmic."""

    title: str
    points: Mapping[str, Sequence[tuple[float, float]]]


def bar_chart(title: str, panels: Sequence[Bars]) -> str:
    """Panels below each other, each with a scale of its own; a bar that would dwarf the others is cut."""
    y, parts = HEAD, []
    for panel in panels:
        parts += _bars(panel, y)
        y += PANEL + ROW * len(panel.bars) + 10
    return _page(title, y + MARGIN // 2, parts)


def _bars(panel: Bars, top: int) -> list[str]:
    parts = [f'<text class="panel" x="{MARGIN}" y="{top + 14}">{escape(panel.title)}</text>']
    longest = sorted((bar.value for bar in panel.bars), reverse=True)
    end = longest[1] if len(longest) > 1 and longest[0] > FAR * longest[1] else longest[0]
    left, room = MARGIN + LABELS, WIDTH - 2 * MARGIN - LABELS - FIGURES
    for number, bar in enumerate(panel.bars):
        y = top + PANEL + ROW * number
        width = room * min(1.0, bar.value / end)
        parts.append(f'<text x="{left - 8}" y="{y + 11}" text-anchor="end">{escape(bar.name)}</text>')
        parts.append(
            f'<rect class="{bar.kind}" x="{left}" y="{y}" width="{max(1.0, width):.1f}" height="14" rx="2"/>'
        )
        if bar.value > end:
            x = left + width - 18
            parts.append(f'<path class="page" d="M{x:.1f} {y - 1}l6 16h6l-6 -16z"/>')
        elif bar.least is not None:
            x = left + room * bar.least / end
            parts.append(f'<path class="least" d="M{x:.1f} {y}v14"/>')
        parts.append(f'<text x="{left + width + 8:.1f}" y="{y + 11}">{escape(bar.said)}</text>')
    return parts


def line_chart(title: str, panels: Sequence[Lines], *, own: str) -> str:
    """Two panels side by side over one list of names; the line of *own* is thick."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.points))
    others = [name for name in names if name != own]
    colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(others)} | {own: OWN}
    width = (WIDTH - 2 * MARGIN - 30) // 2
    parts = []
    for number, panel in enumerate(panels):
        parts += _lines(panel, MARGIN + number * (width + 30), width, colours, own)
    top = HEAD + PANEL + PLOT + 40
    for number, name in enumerate(names):
        x, y = MARGIN + 150 * (number % 5), top + 18 * (number // 5)
        parts.append(f'<rect x="{x}" y="{y - 9}" width="14" height="9" rx="2" fill="{colours[name]}"/>')
        parts.append(f'<text x="{x + 20}" y="{y}">{escape(name)}</text>')
    return _page(title, top + 18 * ((len(names) + 4) // 5), parts)


def _lines(panel: Lines, left: int, width: int, colours: Mapping[str, str], own: str) -> list[str]:
    parts = [f'<text class="panel" x="{left}" y="{HEAD + 14}">{escape(panel.title)}</text>']
    x0, y0, across, up = left + 48, HEAD + PANEL + PLOT, width - 84, PLOT
    every = [point for points in panel.points.values() for point in points]
    (low_x, high_x), (low_y, high_y) = (_decades([point[axis] for point in every]) for axis in (0, 1))

    def place(x: float, y: float) -> str:
        dx = (math.log10(x) - low_x) / (high_x - low_x)
        dy = (math.log10(y) - low_y) / (high_y - low_y)
        return f"{x0 + across * dx:.1f} {y0 - up * dy:.1f}"

    for decade in range(low_y, high_y + 1):
        start = place(10.0**low_x, 10.0**decade)
        y = float(start.split()[1])
        parts.append(f'<path class="grid" d="M{start}h{across}"/>')
        parts.append(f'<text x="{x0 - 6}" y="{y + 4:.1f}" text-anchor="end">{_power(decade)}</text>')
    for decade in range(low_x, high_x + 1):
        x = float(place(10.0**decade, 10.0**low_y).split()[0])
        parts.append(f'<text x="{x:.1f}" y="{y0 + 18}" text-anchor="middle">{_power(decade)}</text>')
    for name, points in panel.points.items():
        if not points:
            continue
        path = "L".join(place(x, y) for x, y in points)
        kind = "line own" if name == own else "line"
        parts.append(f'<path class="{kind}" stroke="{colours[name]}" d="M{path}"/>')
        for cx, cy in (place(*point).split() for point in points):
            parts.append(f'<circle cx="{cx}" cy="{cy}" r="3" fill="{colours[name]}"/>')
    return parts


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _power(decade: int) -> str:
    return f"{10**decade:,}" if decade >= 0 else f"{10.0**decade:g}"


def _page(title: str, height: int, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img"'
        f' aria-label="{escape(title)}">\n<style>{STYLE}</style>\n'
        f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>\n'
        f'<text class="title" x="{MARGIN}" y="28">{escape(title)}</text>\n{body}\n</svg>\n'
    )
