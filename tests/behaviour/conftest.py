"""What the behaviour tests share: both ways to the driver for each, and a record of what was sent."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select

import microorm
from microorm import Field, field
from tests.awaited import AWAITED, not_awaited
from tests.behaviour.on_demand import PatientRegistry
from tests.behaviour.wire import Wire
from tests.servers import KINDS


@pytest.fixture(autouse=True)
def wire(way: str, databases: "microorm.Databases") -> Wire:
    """What was sent to any of the databases."""
    wire = Wire()
    for alias in databases.aliases:
        wire.attach(databases.engine(alias))
        if way == AWAITED:
            wire.attach(not_awaited(lambda alias=alias: databases.engine(alias)))
    return wire


@pytest.fixture
def registry(request: pytest.FixtureRequest, backend: str, databases: "microorm.Databases") -> Any:
    """An empty registry over `databases`."""
    if backend not in KINDS:
        return microorm.Registry(databases)
    return PatientRegistry(databases, request.getfixturevalue("other_url"))


@pytest.fixture
def Book(Base: Any, registry: "microorm.Registry") -> Any:
    """A model with a key that the database makes, a table on `default`, and values of several kinds."""

    class Book(Base):
        title: Field[str] = field(max_length=40)
        pages: Field[int] = field(default=0)
        price: Field[Decimal | None] = field(default=None, max_digits=8, decimal_places=2)
        tags: Field[list[str]] = field(default_factory=list)

    registry.create_all("default")
    return Book


@pytest.fixture
def shelf(Book: Any) -> Any:
    """Five books; two have no price."""
    for title, pages, price in (
        ("a", 1, None),
        ("b", 2, Decimal(2)),
        ("c", 3, Decimal(3)),
        ("d", 4, None),
        ("e", 5, Decimal(5)),
    ):
        Book(title=title, pages=pages, price=price).save()
    return Book.objects.order_by("title")


@pytest.fixture
def listen() -> Iterator[Callable[..., Any]]:
    """Connects a function to a signal until the test is over, and gives it back."""
    connected: list[tuple[Any, Any, Any]] = []

    def listen(signal: Any, function: Any, sender: Any = None, **options: Any) -> Any:
        signal.connect(function, sender=sender, weak=False, **options)
        connected.append((signal, function, sender))
        return function

    yield listen
    for signal, function, sender in connected:
        signal.disconnect(function, sender=sender)


@pytest.fixture
def undone(databases: "microorm.Databases") -> Callable[..., AbstractContextManager[None]]:
    """Gives a block that an error ends, so that all that is done in it is rolled back."""

    class Broken(Exception):
        pass

    @contextmanager
    def undone(using: str | None = None) -> Iterator[None]:
        with suppress(Broken), databases.atomic(using):
            yield
            raise Broken

    return undone


@pytest.fixture
def stored(databases: "microorm.Databases") -> Callable[..., list[Any]]:
    """Gives the rows of a model that others see, in the order of the key, past microorm and its connection."""

    def stored(model: Any, *names: str, alias: str = "default") -> list[Any]:
        table = model.__table__
        columns = [table.c[name] for name in names] or list(table.c)
        with databases.engine(alias).connect() as connection:
            found = connection.execute(select(*columns).order_by(*table.primary_key.columns)).fetchall()
            connection.rollback()
        return [row[0] if len(row) == 1 else tuple(row) for row in found]

    return stored
