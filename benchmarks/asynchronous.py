"""Run the benchmarks of what is awaited: `python -m benchmarks.asynchronous`.

Ratios are made of wall time, since asynchronous code waits: on SQLite for a thread of the driver, else for the server.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar, Literal

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table as Grid

from benchmarks.async_workloads import ASYNC_WORKLOADS
from benchmarks.awaited import AWAITED_BY_DATABASE, AWAITED_HOUSE, AWAITED_PEERS
from benchmarks.contestant import OURS, gather
from benchmarks.databases import NAMES, Database, SQLite, database_of
from benchmarks.report import NONE, rival, short, summary
from benchmarks.rounds import measure
from benchmarks.run import WIDTH, begin, end, keep, reached, steps
from benchmarks.workloads import Workload, chosen

RESULTS = Path(__file__).parent / "results" / "latest-async.json"
DRIVERS = "Piccolo and Tortoise reach PostgreSQL by asyncpg; the driver, SQLAlchemy and microorm by psycopg"


class AsyncSQLite(SQLite):
    """The same databases as without asyncio, by wall time."""

    clock: ClassVar[Literal["cpu", "wall"]] = "wall"


def _chosen(context: click.Context, parameter: click.Parameter, only: str | None) -> list[Workload]:
    try:
        return chosen(only, ASYNC_WORKLOADS)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.option("--rounds", default=10, show_default=True, type=click.IntRange(1), help="Rounds to interleave.")
@click.option("--rows", default=500, show_default=True, type=click.IntRange(20), help="Rows in the table.")
@click.option("--only", callback=_chosen, metavar="WORKLOADS", help="Some workloads, by key, comma between.")
@click.option(
    "--database", "kind", default="sqlite", show_default=True, type=click.Choice(NAMES), help="Where to work."
)
@click.option("--url", help="Where the server is.  [default: MICROORM_TEST_POSTGRES, else this machine's]")
@click.option("--peers", is_flag=True, help="Clock other ORMs, too (benchmarks/peers.txt).")
@click.option("--samples/--no-samples", default=True, help="Keep each sample, too.  [default: kept]")
@click.option(
    "--json", "target", default=RESULTS, type=click.Path(path_type=Path), help="Where to keep it all."
)
def main(
    *,
    rounds: int,
    rows: int,
    only: list[Workload],
    kind: str,
    url: str | None,
    peers: bool,
    samples: bool,
    target: Path,
) -> None:
    """Clock what microorm awaits beside the plain driver and SQLAlchemy's AsyncConnection.

    Exits with 1 when rows differ from the driver's, or when one of these three is missing.
    """
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    database = reached(kind, _made, url)
    roster = AWAITED_HOUSE | (AWAITED_PEERS if peers else {})
    here = {
        name: at for name, at in AWAITED_BY_DATABASE.get(kind, {}).items() if peers or name in AWAITED_HOUSE
    }
    present, missing = gather(roster | here, roster=roster | here)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"{rounds} rounds", total=steps(present, only, database) * rounds)
        record = measure(
            present,
            only,
            database=database,
            rows=rows,
            rounds=rounds,
            step=lambda: progress.advance(task),
        )
    settings = {"rounds": rounds, "rows": rows, "collector": "on"}
    kept = summary(record, present, only, database, missing, settings, samples=samples)
    keep(kept, target)
    begin(console, kept)
    console.print(_closeup(kept))
    if peers and kind == "postgresql":
        console.print(DRIVERS)
    end(console, kept)
    if kept["mismatches"] or not missing.keys().isdisjoint(AWAITED_HOUSE):
        raise SystemExit(1)


def _made(kind: str, url: str | None) -> Database:
    return AsyncSQLite() if kind == "sqlite" else database_of(kind, url)


def _closeup(kept: dict[str, Any]) -> Grid:
    """Show microorm alone: median and least, ratios, the best other ORM and what it takes of microorm's time."""
    grid = Grid(title="microorm; ratios are made of wall time", title_justify="left")
    grid.add_column("workload", no_wrap=True)
    for title in (
        "wall",
        "least",
        "CPU",
        "to driver",
        "to AsyncConnection",
        "best other ORM",
        "its time / ours",
    ):
        grid.add_column(title, justify="right")
    for workload in kept["workloads"].values():
        ours, name = workload["contestants"][OURS], rival(workload, "wall")
        cells = [short(ours[key]) for key in ("wall_median", "wall_min", "cpu_median")]
        cells += [f"{ours[key]:.2f}" if ours[key] else NONE for key in ("to_driver", "to_core")]
        if name is None:
            cells += [NONE, NONE]
        else:
            other = workload["contestants"][name]["wall_median"]
            cells += [f"{name.replace('_', ' ')} {short(other)}", f"{other / ours['wall_median']:.2f}"]
        grid.add_row(f"{workload['title']}, {workload['unit']}", *cells)
    return grid


if __name__ == "__main__":
    main()
