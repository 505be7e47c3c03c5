"""Muting: what is silent, for whom, and until when."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from microorm.dispatch import Signal, muted


class Book:
    pass


class Author:
    pass


@pytest.fixture
def signal() -> Signal:
    return Signal()


def hear(**kwargs: Any) -> str:
    return "heard"


async def wait(**kwargs: Any) -> str:
    return "waited"


HEARD = [(hear, "heard")]


def test_a_muted_signal_reaches_nobody(signal: Signal) -> None:
    """All four ways to send, and connections stay untouched."""
    signal.connect(hear)
    signal.connect(wait)
    before = signal.receivers
    with muted(signal):
        assert signal.send(Book) == []
        assert signal.send_robust(Book) == []
        assert asyncio.run(signal.asend(Book)) == []
        assert asyncio.run(signal.asend_robust(Book)) == []
        assert signal.receivers == before
        assert signal.has_listeners(Book) is True
    assert len(signal.send(Book)) == 2
    assert len(signal.send_robust(Book)) == 2


def test_a_muted_sender_leaves_others_audible(signal: Signal) -> None:
    """Senders are compared by identity; a send without one is a sender of its own."""
    signal.connect(hear)
    signal.connect(hear, sender=Book)
    with muted(signal, sender=Book):
        assert signal.send(Book) == []
        assert signal.send(Author) == HEARD
        assert signal.send(None) == HEARD
        assert asyncio.run(signal.asend(Book)) == []
        assert asyncio.run(signal.asend(Author)) == HEARD
    with muted(signal, sender=None):
        assert signal.send(None) == []
        assert signal.send(Author) == HEARD
    one, equal = [1], [1]
    with muted(signal, one):
        assert signal.send(one) == []
        assert signal.send(equal) == HEARD


def test_another_signal_is_not_muted(signal: Signal) -> None:
    other = Signal()
    for each in (signal, other):
        each.connect(hear)
    with muted(signal):
        assert other.send(Book) == HEARD
    with muted([signal, other], sender=Book):
        assert [each.send(Book) for each in (signal, other)] == [[], []]
        assert [each.send(Author) for each in (signal, other)] == [HEARD, HEARD]
    with muted((other,)):
        assert [each.send(Book) for each in (signal, other)] == [HEARD, []]
    with muted([]):
        assert signal.send(Book) == HEARD


def test_a_block_silences_what_was_sent_before_it(signal: Signal) -> None:
    signal.connect(hear)
    for _ in range(3):
        assert signal.send(Book) == HEARD
    with muted(signal, sender=Book):
        assert signal.send(Book) == []
        assert signal.send(Author) == HEARD
    assert signal.send(Book) == HEARD


def test_a_list_is_read_when_the_block_begins(signal: Signal) -> None:
    signals = [signal]
    signal.connect(hear)
    with muted(signals):
        signals.clear()
        assert signal.send(Book) == []


def test_blocks_nest(signal: Signal) -> None:
    signal.connect(hear)
    with muted(signal, sender=Book):
        with muted(signal, sender=Author):
            assert [signal.send(Book), signal.send(Author)] == [[], []]
            with muted(signal, sender=Book):
                pass
            assert [signal.send(Book), signal.send(Author)] == [[], []]
        assert [signal.send(Book), signal.send(Author)] == [[], HEARD]
        with muted(signal):
            assert [signal.send(Book), signal.send(Author)] == [[], []]
        assert [signal.send(Book), signal.send(Author)] == [[], HEARD]
    assert [signal.send(Book), signal.send(Author)] == [HEARD, HEARD]


def test_blocks_may_end_out_of_order(signal: Signal) -> None:
    signal.connect(hear)
    books, authors = muted(signal, sender=Book), muted(signal, sender=Author)
    books.__enter__()
    authors.__enter__()
    books.__exit__(None, None, None)
    assert [signal.send(Book), signal.send(Author)] == [HEARD, []]
    authors.__exit__(None, None, None)
    assert [signal.send(Book), signal.send(Author)] == [HEARD, HEARD]


def test_an_error_ends_the_block(signal: Signal) -> None:
    signal.connect(hear)
    with pytest.raises(LookupError, match="no such shelf"), muted(signal):
        raise LookupError("no such shelf")
    assert signal.send(Book) == HEARD


def test_a_receiver_may_mute(signal: Signal) -> None:
    """The round that has begun goes on; sends inside are silent."""
    inner: list[Any] = []

    @signal.connect
    def quietly(**kwargs: Any) -> None:
        with muted(signal):
            inner.append(signal.send(Book))

    signal.connect(hear)
    assert signal.send(Book) == [(quietly, None), (hear, "heard")]
    assert inner == [[]]


def test_another_thread_is_not_muted(signal: Signal) -> None:
    signal.connect(hear)
    heard: list[Any] = []
    with muted(signal):
        thread = threading.Thread(target=lambda: heard.append(signal.send(Book)))
        thread.start()
        thread.join()
        assert signal.send(Book) == []
    assert heard == [HEARD]


def test_another_task_is_not_muted(signal: Signal) -> None:
    signal.connect(hear)

    async def here() -> None:
        inside, done = asyncio.Event(), asyncio.Event()

        async def quiet() -> Any:
            with muted(signal):
                inside.set()
                await done.wait()
                return await signal.asend(Book)

        task = asyncio.create_task(quiet())
        await inside.wait()
        assert await signal.asend(Book) == HEARD
        done.set()
        assert await task == []

    asyncio.run(here())


def test_a_task_started_in_the_block_is_muted_until_the_block_ends(signal: Signal) -> None:
    signal.connect(hear)

    async def here() -> None:
        over, heard = asyncio.Event(), []

        async def child() -> None:
            heard.append(signal.send(Book))
            await over.wait()
            heard.append(signal.send(Book))

        with muted(signal):
            task = asyncio.create_task(child())
            await asyncio.sleep(0)
        over.set()
        await task
        assert heard == [[], HEARD]

    asyncio.run(here())


def test_async_receivers_see_what_is_muted() -> None:
    """Side by side, in tasks of their own, too."""
    outer, inner = Signal(), Signal()
    inner.connect(hear)

    @outer.connect
    async def send_inner(**kwargs: Any) -> Any:
        return await inner.asend(Book)

    outer.connect(send_inner, dispatch_uid="again")
    with muted(inner):
        assert outer.send(Book) == [(send_inner, []), (send_inner, [])]
        assert asyncio.run(outer.asend(Book)) == [(send_inner, []), (send_inner, [])]
    assert outer.send(Book) == [(send_inner, HEARD), (send_inner, HEARD)]


def test_a_block_that_ends_in_another_context_leaves_nothing_behind(signal: Signal) -> None:
    """As when an async generator is closed by another task than the one that began it."""
    signal.connect(hear)

    async def quiet() -> AsyncIterator[None]:
        with muted(signal):
            yield

    async def here() -> None:
        generator = quiet()
        await anext(generator)
        assert signal.send(Book) == []
        await asyncio.create_task(generator.aclose())
        assert signal.send(Book) == HEARD

    asyncio.run(here())


def test_a_copied_context_is_muted_until_the_block_ends(signal: Signal) -> None:
    signal.connect(hear)
    with muted(signal):
        context = contextvars.copy_context()
        assert context.run(signal.send, Book) == []
    assert context.run(signal.send, Book) == HEARD


def test_only_signals_can_be_muted(signal: Signal) -> None:
    """TypeError that names the culprit; nothing is muted then."""
    signal.connect(hear)
    for wrong, named in (({signal}, repr({signal})), ("post_save", "'post_save'"), ([signal, None], "None")):
        with pytest.raises(TypeError) as caught, muted(wrong):
            pytest.fail("the block ran")
        assert str(caught.value) == f"muted() takes a signal, or a list or tuple of signals, not {named}"
    assert signal.send(Book) == HEARD
