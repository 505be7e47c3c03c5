"""Context managers that open scopes and can be reused: `using()`, and the base of `atomic()`.

A scope belongs to the context in which it was entered. Whoever leaves it ends it: a generator may be closed by another
thread or task, or by the garbage collector. What has run outside of that context meanwhile was not in the scope, so this
is warned of (`ScopeWarning`).
"""

from __future__ import annotations

import sys
import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Any

from microorm.db.context import USING, Scope, current_scope, open_scopes


class ScopeWarning(UserWarning):
    """A `using()` or `atomic()` block was left in another context than it was entered in.

    What ran outside of that context meanwhile was not in the block: not routed by it, or not part of its transaction.
    """


class _Exit:
    """The `__exit__` of a `ReusableContext`; a `with` statement that begins on it is noted."""

    def __get__(self, context: ReusableContext | None, owner: type[ReusableContext]) -> Any:
        if context is None:
            return owner.leave
        context.in_with = True
        return context.leave


class ReusableContext:
    """A context manager that opens a scope at each entry, so it can be reused, shared and nested in itself.

    *entered*: its scopes, each with the id of the frame of its `with`, in the order in which they were opened. An
    interrupt, such as Ctrl-C, may come in the first step of `__exit__`, before anything of it has run. So if a `with` has
    begun on the object, and the last reference to the object is gone, the scopes that are still open are ended.
    """

    __slots__ = ("entered", "in_with", "owner")

    def __init__(self, owner: object) -> None:
        self.owner = owner
        self.in_with = False
        self.entered: list[tuple[int, Any]] = []

    def leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Leave the scope, at the end of a `with`."""
        raise NotImplementedError

    if TYPE_CHECKING:

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None: ...

    else:
        __exit__ = _Exit()

    def __del__(self) -> None:
        if getattr(self, "in_with", False):  # missing if the interrupt came in `__init__`
            for _, scope in self.entered:
                scope.abandon()

    def leaving(self, frame: int) -> Any:
        """Return the scope that the `with` of *frame*, an id, has opened, which may have ended; None if it has opened none.

        The frame is not enough if a function such as `ExitStack.enter_context` has entered. The scopes that are open here
        are not if a generator is closed in another context than the one it was started in.
        """
        entered = self.entered[::-1]
        if entered and entered[0][0] == frame and entered[0][1] is current_scope():
            return entered[0][1]
        here = [*open_scopes(self.owner)]
        for entries in ([entry for entry in entered if entry[0] == frame], entered):
            for _, scope in entries:
                if scope in here:
                    return scope
            if len(entries) == 1:
                return entries[0][1]
        return None

    def left(self, scope: Scope) -> None:
        """Forget *scope*, which has ended."""
        self.entered[:] = [entry for entry in self.entered if entry[1] is not scope]


_HOW_TO_USE = (
    "what ran outside that context was not routed by it. A synchronous dependency of a web framework runs in a context of "
    "its own: write it as `async def`, or put the `with` into the function that uses the database"
)


def is_elsewhere(scope: Scope) -> bool:
    """Whether *scope* is still open and this thread or task is not in it."""
    if scope.closed or scope is current_scope():
        return False
    return scope not in open_scopes(scope.owner)


def warn_left_elsewhere(what: str, how: str) -> None:
    """Warn the caller's caller that *what* was left in another context than it was entered in; *how* to avoid it."""
    warnings.warn(
        f"{what} was left in another context than it was entered in: {how}; see the page 'Requests'",
        ScopeWarning,
        stacklevel=3,
    )


class Using(ReusableContext):
    """`with using(alias)`: route everything in the block to *alias*. Reusable, in several threads at once as well."""

    __slots__ = ("alias",)

    def __init__(self, owner: object, alias: str) -> None:
        super().__init__(owner)
        self.alias = alias

    def __enter__(self) -> None:
        scope = Scope(USING, self.owner, self.alias)
        self.entered.append((id(sys._getframe(1)), scope))
        scope.open()

    def leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """End the scope."""
        if (scope := self.leaving(id(sys._getframe(1)))) is not None:
            elsewhere = is_elsewhere(scope)
            scope.close()
            self.left(scope)
            if elsewhere:
                warn_left_elsewhere(f"using({self.alias!r})", _HOW_TO_USE)
