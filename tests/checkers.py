"""Type checkers: what mypy has found out about the package and its libraries is kept, for the next run of any test."""

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.programs import ROOT

CACHE = ROOT / ".mypy_cache"


def mypy(*arguments: str, folder: Path = ROOT) -> str:
    """Return what `mypy` prints in *folder*, with the configuration of the package; it has to come to a verdict."""
    with _cache():
        settings = (f"--config-file={ROOT / 'pyproject.toml'}", f"--cache-dir={CACHE}")
        return _printed("mypy", *settings, *arguments, folder=folder)


def pyright(*arguments: str, folder: Path = ROOT) -> str:
    """Return what `pyright` prints in *folder*; it has to come to a verdict."""
    return _printed("pyright", "--pythonpath", sys.executable, *arguments, folder=folder)


@contextmanager
def _cache() -> Iterator[None]:
    """Take the cache for this process: two at once could read what belongs to different runs."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "tests.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _printed(*command: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, timeout=2000
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout
