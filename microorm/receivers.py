"""Receivers: what is known of a function that is connected to a signal. Standard library only.

A `Connection` refers to its receiver and its sender weakly where it can. When one of them dies, the garbage
collector calls nothing but the plain C function that was passed in (a deque's `append`): no lock, no Python code.
"""

from __future__ import annotations

import functools
import inspect
import sys
import weakref
from collections.abc import Callable, Hashable, Mapping
from types import FunctionType, MappingProxyType, MethodType
from typing import Any, TypeVar

__all__ = ["Connection", "Receiver", "check_receiver", "connection_key", "is_async"]

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
