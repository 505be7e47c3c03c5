"""Hooks: functions that wait for the commit of a transaction, and how they are called after it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from operator import call, itemgetter
from typing import Any

from microorm.errors import after_commit, is_interrupt
from microorm.instrumentation import ON_COMMIT, Step, watchers
from microorm.messages import brief

_log = logging.getLogger("microorm.transactions")

Hook = tuple[Callable[[], Any], bool]
"""A function, and whether it is robust: its errors are logged."""


def run_hooks(hooks: deque[Hook], committed: str | None, error: BaseException | None = None) -> None:
    """Run all *hooks* in order, even if one is interrupted, and remove each from the list as it begins.

    Errors of robust functions are logged. After the last function, the first interrupt is raised, or else the first error:
    as the cause of an `AfterCommitError` if the functions run after a commit on the alias *committed*. Further errors are
    its notes. An interrupt *error* that is on its way already gets the notes, and nothing is raised.
    """
    failures: list[tuple[BaseException, str]] = []
    # Removed and called in one step of the interpreter, so that an interrupt neither loses a function nor repeats one.
    steps = map(call, map(itemgetter(0), iter(hooks.popleft, None)))
    while hooks:
        function, robust = hooks[0]
        try:
            if watchers:
                with Step(ON_COMMIT, function, alias=committed):
                    next(steps)
            else:
                next(steps)
        except BaseException as failure:  # noqa: BLE001 logged, or raised after the last
            name = getattr(function, "__qualname__", None) or brief(function)
            if robust and not is_interrupt(failure):
                _log.error("on_commit function %s failed: %s", name, failure, exc_info=True)
            else:
                failures.append((failure, name))
    if failures:
        failures.sort(key=lambda failure: not is_interrupt(failure[0]))
        try:
            _raise_first(failures, committed, error)
        finally:
            failures.clear()  # else the error and this frame would refer to each other


def _raise_first(
    failures: list[tuple[BaseException, str]], committed: str | None, error: BaseException | None
) -> None:
    first, name = failures[0]
    raised, others = first, failures[1:]
    try:
        if error is not None and is_interrupt(error):
            raised, others = error, failures
        elif committed is not None and is_interrupt(first):
            first.add_note(
                f"the rows in {committed!r} are committed: the on_commit function {name} was interrupted"
            )
        elif committed is not None:
            raised = after_commit(committed, name, first, brief(first))
        for other, function in others:
            raised.add_note(f"the on_commit function {function} failed as well: {brief(other)}")
        if raised is error:
            return
        if raised is first:
            raise first
        raise raised from first
    finally:
        del first, raised, others, error
