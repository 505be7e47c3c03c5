"""What the tests of migrations share: a folder of migrations, and which server the quick tests use."""

from pathlib import Path
from zlib import crc32

import pytest

from microorm import Databases
from microorm.migrations import write_environment
from tests.migrations.shop import Split

SERVERS = ("postgresql", "mariadb")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as `microorm init` writes it."""
    write_environment(tmp_path / "migrations")
    return tmp_path / "migrations"


@pytest.fixture
def database(url):
    """One database, of the alias `default`."""
    with Databases(url) as databases:
        yield databases


@pytest.fixture
def split(url, other_url):
    """Two databases, and a router that gives each its tables."""
    with Databases({"default": url, "other": other_url}, routers=[Split()]) as databases:
        yield databases


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave one of the two servers, by the name of each test, to `make check`."""
    for item in items:
        case = getattr(item, "callspec", None)
        backend = None if case is None else case.params.get("backend")
        if (
            backend == SERVERS[crc32(item.name.replace(str(backend), "").encode()) % 2]
            and "migrations" in item.path.parts
        ):
            item.add_marker("slow")
