"""The flights example with coroutines: a month of real flights through `await flight.asave()`, with the same signals.

    python -m examples.async_flights

Models, router, receivers, totals and report are those of `examples.flights`, whose receivers are synchronous: `asave`
calls them as `save` does, and what they save is awaited, too. It prints the same summary.
"""

import asyncio
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

import microorm
from examples.flights.__main__ import DATA
from examples.flights.loading import OnPurpose
from examples.flights.models import Airline, Airport, Audit, Flight, Plane, Weather
from examples.flights.reading import BATCH, batches, read
from examples.flights.report import Loaded, show_summary, show_wrong
from examples.flights.routers import SecondDatabase
from examples.flights.signals import committed, sent
from examples.flights.totals import PUBLISHED, differences, in_databases
from examples.flights.totals_in_files import in_files
from microorm import atomic


async def load() -> Loaded:
    """Fill both databases, and roll one batch back on purpose."""
    async with atomic(), atomic("second"):
        for model in (Airline, Airport, Plane):
            for instance in read(DATA, model):
                await instance.asave(force_insert=True)
        await Weather.objects.abulk_create(read(DATA, Weather), batch_size=BATCH)
    started = time.perf_counter()
    undone = 0
    for number, batch in enumerate(batches(read(DATA, Flight))):
        if number == 1:
            undone = await roll_back(batch)
        await save_all(batch)
    return Loaded(time.perf_counter() - started, sent.total(), undone)


async def save_all(batch: list[Flight]) -> None:
    """Save *batch*. Receivers save the audit rows, into the block on the other database."""
    async with atomic(), atomic("second"):
        for flight in batch:
            await flight.asave()


async def roll_back(batch: list[Flight]) -> int:
    """Save *batch*, roll it back, and return how many rows there were in between. Nothing of it may be left."""
    before = await traces(batch)
    rows = 0
    with suppress(OnPurpose):
        async with atomic(), atomic("second"):
            await save_all(batch)
            rows = await Flight.objects.acount() - before["rows"]
            raise OnPurpose
    assert await traces(batch) == before, "the rollback has left something"
    return rows


async def traces(batch: list[Flight]) -> dict[str, Any]:
    """Return everything that saving *batch* changes."""
    return {
        "rows": await Flight.objects.acount(),
        "audit": await Audit.objects.acount(),
        "totals": committed.copy(),
        "instances": [(flight.pk, flight._state.adding, flight._state.db) for flight in batch],
    }


async def main(folder: Path) -> bool:
    """Create the tables, load the data, compare it with the files and report. Return whether every total is right."""
    urls = {"default": f"sqlite:///{folder / 'flights.db'}", "second": f"sqlite:///{folder / 'second.db'}"}
    microorm.configure(urls, routers=[SecondDatabase()])
    microorm.setup(["examples.flights"])
    await microorm.default_registry.acreate_all()
    try:
        loaded = await load()
        # What only reads, once the work is done, may be synchronous: nothing else waits for this event loop.
        wanted, found = in_files(DATA), in_databases()
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
        airlines = {airline.carrier: airline.name async for airline in Airline.objects}
        console = Console(width=80, highlight=False)
        show_summary(console, found, airlines, loaded, sum(len(pair[0]) for pair in comparisons))
        return True
    finally:
        await microorm.default_databases.aclose()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        right = asyncio.run(main(Path(temporary)))
    sys.exit(0 if right else 1)
