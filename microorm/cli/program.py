"""Program: the commands by name, the options of all, and how an error ends.

A command's module is imported when the command is used, so that `--help` needs nothing of the project and starts
fast; the test of this module compares the sentences below with those of the commands.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click

import microorm
from microorm.cli.failures import failure_text
from microorm.cli.invocation import Invocation
from microorm.errors import nearest

NAME: Final = "microorm"
COMMANDS: Final = {
    "init": "Start the migrations of a project.",
    "makemigrations": "Write a revision that brings the databases to what the models say.",
    "migrate": "Bring the databases to a revision, by default the newest.",
    "show": "Show the revisions, and which databases have them.",
    "sql": "Print the SQL that a migration would send.",
    "check": "Compare the models with the databases.",
    "merge": "Write a revision that joins two heads of the history.",
    "signals": "List who listens to which signal, in order.",
    "databases": "Show the databases: which answer, and at which revision they are.",
    "shell": "Open Python with the models imported.",
}
INTERRUPTED: Final = 130


class Program(click.Group):
    """The commands, each imported when it is used; errors are one line on stderr."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order in which one meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"microorm.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that *args* begins with. `UsageError` where there is none."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"no command named {args[0]!r}{nearest(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands into the help, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and exit with its status; what goes wrong is told in one line on stderr."""
        invocation = extra["obj"] = extra.get("obj") or Invocation()
        run = partial(super().main, args, NAME, complete_var, standalone_mode=False, **extra)
        if not standalone_mode:
            return run()
        try:
            status: Any = run()
        except click.Abort as error:
            for note in getattr(error.__cause__, "__notes__", ()):
                _tell(note)
            status = INTERRUPTED if isinstance(error.__cause__, KeyboardInterrupt) else 1
        except click.ClickException as error:
            _tell(_usage(error))
            status = error.exit_code
        except Exception as error:  # noqa: BLE001 whatever it is, it is told, and ends the program
            if invocation.traceback:
                click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
            else:
                _tell(failure_text(error, invocation.known_project))
            status = 1
        sys.exit(status)


def _tell(text: str) -> None:
    click.echo(f"{NAME}: {text}", err=True)


def _usage(error: click.ClickException) -> str:
    """What is wrong with the arguments, in one line."""
    text = " ".join(error.format_message().split()).rstrip(".")
    text = text[:1].lower() + text[1:]
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{text}; '{context.command_path} --help' tells more" if context else text


@click.group(
    cls=Program,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGUMENTS]...",
    context_settings={"max_content_width": 100},
)
@click.option(
    "--project",
    "start",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The pyproject.toml, or a folder to search from upward; else the working directory.",
)
@click.option("--traceback", is_flag=True, help="Show where an error comes from, not only what it is.")
@click.version_option(microorm.__version__, "--version", prog_name=NAME, message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context, start: Path | None, traceback: bool) -> None:
    """Migrate, inspect and try out the databases of a project.

    The project is described by [tool.microorm] of its pyproject.toml; `microorm init` writes one.

    \b
    Examples:
      microorm init
      microorm makemigrations -m "first"
      microorm migrate
      microorm migrate --help

    \b
    Exit status, of all commands:
      0    done
      1    failed, or differences were found; stderr says what in one line
      2    wrong usage
      130  interrupted
    """
    invocation = ctx.obj = (
        ctx.find_object(Invocation) or Invocation()
    )  # none where this is a command of another group
    invocation.start, invocation.traceback = start, traceback
    ctx.call_on_close(invocation.close)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
