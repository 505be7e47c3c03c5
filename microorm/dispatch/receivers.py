"""Connections between signals and receivers. Standard library only.

A `Connection` holds weak references to its receiver and sender where possible. When one of them is collected, the
garbage collector calls only a C function (the `append` of a deque): no lock is taken and no Python code runs. Dead
connections are removed at the next use of the signal.

Lookups take no lock either: connecting a receiver replaces the cache of routes by an empty one, so a route computed at
the same time is discarded with the old cache.
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

from microorm.messages import brief

_T = TypeVar("_T")
_R = TypeVar("_R", bound="Receiver")
Receiver = Callable[..., Any]
Flag = Callable[[Any], object]

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


class Connection:
    """A receiver connected to a signal, as found in `Signal.receivers`.

    *wildcard*: connected to every sender. *ran*: the receiver has been called at least once. *options*: the arguments
    that a subclass of Signal adds to `connect`. *stored*: a send does not call the receiver, but stores what another process
    will call it with. *reference()* returns the receiver, or None once it has been collected.
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
        "stored",
        "successor",
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
        """Connect *receiver* to *sender*; call *flag* when one of them is collected. Raises as `_weak` does."""
        self.reference = _weak(receiver, flag) if weak else _strong(receiver)
        self.wildcard = sender is None
        self._sender: Callable[[], object]
        try:
            self._sender = weakref.ref(sender, flag)
        except TypeError:  # None, a string, an object with slots: the connection keeps it alive
            self._sender = _strong(sender)
        self.dispatch_uid = dispatch_uid
        self.weak = weak
        self.options = MappingProxyType(dict(options)) if options else NO_OPTIONS
        self.is_async = is_async(receiver)
        self.stored = "stored" in self.options
        self.ran = False
        self.successor: Connection | None = None
        self.volatile = weak and _lives_in_a_call(receiver)
        self.module, self.qualname, self.file, self.line = source_location(receiver)

    @property
    def receiver(self) -> Receiver | None:
        """The receiver; None once it has been collected."""
        return self.reference()

    @property
    def sender(self) -> object:
        """The sender; None for every sender, and once it has been collected."""
        return self._sender()

    @property
    def alive(self) -> bool:
        """Whether neither the receiver nor the sender has been collected."""
        return self.reference() is not None and (self.wildcard or self._sender() is not None)

    @property
    def lost(self) -> bool:
        """Whether the receiver was collected before its first call, although it seems to have been meant to live."""
        return self.volatile and not self.ran and self.reference() is None

    @property
    def location(self) -> str:
        """The source of the receiver as `file:line`, or its module if there is no source."""
        return f"{self.file}:{self.line}" if self.file else self.module

    def replaces(self, older: Connection) -> bool:
        """Return whether this connection takes the place of *older*, which has the same key.

        It does if *older* has ended, or if a reload or a notebook has defined the receiver again: the same name, other
        code. Another function of the same code, such as a closure, takes over when the receiver of *older* is collected.
        """
        if not older.alive:
            return True
        if (self.module, self.qualname) != (older.module, older.qualname):
            return False
        function, earlier = _function(self.reference()), _function(older.reference())
        if getattr(function, "__code__", None) is not getattr(earlier, "__code__", None):
            return True
        if function is not earlier:
            older.successor = self
        return False

    @property
    def living_successor(self) -> Connection | None:
        """The connection that takes over now that this one has ended, or None."""
        return self.successor if self.successor is not None and self.successor.alive else None

    def __repr__(self) -> str:
        return f"<Connection {self.module}.{self.qualname} at {self.location}>"


def check_receiver(receiver: object, arguments: frozenset[str] | None = None) -> None:
    """Raise TypeError if *receiver* is not callable, ValueError if a signal with these *arguments* cannot call it.

    It must accept `**kwargs`, and need no other argument than *arguments*, signal and sender; None allows any. The
    signature of *receiver* itself counts, not that of a function it wraps.
    """
    if not callable(receiver):
        raise TypeError(f"receiver is not callable: {brief(receiver)}")
    try:
        parameters = [*inspect.signature(_called(receiver), follow_wrapped=False).parameters.values()]
    except ValueError:  # a C function without a signature
        parameters = []
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        raise ValueError(f"receiver does not accept **kwargs: {brief(receiver)}")
    if arguments is not None:
        _check_arguments(receiver, parameters, sorted(arguments | {"signal", "sender"}))


def _check_arguments(receiver: Any, parameters: list[inspect.Parameter], sent: list[str]) -> None:
    """Raise ValueError if *receiver* needs an argument that is not *sent*; warn if it seems to misspell one."""
    bound = receiver.keywords if isinstance(receiver, functools.partial) else {}
    free = [name for name in sent if name not in {parameter.name for parameter in parameters}]
    for parameter in parameters:
        needed = parameter.default is parameter.empty
        if parameter.kind not in _NAMED or parameter.name in bound:
            continue
        if parameter.name in sent:
            if needed and parameter.kind is parameter.POSITIONAL_ONLY:
                raise ValueError(
                    f"receiver takes {parameter.name!r} by position, but gets keywords: {brief(receiver)}"
                )
        elif needed:
            raise ValueError(
                f"receiver needs the argument {parameter.name!r}, which this signal does not have: {brief(receiver)}; "
                f"it has: {', '.join(map(repr, sent))}{_nearest(parameter.name, free, 0.6)}"
            )
        elif near := _nearest(parameter.name, free, 0.8):
            text = f"receiver always gets the default of {parameter.name!r}, which this signal does not have{near}"
            module, _, file, line = source_location(receiver)
            warn_at(text, RuntimeWarning, module, file, line)


def _nearest(name: str, known: list[str], cutoff: float) -> str:
    """Return the *known* name that is most similar to *name* as the end of a message, or an empty string."""
    from difflib import get_close_matches  # noqa: PLC0415 only misspelt names need it

    return "".join(f"; nearest: {near!r}" for near in get_close_matches(name, known, n=1, cutoff=cutoff))


_NAMED = frozenset(
    {
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    }
)


def _called(receiver: Any) -> Any:
    """Return what *receiver* calls with its own arguments where `inspect` does not find its signature.

    That is the function of an object in C, such as a staticmethod or lru_cache, and the `__call__` of a descriptor.
    """
    if isinstance(receiver, functools.partial):
        return functools.partial(_called(receiver.func), *receiver.args, **receiver.keywords)
    if type(receiver) is MethodType:
        return MethodType(_called(receiver.__func__), receiver.__self__)
    call = type(receiver).__call__
    if type(receiver) is FunctionType or isinstance(call, FunctionType):
        opaque = inspect.ismethoddescriptor(receiver) and not hasattr(receiver, "__signature__")
        return MethodType(call, receiver) if opaque else receiver
    wrapped = getattr(receiver, "__wrapped__", None)
    return _called(wrapped) if callable(wrapped) else receiver


def _function(receiver: Any) -> Any:
    """Return the function that *receiver* is made of: that of a method or partial, or the `__call__` of its class."""
    receiver = _called(receiver)
    while isinstance(receiver, functools.partial):
        receiver = receiver.func
    if isinstance(receiver, MethodType):
        return receiver.__func__
    return receiver if isinstance(receiver, FunctionType) else type(receiver).__call__


def connection_key(receiver: object, sender: object, dispatch_uid: object) -> Hashable:
    """Identify a connection by its uid, or by its receiver if that is falsy, and its sender."""
    if dispatch_uid:
        return ("uid", dispatch_uid, id(sender))
    # A bound method is a new object at each access.
    if isinstance(receiver, MethodType):
        return (id(receiver.__self__), id(receiver.__func__), id(sender))
    return (id(receiver), id(sender))


def is_async(receiver: Receiver) -> bool:
    """Whether *receiver* is a coroutine function, a partial of one, or an object whose `__call__` is one.

    Functions that `inspect.markcoroutinefunction` or asgiref has marked count as coroutine functions.
    """
    called = _called(receiver)
    while isinstance(receiver, functools.partial):
        receiver = receiver.func
    while isinstance(called, functools.partial):
        called = called.func
    return (
        _is_coroutine_function(called)
        or _is_coroutine_function(receiver)
        or _is_coroutine_function(type(receiver).__call__)
    )


def _is_coroutine_function(function: object) -> bool:
    # Before Python 3.12 the marker was asyncio's; without asyncio, no function can have it.
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
            f"receiver cannot be referenced weakly, connect it with weak=False: {brief(receiver)}"
        ) from None


def _lives_in_a_call(receiver: Receiver) -> bool:
    """Whether *receiver* is a lambda, nested function or partial, which may be collected when its creator returns."""
    if isinstance(receiver, FunctionType):
        name = receiver.__code__.co_qualname  # functools.wraps does not change it
        return "<locals>" in name or "<lambda>" in name
    return isinstance(receiver, functools.partial)


def source_location(receiver: Receiver) -> tuple[str, str, str | None, int | None]:
    """Return module, qualified name, file and line of *receiver*, or of the function that it wraps."""
    while isinstance(receiver, functools.partial):
        receiver = receiver.func
    named: Any = receiver if isinstance(getattr(receiver, "__qualname__", None), str) else type(receiver)
    code: object = None
    for function in (receiver, type(receiver).__call__):
        if code is None:
            code = getattr(inspect.unwrap(function), "__code__", None)
    file, line = getattr(code, "co_filename", None), getattr(code, "co_firstlineno", None)
    return str(getattr(named, "__module__", None)), named.__qualname__, file, line


class ReceiverLostWarning(UserWarning):
    """A weakly connected lambda, nested function or partial was collected before it was ever called.

    Keep a reference to it, or connect it with `weak=False`.
    """


class Route(tuple[Connection, ...]):
    """The connections that receive the signals of one sender, in order.

    *sync*, *asynchronous*: the connections to call, by kind. *stored*: the others. *optional*: at least one has options.
    *plain*: there are connections, all of them sync and without options.
    """

    sync: tuple[Connection, ...]
    asynchronous: tuple[Connection, ...]
    stored: tuple[Connection, ...]
    optional: bool
    plain: bool

    def __new__(cls, connections: Iterable[Connection]) -> Route:
        route = super().__new__(cls, connections)
        called = [connection for connection in route if not connection.stored]
        route.sync = tuple(connection for connection in called if not connection.is_async)
        route.asynchronous = tuple(connection for connection in called if connection.is_async)
        route.stored = tuple(connection for connection in route if connection.stored)
        route.optional = any(connection.options for connection in route)
        route.plain = bool(route) and not (route.asynchronous or route.optional)
        return route


EMPTY: Final = Route(())


class CachedRoute:
    """The *route* of the sender that *sender()* returns, until it is collected.

    *references*: those to the receivers of a plain route, once all have run, so that it need not be noted again.
    """

    __slots__ = ("references", "route", "sender")

    def __init__(self, sender: Callable[[], object], route: Route) -> None:
        self.sender = sender
        self.route = route
        self.references: tuple[Callable[[], Receiver | None], ...] | None = None


class Listeners:
    """The connections of one signal, and the routes by sender; the base of `Signal`."""

    def __init__(self, arguments: Iterable[str] | None = None) -> None:
        self._arguments = None if arguments is None else frozenset(arguments)
        self._connections: dict[Hashable, Connection] = {}
        self._routes: dict[int, CachedRoute] = {}
        self._dead: deque[object] = deque()
        self._unwarned = 0  # lost connections that a use without warnings has left
        # Re-entrant: a finalizer that disconnects may run in the middle of a connect.
        self._lock = threading.RLock()

    @property
    def receivers(self) -> tuple[Connection, ...]:
        """The live connections, in the order in which they were connected."""
        return tuple(connection for connection in list(self._connections.values()) if connection.alive)

    def connect(
        self, receiver: _R, sender: object = None, weak: bool = True, dispatch_uid: object = None
    ) -> _R:
        """Call *receiver* whenever *sender* (or anything, if None) sends this signal; return *receiver*.

        Connecting the same receiver or *dispatch_uid* to the same sender again changes nothing, unless a reload or a
        notebook has defined the receiver again: then the new function takes the place of the old one. With *weak*, the
        connection ends when the receiver is collected.

        Raises TypeError if the receiver is not callable or cannot be referenced weakly, ValueError if it does not accept
        `**kwargs`, or needs an argument that the signal is known not to have.
        """
        self._connect(receiver, sender, weak, dispatch_uid, NO_OPTIONS)
        return receiver

    def _connect(
        self, receiver: Receiver, sender: object, weak: bool, dispatch_uid: object, options: Mapping[str, Any]
    ) -> None:
        check_receiver(receiver, self._arguments_for(options))
        connection = Connection(receiver, sender, dispatch_uid, options, weak=weak, flag=self._dead.append)
        key = connection_key(receiver, sender, dispatch_uid)
        self._prune()
        with self._lock:
            known = self._connections.get(key)
            if known is not None and not known.alive:
                del self._connections[key]  # else its position would be kept
            if known is None or connection.replaces(known):
                self._connections[key] = connection
                self._forget_routes()

    def _arguments_for(self, options: Mapping[str, Any]) -> frozenset[str] | None:
        """Return the names of the arguments that a receiver with *options* gets, if they are known."""
        return self._arguments

    def disconnect(
        self, receiver: Receiver | None = None, sender: object = None, dispatch_uid: object = None
    ) -> bool:
        """Remove the connection made with the same *receiver* or *dispatch_uid*, and *sender*; return whether there was one."""
        self._prune()
        with self._lock:
            found = self._connections.pop(connection_key(receiver, sender, dispatch_uid), None)
            self._forget_routes()
        return found is not None

    def has_listeners(self, sender: object = None) -> bool:
        """Whether a signal of *sender* would be received, muted or not."""
        if len(self._dead) > self._unwarned:
            self._drop_dead(warn=False)
        cached = self._routes.get(id(sender))
        if cached is not None and cached.sender() is sender:
            return bool(cached.route)
        return bool(self._find_route(sender))

    def _matches(self, connection: Connection, sender: object) -> bool:
        return connection.wildcard or (sender is not None and connection.sender is sender)

    def _route(self, sender: object) -> Route:
        """Return the cached connections of *sender*, after removing dead ones; EMPTY if there are none."""
        if self._dead:
            self._prune()
        cached = self._routes.get(id(sender))
        if cached is not None and cached.sender() is sender:  # not a new object with the same id
            return cached.route
        return self._find_route(sender)

    def _find_route(self, sender: object) -> Route:
        routes, key = self._routes, id(sender)  # before the connections are read: see the module's docstring
        connections = list(self._connections.values())
        route = Route(each for each in connections if each.alive and self._matches(each, sender)) or EMPTY
        if sender is None:
            routes[key] = CachedRoute(lambda: None, route)
            return route
        # A sender without weak references is not cached, since the cache would keep it alive.
        with contextlib.suppress(TypeError):
            routes[key] = CachedRoute(weakref.ref(sender, lambda _: routes.pop(key, None)), route)
        return route

    def _note_run(self, sender: object, route: Route) -> None:
        """Note that all receivers of the plain *route* have run."""
        cached = self._routes.get(id(sender))
        if cached is not None and cached.route is route and cached.references is None:
            cached.references = tuple([connection.reference for connection in route])

    def _forget_routes(self) -> None:
        # Cleared as well as replaced: the old routes are in a reference cycle with their senders' references.
        routes, self._routes = self._routes, {}
        routes.clear()

    def _prune(self) -> None:
        """Remove dead connections; warn of receivers that were lost before their first call."""
        if self._dead:
            self._drop_dead(warn=True)

    def _drop_dead(self, *, warn: bool) -> None:
        """Remove dead connections; those to warn of only with *warn*, else at the next use that warns."""
        with self._lock:
            self._dead.clear()
            lost = [each for each in self._remove_dead(keep_lost=not warn) if each.lost]
            self._forget_routes()
            self._unwarned = 0 if warn else len(lost)
            self._dead.extend([] if warn else lost)
        for connection in (
            lost if warn and not sys.is_finalizing() else ()
        ):  # at exit, everything is collected
            _warn_of_lost(connection)

    def _remove_dead(self, *, keep_lost: bool) -> list[Connection]:
        """Remove the dead connections, except the lost ones if *keep_lost*; return those that no other takes over from."""
        dead = []
        for key, connection in list(self._connections.items()):
            if connection.alive:
                continue
            if (successor := connection.living_successor) is not None:
                self._connections[key] = successor
                continue
            if not (keep_lost and connection.lost):
                self._connections.pop(key, None)
            dead.append(connection)
        return dead


_warned: dict[Any, int] = {}  # the registry of warnings, as a module's __warningregistry__


def _warn_of_lost(connection: Connection) -> None:
    text = f"receiver {connection.qualname} ({connection.location}) was garbage-collected before it was ever called; connect it with weak=False"
    warn_at(text, ReceiverLostWarning, connection.module, connection.file, connection.line)


def warn_at(text: str, category: type[Warning], module: str, file: str | None, line: int | None) -> None:
    """Warn at the *line* that defines a receiver."""
    warnings.warn_explicit(text, category, file or module, line or 0, module, _warned)
