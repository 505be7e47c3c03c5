"""Recording signals, and asserting that they are sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, NamedTuple, overload

from microorm.dispatch.signal import Signal
from microorm.messages import brief
from microorm.tracing.names import name_of

__all__ = ["Sent", "SentSignals", "assert_signals", "record_signals"]


class Sent(NamedTuple):
    """A signal that was sent, with its sender and its *arguments*, such as `instance` and `created`."""

    signal: Signal
    sender: Any
    arguments: Mapping[str, Any]

    def __repr__(self) -> str:
        arguments = "".join(f", {name}={brief(value)}" for name, value in self.arguments.items())
        return f"{_name(self.signal)}(sender={_sender(self.sender)}{arguments})"


class SentSignals(Sequence[Sent]):
    """The signals that were sent while they were recorded, in order."""

    def __init__(self) -> None:
        self._sent: list[Sent] = []

    def __len__(self) -> int:
        return len(self._sent)

    @overload
    def __getitem__(self, index: int) -> Sent: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sent]: ...
    def __getitem__(self, index: Any) -> Any:
        return self._sent[index]

    def __repr__(self) -> str:
        return "\n".join([f"<{len(self)} signals>", *map(repr, self)])

    def _receive(self, signal: Signal, sender: Any, **arguments: Any) -> None:
        self._sent.append(Sent(signal, sender, arguments))


@contextmanager
def record_signals(*signals: Signal, sender: Any = None) -> Iterator[SentSignals]:
    """Record the *signals* that are sent while the block runs, by any thread.

    Example: `with record_signals(post_save, sender=Book) as sent: ...`.

    *sender*: a model or its label; by default all. A signal is recorded when it is sent, after the receivers that were
    connected before, whether or not the transaction is committed later; the instance is the one that was sent, not a copy.
    Muted signals are not sent. Raises `TypeError` without a signal or for what is none, and what `connect` raises.
    """
    sent = SentSignals()
    if not signals:
        raise TypeError("record_signals() needs at least one signal, such as microorm.signals.post_save")
    connected: list[Signal] = []
    try:
        for signal in signals:
            if not isinstance(signal, Signal):
                raise TypeError(f"record_signals() takes signals, not {brief(signal)}")
            signal.connect(sent._receive, sender=sender, weak=False)
            connected.append(signal)
        yield sent
    finally:
        for signal in connected:
            signal.disconnect(sent._receive, sender=sender)


def assert_signals(
    signal: Signal, sender: Any = None, times: int | None = None
) -> AbstractContextManager[SentSignals]:
    """Return a `with` block that raises `AssertionError` at its end unless *signal* was sent in it.

    *sender*: a model or its label; by default any. *times*: how often; by default at least once, and 0 means never. Yields the
    signals as `record_signals` does. The error lists them. An error that leaves the block is raised unchanged.
    """
    return _Expected(signal, sender, times)


class _Expected(AbstractContextManager[SentSignals]):
    """The block of `assert_signals`; a class, so that pytest shows the line of the test, and not that of a generator."""

    def __init__(self, signal: Signal, sender: Any, times: int | None) -> None:
        self._signal, self._sender, self._times = signal, sender, times
        self._recording = record_signals(signal, sender=sender)

    def __enter__(self) -> SentSignals:
        self._sent = self._recording.__enter__()
        return self._sent

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        self._recording.__exit__(None, None, None)
        sent, times = self._sent, self._times
        if error is not None or len(sent) == times or (times is None and sent):
            return
        what = _name(self._signal) + ("" if self._sender is None else f" of {_sender(self._sender)}")
        expected = "at least once" if times is None else _times(times)
        listed = "".join(f"\n{number}. {each!r}" for number, each in enumerate(sent, start=1))
        raise AssertionError(
            f"{what} was sent {_times(len(sent))}, not {expected}{':' if listed else ''}{listed}"
        )


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


def _name(signal: Signal) -> str:
    return name_of(signal) or repr(signal)


def _sender(sender: Any) -> str:
    return sender.__name__ if isinstance(sender, type) else brief(sender)
