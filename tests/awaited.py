"""Awaited: the same tests once more, on an event loop, by the methods that are awaited.

A test whose `way` is "awaited" runs, with its fixtures, in one awaited call: all that it asks of a database goes to the
driver for asyncio. Besides, what it calls itself goes through what a coroutine would write: `book.save()` awaits
`book.asave()`, `with atomic():` is `async with atomic():`, and `for book in query:` is `async for book in query:`. What
microorm calls inside of that is not replaced, nor what other threads call.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import wraps
from types import FunctionType
from typing import Any, TypeVar

import pytest
from greenlet import getcurrent, greenlet
from sqlalchemy.util import await_only

import microorm
from microorm.db.aio import calls
from microorm.db.atomic import Atomic
from microorm.db.context import EAGER, open_scopes
from microorm.query.results import Results
from microorm.query.stream import Stream
from microorm.relations.related_query import RelatedQuery

T = TypeVar("T")

AWAITED = "awaited"

CLASSES = (microorm.Model, RelatedQuery, microorm.Registry, microorm.Databases, Stream)


class AwaitedTests:
    """The plugin that runs such tests."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> object:
        """Run *item* in an awaited call of a new event loop."""
        params = (
            item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        )
        if params.get("way") != AWAITED:
            return None
        runner: Any = item.config.pluginmanager.getplugin("runner")
        return asyncio.run(calls.run(_run, runner.pytest_runtest_protocol, item, nextitem))


def not_awaited(function: Callable[[], T]) -> T:
    """Return what *function* returns where nothing can be awaited, as in another thread."""
    result: T = greenlet(function).switch()
    return result


def _run(protocol: Callable[..., object], item: pytest.Function, nextitem: pytest.Item | None) -> object:
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, replaced in _replacements(item.module):
            patch.setattr(owner, name, replaced)
        return protocol(item, nextitem)


def _replacements(module: Any) -> Iterator[tuple[Any, str, Any]]:
    """Yield what takes the place of methods, and of `prefetch` in the *module* of the test, while it runs."""
    here = getcurrent()
    for owner in {base: None for cls in CLASSES for base in cls.__mro__}:
        for name, method in list(vars(owner).items()):
            if isinstance(method, FunctionType) and inspect.iscoroutinefunction(
                getattr(owner, f"a{name}", None)
            ):
                yield owner, name, _by_twin(here, name, method)
    yield Results, "__iter__", _by_async_for(here, Results.__iter__)
    yield Stream, "__iter__", _by_steps(here, Stream.__iter__)
    yield (
        microorm.Model,
        "_follow",
        _by_aload(here, microorm.Model._follow, lambda relation, key: relation.name),
    )
    yield microorm.Model, "_load_deferred", _by_aload(here, microorm.Model._load_deferred, lambda name: name)
    for name in [name for name, value in vars(module).items() if value is microorm.prefetch]:
        yield module, name, _by_function_twin(here, microorm.prefetch, microorm.aprefetch)
    blocks = _Entered(here)
    yield Atomic, "__enter__", blocks.entering(Atomic.__enter__)
    yield Atomic, "leave", blocks.leaving(Atomic.leave)


def _by_twin(here: Any, name: str, method: Any) -> Any:
    @wraps(method)
    def call(self: Any, /, *args: Any, **named: Any) -> Any:
        # What overrides the method is called by its twin, too; here it calls this one, by `super()`.
        if getcurrent() is not here or getattr(type(self), name) is not call:
            return method(self, *args, **named)
        return await_only(getattr(self, f"a{name}")(*args, **named))

    return call


def _by_aload(here: Any, method: Any, name_of: Callable[..., str]) -> Any:
    @wraps(method)
    def load(self: Any, *args: Any) -> Any:
        # `aload` loads inside `no_lazy_loads()` as well, where an attribute is to be refused.
        lazy = getcurrent() is not here or any(each.kind is EAGER for each in open_scopes(None))
        return method(self, *args) if lazy else await_only(self.aload(name_of(*args)))

    return load


def _by_function_twin(here: Any, function: Any, twin: Any) -> Any:
    @wraps(function)
    def call(*args: Any, **named: Any) -> Any:
        return await_only(twin(*args, **named)) if getcurrent() is here else function(*args, **named)

    return call


def _by_async_for(here: Any, method: Any) -> Any:
    async def loaded(query: Any) -> list[Any]:
        return [instance async for instance in query]

    @wraps(method)
    def iterate(self: Any) -> Any:
        return iter(await_only(loaded(self))) if getcurrent() is here else method(self)

    return iterate


def _by_steps(here: Any, method: Any) -> Any:
    def steps(stream: Any) -> Iterator[Any]:
        instances = aiter(stream)
        try:
            while True:
                try:
                    instance = await_only(anext(instances))
                except StopAsyncIteration:
                    return
                yield instance
        finally:
            await_only(instances.aclose())

    @wraps(method)
    def iterate(self: Any) -> Any:
        return steps(self) if getcurrent() is here else method(self)

    return iterate


class _Entered:
    """The blocks that were entered by `async with`, each with what leaves it."""

    def __init__(self, here: Any) -> None:
        self._here = here
        self._open: list[tuple[Any, Any]] = []

    def entering(self, method: Any) -> Any:
        """Return what takes the place of `__enter__`."""

        @wraps(method)
        def enter(block: Any) -> None:
            if getcurrent() is not self._here:
                method(block)
                return
            held = _held(block)
            await_only(held.__aenter__())
            self._open.append((block, held))

        return enter

    def leaving(self, method: Any) -> Any:
        """Return what takes the place of `__exit__`."""

        @wraps(method)
        def leave(block: Any, *exc: Any) -> None:
            entry = next((each for each in reversed(self._open) if each[0] is block), None)
            if getcurrent() is not self._here or entry is None:
                method(block, *exc)
                return
            self._open.remove(entry)
            await_only(entry[1].__aexit__(*exc))

        return leave


@asynccontextmanager
async def _held(block: Any) -> AsyncIterator[None]:
    async with block:
        yield
