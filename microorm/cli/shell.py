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
from microorm.cli.failures import CODE
from microorm.cli.invocation import Invocation
from microorm.registry import Registry


@click.command()
@click.option("-c", "source", metavar="CODE", help="Run this code and exit, instead of asking for some.")
@click.pass_obj
def command(invocation: Invocation, source: str | None) -> None:
    """Open Python with the models imported.

    The project is set up; its models are there by their class names, all of them in `models` by their labels, and
    beside them `microorm`, `atomic`, `connection`, `on_commit` and `using`. IPython is used where it is installed.

    \b
    Examples:
      microorm shell
      microorm shell -c "print(Book.objects.count())"

    \b
    Exit status:
      0  the shell was left, or the code ran through
      1  the code, or a module of the project, raises
    """
    invocation.set_up()
    names, clashes = names_for(invocation.registry)
    if source is not None:
        exec(compile(source, CODE, "exec"), names)
        return
    banner = "\n".join([_greeting(invocation.registry, names), *clashes])
    if find_spec("IPython") is not None:
        click.echo(banner)
        import_module("IPython").start_ipython(argv=["--no-banner"], user_ns=names)
        return
    _complete(names)
    code.interact(banner, local=names, exitmsg="")


def names_for(registry: Registry) -> tuple[dict[str, Any], list[str]]:
    """What the shell knows by name; a line for each model whose name was taken already."""
    databases = registry.databases
    _ = registry.metadata  # models that wait for a name have their labels then
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
            f"and: {', '.join(others)}",
        ]
    )


def _complete(names: dict[str, Any]) -> None:
    """Let the tab key complete names, where Python was built with readline."""
    if find_spec("readline") is None:
        return
    readline, rlcompleter = import_module("readline"), import_module("rlcompleter")
    readline.set_completer(rlcompleter.Completer(names).complete)
    readline.parse_and_bind("tab: complete")
