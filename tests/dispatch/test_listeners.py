"""Who hears a sender: routes and their cache, connections changed by threads and by the garbage collector."""

import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from microorm.dispatch import Signal
from microorm.dispatch.receivers import EMPTY, CachedRoute, Connection, Route


class Book:
    pass


class Novel(Book):
    pass


def hear(**kwargs: Any) -> str:
    return "heard"


async def wait(**kwargs: Any) -> str:
    return "waited"


@pytest.fixture
def signal() -> Signal:
    return Signal()


@pytest.fixture
def eager_switches() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(*functions: Callable[[], object]) -> None:
    """Run *functions* at once; fail with the first error, or when one hangs."""
    errors: list[Exception] = []
    start = threading.Barrier(len(functions))

    def run(function: Callable[[], object]) -> None:
        try:
            start.wait()
            function()
        except Exception as error:  # noqa: BLE001 - told of in the main thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=[function], daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    assert errors == []


def test_has_listeners_counts_who_would_be_reached(signal: Signal) -> None:
    """Wildcards whatever the sender, sync and async; without a sender, only those."""
    assert signal.has_listeners() is False
    assert signal.has_listeners(Book) is False
    signal.connect(wait, sender=Book)
    assert signal.has_listeners() is False
    assert signal.has_listeners(Book) is True
    assert signal.has_listeners(Novel) is False
    signal.connect(hear)
    assert signal.has_listeners() is True
    assert signal.has_listeners(Novel) is True
    signal.disconnect(hear)
    signal.disconnect(wait, sender=Book)
    assert signal.has_listeners(Book) is False


def test_receivers_are_shown_in_the_order_of_connection(signal: Signal) -> None:
    """Sync and async as they came."""
    assert signal.receivers == ()
    signal.connect(wait)
    signal.connect(hear, sender=Book)
    assert [(each.receiver, each.sender, each.is_async) for each in signal.receivers] == [
        (wait, None, True),
        (hear, Book, False),
    ]


def test_a_route_tells_sync_from_async(signal: Signal) -> None:
    """And its truth is whether there is anyone."""
    for each, sender in ((wait, None), (hear, None), (wait, Novel), (hear, Book)):
        signal.connect(each, sender=sender)
    route = signal._route(Book)
    assert [each.receiver for each in route] == [wait, hear, hear]
    assert [each.receiver for each in route.sync] == [hear, hear]
    assert [each.receiver for each in route.asynchronous] == [wait]
    assert bool(route) is True
    assert bool(EMPTY) is False
    assert (EMPTY.sync, EMPTY.asynchronous, EMPTY.optional) == ((), (), False)


def test_a_route_knows_of_options(signal: Signal) -> None:
    signal.connect(hear)
    assert signal._route(Book).optional is False
    signal._connect(wait, Book, True, None, {"delivery": "on_commit"})
    assert signal._route(Book).optional is True
    assert signal._route(Novel).optional is False


def test_routes_are_cached_until_something_changes(signal: Signal) -> None:
    """One per sender, also where nobody listens."""
    signal.connect(hear, sender=Book)
    route = signal._route(Book)
    assert signal._route(Book) is route
    assert signal._route(Novel) is EMPTY
    assert signal._route(None) is EMPTY
    assert set(signal._routes) == {id(Book), id(Novel), id(None)}
    for change in (
        lambda: signal.connect(hear),
        lambda: signal.disconnect(hear),
        lambda: signal.connect(wait, sender=Book),
    ):
        change()
        assert signal._routes == {}
        assert signal._route(Book) is not route
        route = signal._route(Book)
    assert [each.receiver for each in route] == [hear, wait]


def test_a_cached_route_is_found_without_asking_again() -> None:
    """`_matches` is asked once per sender and change."""
    asked: list[tuple[Any, Any]] = []

    class Asking(Signal):
        def _matches(self, connection: Connection, sender: object) -> bool:
            asked.append((connection.receiver, sender))
            return super()._matches(connection, sender)

    signal = Asking()
    signal.connect(hear, sender=Book)
    for sender in (Book, Novel, None):
        for _ in range(3):
            signal.send(sender)
    assert asked == [(hear, Book), (hear, Novel), (hear, None)]
    signal.connect(hear, sender=Book)
    signal.send(Book)
    assert len(asked) == 3
    signal.disconnect()
    signal.send(Book)
    assert len(asked) == 4


def test_a_sender_that_cannot_be_weak_is_not_cached(signal: Signal) -> None:
    """It would have to be kept alive."""
    signal.connect(hear)
    sender = ("a", "tuple")
    assert [each.receiver for each in signal._route(sender)] == [hear]
    assert signal._routes == {}


def test_a_cached_route_goes_with_its_sender(signal: Signal) -> None:
    signal.connect(hear)
    sender = Book()
    signal.send(sender)
    signal.send(Book)
    assert len(signal._routes) == 2
    del sender
    assert set(signal._routes) == {id(Book)}


def test_a_route_of_another_object_at_the_same_address_is_not_believed(signal: Signal) -> None:
    signal.connect(hear, sender=Book)
    impostor = Book()
    signal._routes[id(Book)] = CachedRoute(weakref.ref(impostor), EMPTY)
    assert signal.send(Book) == [(hear, "heard")]
    signal._routes[id(Novel)] = CachedRoute(weakref.ref(Book), signal._route(Book))
    assert signal.send(Novel) == []


def test_who_is_connected_while_a_route_is_found_is_not_forgotten() -> None:
    """The route of that moment is used once, and not kept."""

    class Busy(Signal):
        def _matches(self, connection: Connection, sender: object) -> bool:
            self.connect(wait)
            return super()._matches(connection, sender)

    signal = Busy()
    signal.connect(hear)
    assert [each.receiver for each in signal._route(Book)] == [hear]
    assert signal._routes == {}
    assert [each.receiver for each in signal._route(Book)] == [hear, wait]


def test_a_subclass_may_decide_who_hears_a_sender() -> None:
    """`_matches` is the place."""

    class Family(Signal):
        def _matches(self, connection: Connection, sender: object) -> bool:
            wanted = connection.sender
            return isinstance(sender, type) and isinstance(wanted, type) and issubclass(sender, wanted)

    signal = Family()
    signal.connect(hear, sender=Book)
    assert signal.send(Novel) == [(hear, "heard")]
    assert signal.send(Signal) == []
    assert signal.has_listeners(Novel) is True
    assert signal.has_listeners(Signal) is False


def test_a_disconnected_strong_receiver_is_let_go_at_once(signal: Signal) -> None:
    """By no cycle of routes and references either, so that no garbage collection is needed."""

    class Receiver:
        def __call__(self, **kwargs: Any) -> None: ...

    receiver = Receiver()
    gone = weakref.ref(receiver)
    gc.disable()
    try:
        signal.connect(receiver, weak=False)
        signal.send(Book)
        signal.disconnect(receiver)
        del receiver
        assert gone() is None
    finally:
        gc.enable()


def test_connecting_from_threads_loses_nothing(eager_switches: None) -> None:
    """Each thread's connections are there in its order, and each once."""
    signal = Signal()

    def many(name: str) -> list[Callable[..., str]]:
        return [lambda i=i, **kwargs: f"{name}{i}" for i in range(100)]

    receivers = {name: many(name) for name in "abcd"}
    shared = [lambda **kwargs: "shared" for _ in range(50)]

    def work(name: str) -> None:
        for index, receiver in enumerate(receivers[name]):
            signal.connect(receiver)
            signal.connect(shared[index % 50])
            assert [response for _, response in signal.send(Book)].count(f"{name}{index}") == 1

    in_threads(*(lambda name=name: work(name) for name in receivers))
    responses = [response for _, response in signal.send(Book)]
    assert len(responses) == 450
    assert responses.count("shared") == 50
    for name in receivers:
        assert [each for each in responses if each[0] == name] == [f"{name}{i}" for i in range(100)]


def test_threads_may_connect_send_and_disconnect_at_once(eager_switches: None) -> None:
    """A thread hears its own receiver while it is connected, and not afterwards."""
    signal = Signal()

    def work(sender: type) -> None:
        def own(**kwargs: Any) -> None: ...

        for _ in range(300):
            signal.connect(own, sender=sender)
            assert signal.send(sender) == [(own, None)]
            assert signal.disconnect(own, sender=sender) is True
            assert signal.send(sender) == []
            assert signal.has_listeners(sender) is False

    in_threads(lambda: work(Book), lambda: work(Novel), lambda: work(Signal), lambda: work(Route))
    assert signal.receivers == ()


def test_receivers_may_die_in_other_threads(eager_switches: None) -> None:
    signal = Signal()
    signal.connect(hear)

    class Receiver:
        def __call__(self, **kwargs: Any) -> None: ...

    def live_and_die() -> None:
        for _ in range(300):
            receiver = Receiver()
            signal.connect(receiver)
            signal.connect(receiver, sender=receiver)
            del receiver

    def send() -> None:
        for _ in range(300):
            assert (hear, "heard") in signal.send(Book)

    in_threads(live_and_die, live_and_die, send, send)
    signal.disconnect()
    assert [each.receiver for each in signal._connections.values()] == [hear]


class Interrupting:
    """A uid whose hash runs *action*, and so in the middle of a connect, while the signal's lock is held."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.action = action

    def __hash__(self) -> int:
        action, self.action = self.action, lambda: None
        action()
        return 1


def test_a_death_in_another_thread_waits_for_no_lock(signal: Signal) -> None:
    """The callback of a weak reference only notes it down."""

    def receiver(**kwargs: Any) -> None: ...

    kept = [receiver]
    signal.connect(receiver)
    signal.send(Book)
    del receiver
    signal.connect(hear, dispatch_uid=Interrupting(lambda: in_threads(kept.clear)))
    assert kept == []
    assert signal.send(Book) == [(hear, "heard")]


def test_sends_wait_for_no_lock(signal: Signal) -> None:
    """Neither cached nor new senders, while another thread connects."""
    heard: list[Any] = []
    signal.connect(hear)
    signal.send(Book)

    def send() -> None:
        heard.extend((signal.send(Book), signal.send(Novel), signal.has_listeners(), len(signal.receivers)))

    signal.connect(wait, dispatch_uid=Interrupting(lambda: in_threads(send)))
    assert heard == [[(hear, "heard")], [(hear, "heard")], True, 1]


def test_threads_take_turns_at_connecting(signal: Signal) -> None:
    """Connect, disconnect and prune are under one lock per signal."""
    order: list[str] = []
    other = Signal()

    def meanwhile() -> None:
        started.set()
        signal.connect(hear)
        order.append("connected")

    def hold() -> None:
        thread.start()
        started.wait(200)
        in_threads(lambda: other.connect(hear))  # another signal has another lock
        thread.join(0.2)  # it cannot end; without the lock it most likely would
        order.append("held")

    started = threading.Event()
    thread = threading.Thread(target=meanwhile, daemon=True)
    signal.connect(wait, dispatch_uid=Interrupting(hold))
    thread.join(200)
    assert order == ["held", "connected"]
    assert [each.receiver for each in signal.receivers] == [wait, hear]


@pytest.mark.parametrize(
    "finalizer",
    [
        lambda signal: signal.disconnect(hear),
        lambda signal: signal.connect(wait),
        lambda signal: signal.send(Book),
        lambda signal: signal.has_listeners(Book),
    ],
    ids=["disconnect", "connect", "send", "has_listeners"],
)
def test_a_collection_during_a_connect_cannot_deadlock(
    signal: Signal, finalizer: Callable[[Signal], object]
) -> None:
    """Even when a finalizer uses the very signal."""

    def late(**kwargs: Any) -> str:
        return "late"

    class Node:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            done.append(finalizer(signal))

        def __call__(self, **kwargs: Any) -> None: ...

    done: list[object] = []
    signal.connect(hear)
    signal.connect(Node())
    in_threads(lambda: signal.connect(late, dispatch_uid=Interrupting(gc.collect)))
    assert len(done) == 1
    assert late in [receiver for receiver, _ in signal.send_robust(Book)]
    assert len(signal.receivers) == len(signal._connections)
