"""Listeners: who is connected to a signal, and who hears a sender. Standard library only.

Reading takes no lock: connecting changes one dictionary and then puts a new, empty one in the place of the cached
routes, so that a route computed meanwhile is dropped with the old one. A dying receiver is only noted down.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Final, TypeVar

from microorm.receivers import NO_OPTIONS, Connection, Receiver, check_receiver, connection_key

__all__ = ["EMPTY", "Listeners", "ReceiverLostWarning", "Route"]

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
