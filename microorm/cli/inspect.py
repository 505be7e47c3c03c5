"""Inspect: the command that writes models for the tables of an existing database."""

from __future__ import annotations

from pathlib import Path

import click

from microorm.cli.output import display_path
from microorm.cli.program import Invocation, completer
from microorm.db.engines.engine import Database
from microorm.db.engines.urls import refuse_missing_folder
from microorm.errors import ConfigurationError


@click.command()
@click.argument("tables", metavar="[TABLE]...", nargs=-1)
@click.option(
    "--alias",
    default="default",
    show_default=True,
    shell_complete=completer(lambda invocation: invocation.project.databases),
    help="The database.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write to this new file, not to stdout.",
)
@click.option(
    "--unmanaged",
    is_flag=True,
    help="For tables that another program migrates: write managed=False, so that no revision and no create_all touches them.",
)
@click.pass_obj
def inspect(
    invocation: Invocation, tables: tuple[str, ...], alias: str, output: Path | None, unmanaged: bool
) -> None:
    """Write typed models for the tables and views of a database.

    Writes a module with a model for each TABLE and for the tables that these refer to; for all tables and views of the
    database without TABLE. Only reads the database, and does not import the models of the project. The module is formatted
    by ruff if that is installed.

    \b
    Examples:
      microorm inspect
      microorm inspect --alias archive film actor
      microorm inspect --unmanaged --output shop/legacy.py

    \b
    Exit status:
      0  the models were written
      1  the database has no such table, or no tables at all, or FILE exists
    """
    from microorm.reflection import models_source  # noqa: PLC0415 loads alembic, which `--help` does without

    if output is not None and output.exists():
        raise ConfigurationError(f"{display_path(output)!r} exists; remove it, or name another file")
    invocation.configure()
    database = invocation.registry.databases.database(alias)
    _refuse_missing_file(database)
    with database.engine.connect() as connection:
        source = models_source(connection, tables, managed=not unmanaged)
    if output is None:
        click.echo(source, nl=False)
        return
    output.write_text(source, encoding="utf-8")
    click.echo(f"wrote {display_path(output)}")


def _refuse_missing_file(database: Database) -> None:
    """Raise `ConfigurationError` if the file of SQLite does not exist, which would be created."""
    path = Path((database.url.database or "").removeprefix("file:"))
    if database.is_sqlite and not database.is_memory and not path.exists():
        refuse_missing_folder(database.alias, database.url)
        raise ConfigurationError(f"{database.alias!r} has no tables: there is no file {display_path(path)!r}")
