"""`on_commit` functions run one after another, and all of them, whatever errors they raise."""

import functools
import gc
import logging
import pickle
import weakref
from collections import deque

import pytest

from microorm.db.context import RECEIVER, ReceiverScope, current_alias, innermost
from microorm.db.hooks import Hook
from microorm.db.hooks import run_hooks as run_all
from microorm.errors import AfterCommitError, outcome_unknown


def run_hooks(hooks: list[Hook], committed: str | None = "shop", error: BaseException | None = None) -> None:
    """Run *hooks*, and see that none is left."""
    waiting = deque(hooks)
    try:
        run_all(waiting, committed, error)
    finally:
        assert not waiting


class Failing:
    """A function without a name."""

    def __init__(self, error: BaseException) -> None:
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


def test_all_run_and_the_first_error_is_the_cause_with_the_others_as_notes() -> None:
    """The error that is raised says that the commit has happened, and which function failed."""
    ran: list[int] = []
    first, second, third = LookupError("one"), ValueError("two"), OSError("three")
    with pytest.raises(AfterCommitError) as caught:
        run_hooks(
            [
                (Failing(first), False),
                (functools.partial(ran.append, 1), False),
                (Failing(second), False),
                (Failing(third), False),
                (functools.partial(ran.append, 2), False),
            ]
        )
    assert caught.value.__cause__ is first
    assert (caught.value.alias, caught.value.function) == ("shop", "<a failing hook>")
    assert str(caught.value) == (
        "the rows in 'shop' are committed, but the on_commit function <a failing hook> failed: LookupError('one')"
    )
    assert ran == [1, 2]
    assert caught.value.__notes__ == [
        "the on_commit function <a failing hook> failed as well: ValueError('two')",
        "the on_commit function <a failing hook> failed as well: OSError('three')",
    ]


def test_without_a_commit_the_error_is_raised_as_it_is() -> None:
    error = LookupError("one")
    with pytest.raises(LookupError) as caught:
        run_hooks([(Failing(error), False)], None)
    assert caught.value is error
    assert not hasattr(error, "__notes__")


def test_the_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(AfterCommitError("shop", "mail", "OSError()")))
    assert (error.alias, error.function, str(error)) == (
        "shop",
        "mail",
        "the rows in 'shop' are committed, but the on_commit function mail failed: OSError()",
    )


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
    """Then it is raised as it is, before the errors of the others."""
    ran: list[int] = []

    def stop() -> None:
        raise interrupt

    with pytest.raises(interrupt) as caught:
        run_hooks([(Failing(LookupError()), False), (stop, True), (functools.partial(ran.append, 1), True)])
    assert ran == [1]
    assert type(caught.value) is interrupt
    assert caught.value.__notes__[0].startswith("the rows in 'shop' are committed: ")
    assert caught.value.__notes__[1:] == [
        "the on_commit function <a failing hook> failed as well: LookupError()"
    ]


def test_an_interrupted_commit_in_a_robust_function_still_stops_the_program() -> None:
    """`CommitOutcomeUnknown` is an `Exception`, and after Ctrl-C a `KeyboardInterrupt` as well."""
    with pytest.raises(KeyboardInterrupt):
        run_hooks([(Failing(outcome_unknown("lost", KeyboardInterrupt())), True)])


def test_an_interrupt_that_is_on_its_way_gets_the_errors_as_notes() -> None:
    """No error of a function takes its place."""
    interrupt = KeyboardInterrupt()
    run_hooks([(Failing(LookupError()), False)], error=interrupt)
    assert interrupt.__notes__ == ["the on_commit function <a failing hook> failed as well: LookupError()"]
    with pytest.raises(AfterCommitError):
        run_hooks([(Failing(LookupError()), False)], error=ValueError())


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
        except AfterCommitError as error:
            freed = weakref.ref(error.__cause__ or error)
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


@pytest.mark.parametrize(
    "cause", [LookupError("a"), KeyError("b"), OSError(2, "gone"), UnicodeDecodeError("a", b"", 0, 1, "b")]
)
def test_an_error_after_a_commit_is_also_of_the_class_of_its_cause(cause: Exception) -> None:
    """An `except` for the error of a function goes on to work; the message says that the rows are committed."""
    with pytest.raises(AfterCommitError) as caught:
        run_all(deque([(Failing(cause), False)]), "shop")
    error = caught.value
    assert isinstance(error, type(cause))
    assert (type(error).__name__, error.__cause__) == (type(cause).__name__, cause)
    assert str(error).startswith(
        "the rows in 'shop' are committed, but the on_commit function <a failing hook> failed: "
    )
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.alias) == (AfterCommitError, str(error), "shop")


def test_a_cause_of_a_class_that_cannot_be_derived_from_is_the_cause_only() -> None:
    class Final(Exception):
        def __init_subclass__(cls) -> None:
            raise TypeError("final")

    with pytest.raises(AfterCommitError) as caught:
        run_all(deque([(Failing(Final()), False)]), "shop")
    assert type(caught.value) is AfterCommitError
    assert isinstance(caught.value.__cause__, Final)
