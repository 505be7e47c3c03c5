"""Relay: the command that delivers the events of durable receivers."""

from __future__ import annotations

import logging
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from math import isnan
from typing import TYPE_CHECKING, Any

import click

from microorm.cli.output import console
from microorm.cli.program import Invocation, completer
from microorm.errors import ConfigurationError, nearest
from microorm.messages import brief

if TYPE_CHECKING:
    from microorm.outbox import Delivered, Relay, Transport

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Number(click.FloatRange):
    """A number in a range, and not `nan`, which is in every range of click."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number. Fails for another text."""
        found = super().convert(value, param, ctx)
        return self.fail(f"{value!r} is no number", param, ctx) if isnan(found) else found


aliases_option = click.option(
    "--alias",
    "aliases",
    multiple=True,
    metavar="NAME",
    shell_complete=completer(lambda invocation: invocation.project.databases),
    help="Only this database. May be given several times.  [default: all databases]",
)


@click.command()
@aliases_option
@click.option(
    "--batch",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    help="How many events are claimed at once.",
)
@click.option(
    "--lease",
    type=Number(0, 366 * 86_400, min_open=True),
    default=60.0,
    show_default=True,
    help="For how many seconds they are claimed.",
)
@click.option("--drain", is_flag=True, help="End when no event is due.")
@click.option(
    "--transport",
    "path",
    metavar="MODULE:NAME",
    help="Publish the events by this transport.  [default: the receivers are called here]",
)
@click.pass_obj
def relay(
    invocation: Invocation, aliases: Sequence[str], batch: int, lease: float, drain: bool, path: str | None
) -> None:
    """Deliver the events of durable receivers.

    Runs until it is stopped. Calls the receivers of the events in the outbox of each database, again and again until they
    succeed. Any number of relays may run at once. SIGTERM, or Ctrl-C, lets the running receiver finish and releases the
    other events. The second one ends the relay at once. Its events are held until the lease is over, as if it was killed.

    \b
    Examples:
      microorm relay
      microorm relay --alias default --alias archive
      microorm relay --drain
      microorm relay --transport shop.brokers:transport

    \b
    Exit status:
      0  it was stopped, or no event is due
      1  there is no such alias, transport, durable receiver or outbox
    """
    invocation.set_up(aliases)
    from microorm.outbox import Outbox, Relay  # noqa: PLC0415 not every command needs it

    databases = invocation.registry.databases
    chosen = Outbox(databases, aliases or None)
    chosen.status()  # says what is missing before the first event
    transport = None if path is None else _transport(path)
    counted: Counter[str] = Counter()
    with _reporting(counted) as report, ExitStack() as stack:
        if transport is not None:
            stack.callback(transport.close)
        worker = Relay(
            databases, chosen.aliases, batch=batch, lease=lease, observe=report, transport=transport
        )
        for alias in chosen.aliases:
            worker.store(alias)  # says so if no model has a durable receiver
        with stopped_by_signals(worker):
            if drain:
                worker.drain()
            else:
                worker.run()
    click.echo(_summary(counted))


def _transport(path: str) -> Transport:
    """Return the transport that *path* names. Raises `UsageError` and `ConfigurationError` if there is none."""
    module_name, _, name = path.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise click.UsageError(f"--transport must be like 'shop.brokers:transport', not {path!r}")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigurationError(f"no transport {path!r}: there is no module {error.name!r}") from error
    if (found := getattr(module, name, None)) is None:
        raise ConfigurationError(
            f"no transport {path!r}: {module_name!r} has no {name!r}{nearest(name, vars(module))}"
        )
    if isinstance(found, type) or not (hasattr(found, "publish") and hasattr(found, "close")):
        raise ConfigurationError(
            f"{path!r} is {brief(found)}, not a transport such as FastStreamTransport(broker)"
        )
    transport: Transport = found
    return transport


def _summary(counted: Counter[str]) -> str:
    return ", ".join(f"{counted[name]} {name}" for name in ("done", "failed", "dead"))


@contextmanager
def stopped_by_signals(worker: Relay) -> Iterator[None]:
    """Stop *worker* by the first signal, and let the second end the process."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def stop(number: int, frame: Any) -> None:
        for each in _SIGNALS:  # the system ends the process, whatever its receiver waits for
            signal.signal(each, signal.SIG_DFL)
        worker.stop()

    for number in _SIGNALS:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _reporting(counted: Counter[str]) -> Iterator[Callable[[Delivered], None]]:
    """Count the attempts by outcome; print those that have failed, and on a terminal a line with the numbers."""
    screen = console()

    def note(delivered: Delivered) -> None:
        counted[delivered.outcome] += 1
        if delivered.outcome != "done":
            text = f"{delivered.alias}: {delivered.receiver} {delivered.outcome}, attempt {delivered.attempt}"
            screen.print(text) if screen.is_terminal else click.echo(text)

    logging.getLogger("microorm.outbox").addHandler(logging.NullHandler())
    if not screen.is_terminal:
        yield note
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415 start-up time

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task("waiting for events")

        def show(delivered: Delivered) -> None:
            note(delivered)
            bar.update(task, description=_summary(counted))

        yield show
