"""Command line: the program `microorm`, a file per subject, whose commands parse arguments, call a function and print.

A command is a function with `@click.command()`; it becomes part of the program by its line below.
"""

from microorm.cli import databases, init, migrate, shell, signals
from microorm.cli.program import main

__all__ = ["main"]

main.add_command(init.init)
main.add_command(migrate.makemigrations)
main.add_command(migrate.migrate)
main.add_command(migrate.show)
main.add_command(migrate.sql)
main.add_command(migrate.check)
main.add_command(migrate.merge)
main.add_command(signals.signals)
main.add_command(databases.databases)
main.add_command(shell.shell)
