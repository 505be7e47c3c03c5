"""Init: the command that starts the migrations of a project."""

from __future__ import annotations

from pathlib import Path

import click

from microorm.cli.invocation import Invocation
from microorm.cli.output import shown
from microorm.cli.sections import Plan
from microorm.migrations import write_environment
from microorm.pyproject import NAME


@click.command()
@click.argument("folder", required=False)
@click.pass_obj
def command(invocation: Invocation, folder: str | None) -> None:
    """Start the migrations of a project.

    Writes the FOLDER of the migrations (by default what [tool.microorm] says, else "migrations") and appends
    [tool.microorm] and [tool.alembic] to the pyproject.toml of the working directory, or of --project, which is made
    where there is none. What stands there stays as it is; a section that is there is left alone. A package with a
    models module beside it is taken for an application. Where files are in the way, nothing is written.

    \b
    Examples:
      microorm init
      microorm init db/migrations

    \b
    Exit status:
      0  the files are there
      1  a file is in the way, or pyproject.toml cannot be read
    """
    start = invocation.start or Path.cwd()
    plan = Plan(start if start.is_file() else start / NAME, folder)
    for path in write_environment(plan.migrations):
        click.echo(f"wrote {shown(path)}")
    plan.write()
    for line in plan.report():
        click.echo(line)
    click.echo("next: microorm makemigrations -m first")
