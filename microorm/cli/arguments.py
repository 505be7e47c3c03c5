"""Arguments: those that several commands take, and how a shell completes them."""

from __future__ import annotations

import re

import click

from microorm.cli import completion

_RELATIVE = re.compile(r"[-+]\d+")


def _revision(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    """`-1` is a revision, `-x` an option that is not there."""
    if value.startswith("-") and not _RELATIVE.fullmatch(value):
        raise click.NoSuchOption(value, ctx=ctx)
    return value


# A command that takes a revision takes `-1`, too, which looks like an option.
RELATIVE_REVISIONS = {"ignore_unknown_options": True}

revision = click.argument("revision", default="head", callback=_revision, shell_complete=completion.revisions)
alias = click.option(
    "--alias", metavar="NAME", shell_complete=completion.aliases, help="One database alone; else all of them."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, with all that is known.")
