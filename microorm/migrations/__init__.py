"""Migrations: one history of changes, applied by alembic to every database, each of which gets what is its own."""

from microorm.migrations.commands import Difference, Migrations, Revision
from microorm.migrations.dialects import by_dialect
from microorm.migrations.environment import run
from microorm.migrations.requests import Step
from microorm.migrations.restriction import on
from microorm.migrations.scaffold import write_environment

__all__ = ["Difference", "Migrations", "Revision", "Step", "by_dialect", "on", "run", "write_environment"]
