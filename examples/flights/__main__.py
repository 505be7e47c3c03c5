"""Load a month of real flights through signals into two databases, and check every total.

    python -m examples.flights [--database URL] [--second URL] [--keep DIR] [--data DIR]

The migrations of this repository create the tables. Airlines, airports, planes and 27,004 flights are saved with
`save()`, one row at a time, to the alias `default`. A router sends the weather and the audit trail to `second`.
Receivers turn 'NA' into None, write the audit trail, and count flights after each commit. One batch is rolled back on
purpose. At the end every total is compared with the CSV files. Then the program answers the ten questions of
`questions` and `more_questions`. `output.txt` has what it prints.

Exit status: 0 if all totals are right, 1 if the data cannot be loaded or a total is wrong, 2 for wrong usage. The
seconds below were measured on one machine.
"""

import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

import microorm
from examples.flights.answers import show_answers
from examples.flights.loading import load
from examples.flights.models import Airline
from examples.flights.report import show_summary, show_wrong
from examples.flights.routers import SecondDatabase
from examples.flights.signals import committed, sent
from examples.flights.totals import MODELS, PUBLISHED, differences, in_databases
from examples.flights.totals_in_files import in_files
from microorm.errors import MicroormError
from microorm.migrations import Migrations

ROOT = Path(__file__).parents[2]
DATA = ROOT / "examples" / "data"
MIGRATIONS = ROOT / "migrations"


def run(data: Path) -> bool:
    """Create the tables, load the data, compare it with the files and report. Return whether every total is right."""
    Migrations(MIGRATIONS).migrate()
    for model in MODELS:
        if count := model.objects.count():
            raise click.UsageError(f"the table {model.__table__.name!r} already holds {count:,} rows")
    loaded = load(data)
    wanted, found = in_files(data), in_databases()
    counted = {f"{carrier} flights": number for carrier, number in committed.items()}
    comparisons = (
        (wanted, found),
        (PUBLISHED, {name: found[name] for name in PUBLISHED}),
        ({name: wanted[name] for name in wanted if name.endswith(" flights")}, counted),
        ({"saves": wanted["flight"] + loaded.undone}, {"saves": sent.total()}),
    )
    if wrong := [line for pair in comparisons for line in differences(*pair)]:
        show_wrong(Console(stderr=True), wrong)
        return False
    airlines = {airline.carrier: airline.name for airline in Airline.objects}
    console = Console(width=80, highlight=False)
    show_summary(console, found, airlines, loaded, sum(len(pair[0]) for pair in comparisons))
    show_answers(console)
    return True


@click.command(help="Load a month of real flights through signals into two databases, and check every total.")
@click.option(
    "--database", metavar="URL", help="Database of the alias 'default'; a SQLite file if not given."
)
@click.option("--second", metavar="URL", help="Database of the alias 'second'; a SQLite file if not given.")
@click.option(
    "--keep", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), help="Keep the files here."
)
@click.option(
    "--data",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=DATA,
    help="Where the CSV files are.",
)
def main(database: str | None, second: str | None, keep: Path | None, data: Path) -> None:
    if database == second not in (None, "sqlite://"):
        raise click.UsageError("--database and --second name the same database")
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise click.UsageError(str(error)) from error
        urls = {
            "default": database or f"sqlite:///{folder / 'flights.db'}",
            "second": second or f"sqlite:///{folder / 'second.db'}",
        }
        try:
            microorm.configure(urls, routers=[SecondDatabase()])
            microorm.setup(["examples.flights"])
        except (MicroormError, SQLAlchemyError) as error:
            raise click.UsageError(str(error)) from error
        try:
            right = run(data)
        except DBAPIError as error:
            raise click.ClickException(str(error.orig)) from error
        except MicroormError as error:
            raise click.ClickException(str(error)) from error
        finally:
            microorm.close()
    if keep:
        click.echo(f"Kept in  {keep}")
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
