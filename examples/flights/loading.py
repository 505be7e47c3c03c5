"""Load the CSV files, saving each row with `save()`. One batch is rolled back on purpose."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from examples.flights.models import Airline, Airport, Audit, Flight, Plane, Weather
from examples.flights.reading import BATCH, batches, read
from examples.flights.report import Loaded, progress_bar
from examples.flights.signals import committed, sent
from examples.flights.totals import PUBLISHED
from microorm import atomic, receiver
from microorm.signals import post_save


class OnPurpose(Exception):
    """Raised to roll back a batch."""


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
    """Save the flights in batches, and return the number of flights that were rolled back.

    The second batch is saved twice: the first time it is rolled back.
    """
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
    """Save *batch*. Receivers save the audit rows.

    The two databases commit one after the other, the audit trail first. So both are committed when the receivers that
    wait for the commit of the flights run.
    """
    with atomic(), atomic("second"):
        for flight in batch:
            flight.save()


def roll_back(batch: list[Flight]) -> int:
    """Save *batch*, roll it back, and return the number of rows that existed in between.

    Raise `ClickException` if anything of it is left.
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
    """Return everything that saving *batch* changes."""
    return {
        "rows": Flight.objects.count(),
        "audit": Audit.objects.count(),
        "totals": committed.copy(),
        "instances": [(flight.pk, flight._state.adding, flight._state.db) for flight in batch],
    }
