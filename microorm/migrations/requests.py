"""Requests: what a command wants of the environment, and what comes of it.

alembic runs a command by running `env.py`. A `Request` goes in with the configuration; where there is none, because
plain `alembic` was called, the project's own configuration says what the databases and the models are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations.ops import UpgradeOps

from microorm.apps import Apps, default_apps
from microorm.migrations.compare import Rename
from microorm.migrations.history import History
from microorm.migrations.targets import Target
from microorm.project import read_project
from microorm.registry import Registry, default_registry

ATTRIBUTE = "microorm"


@dataclass(frozen=True, slots=True)
class Step:
    """One revision of one database: applied, taken back, or planned to be."""

    alias: str
    revision: str
    message: str
    down: bool
    seconds: float = 0.0


@dataclass(slots=True)
class Request:
    """What one command wants. *seen* is called with each database, the revisions it is at, and alembic's context.

    *wanted*: whether the command is for a database that is at these revisions. Unless it *acts*, steps are noted and
    not done. *progress* is called after each step.
    """

    registry: Registry
    apps: Apps | None = None
    alias: str | None = None
    renames: tuple[Rename, ...] = ()
    acts: bool = True
    wanted: Callable[[Target, tuple[str, ...]], bool] = lambda target, heads: True
    seen: Callable[[Target, tuple[str, ...], MigrationContext], object] | None = None
    progress: Callable[[Step], object] | None = None
    steps: list[Step] = field(default_factory=list)
    needs: list[tuple[Target, UpgradeOps]] = field(default_factory=list)
    elsewhere: set[str] = field(default_factory=set)  # tables in databases that do not hold them, or no more

    @classmethod
    def of_project(cls, folder: Path) -> Request:
        """What plain `alembic` wants of the project that *folder* is in."""
        read_project(folder).set_up()
        return cls(default_registry, default_apps)

    def note(self, step: Step) -> None:
        """Keep a step, and tell of it."""
        self.steps.append(step)
        if self.progress is not None:
            self.progress(step)

    def senders(self) -> Iterable[object]:
        """Who sends `pre_migrate` and `post_migrate`: each application that has models, or else the registry."""
        configs = self.apps.configs if self.apps is not None else {}
        owners = {label.partition(".")[0] for label in self.registry.models}
        return [config for label, config in configs.items() if label in owners] or [self.registry]


def known_tables(history: History, registry: Registry, heads: tuple[str, ...]) -> frozenset[str]:
    """The tables that belong to models, or did; none in a database that no migration has touched.

    Before the first revision a database counts as empty, so that the first one makes all its tables, whoever has made
    those that are there.
    """
    if not heads and not history.revisions:
        return frozenset()
    _ = registry.metadata
    return frozenset({*history.labels, *(model.__table__.name for model in registry.models.values())})


def labels_of(registry: Registry) -> Mapping[str, str]:
    """The label of each model's table."""
    _ = registry.metadata
    return {model.__table__.name: label for label, model in registry.models.items()}


def stored_default(registry: Registry, table: str, column: str) -> tuple[bool, Any]:
    """Whether the model of *table* has a value for rows without one in *column*, and which."""
    for model in registry.models.values():
        if model.__table__.name == table:
            for each in model.__schema__.fields:
                if each.column.name == column:
                    found: tuple[bool, Any] = each.default_in_rows()
                    return found
    return False, None
