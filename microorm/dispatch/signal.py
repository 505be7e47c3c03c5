"""Signals: send one, connect functions to it, silence it. Standard library only: no model, no database."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any, ClassVar, Final, TypeVar

from microorm.dispatch.receivers import Connection, Listeners, Receiver, Route
from microorm.instrumentation import NOTHING, RECEIVER, SIGNAL, Step, exceptions, note, separately, watchers
from microorm.messages import brief

logger = logging.getLogger("microorm.dispatch")

_R = TypeVar("_R", bound=Receiver)
_T = TypeVar("_T")
_Responses = list[tuple[Receiver, Any]]
_Catch = tuple[type[Exception], ...]

_CATCH: _Catch = (Exception,)
_CATCH_NONE: _Catch = ()
_SIGNAL_GIVEN = "send() passes signal= itself; it is not an argument"

ANY: Final = object()


class Signal(Listeners):
    """An event that functions can be connected to.

    *arguments*: the names of all arguments that are sent, if they are known. A receiver that needs another one is
    refused when it connects.

    Subclasses may use and override these, and no other name with an underscore:

    - `_connect(receiver, sender, weak, dispatch_uid, options)` connects; *options* are stored in the Connection.
    - `_matches(connection, sender)`: whether the connection receives signals of *sender*. The answer is cached until
      a receiver is connected or disconnected.
    - `_route(sender)`: the cached connections of *sender*; `if signal._route(sender):` is a cheap `has_listeners`.
    - `_check_sender(sender)` raises an error for an object that cannot be a sender.
    - `_is_muted_by(muted, sender)`: whether `muted(signal, sender=muted)` silences *sender*.
    - `_accepts(connection, named)`: whether to call a connection with options; asked at each send.
    - `_deliver(connection, receiver, sender, named)` calls the receiver of a connection with options; receivers
      without options may be called directly. Its result is awaited if it is awaitable and the receiver async.
    - `_runner(route)`: the function by which `send` runs async receivers. Called before any receiver runs; raises an
      error if coroutines cannot be run here.
    - `instead`: the end of that error, which says what to write.
    - `concurrent`: run async receivers concurrently, rather than one by one until the first error.
    """

    concurrent: ClassVar[bool] = True
    instead: ClassVar[str] = "; await asend() instead of send()"

    def send(self, sender: object, **named: Any) -> _Responses:
        """Call the sync receivers, then the async ones, in order; return `(receiver, response)` pairs.

        Those are called that are connected to *sender* or to all senders, each with *sender* and the arguments *named*.
        The first error is raised unchanged, and later receivers do not run. Async receivers run concurrently in this
        thread; on a running event loop RuntimeError is raised before any receiver runs. Raises TypeError for an argument
        that is called `signal`, which the receivers get anyway.
        """
        cached = self._routes.get(id(sender))  # `_route` without the cost of a call
        if (
            cached is None
            or cached.references is None
            or cached.sender() is not sender
            or self._dead
            or exceptions
        ):
            return self._send(self._route(sender), sender, named, _CATCH_NONE) if self._connections else []
        if "signal" in named:
            raise TypeError(_SIGNAL_GIVEN)
        named["signal"] = self
        named["sender"] = sender
        responses: _Responses = []  # `_call` without options and errors to handle
        for reference in cached.references:
            if (receiver := reference()) is not None:
                responses.append((receiver, receiver(**named)))
        return responses

    def receivers_for(self, sender: object = None) -> tuple[Connection, ...]:
        """Return the connections that a signal of *sender* would reach, muted or not, in the order of their calls.

        Sync receivers come before async ones; what is delivered later, such as after a commit, is among them. Raises what
        `connect` raises for an invalid sender.
        """
        self._check_sender(sender)
        route = self._route(sender)
        return tuple(each for each in (*route.stored, *route.sync, *route.asynchronous) if each.alive)

    def send_robust(self, sender: object, **named: Any) -> _Responses:
        """Send to all receivers: an Exception is logged and becomes the response of its receiver.

        *sender*, the arguments *named* and the return value are those of `send`.
        """
        return self._send(self._route(sender), sender, named, _CATCH) if self._connections else []

    async def asend(self, sender: object, **named: Any) -> _Responses:
        """Send from a coroutine: call sync receivers directly, in order, then run the async ones concurrently.

        *sender*, the arguments *named* and the return value are those of `send`. If an async receiver fails, the others
        are cancelled. A single error is raised unchanged, several as an ExceptionGroup.
        """
        return await self._asend(self._route(sender), sender, named, _CATCH_NONE) if self._connections else []

    async def asend_robust(self, sender: object, **named: Any) -> _Responses:
        """Send from a coroutine to all receivers, handling errors as `send_robust` does.

        *sender* and the arguments *named* are those of `send`.
        """
        return await self._asend(self._route(sender), sender, named, _CATCH) if self._connections else []

    def _send(self, route: Route, sender: object, named: dict[str, Any], catch: _Catch) -> _Responses:
        if not route:
            return []
        if watchers:
            with Step(SIGNAL, (self, sender)):
                return self._send_to(route, sender, named, catch)
        return self._send_to(route, sender, named, catch)

    def _send_to(self, route: Route, sender: object, named: dict[str, Any], catch: _Catch) -> _Responses:
        if self._muted(sender):
            return []
        run = self._runner(route) if route.asynchronous else None
        responses = self._call(route, sender, named, catch)
        if route.plain:
            self._note_run(sender, route)
        return responses + run(self._acall(route, sender, named, catch)) if run else responses

    async def _asend(self, route: Route, sender: object, named: dict[str, Any], catch: _Catch) -> _Responses:
        if not route:
            return []
        with Step(SIGNAL, (self, sender)) if watchers else NOTHING:
            return await self._asend_to(route, sender, named, catch)

    async def _asend_to(
        self, route: Route, sender: object, named: dict[str, Any], catch: _Catch
    ) -> _Responses:
        if self._muted(sender):
            return []
        responses = self._call(route, sender, named, catch)
        return responses + await self._acall(route, sender, named, catch)

    def _muted(self, sender: object) -> bool:
        mutes = _mutes.get()
        silent = bool(mutes) and any(mute.silences(self, sender) for mute in mutes)
        if silent and watchers:
            note(muted=True)
        return silent

    def _call(self, route: Route, sender: object, named: dict[str, Any], catch: _Catch) -> _Responses:
        if "signal" in named:
            raise TypeError(_SIGNAL_GIVEN)
        connections = self._accepting(route.sync, named) if route.optional else route.sync
        deliver = self._deliver_watched if watchers else self._deliver
        responses: _Responses = []
        for connection in connections:
            receiver = connection.reference()
            if receiver is None:
                continue
            connection.ran = True
            try:
                response = deliver(connection, receiver, sender, named)
            except catch as error:
                response = _failed(connection, error)
            responses.append((receiver, response))
        return responses

    async def _acall(self, route: Route, sender: object, named: dict[str, Any], catch: _Catch) -> _Responses:
        async def call(connection: Connection, receiver: Receiver) -> tuple[Receiver, Any]:
            connection.ran = True
            try:
                with Step(RECEIVER, connection) if watchers else NOTHING:
                    response = self._deliver(connection, receiver, sender, named)
                    if inspect.isawaitable(response):
                        response = await response
            except catch as error:
                response = _failed(connection, error)
            return receiver, response

        connections = self._accepting(route.asynchronous, named)
        living = [(each, receiver) for each in connections if (receiver := each.reference()) is not None]
        if self.concurrent and len(living) > 1:
            calls: list[Any] = [call(*pair) for pair in living]
            if watchers:
                calls = list(map(separately, calls))
            responses: _Responses = await _runner_module().run_concurrently(calls)
            return responses
        return [await call(*pair) for pair in living]

    def _check_sender(self, sender: object) -> None:
        """Anything can be a sender."""

    def _is_muted_by(self, muted: object, sender: object) -> bool:
        return muted is sender

    def _accepting(self, connections: Iterable[Connection], named: Mapping[str, Any]) -> list[Connection]:
        return [each for each in connections if not each.options or self._accepts(each, named)]

    def _accepts(self, connection: Connection, named: Mapping[str, Any]) -> bool:
        return True

    def _deliver(
        self, connection: Connection, receiver: Receiver, sender: object, named: Mapping[str, Any]
    ) -> Any:
        return receiver(signal=self, sender=sender, **named)

    def _deliver_watched(
        self, connection: Connection, receiver: Receiver, sender: object, named: Mapping[str, Any]
    ) -> Any:
        with Step(RECEIVER, connection):
            return self._deliver(connection, receiver, sender, named)

    def _runner(self, route: Route) -> Callable[[Coroutine[Any, Any, _Responses]], _Responses]:
        first = route.asynchronous[0]
        refuse_running_loop(f"async receiver {first.module}.{first.qualname}", self.instead)
        return run_coroutine


_Signals = Signal | list[Signal] | tuple[Signal, ...]


def receiver(signal_or_signals: _Signals, /, **options: Any) -> Callable[[_R], _R]:
    """Connect the decorated function to a signal, or to each signal in a list or tuple (*signal_or_signals*).

    Example: `@receiver(post_save, sender=Book, delivery="on_commit")` above the function.

    *options* are passed to `connect`. Raises TypeError if an object is not a signal.
    """
    signals = _signals("receiver", signal_or_signals)

    def connect(function: _R) -> _R:
        for signal in signals:
            signal.connect(function, **options)
        return function

    return connect


class _Mute:
    """One `muted` block; *over* is set when it ends, for every context that has inherited it."""

    __slots__ = ("over", "sender", "signals")

    def __init__(self, signals: tuple[Signal, ...], sender: object) -> None:
        self.signals = signals
        self.sender = sender
        self.over = False

    def silences(self, signal: Signal, sender: object) -> bool:
        if self.over or not any(muted is signal for muted in self.signals):
            return False
        return self.sender is ANY or signal._is_muted_by(self.sender, sender)


_mutes: ContextVar[tuple[_Mute, ...]] = ContextVar("microorm.dispatch.mutes", default=())


@contextmanager
def muted(signal_or_signals: _Signals, sender: object = ANY) -> Iterator[None]:
    """Silence one or more signals inside the block, optionally only for one *sender*.

    Example: `with muted(post_save, sender=Book): ...`. *signal_or_signals*: a signal, or a list or tuple of signals.
    This applies to the current thread or task, and to tasks started in the block, until the block ends. Blocks can be
    nested. Connections and `has_listeners` do not change. Raises TypeError if an object is not a signal, and whatever
    `connect` raises for an invalid sender.
    """
    mute = _Mute(_signals("muted", signal_or_signals), sender)
    if sender is not ANY:
        for signal in mute.signals:
            signal._check_sender(sender)
    try:
        exceptions.add(mute)  # while there are none in any context, a send need not look for those of its own
        _mutes.set((*_mutes.get(), mute))
        yield
    finally:
        mute.over = True
        exceptions.discard(mute)
        # Not Token.reset: a generator may be closed in a different context from the one that opened it.
        _mutes.set(tuple(each for each in _mutes.get() if each is not mute))


def run_coroutine(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run *coroutine* on this thread's event loop and return its result, as `runner.run` does."""
    result: _T = _runner_module().run(coroutine)
    return result


def refuse_running_loop(what: str, instead: str = "") -> None:
    """Raise RuntimeError if the coroutine function *what* would have to wait for the running event loop.

    *instead*: what to write, as the end of the message.
    """
    _runner_module().refuse_running_loop(what, instead)


def _runner_module() -> ModuleType:
    from microorm.dispatch import runner  # noqa: PLC0415 asyncio is loaded with the first async receiver

    return runner


def _signals(function: str, given: _Signals) -> tuple[Signal, ...]:
    signals = tuple(given) if isinstance(given, list | tuple) else (given,)
    for signal in signals:
        if not isinstance(signal, Signal):
            raise TypeError(
                f"{function}() takes a signal, or a list or tuple of signals, not {brief(signal)}"
            )
    return signals


def _failed(connection: Connection, error: Exception) -> Exception:
    """Log *error*, with the text of Django's log message, and return it as the response."""
    logger.error("Error calling %s in Signal.send_robust() (%s)", connection.qualname, error, exc_info=error)
    return error
