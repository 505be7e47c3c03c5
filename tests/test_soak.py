"""`make soak` runs its parts, prints what they have found, and fails with them."""

import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.programs import Program
from tools.soak import __main__ as program
from tools.soak import rounds
from tools.soak.parts import Options, Outcome, percentiles


@pytest.mark.slow
@pytest.mark.backends("postgresql")
def test_the_web_part_passes(url: str, tmp_path: Path) -> None:
    """Each kind of request was made, and none failed."""
    arguments = ("-m", "tools.soak", "web", "--seconds", "1.5", "--clients", "8")
    output, _, status = Program(tmp_path).python(*arguments, COLUMNS="120")
    assert (status, "passed" in output, "failed" in output) == (0, True, False), output
    assert re.search(r"errors +│ 0 ", output), output
    for kind in ("browse", "create", "deliver", "read"):
        assert re.search(rf"{kind} +│ \d+: p50 \d+, p90 \d+, p99 \d+, max \d+ ms", output), output


@pytest.mark.slow
def test_the_part_of_fixtures_passes(tmp_path: Path) -> None:
    arguments = ("-m", "tools.soak", "fixtures", "--rows", "6000")
    output, _, status = Program(tmp_path).python(*arguments, COLUMNS="160")
    assert (status, "passed" in output, "failed" in output) == (0, True, False), output
    assert len(re.findall(r"6,000 rows: [\d.]+ s of CPU, [\d.]+ MB more", output)) == 3, output


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_part_of_the_outbox_passes_and_prints_its_seed(tmp_path: Path) -> None:
    arguments = ("-m", "tools.soak", "outbox", "--kills", "3", "--seed", "7")
    output, _, status = Program(tmp_path).python(*arguments, COLUMNS="160")
    assert (status, "failed" in output) == (0, False), output
    kills = [int(number) for number in re.findall(r"(\d+) kills: [\d,]+ events, 0 lost, 0 phantom", output)]
    assert sum(kills) >= 3, output
    assert re.search(r"outbox +│ passed +│ \d+ kills on sqlite.* seed 7 +│", output), output


def test_a_part_that_fails_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others run all the same, with the options that were given."""
    given: list[Options] = []

    def run(failures: list[str]) -> object:
        def part(options: Options) -> Outcome:
            given.append(options)
            return Outcome({"requests": "7"}, failures)

        return part

    monkeypatch.setattr(program, "PARTS", {"web": run(["a pool was exceeded"]), "other": run([])})
    done = CliRunner().invoke(program.main, ["--seconds", "2", "--clients", "3", "--seed", "4"])
    assert (done.exit_code, given) == (1, [Options(1, 3, 4, 250_000)] * 2), done.output  # they share the time
    assert "web: a pool was exceeded" in done.output
    assert re.search(r"web +│ failed +│.*\n.*other +│ passed", done.output), "the summary has a row for each"
    assert 'again: make soak ARGS="web --seed 4"' in done.output
    assert CliRunner().invoke(program.main, ["web", "--clients", "0"]).exit_code == 2
    assert CliRunner().invoke(program.main, ["nothing"]).exit_code == 2


def test_each_run_has_a_new_seed_which_it_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []

    def part(options: Options) -> Outcome:
        given.append(options.seed)
        return Outcome()

    monkeypatch.setattr(program, "PARTS", {"web": part})
    outputs = [CliRunner().invoke(program.main, []).output for _ in range(5)]
    assert len(set(given)) > 1
    assert [f"seed {seed}" in output for seed, output in zip(given, outputs, strict=True)] == [True] * 5


def test_rounds_begin_with_the_seed_and_end_with_the_time() -> None:
    """A round that would take longer than there is time is not begun; the first always is."""
    times = iter([0.0, 0.0, 3.0, 3.0, 3.0, 5.0, 5.0, 5.0, 8.0, 8.0])
    assert list(rounds.seeds(Options(10, 1, 7), lambda: next(times))) == [7, 8, 9]
    late = iter([0.0, 0.0, 99.0, 99.0])
    assert list(rounds.seeds(Options(10, 1, 7), lambda: next(late))) == [7]


@pytest.mark.slow
def test_a_round_that_fails_is_the_last_and_says_how_to_run_it_again(tmp_path: Path) -> None:
    file = tmp_path / "test_chance.py"
    file.write_text("import random\n\n\ndef test_chance() -> None:\n    assert random.random() < 0\n")
    outcome = rounds.pytest_rounds("oracles", (str(file), "-c", os.devnull), Options(5, 1, 11))
    assert "1, 0 tests passed" in outcome.facts["rounds"]
    (failure,) = outcome.failures
    assert failure.endswith('again: make soak ARGS="oracles --seed 11 --seconds 1"')
    assert "test_chance" in failure


def test_the_tests_of_the_rounds_are_there() -> None:
    files = [*rounds.ORACLES, *rounds.CANCELLATIONS, rounds.KILLED_MIGRATIONS[0], *rounds.DELIVERIES[:2]]
    assert [file for file in files if not (rounds.ROOT / file).is_file()] == []


def test_percentiles_are_those_of_the_sorted_times() -> None:
    assert (
        percentiles([number / 1000 for number in range(100, 0, -1)]) == "p50 51, p90 91, p99 100, max 100 ms"
    )
    assert percentiles([0.002]) == "p50 2, p90 2, p99 2, max 2 ms"
    assert percentiles([]) == "nothing measured"
