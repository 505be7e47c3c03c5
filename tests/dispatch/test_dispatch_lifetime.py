"""How long connections last: weak references, senders that die, and the warning about receivers that were lost."""

import asyncio
import functools
import gc
import inspect
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from microorm.dispatch import ReceiverLostWarning, Signal
from microorm.dispatch.signal import logger


class Book:
    pass


class Shelf:
    def put(self, **kwargs: Any) -> str:
        return "put"

    def __call__(self, **kwargs: Any) -> str:
        return "called"


class Slotted:
    __slots__ = ("calls",)

    def put(self, **kwargs: Any) -> str:
        return "put"


def hear(**kwargs: Any) -> str:
    return "heard"


@pytest.fixture
def signal() -> Signal:
    return Signal()


def nested() -> Callable[..., str]:
    """A receiver that lives as long as somebody keeps it."""

    def note(**kwargs: Any) -> str:
        return "noted"

    return note


def has_run(signal: Signal, receiver: Callable[..., Any], **options: Any) -> None:
    """Connect *receiver* and let it run once, so that its end is no surprise."""
    signal.connect(receiver, **options)
    signal.send(options.get("sender"))


@pytest.mark.parametrize("make", [nested, lambda: Shelf().put.__self__, lambda: functools.partial(hear)])
def test_receivers_are_held_weakly(signal: Signal, make: Callable[[], Any]) -> None:
    """Functions, callable objects and partials."""
    receiver = make()
    gone = weakref.ref(receiver)
    has_run(signal, receiver)
    assert [each.receiver for each in signal.receivers] == [receiver]
    assert signal.has_listeners() is True
    del receiver
    assert gone() is None
    assert signal.receivers == ()
    assert signal.has_listeners() is False
    assert signal.send(Book) == []


def test_a_bound_method_goes_with_its_owner(signal: Signal) -> None:
    """And stays as long as it does."""
    shelf = Shelf()
    signal.connect(shelf.put)
    gc.collect()
    assert signal.send(Book) == [(shelf.put, "put")]
    gone = weakref.ref(shelf)
    del shelf
    assert gone() is None
    assert signal.send(Book) == []
    assert signal.receivers == ()
    assert signal._connections == {}


@pytest.mark.parametrize(
    "make",
    [lambda: lambda **kwargs: 1, nested, lambda: functools.partial(hear)],
    ids=["lambda", "nested", "partial"],
)
def test_what_nobody_else_holds_is_gone_at_once(signal: Signal, make: Callable[[], Any]) -> None:
    """Nothing else keeps a receiver, not even the check of its signature."""
    signal.connect(make())
    assert signal.has_listeners() is False
    assert signal.receivers == ()
    with pytest.warns(ReceiverLostWarning):
        assert signal.send(Book) == []
    assert signal.has_listeners() is False


def test_a_receiver_that_dies_after_a_warning_of_another_is_noticed(signal: Signal) -> None:
    """By `has_listeners`, which leaves warnings to the next use that may give them."""
    signal.connect(nested())
    with pytest.warns(ReceiverLostWarning):
        signal.send(Book)
    receiver = nested()
    has_run(signal, receiver)
    assert signal.has_listeners() is True
    del receiver
    assert signal.has_listeners() is False


@pytest.mark.parametrize("make", [nested, lambda: Shelf().put, Shelf, lambda: Slotted().put])
def test_a_strong_connection_keeps_its_receiver(signal: Signal, make: Callable[[], Any]) -> None:
    """Until it is disconnected."""
    receiver = make()
    gone = weakref.ref(getattr(receiver, "__self__", receiver)) if not is_slotted(receiver) else None
    signal.connect(receiver, weak=False)
    expected = [response for _, response in signal.send(Book)]
    del receiver
    gc.collect()
    assert [response for _, response in signal.send(Book)] == expected
    assert len(expected) == 1
    signal.disconnect(signal.receivers[0].receiver)
    assert signal.send(Book) == []
    assert gone is None or gone() is None


def is_slotted(receiver: Any) -> bool:
    return isinstance(getattr(receiver, "__self__", None), Slotted)


def test_what_cannot_be_referenced_weakly_must_be_held(signal: Signal) -> None:
    """TypeError, and nothing is registered."""
    slotted = Slotted()
    with pytest.raises(TypeError) as caught:
        signal.connect(slotted.put)
    text = f"receiver cannot be referenced weakly, connect it with weak=False: {slotted.put!r}"
    assert str(caught.value) == text
    assert caught.value.__suppress_context__
    assert signal.receivers == ()
    signal.connect(slotted.put, weak=False)
    assert signal.send(Book) == [(slotted.put, "put")]


@pytest.mark.parametrize(
    "prune", [lambda s: s.send(Book), lambda s: s.connect(hear), lambda s: s.disconnect()]
)
def test_dead_connections_are_dropped_at_the_next_use(signal: Signal, prune: Callable[[Signal], Any]) -> None:
    """At a connect, disconnect or send; they are never shown."""
    receiver, living = nested(), nested()
    has_run(signal, receiver)
    has_run(signal, living)
    del receiver
    assert len(signal._connections) == 2
    assert [each.receiver for each in signal.receivers] == [living]
    prune(signal)
    assert living in [each.receiver for each in signal._connections.values()]
    assert None not in [each.receiver for each in signal._connections.values()]


def test_a_dead_receiver_gives_its_uid_back(signal: Signal) -> None:
    receiver, between, after = nested(), nested(), nested()
    has_run(signal, receiver, dispatch_uid="uid")
    signal.connect(between)
    del receiver
    signal.connect(after, dispatch_uid="uid")
    assert signal.send(Book) == [(between, "noted"), (after, "noted")]


def test_a_receiver_that_dies_during_a_connect_gives_its_uid_back(signal: Signal) -> None:
    """And its place in the order, although it was alive a moment ago."""
    kept: dict[str, Any] = {"first": nested()}

    class Uid:
        """Equal to its like; drops the first receiver when the signal looks for it."""

        def __hash__(self) -> int:
            kept.pop("first", None) if len(signal.receivers) == 2 else None
            return 1

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Uid)

    has_run(signal, kept["first"], dispatch_uid=Uid())
    between, after = nested(), nested()
    signal.connect(between)
    signal.connect(after, dispatch_uid=Uid())
    assert kept == {}
    assert signal.send(Book) == [(between, "noted"), (after, "noted")]


def test_a_dead_sender_takes_its_connections_along(signal: Signal) -> None:
    """Nothing at its address is taken for it."""
    sender = Book()
    gone = weakref.ref(sender)
    signal.connect(hear, sender=sender)
    assert signal.send(sender) == [(hear, "heard")]
    assert signal.has_listeners(sender) is True
    del sender
    assert gone() is None
    for another in [Book() for _ in range(100)]:
        assert signal.send(another) == []
        assert signal.has_listeners(another) is False
    assert signal.send(None) == []
    assert signal.receivers == ()
    assert signal._connections == {}


def test_a_sender_at_a_dead_ones_address_is_new(signal: Signal) -> None:
    """Connecting the same receiver to it is another connection."""
    for _ in range(100):
        sender = Book()
        signal.connect(hear, sender=sender)
        assert signal.send(sender) == [(hear, "heard")]
        del sender
    signal.disconnect()
    assert signal._connections == {}


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True


@pytest.mark.parametrize(
    "make", [Unhashable, Slotted, lambda: "a" * 3, lambda: 10**9, lambda: (1, [2]), lambda: [1]]
)
def test_every_object_can_be_a_sender(signal: Signal, make: Callable[[], Any]) -> None:
    """Hashable or not, weakly referenceable or not; by identity."""
    sender, other = make(), Slotted()
    signal.connect(hear, sender=sender)
    for _ in range(2):
        assert signal.send(sender) == [(hear, "heard")]
        assert signal.send(other) == []
    assert signal.has_listeners(sender) is True
    assert signal.has_listeners(other) is False
    [connection] = signal.receivers
    assert connection.sender is sender
    assert signal.disconnect(hear, sender=sender) is True
    assert signal.send(sender) == []


def test_a_sender_that_cannot_be_weak_lives_with_its_connection(signal: Signal) -> None:
    """So that nothing else can come to its address; and no longer."""
    owner = Book()
    gone = weakref.ref(owner)
    sender = (owner,)
    signal.connect(hear, sender=sender)
    del sender, owner
    [connection] = signal.receivers
    assert signal.send(connection.sender) == [(hear, "heard")]
    assert signal.disconnect(hear, sender=connection.sender) is True
    del connection
    assert gone() is None


def test_a_sent_sender_stays_collectable(signal: Signal) -> None:
    """Also when nobody listens to it, and whatever kind it is."""
    signal.connect(hear)
    weak, owner = Book(), Book()
    gone = weakref.ref(weak), weakref.ref(owner)
    signal.send(weak)
    signal.send((owner,))
    assert signal.has_listeners(weak) is True
    del weak, owner
    assert [reference() for reference in gone] == [None, None]
    assert [each for each in signal._routes.values() if each.sender() is None] == []


def test_a_sent_signal_does_not_keep_its_receivers(signal: Signal) -> None:
    """What is cached per sender is weak."""
    receiver = nested()
    gone = weakref.ref(receiver)
    signal.connect(receiver, sender=Book)
    signal.send(Book)
    signal.send(Book)
    del receiver
    assert gone() is None
    assert signal.send(Book) == []


def test_a_receiver_that_died_during_a_send_is_passed_over(signal: Signal) -> None:
    kept = [Shelf()]

    @signal.connect
    def drop(**kwargs: Any) -> str:
        kept.clear()
        return "dropped"

    signal.connect(kept[0].put)
    signal.connect(hear)
    assert signal.send(Book) == [(drop, "dropped"), (hear, "heard")]
    assert len(signal.receivers) == 2


def line_of(function: Any) -> int:
    return inspect.unwrap(function).__code__.co_firstlineno


def lose(signal: Signal, **options: Any) -> str:
    """Connect a function that nobody holds; return what is to be said about it."""

    def lost(**kwargs: Any) -> None: ...

    signal.connect(lost, **options)
    line = line_of(lost)
    return f"receiver lose.<locals>.lost ({__file__}:{line}) was garbage-collected before it was ever called; connect it with weak=False"


USES: dict[str, Callable[[Signal], Any]] = {
    "connect": lambda signal: signal.connect(hear),
    "disconnect": lambda signal: signal.disconnect(hear),
    "send": lambda signal: signal.send(Book),
    "send_robust": lambda signal: signal.send_robust(Book),
    "asend": lambda signal: asyncio.run(signal.asend(Book)),
    "asend_robust": lambda signal: asyncio.run(signal.asend_robust(Book)),
}


@pytest.mark.parametrize("use", USES.values(), ids=list(USES))
def test_a_lost_receiver_is_told_of_once(signal: Signal, use: Callable[[Signal], Any]) -> None:
    """At the next connect, disconnect or send, as a warning at the line where it was written."""
    text = lose(signal)
    gc.collect()
    assert signal.has_listeners() is False
    assert signal.receivers == ()
    with pytest.warns(ReceiverLostWarning) as caught:
        use(signal)
    [warning] = caught
    assert str(warning.message) == text
    assert (warning.filename, warning.lineno) == (__file__, int(text.split(":")[1].split(")")[0]))
    use(signal)


def test_a_lost_receiver_of_another_sender_is_told_of_too(signal: Signal) -> None:
    """The next send says it, whoever it is for."""
    text = lose(signal, sender=Book)
    with pytest.warns(ReceiverLostWarning) as caught:
        signal.send(Shelf)
    assert [str(warning.message) for warning in caught] == [text]


def test_every_lost_receiver_is_told_of(signal: Signal) -> None:
    """A lambda, a partial (by its function) and a decorated function, each by its place."""

    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(**kwargs: Any) -> Any:
            return function(**kwargs)

        return call

    shelf = Shelf()
    kept = [
        lambda **kwargs: 1,
        functools.partial(functools.partial(hear)),
        decorated(hear),
        functools.partial(shelf),
        functools.partial(shelf.put),
    ]
    for index in range(len(kept)):
        signal.connect(kept[index])
    kept.clear()
    with pytest.warns(ReceiverLostWarning) as caught:
        signal.send(Book)
    at = f"({__file__}:{line_of(hear)}) was garbage-collected before it was ever called; connect it with weak=False"
    first, *others = [str(warning.message) for warning in caught]
    assert first.startswith("receiver test_every_lost_receiver_is_told_of.<locals>.<lambda> (")
    assert others == [
        f"receiver hear {at}",
        f"receiver hear {at}",
        f"receiver Shelf ({__file__}:{line_of(Shelf.__call__)}) was garbage-collected before it was ever called; connect it with weak=False",
        f"receiver Shelf.put ({__file__}:{line_of(Shelf.put)}) was garbage-collected before it was ever called; connect it with weak=False",
    ]


class Sourceless:
    """Called by way of C code, so that there is no line to name."""

    __qualname__ = "Sourceless"
    __module__ = "tests.nowhere"
    __signature__ = inspect.signature(hear)
    __call__ = print


def test_a_lost_receiver_without_source_is_named_by_its_module(signal: Signal) -> None:
    signal.connect(functools.partial(Sourceless()))
    with pytest.warns(ReceiverLostWarning) as caught:
        signal.send(Book)
    [warning] = caught
    assert (
        str(warning.message)
        == "receiver Sourceless (tests.nowhere) was garbage-collected before it was ever called; connect it with weak=False"
    )
    assert (warning.filename, warning.lineno) == ("tests.nowhere", 0)


def test_no_warning_after_it_has_run(signal: Signal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sync or async, even when it failed."""
    monkeypatch.setattr(logger, "error", lambda *args, **kwargs: None)  # a record would keep the receivers

    def failing(**kwargs: Any) -> None:
        raise LookupError

    async def waiting(**kwargs: Any) -> None:
        raise LookupError

    signal.connect(failing)
    signal.connect(waiting)
    assert len(signal.send_robust(Book)) == 2
    del failing, waiting
    gc.collect()
    assert signal.send(Book) == []
    assert signal._connections == {}


@pytest.mark.parametrize("make", [lambda: Shelf().put, Shelf], ids=["bound method", "object"])
def test_no_warning_for_what_has_an_owner(signal: Signal, make: Callable[[], Any]) -> None:
    """Bound methods and objects are meant to go."""
    signal.connect(make())
    assert signal.send(Book) == []


def test_no_warning_for_a_function_of_a_module(signal: Signal) -> None:
    """It goes when its module is loaded anew, for instance."""
    namespace: dict[str, Any] = {}
    exec("def plain(**kwargs): ...", namespace)
    signal.connect(namespace.pop("plain"))
    assert signal.send(Book) == []


def test_a_lambda_of_a_module_is_lost_like_any_other(signal: Signal) -> None:
    namespace: dict[str, Any] = {"signal": signal}
    exec("signal.connect(lambda **kwargs: 1)", namespace)
    with pytest.warns(ReceiverLostWarning, match=r"^receiver <lambda> \(<string>:1\) was garbage-collected"):
        signal.send(Book)


def test_no_warning_for_what_was_disconnected(signal: Signal) -> None:
    receiver = nested()
    signal.connect(receiver)
    signal.disconnect(receiver)
    del receiver
    assert signal.send(Book) == []


def test_no_warning_when_it_was_the_sender_that_died(signal: Signal) -> None:
    receiver, sender = nested(), Book()
    signal.connect(receiver, sender=sender)
    del sender
    assert signal.send(Book) == []
    assert signal._connections == {}


def test_after_a_warning_as_error_the_signal_is_whole(signal: Signal) -> None:
    """The error comes before anything is done, and only once."""
    lose(signal)
    with pytest.raises(ReceiverLostWarning):
        signal.connect(hear)
    assert signal.receivers == ()
    signal.connect(hear)
    assert signal.send(Book) == [(hear, "heard")]


def test_a_loop_that_loses_receivers_warns_as_the_filter_says(signal: Signal) -> None:
    """By default once per place."""

    def lose_three_times(action: Any) -> int:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter(action)
            for _ in range(3):
                lose(signal)
                signal.send(Book)
        return len(caught)

    assert lose_three_times("default") == 1
    assert lose_three_times("always") == 3
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("ignore", module=r"tests\.|.*test_dispatch_lifetime")
        lose(signal)
        signal.send(Book)
    assert caught == []


def test_no_warning_comes_from_a_garbage_collection(signal: Signal) -> None:
    """A cycle that is collected only notes the death."""

    class Node:
        def __init__(self) -> None:
            self.me = self
            self.receiver = lambda **kwargs: self

    node = Node()
    signal.connect(node.receiver)
    del node
    gc.collect()
    with pytest.warns(ReceiverLostWarning):
        signal.disconnect()


EXIT = """
import sys
from microorm.dispatch import Signal
signal = Signal()
receivers = [lambda **kwargs: 1]
signal.connect(receivers[0])
def plain(**kwargs): ...
signal.connect(plain)
class Last:
    def __del__(self, send=signal.send, receivers=receivers, exiting=sys.is_finalizing, print=print):
        receivers.clear()
        print(exiting(), len(send(None)))
last = Last()
"""


@pytest.mark.slow
def test_no_warning_at_the_end_of_the_program() -> None:
    """Everything dies then."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", EXIT], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout in ("True 1\n", "True 0\n")


def test_to_ask_for_listeners_drops_the_dead_and_keeps_the_answer(signal: Signal) -> None:
    """The routes are computed once, not at each question."""
    kept, gone = Shelf(), [Shelf() for _ in range(3)]
    for shelf in (*gone, kept):
        signal.connect(shelf.put, sender=Book)
    assert signal.has_listeners(Book)
    del gone, shelf
    assert signal.has_listeners(Book)
    assert len(signal._connections) == 1
    assert not signal.has_listeners(Shelf)
    matched = []
    signal._matches = lambda *pair: matched.append(pair)  # type: ignore[method-assign]
    assert signal.has_listeners(Book)
    assert not signal.has_listeners(Shelf)
    assert matched == []


def test_a_receiver_that_a_failed_send_has_not_reached_is_lost_when_it_goes(signal: Signal) -> None:
    """The first send ends at an error, later ones, to another sender, are done."""

    def fail(**kwargs: Any) -> None:
        raise ZeroDivisionError

    signal.connect(fail, sender=Book)
    note = nested()
    signal.connect(note, sender=Book)
    signal.connect(hear)
    for _ in range(2):
        assert signal.send(Shelf) == [(hear, "heard")]
        with pytest.raises(ZeroDivisionError):
            signal.send(Book)
    del note
    gc.collect()
    with pytest.warns(ReceiverLostWarning):
        signal.connect(hear, sender=Shelf)


def test_each_receiver_of_a_repeated_send_is_known_to_have_run(signal: Signal) -> None:
    notes = [nested(), nested()]
    for note in notes:
        signal.connect(note)
        for _ in range(3):
            signal.send(Book)
    assert [connection.ran for connection in signal.receivers] == [True, True]
    del note
    notes.clear()
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert signal.send(Book) == []
