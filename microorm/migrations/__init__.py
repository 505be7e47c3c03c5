"""Migrations: a placeholder with the names and types that the command line is written against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from microorm.registry import Registry


@dataclass(frozen=True)
class Step:
    """One revision, applied to one database or taken back."""

    alias: str
    revision: str
    message: str
    down: bool
    seconds: float


@dataclass(frozen=True)
class Revision:
    """One revision, and the databases that have it."""

    id: str
    message: str
    down: tuple[str, ...]
    path: Path
    applied: Mapping[str, bool]


@dataclass(frozen=True)
class Difference:
    """Something that the models and one database do not agree on."""

    alias: str
    text: str


class Migrations:
    """One history of revisions, and the databases that it is applied to."""

    def __init__(self, folder: str | Path, registry: Registry | None = None) -> None:
        raise NotImplementedError

    def make(self, message: str, *, renames: Sequence[str] = (), empty: bool = False) -> Path | None:
        """Write a revision."""
        raise NotImplementedError

    def plan(self, revision: str = "head", *, alias: str | None = None) -> list[Step]:
        """Tell the steps to a revision."""
        raise NotImplementedError

    def migrate(
        self,
        revision: str = "head",
        *,
        alias: str | None = None,
        fake: bool = False,
        progress: Callable[[Step], object] | None = None,
    ) -> list[Step]:
        """Go the steps to a revision."""
        raise NotImplementedError

    def sql(self, revision: str = "head", *, alias: str | None = None) -> str:
        """Tell the SQL of the steps."""
        raise NotImplementedError

    def show(self) -> list[Revision]:
        """List the revisions."""
        raise NotImplementedError

    def check(self) -> list[Difference]:
        """Compare models and databases."""
        raise NotImplementedError

    def merge(self, message: str) -> Path:
        """Write a revision that joins two heads."""
        raise NotImplementedError


def write_environment(folder: Path) -> list[Path]:
    """Write the files of an empty history."""
    raise NotImplementedError
