"""Program: the group of the commands, the state and options they share, and how an error ends it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, redirect_stdout, suppress
from functools import partial
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

import microorm
from microorm.apps import Apps, default_apps
from microorm.cli.output import format_error, one_line
from microorm.errors import UnknownAlias, nearest
from microorm.project import Project, read_project
from microorm.registry import Registry

if TYPE_CHECKING:
    from microorm.migrations import Migrations

NAME: Final = "microorm"
INTERRUPTED: Final = 130


class Invocation:
    """One run of the command line: the options of the group, and the project they select.

    A program that runs a command in its own process may pass the *project*, and the *apps* to set up instead of the
    default ones. *start* is the file or folder where the project is looked for otherwise.
    """

    def __init__(self, project: Project | None = None, apps: Apps = default_apps) -> None:
        self.loaded_project = project
        self.apps = apps
        self.start: Path | None = None
        self.traceback = False
        self._opened = False

    @property
    def project(self) -> Project:
        """The project, read on first use. Raises `ConfigurationError`."""
        if self.loaded_project is None:
            self.loaded_project = read_project(self.start)
        return self.loaded_project

    @property
    def registry(self) -> Registry:
        """The registry of the project's models."""
        return self.apps.registry

    def configure(self) -> None:
        """Configure the databases without importing the models."""
        databases = self.registry.databases
        self._opened = self._opened or not databases.aliases
        self.project.configure(databases)

    def set_up(self, aliases: Sequence[str | None] = ()) -> None:
        """Configure the databases, set up the applications and resolve relations to models given by name.

        *aliases*: those that the command was given. The tenants are not listed if all of these are in pyproject.toml, since their
        list may be in a table that is still to be made. Raises `UnknownAlias`, as `Project.set_up` does, and `ModelError` for a
        name that no model has.
        """
        given = [alias for alias in aliases if alias is not None]
        others = [alias for alias in given if alias not in self.project.databases]
        if others and self.project.tenants is None:
            raise UnknownAlias(others[0], self.project.databases)
        self.configure()
        self.project.set_up(self.apps, tenants=bool(others or not given))
        for alias in others:
            self.registry.databases.database(alias)
        _ = self.registry.metadata

    def migrations(self, alias: str | None = None) -> Migrations:
        """Set up the project and return its migrations. Raises `UnknownAlias`, `MigrationError`, and as `set_up` does."""
        from microorm.migrations import Migrations  # noqa: PLC0415 loads alembic, which `--help` does without

        self.set_up([alias])
        return Migrations(self.project.migrations, self.registry)

    def close(self) -> None:
        """Close the databases, unless they were configured before this run."""
        if self._opened:
            self._opened = False
            self.registry.databases.close()


class Program(click.Group):
    """A group whose errors are one line on stderr."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that *args* begins with. Raises `UsageError` if there is none."""
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise click.UsageError(f"no command named {args[0]!r}{nearest(args[0], self.commands)}", ctx)
        return super().resolve_command(ctx, args)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and exit with its status, after printing an error in one line on stderr."""
        invocation = extra["obj"] = extra.get("obj") or Invocation()
        run = partial(super().main, args, NAME, complete_var, standalone_mode=False, **extra)
        if not standalone_mode:
            return run()
        try:
            status: Any = run()
        except click.Abort as error:
            for note in getattr(error.__cause__, "__notes__", ()):
                _print_error(note)
            status = INTERRUPTED if isinstance(error.__cause__, KeyboardInterrupt) else 1
        except click.ClickException as error:
            _print_error(_format_click_error(error))
            status = error.exit_code
        except Exception as error:  # noqa: BLE001 every error is printed and ends the program
            if invocation.traceback:
                click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
            else:
                _print_error(format_error(error, invocation.loaded_project))
            status = 1
        sys.exit(status)


def _print_error(text: str) -> None:
    click.echo(f"{NAME}: {text}", err=True)


def _format_click_error(error: click.ClickException) -> str:
    """Return the message of *error* in the style of microorm's own errors."""
    text = one_line(error.format_message()).rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{text[:1].lower()}{text[1:]}" + (f"; see '{context.command_path} --help'" if context else "")


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
    help="The pyproject.toml, or the folder in which the search for it starts.  [default: the working directory]",
)
@click.option("--traceback", is_flag=True, help="Print the traceback of an error.")
@click.version_option(microorm.__version__, "--version", prog_name=NAME, message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context, start: Path | None, traceback: bool) -> None:
    """Migrate, inspect and try out the databases of a project.

    A project is configured in [tool.microorm] of its pyproject.toml, which `microorm init` writes.

    \b
    Examples:
      microorm init
      microorm makemigrations -m "first"
      microorm migrate
      microorm migrate --help

    \b
    Exit status of every command:
      0    success
      1    an error, which is one line on stderr, or differences were found
      2    wrong usage
      130  interrupted
    """
    invocation = ctx.ensure_object(Invocation)
    invocation.start, invocation.traceback = start, traceback
    ctx.call_on_close(invocation.close)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, with more details.")


def completer(
    names: Callable[[Invocation], Iterable[str]],
) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return a function for `shell_complete=` that offers *names*, or nothing if the project cannot be read."""

    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        invocation = ctx.find_object(Invocation) or Invocation()
        invocation.start = ctx.find_root().params.get("start")
        # Neither errors nor what the models print belong on a command line that is being typed.
        with suppress(Exception), redirect_stdout(StringIO()), closing(invocation):
            return [name for name in names(invocation) if name.startswith(incomplete)]
        return []

    return complete
