"""`on_commit` functions run one after another, and all of them, whatever errors they raise."""

import functools
import gc
import logging
import weakref
from collections import deque

import pytest

from microorm.db.context import RECEIVER, Hook, ReceiverScope, current_alias, innermost
from microorm.db.context import run_hooks as run_all


def run_hooks(hooks: list[Hook]) -> None:
    """Run *hooks*, and see that none is left."""
    waiting = deque(hooks)
    try:
        run_all(waiting)
    finally:
        assert not waiting


class Failing:
    """A function without a name."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self) -> None:
        raise self.error

    def __repr__(self) -> str:
        return "<a failing hook>"


def test_hooks_run_in_order_with_no_arguments() -> None:
    ran: list[int] = []
    run_hooks(
        [(functools.partial(ran.append, n), robust) for n, robust in ((1, False), (2, True), (3, False))]
    )
    assert ran == [1, 2, 3]
    run_hooks([])


def test_all_run_and_the_first_error_is_raised_with_the_others_as_notes() -> None:
    ran: list[int] = []
    first, second, third = LookupError("one"), ValueError("two"), OSError("three")
    with pytest.raises(LookupError) as caught:
        run_hooks(
            [
                (Failing(first), False),
                (functools.partial(ran.append, 1), False),
                (Failing(second), False),
                (Failing(third), False),
                (functools.partial(ran.append, 2), False),
            ]
        )
    assert caught.value is first
    assert ran == [1, 2]
    assert caught.value.__notes__ == [
        "the rows are committed: the on_commit function <a failing hook> raised this after the commit",
        "another on_commit function failed as well: ValueError('two')",
        "another on_commit function failed as well: OSError('three')",
    ]


def test_an_error_of_a_robust_one_is_logged_only(caplog: pytest.LogCaptureFixture) -> None:
    """At level ERROR, with the traceback and the name or repr."""
    error = LookupError("lost")

    def notify() -> None:
        raise error

    caplog.set_level(logging.DEBUG, logger="microorm.transactions")
    run_hooks([(notify, True), (Failing(error), True), (functools.partial(notify), True)])
    records = [(each.name, each.levelname, each.getMessage()) for each in caplog.records]
    name = "test_an_error_of_a_robust_one_is_logged_only.<locals>.notify"
    partial = f"functools.partial(<function {name} at "
    assert records[:2] == [
        ("microorm.transactions", "ERROR", f"on_commit function {name} failed: lost"),
        ("microorm.transactions", "ERROR", "on_commit function <a failing hook> failed: lost"),
    ]
    assert records[2][2].startswith(f"on_commit function {partial}")
    assert [each.exc_info and each.exc_info[1] for each in caplog.records] == [error] * 3


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_after_an_interrupt_the_remaining_functions_run(interrupt: type[BaseException]) -> None:
    """Then it is raised, before the errors of the others."""
    ran: list[int] = []

    def stop() -> None:
        raise interrupt

    with pytest.raises(interrupt) as caught:
        run_hooks([(Failing(LookupError()), False), (stop, True), (functools.partial(ran.append, 1), True)])
    assert ran == [1]
    assert caught.value.__notes__[1:] == ["another on_commit function failed as well: LookupError()"]


def test_what_waits_for_a_write_that_is_committed_runs_after_an_interrupt() -> None:
    """Of the sending; for a write that is not committed nothing runs."""
    ran: list[bool] = []
    for committed in (True, False):
        scope = ReceiverScope(object(), "a", committed=committed)
        scope.postpone(functools.partial(ran.append, committed))

        def interrupt() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            scope.run(interrupt)
        assert innermost() is None
    assert ran == [True]


def test_an_error_is_freed_without_the_collector() -> None:
    """It does not refer to the frame that raised it by a variable of that frame."""

    class Lost(Exception):
        """A class of its own, whose instances can be referenced weakly."""

    def fail() -> None:
        raise Lost

    gc.disable()
    try:
        try:
            run_hooks([(fail, False)])
        except Lost as error:
            freed = weakref.ref(error)
        assert freed() is None
    finally:
        gc.enable()


def test_what_a_receiver_puts_off_runs_when_it_is_over() -> None:
    """All postponed functions run after the scope has ended."""
    ran: list[str | None] = []
    owner = object()
    scope = ReceiverScope(owner, "shop")
    assert (scope.kind, scope.alias, scope.owner) == (RECEIVER, "shop", owner)
    scope.postpone(Failing(LookupError("one")))
    scope.postpone(lambda: ran.append(current_alias(owner, RECEIVER)))
    with pytest.raises(LookupError, match="one"), scope:
        assert (innermost(), ran) == (scope, [])
    assert ran == [None]
    assert innermost() is None


def test_a_receivers_scope_passes_over_closed_ones() -> None:
    """A scope that was closed out of order, as by a generator in another context, does not become its parent."""
    owner = object()
    outer, closed, inner = (ReceiverScope(owner, alias) for alias in "abc")
    outer.open()
    closed.open()
    closed.closed = True
    inner.open()
    assert (innermost(), inner.parent, inner.plain) == (inner, outer, False)
    outer.finish()
    assert innermost() is inner
    inner.finish()
    assert innermost() is None


def test_nothing_put_off_survives_an_error() -> None:
    """The receivers after the failed one do not run either."""
    ran: list[int] = []
    scope = ReceiverScope(object(), "shop")
    scope.postpone(functools.partial(ran.append, 1))
    with pytest.raises(LookupError), scope:
        raise LookupError
    assert ran == []
    assert innermost() is None
