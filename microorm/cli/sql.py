"""Sql: the command that prints what a migration would send."""

from __future__ import annotations

import click

from microorm.cli import arguments
from microorm.cli.history import migrations_of
from microorm.cli.invocation import Invocation


@click.command()
@arguments.revision
@arguments.alias
@click.pass_obj
def command(invocation: Invocation, revision: str, alias: str | None) -> None:
    """Print the SQL that a migration would send.

    From nothing to REVISION, by default the newest; a range as FROM:TO begins at FROM. No database is asked. On
    stdout there is SQL alone.

    \b
    Examples:
      microorm sql --alias default > first.sql
      microorm sql 0002:head

    \b
    Exit status:
      0  the SQL was printed
      1  there is no such revision or alias, or a revision wants a database to look at
    """
    click.echo(migrations_of(invocation, alias).sql(revision, using=alias).rstrip("\n"))
