"""Receivers: what is known of a function that is connected to a signal. Standard library only.

A `Connection` refers to its receiver and its sender weakly where it can. When one of them dies, the garbage
collector calls nothing but the plain C function that was passed in (a deque's `append`): no lock, no Python code.

Listeners: who is connected to a signal, and who hears a sender. Standard library only.

Reading takes no lock: connecting changes one dictionary and then puts a new, empty one in the place of the cached
routes, so that a route computed meanwhile is dropped with the old one. A dying receiver is only noted down.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import FunctionType, MappingProxyType, MethodType
from typing import Any, Final, TypeVar

_T = TypeVar("_T")
Receiver = Callable[..., Any]
Flag = Callable[[Any], object]

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


class Connection:
    """One receiver connected to one signal, as `Signal.receivers` shows it.

    *wildcard* tells a connection to every sender from one whose sender has died; *ran* whether the receiver was
    ever called; *options* holds what a subclass of Signal was told at connect, and is empty otherwise. Calling
    *reference* gives the receiver, None once it has died.
    """

    __slots__ = (
        "_sender",
        "dispatch_uid",
        "file",
        "is_async",
        "line",
        "module",
        "options",
        "qualname",
        "ran",
        "reference",
        "volatile",
        "weak",
        "wildcard",
    )

    def __init__(
        self,
        receiver: Receiver,
        sender: object,
        dispatch_uid: object,
        options: Mapping[str, Any],
        *,
        weak: bool,
        flag: Flag,
    ) -> None:
        """Describe *receiver*; *flag* is called when it or *sender* dies. TypeError where it cannot be weak."""
        self.reference = _weak(receiver, flag) if weak else _strong(receiver)
        self.wildcard = sender is None
        self._sender = _weak_if_possible(sender, flag)
        self.dispatch_uid = dispatch_uid
        self.weak = weak
        self.options = MappingProxyType(dict(options)) if options else NO_OPTIONS
        self.is_async = is_async(receiver)
        self.ran = False
        self.volatile = weak and _lives_in_a_call(receiver)
        self.module, self.qualname, self.file, self.line = _origin(receiver)

    @property
    def receiver(self) -> Receiver | None:
        """The receiver itself; None once it has died."""
        return self.reference()

    @property
    def sender(self) -> object:
        """The sender whose signals the receiver gets; None for every sender, and once it has died."""
        return self._sender()

    @property
    def alive(self) -> bool:
        """Whether the receiver, and the sender if there is one, are still there."""
        return self.reference() is not None and (self.wildcard or self._sender() is not None)

    @property
    def place(self) -> str:
        """Where the receiver was written, `file:line`; its module where there is no source."""
        return f"{self.file}:{self.line}" if self.file else self.module

    def __repr__(self) -> str:
        return f"<Connection {self.module}.{self.qualname} at {self.place}>"


def check_receiver(receiver: object) -> None:
    """Refuse what a signal could not call: TypeError if not callable, ValueError if without `**kwargs` (E1).

    What counts is the signature of the very object that will be called, not of a function that it wraps (B4).
    """
    if not callable(receiver):
        raise TypeError(f"receiver is not callable: {receiver!r}")
    try:
        parameters = inspect.signature(receiver, follow_wrapped=False).parameters.values()
    except ValueError:  # something written in C that does not tell
        parameters = {}.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        raise ValueError(f"receiver does not accept **kwargs: {receiver!r}")


def connection_key(receiver: object, sender: object, dispatch_uid: object) -> Hashable:
    """What makes two connections the same: uid or identity of the receiver, and identity of the sender (A3).

    A falsy uid is none (A6). A bound method is made anew at each access, so its two halves count (A9).
    """
    if dispatch_uid:
        return ("uid", dispatch_uid, id(sender))
    if isinstance(receiver, MethodType):
        return (id(receiver.__self__), id(receiver.__func__), id(sender))
    return (id(receiver), id(sender))


def is_async(receiver: Receiver) -> bool:
    """Whether calling *receiver* gives something to await (F1).

    True for a coroutine function, a partial of one, an object whose `__call__` is one, and for whatever carries
    the standard library's marker or asgiref's, which is the same.
    """
    while isinstance(receiver, functools.partial):
        receiver = receiver.func
    return _is_coroutine_function(receiver) or _is_coroutine_function(type(receiver).__call__)


def _is_coroutine_function(function: object) -> bool:
    # Before Python 3.12 the marker was asyncio's; where asyncio was never imported, nothing carries it.
    marker = getattr(sys.modules.get("asyncio.coroutines"), "_is_coroutine", None)
    marked = marker is not None and getattr(function, "_is_coroutine", None) is marker
    return marked or inspect.iscoroutinefunction(function)


def _strong(held: _T) -> Callable[[], _T]:
    return lambda: held


def _weak(receiver: Receiver, flag: Flag) -> Callable[[], Receiver | None]:
    try:
        if isinstance(receiver, MethodType):
            return weakref.WeakMethod(receiver, flag)
        return weakref.ref(receiver, flag)
    except TypeError:
        raise TypeError(
            f"receiver cannot be referenced weakly, connect it with weak=False: {receiver!r}"
        ) from None


def _weak_if_possible(sender: object, flag: Flag) -> Callable[[], object]:
    try:
        return weakref.ref(sender, flag)
    except TypeError:  # None, a number, a string, an object with slots: kept alive with the connection
        return _strong(sender)


def _lives_in_a_call(receiver: Receiver) -> bool:
    """Whether *receiver* is of a kind that dies with the call that made it: lambda, nested function, partial."""
    if isinstance(receiver, FunctionType):
        name = receiver.__code__.co_qualname  # what functools.wraps cannot rename
        return "<locals>" in name or "<lambda>" in name
    return isinstance(receiver, functools.partial)


def _origin(receiver: Receiver) -> tuple[str, str, str | None, int | None]:
    """Module, qualified name, file and line of the function that *receiver* is, holds or wraps."""
    while isinstance(receiver, functools.partial):
        receiver = receiver.func
    named: Any = receiver if isinstance(getattr(receiver, "__qualname__", None), str) else type(receiver)
    code: object = None
    for function in (receiver, type(receiver).__call__):
        if code is None:
            code = getattr(inspect.unwrap(function), "__code__", None)
    file, line = getattr(code, "co_filename", None), getattr(code, "co_firstlineno", None)
    return str(getattr(named, "__module__", None)), named.__qualname__, file, line


_R = TypeVar("_R", bound=Receiver)


class ReceiverLostWarning(UserWarning):
    """A lambda, nested function or partial was connected weakly and died without ever having run.

    Nobody else held it. Keep a reference to it, or connect it with `weak=False`.
    """


class Route(tuple[Connection, ...]):
    """The connections that one sender's signals go to, in order; falsy when there are none.

    The same connections once more, by kind: *sync*, then *asynchronous*. *optional* tells whether any has options,
    *plain* that nothing but calls is wanted: there is a connection, and no async one nor any with options.
    """

    sync: tuple[Connection, ...]
    asynchronous: tuple[Connection, ...]
    optional: bool
    plain: bool

    def __new__(cls, connections: Iterable[Connection]) -> Route:
        route = super().__new__(cls, connections)
        route.sync = tuple(connection for connection in route if not connection.is_async)
        route.asynchronous = tuple(connection for connection in route if connection.is_async)
        route.optional = any(connection.options for connection in route)
        route.plain = bool(route) and not (route.asynchronous or route.optional)
        return route


EMPTY: Final = Route(())


class Listeners:
    """The connections of one signal: what `Signal` is before it sends."""

    def __init__(self) -> None:
        self._connections: dict[Hashable, Connection] = {}
        self._routes: dict[int, tuple[Callable[[], object], Route]] = {}
        self._dead: deque[object] = deque()
        # Re-entrant, since the garbage collector may run a finalizer that disconnects, in the middle of a connect.
        self._lock = threading.RLock()

    @property
    def receivers(self) -> tuple[Connection, ...]:
        """The live connections, in the order in which they were connected."""
        return tuple(connection for connection in list(self._connections.values()) if connection.alive)

    def connect(
        self,
        receiver: _R,
        sender: object = None,
        weak: bool = True,
        dispatch_uid: object = None,
    ) -> _R:
        """Call *receiver* at each send of *sender*, or at every send without one; return *receiver* (A1).

        Connecting the same receiver or *dispatch_uid* to the same sender again changes nothing (A3, A4). With
        *weak* the connection ends when the receiver dies. TypeError if the receiver is not callable or cannot be
        referenced weakly, ValueError if it does not accept `**kwargs` (E1, C5); nothing is connected then.
        """
        self._connect(receiver, sender, weak, dispatch_uid, NO_OPTIONS)
        return receiver

    def _connect(
        self,
        receiver: Receiver,
        sender: object,
        weak: bool,
        dispatch_uid: object,
        options: Mapping[str, Any],
    ) -> None:
        check_receiver(receiver)
        connection = Connection(receiver, sender, dispatch_uid, options, weak=weak, flag=self._dead.append)
        key = connection_key(receiver, sender, dispatch_uid)
        self._prune()
        with self._lock:
            known = self._connections.get(key)
            if known is None or not known.alive:
                self._connections.pop(key, None)  # what died just now must not lend its place in the order
                self._connections[key] = connection
                self._forget_routes()

    def disconnect(
        self, receiver: Receiver | None = None, sender: object = None, dispatch_uid: object = None
    ) -> bool:
        """End the connection made with the same arguments; whether there was one (A7, A16)."""
        self._prune()
        with self._lock:
            found = self._connections.pop(connection_key(receiver, sender, dispatch_uid), None)
            self._forget_routes()
        return found is not None

    def has_listeners(self, sender: object = None) -> bool:
        """Whether a send of *sender* would reach a receiver, muted or not (D6)."""
        return any(self._matches(each, sender) for each in self.receivers)

    def _matches(self, connection: Connection, sender: object) -> bool:
        return connection.wildcard or (sender is not None and connection.sender is sender)

    def _route(self, sender: object) -> Route:
        """Who hears *sender*: its cached route, EMPTY for nobody. Connections that died are dropped first."""
        if self._dead:
            self._prune()
        entry = self._routes.get(id(sender))
        if entry is not None and entry[0]() is sender:  # else a new object at a dead one's address (C9)
            return entry[1]
        return self._find_route(sender)

    def _find_route(self, sender: object) -> Route:
        routes, key = self._routes, id(sender)  # before the connections are read: see the top of the file
        connections = list(self._connections.values())
        route = Route(each for each in connections if each.alive and self._matches(each, sender)) or EMPTY
        if sender is None:
            routes[key] = (lambda: None, route)
            return route
        # What cannot be referenced weakly must not be kept alive, and so is looked up each time (D4).
        with contextlib.suppress(TypeError):
            routes[key] = (weakref.ref(sender, lambda _: routes.pop(key, None)), route)
        return route

    def _forget_routes(self) -> None:
        # Emptied as well as replaced: a route and its sender's reference would keep each other, and a strong receiver.
        routes, self._routes = self._routes, {}
        routes.clear()

    def _prune(self) -> None:
        """Drop the connections whose receiver or sender died, and warn of those that never had a chance."""
        if not self._dead:
            return
        with self._lock:
            self._dead.clear()
            dead = [(key, each) for key, each in list(self._connections.items()) if not each.alive]
            for key, _ in dead:
                self._connections.pop(key, None)
            self._forget_routes()
        for _, connection in dead:
            if connection.volatile and not connection.ran and connection.receiver is None:
                _warn_of_lost(connection)


_warned: dict[Any, int] = {}


def _warn_of_lost(connection: Connection) -> None:
    """Warn as if from the line where the receiver was written; not at exit, when everything dies."""
    if sys.is_finalizing():
        return
    warnings.warn_explicit(
        f"receiver {connection.qualname} ({connection.place}) died without ever having run",
        ReceiverLostWarning,
        connection.file or connection.module,
        connection.line or 0,
        connection.module,
        _warned,
    )
