"""Run the benchmarks: `python -m benchmarks.run`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from benchmarks.contestant import BEFORE, HOUSE, OURS, PEERS, Contestant, gather
from benchmarks.databases import NAMES, Database, database_of
from benchmarks.elsewhere import ROOT, entering
from benchmarks.imports import measure_imports, table_of_imports
from benchmarks.report import against, closeup, comparison, summary
from benchmarks.rounds import measure
from benchmarks.workloads import WORKLOADS, Workload, chosen, lacking

RESULTS = Path(__file__).parent / "results" / "latest.json"
WIDTH = 210
PROCESSES = 10


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


def _checkout(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    if path is not None and not (path / "microorm" / "__init__.py").is_file():
        raise click.BadParameter(f"no package microorm in {str(path)!r}; give the root of a checkout")
    return path


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
    "--against",
    "other",
    callback=_checkout,
    type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True),
    help="Another checkout, whose microorm takes part as 'microorm before'.",
)
@click.option(
    "--imports",
    "processes",
    type=click.IntRange(0),
    help=f"Fresh processes for each import; 0 leaves it out.  [default: {PROCESSES}, for all workloads on SQLite]",
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
    other: Path | None,
    processes: int | None,
    collect: bool,
    samples: bool,
    target: Path,
) -> None:
    """Clock microorm beside the plain driver, a hand-written mapper and SQLAlchemy Core.

    Exits with 1 when rows differ from the driver's, or when one of these four is missing.
    """
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    database = reached(kind, database_of, url)
    names = _with_other(named or [*HOUSE, *(PEERS if peers else ())], other)
    present, missing = gather(names, database.name)
    if processes is None:
        processes = PROCESSES if len(only) == len(WORKLOADS) and database.name == "sqlite" else 0
    imports = {"processes": processes, "found": measure_imports(processes, other)} if processes else None
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"{rounds} rounds", total=steps(present, only, database) * rounds)
        record = measure(
            present,
            only,
            database=database,
            rows=rows,
            rounds=rounds,
            collect=collect,
            enter=entering({OURS: ROOT, BEFORE: other} if other is not None else {}),
            step=lambda: progress.advance(task),
        )
    settings = {"rounds": rounds, "rows": rows, "collector": "on" if collect else "off"}
    kept = summary(record, present, only, database, missing, settings, samples=samples)
    if imports is not None:
        kept["imports"] = imports
    keep(kept, target)
    _show(console, kept)
    if kept["mismatches"] or not missing.keys().isdisjoint(HOUSE):
        raise SystemExit(1)


def keep(kept: dict[str, Any], target: Path) -> None:
    """Write all that is kept of a run to the file *target*."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def _with_other(names: list[str], other: Path | None) -> list[str]:
    """Where there is another checkout, let both microorms take part, beside each other."""
    if other is None:
        return names
    return [
        *(name for name in names if name in HOUSE and name != OURS),
        BEFORE,
        OURS,
        *(name for name in names if name in PEERS),
    ]


def reached(kind: str, make: Callable[[str, str | None], Database], url: str | None) -> Database:
    """Return the database that *make* makes of *kind* and *url*; end the command if it does not answer."""
    try:
        database = make(kind, url)
        database.version()
    except (ImportError, ConnectionError) as error:
        raise click.ClickException(f"{kind} cannot be measured: {error}") from None
    return database


def steps(present: Sequence[type[Contestant]], only: Sequence[Workload], database: Database) -> int:
    """Return how many samples a round has."""
    in_memory = "memory" in database.places
    return sum(lacking(each, one, in_memory=in_memory) is None for each in present for one in only)


def begin(console: Console, kept: dict[str, Any]) -> None:
    """Print where and how the figures were made, and show all contestants."""
    machine, settings = kept["machine"], kept["settings"]
    console.print(
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, {machine['python']} "
        f"(empty call {machine['empty call, ns']} ns), {kept['database']['version']}; {settings['rounds']} rounds of {settings['rows']} rows, "
        f"collector {settings['collector']}"
    )
    console.print(", ".join(f"{name} {version}" for name, version in kept["versions"].items()))
    console.print(comparison(kept))


def _show(console: Console, kept: dict[str, Any]) -> None:
    begin(console, kept)
    if any(OURS in workload["contestants"] for workload in kept["workloads"].values()):
        console.print(closeup(kept))
    if any(BEFORE in workload["contestants"] for workload in kept["workloads"].values()):
        console.print(against(kept))
    if "imports" in kept:
        console.print(table_of_imports(**kept["imports"]))
    end(console, kept)


def end(console: Console, kept: dict[str, Any]) -> None:
    """Print what was missing, and what was wrong."""
    for name, why in kept["missing"].items():
        console.print(f"[yellow]missing[/]: {name} ({escape(why)})", highlight=False)
    for mismatch in kept["mismatches"]:
        console.print("[red]wrong[/]:", escape(mismatch), highlight=False)


if __name__ == "__main__":
    main()
