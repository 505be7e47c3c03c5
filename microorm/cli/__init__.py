"""Command line: the program `microorm`, a file per subject, whose commands parse arguments, call a function and print.

A command is a function with `@click.command()`; it becomes part of the program by its line below.
"""

from microorm.cli import databases, fixtures, init, inspect, migrate, outbox, relay, shell, signals
from microorm.cli.program import main

__all__ = ["main"]

main.add_command(init.init)
main.add_command(migrate.makemigrations)
main.add_command(migrate.migrate)
main.add_command(migrate.show)
main.add_command(migrate.sql)
main.add_command(migrate.check)
main.add_command(migrate.merge)
main.add_command(fixtures.dump)
main.add_command(fixtures.load)
main.add_command(signals.signals)
main.add_command(relay.relay)
main.add_command(outbox.outbox)
main.add_command(databases.databases)
main.add_command(inspect.inspect)
main.add_command(shell.shell)
