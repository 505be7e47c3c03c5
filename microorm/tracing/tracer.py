"""Traces: the steps of a piece of code as a tree, recorded while a `with` block runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from time import time_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from microorm.instrumentation import (
    STATEMENT,
    TRACE,
    TRANSACTION,
    Step,
    add_watcher,
    remove_watcher,
)
from microorm.messages import brief
from microorm.tracing.subjects import describe, shortened

if TYPE_CHECKING:
    from rich.console import Console
    from rich.tree import Tree

MAX_ALIKE = 3
"""Of how many equal statements, one after the other, the values are kept."""
MAX_STEPS = 1000
"""How many steps a trace keeps, unless it is asked for more or fewer."""


class Trace:
    """The tree of what has run in a `with` block: see `trace`.

    *parameters* and *max_steps* are those of `trace`. *steps*: the outermost steps, in order; each has *children*. *left_out*:
    how many were not kept. Raises `ValueError` for *max_steps* that is no positive int.
    """

    def __init__(self, *, parameters: bool = False, max_steps: int = MAX_STEPS) -> None:
        if type(max_steps) is not int or max_steps < 1:
            raise ValueError(f"max_steps= must be a positive int, not {brief(max_steps)}")
        self._parameters = parameters
        self._max_steps = max_steps
        self._root = Step(TRACE)
        self._lock = threading.Lock()
        self._count = self._began = self.left_out = 0

    def __enter__(self) -> Self:
        if self._began:
            raise RuntimeError("a trace records one block; call trace() for another")
        self._began = time_ns()
        self._root.begin()
        self._root.trace, self._root.place = self, self._root
        add_watcher(self._record)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        remove_watcher(self._record)
        self._root.end(error)

    def __repr__(self) -> str:
        return f"<Trace of {self._count} steps{', ' if self.left_out else ''}{_more(self.left_out)}>"

    def __str__(self) -> str:
        """Return the tree as text, without times."""
        from microorm.tracing.printing import text  # noqa: PLC0415 rich is for traces that are printed

        return text(self)

    def __rich__(self) -> Tree:
        """Return the tree for rich, with times."""
        from microorm.tracing.printing import tree  # noqa: PLC0415 rich is for traces that are printed

        return tree(self)

    def print(self, console: Console | None = None, *, times: bool = True) -> None:
        """Print the tree on *console*, by default that of stdout, with the milliseconds of each step unless *times* is False."""
        from rich.console import Console  # noqa: PLC0415 rich is for traces that are printed

        from microorm.tracing.printing import tree  # noqa: PLC0415

        (console or Console()).print(tree(self, times=times))

    @property
    def steps(self) -> list[Step]:
        """The outermost steps."""
        return self._root.children

    @property
    def seconds(self) -> float:
        """How long the block has taken; 0 while it runs."""
        return self._root.seconds

    @property
    def error(self) -> str | None:
        """Class and message of the error that has left the block, or None."""
        return self._root.error

    def walk(self) -> Iterator[Step]:
        """Yield all steps, each before those inside it."""
        waiting = self.steps[::-1]
        while waiting:
            step = waiting.pop()
            yield step
            waiting += reversed(step.children)

    def find(self, *kinds: str) -> list[Step]:
        """Return the steps of *kinds*, such as `"statement"`, in the order in which they began."""
        return [step for step in self.walk() if step.kind in kinds]

    def moment(self, step: Step) -> int:
        """Return the time of day at which *step* began, in nanoseconds since 1970."""
        return self._began + max(0, step.started - self._root.started)

    @property
    def ended(self) -> int:
        """The time of day at which the block has ended, in nanoseconds since 1970; 0 while it runs."""
        root = self._root
        return self._began + root.ended - root.started if root.ended else 0

    def to_dict(self) -> dict[str, Any]:
        """Return the tree as what `json` can write: each step has its kind, details, times and `steps`.

        `at` is the time from the begin of the trace, in seconds.
        """
        made = self._to_dict(self._root)
        del made["at"]
        return {"began": datetime.fromtimestamp(self._began / 1e9, UTC).isoformat(), **made}

    def to_json(self, indent: int | None = None) -> str:
        """Return what `to_dict` does as JSON, in lines with *indent*."""
        text = json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)
        # A lone surrogate becomes its escape, which is that of JSON as well.
        return text.encode(errors="backslashreplace").decode()

    def _to_dict(self, step: Step) -> dict[str, Any]:
        made: dict[str, Any] = {
            "kind": step.kind,
            **step.details,
            "at": (self.moment(step) - self._began) / 1e9,
            "seconds": step.seconds,
        }
        if step.error is not None:
            made["error"] = step.error
        if step.left_out:
            made["left_out"] = step.left_out
        if step.children:
            made["steps"] = [self._to_dict(child) for child in tuple(step.children)]
        return made

    def _record(self, step: Step) -> None:
        """Add *step*, if it begins in the block of this trace, to the step around it."""
        around = step.around
        if step.trace is not self or around is None or step.place is None:
            return
        if step.kind == STATEMENT and around.kind in (STATEMENT, TRANSACTION):
            return  # what SQLAlchemy sends to begin a transaction, or an engine of two aliases
        with self._lock:
            if self._count == self._max_steps:
                self.left_out += 1
                step.place.left_out += 1
                return
            self._count += 1
        describe(step, parameters=self._parameters and not _is_repeated(step, step.place.children))
        step.place.children.append(step)
        step.place = step


def trace(*, parameters: bool = False, max_steps: int = MAX_STEPS) -> Trace:
    """Return a `with` block that records what runs in it as a tree: `with trace() as t:`, then `t.print()`.

    It has the saves, deletes, bulk writes and queries; the signals that they send, with each receiver; the statements, with
    alias, SQL, rows and time; where transactions and savepoints begin and end; what runs after a commit; what is stored for
    durable delivery; and errors where they happened. Recorded is what runs in this thread or task, and in the tasks that it
    starts. *parameters*: also the values that statements are sent with. *max_steps*: how many steps are kept; the others
    are counted.
    """
    return Trace(parameters=parameters, max_steps=max_steps)


def _is_repeated(step: Step, before: list[Step]) -> bool:
    """Return whether the statements *before* are as many as are kept with their values, and have the SQL of *step*."""
    sql, alike = step.details.get("sql"), before[-MAX_ALIKE:]
    return len(alike) == MAX_ALIKE and all(each.details.get("sql") == shortened(sql) for each in alike)


def _more(count: int) -> str:
    return f"{count} left out" if count else ""
