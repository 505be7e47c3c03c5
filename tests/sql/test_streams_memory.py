"""`iterate()` holds a chunk of rows, however many there are: the resident size of a process tells."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
GENEROUS = 6  # megabytes; fifty thousand instances take nearly thirty


def measured(url: str, end: str) -> dict[str, Any]:
    """What a process of its own tells of going through 50,000 rows."""
    command = [sys.executable, "-W", "error", "-m", "tests.flat_memory", url, "50000", end]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
@pytest.mark.timeout(300)
def test_many_rows_take_the_memory_of_a_chunk(backend: str, url: str) -> None:
    """Outside a block; on PostgreSQL inside one as well. All at once they take much more, so that the test can see."""
    for end in ("iterate", "block") if backend == "postgresql" else ("iterate",):
        told = measured(url, end)
        assert told["after"] - told["before"] < GENEROUS, told
    told = measured(url, "all")
    assert told["after"] - told["before"] > 3 * GENEROUS, told
