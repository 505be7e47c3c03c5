"""The pytest plugin of microorm: fixtures that roll back, empty and count.

It is a module of its own because pytest imports it at each start, in every project where microorm is installed. So it must not
import microorm, whose package would be loaded with it: each fixture does that when a test takes it.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from microorm import Databases, Registry
    from microorm.testing import Commits, SentSignals, Statements
    from microorm.tracing import Trace

MARK = "microorm_aliases"
DATABASES = "microorm_databases"
GUARD = "microorm-guard"
REMEDY = "a test takes the fixture microorm_db or microorm_transactional_db, or calls configure() itself"


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Put the folder of the project first on `sys.path`, as the command line does: tests import its packages from there."""
    folder = _project_folder(early_config.rootpath)
    if folder is not None and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _project_folder(root: Path) -> Path | None:
    """Return the nearest of *root* and its parents whose pyproject.toml has a section for microorm, as `read_project` does."""
    for folder in (root, *root.parents):
        try:
            tool = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")).get("tool", {})
        except (OSError, ValueError):  # what needs the file says what is wrong with it
            continue
        if "microorm" in tool:
            return folder
    return None


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark, and the fixtures for pytest-asyncio where that is loaded."""
    config.addinivalue_line(
        "markers",
        f"{MARK}(*aliases): the aliases that the test may touch; a statement to another one is an error",
    )
    if not config.pluginmanager.hasplugin(GUARD):
        config.pluginmanager.register(_Guard(), GUARD)
    if config.pluginmanager.hasplugin("asyncio") and not config.pluginmanager.hasplugin(ASYNCIO_PLUGIN):
        config.pluginmanager.register(_fixtures_for_asyncio(), ASYNCIO_PLUGIN)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, name: str, obj: Any) -> None:
    """Let a test with the mark be guarded, whatever fixtures it takes."""
    if not callable(obj) or not collector.istestfunction(obj, name):
        return
    own = (mark.name for mark in getattr(obj, "pytestmark", ()))
    if MARK in own or collector.get_closest_marker(MARK) is not None:
        pytest.mark.usefixtures("microorm_test_aliases")(obj)


@pytest.fixture(scope="session")
def microorm_databases(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Databases]:
    """The databases of this process of the test run: empty ones beside the configured ones, dropped at the end."""
    from microorm.testing.databases import made_databases  # noqa: PLC0415 see the top of this file

    with made_databases(pytestconfig.rootpath, tmp_path_factory.mktemp("microorm")) as databases:
        yield databases


@pytest.fixture(scope="session")
def microorm_tables(microorm_databases: Databases) -> Registry:
    """The registry whose tables are made, once, and emptied after tests that commit; write your own to migrate instead."""
    from microorm.testing.isolation import created_tables  # noqa: PLC0415 see the top of this file

    return created_tables(microorm_databases)


@pytest.fixture
def microorm_test_aliases(
    request: pytest.FixtureRequest, microorm_databases: Databases, microorm_tables: Registry
) -> Iterator[tuple[str, ...]]:
    """The aliases that the test may touch: those of its mark `microorm_aliases`, or all."""
    from microorm.testing.isolation import guarded  # noqa: PLC0415 see the top of this file

    with guarded(request, microorm_databases) as aliases:
        yield aliases


@pytest.fixture
def microorm_db(
    request: pytest.FixtureRequest, microorm_databases: Databases, microorm_test_aliases: tuple[str, ...]
) -> Iterator[Databases]:
    """The databases, in a transaction on each alias that is rolled back after the test."""
    from microorm.testing.isolation import rolled_back_here  # noqa: PLC0415 see the top of this file

    with rolled_back_here(request, microorm_databases, microorm_test_aliases):
        yield microorm_databases


@pytest.fixture
def microorm_transactional_db(
    microorm_databases: Databases, microorm_tables: Registry, microorm_test_aliases: tuple[str, ...]
) -> Iterator[Databases]:
    """The databases without a transaction around the test: it commits, and all tables are emptied after it."""
    from microorm.testing.isolation import emptied  # noqa: PLC0415 see the top of this file

    with emptied(microorm_tables, microorm_test_aliases):
        yield microorm_databases


@pytest.fixture
def microorm_commits(microorm_db: Databases) -> Callable[..., Commits]:
    """Makes a `with` block that collects what waits for a commit: `with microorm_commits() as hooks:`."""
    from microorm.testing.commits import Commits  # noqa: PLC0415 see the top of this file

    def commits(using: str | None = None, *, execute: bool = False) -> Commits:
        return Commits(microorm_db, using, execute=execute)

    return commits


@pytest.fixture
def microorm_registry() -> Iterator[Registry]:
    """An empty registry, for the models of this test, over a database of its own in memory."""
    from microorm.testing import isolated_registry  # noqa: PLC0415 see the top of this file

    with isolated_registry() as registry:
        yield registry


@pytest.fixture
def microorm_assert_signals() -> Callable[..., AbstractContextManager[SentSignals]]:
    """`microorm.testing.assert_signals`."""
    from microorm.testing import assert_signals  # noqa: PLC0415 see the top of this file

    return assert_signals


@pytest.fixture
def microorm_record_signals() -> Callable[..., AbstractContextManager[SentSignals]]:
    """`microorm.testing.record_signals`."""
    from microorm.testing import record_signals  # noqa: PLC0415 see the top of this file

    return record_signals


@pytest.fixture
def microorm_count_statements(
    microorm_databases: Databases,
) -> Callable[..., AbstractContextManager[Statements]]:
    """`microorm.testing.count_statements`, for the databases of the test run."""
    from microorm.testing import count_statements  # noqa: PLC0415 see the top of this file

    def count(using: str | None = None) -> AbstractContextManager[Statements]:
        return count_statements(using, microorm_databases)

    return count


@pytest.fixture
def microorm_trace() -> Callable[..., Trace]:
    """`microorm.tracing.trace`."""
    from microorm.tracing import trace  # noqa: PLC0415 see the top of this file

    return trace


@pytest.fixture
def microorm_no_lazy_loads() -> Callable[[], AbstractContextManager[None]]:
    """`microorm.testing.no_lazy_loads`."""
    from microorm.testing import no_lazy_loads  # noqa: PLC0415 see the top of this file

    return no_lazy_loads


@pytest.fixture
async def microorm_transaction_of_anyio(
    microorm_databases: Databases, microorm_test_aliases: tuple[str, ...]
) -> AsyncIterator[None]:
    """The transaction of `microorm_db` on the event loop of an anyio test, which `microorm_db` takes itself."""
    async with _rolled_back(microorm_databases, microorm_test_aliases):
        yield


def _rolled_back(databases: Databases, aliases: tuple[str, ...]) -> AbstractAsyncContextManager[None]:
    from microorm.testing.transaction import arolled_back  # noqa: PLC0415 see the top of this file

    return arolled_back(databases, aliases)


class _Guard:
    """Keeps the databases of the test run from the tests that take none of its fixtures.

    Such a test, with its fixtures, finds nothing configured, unless it configures databases itself. So what the code has configured
    is exchanged for another configuration, empty at first, whenever the next test is one of the other kind. Nothing is exchanged
    before the databases are made, unless modules of the tests have configured some, nor in a run without the fixtures.
    """

    def __init__(self) -> None:
        self._used = self._guards = self._hidden = False
        self._aside: Databases | None = None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Find out whether any test takes the databases, and whether they are configured already."""
        databases = _default_databases()
        self._used = any(map(_takes_databases, session.items))
        self._guards = self._used and databases is not None and bool(databases.aliases)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Let a test have the databases that it is to have."""
        databases = _default_databases()
        if databases is not None:
            databases.remedy = REMEDY
        self._hide(hidden=self._guards and not _takes_databases(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Iterator[None]:
        """Let a fixture be torn down with the databases with which it was set up."""
        if DATABASES in (fixturedef.argname, *fixturedef.argnames):  # maybe asked for by `getfixturevalue`
            self._used = self._guards = True
            self._hide(hidden=False)
        hidden = self._hidden
        try:
            return (yield)
        finally:
            if self._used:  # it runs before the finalizers of the fixture itself, which were added earlier
                fixturedef.addfinalizer(partial(self._hide, hidden=hidden))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Iterator[None]:
        """Show the databases after the test."""
        try:
            return (yield)
        finally:
            self._hide(hidden=False)

    def pytest_unconfigure(self) -> None:
        """Leave microorm as it is without the plugin, and close what a test has configured and left open."""
        databases = _default_databases()
        if databases is not None:
            vars(databases).pop("remedy", None)
        if self._aside is not None:
            self._aside.close()

    def _hide(self, *, hidden: bool) -> None:
        databases = _default_databases()
        if databases is None or hidden is self._hidden:
            return
        if self._aside is None:
            self._aside = type(databases)()
        databases.exchange(self._aside)
        self._hidden = hidden


def _takes_databases(item: pytest.Item) -> bool:
    return DATABASES in getattr(item, "fixturenames", ())


def _default_databases() -> Databases | None:
    """Return microorm's default databases, or None if it was not imported."""
    return getattr(sys.modules.get("microorm"), "default_databases", None)


ASYNCIO_PLUGIN = "microorm-asyncio"


def _fixtures_for_asyncio() -> object:
    """Return a plugin with a fixture for each loop scope of pytest-asyncio, which runs a fixture on one loop."""
    import pytest_asyncio  # noqa: PLC0415 it is loaded already, and need not be installed

    fixtures = type("MicroormAsyncio", (), {})
    for scope in ("function", "class", "module", "package", "session"):

        async def transaction(
            self: object, microorm_databases: Databases, microorm_test_aliases: tuple[str, ...]
        ) -> AsyncIterator[None]:
            async with _rolled_back(microorm_databases, microorm_test_aliases):
                yield

        name = f"microorm_transaction_on_{scope}_loop"
        setattr(fixtures, name, pytest_asyncio.fixture(transaction, loop_scope=scope, name=name))
    return fixtures()
