"""Run long tests, and print what they have found.

python -m tools.soak [PART ...] [--seconds N] [--clients N] [--seed N] [--rows N] [--kills N]

The parts share the time, ten minutes by default; that of `fixtures` and `outbox` depends on rows and kills. Each run has a new seed, which it prints; `--seed` takes one that has
failed. Exit status: 0 if all parts have passed, 1 if one has failed, 2 for wrong usage.
"""

import secrets
import sys
import time
from collections.abc import Callable

import click
from rich.console import Console
from rich.table import Table

from tools.soak import fixtures, outbox, rounds, web
from tools.soak.parts import Options, Outcome, summary

PARTS: dict[str, Callable[[Options], Outcome]] = {
    "oracles": rounds.oracles,
    "cancellations": rounds.cancellations,
    "migrations": rounds.migrations,
    "deliveries": rounds.deliveries,
    "web": web.run,
    "fixtures": fixtures.run,
    "outbox": outbox.run,
}


def show(console: Console, outcomes: dict[str, Outcome], seed: int) -> None:
    """Print a table of the facts, a line for each failure, and a summary."""
    table = Table(title=f"Soak, seed {seed}", show_header=False)
    for name, outcome in outcomes.items():
        table.add_row(name, "", outcome.verdict)
        for fact, value in outcome.facts.items():
            table.add_row("", fact, value)
        table.add_section()
    console.print(table)
    for name, outcome in outcomes.items():
        for failure in outcome.failures:
            console.print(f"{name}: {failure}", style="red", markup=False, soft_wrap=True)
    console.print(summary(outcomes))
    failed = [name for name, outcome in outcomes.items() if outcome.failures]
    if failed:
        console.print(
            f'again: make soak ARGS="{" ".join(failed)} --seed {seed}"', markup=False, soft_wrap=True
        )


@click.command(help=f"Run long tests, all or the PARTS that are named: {', '.join(PARTS)}.")
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option(
    "--seconds", type=click.FloatRange(min=0.1), default=600, show_default=True, help="How long all run."
)
@click.option(
    "--clients", type=click.IntRange(min=1), default=50, show_default=True, help="How many work at once."
)
@click.option("--seed", type=click.IntRange(min=0), help="What is chosen by; a new one by default.")
@click.option(
    "--rows", type=click.IntRange(min=1), default=250_000, show_default=True, help="How many are dumped."
)
@click.option(
    "--kills",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="How many processes are killed.",
)
def main(
    parts: tuple[str, ...], seconds: float, clients: int, seed: int | None, rows: int, kills: int
) -> None:
    chosen = dict.fromkeys(parts or PARTS)
    if seed is None:
        seed = secrets.randbelow(1_000_000)
    options = Options(seconds / len(chosen), clients, seed, rows, kills)
    outcomes = {}
    for name in chosen:
        click.echo(f"soak: {name}, seed {seed}, about {options.seconds:g} s ...", err=True)
        started = time.monotonic()
        outcomes[name] = PARTS[name](options)
        outcomes[name].facts["time"] = f"{time.monotonic() - started:.0f} s"
    show(Console(), outcomes, seed)
    sys.exit(1 if any(outcome.failures for outcome in outcomes.values()) else 0)


if __name__ == "__main__":
    main()
