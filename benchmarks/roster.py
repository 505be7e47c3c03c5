"""Roster: the contestants by name, and which of them cannot be had here."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module, metadata

from benchmarks.contestant import Contestant

HOUSE = {
    "driver": ("driver", "Driver"),
    "mapper": ("mapper", "Mapper"),
    "core": ("core", "Core"),
    "core_objects": ("core", "CoreObjects"),
    "microorm": ("microorm", "MicroORM"),
}
PEERS = {
    "django": ("django", "Django"),
    "peewee": ("peewee", "Peewee"),
    "piccolo": ("piccolo", "Piccolo"),
    "pony": ("pony", "Pony"),
    "sqlalchemy_orm": ("sqlalchemy_orm", "SQLAlchemyORM"),
    "sqlmodel": ("sqlmodel", "SQLModel"),
    "tortoise": ("tortoise", "Tortoise"),
}

OTHERWISE = {
    "postgresql": {"driver": ("postgresql", "Psycopg"), "mapper": ("postgresql", "PsycopgMapper")},
}
"""Who is another class on one of the databases."""


def gather(names: Iterable[str], database: str = "sqlite") -> tuple[list[type[Contestant]], dict[str, str]]:
    """Import the contestants; return those that are here, and why each other one is not, by name."""
    present, missing = [], {}
    known = HOUSE | PEERS | OTHERWISE.get(database, {})
    for name in names:
        module, kind = known[name]
        try:
            present.append(getattr(import_module(f"benchmarks.contestants.{module}"), kind))
        except ImportError as error:
            missing[name] = str(error)
    return present, missing


def versions(contestants: Iterable[type[Contestant]]) -> dict[str, str]:
    """The versions of the distributions the contestants need."""
    found = {}
    for package in sorted({package for each in contestants for package in each.packages}):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed, imported from the source tree"
    return found
