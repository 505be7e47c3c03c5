"""Check: the command that compares the models with the databases."""

from __future__ import annotations

import click

from microorm.cli.history import migrations_of
from microorm.cli.invocation import Invocation


@click.command()
@click.pass_context
def command(ctx: click.Context) -> None:
    """Compare the models with the databases.

    Prints a line for each difference: the alias, and what differs there. Changes nothing; made for continuous
    integration, and for a look before a release.

    \b
    Examples:
      microorm check
      microorm check && echo "up to date"

    \b
    Exit status:
      0  models and databases agree
      1  there are differences, or a database does not answer
    """
    invocation: Invocation = ctx.obj
    differences = migrations_of(invocation).check()
    for difference in differences:
        click.echo(f"{difference.alias}: {difference.text}")
    if differences:
        ctx.exit(1)
    click.echo("models and databases agree")
