"""Hooks: functions that wait for a commit, and run one after another when it has happened."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from microorm.scopes import RECEIVER, Scope, latest, make_latest

Hook = tuple[Callable[[], Any], bool]

_log = logging.getLogger("microorm.transactions")


class Receiving(Scope):
    """A receiver is running because of a write to *alias*: a scope that is open from the start, and keeps functions.

    They are those of receivers that wait for the commit of a write that committed by itself: all of them run at the
    end, as they would after a block.
    """

    __slots__ = ("hooks",)

    def __init__(self, owner: object, alias: str) -> None:
        # What `Scope` does when it is made and opened, in one call: each save that is heard makes one.
        self.kind = RECEIVER
        self.owner = owner
        self.alias = alias
        self.closed = self.plain = False
        self.hooks: list[Hook] | None = None
        parent = latest()
        while parent is not None and parent.closed:
            parent = parent.parent
        self.parent = parent
        make_latest(self)

    def __enter__(self) -> None:
        """Nothing to do."""

    def postpone(self, function: Callable[[], Any]) -> None:
        """Run *function* at the end of this scope."""
        if self.hooks is None:
            self.hooks = []
        self.hooks.append((function, False))

    def finish(self) -> None:
        """End this scope, and run what was postponed."""
        self.closed = True
        if latest() is self:
            make_latest(self.parent)
        if self.hooks is not None:
            run_hooks(self.hooks)

    def __exit__(self, *exc: object) -> None:
        if exc[0] is None:
            self.finish()
        else:
            self.close()


def run_hooks(hooks: list[Hook]) -> None:
    """Run every hook in order; the first error of those that are not robust is raised after the last.

    The others are its notes (CONTRACT O16); an error of a robust one is logged (O17).
    """
    failures: list[Exception] = []
    for function, robust in hooks:
        try:
            function()
        except Exception as error:  # noqa: BLE001 logged, or raised when all have run
            if robust:
                name = getattr(function, "__qualname__", None) or repr(function)
                _log.error("on_commit function %s failed: %s", name, error, exc_info=True)
            else:
                failures.append(error)
    if failures:
        for other in failures[1:]:
            failures[0].add_note(f"another on_commit function failed, too: {other!r}")
        raise failures[0]
