"""Databases: the command that shows which databases answer, and where they stand."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from microorm.cli import arguments
from microorm.cli.answers import Answer, ask
from microorm.cli.failures import failure_text
from microorm.cli.history import migrations_of
from microorm.cli.invocation import Invocation
from microorm.cli.output import NOTHING, print_table
from microorm.migrations import Revision

COLUMNS = ("alias", "dialect", "version", "reachable", "revision", "pool", "url")
UNKNOWN = "?"


@click.command()
@arguments.as_json
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Show the databases: which answer, and at which revision they are.

    All are asked at once, and one that does not answer within some seconds is told as unreachable. Passwords and
    secrets in URLs are masked. The revisions are looked up where there are migrations and all databases answer; "-"
    is none, "?" unknown. An SQLite file that is not there yet is not made.

    \b
    Examples:
      microorm databases
      microorm databases --json

    \b
    Exit status:
      0  all databases answer
      1  one does not, or the revisions cannot be read
    """
    invocation: Invocation = ctx.obj
    invocation.configure()
    answers = ask(invocation.registry.databases)
    problem = _add_revisions(invocation, answers)
    if as_json:
        click.echo(json.dumps([answer.as_dict() for answer in answers], indent=2))
    else:
        print_table(COLUMNS, [_row(answer) for answer in answers], {"yes": "green", "no": "red"})
    problems = [f"{each.alias}: {each.reason}" for each in answers if each.reason] + (
        [problem] if problem else []
    )
    if problems:
        raise click.ClickException("; ".join(problems))


def _add_revisions(invocation: Invocation, answers: Sequence[Answer]) -> str | None:
    """Fill the revisions in, where they can be known; what went wrong, if something did."""
    if not (invocation.project.migrations / "env.py").is_file():
        return None
    if not all(answer.reachable for answer in answers):
        for answer in answers:
            answer.revision = UNKNOWN
        return None
    try:
        revisions = migrations_of(invocation).show()
    except Exception as error:
        if invocation.traceback:
            raise
        for answer in answers:
            answer.revision = UNKNOWN
        return failure_text(error, invocation.project)
    for answer in answers:
        answer.revision = ",".join(heads(revisions, answer.alias)) or None
    return None


def heads(revisions: Sequence[Revision], alias: str) -> list[str]:
    """The revisions at which *alias* stands: applied, and below no other that is."""
    applied = [each for each in revisions if each.applied.get(alias)]
    below = {revision for each in applied for revision in each.down}
    return [each.id for each in applied if each.id not in below]


def _row(answer: Answer) -> tuple[str, ...]:
    return (
        answer.alias,
        answer.dialect,
        answer.version or NOTHING,
        "yes" if answer.reachable else "no",
        answer.revision or NOTHING,
        answer.pool,
        answer.url,
    )
