"""Elsewhere: contestants in processes of their own, where they import microorm from a checkout that is named.

Two checkouts are compared by giving each its own processes, new ones in every round, which take turns with the
contestants of this process. A new process has another layout of its memory and another hash seed; both make Python
quicker or slower by some percent, so that the median over many processes tells more than many samples of one.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from sqlalchemy import URL, make_url

import microorm
from benchmarks.contestant import Contestant, gather
from benchmarks.databases import Database, Rooms, database_of
from benchmarks.rounds import Enter, Entry, Sample, open_here, opened
from benchmarks.table import Data
from benchmarks.workloads import WORKLOADS, Workload

ROOT = Path(__file__).parent.parent
# microorm is imported before this checkout is on the path, so that it is the other's; the benchmarks are ours.
START = (
    "import sys, microorm; sys.path.insert(0, sys.argv[1]); from benchmarks.elsewhere import serve; serve()"
)


def environment(checkout: Path) -> dict[str, str]:
    """Return the environment of a process that imports microorm from *checkout*, and keeps its bytecode."""
    path = os.pathsep.join(filter(None, [str(checkout), os.environ.get("PYTHONPATH")]))
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": path}


class ProcessFailed(click.ClickException):
    """A process ended by itself, or imported the wrong microorm; the command ends with this message."""


class Worker:
    """A process that has one contestant open and does what it is asked for. `close` ends it.

    Raises ProcessFailed when the process ends by itself, or imports microorm from anywhere but *checkout*.
    """

    def __init__(self, kind: type[Contestant], checkout: Path, database: Database, url: URL) -> None:
        self.name = kind.name
        # -P keeps the current folder, which may hold another microorm, off the path.
        command = [sys.executable, "-P", "-c", START, str(ROOT)]
        self._process = subprocess.Popen(
            command, env=environment(checkout), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            opening = (self.name, database.name, database.server, url.render_as_string(hide_password=False))
            found = Path(self.ask(opening)).resolve()
            if not found.is_relative_to(checkout.resolve()):
                raise ProcessFailed(
                    f"microorm was to be imported from {checkout}, and came from {found.parent}"
                )
        except BaseException:
            self.close()
            raise

    def ask(self, request: tuple[Any, ...]) -> Any:
        """Send *request*, wait, and return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            pickle.dump(request, self._process.stdin)
            self._process.stdin.flush()
            return pickle.load(self._process.stdout)
        except (EOFError, BrokenPipeError):
            raise ProcessFailed(
                f"the process of {self.name} ended with exit code {self._process.wait()}"
            ) from None

    def close(self) -> None:
        """End the process; it closes its contestant first."""
        self._process.communicate()


class RemoteEntry:
    """A contestant in a process of its own, a new one for each round."""

    def __init__(self, kind: type[Contestant], checkout: Path, database: Database, room: Rooms) -> None:
        self.kind = kind
        self._checkout = checkout
        self._database = database
        self._room = room
        self._started = 0
        self._sampled = False
        self._worker: Worker | None = None

    def begin_round(self) -> None:
        if self._worker is None or self._sampled:
            self.close()
            self._start()

    def _start(self) -> Worker:
        self._started += 1
        self._sampled = False
        url = self._room(f"{self.kind.name}_{self._started}")
        self._worker = Worker(self.kind, self._checkout, self._database, url)
        return self._worker

    def sample(self, workload: Workload, data: Data, *, collect: bool) -> Sample:
        worker = self._worker or self._start()
        self._sampled = True
        answer: Sample = worker.ask(("sample", workload.key, data.size, collect))
        return answer

    def watch(self, workload: Workload, data: Data) -> tuple[Sample, Counter[str]]:
        worker = self._worker or self._start()
        answer: tuple[Sample, Counter[str]] = worker.ask(("watch", workload.key, data.size))
        return answer

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None


def entering(checkouts: Mapping[str, Path]) -> Enter:
    """Return what opens the contestants named in *checkouts* in processes of their own, and all others here."""

    @contextmanager
    def enter(kind: type[Contestant], database: Database, place: str, room: Rooms) -> Iterator[Entry]:
        if kind.name not in checkouts:
            with open_here(kind, database, place, room) as entry:
                yield entry
            return
        remote = RemoteEntry(kind, checkouts[kind.name], database, room)
        try:
            yield remote
        finally:
            remote.close()

    return enter


def serve() -> None:
    """Open the contestant that the first request names, then answer requests until there are no more.

    A sample is taken twice, and the second one is the answer: the process is new, and the first one warms it up.
    """
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what a library prints must not get between the answers
    workloads = {workload.key: workload for workload in WORKLOADS}
    name, kind, server, url = pickle.load(requests)
    present, missing = gather([name], kind)
    if not present:
        raise ImportError(missing[name])
    with opened(present[0], database_of(kind, server), make_url(url)) as entry:
        _answer(answers, microorm.__file__)
        while (request := _next(requests)) is not None:
            what, key, rows, *options = request
            data = Data(rows)
            if what == "watch":
                _answer(answers, entry.watch(workloads[key], data))
                continue
            entry.sample(workloads[key], data, collect=options[0])
            _answer(answers, entry.sample(workloads[key], data, collect=options[0]))


def _answer(answers: Any, answer: Any) -> None:
    pickle.dump(answer, answers)
    answers.flush()


def _next(requests: Any) -> tuple[Any, ...] | None:
    try:
        request: tuple[Any, ...] = pickle.load(requests)
    except EOFError:
        return None
    return request
