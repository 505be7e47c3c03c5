"""What every test can ask for: fresh databases of four kinds, and a world of models of their own.

A test that takes `url`, `databases`, `registry` or `Base` runs on all four kinds, or on those that its `backends`
marker names; `sqlite_url` is for tests that need just one database.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

import microorm
from tests.servers import KINDS, Server, open_server

BACKENDS = ("sqlite-file", "sqlite-memory", "postgresql", "mariadb")

settings.register_profile("microorm", deadline=None, database=None)  # no clock decides a test
settings.load_profile("microorm")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that touches a database on each kind that it is meant for."""
    if "backend" not in metafunc.fixturenames:
        return
    named = metafunc.definition.get_closest_marker("backends")
    servers_only = metafunc.definition.get_closest_marker("servers_only")
    names = named.args if named else tuple(KINDS) if servers_only else BACKENDS
    cases = [pytest.param(name, marks=pytest.mark.server if name in KINDS else ()) for name in names]
    metafunc.parametrize("backend", cases, indirect=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line per reason, a missing server above all, how many tests did not run."""
    reasons = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"SKIPPED {count} tests: {reason.removeprefix('Skipped: ')}", yellow=True)


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


@pytest.fixture
def fresh_url(backend, tmp_path, find_server) -> Iterator[Callable[[], str]]:
    """Each call makes an empty database of the test's kind and returns its URL; dropped after the test."""
    made: list[str] = []
    server = find_server(backend) if backend in KINDS else None
    if isinstance(server, str):
        if os.environ.get("CI", "").lower() in {"true", "1"}:
            pytest.fail(server, pytrace=False)
        pytest.skip(server)

    def fresh() -> str:
        if backend == "sqlite-memory":
            return "sqlite://"
        if server is None:
            made.append("")
            return f"sqlite:///{tmp_path / f'fresh{len(made)}.db'}"
        name, url = server.fresh()
        made.append(name)
        return url

    yield fresh
    if server is not None:
        for name in made:
            server.drop(name)


@pytest.fixture
def url(fresh_url) -> str:
    """An empty database."""
    return fresh_url()


@pytest.fixture
def other_url(fresh_url) -> str:
    """A second empty database of the same kind."""
    return fresh_url()


@pytest.fixture
def sqlite_url(tmp_path) -> str:
    """An empty SQLite file, for tests where the kind of database does not matter."""
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture
def databases(url, other_url) -> Iterator["microorm.Databases"]:
    """The aliases `default` and `other`, each an empty database of the test's kind; closed after the test."""
    with microorm.Databases({"default": url, "other": other_url}) as databases:
        yield databases


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
