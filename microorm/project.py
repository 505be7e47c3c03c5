"""Project: the one configuration of a program and its command line, `[tool.microorm]` of pyproject.toml."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote
from weakref import WeakKeyDictionary

from sqlalchemy import URL

from microorm.apps import Apps, default_apps
from microorm.db.databases import ALIAS, Databases
from microorm.db.engine import Database, is_memory, read_url
from microorm.environment import filled, filled_url
from microorm.errors import ConfigurationError, nearest
from microorm.pyproject import NAME, Pyproject

__all__ = ["KEYS", "Project", "read_project"]

SECTION = ("tool", "microorm")
KEYS = ("apps", "databases", "migrations", "routers")
MIGRATIONS = "migrations"

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")

# Who was configured by which project, and with what result: a later `configure` or `close` is noticed.
_configured: WeakKeyDictionary[Databases, tuple[Project, list[Database]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Project:
    """What `[tool.microorm]` of the file *path* says.

    *apps* are the entries of `microorm.setup`; *databases* maps each alias to its `url` and the options of
    `create_engine`; *routers* are dotted paths; *migrations* is a folder, there or not. Paths are absolute.
    `repr` shows no URL.
    """

    path: Path
    apps: tuple[str, ...]
    databases: Mapping[str, Mapping[str, Any]] = field(repr=False)
    routers: tuple[str, ...]
    migrations: Path
    place: Callable[..., str] = field(repr=False, compare=False)

    @property
    def folder(self) -> Path:
        """The folder that relative paths are relative to, and in which the packages are looked for."""
        return self.path.parent

    def set_up(self, apps: Apps = default_apps) -> None:
        """Configure the databases and routers, then set up the applications, those of *apps*.

        The folder becomes the first of `sys.path` if it is not there. The same project once more does nothing.
        Raises `ConfigurationError` for routers and applications that cannot be found, for databases that were
        configured otherwise and opened, and as `microorm.setup` does. What a module of the project raises comes
        out as it is.
        """
        self.configure(apps.registry.databases)
        try:
            apps.setup(self.apps)
        except ModuleNotFoundError as error:
            index = next((i for i, entry in enumerate(self.apps) if _names(entry, error.name)), None)
            if index is None:
                raise
            entry = self.apps[index]
            raise ConfigurationError(
                f"{self.place('apps', index)}: the application {entry!r} is not there: no module {error.name!r}"
            ) from error
        except ConfigurationError as error:
            if type(error) is not ConfigurationError:  # one that a module of the project raised
                raise
            raise ConfigurationError(f"{self.place('apps')}: {error}") from error

    def configure(self, databases: Databases) -> None:
        """Give *databases* the aliases and routers, and let the packages be found; the applications may wait.

        Raises as `set_up` does.
        """
        if (folder := str(self.folder)) not in sys.path:
            sys.path.insert(0, folder)
        known = _configured.get(databases)
        if known is not None and known[0] == self and known[1] == _of(databases):
            return
        routers = [self._router(index, path) for index, path in enumerate(self.routers)]
        databases.configure(self.databases, routers=routers)
        _configured[databases] = (self, _of(databases))

    def _router(self, index: int, path: str) -> object:
        place = f"{self.place('routers', index)}: the router {path!r}"
        name, _, attribute = path.rpartition(".")
        try:
            module = import_module(name)
        except ModuleNotFoundError as error:
            if not _names(name, error.name):
                raise
            raise ConfigurationError(f"{place} is not there: no module {error.name!r}") from error
        if (found := getattr(module, attribute, None)) is None:
            near = nearest(attribute, vars(module))
            raise ConfigurationError(f"{place} is not there: {name!r} has no {attribute!r}{near}")
        if not isinstance(found, type):
            return found
        try:
            return found()
        except TypeError as error:
            raise ConfigurationError(f"{place} cannot be made without arguments: {error}") from error


def read_project(start: str | Path | None = None) -> Project:
    """The project that *start* belongs to: a folder, by default the working directory, or a pyproject.toml.

    From a folder the search goes upward, to the nearest pyproject.toml that has `[tool.microorm]`. Only reads.
    Raises `ConfigurationError` where there is none, and for what it says wrongly, naming file, line and key.
    """
    path = Path.cwd() if start is None else Path(start).absolute()
    return _Reader(_named(path) if path.is_file() else _found(path)).project()


def _named(path: Path) -> Pyproject:
    pyproject = Pyproject(path)
    if pyproject.section(*SECTION) is None:
        raise ConfigurationError(f"{path} has no [tool.microorm]")
    return pyproject


def _found(folder: Path) -> Pyproject:
    if not folder.is_dir():
        raise ConfigurationError(f"there is no folder or file {str(folder)!r}")
    for each in (folder, *folder.parents):
        if (each / NAME).is_file():
            pyproject = Pyproject(each / NAME)
            if pyproject.section(*SECTION) is not None:
                return pyproject
    raise ConfigurationError(f"no {NAME} with [tool.microorm] in {str(folder)!r} or above it")


class _Reader:
    """Reads the section of one file, and says what is wrong with it, and where."""

    def __init__(self, pyproject: Pyproject) -> None:
        self._pyproject = pyproject
        self._folder = pyproject.path.parent
        self._section = pyproject.section(*SECTION)

    def project(self) -> Project:
        if not isinstance(self._section, dict):
            raise self._wrong("tool.microorm is a table", self._section)
        for key in self._section:
            if key not in KEYS:
                known = ", ".join(map(repr, KEYS))
                raise self._error(
                    f"[tool.microorm] has no key {key!r}; known: {known}{nearest(key, KEYS)}", key
                )
        return Project(
            path=self._pyproject.path,
            apps=self._dotted("apps"),
            databases=self._databases(),
            routers=self._dotted("routers"),
            migrations=self._migrations(),
            place=self._place,
        )

    def _place(self, *keys: str | int) -> str:
        return self._pyproject.place(*SECTION, *keys)

    def _error(self, text: str, *keys: str | int) -> ConfigurationError:
        return ConfigurationError(f"{self._place(*keys)}: {text}")

    def _wrong(self, wanted: str, value: object, *keys: str | int) -> ConfigurationError:
        """The value itself is not shown: it may hold a secret."""
        return self._error(f"{wanted}, not {_kind(value)}", *keys)

    def _filled(self, fill: Callable[[Any, Mapping[str, str]], Any], value: Any, *keys: str | int) -> Any:
        try:
            return fill(value, os.environ)
        except ConfigurationError as error:
            raise self._error(f"{'.'.join(map(str, keys))} {error}", *keys) from None

    def _dotted(self, key: str) -> tuple[str, ...]:
        entries = self._section.get(key, [])
        if not isinstance(entries, list):
            raise self._wrong(f"{key} is an array of dotted paths", entries, key)
        paths = []
        for index, entry in enumerate(entries):
            if not isinstance(entry, str):
                raise self._wrong(f"{key} is an array of dotted paths", entry, key, index)
            path = self._filled(filled, entry, key, index)
            if not _DOTTED.fullmatch(path) or (key == "routers" and "." not in path):
                raise self._error(f"{key} holds dotted paths, not {path!r}", key, index)
            paths.append(path)
        return tuple(paths)

    def _migrations(self) -> Path:
        given = self._section.get("migrations", MIGRATIONS)
        if not isinstance(given, str) or not given:
            raise self._wrong("migrations is the path of a folder", given, "migrations")
        folder: str = self._filled(filled, given, "migrations")
        return self._folder / folder

    def _databases(self) -> Mapping[str, Mapping[str, Any]]:
        given = self._section.get("databases")
        if given is None:
            raise self._error("[tool.microorm] has no 'databases'")
        if not isinstance(given, dict):
            raise self._wrong("databases is a table of aliases", given, "databases")
        if not given:
            raise self._error("databases names no database", "databases")
        read = {alias: MappingProxyType(self._database(alias, value)) for alias, value in given.items()}
        return MappingProxyType(read)

    def _database(self, alias: str, value: object) -> dict[str, Any]:
        keys: tuple[str, ...] = ("databases", alias)
        if not ALIAS.fullmatch(alias):
            raise self._error(f"an alias wants letters, digits and underscores, not {alias!r}", *keys)
        options: dict[str, Any] = {"url": value} if isinstance(value, str) else {}
        if isinstance(value, dict):
            if "url" not in value:
                given = ", ".join(sorted(map(repr, value))) or "nothing"
                raise self._error(f"database {alias!r} has no 'url'; given: {given}", *keys)
            options, keys = dict(value), (*keys, "url")
        url = options.pop("url", None)
        if not isinstance(url, str):
            found = value if url is None else url
            raise self._wrong(f"{'.'.join(keys)} is a URL, or a table with one", found, *keys)
        options = {name: self._filled(filled, item, *keys[:2], name) for name, item in options.items()}
        text = self._filled(filled_url, url, *keys)
        try:
            return {"url": _from(self._folder, read_url(alias, text), text), **options}
        except ConfigurationError as error:
            raise self._error(str(error), *keys) from None


def _from(folder: Path, url: URL, text: str) -> URL | str:
    """*url* with the file of an SQLite database in *folder*, unless its path is absolute.

    One in memory stays the *text*: two that are written the same are equal.
    """
    if url.get_backend_name() != "sqlite":
        return url
    if is_memory(url) or not url.database:
        return text
    if url.database.startswith("file:"):
        path = url.database.removeprefix("file:")
        return url if path.startswith("/") else url.set(database=f"file:{quote(str(folder))}/{path}")
    return url.set(database=str(folder / url.database))


def _of(databases: Databases) -> list[Database]:
    return [databases.database(alias) for alias in databases.aliases]


def _names(path: str, module: str | None) -> bool:
    """Whether *module*, which could not be found, is *path* itself or a package on the way to it."""
    return module is not None and f"{path}.".startswith(f"{module}.")


def _kind(value: object) -> str:
    """What TOML calls the type of *value*."""
    match value:
        case str():
            return "a string" if value else "an empty string"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case list():
            return "an array"
        case dict():
            return "a table"
    return "a date or time"
