"""Migrations: one history of changes, applied by alembic to every database, each of which gets what is its own."""

from microorm.migrations.commands import Difference, Migrations, Revision, write_environment
from microorm.migrations.dialects import by_dialect
from microorm.migrations.environment import Step, run
from microorm.migrations.targets import on

__all__ = ["Difference", "Migrations", "Revision", "Step", "by_dialect", "on", "run", "write_environment"]
