"""Targets: the databases that migrations are applied to, each once, however many aliases it has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL

from microorm.db.databases import Databases
from microorm.db.engine import Database, is_memory
from microorm.errors import ConfigurationError
from microorm.fields.types import MARIADB
from microorm.registry import Registry

_PORTS = {"postgresql": 5432, "mariadb": 3306}
_HERE = ("", "127.0.0.1", "::1")
# What in a query says where a database is, and not how to speak with it.
_WHERE = ("host", "options", "port", "service", "unix_socket")


class Target:
    """One database: the *aliases* that mean it, and which tables the routers give it."""

    def __init__(self, registry: Registry, aliases: tuple[str, ...], labels: Mapping[str, str]) -> None:
        self.aliases = aliases
        self.databases: Databases = registry.databases
        self.database: Database = self.databases.database(aliases[0])
        self._labels = labels
        self._models = tables_of(registry)

    def __repr__(self) -> str:
        return f"<Target {', '.join(map(repr, self.aliases))}>"

    @property
    def alias(self) -> str:
        """The alias to speak of it by: the first that was configured."""
        return self.aliases[0]

    @property
    def dialect(self) -> str:
        """The name of its dialect, one for both names of MariaDB's."""
        return "mariadb" if self.database.dialect in MARIADB else self.database.dialect

    def allows(self, table: str) -> bool:
        """Whether one of its aliases holds *table*; one that no model had is everywhere (CONTRACT N18)."""
        label, model = self._models.get(table, (self._labels.get(table), None))
        if label is None:
            return True
        return any(self.databases.allows_migration(alias, label, model) for alias in self.aliases)

    def at(self, heads: tuple[str, ...]) -> str:
        """Where it is, in words."""
        return f"{self.alias!r} is at {revisions(heads)}"


def targets(registry: Registry, labels: Mapping[str, str], alias: str | None = None) -> list[Target]:
    """The databases of *registry*, or the one of *alias*. *labels*: what the history says whose table each was.

    Raises `UnknownAlias`, and `ConfigurationError` where no database is configured.
    """
    databases = registry.databases
    if alias is not None:
        databases.database(alias)
    if not databases.aliases:
        raise ConfigurationError("no database is configured")
    places: dict[Any, list[str]] = {}
    for each in databases.aliases:
        places.setdefault(place(databases.database(each).url), []).append(each)
    return [
        Target(registry, tuple(aliases), labels)
        for aliases in places.values()
        if alias is None or alias in aliases
    ]


def place(url: URL) -> tuple[object, ...]:
    """What two URLs of one database have in common: not the user, nor the name that means this machine."""
    backend = url.get_backend_name()
    if backend == "sqlite":
        database = url.database or ""
        is_file = not is_memory(url) and not database.startswith("file:")
        return backend, os.path.realpath(database) if is_file else database
    backend = "mariadb" if backend in MARIADB else backend
    host = (url.host or "").lower()
    query = tuple(sorted((name, value) for name, value in url.query.items() if name in _WHERE))
    return (
        backend,
        "localhost" if host in _HERE else host,
        url.port or _PORTS.get(backend),
        url.database,
        query,
    )


def tables_of(registry: Registry) -> dict[str, tuple[str, Any]]:
    """The tables of the models, with the label and the model of each."""
    _ = registry.metadata  # those that wait for a name have tables, too
    return {model.__table__.name: (label, model) for label, model in registry.models.items()}


def revisions(heads: tuple[str, ...]) -> str:
    """Revisions as a message names them."""
    return " and ".join(map(repr, sorted(heads))) or "'base'"
