"""Makemigrations: the command that writes a revision."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from microorm.cli.history import migrations_of
from microorm.cli.invocation import Invocation
from microorm.cli.output import shown


@click.command()
@click.option(
    "-m", "--message", required=True, help="What changes, in a few words; the file is named after it."
)
@click.option(
    "--rename",
    "renames",
    multiple=True,
    metavar="OLD:NEW",
    help="A table or a column (TABLE.OLD:NEW) that has another name now. May be given several times.",
)
@click.option("--empty", is_flag=True, help="Write a revision without operations, to be filled by hand.")
@click.pass_obj
def command(invocation: Invocation, message: str, renames: Sequence[str], empty: bool) -> None:
    """Write a revision that brings the databases to what the models say.

    Compares the models with every database, and writes one file that holds what changes. Where nothing has changed
    nothing is written. The databases have to be at the newest revision. Read the file before you migrate: a renamed
    column, for one, looks like one dropped and one added, unless --rename tells.

    \b
    Examples:
      microorm makemigrations -m "books have prices"
      microorm makemigrations -m "names" --rename book.name:title
      microorm makemigrations -m "fill the prices" --empty

    \b
    Exit status:
      0  a revision was written, or nothing has changed
      1  a database is behind or does not answer, the history has two heads, a name to rename is not there
    """
    path = migrations_of(invocation).make(message, renames=renames, empty=empty)
    if path is None:
        click.echo("nothing has changed")
        return
    click.echo(f"wrote {shown(path)}")
    for line in operations(path):
        click.echo(f"  {line}")


def operations(path: Path) -> list[str]:
    """The operations that the `upgrade` of a revision has, each with the table or index that it is about."""
    tree = ast.parse(path.read_text())
    upgrades = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "upgrade"]
    return [line for upgrade in upgrades for line in _operations(upgrade, {"op": ""})]


def _operations(node: ast.AST, batches: dict[str, str]) -> Iterator[str]:
    """Those at and below *node*; *batches* maps the names that operations are called on to their tables."""
    match node:
        case ast.With(items=[ast.withitem(context_expr=ast.Call(args=[ast.Constant(value=str(table)), *_]))]):
            variable = node.items[0].optional_vars
            inner = {**batches, variable.id: table} if isinstance(variable, ast.Name) else batches
            for each in node.body:
                yield from _operations(each, inner)
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=operation), args=args) if (
            name in batches
        ):
            of_table = args[:1] if operation == "create_table" else args[:2]  # not its first column, too
            words = [batches[name], *map(_subject, of_table)]
            yield " ".join(filter(None, [operation, *words]))
        case _:
            for child in ast.iter_child_nodes(node):
                yield from _operations(child, batches)


def _subject(node: ast.AST) -> str:
    """The name that an argument is or, as a column, has."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Call(
            func=ast.Name(id="f") | ast.Attribute(attr="f"), args=[ast.Constant(value=str(text)), *_]
        ):
            return text
        case ast.Call(func=ast.Attribute(attr="Column"), args=[ast.Constant(value=str(text)), *_]):
            return text
    return ""
