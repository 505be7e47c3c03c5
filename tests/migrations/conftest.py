"""What the tests of migrations share: a folder of migrations, and registries over the same databases, one after another."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

import microorm
from microorm import Registry
from microorm.migrations import Migrations, write_environment

SERVERS = ("postgresql", "mariadb")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as `microorm init` writes it."""
    write_environment(tmp_path / "migrations")
    return tmp_path / "migrations"


@pytest.fixture
def anew(databases: microorm.Databases) -> Callable[[], Any]:
    """Gives a base class with a registry of its own, as a program has that is started again, over the same databases."""

    def anew() -> Any:
        class Base(microorm.Model, registry=Registry(databases), app="shop", abstract=True):
            pass

        return Base

    return anew


@pytest.fixture
def migrations(folder: Path) -> Callable[[Any], Migrations]:
    """Gives the migrations of the models that derive from a base class."""
    return lambda base: Migrations(folder, base.__options__.registry)


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
