"""Kill -9 of producers and relays loses no event, invents none, and repeats few."""

import json
import subprocess
import sys

import pytest

from tests.programs import ROOT, Program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.backends("sqlite-file", "postgresql", "mariadb"),
]

KILLS = 30
REPEATED = 0.02
AT_MOST_TWICE = {("receiver", "after"), ("receiver", "before"), ("acknowledge", "before")}


def soaked(url: str, what: str) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.outbox.soak", url, what],
        cwd=ROOT,
        env=Program(ROOT).environment(),
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_kills_at_random_lose_nothing_and_invent_nothing(url) -> None:
    (result,) = soaked(url, str(KILLS))
    assert (result["lost"], result["phantom"], result["kills"]) == ([], [], KILLS)
    assert result["saved"] > 100
    assert result["share"] <= REPEATED, result


def test_a_kill_at_each_point_loses_nothing_and_repeats_only_what_was_not_acknowledged(url) -> None:
    """Whether the receiver is a function or a coroutine, where one was called."""
    results = soaked(url, "points")
    assert len(results) == 18
    for each in results:
        assert (each["lost"], each["phantom"]) == ([], []), each
        assert each["saved"] >= 2, each
        may_repeat = (each["point"], each["when"]) in AT_MOST_TWICE
        assert each["twice"] == 0 or may_repeat, each


def test_a_relay_that_was_stopped_past_its_lease_calls_and_acknowledges_nothing_more(url) -> None:
    (result,) = soaked(url, "pause")
    assert result == {"called": 1, "untouched": True, "status": 0}
