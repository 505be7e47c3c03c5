"""Migrations: the commands makemigrations, migrate, show, sql, check and merge."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from microorm.cli.output import console, display_path, print_table
from microorm.cli.program import Invocation, completer

if TYPE_CHECKING:
    from microorm.migrations import Migrations, Step

APPLIED, NOT_APPLIED = "[x]", "[ ]"
NO_MODELS = (
    "no models; list the applications that define them in 'apps' of [tool.microorm], "
    "or write a models.py beside pyproject.toml"
)

_STEPS = re.compile(r"[-+]\d+")
_IDENTIFIER = re.compile(r"^revision(?:\s*:\s*str)?\s*=\s*[\"']([^\"']+)[\"']", re.MULTILINE)
_NOTE = re.compile(r"^\s+# (.+ is required and has no default: .+)$", re.MULTILINE)
_KINDS = ("add_column", "drop_column", "create_table", "drop_table")
_NO_OPERATIONS = ("f", "batch_alter_table")


def _revisions(invocation: Invocation) -> Iterable[str]:
    """Yield the identifiers in the files of the revisions, without importing them."""
    yield from ("head", "base")
    for file in sorted((invocation.project.migrations / "versions").glob("*.py")):
        yield from _IDENTIFIER.findall(file.read_text())


def _check_revision(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    """Accept a number of steps, such as `-1`, and refuse any other option that click passed on as an argument."""
    if value.startswith("-") and not _STEPS.fullmatch(value):
        raise click.NoSuchOption(value, ctx=ctx)
    return value


revision_argument = click.argument(
    "revision", default="head", callback=_check_revision, shell_complete=completer(_revisions)
)
alias_option = click.option(
    "--alias",
    metavar="NAME",
    shell_complete=completer(lambda invocation: invocation.project.databases),
    help="Only this database.  [default: all databases]",
)


@click.command()
@click.option("-m", "--message", required=True, help="What changes, in a few words; part of the file name.")
@click.option(
    "--rename",
    "renames",
    multiple=True,
    metavar="OLD:NEW",
    help="A renamed table, or a renamed column as TABLE.OLD:NEW. May be given several times.",
)
@click.option("--empty", is_flag=True, help="Write a revision without operations, to fill in by hand.")
@click.pass_obj
def makemigrations(invocation: Invocation, message: str, renames: Sequence[str], empty: bool) -> None:
    """Write a revision with the changes of the models.

    Compares the models with every database and writes one file with the changes, or none if there are no changes. The
    databases must be at the newest revision. Check the file before you migrate: without --rename, for example, a
    renamed column is dropped and another one added.

    \b
    Examples:
      microorm makemigrations -m "books have prices"
      microorm makemigrations -m "names" --rename book.name:title
      microorm makemigrations -m "fill the prices" --empty

    \b
    Exit status:
      0  a revision was written, or nothing has changed
      1  a database is behind or unreachable, the history has two heads, or there is no such name to rename
    """
    path = invocation.migrations().make(message, renames=renames, empty=empty)
    if path is None:
        click.echo("no changes" if invocation.registry.models else NO_MODELS)
        return
    click.echo(f"wrote {display_path(path)}")
    found = operations(path)
    for operation in found:
        click.echo(f"  {operation}")
    for note in (*notes(path), *rename_notes(found)):
        click.echo(f"note: {note}")


def operations(path: Path) -> list[str]:
    """Return the operations in the `upgrade` function of a revision, each with the name of its table and its subject."""
    functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    upgrade = [node for function in functions if function.name == "upgrade" for node in ast.walk(function)]
    nodes = [node for node in upgrade if isinstance(node, ast.With | ast.Call)]
    tables = {"op": ""}  # the table of each name that operations are called on
    found = []
    for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset)):
        match node:
            case ast.With(
                items=[ast.withitem(ast.Call(args=[ast.Constant(str(table)), *_]), ast.Name(batch_op))]
            ):
                tables[batch_op] = table
            case ast.Call(ast.Attribute(ast.Name(name), operation), args) if (
                name in tables and operation not in _NO_OPERATIONS
            ):
                subjects = args[:1] if operation == "create_table" else args[:2]
                found.append(" ".join(filter(None, [operation, tables[name], *map(_name_of, subjects)])))
    return found


def notes(path: Path) -> list[str]:
    """Return the notes on required columns in the `upgrade` function of a revision."""
    upgrade, _, _ = path.read_text().partition("def upgrade()")[2].partition("\ndef downgrade()")
    return _NOTE.findall(upgrade)


def rename_notes(found: Iterable[str]) -> Iterator[str]:
    """Yield a note for each table with a column that may have been renamed, and for tables, by the *found* operations."""
    names = {
        kind: [each.split()[1:] for each in dict.fromkeys(found) if each.startswith(f"{kind} ")]
        for kind in _KINDS
    }
    for table in dict.fromkeys(table for table, *_ in names["add_column"]):
        dropped = [
            f"{table}.{column}"
            for each, *columns in names["drop_column"]
            if each == table
            for column in columns
        ]
        added = [column for each, *columns in names["add_column"] if each == table for column in columns]
        yield from _rename_note("column", dropped, added)
    yield from _rename_note(
        "table", *([name for name, *_ in names[kind]] for kind in ("drop_table", "create_table"))
    )


def _rename_note(what: str, dropped: list[str], added: list[str]) -> Iterator[str]:
    """Yield a note if one of the *dropped* may have been renamed to one of the *added*."""
    if not (dropped and added):
        return
    from difflib import get_close_matches  # noqa: PLC0415 start-up time

    pairs = [(old, new) for old in dropped for new in get_close_matches(old.rpartition(".")[2], added, n=1)]
    old, new = pairs[0] if pairs else (dropped[0], added[0])
    yield f"if the {what} {old!r} was renamed to {new!r}, delete the file, and repeat the command with --rename {old}:{new}"


def _name_of(argument: ast.expr) -> str:
    """Return an argument that is a name, or the name in `op.f(...)` or `sa.Column(...)`."""
    match argument:
        case ast.Constant(str(name)):
            return name
        case ast.Call(ast.Attribute(attr="f" | "Column"), [ast.Constant(str(name)), *_]):
            return name
    return ""


@click.command(context_settings={"ignore_unknown_options": True})  # else click takes `-1` for an option
@revision_argument
@alias_option
@click.option(
    "--fake", is_flag=True, help="Record the revisions as applied or reverted without running them."
)
@click.option("--plan", is_flag=True, help="Print the steps without taking them.")
@click.pass_obj
def migrate(invocation: Invocation, revision: str, alias: str | None, fake: bool, plan: bool) -> None:
    """Migrate the databases to a revision.

    REVISION is an identifier or its beginning, "head" (the default), "base" (before the first revision), or a number
    of steps from the current revision: +1, -1. Migrating down reverts revisions and deletes the rows of the tables and
    columns that they created. If a step fails, the error names the revision of each database; the same command
    continues from there.

    \b
    Examples:
      microorm migrate
      microorm migrate --plan
      microorm migrate 0002 --alias archive
      microorm migrate -1

    \b
    Exit status:
      0  the databases are at the revision
      1  a step failed, a database is unreachable, or there is no such revision or alias
    """
    migrations = invocation.migrations(alias)
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
    """Migrate, and print each step when it is done; on a terminal above a progress bar."""

    def run(progress: Callable[[Step], object]) -> list[Step]:
        return migrations.migrate(revision, using=alias, fake=fake, progress=progress)

    def describe(step: Step) -> str:
        how = ", faked" if fake else ""
        return f"{step.alias}: {_direction(step)} {step.revision} {step.message} ({step.seconds:.2f} s{how})"

    screen = console()
    if not screen.is_terminal:
        return run(lambda step: click.echo(describe(step)))
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415 start-up time

    total = len(migrations.plan(revision, using=alias))
    columns = (TextColumn("migrating"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=screen, transient=True, disable=not total) as bar:
        task = bar.add_task("", total=total)

        def progress(step: Step) -> None:
            screen.print(describe(step))
            bar.advance(task)

        return run(progress)


def _direction(step: Step) -> str:
    return "down" if step.down else "up"


@click.command()
@click.pass_obj
def show(invocation: Invocation) -> None:
    """Show which revisions are applied to which databases.

    Prints a line for each revision, oldest first, with a column for each database: [x] if it is applied.

    \b
    Examples:
      microorm show
      microorm show | grep -F "[ ]"

    \b
    Exit status:
      0  the revisions were shown, or there are none
      1  a database is unreachable, or the history cannot be read
    """
    revisions = invocation.migrations().show()
    if not revisions:
        click.echo("no revisions")
        return
    marks = {True: APPLIED, False: NOT_APPLIED, None: ""}
    aliases = list(dict.fromkeys(alias for revision in revisions for alias in revision.applied))
    rows = [
        (each.id, each.message, *(marks[each.applied.get(alias)] for alias in aliases)) for each in revisions
    ]
    print_table(("revision", "message", *aliases), rows, {APPLIED: "green", NOT_APPLIED: "yellow"})


@click.command()
@revision_argument
@alias_option
@click.pass_obj
def sql(invocation: Invocation, revision: str, alias: str | None) -> None:
    """Print the SQL of a migration, without a database.

    Prints the SQL that brings an empty database to REVISION, by default the newest one, or from FROM to TO if it is
    given as FROM:TO. Writes only SQL to stdout.

    \b
    Examples:
      microorm sql --alias default > first.sql
      microorm sql 0002:head

    \b
    Exit status:
      0  the SQL was printed
      1  there is no such revision or alias, or a revision needs a database
    """
    click.echo(invocation.migrations(alias).sql(revision, using=alias).rstrip("\n"))


@click.command()
@click.pass_context
def check(ctx: click.Context) -> None:
    """Compare the models with the databases.

    Prints a line for each difference, with the alias of the database. Changes nothing. Meant for continuous
    integration and for a check before a release.

    \b
    Examples:
      microorm check
      microorm check && echo "up to date"

    \b
    Exit status:
      0  models and databases agree
      1  there are differences, or a database is unreachable
    """
    invocation: Invocation = ctx.obj
    differences = invocation.migrations().check()
    for difference in differences:
        click.echo(f"{difference.alias}: {difference.text}")
    if differences:
        ctx.exit(1)
    click.echo("models and databases agree" if invocation.registry.models else NO_MODELS)


@click.command()
@click.option("-m", "--message", default="merge", show_default=True, help="The title of the revision.")
@click.pass_obj
def merge(invocation: Invocation, message: str) -> None:
    """Write a revision that joins two heads of the history.

    A history has two heads after two revisions were written that follow the same one, for example on two branches.
    The new revision follows both and changes nothing itself.

    \b
    Examples:
      microorm merge
      microorm merge -m "prices and names"

    \b
    Exit status:
      0  the revision was written
      1  there are no two heads, or the history cannot be read
    """
    click.echo(f"wrote {display_path(invocation.migrations().merge(message))}")
