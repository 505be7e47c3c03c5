"""The report: a table of the airlines, followed by a summary of the load."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table


@dataclass(frozen=True)
class Loaded:
    """The facts about a load that are not among its totals."""

    seconds: float
    sent: int
    undone: int


def show_summary(
    console: Console, totals: Mapping[str, int], names: Mapping[str, str], loaded: Loaded, compared: int
) -> None:
    """Print the airlines, starting with the one with most flights, and a summary of the load."""
    console.print(carrier_table(totals, names))
    console.print()
    console.print(outcome(totals, loaded, compared))


def carrier_table(totals: Mapping[str, int], names: Mapping[str, str]) -> Table:
    """Build the table of the airlines, with a line for all of them at the end."""
    table = Table(title="Flights out of New York, January 2013", box=box.SIMPLE_HEAD)
    table.caption = "Late: 15 minutes or more. Both figures are for arrivals."
    table.add_column("")
    table.add_column("Airline")
    for heading in ("Flights", "Cancelled", "Late", "Mean delay"):
        table.add_column(heading, justify="right")
    codes = sorted(names, key=lambda code: (-totals.get(f"{code} flights", 0), code))
    for code in codes:
        table.add_row(code, names[code], *figures(totals, [code]), end_section=code == codes[-1])
    table.add_row("", "All", *figures(totals, codes))
    return table


def figures(totals: Mapping[str, int], codes: Iterable[str]) -> list[str]:
    """Return the cells of one line, for one airline or the sum of several."""
    sums = {
        name: sum(totals.get(f"{code} {name}", 0) for code in codes)
        for name in ("flights", "cancelled", "arrived", "late", "minutes")
    }
    late = f"{sums['late'] / sums['arrived']:.0%}" if sums["arrived"] else ""
    delay = f"{sums['minutes'] / sums['arrived']:+.1f} min" if sums["arrived"] else ""
    return [f"{sums['flights']:,}", f"{sums['cancelled']:,}", late, delay]


def outcome(totals: Mapping[str, int], loaded: Loaded, compared: int) -> Table:
    """Build the summary of the load."""
    flights, cancelled = totals["flight"], sum(totals[name] for name in totals if name.endswith(" cancelled"))
    never_landed = totals["flight without air_time"]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    speed = f"{loaded.seconds:.1f} s, {flights / loaded.seconds:,.0f} rows per second"
    table.add_row("Loaded", f"{flights:,} flights, a save() for each, in {speed}")
    table.add_row("", "{airline:,} airlines, {airport:,} airports, {plane:,} planes".format_map(totals))
    diverted = never_landed - cancelled
    table.add_row(
        "Flown",
        f"{flights - never_landed:,} of the {flights:,}: {cancelled:,} were cancelled, {diverted:,} diverted",
    )
    table.add_row(
        "Second", "{weather:,} hours of weather, {audit:,} audit rows written by receivers".format_map(totals)
    )
    undone = f"{loaded.undone:,}"
    table.add_row("Undone", f"{undone} flights, rolled back on purpose and loaded again: no trace left")
    table.add_row(
        "Signals", f"{loaded.sent:,} inside a save (with the {undone} undone), {flights:,} after a commit"
    )
    table.add_row(
        "Kept",
        f"{totals['planes not listed']:,} flights whose plane is not listed, "
        f"{totals['destinations not listed']:,} whose destination is not",
    )
    table.add_row("Checked", f"{compared:,} totals against the CSV files: all agree")
    return table


def progress_bar() -> Progress:
    """Return a progress bar that is visible only if standard error is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def show_wrong(console: Console, wrong: Iterable[str]) -> None:
    """Print one line for every wrong total."""
    for line in wrong:
        console.print(f"wrong total: {line}", style="red", markup=False, soft_wrap=True)
