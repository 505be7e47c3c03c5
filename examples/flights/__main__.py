"""Load a month of real flights through signals into two databases, and check every total.

    python -m examples.flights [--database URL] [--second URL] [--keep DIR] [--data DIR]

Airlines, airports, planes and 27,004 flights go to the alias `default`, each row through `save()`; a router
sends the weather and the audit trail to `second`. Receivers turn 'NA' into None, write the audit, and keep
totals that only a commit changes. One batch is rolled back on purpose on the way. At the end every total is
compared with the CSV files, and the ten questions of `questions` are asked; the answers to them stand in
`answers`. Exit status: 0 all is right, 1 the data cannot be loaded or a total is wrong, 2 wrong usage.
The seconds below are one machine's.

Prints:
                        Flights out of New York, January 2013

           Airline                       Flights   Cancelled   Late   Mean delay
     ────────────────────────────────────────────────────────────────────────────
      UA   United Air Lines Inc.           4,637          32    22%     +3.2 min
      B6   JetBlue Airways                 4,427           9    23%     +4.7 min
      EV   ExpressJet Airlines Inc.        4,171         182    41%    +25.2 min
      DL   Delta Air Lines Inc.            3,690          29    13%     -4.4 min
      AA   American Airlines Inc.          2,794          59    20%     +1.0 min
      MQ   Envoy Air                       2,271          65    24%     +7.9 min
      US   US Airways Inc.                 1,602          47    18%     +1.4 min
      9E   Endeavor Air Inc.               1,573          75    25%    +10.2 min
      WN   Southwest Airlines Co.            996          11    22%     +5.9 min
      FL   AirTran Airways Corporation       328           4    17%     +3.3 min
      VX   Virgin America                    316           1     5%    -15.3 min
      AS   Alaska Airlines Inc.               62           0    37%     +9.0 min
      F9   Frontier Airlines Inc.             59           0    47%    +21.8 min
      YV   Mesa Airlines Inc.                 46           7    26%    +13.8 min
      HA   Hawaiian Airlines Inc.             31           0    16%    +27.5 min
      OO   SkyWest Airlines Inc.               1           0   100%   +107.0 min

           All                            27,004         521    23%     +6.1 min

             Late: 15 minutes or more. Both delays are those on arrival.

    Loaded   27,004 flights by save() with signals in 5.2 s, 5,193 rows per second
             16 airlines, 1,458 airports, 3,322 planes
    Second   26,115 hours of weather, 31,800 audit rows written by receivers
    Undone   1,000 flights rolled back on purpose: no row, audit, total or key left
    Heard    post_save 28,004 times at once, 27,004 times after a commit
    Kept     4,479 flights whose plane is not listed, 680 whose destination is not
    Checked  170 totals against the CSV files: all agree
"""

import csv
import gzip
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

import microorm
from examples.flights.answers import show_answers
from examples.flights.models import Airline, Airport, Audit, Flight, Plane, SecondDatabase, Weather
from examples.flights.report import Loaded, progress_bar, show_summary, show_wrong
from examples.flights.totals import FILES, MODELS, PUBLISHED, differences, in_databases, in_files
from microorm import Model, atomic, receiver
from microorm.errors import MicroormError
from microorm.signals import post_save, pre_bulk_create, pre_save

BATCH = 1_000
DATA = Path(__file__).parents[1] / "data"
PARSERS: dict[Any, Any] = {int: int, float: float, datetime: datetime.fromisoformat}
OPTIONAL = {model: [field.name for field in model.__schema__.fields if field.nullable] for model in FILES}
UNREADABLE = (OSError, EOFError, zlib.error, csv.Error, ValueError, TypeError)

sent: Counter[str] = Counter()
committed: Counter[str] = Counter()

M = TypeVar("M", bound=Model[Any])


class OnPurpose(Exception):
    """Raised to roll a batch back."""


@receiver(pre_save, sender=Airport)
@receiver(pre_save, sender=Plane)
@receiver(pre_save, sender=Flight)
def none_for_na(sender: type[Model[Any]], instance: Model[Any], **kwargs: Any) -> None:
    for name in OPTIONAL[sender]:
        if getattr(instance, name) == "NA":
            setattr(instance, name, None)


@receiver(pre_bulk_create, sender=Weather)
def none_for_na_in_all(sender: type[Weather], objects: list[Weather], **kwargs: Any) -> None:
    """A bulk insert sends no `pre_save`, but one signal for all its objects."""
    for instance in objects:
        none_for_na(sender, instance)


@receiver(post_save, sender=Airline)
@receiver(post_save, sender=Airport)
@receiver(post_save, sender=Plane)
@receiver(post_save, sender=Flight)
def write_audit(sender: type[Model[Any]], instance: Model[Any], *, created: bool, **kwargs: Any) -> None:
    Audit(
        table=sender.__table__.name, key=str(instance.pk), action="created" if created else "changed"
    ).save()


@receiver(post_save, sender=Flight)
def count_sent(instance: Flight, **kwargs: Any) -> None:
    """Runs inside the transaction: a rollback undoes rows, and not this."""
    sent[instance.carrier_id] += 1


@receiver(post_save, sender=Flight, delivery="on_commit")
def count_committed(instance: Flight, **kwargs: Any) -> None:
    """Runs after the commit: what was rolled back is never counted, so there is nothing to undo."""
    committed[instance.carrier_id] += 1


def load(data: Path) -> Loaded:
    """Fill both databases from the files of *data*."""
    with atomic(), atomic("second"):
        for model in (Airline, Airport, Plane):
            for instance in read(data, model):
                instance.save(force_insert=True)
        Weather.objects.bulk_create(read(data, Weather), batch_size=BATCH)
    started = time.perf_counter()
    undone = load_flights(data)
    return Loaded(time.perf_counter() - started, sent.total(), undone)


def load_flights(data: Path) -> int:
    """Save the flights batch by batch, the second batch twice; return how many were rolled back."""
    undone = 0
    with progress_bar() as progress:
        bar = progress.add_task("flights", total=PUBLISHED["flight"])

        @receiver(post_save, sender=Flight, delivery="on_commit")
        def report(**kwargs: Any) -> None:
            progress.advance(bar)

        for number, batch in enumerate(batches(read(data, Flight))):
            if number == 1:
                undone = roll_back(batch)
            save_all(batch)
        post_save.disconnect(report, sender=Flight)
    return undone


def save_all(batch: list[Flight]) -> None:
    """Save *batch*, and by its receivers the audit.

    Two databases commit one after the other, here the audit first: when the receivers of the flights' commit
    run, both are written.
    """
    with atomic(), atomic("second"):
        for flight in batch:
            flight.save()


def roll_back(batch: list[Flight]) -> int:
    """Save *batch* and undo it; return the number of rows that were there in between.

    `ClickException` where anything of it is left.
    """
    before = traces(batch)
    rows = 0
    with suppress(OnPurpose), atomic(), atomic("second"):
        save_all(batch)
        rows = Flight.objects.count() - before["rows"]
        raise OnPurpose
    left = [name for name, trace in traces(batch).items() if trace != before[name]]
    if left or rows != len(batch):
        raise click.ClickException(
            f"{rows:,} of {len(batch):,} rows were rolled back and left traces in {left}"
        )
    return rows


def traces(batch: list[Flight]) -> dict[str, Any]:
    """Everything that saving *batch* changes."""
    return {
        "rows": Flight.objects.count(),
        "audit": Audit.objects.count(),
        "totals": committed.copy(),
        "instances": [(flight.pk, flight._state.adding, flight._state.db) for flight in batch],
    }


def read(data: Path, model: type[M]) -> Iterator[M]:
    """Make an instance from each line of the model's file, with 'NA' left in it.

    A code goes into the key of its relation (`carrier_id`): no row is loaded to make another.
    """
    fields = {field.column.name: field for field in model.__schema__.fields}
    path, line = data / FILES[model], 1
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8", newline="") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            if unknown := set(header) - fields.keys():
                raise ValueError(f"no field for the columns {sorted(unknown)}")
            into = [(fields[name].name, PARSERS.get(fields[name].python_type, str)) for name in header]
            for values in lines:
                line = lines.line_num
                if len(values) != len(header):
                    raise ValueError(f"{len(values)} values for {len(header)} columns")
                row = zip(into, values, strict=True)
                yield model(**{name: text if text == "NA" else parse(text) for (name, parse), text in row})
    except UNREADABLE as error:
        raise click.ClickException(f"{path.name}, line {line}: {error}") from error


def batches(flights: Iterable[Flight]) -> Iterator[list[Flight]]:
    rest = iter(flights)
    while batch := list(islice(rest, BATCH)):
        yield batch


def run(data: Path) -> bool:
    """Load, compare with the files, and report; whether every total is right."""
    microorm.create_all()
    for model in MODELS:
        if there := model.objects.count():
            raise click.UsageError(f"the table {model.__table__.name!r} already holds {there:,} rows")
    loaded = load(data)
    wanted, found = in_files(data), in_databases()
    heard = {f"{carrier} flights": number for carrier, number in committed.items()}
    comparisons = (
        (wanted, found),
        (PUBLISHED, {name: found[name] for name in PUBLISHED}),
        ({name: wanted[name] for name in wanted if name.endswith(" flights")}, heard),
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
