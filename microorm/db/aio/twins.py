"""Twins: coroutine functions made of synchronous ones, such as `Model.asave` of `Model.save`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

from microorm.db.engines.urls import cannot_await

if TYPE_CHECKING:
    from microorm.db.aio.loops import EventLoop

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


async def run(function: Callable[P, R], /, *args: P.args, **named: P.kwargs) -> R:
    """Call the synchronous *function* in this coroutine, so that it awaits the database, and return what it returns.

    Raises `ConfigurationError` if the extra `async` is not installed.
    """
    returned: R = await _calls().run(function, *args, **named)
    return returned


def event_loop(function: Callable[..., Any]) -> EventLoop:
    """Return what is kept for the running event loop. Raises as `run` of *function*."""
    loop: EventLoop = _calls().here(function)
    return loop


_loaded: Any = None  # the module `calls`, since to import it again for each call takes time


def _calls() -> Any:
    global _loaded
    if _loaded is None:
        try:
            from microorm.db.aio import calls  # noqa: PLC0415 greenlet is an extra, and asyncio is slow to load
        except ModuleNotFoundError as error:
            raise cannot_await(error) from error
        _loaded = calls
    return _loaded


def function_twin(function: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    """Return a coroutine function with the signature of the *function* of a module, which does the same, awaited."""

    @wraps(function)
    async def awaited(*args: P.args, **named: P.kwargs) -> R:
        return await run(function, *args, **named)

    return cast(Callable[P, Coroutine[Any, Any, R]], _as_twin(awaited, function))


def _as_twin(awaited: Any, function: Callable[..., Any]) -> Any:
    """Give the coroutine function *awaited* the name and the docstring of the twin of *function*."""
    name = function.__name__
    outer, _, _ = function.__qualname__.rpartition(name)
    awaited.__name__ = f"a{name.lstrip('_')}"
    awaited.__qualname__ = outer + awaited.__name__
    awaited.__doc__ = f"Do what `{name}` does, awaited on the running event loop.\n\n{function.__doc__ or ''}"
    return awaited


if TYPE_CHECKING:

    class twin(Generic[S, P, R]):
        """The coroutine function of a method."""

        def __init__(self, method: Callable[Concatenate[S, P], R]) -> None: ...

        @overload
        def __get__(
            self, instance: None, owner: Any
        ) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]: ...
        @overload
        def __get__(self, instance: S, owner: Any) -> Callable[P, Coroutine[Any, Any, R]]: ...
        def __get__(self, instance: Any, owner: Any) -> Any: ...

else:

    def twin(method):
        """Return a coroutine function with the signature of *method*, which does the same, awaited.

        It runs the method of that name of the instance, so that a subclass overrides both by overriding one.
        """
        name = method.__name__

        @wraps(method)
        async def awaited(self, /, *args, **named):
            return await _calls().run(getattr(self, name), *args, **named)

        return _as_twin(awaited, method)
