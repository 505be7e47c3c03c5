"""Migrate: the command that brings the databases to a revision."""

from __future__ import annotations

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from microorm.cli import arguments
from microorm.cli.history import migrations_of
from microorm.cli.invocation import Invocation
from microorm.cli.output import console, print_table
from microorm.migrations import Migrations, Step


@click.command(context_settings=arguments.RELATIVE_REVISIONS)
@arguments.revision
@arguments.alias
@click.option(
    "--fake", is_flag=True, help="Note the revisions as applied or taken back, and change nothing else."
)
@click.option("--plan", is_flag=True, help="Show the steps, and take none.")
@click.pass_obj
def command(invocation: Invocation, revision: str, alias: str | None, fake: bool, plan: bool) -> None:
    """Bring the databases to a revision, by default the newest.

    REVISION is an identifier or the beginning of one, "head", "base" (none at all), or a number of steps from where
    a database is: +1, -1. Going down takes revisions back, and the rows of what they had made are gone. After an
    error each database stands at a revision that the message names; the same command goes on from there.

    \b
    Examples:
      microorm migrate
      microorm migrate --plan
      microorm migrate 0002 --alias archive
      microorm migrate -1

    \b
    Exit status:
      0  the databases are there, or were there before
      1  a step failed, a database does not answer, or there is no such revision or alias
    """
    migrations = migrations_of(invocation, alias)
    if plan:
        steps = migrations.plan(revision, using=alias)
        if steps:
            rows = [(step.alias, _direction(step), step.revision, step.message) for step in steps]
            print_table(("alias", "direction", "revision", "message"), rows)
    else:
        steps = _migrate(migrations, revision, alias, fake)
    if not steps:
        click.echo("nothing to do")


def _migrate(migrations: Migrations, revision: str, alias: str | None, fake: bool) -> list[Step]:
    """Take the steps, telling of each when it is done; at a terminal with a bar below."""
    screen = console()
    if not screen.is_terminal:
        return migrations.migrate(
            revision, using=alias, fake=fake, progress=lambda step: click.echo(_told(step, fake))
        )
    total = len(migrations.plan(revision, using=alias))
    columns = (TextColumn("migrating"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=screen, transient=True, disable=not total) as bar:
        task = bar.add_task("", total=total)

        def progress(step: Step) -> None:
            screen.print(_told(step, fake))
            bar.advance(task)

        return migrations.migrate(revision, using=alias, fake=fake, progress=progress)


def _direction(step: Step) -> str:
    return "down" if step.down else "up"


def _told(step: Step, fake: bool) -> str:
    how = ", noted only" if fake else ""
    return f"{step.alias}: {_direction(step)} {step.revision} {step.message} ({step.seconds:.2f} s{how})"
