"""Dispatch: signals, and functions that run when one is sent. Standard library only, no model, no database.

Calls: the receivers of a send, called in a loop that is generated for the names it is sent with. Standard library only.

A keyword that is spelled out costs half of one that comes out of `**named`. A signal is sent with the same names each
time, so it keeps the loop of its last send, which looks whether they are.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from keyword import iskeyword
from types import ModuleType
from typing import Any, ClassVar, Final, TypeVar

from microorm.dispatch.receivers import Connection, Listeners, Receiver, Route

logger = logging.getLogger("microorm.dispatch")

_R = TypeVar("_R", bound=Receiver)
_T = TypeVar("_T")
_Responses = list[tuple[Receiver, Any]]
_Catch = tuple[type[Exception], ...]

_CATCH: _Catch = (Exception,)
_CATCH_NONE: _Catch = ()

ANY: Final = object()


class Signal(Listeners):
    """Something that happens, and that functions can be connected to.

    A subclass may use and replace these, and nothing else with an underscore:

    - `_connect(receiver, sender, weak, dispatch_uid, options)` registers; *options* end up in the Connection.
    - `_matches(connection, sender)` decides who hears a sender. It is asked once per sender until something is
      connected or disconnected.
    - `_check_sender(sender)` raises for what cannot be a sender; `_means(named, sender)` tells whether the sender
      that `muted` was given is the one of a send.
    - `_route(sender)` is the cached answer; `if signal._route(sender):` is the cheap way to ask for listeners.
    - `_accepts(connection, named)` may leave out a connection that has options, at each send.
    - `_deliver(connection, receiver, sender, named)` calls a receiver whose connection has options; others may
      be called without it, which is faster. What it returns for an async receiver is awaited if it can be.
    - `_waiter(route)` gives the function that runs a coroutine for a synchronous send; asked, before any receiver
      runs, when the route has async ones. It raises where waiting is impossible.
    - `concurrent`: whether async receivers run side by side, or else one after another until the first error.
    """

    concurrent: ClassVar[bool] = True

    _loop: Loop | None = None

    def send(self, sender: object, **named: Any) -> _Responses:
        """Call the receivers, sync before async, in order; return `(receiver, response)` pairs (A14, F2).

        The first error is raised unchanged, and the receivers after it do not run (E2). Async receivers run in
        this thread, side by side; RuntimeError, before any receiver has run, on a running event loop (F3).
        """
        if not self._connections:
            return []
        entry = self._routes.get(id(sender))  # as in `_route`, without a call
        known = entry is not None and entry[0]() is sender and not self._dead
        route = entry[1] if known and entry is not None else self._route(sender)
        if not route.plain or _mutes.get():
            return self._send(route, sender, named, _CATCH_NONE)
        return (self._loop or call_by_names)(self, route.sync, sender, named)

    def send_robust(self, sender: object, **named: Any) -> _Responses:
        """Send so that all receivers run: an Exception is logged, and is that receiver's response (E3 to E5)."""
        return self._send(self._route(sender), sender, named, _CATCH) if self._connections else []

    async def asend(self, sender: object, **named: Any) -> _Responses:
        """Send from a coroutine: sync receivers inline and in order, then the async ones side by side (F4).

        When an async receiver fails, the others are cancelled; one error is raised as it is, several as an
        ExceptionGroup (F7).
        """
        return await self._asend(self._route(sender), sender, named, _CATCH_NONE) if self._connections else []

    async def asend_robust(self, sender: object, **named: Any) -> _Responses:
        """Send from a coroutine so that all receivers run, as `send_robust` does (F9)."""
        return await self._asend(self._route(sender), sender, named, _CATCH) if self._connections else []

    def _send(self, route: Route, sender: object, named: dict[str, Any], catch: _Catch) -> _Responses:
        if not route or self._muted(sender):
            return []
        wait = self._waiter(route) if route.asynchronous else None
        responses = self._call(route, sender, named, catch)
        return responses + wait(self._acall(route, sender, named, catch)) if wait else responses

    async def _asend(self, route: Route, sender: object, named: dict[str, Any], catch: _Catch) -> _Responses:
        if not route or self._muted(sender):
            return []
        responses = self._call(route, sender, named, catch)
        return responses + await self._acall(route, sender, named, catch)

    def _muted(self, sender: object) -> bool:
        return any(mute.silences(self, sender) for mute in _mutes.get())

    def _call(self, route: Route, sender: object, named: dict[str, Any], catch: _Catch) -> _Responses:
        if "signal" in named:
            raise TypeError("the argument 'signal' is set by the signal itself")
        connections = self._accepting(route.sync, named) if route.optional else route.sync
        responses: _Responses = []
        for connection in connections:
            receiver = connection.reference()
            if receiver is None:
                continue
            connection.ran = True
            try:
                response = self._deliver(connection, receiver, sender, named)
            except catch as error:
                response = _failed(connection, error)
            responses.append((receiver, response))
        return responses

    def call_each(
        self, connections: Iterable[Connection], sender: object, named: dict[str, Any]
    ) -> _Responses:
        """Call the receivers of sync *connections*, in order, until one raises; the pairs of `send`."""
        return self._call(Route(connections), sender, named, _CATCH_NONE)

    async def _acall(self, route: Route, sender: object, named: dict[str, Any], catch: _Catch) -> _Responses:
        async def call(connection: Connection, receiver: Receiver) -> tuple[Receiver, Any]:
            connection.ran = True
            try:
                response = self._deliver(connection, receiver, sender, named)
                if inspect.isawaitable(response):
                    response = await response
            except catch as error:
                response = _failed(connection, error)
            return receiver, response

        connections = self._accepting(route.asynchronous, named)
        living = [(each, receiver) for each in connections if (receiver := each.reference()) is not None]
        if self.concurrent and len(living) > 1:
            responses: _Responses = await _waiting().side_by_side([call(*pair) for pair in living])
            return responses
        return [await call(*pair) for pair in living]

    def _check_sender(self, sender: object) -> None:
        """Anything can be a sender."""

    def _means(self, named: object, sender: object) -> bool:
        return named is sender

    def _accepting(self, connections: Iterable[Connection], named: Mapping[str, Any]) -> list[Connection]:
        return [each for each in connections if not each.options or self._accepts(each, named)]

    def _accepts(self, connection: Connection, named: Mapping[str, Any]) -> bool:
        return True

    def _deliver(
        self, connection: Connection, receiver: Receiver, sender: object, named: Mapping[str, Any]
    ) -> Any:
        return receiver(signal=self, sender=sender, **named)

    def _waiter(self, route: Route) -> Callable[[Coroutine[Any, Any, _Responses]], _Responses]:
        first = route.asynchronous[0]
        _waiting().refuse_running_loop(f"async receiver {first.module}.{first.qualname}")
        return run_coroutine


def receiver(
    signal_or_signals: Signal | list[Signal] | tuple[Signal, ...], /, **options: Any
) -> Callable[[_R], _R]:
    """Connect the function below to a signal, or to each of a list or tuple of them; return it as it is (B1).

    *options* go to each `connect` as they are. TypeError for anything else than signals (B2).
    """
    signals = _signals("receiver", signal_or_signals)

    def connect(function: _R) -> _R:
        for signal in signals:
            signal.connect(function, **options)
        return function

    return connect


class _Mute:
    """One `muted` block; *over* once it has ended, in every context that holds a copy."""

    __slots__ = ("over", "sender", "signals")

    def __init__(self, signals: tuple[Signal, ...], sender: object) -> None:
        self.signals = signals
        self.sender = sender
        self.over = False

    def silences(self, signal: Signal, sender: object) -> bool:
        if self.over or not any(muted is signal for muted in self.signals):
            return False
        return self.sender is ANY or signal._means(self.sender, sender)


_mutes: ContextVar[tuple[_Mute, ...]] = ContextVar("microorm.dispatch.mutes", default=())
mutes: Callable[[], tuple[object, ...]] = _mutes.get
"""The `muted` blocks that are open here."""


@contextmanager
def muted(
    signal_or_signals: Signal | list[Signal] | tuple[Signal, ...], sender: object = ANY
) -> Iterator[None]:
    """Silence a signal, or several, while the block runs; with *sender*, for that sender alone.

    It counts for this thread or task, and for tasks started in the block until the block ends. Blocks nest;
    connections stay as they are, and so does `has_listeners`. TypeError for anything else than signals; a sender
    that a signal's `connect` refuses is refused here, too.
    """
    mute = _Mute(_signals("muted", signal_or_signals), sender)
    if sender is not ANY:
        for signal in mute.signals:
            signal._check_sender(sender)
    _mutes.set((*_mutes.get(), mute))
    try:
        yield
    finally:
        mute.over = True
        # No Token.reset: a generator may be closed in another context than the one it was opened in.
        _mutes.set(tuple(each for each in _mutes.get() if each is not mute))


def run_coroutine(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run *coroutine* in this thread, by the runner that the thread keeps, and return its result.

    It shares the caller's context variables, also those that it sets (F10). RuntimeError, and the coroutine is
    closed, on a running event loop.
    """
    result: _T = _waiting().run(coroutine)
    return result


def _waiting() -> ModuleType:
    # Imported when the first async receiver runs: asyncio costs more than all the rest of this module.
    from microorm.dispatch import runner as waiting  # noqa: PLC0415

    return waiting


def _signals(taker: str, given: Signal | list[Signal] | tuple[Signal, ...]) -> tuple[Signal, ...]:
    signals = tuple(given) if isinstance(given, list | tuple) else (given,)
    for signal in signals:
        if not isinstance(signal, Signal):
            raise TypeError(f"{taker}() takes a signal, or a list or tuple of signals, not {signal!r}")
    return signals


def _failed(connection: Connection, error: Exception) -> Exception:
    """Log what a receiver raised in a robust send; the text is the same for asend_robust (E4)."""
    logger.error("Error calling %s in Signal.send_robust() (%s)", connection.qualname, error, exc_info=error)
    return error


Responses = list[tuple[Receiver, Any]]
Loop = Callable[[Any, Iterable[Connection], object, dict[str, Any]], Responses]

LOOP = """\
def call(signal, connections, sender, named):
    if len(named) != {count}:
        return otherwise(signal, connections, sender, named)
    try:
        {values}
    except KeyError:
        return otherwise(signal, connections, sender, named)
    responses = []
    for connection in connections:
        receiver = connection.reference()
        if receiver is not None:
            connection.ran = True
            responses.append((receiver, receiver(signal=signal, sender=sender{keywords})))
    return responses
"""
MOST_LOOPS = 1000  # a program that sends names made from data must not grow with them

loops: dict[tuple[str, ...], Loop] = {}


def call_by_names(
    signal: Any, connections: Iterable[Connection], sender: object, named: dict[str, Any]
) -> Responses:
    """Call the receivers of *connections* by the loop for the names in *named*, which *signal* keeps; the responses.

    Where there is no such loop, by the signal's own `call_each`.
    """
    names = tuple(named)
    loop = loops.get(names) or _make_loop(names)
    if loop is None:
        each: Responses = signal.call_each(connections, sender, named)
        return each
    signal._loop = loop
    return loop(signal, connections, sender, named)


def _make_loop(names: tuple[str, ...]) -> Loop | None:
    """The loop for *names*; None where they cannot be spelled out, or where there are too many loops."""
    ordinary = all(name.isascii() and name.isidentifier() and not iskeyword(name) for name in names)
    if not ordinary or "signal" in names or len(loops) >= MOST_LOOPS:
        return None
    values = "; ".join(f"v{place} = named[{name!r}]" for place, name in enumerate(names)) or "pass"
    keywords = "".join(f", {name}=v{place}" for place, name in enumerate(names))
    source = LOOP.format(count=len(names), values=values, keywords=keywords)
    namespace: dict[str, Any] = {"otherwise": call_by_names}
    exec(compile(source, "<call of a receiver>", "exec"), namespace)
    return loops.setdefault(names, namespace["call"])
