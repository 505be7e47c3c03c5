"""Completion: what a shell may offer for aliases, revisions and models.

A project that cannot be read completes nothing: a shell is no place for errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from io import StringIO

import click

from microorm.apps import default_apps
from microorm.project import Project, read_project

_REVISION = re.compile(r"^revision(?:\s*:\s*str)?\s*=\s*[\"']([^\"']+)[\"']", re.MULTILINE)

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _completer(known: Callable[[Project], Iterable[str]]) -> Complete:
    def complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        try:
            names = list(known(read_project(ctx.find_root().params.get("start"))))
        except Exception:  # noqa: BLE001 see the top of the file
            return []
        return [name for name in names if name.startswith(incomplete)]

    return complete


def _revisions(project: Project) -> Iterable[str]:
    """Read, not imported."""
    yield from ("head", "base")
    for file in sorted((project.migrations / "versions").glob("*.py")):
        yield from _REVISION.findall(file.read_text())


def _labels(project: Project) -> Iterable[str]:
    with redirect_stdout(StringIO()):  # what the models print is nothing to complete with
        project.set_up()
    return list(default_apps.registry.models)


aliases = _completer(lambda project: project.databases)
revisions = _completer(_revisions)
labels = _completer(_labels)
