"""What the fixtures of the pytest plugin do: see `pytest_microorm`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import iscoroutinefunction

import pytest

from microorm.db.blocks import forbidden
from microorm.db.databases import Databases, default_databases
from microorm.errors import ConfigurationError
from microorm.registry import Registry, default_registry
from microorm.testing.databases import empty
from microorm.testing.transaction import allowed_aliases, rolled_back

__all__ = ["created_tables", "emptied", "guarded", "rolled_back_here"]

MARK = "microorm_aliases"
ASYNCIO = "microorm_transaction_on_{}_loop"
ANYIO = "microorm_transaction_of_anyio"


def created_tables(databases: Databases) -> Registry:
    """Create the tables of the default registry, if that is the one of *databases*, and return it.

    Raises `ConfigurationError` for other databases.
    """
    if databases is not default_databases:
        raise ConfigurationError(
            "microorm_databases returns databases of its own; write a fixture microorm_tables, too, which creates their "
            "tables and returns their Registry"
        )
    default_registry.create_all()
    return default_registry


@contextmanager
def guarded(request: pytest.FixtureRequest, databases: Databases) -> Iterator[tuple[str, ...]]:
    """Yield the aliases of *databases*, which are kept open, that the test of *request* may touch; refuse statements to others.

    Remove at its end what it has added. Raises `TypeError` for a mark that does not name aliases.
    """
    before = set(databases.aliases)
    with databases.kept(), _guarded(request, databases) as aliases:
        yield aliases
    for alias in set(databases.aliases) - before:
        databases.remove(alias)


@contextmanager
def _guarded(request: pytest.FixtureRequest, databases: Databases) -> Iterator[tuple[str, ...]]:
    marker = request.node.get_closest_marker(MARK)
    if marker is None:
        yield databases.aliases
        return
    if marker.kwargs or not all(isinstance(alias, str) for alias in marker.args):
        raise TypeError(f'the mark takes aliases: @pytest.mark.{MARK}("default", "archive")')
    with allowed_aliases(databases, marker.args):
        yield tuple(alias for alias in databases.aliases if alias in marker.args)


@contextmanager
def rolled_back_here(
    request: pytest.FixtureRequest, databases: Databases, aliases: tuple[str, ...]
) -> Iterator[None]:
    """Roll back what the test of *request* does to *aliases* of *databases*: a coroutine's on the event loop of its plugin.

    Raises `ConfigurationError` if the test commits by another fixture, too.
    """
    if "microorm_transactional_db" in request.fixturenames:
        raise ConfigurationError(
            "the test takes microorm_db, or a fixture that takes it, and microorm_transactional_db: it is either rolled "
            "back or committed"
        )
    name = _loop_fixture(request)
    if name is None:
        with rolled_back(databases, aliases):
            yield
        return
    reason = "what uses it in an async test has to be awaited: write an async fixture"
    with forbidden(databases, reason, but=tuple(a for a in databases.aliases if a not in aliases)):
        request.getfixturevalue(name)
        yield


def _loop_fixture(request: pytest.FixtureRequest) -> str | None:
    """Return the fixture that begins the transaction on the event loop of the test; None if the test is no coroutine."""
    if not iscoroutinefunction(getattr(request, "function", None)):
        return None
    if "anyio_backend" in request.fixturenames:
        return ANYIO
    marker = request.node.get_closest_marker("asyncio")
    if marker is None:
        return None  # run in some other way
    scope = marker.kwargs.get("loop_scope") or request.config.getini("asyncio_default_test_loop_scope")
    return ASYNCIO.format(scope)


@contextmanager
def emptied(registry: Registry, aliases: tuple[str, ...]) -> Iterator[None]:
    """Empty the tables of *registry* on *aliases* at the end."""
    try:
        yield
    finally:
        empty(registry, aliases)
