"""The page of the benchmarks shows what was kept: tables and plots are those that the JSON files make."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks.charts import Bar, Chart, Line, Panel, charts
from benchmarks.page import BLOCK, BLOCKS, PAGE, PLOTS, filled, results
from benchmarks.workloads import KEYS

LARGEST = 40_000
SVG = "{http://www.w3.org/2000/svg}"
BARS = Chart(
    "a < b",
    [Panel("µs", bars=[Bar("driver", "house", 1.0, 0.5, "1.00"), Bar("microorm", "ours", 9.0, 8.0, "9.00")])],
)
LINES = Chart("growth", [Panel("µs", lines=[Line("driver", "house", [(1_000, 1.0), (10_000, 2.0)])])])


def test_the_tables_are_made_from_the_results() -> None:
    page = PAGE.read_text()

    assert {name for _, name, _ in BLOCK.findall(page)} == set(BLOCKS)
    assert filled(page, results()) == page, "`make bench-report` makes them anew"


def test_the_plots_are_made_from_the_results() -> None:
    drawn = {path.name: path.read_text() for path in PLOTS.glob("*.svg")}
    made = charts(results())

    assert drawn.keys() == made.keys()
    stale = [name for name, chart in made.items() if chart.digest not in drawn[name]]
    assert stale == [], "`make bench-report` draws them anew"
    assert all(len(text.encode()) < LARGEST for text in drawn.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chart", "said"),
    [(BARS, {"a < b", "microorm", "1.00", "→ 9.00"}), (LINES, {"growth", "driver", "1,000"})],
    ids=["bars, the long one cut", "lines"],
)
def test_the_same_figures_make_the_same_plot(chart: Chart, said: set[str]) -> None:
    from benchmarks.drawing import svg  # noqa: PLC0415 matplotlib takes half a second, in each process that collects

    drawn = svg(chart)

    assert svg(chart) == drawn
    assert said <= {element.text for element in ElementTree.fromstring(drawn).iter(f"{SVG}text")}
    assert chart.digest in drawn


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_is_kept_is_a_whole_run_without_mismatches(kind: str) -> None:
    kept = results()[kind]

    assert list(kept["workloads"]) == list(KEYS)
    assert kept["database"]["name"] == kind
    assert kept["mismatches"] == []


def test_a_block_that_nothing_makes_is_an_error() -> None:
    with pytest.raises(KeyError, match="weather"):
        filled("<!-- results: weather -->\n<!-- end -->", results())
