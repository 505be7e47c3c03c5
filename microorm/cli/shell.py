"""Shell: the command that opens Python with the models imported."""

from __future__ import annotations

import code
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import click

import microorm
from microorm.cli.output import SHELL_CODE
from microorm.cli.program import Invocation
from microorm.registry import Registry


@click.command()
@click.option("-c", "source", metavar="CODE", help="Run this code and exit.")
@click.pass_obj
def shell(invocation: Invocation, source: str | None) -> None:
    """Open Python with the models imported.

    Sets up the project and defines each model by its class name, `models` (all models by their labels), `microorm`,
    `atomic`, `connection`, `on_commit` and `using`. Uses IPython if it is installed.

    \b
    Examples:
      microorm shell
      microorm shell -c "print(Book.objects.count())"

    \b
    Exit status:
      0  the shell was left, or the code ran to its end
      1  the code, or a module of the project, raises
    """
    invocation.set_up()
    names, clashes = shell_names(invocation.registry)
    if source is not None:
        exec(compile(source, SHELL_CODE, "exec"), names)
        return
    banner = "\n".join([_greeting(invocation.registry, names), *clashes])
    if find_spec("IPython") is not None:
        click.echo(banner)
        import_module("IPython").start_ipython(argv=["--no-banner"], user_ns=names)
        return
    if find_spec("readline") is not None:  # not on Windows
        readline, rlcompleter = import_module("readline"), import_module("rlcompleter")
        readline.set_completer(rlcompleter.Completer(names).complete)
        readline.parse_and_bind("tab: complete")
    code.interact(banner, local=names, exitmsg="")


def shell_names(registry: Registry) -> tuple[dict[str, Any], list[str]]:
    """Return the names in the shell, and a line for each model whose class name is taken."""
    databases = registry.databases
    _ = registry.metadata  # resolves relations by name, on which the labels of some models depend
    models = dict(registry.models)
    names: dict[str, Any] = {
        "microorm": microorm,
        "models": models,
        "atomic": databases.atomic,
        "connection": databases.connection,
        "on_commit": databases.on_commit,
        "using": databases.using,
    }
    clashes = []
    for label, model in models.items():
        taken = names.setdefault(model.__name__, model)
        if taken is not model:
            other = next((known for known, each in models.items() if each is taken), "something else")
            clashes.append(f"{model.__name__} is {other}; the model {label} is models[{label!r}]")
    return names, clashes


def _greeting(registry: Registry, names: Mapping[str, Any]) -> str:
    python = ".".join(map(str, sys.version_info[:3]))
    models = [name for name, value in names.items() if value in names["models"].values()]
    others = [name for name in names if name not in models]
    return "\n".join(
        [
            f"microorm {microorm.__version__}, Python {python}",
            f"databases: {', '.join(registry.databases.aliases)}",
            f"models: {', '.join(models) or 'none'}",
            f"other names: {', '.join(others)}",
        ]
    )
