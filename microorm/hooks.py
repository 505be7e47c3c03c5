"""Hooks: functions that wait for a commit, and run one after another when it has happened."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from microorm.scopes import RECEIVER, Scope

Hook = tuple[Callable[[], Any], bool]

_log = logging.getLogger("microorm.transactions")


class Receiving(Scope):
    """A receiver is running because of a write to *alias*; a scope that keeps functions for its end.

    They are those of receivers that wait for the commit of a write that committed by itself: all of them run,
    as they would after a block.
    """

    __slots__ = ("hooks",)

    def __init__(self, owner: object, alias: str) -> None:
        super().__init__(RECEIVER, owner, alias)
        self.hooks: list[Hook] | None = None

    __enter__ = Scope.open

    def postpone(self, function: Callable[[], Any]) -> None:
        """Run *function* at the end of this scope."""
        if self.hooks is None:
            self.hooks = []
        self.hooks.append((function, False))

    def __exit__(self, *exc: object) -> None:
        self.close()
        if self.hooks is not None and exc[0] is None:
            run_hooks(self.hooks)


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
