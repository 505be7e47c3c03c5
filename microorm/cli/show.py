"""Show: the command that lists the revisions."""

from __future__ import annotations

import click

from microorm.cli.history import migrations_of
from microorm.cli.invocation import Invocation
from microorm.cli.output import print_table

APPLIED, MISSING = "[x]", "[ ]"


@click.command()
@click.pass_obj
def command(invocation: Invocation) -> None:
    """Show the revisions, and which databases have them.

    One line for each revision, the oldest first, and one column for each database: [x] where it is applied.

    \b
    Examples:
      microorm show
      microorm show | grep -F "[ ]"

    \b
    Exit status:
      0  the revisions were shown, or there are none yet
      1  a database does not answer, or the history cannot be read
    """
    revisions = migrations_of(invocation).show()
    if not revisions:
        click.echo("no revisions yet")
        return
    aliases = list(dict.fromkeys(alias for revision in revisions for alias in revision.applied))
    rows = [
        (each.id, each.message, *(_mark(each.applied.get(alias)) for alias in aliases)) for each in revisions
    ]
    print_table(("revision", "message", *aliases), rows, {APPLIED: "green", MISSING: "yellow"})


def _mark(applied: bool | None) -> str:
    return "" if applied is None else APPLIED if applied else MISSING
