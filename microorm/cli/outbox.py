"""Outbox: the commands that show what waits for durable receivers, and that deal with dead events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from microorm.cli.output import EMPTY, print_table
from microorm.cli.program import Invocation, json_option
from microorm.cli.relay import Number, aliases_option

if TYPE_CHECKING:
    from microorm.outbox import Outbox

receiver_option = click.option("--receiver", metavar="UID", help="Only the events of this dispatch_uid.")
STATUS = ("alias", "receiver", "waiting", "retrying", "claimed", "dead", "oldest")
DEAD = ("alias", "id", "receiver", "signal", "label", "attempts", "died_at", "error")


@click.group(subcommand_metavar="COMMAND [ARGUMENTS]...")
def outbox() -> None:
    """Inspect the events of durable receivers.

    \b
    Examples:
      microorm outbox status
      microorm outbox dead --receiver billing.charge
      microorm outbox retry 17 18
      microorm outbox prune --days 30

    \b
    Exit status:
      0  it is done
      1  there is no such alias, no durable receiver, or no outbox
    """


@outbox.command()
@aliases_option
@json_option
@click.pass_obj
def status(invocation: Invocation, aliases: Sequence[str], as_json: bool) -> None:
    """Show how many events wait, by database and receiver, and for how long the oldest has waited.

    \b
    Examples:
      microorm outbox status
      microorm outbox status --json
    """
    found = _outbox(invocation, aliases).status()
    if as_json:
        _print_json(found)
        return
    rows = [[_cell(getattr(each, name)) for name in STATUS] for each in found]
    _print(STATUS, rows, "no events")


@outbox.command()
@aliases_option
@receiver_option
@click.option(
    "--limit",
    type=click.IntRange(1, 2**31),
    default=100,
    show_default=True,
    help="At most so many of each database.",
)
@json_option
@click.pass_obj
def dead(
    invocation: Invocation, aliases: Sequence[str], receiver: str | None, limit: int, as_json: bool
) -> None:
    """List the dead events, the newest first.

    \b
    Examples:
      microorm outbox dead
      microorm outbox dead --receiver billing.charge --json
    """
    found = _outbox(invocation, aliases).dead(receiver, limit)
    if as_json:
        _print_json(found)
        return
    rows = [[_cell(getattr(each, name)) for name in DEAD] for each in found]
    _print(DEAD, rows, "no dead events")


@outbox.command()
@click.argument("ids", nargs=-1, type=int)
@aliases_option
@receiver_option
@click.option("--all", "everything", is_flag=True, help="All dead events.")
@json_option
@click.pass_obj
def retry(
    invocation: Invocation,
    ids: Sequence[int],
    aliases: Sequence[str],
    receiver: str | None,
    everything: bool,
    as_json: bool,
) -> None:
    """Put dead events back: those with IDS, those of --receiver, or --all.

    They are delivered as if they had not been tried, after all that waits.

    \b
    Examples:
      microorm outbox retry 17 18 --alias default
      microorm outbox retry --receiver billing.charge
    """
    if not (ids or receiver or everything):
        raise click.UsageError("name the events: IDS, --receiver or --all")
    count = _outbox(invocation, aliases).retry(receiver, ids or None)
    click.echo(json.dumps({"retried": count}) if as_json else f"{count} events wait again")


@outbox.command()
@aliases_option
@receiver_option
@click.option("--days", type=Number(0, 36_500), required=True, help="Those that are older.")
@json_option
@click.pass_obj
def prune(
    invocation: Invocation, aliases: Sequence[str], receiver: str | None, days: float, as_json: bool
) -> None:
    """Delete old dead events, and old notes of what was done exactly once.

    \b
    Examples:
      microorm outbox prune --days 30
    """
    count = _outbox(invocation, aliases).prune(days, receiver)
    click.echo(json.dumps({"deleted": count}) if as_json else f"{count} rows deleted")


def _outbox(invocation: Invocation, aliases: Sequence[str]) -> Outbox:
    invocation.set_up(aliases)
    from microorm.outbox import Outbox  # noqa: PLC0415 not every command needs it

    return Outbox(invocation.registry.databases, aliases or None)


def _print(columns: Sequence[str], rows: Sequence[Sequence[str]], nothing: str) -> None:
    if rows:
        print_table(columns, rows)
    else:
        click.echo(nothing)


def _print_json(found: Sequence[Any]) -> None:
    click.echo(json.dumps([asdict(each) for each in found], indent=2, default=str))


def _cell(value: Any) -> str:
    if value is None:
        return EMPTY
    if isinstance(value, float):
        return f"{value:.0f} s"
    return f"{value:%Y-%m-%d %H:%M:%S}" if hasattr(value, "strftime") else str(value)
