"""What every test can ask for: empty databases of four kinds, and a world of models of their own.

A test that takes `url`, `databases`, `registry` or `Base` runs on all four kinds, or on those that its `backends`
marker names; `sqlite_url` is for tests that need just one database.
"""

import gc
import os
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import count, product
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import settings
from sqlalchemy import event

import microorm
from tests.awaited import AWAITED, AwaitedTests
from tests.servers import KINDS, Server, open_server

BACKENDS = ("sqlite-file", "sqlite-memory", "postgresql", "mariadb")

# A test that takes `way` reaches the driver by its own cursor, through SQLAlchemy's `Connection`, where statements are
# listened to, and awaited. The pairs here are tried by one test in SAMPLE, chosen by its name, unless the test has one kind
# only. The quick tests try each on one kind of SQLite and on one server, in one way, and one in AWAITED_SAMPLE awaited on
# SQLite.
SELDOM = {
    ("sqlite-file", "listened"),
    ("sqlite-memory", "driver"),
    ("mariadb", "listened"),
    ("sqlite-memory", AWAITED),
    ("mariadb", AWAITED),
}
SAMPLE = 4
AWAITED_SAMPLE = 8
GRID = 3  # where a test has so many cases of its own, or more, each slow way tries one case in three
FREEZE_AFTER = 100

MEMORY = Path(
    "/dev/shm"
)  # Linux keeps what lies here in memory: a commit to a file on a disk waits for the disk
ENOUGH = 1 << 30

# No clock decides a test. `make test` takes the profile "quick"; "thorough" is for long evenings.
settings.register_profile("microorm", deadline=None, database=None, max_examples=50)
settings.register_profile("quick", settings.get_profile("microorm"), max_examples=15)
settings.register_profile("thorough", settings.get_profile("microorm"), max_examples=1000)
settings.load_profile("microorm")

gc.disable()  # until the tests are collected: what that makes stays

# What tests start should not compile the package anew each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_configure(config: pytest.Config) -> None:
    """Run the tests that are awaited on event loops."""
    config.pluginmanager.register(AwaitedTests())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that touches a database on each kind that it is meant for, and each way to the driver."""
    if "backend" not in metafunc.fixturenames:
        return
    named = metafunc.definition.get_closest_marker("backends")
    servers_only = metafunc.definition.get_closest_marker("servers_only")
    names = named.args if named else tuple(KINDS) if servers_only else BACKENDS
    number = crc32(metafunc.function.__name__.encode())
    module = metafunc.module.__name__.split(".")
    ways = _ways(metafunc)
    quick_only = metafunc.config.option.markexpr == "not slow"  # the others need not even be collected
    cases = []
    for kinds in ([name for name in names if name not in KINDS], [name for name in names if name in KINDS]):
        tried = list(product(kinds, ways)) if ways else [(kind,) for kind in kinds]
        if len(kinds) > 1 and "failures" not in module and number % SAMPLE:
            tried = [each for each in tried if each not in SELDOM]
        chosen = tried if "migrations" in module else _quick(tried, number)
        cases += [_case(*each, slow=each not in chosen) for each in tried if each in chosen or not quick_only]
    metafunc.parametrize(("backend", "way") if ways else ("backend",), cases, indirect=True)


def _ways(metafunc: pytest.Metafunc) -> tuple[str, ...]:
    own = any(mark.args[0] == "way" for mark in metafunc.definition.iter_markers("parametrize"))
    if own or "way" not in metafunc.fixturenames:
        return ()
    behaviour = "behaviour" in metafunc.module.__name__.split(".")  # elsewhere tests look inside
    awaited = behaviour and metafunc.definition.get_closest_marker("sync_only") is None
    return ("driver", "listened", AWAITED) if awaited else ("driver", "listened")


def _quick(tried: list[tuple[str, ...]], number: int) -> list[tuple[str, ...]]:
    """Return which of *tried* the quick tests try; *number* is that of the test."""
    here = [each for each in tried if AWAITED not in each]
    awaited = [each for each in tried if AWAITED in each and each[0] not in KINDS]
    chosen = [here[number // SAMPLE % len(here)]] if here else []
    return chosen + (awaited[:1] if number % AWAITED_SAMPLE == 1 else [])


def _case(*values: str, slow: bool) -> Any:
    marks = [pytest.mark.server] if values[0] in KINDS else []
    return pytest.param(*values, marks=[*marks, pytest.mark.slow] if slow else marks)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Count the cases that a test has of its own."""
    function = _function(item)
    if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        own = sum(number for name, number in item.callspec.indices.items() if name not in {"backend", "way"})
        _grids[function] = max(_grids[function], own + 1)


def _function(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out slow cases of tests with many cases of their own, and begin with the tests that take longest.

    Those have a time-out of their own: no process should wait for one at the end.
    """
    if left_out := {item for item in items if _is_left_out(item)}:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


def _is_left_out(item: pytest.Item) -> bool:
    """Return whether *item* is one of a grid's cases that are tried in fewer ways: in each way one in GRID, not the same ones."""
    if not isinstance(item, pytest.Function) or not item.get_closest_marker("slow"):
        return False
    indices = dict(item.callspec.indices) if hasattr(item, "callspec") else {}
    if "way" not in indices or _grids[_function(item)] < GRID:
        return False
    way = indices.pop("way")
    indices.pop("backend", None)
    return (way + sum(indices.values())) % GRID > 0


def pytest_collection_finish() -> None:
    """Collect garbage less often."""
    gc.set_threshold(10_000, 20, 20)
    gc.enable()


_grids: dict[str, int] = defaultdict(int)  # how many cases of its own a test has
_run = count()


def pytest_runtest_logfinish() -> None:
    """Spare each `gc.collect()` of a test the walk through what the tests before it have left in caches."""
    if next(_run) % FREEZE_AFTER == 0:
        gc.collect()
        gc.freeze()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Name a test that fails at once: a run that is stopped prints no summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.when} failed: {report.nodeid}", flush=True)  # noqa: T201 - that is what it is for


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line per reason, a missing server above all, how many tests did not run."""
    reasons = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    for reason, number in sorted(reasons.items()):
        terminalreporter.write_line(
            f"SKIPPED {number} tests: {reason.removeprefix('Skipped: ')}", yellow=True
        )


@pytest.fixture(scope="session")
def find_server() -> Iterator[Callable[[str], Server | str]]:
    """Gives the server of a kind, asked for once; a line that says why where there is none."""
    asked: dict[str, Server | str] = {}
    yield lambda kind: asked[kind] if kind in asked else asked.setdefault(kind, open_server(kind))
    for server in asked.values():
        if isinstance(server, Server):
            server.close()


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    """The kind of database that the test runs on: one of BACKENDS."""
    return request.param


@pytest.fixture(scope="session")
def folder_of_files(tmp_path_factory) -> Iterator[Path]:
    """Where SQLite's files are: in memory, if there is enough of it."""
    if not MEMORY.is_dir() or not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < ENOUGH:
        yield tmp_path_factory.mktemp("databases")
        return
    with tempfile.TemporaryDirectory(prefix="microorm_test_", dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture
def fresh_file(folder_of_files) -> Iterator[Callable[[], str]]:
    """Each call returns the URL of a new SQLite file; removed after the test."""
    numbers = count(1)
    with tempfile.TemporaryDirectory(dir=folder_of_files) as folder:
        yield lambda: f"sqlite:///{folder}/fresh{next(numbers)}.db"


@pytest.fixture
def fresh_url(request, backend, find_server) -> Iterator[Callable[[], str]]:
    """Each call returns the URL of an empty database of the test's kind; emptied, or removed, after the test."""
    if backend == "sqlite-memory":
        yield lambda: "sqlite://"
        return
    if backend == "sqlite-file":
        yield request.getfixturevalue("fresh_file")
        return
    server = find_server(backend)
    if isinstance(server, str):
        if os.environ.get("CI", "").lower() in {"true", "1"}:
            pytest.fail(server, pytrace=False)
        pytest.skip(server)
    lent: list[str] = []

    def fresh() -> str:
        name, url = server.borrow()
        lent.append(name)
        return url

    yield fresh
    server.give_back(lent)


@pytest.fixture
def url(fresh_url) -> str:
    """An empty database."""
    return fresh_url()


@pytest.fixture
def other_url(fresh_url) -> str:
    """A second empty database of the same kind."""
    return fresh_url()


@pytest.fixture
def sqlite_url(fresh_file) -> str:
    """An empty SQLite file, for tests where the kind of database does not matter."""
    return fresh_file()


@pytest.fixture
def databases(url, other_url) -> Iterator["microorm.Databases"]:
    """The aliases `default` and `other`, each an empty database of the test's kind; closed after the test."""
    with microorm.Databases({"default": url, "other": other_url}) as databases:
        yield databases


@pytest.fixture
def way(request, databases) -> str:
    """How statements reach the driver: "driver", by its own cursor, or "listened", through SQLAlchemy's `Connection`."""
    for alias in databases.aliases if request.param == "listened" else ():
        event.listen(databases.engine(alias), "before_cursor_execute", lambda *_: None)
    return request.param


@pytest.fixture
def registry(databases) -> "microorm.Registry":
    """An empty registry over `databases`."""
    return microorm.Registry(databases)


@pytest.fixture
def Base(registry) -> type["microorm.Model"]:
    """What a test's models derive from, to live in `registry`."""

    class Base(microorm.Model, registry=registry, abstract=True):
        pass

    return Base


@pytest.fixture(autouse=True)
def defaults_left_alone() -> Iterator[None]:
    """Fails a test that leaves the process-wide defaults otherwise than it found them."""
    models = list(microorm.default_registry.models)
    yield
    left = tuple(microorm.default_databases.aliases)
    microorm.close()
    assert not left, f"the test left the aliases {left} configured; call microorm.close() at its end"
    assert list(microorm.default_registry.models) == models, "the test left models in the default registry"
