"""Report: what is printed of the load: a table of the carriers, then what became of the load."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table


@dataclass(frozen=True)
class Loaded:
    """What a load did, as far as no total tells it."""

    seconds: float
    sent: int
    undone: int


def show_summary(
    console: Console, totals: Mapping[str, int], names: Mapping[str, str], loaded: Loaded, compared: int
) -> None:
    """Print the carriers, the one with most flights first, and below them what became of the load."""
    console.print(carrier_table(totals, names))
    console.print()
    console.print(outcome(totals, loaded, compared))


def carrier_table(totals: Mapping[str, int], names: Mapping[str, str]) -> Table:
    table = Table(title="Flights out of New York, January 2013", box=box.SIMPLE_HEAD)
    table.caption = "Late: 15 minutes or more. Both delays are those on arrival."
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
    """The cells of one line, for one carrier or the sum of several."""
    of = {
        name: sum(totals.get(f"{code} {name}", 0) for code in codes)
        for name in ("flights", "cancelled", "arrived", "late", "minutes")
    }
    late = f"{of['late'] / of['arrived']:.0%}" if of["arrived"] else ""
    delay = f"{of['minutes'] / of['arrived']:+.1f} min" if of["arrived"] else ""
    return [f"{of['flights']:,}", f"{of['cancelled']:,}", late, delay]


def outcome(totals: Mapping[str, int], loaded: Loaded, compared: int) -> Table:
    flights = totals["flight"]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    speed = f"{loaded.seconds:.1f} s, {flights / loaded.seconds:,.0f} rows per second"
    table.add_row("Loaded", f"{flights:,} flights by save() with signals in {speed}")
    table.add_row("", "{airline:,} airlines, {airport:,} airports, {plane:,} planes".format_map(totals))
    table.add_row(
        "Second", "{weather:,} hours of weather, {audit:,} audit rows written by receivers".format_map(totals)
    )
    table.add_row(
        "Undone", f"{loaded.undone:,} flights rolled back on purpose: no row, audit, total or key left"
    )
    table.add_row("Heard", f"post_save {loaded.sent:,} times at once, {flights:,} times after a commit")
    table.add_row(
        "Kept",
        f"{totals['planes not listed']:,} flights whose plane is not listed, "
        f"{totals['destinations not listed']:,} whose destination is not",
    )
    table.add_row("Checked", f"{compared:,} totals against the CSV files: all agree")
    return table


def progress_bar() -> Progress:
    """A bar on a terminal; nothing where standard error goes to a file."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def show_wrong(console: Console, wrong: Iterable[str]) -> None:
    """Print every total that is wrong, a line each."""
    for line in wrong:
        console.print(f"wrong total: {line}", style="red", markup=False, soft_wrap=True)
