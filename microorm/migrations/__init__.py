"""Migrations: one history of revisions, which alembic applies to every database; each gets its own tables."""

from microorm.migrations.commands import Difference, Migrations, Revision, write_environment
from microorm.migrations.dialects import by_dialect
from microorm.migrations.environment import run
from microorm.migrations.report import Step
from microorm.migrations.targets import on

__all__ = ["Difference", "Migrations", "Revision", "Step", "by_dialect", "on", "run", "write_environment"]
