"""Many rows are dumped and loaded: how much memory it takes, and how long.

Each step runs in a process of its own, whose greatest size is that of the step.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from microorm import fixtures
from microorm.signals import post_save
from tests import flat_memory
from tools.soak.parts import Options, Outcome

MEGABYTES = 15
"""How much more memory a step may take than the program had before it."""


def run(options: Options) -> Outcome:
    """Dump *options.rows* rows from one SQLite file, and load them into others: many at a time, and one by one."""
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "rows.jsonl")
        for step, database in (("dump", "first.db"), ("load", "second.db"), ("save", "third.db")):
            url = f"sqlite:///{folder}/{database}"
            command = [sys.executable, "-m", "tools.soak.fixtures", step, url, str(options.rows), file]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                outcome.failures.append(f"{step} failed: {done.stderr.strip()}")
                break
            measured = json.loads(done.stdout)
            added = measured["after"] - measured["before"]
            outcome.facts[step] = (
                f"{measured['rows']:,} rows: {measured['cpu']} s of CPU, {added:.1f} MB more than {measured['before']:.1f}"
            )
            outcome.require(measured["rows"] == options.rows, f"{step}: {measured['rows']:,} rows")
            outcome.summary = f"{options.rows:,} rows dumped and loaded twice, {added:.1f} MB more at the end"
            outcome.require(added < MEGABYTES, f"{step} took {added:.1f} MB more")
    return outcome


def receive(**arguments: object) -> None:
    """Have each row saved for itself."""


def step(name: str, url: str, rows: int, file: str) -> None:
    """Run one step, and print what it took as JSON."""
    flat_memory.databases.configure(url)
    with flat_memory.databases:
        flat_memory.registry.create_all()
        if name == "dump":
            flat_memory.fill(rows)
        if name == "save":
            post_save.connect(receive, sender=flat_memory.Event)
        before, start = flat_memory.peak(), time.process_time()
        if name == "dump":
            written = sum(fixtures.dump(file, registry=flat_memory.registry).values())
        else:
            written = fixtures.load(file, registry=flat_memory.registry).total
        cpu = round(time.process_time() - start, 1)
    sys.stdout.write(json.dumps({"rows": written, "before": before, "after": flat_memory.peak(), "cpu": cpu}))


if __name__ == "__main__":
    step(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
