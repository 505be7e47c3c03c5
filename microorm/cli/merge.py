"""Merge: the command that joins two heads."""

from __future__ import annotations

import click

from microorm.cli.history import migrations_of
from microorm.cli.invocation import Invocation
from microorm.cli.output import shown


@click.command()
@click.option("-m", "--message", default="merge", show_default=True, help="What the revision is called.")
@click.pass_obj
def command(invocation: Invocation, message: str) -> None:
    """Write a revision that joins two heads of the history.

    Two heads come about where two people write a revision after the same one. The new revision changes nothing by
    itself; after it the history has one end again.

    \b
    Examples:
      microorm merge
      microorm merge -m "prices and names"

    \b
    Exit status:
      0  the revision was written
      1  there is nothing to join, or the history cannot be read
    """
    click.echo(f"wrote {shown(migrations_of(invocation).merge(message))}")
