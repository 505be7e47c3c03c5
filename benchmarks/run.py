"""Run the benchmarks: `python -m benchmarks.run`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from benchmarks.contestant import Contestant
from benchmarks.databases import NAMES, Database, database_of
from benchmarks.report import OURS, closeup, comparison, summary
from benchmarks.roster import HOUSE, PEERS, gather
from benchmarks.rounds import measure
from benchmarks.workloads import Workload, chosen, lacking

RESULTS = Path(__file__).parent / "results" / "latest.json"
WIDTH = 210


def _chosen(context: click.Context, parameter: click.Parameter, only: str | None) -> list[Workload]:
    try:
        return chosen(only)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _named(context: click.Context, parameter: click.Parameter, names: str | None) -> list[str] | None:
    if names is None:
        return None
    asked, known = names.split(","), [*HOUSE, *PEERS]
    for name in asked:
        if name not in known:
            raise click.BadParameter(f"no contestant named {name!r}; known: {', '.join(known)}")
    return [name for name in known if name in {"driver", *asked}]


@click.command()
@click.option("--rounds", default=10, show_default=True, type=click.IntRange(1), help="Rounds to interleave.")
@click.option("--rows", default=2000, show_default=True, type=click.IntRange(20), help="Rows in the table.")
@click.option("--only", callback=_chosen, metavar="WORKLOADS", help="Some workloads, by key, comma between.")
@click.option(
    "--database", "kind", default="sqlite", show_default=True, type=click.Choice(NAMES), help="Where to work."
)
@click.option("--url", help="Where the server is.  [default: MICROORM_TEST_POSTGRES, else this machine's]")
@click.option("--peers", is_flag=True, help="Clock other ORMs, too (benchmarks/peers.txt).")
@click.option(
    "--contestants", "named", callback=_named, metavar="NAMES", help="Only these, beside the driver."
)
@click.option(
    "--gc/--no-gc", "collect", default=True, help="Garbage collector under the clock.  [default: on]"
)
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
    named: list[str] | None,
    collect: bool,
    samples: bool,
    target: Path,
) -> None:
    """Clock microorm beside the plain driver, a hand-written mapper and SQLAlchemy Core.

    Exits with 1 when rows differ from the driver's, or when one of these four is missing.
    """
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    database = _database(kind, url)
    present, missing = gather(named or [*HOUSE, *(PEERS if peers else ())], database.name)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"{rounds} rounds", total=_steps(present, only, database) * rounds)
        record = measure(
            present,
            only,
            database=database,
            rows=rows,
            rounds=rounds,
            collect=collect,
            step=lambda: progress.advance(task),
        )
    settings = {"rounds": rounds, "rows": rows, "collector": "on" if collect else "off"}
    kept = summary(record, present, only, database, missing, settings, samples=samples)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    _show(console, kept)
    if kept["mismatches"] or not missing.keys().isdisjoint(HOUSE):
        raise SystemExit(1)


def _database(kind: str, url: str | None) -> Database:
    try:
        database = database_of(kind, url)
        database.version()
    except (ImportError, ConnectionError) as error:
        raise click.ClickException(f"{kind} cannot be measured: {error}") from None
    return database


def _steps(present: Sequence[type[Contestant]], only: Sequence[Workload], database: Database) -> int:
    in_memory = "memory" in database.places
    return sum(lacking(each, one, in_memory=in_memory) is None for each in present for one in only)


def _show(console: Console, kept: dict[str, Any]) -> None:
    machine, settings = kept["machine"], kept["settings"]
    console.print(
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, {machine['python']} "
        f"(empty call {machine['empty call, ns']} ns), {kept['database']['version']}; {settings['rounds']} rounds of {settings['rows']} rows, "
        f"collector {settings['collector']}"
    )
    console.print(", ".join(f"{name} {version}" for name, version in kept["versions"].items()))
    console.print(comparison(kept))
    if any(OURS in workload["contestants"] for workload in kept["workloads"].values()):
        console.print(closeup(kept))
    for name, why in kept["missing"].items():
        console.print(f"[yellow]missing[/]: {name} ({escape(why)})", highlight=False)
    for mismatch in kept["mismatches"]:
        console.print("[red]wrong[/]:", escape(mismatch), highlight=False)


if __name__ == "__main__":
    main()
