"""Rounds of tests that choose by chance: each round has a seed of its own, the first that of the run.

What the tests compare with, and what they cancel, is theirs; here they only run again and again, until the time is over.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tools.soak.parts import Options, Outcome

ROOT = Path(__file__).parents[2]
ORACLES = (
    "tests/behaviour/persistence/test_bulk_oracle.py",
    "tests/behaviour/persistence/test_collecting_oracle.py",
    "tests/behaviour/query/test_annotations_oracle.py",
    "tests/behaviour/query/test_operands_oracle.py",
    "tests/behaviour/query/test_paths_oracle.py",
    "tests/behaviour/query/test_query_oracle.py",
    "tests/fixtures/test_round_trips.py",
    "tests/migrations/test_migrations_conversion.py",
)
CANCELLATIONS = (
    "tests/aio/test_cancellation.py",
    "tests/aio/test_isolation.py",
    "tests/aio/test_streams_cancelled.py",
    "tests/persistence/test_interrupts.py",
    "tests/failures/test_interrupts.py",
)
KILLED_MIGRATIONS = ("tests/migrations/test_migrations_targets.py", "-k", "kill")
DELIVERIES = (
    "tests/outbox/test_ordered.py",
    "tests/outbox/test_broker_kills.py",
    "-k",
    "8_workers or rabbitmq",
    "--hypothesis-profile=thorough",
)
COUNTS = re.compile(r"(\d+) (passed|failed|errors?)")


def oracles(options: Options) -> Outcome:
    """Compare random operations and queries with a model in plain Python, on each database that answers."""
    return pytest_rounds("oracles", ORACLES, options)


def cancellations(options: Options) -> Outcome:
    """Cancel tasks at each await, and interrupt threads, in another order in each round."""
    return pytest_rounds("cancellations", CANCELLATIONS, options)


def migrations(options: Options) -> Outcome:
    """Kill (-9) a process that migrates, at each of its statements, and go on."""
    return pytest_rounds("migrations", KILLED_MIGRATIONS, options)


def deliveries(options: Options) -> Outcome:
    """Deliver the events of 500 rows in their order by 8 workers, and kill 20 processes on the way through RabbitMQ."""
    return pytest_rounds("deliveries", DELIVERIES, options)


def pytest_rounds(name: str, arguments: tuple[str, ...], options: Options) -> Outcome:
    """Run tests by pytest, with another seed in each round; the first that fails is the last."""
    outcome, passed = Outcome(), 0
    for number, seed in enumerate(seeds(options), start=1):
        seeded = (f"--hypothesis-seed={seed}", f"--randomly-seed={seed}")
        command = [sys.executable, "-m", "pytest", "-q", "-x", *arguments, *seeded]
        done = subprocess.run(
            command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
        )
        counts = {kind: int(count) for count, kind in COUNTS.findall(done.stdout)}
        passed += counts.get("passed", 0)
        outcome.facts["rounds"] = f"{number}, {passed:,} tests passed"
        outcome.summary = f"{number} rounds, seeds {options.seed} to {seed}: {passed:,} tests passed"
        if done.returncode or not counts.get("passed"):
            outcome.failures.append(told(done.stdout + done.stderr, name, seed))
            break
    return outcome


def told(output: str, name: str, seed: int) -> str:
    """Return the last lines of *output*, and how to see them again."""
    return "\n".join([*output.strip().splitlines()[-40:], f"again: {again(name, seed)}"])


def again(name: str, seed: int) -> str:
    """Return the command that begins with the round that has failed."""
    return f'make soak ARGS="{name} --seed {seed} --seconds 1"'


def seeds(options: Options, clock: Callable[[], float] = time.monotonic) -> Iterator[int]:
    """Yield the seed of each round, until another one would take longer than there is time."""
    begun, seed, longest = clock(), options.seed, 0.0
    while True:
        started = clock()
        yield seed
        seed += 1
        longest = max(longest, clock() - started)
        if clock() + longest > begun + options.seconds:
            return


def environment() -> dict[str, str]:
    """Return the environment of a program that finds the package and the tests."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path}
