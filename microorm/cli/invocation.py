"""Invocation: one run of the command line, and the project that it is about."""

from __future__ import annotations

from pathlib import Path

from microorm.apps import Apps, default_apps
from microorm.errors import UnknownAlias
from microorm.project import Project, read_project
from microorm.registry import Registry


class Invocation:
    """What the options of all commands say: *start*, where the project is looked for, and *traceback*.

    A program that runs a command in its own process may pass a *project*, which is then not looked for, and the
    *apps* to set up instead of the default ones.
    """

    def __init__(self, project: Project | None = None, apps: Apps = default_apps) -> None:
        self.known_project = project
        self.apps = apps
        self.start: Path | None = None
        self.traceback = False
        self._opened = False

    @property
    def project(self) -> Project:
        """The project, read when first asked for. Raises `ConfigurationError`."""
        if self.known_project is None:
            self.known_project = read_project(self.start)
        return self.known_project

    @property
    def registry(self) -> Registry:
        """Where the models are, once the project is set up."""
        return self.apps.registry

    def configure(self) -> None:
        """Configure the databases alone: enough for those who need no models."""
        databases = self.registry.databases
        self._opened = self._opened or not databases.aliases
        self.project.configure(databases)

    def set_up(self) -> None:
        """Configure the databases, set up the applications, and make the models that wait for a name.

        Raises as `Project.set_up` does, and `ModelError` where such a name is not defined.
        """
        self.configure()
        self.project.set_up(self.apps)
        _ = self.registry.metadata

    def check_alias(self, alias: str | None) -> None:
        """Raise `UnknownAlias` where *alias* is not one of the project's; None stands for all."""
        if alias is not None and alias not in self.project.databases:
            raise UnknownAlias(alias, self.project.databases)

    def close(self) -> None:
        """Close the databases, unless they were configured before this run."""
        if self._opened:
            self._opened = False
            self.registry.databases.close()
