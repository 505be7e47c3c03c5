"""A request knows whose tables are whose, and what rows without a value get."""

from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func

import microorm
from microorm import Databases, Field, Registry, field
from microorm.apps import AppConfig, Apps
from microorm.migrations import Migrations
from microorm.migrations.environment import Request, Step, known_tables, labels_of, stored_default
from microorm.migrations.history import History


class Size(Enum):
    """A size."""

    S = "s"


@pytest.fixture
def registry() -> Any:
    with Databases("sqlite://") as databases:

        class Book(microorm.Model, registry=Registry(databases), app="shop"):
            size: Field[Size] = field(default=Size.S)
            pages: Field[int]
            tags: Field[list[str]] = field(default_factory=list)
            at: Field[datetime] = field(default_factory=lambda: datetime.now(UTC))
            note: Field[str | None] = field(default=None)
            made: Field[datetime] = field(server_default=func.now())

        yield Book.__schema__.registry


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("size", (True, "s")),
        ("tags", (True, [])),
        ("pages", (False, None)),
        ("at", (False, None)),  # no moment is that of all rows
        ("note", (False, None)),
        ("made", (False, None)),
        ("nothing", (False, None)),
    ],
)
def test_rows_get_a_default_that_is_the_same_for_all(registry: Registry, column: str, value: Any) -> None:
    assert stored_default(registry, "book", column) == value
    assert stored_default(registry, "nothing", column) == (False, None)


def test_before_the_first_revision_a_database_counts_as_empty(registry: Registry, folder: Path) -> None:
    migrations = Migrations(folder, registry)
    history = History.of(migrations._config(migrations._request()))
    assert known_tables(history, registry, ()) == frozenset()
    migrations.make("first")
    history = History.of(migrations._config(migrations._request()))
    assert known_tables(history, registry, ("0001",)) == {"book"}
    assert history.labels == labels_of(registry) == {"book": "shop.Book"}


def test_applications_with_models_are_the_senders(registry: Registry) -> None:
    apps = Apps(registry)
    assert Request(registry, apps).senders() == [registry]
    shop, other = AppConfig("shop"), AppConfig("other")
    apps.configs = {"shop": shop, "other": other}
    assert Request(registry, apps).senders() == [shop]
    assert Request(registry).senders() == [registry]


def test_a_step_is_kept_and_told(registry: Registry) -> None:
    told: list[Step] = []
    request = Request(registry, progress=told.append)
    step = Step("default", "0001", "first", down=False)
    request.note(step)
    assert request.steps == told == [step]
