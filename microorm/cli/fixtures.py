"""Fixtures: the commands that write rows to a file, and that load them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from microorm.cli.program import Invocation, completer, json_option

alias_option = click.option(
    "--alias",
    metavar="NAME",
    shell_complete=completer(lambda invocation: invocation.project.databases),
    help="The database.  [default: that of each model, by the routing]",
)


def _labels(invocation: Invocation) -> Iterable[str]:
    invocation.set_up()
    return invocation.registry.models


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...", shell_complete=completer(_labels))
@alias_option
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write to FILE, whose name ends in .json, .jsonl, .json.gz or .jsonl.gz.  [default: standard output]",
)
@click.option("--lines", is_flag=True, help="Print JSON lines, where there is no FILE.")
@click.option("--natural-keys", is_flag=True, help="Refer to rows by the natural_key= of their models.")
@click.pass_obj
def dump(
    invocation: Invocation,
    models: Sequence[str],
    alias: str | None,
    output: Path | None,
    lines: bool,
    natural_keys: bool,
) -> None:
    """Write the rows of MODELS as JSON; by default of all.

    A MODEL is a label such as shop.Book, or the name of an application. The rows that relate a model to others are written,
    too. Rows come after those that they refer to. Memory does not grow with their number, and FILE appears when all is
    written.

    \b
    Examples:
      microorm dump shop.Book > books.json
      microorm dump shop --output shop.jsonl.gz
      microorm dump --alias archive --natural-keys

    \b
    Exit status:
      0  the rows were written
      1  there is no such model or alias, or a row cannot be read
    """
    if lines and output is not None:
        raise click.UsageError("--lines is for standard output; a FILE has JSON lines if it ends in .jsonl")
    _set_up(invocation, alias)
    from microorm import fixtures  # noqa: PLC0415 not every command needs it

    with _bar("dumping", "rows", shown=output is not None) as progress:
        counts = fixtures.dump(
            output or sys.stdout,
            models or None,
            using=alias,
            natural_keys=natural_keys,
            format=None if output is not None else "jsonl" if lines else "json",
            registry=invocation.registry,
            progress=progress,
        )
    if output is not None:
        click.echo(f"{_counted(counts)} written to {output}")


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@alias_option
@json_option
@click.pass_obj
def load(invocation: Invocation, files: Sequence[Path], alias: str | None, as_json: bool) -> None:
    """Load the rows of FILES, all or none.

    The name of a FILE ends in .json, .jsonl, .json.gz or .jsonl.gz. Checks every object first. Then inserts the rows, or
    updates those that are there, in one transaction for each database. Rows may come in any order. Saves rows one by one, with
    raw=True, where pre_save or post_save of the model have receivers. Leaves out rows that the routers do not allow.

    \b
    Examples:
      microorm load books.json
      microorm load shop.jsonl.gz --alias archive

    \b
    Exit status:
      0  the rows were loaded
      1  a file cannot be read, or an object is invalid; nothing was loaded
    """
    _set_up(invocation, alias)
    from microorm import fixtures  # noqa: PLC0415 not every command needs it

    with _bar("loading", "bytes", shown=True) as progress:
        loaded = fixtures.load(*files, using=alias, registry=invocation.registry, progress=progress)
    if as_json:
        click.echo(json.dumps({"loaded": loaded.rows, "skipped": loaded.skipped}, indent=2))
        return
    skipped = f", {_counted(loaded.skipped)} skipped" if loaded.skipped else ""
    click.echo(f"{_counted(loaded.rows)} loaded{skipped}")


def _set_up(invocation: Invocation, alias: str | None) -> None:
    invocation.set_up([alias])


def _counted(counts: Mapping[str, int]) -> str:
    listed = ", ".join(f"{label} {count}" for label, count in counts.items() if count)
    return f"{sum(counts.values())} rows" + (f" ({listed})" if listed else "")


def on_terminal() -> bool:
    """Return whether progress can be shown, beside what is printed."""
    return sys.stderr.isatty()


@contextmanager
def _bar(title: str, unit: str, *, shown: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a function that moves a progress bar on a terminal; None elsewhere."""
    if not (shown and on_terminal()):
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 most commands print plain lines, and start faster
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"{title} {unit}", total=None)

        def move(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield move
