"""Sections: what `microorm init` appends to a pyproject.toml.

Everything is decided and checked before anything is written; what the file holds already stays byte for byte.
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

from microorm.cli.output import shown
from microorm.errors import ConfigurationError
from microorm.project import MIGRATIONS, SECTION, read_project
from microorm.pyproject import Pyproject

_NO_APPLICATIONS = {"tests", "test"}


class Plan:
    """The sections that the pyproject.toml *path* lacks, for migrations in *folder*, relative to it.

    Raises `ConfigurationError` for a file that cannot be read, whose section names another folder, or to which no
    section can be appended.
    """

    def __init__(self, path: Path, folder: str | None) -> None:
        self.path = path.absolute()
        if not self.path.parent.is_dir():
            raise ConfigurationError(f"there is no folder {str(self.path.parent)!r}")
        self.before = self.path.read_bytes() if self.path.exists() else b""
        pyproject = Pyproject(self.path) if self.path.exists() else None
        self.has_microorm = pyproject is not None and pyproject.section(*SECTION) is not None
        self.has_alembic = pyproject is not None and pyproject.section("tool", "alembic") is not None
        self.apps = guessed_apps(self.path.parent)
        self.folder = folder or MIGRATIONS
        self.migrations = self.path.parent / self.folder
        if self.has_microorm:
            configured = read_project(self.path).migrations
            if folder is not None and configured != self.migrations:
                raise ConfigurationError(
                    f"{self.path}: the migrations of this project are in {shown(configured)!r}, not in {folder!r}"
                )
            self.migrations, self.folder = configured, os.path.relpath(configured, self.path.parent)
        self.text = "\n".join(self._sections())
        self._check(pyproject)

    def write(self) -> None:
        """Append what is missing, in the file's own kind of line ends."""
        if not self.text:
            return
        end = "\r\n" if b"\r\n" in self.before else "\n"
        gap = "" if not self.before else end if self.before.endswith(b"\n") else 2 * end
        self.path.write_bytes(self.before + (gap + self.text.replace("\n", end)).encode())

    def report(self) -> list[str]:
        """What was written, and what the reader may want to change."""
        added = [name for name, there in self._names() if not there]
        lines = [f"wrote {', '.join(added)} to {shown(self.path)}"] if added else []
        lines += [f"left {name} of {shown(self.path)} as it is" for name, there in self._names() if there]
        if not self.has_microorm:
            found = ", ".join(self.apps)
            lines.append(
                f"applications: {found}"
                if found
                else "applications: none found; name them in 'apps' of [tool.microorm]"
            )
        return lines

    def _names(self) -> list[tuple[str, bool]]:
        return [("[tool.microorm]", self.has_microorm), ("[tool.alembic]", self.has_alembic)]

    def _sections(self) -> list[str]:
        sections = []
        if not self.has_microorm:
            database = f"sqlite:///{self.apps[0] if self.apps else 'data'}.db"
            moved = f"migrations = {_toml(self.folder)}\n" if self.folder != MIGRATIONS else ""
            sections.append(
                f"[tool.microorm]\napps = {_toml(self.apps)}\ndatabases = {{ default = {_toml(database)} }}\n{moved}"
            )
        if not self.has_alembic:
            folder = Path(self.folder).as_posix().replace("%", "%%")
            location = folder if Path(self.folder).is_absolute() else f"%(here)s/{folder}"
            sections.append(
                f'[tool.alembic]\nscript_location = {_toml(location)}\nprepend_sys_path = ["%(here)s"]\n'
            )
        return sections

    def _check(self, pyproject: Pyproject | None) -> None:
        try:
            tomllib.loads(f"{self.before.decode()}\n{self.text}".replace("\r\n", "\n"))
        except tomllib.TOMLDecodeError:
            place = pyproject.place("tool") if pyproject else str(self.path)
            raise ConfigurationError(f"{place}: no section can be appended to a table in one line") from None


def guessed_apps(folder: Path) -> list[str]:
    """The packages in *folder* that have a `models` module."""
    return [
        package.name
        for package in sorted(folder.iterdir())
        if package.name.isidentifier() and package.name not in _NO_APPLICATIONS
        if (package / "__init__.py").is_file()
        if (package / "models.py").is_file() or (package / "models" / "__init__.py").is_file()
    ]


def _toml(value: Any) -> str:
    """A string, or a list of strings, as TOML writes it."""
    return json.dumps(value, ensure_ascii=False)
