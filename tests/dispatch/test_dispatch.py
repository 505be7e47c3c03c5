"""Signals and synchronous receivers: who is called, in which order, with what, and what comes back."""

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any

import pytest

from microorm.dispatch import Signal, receiver


class Book:
    pass


class Novel(Book):
    pass


class Alike:
    """Equal to each other, but not the same."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Alike)

    def __hash__(self) -> int:
        return 1


@pytest.fixture
def signal() -> Signal:
    return Signal()


def named(name: str, calls: list[str]) -> Callable[..., str]:
    """A receiver that notes its name at each call, and returns it."""

    def note(**kwargs: Any) -> str:
        calls.append(name)
        return name

    return note


def hear(**kwargs: Any) -> str:
    return "heard"


class Shelf:
    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def put(self, **kwargs: Any) -> str:
        self.calls.append(kwargs)
        return "put"

    def lift(self, **kwargs: Any) -> str:
        return "lifted"


def test_connect_returns_the_receiver_and_so_is_a_decorator(signal: Signal) -> None:
    assert signal.connect(hear) is hear

    @signal.connect
    def other(**kwargs: Any) -> str:
        return "other"

    assert signal.send(Book) == [(hear, "heard"), (other, "other")]


def test_receivers_run_in_the_order_of_connection(signal: Signal) -> None:
    """Connecting again does not move a receiver."""
    calls: list[str] = []
    first, second, third = (named(name, calls) for name in ("first", "second", "third"))
    for each in (first, second, third, first):
        signal.connect(each)
    assert [response for _, response in signal.send(Book)] == ["first", "second", "third"]
    assert calls == ["first", "second", "third"]


def test_a_receiver_that_comes_back_is_the_last(signal: Signal) -> None:
    """After a disconnect, the place in the order is given up."""
    calls: list[str] = []
    first, second = named("first", calls), named("second", calls)
    signal.connect(first)
    signal.connect(second)
    signal.disconnect(first)
    signal.connect(first)
    signal.send(Book)
    assert calls == ["second", "first"]


def test_connecting_twice_is_connecting_once(signal: Signal) -> None:
    signal.connect(hear)
    signal.connect(hear)
    signal.connect(hear, sender=Book)
    signal.connect(hear, sender=Book)
    assert len(signal.receivers) == 2
    signal.connect(hear, dispatch_uid="uid")
    signal.connect(hear, dispatch_uid="uid")
    assert len(signal.receivers) == 3


def test_the_first_registration_under_a_uid_wins(signal: Signal) -> None:
    """A second function with the same uid is ignored."""
    calls: list[str] = []
    first, second = named("first", calls), named("second", calls)
    signal.connect(first, dispatch_uid="uid")
    assert signal.connect(second, dispatch_uid="uid") is second
    assert signal.send(Book) == [(first, "first")]


REDEFINED = """
def note(**kwargs):
    return run
"""


@pytest.mark.parametrize("weak", [True, False])
def test_a_receiver_that_is_defined_again_under_its_uid_wins(signal: Signal, weak: bool) -> None:
    """As by a reload, or by a notebook's cell: it takes the place of the old function, which may still be alive."""
    cells: list[dict[str, Any]] = []
    for run in (1, 2, 3):
        cells.append({"run": run, "__name__": "notebook"})
        exec(REDEFINED, cells[-1])
        signal.connect(cells[-1]["note"], dispatch_uid="uid", weak=weak)
        signal.connect(hear)
    assert [response for _, response in signal.send(Book)] == [3, "heard"]


def test_another_closure_under_a_uid_takes_over_when_the_first_is_gone(signal: Signal) -> None:
    calls: list[str] = []
    first, second, method = named("first", calls), named("second", calls), Shelf().put
    for each in (first, second, method):
        signal.connect(each, dispatch_uid="uid")
    assert [response for _, response in signal.send(Book)] == ["first"]
    del first
    assert [response for _, response in signal.send(Book)] == ["second"]
    del second
    assert signal.send(Book) == []


def test_a_later_weak_is_ignored(signal: Signal) -> None:
    """Connecting again with another `weak` does not change the connection."""
    shelf, kept = Shelf(), Shelf()
    signal.connect(shelf.put)
    signal.connect(shelf.put, weak=False)
    signal.connect(kept.put, weak=False)
    signal.connect(kept.put)
    assert [each.weak for each in signal.receivers] == [True, False]
    del shelf, kept
    assert [response for _, response in signal.send(Book)] == ["put"]


def test_a_uid_belongs_to_its_sender(signal: Signal) -> None:
    calls: list[str] = []
    first, second = named("first", calls), named("second", calls)
    signal.connect(first, sender=Book, dispatch_uid="uid")
    signal.connect(second, sender=Novel, dispatch_uid="uid")
    assert signal.send(Book) == [(first, "first")]
    assert signal.send(Novel) == [(second, "second")]
    assert signal.disconnect(sender=Novel, dispatch_uid="uid") is True
    assert signal.send(Novel) == []
    assert signal.send(Book) == [(first, "first")]


@pytest.mark.parametrize("falsy", ["", 0, None, False, ()])
def test_a_falsy_uid_is_none(signal: Signal, falsy: object) -> None:
    other = named("other", [])
    signal.connect(hear, dispatch_uid=falsy)
    signal.connect(other, dispatch_uid=falsy)
    assert len(signal.receivers) == 2
    assert signal.disconnect(dispatch_uid=falsy) is False
    assert signal.disconnect(hear, dispatch_uid=falsy) is True


def test_two_uids_are_two_connections(signal: Signal) -> None:
    """And neither goes with `disconnect(receiver)`."""
    signal.connect(hear, dispatch_uid="one")
    signal.connect(hear, dispatch_uid="two")
    assert signal.send(Book) == [(hear, "heard"), (hear, "heard")]
    assert signal.disconnect(hear) is False
    assert len(signal.receivers) == 2
    assert signal.disconnect(dispatch_uid="one") is True
    assert [each.dispatch_uid for each in signal.receivers] == ["two"]
    assert signal.disconnect(named("another", []), dispatch_uid="two") is True
    assert signal.receivers == ()


def test_a_uid_is_not_an_identity(signal: Signal) -> None:
    """A uid that equals some receiver's address is still another key."""
    other = named("other", [])
    signal.connect(hear)
    signal.connect(other, dispatch_uid=id(hear))
    assert signal.send(Book) == [(hear, "heard"), (other, "other")]


def test_a_uid_that_cannot_be_hashed_connects_nothing(signal: Signal) -> None:
    """Uids are keys."""
    with pytest.raises(TypeError, match="unhashable type: 'list'"):
        signal.connect(hear, dispatch_uid=["uid"])
    assert signal.receivers == ()


def test_one_function_for_all_and_for_one_sender_runs_twice(signal: Signal) -> None:
    signal.connect(hear)
    signal.connect(hear, sender=Book)
    assert signal.send(Book) == [(hear, "heard"), (hear, "heard")]
    assert signal.send(Novel) == [(hear, "heard")]
    assert signal.disconnect(hear) is True
    assert signal.send(Book) == [(hear, "heard")]
    assert signal.send(Novel) == []


def test_a_bound_method_is_the_same_at_each_access(signal: Signal) -> None:
    shelf, other = Shelf(), Shelf()
    signal.connect(shelf.put)
    signal.connect(shelf.put)
    signal.connect(shelf.lift)
    signal.connect(other.put)
    assert signal.send(Book) == [(shelf.put, "put"), (shelf.lift, "lifted"), (other.put, "put")]
    assert signal.disconnect(shelf.put) is True
    assert signal.disconnect(shelf.put) is False
    assert signal.send(Book) == [(shelf.lift, "lifted"), (other.put, "put")]
    signal.connect(other.put, sender=Book)
    assert signal.send(Book) == [(shelf.lift, "lifted"), (other.put, "put"), (other.put, "put")]
    assert signal.disconnect(other.put, sender=Novel) is False


def test_senders_are_compared_by_identity(signal: Signal) -> None:
    """Equal is not enough."""
    one, other = Alike(), Alike()
    assert one == other
    signal.connect(hear, sender=one)
    assert signal.send(other) == []
    assert signal.send(one) == [(hear, "heard")]
    assert signal.disconnect(hear, sender=other) is False
    assert signal.connect(hear, sender=other) is hear
    assert len(signal.receivers) == 2


def test_no_sender_means_every_sender(signal: Signal) -> None:
    """But a send of None reaches only those who listen to everything."""
    everything, books = named("everything", []), named("books", [])
    signal.connect(everything)
    signal.connect(books, sender=Book)
    assert signal.send(Book) == [(everything, "everything"), (books, "books")]
    assert signal.send(Novel) == [(everything, "everything")]
    assert signal.send(None) == [(everything, "everything")]


def test_every_way_to_send_goes_to_the_senders_receivers(signal: Signal) -> None:
    """And to nobody with the sender of another."""
    signal.connect(hear, sender=Book)
    ways = [
        signal.send,
        signal.send_robust,
        lambda sender, **kwargs: asyncio.run(signal.asend(sender, **kwargs)),
        lambda sender, **kwargs: asyncio.run(signal.asend_robust(sender, **kwargs)),
    ]
    for send in ways:
        assert send(Book) == [(hear, "heard")]
        assert send(sender=Book) == [(hear, "heard")]
        assert send(Novel) == []
        assert send(Novel, signal="nobody is there to mind") == []


def test_a_subclass_is_another_sender(signal: Signal) -> None:
    signal.connect(hear, sender=Book)
    assert signal.send(Novel) == []


@pytest.mark.parametrize("send", ["send", "send_robust"])
def test_a_receiver_gets_signal_sender_and_what_was_named(signal: Signal, send: str) -> None:
    """All by keyword, and nothing else."""
    shelf = Shelf()
    signal.connect(shelf.put)
    assert getattr(signal, send)(Book, title="Lathe", raw=False) == [(shelf.put, "put")]
    assert shelf.calls == [{"signal": signal, "sender": Book, "title": "Lathe", "raw": False}]
    getattr(signal, send)(sender=Novel)
    assert shelf.calls[1:] == [{"signal": signal, "sender": Novel}]


@pytest.mark.parametrize(
    "names",
    [{"class": 1}, {"not an identifier": 1}, {"ﬁeld": 1}, {"é": 1}, {"named": 1}, {"receiver": 1, "_": 2}],
)
def test_any_name_can_be_sent(signal: Signal, names: dict[str, Any]) -> None:
    """Also what could not be spelled out as a keyword, and what the dispatcher uses for itself."""
    shelf = Shelf()
    signal.connect(shelf.put)
    signal.send(Book, **names)
    assert shelf.calls == [{"signal": signal, "sender": Book} | names]


@pytest.mark.parametrize("send", ["send", "send_robust"])
def test_nobody_can_send_a_signal_argument(signal: Signal, send: str) -> None:
    """TypeError, before any receiver has run, and no receiver's error to a robust send."""
    shelf = Shelf()
    signal.connect(shelf.put)
    with pytest.raises(TypeError, match=r"^send\(\) passes signal= itself; it is not an argument$"):
        getattr(signal, send)(Book, signal=1)
    with pytest.raises(TypeError, match="multiple values for argument 'sender'"):
        getattr(signal, send)(Book, **{"sender": 1})
    assert shelf.calls == []


def test_responses_name_the_receivers_themselves(signal: Signal) -> None:
    """The strong object, not a reference to it."""
    shelf = Shelf()
    signal.connect(shelf.put)
    signal.connect(hear)
    [(method, _), (function, response)] = signal.send(Book)
    assert method == shelf.put
    assert function is hear
    assert response == "heard"


@pytest.mark.parametrize("send", ["send", "send_robust"])
def test_with_nothing_connected_a_send_gives_an_empty_list(signal: Signal, send: str) -> None:
    """A new one each time."""
    first = getattr(signal, send)(Book, title="Lathe")
    assert first == []
    assert getattr(signal, send)(Book) is not first
    signal.connect(hear, sender=Novel)
    assert getattr(signal, send)(Book, title="Lathe") == []


def test_disconnect_tells_whether_something_was_removed(signal: Signal) -> None:
    assert signal.disconnect(hear) is False
    signal.connect(hear, sender=Book)
    assert signal.disconnect() is False
    assert signal.disconnect(hear) is False
    assert signal.disconnect(hear, sender=Novel) is False
    assert signal.disconnect(sender=Book) is False
    assert signal.disconnect(hear, sender=Book) is True
    assert signal.disconnect(hear, Book) is False
    assert signal.send(Book) == []


def test_a_send_goes_to_those_connected_when_it_began(signal: Signal) -> None:
    """Whoever is disconnected or connected by a receiver is so from the next send on."""
    calls: list[str] = []
    last, late = named("last", calls), named("late", calls)

    @signal.connect
    def first(**kwargs: Any) -> None:
        calls.append("first")
        signal.disconnect(first)
        signal.disconnect(last)
        signal.connect(late)

    signal.connect(last)
    assert [response for _, response in signal.send(Book)] == [None, "last"]
    assert calls == ["first", "last"]
    signal.send(Book)
    assert calls == ["first", "last", "late"]


def test_a_receiver_may_send_the_same_signal(signal: Signal) -> None:
    depths: list[int] = []

    @signal.connect
    def descend(depth: int, **kwargs: Any) -> list[Any]:
        depths.append(depth)
        return signal.send(Book, depth=depth - 1) if depth else []

    assert signal.send(Book, depth=2) == [(descend, [(descend, [(descend, [])])])]
    assert depths == [2, 1, 0]


def test_the_decorator_connects_and_returns_the_same_function(signal: Signal) -> None:

    def plain(**kwargs: Any) -> str:
        return "plain"

    assert receiver(signal)(plain) is plain
    assert signal.send(Book) == [(plain, "plain")]


@pytest.mark.parametrize("kind", [list, tuple])
def test_the_decorator_takes_a_list_or_tuple(kind: type) -> None:
    signals = [Signal(), Signal()]

    @receiver(kind(signals), sender=Book)
    def both(**kwargs: Any) -> str:
        return "both"

    assert [each.send(Book) for each in signals] == [[(both, "both")], [(both, "both")]]
    assert [each.send(Novel) for each in signals] == [[], []]


def test_the_decorator_takes_nothing_but_signals(signal: Signal) -> None:
    """A TypeError that names the culprit, before anything is connected."""
    for wrong, named_in_text in (
        ({signal}, repr({signal})),
        ("post_save", "'post_save'"),
        ([signal, None], "None"),
        (Signal, repr(Signal)),
    ):
        with pytest.raises(TypeError) as caught:
            receiver(wrong)(hear)
        expected = f"receiver() takes a signal, or a list or tuple of signals, not {named_in_text}"
        assert str(caught.value) == expected
    assert signal.receivers == ()


def test_the_decorator_passes_its_options_on() -> None:
    """Verbatim, and so an unknown one is connect's TypeError."""
    seen: list[dict[str, Any]] = []

    class Noting(Signal):
        def connect(self, receiver: Any, **options: Any) -> Any:
            seen.append(options)
            return receiver

    receiver(Noting(), sender=Book, weak=False, dispatch_uid="uid", anything=[1])(hear)
    receiver(Noting())(hear)
    assert seen == [{"sender": Book, "weak": False, "dispatch_uid": "uid", "anything": [1]}, {}]
    with pytest.raises(TypeError, match="unexpected keyword argument 'anything'"):
        receiver(Signal(), anything=1)(hear)


def test_the_decorator_connects_what_stands_below_it(signal: Signal) -> None:
    """Decorators above it change nothing about what is called."""

    def loud(function: Callable[..., str]) -> Callable[..., str]:
        @functools.wraps(function)
        def louder(**kwargs: Any) -> str:
            return function(**kwargs).upper()

        return louder

    @loud
    @receiver(signal)
    def outside(**kwargs: Any) -> str:
        return "outside"

    @receiver(signal)
    @loud
    def inside(**kwargs: Any) -> str:
        return "inside"

    assert [response for _, response in signal.send(Book)] == ["outside", "INSIDE"]


@pytest.mark.parametrize("weak", [True, False])
@pytest.mark.parametrize("wrong", [None, 5, "hear", object()])
def test_what_cannot_be_called_is_refused(signal: Signal, wrong: Any, weak: bool) -> None:
    """Nothing is registered."""
    with pytest.raises(TypeError) as caught:
        signal.connect(wrong, weak=weak)
    assert str(caught.value) == f"receiver is not callable: {wrong!r}"
    assert signal.receivers == ()
    assert signal.has_listeners() is False


def test_what_takes_no_keywords_is_refused(signal: Signal) -> None:
    """Nothing is registered."""

    def deaf(sender: Any, instance: Any = None, *args: Any) -> None: ...

    for wrong in (deaf, len, functools.partial(deaf, instance=1), dict):
        with pytest.raises(ValueError) as caught:
            signal.connect(wrong)
        assert str(caught.value) == f"receiver does not accept **kwargs: {wrong!r}"
    assert signal.receivers == ()


def test_the_first_error_is_raised_as_it_is(signal: Signal) -> None:
    """The receivers after it do not run, the async ones neither."""
    calls: list[str] = []
    error = LookupError("no such shelf")

    async def waiting(**kwargs: Any) -> None:
        calls.append("waiting")

    signal.connect(waiting)
    first, last = named("first", calls), named("last", calls)

    def fail(**kwargs: Any) -> None:
        raise error

    for each in (first, fail, last):
        signal.connect(each)
    with pytest.raises(LookupError) as caught:
        signal.send(Book)
    assert caught.value is error
    assert error.__cause__ is None
    assert error.__context__ is None
    assert calls == ["first"]


@pytest.mark.parametrize("kind", [LookupError, KeyboardInterrupt])
def test_among_sync_receivers_an_error_is_raised_as_it_is(signal: Signal, kind: type[BaseException]) -> None:
    calls: list[str] = []
    last = named("last", calls)
    error = kind("no such shelf")

    @signal.connect
    def fail(**kwargs: Any) -> None:
        raise error

    signal.connect(last)
    with pytest.raises(kind) as caught:
        signal.send(Book, sent_nowhere_else=kind)
    assert caught.value is error
    assert error.__context__ is None
    assert calls == []


def test_a_robust_send_runs_every_receiver(signal: Signal) -> None:
    """An error is that receiver's response, with its traceback."""
    calls: list[str] = []
    first, last = named("first", calls), named("last", calls)
    error = LookupError("no such shelf")

    def fail(**kwargs: Any) -> None:
        raise error

    for each in (first, fail, last):
        signal.connect(each)
    assert signal.send_robust(Book) == [(first, "first"), (fail, error), (last, "last")]
    assert error.__traceback__ is not None
    assert calls == ["first", "last"]


def test_a_robust_send_logs_each_error(signal: Signal, caplog: pytest.LogCaptureFixture) -> None:
    """One record each, with the receiver's qualified name, the error and its traceback."""
    error = LookupError("no such shelf")

    @signal.connect
    def fail(**kwargs: Any) -> None:
        raise error

    signal.connect(fail, dispatch_uid="again")
    signal.send_robust(Book)
    name = "test_a_robust_send_logs_each_error.<locals>.fail"
    assert [(each.name, each.levelno, each.getMessage()) for each in caplog.records] == [
        ("microorm.dispatch", logging.ERROR, f"Error calling {name} in Signal.send_robust() (no such shelf)")
    ] * 2
    for record in caplog.records:
        assert record.exc_info is not None
        assert record.exc_info[1] is error


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, BaseException])
def test_a_robust_send_swallows_no_more_than_exceptions(
    signal: Signal, kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """And the receivers after it do not run."""
    calls: list[str] = []
    last = named("last", calls)

    @signal.connect
    def leave(**kwargs: Any) -> None:
        raise kind

    signal.connect(last)
    with pytest.raises(kind):
        signal.send_robust(Book)
    assert calls == []
    assert caplog.records == []


class Failing:
    def __call__(self, **kwargs: Any) -> None:
        raise LookupError("object")


def fail_at_module_level(**kwargs: Any) -> None:
    raise LookupError("function")


def test_a_receiver_without_a_name_is_logged_all_the_same(
    signal: Signal, caplog: pytest.LogCaptureFixture
) -> None:
    """An object by its class, a partial by its function; never an AttributeError."""
    failing = Failing(), functools.partial(functools.partial(fail_at_module_level)), fail_at_module_level
    for each in failing:
        signal.connect(each)
    responses = signal.send_robust(Book)
    assert [(function, str(error)) for function, error in responses] == [
        (failing[0], "object"),
        (failing[1], "function"),
        (failing[2], "function"),
    ]
    assert [record.getMessage() for record in caplog.records] == [
        "Error calling Failing in Signal.send_robust() (object)",
        "Error calling fail_at_module_level in Signal.send_robust() (function)",
        "Error calling fail_at_module_level in Signal.send_robust() (function)",
    ]


def test_a_returned_exception_is_a_response(signal: Signal, caplog: pytest.LogCaptureFixture) -> None:
    """Only what was raised is in the log."""
    error = LookupError("returned")

    @signal.connect
    def give(**kwargs: Any) -> Exception:
        return error

    assert signal.send(Book) == [(give, error)]
    assert signal.send_robust(Book) == [(give, error)]
    assert caplog.records == []
