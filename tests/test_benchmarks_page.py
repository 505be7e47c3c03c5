"""The page of the benchmarks shows what was kept: tables and plots are those that the JSON files make."""

from __future__ import annotations

import pytest

from benchmarks.page import BLOCK, BLOCKS, PAGE, PLOTS, filled, plots, results
from benchmarks.workloads import KEYS

LARGEST = 40_000


def test_the_tables_are_made_from_the_results() -> None:
    page = PAGE.read_text()

    assert {name for _, name, _ in BLOCK.findall(page)} == set(BLOCKS)
    assert filled(page, results()) == page, "`make bench-report` makes them anew"


def test_the_plots_are_made_from_the_results() -> None:
    drawn = plots(results())

    assert {path.name: path.read_text() for path in PLOTS.glob("*.svg")} == drawn
    assert all(len(text.encode()) < LARGEST for text in drawn.values())


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_is_kept_is_a_whole_run_without_mismatches(kind: str) -> None:
    kept = results()[kind]

    assert list(kept["workloads"]) == list(KEYS)
    assert kept["database"]["name"] == kind
    assert kept["mismatches"] == []


def test_a_block_that_nothing_makes_is_an_error() -> None:
    with pytest.raises(KeyError, match="weather"):
        filled("<!-- results: weather -->\n<!-- end -->", results())
