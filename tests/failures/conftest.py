"""Shared fixtures: both channels to a driver, a model, and checks of what a failure must not change."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, event, text

import microorm
from microorm import Field, field
from microorm.db.context import innermost


@pytest.fixture
def way(request: pytest.FixtureRequest) -> str:
    """How compiled statements reach the driver: by its own cursor, or through SQLAlchemy's `Connection`."""
    return request.param


@pytest.fixture
def on_its_way(way: str) -> Callable[[microorm.Databases], microorm.Databases]:
    """Add a listener for the statements of each alias, if the *way* needs it."""

    def on_its_way(databases: microorm.Databases) -> microorm.Databases:
        for alias in databases.aliases if way == "listened" else ():
            event.listen(databases.engine(alias), "before_cursor_execute", lambda *_: None)
        return databases

    return on_its_way


@pytest.fixture
def databases(url: str, on_its_way: Any) -> Iterator[microorm.Databases]:
    """The alias `default`: an empty database of the kind of the test."""
    with microorm.Databases(url) as databases:
        yield on_its_way(databases)


@pytest.fixture
def Book(Base: Any, registry: microorm.Registry) -> Any:
    """A model with a table; titles are unique."""

    class Book(Base):
        title: Field[str] = field(max_length=40, unique=True)
        pages: Field[int] = field(default=0)

    registry.create_all("default")
    return Book


@pytest.fixture
def titles(backend: str, url: str, databases: microorm.Databases, Book: Any) -> Callable[[], list[str]]:
    """Return a function that reads the stored titles by a connection of its own."""

    def titles() -> list[str]:
        memory = backend == "sqlite-memory"
        engine = databases.engine() if memory else create_engine(url, poolclass=NullPool)
        with engine.connect() as connection:
            found = connection.scalars(text(f"SELECT title FROM {Book.__table__.name} ORDER BY title"))
            return list(found)

    return titles


@pytest.fixture
def look() -> Callable[[Any], Any]:
    """Return a function that returns everything of an instance that a failed save must not change."""

    def look(instance: Any) -> Any:
        state = instance._state
        return dict(vars(instance)), instance.pk, state.adding, state.db, instance.changes()

    return look


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """Check that a failure leaves no block open."""
    yield
    assert innermost() is None
