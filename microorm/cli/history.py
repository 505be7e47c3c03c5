"""History: the migrations of the project that a command is about."""

from __future__ import annotations

from microorm.cli.invocation import Invocation
from microorm.migrations import Migrations


def migrations_of(invocation: Invocation, alias: str | None = None) -> Migrations:
    """The migrations of the project, which is set up.

    Raises `UnknownAlias` where there is no *alias*, `MigrationError` where there are no migrations, and as
    `Project.set_up` does.
    """
    invocation.check_alias(alias)
    invocation.set_up()
    return Migrations(invocation.project.migrations, invocation.registry)
