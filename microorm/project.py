"""Project: the configuration of a program and its command line, `[tool.microorm]` of pyproject.toml."""

from __future__ import annotations

import os
import re
import sys
import tomllib
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
from microorm.db.databases import ALIAS, Databases, default_databases
from microorm.db.engines.limits import Limits
from microorm.db.engines.urls import is_memory, read_url
from microorm.errors import ConfigurationError, nearest
from microorm.messages import brief

__all__ = ["KEYS", "Project", "configured_by", "expand", "expand_url", "read_project", "read_tool_table"]

FILE_NAME = "pyproject.toml"
KEYS = ("apps", "databases", "idle_timeout", "max_connections", "migrations", "routers", "tenants")
DEFAULT_MIGRATIONS = "migrations"

_DOTTED_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|(\$)|)")
_URL_HOST = re.compile(r"[^:/]*://(?:[^:/@]*(?::[^@]*)?@)?([^/?]*)")

# The project that configured each `Databases`, and in which generation: shows whether they were changed or closed since.
_configured: WeakKeyDictionary[Databases, tuple[Project, int]] = WeakKeyDictionary()
# Those with tenants, and in which generation these were added.
_with_tenants: WeakKeyDictionary[Databases, int] = WeakKeyDictionary()


@dataclass(frozen=True)
class Project:
    """The contents of `[tool.microorm]` in the file *path*.

    *apps* are the entries of `microorm.setup`; *databases* maps each alias to its `url` and the options of
    `create_engine`; *routers* are dotted paths; *migrations* is a folder, which need not exist. Paths are absolute.
    *tenants* is the dotted path of a function that returns more databases. *max_connections* and *idle_timeout* are those of
    `microorm.configure`. `repr` shows no URL.
    """

    path: Path
    apps: tuple[str, ...]
    databases: Mapping[str, Mapping[str, Any]] = field(repr=False)
    routers: tuple[str, ...]
    migrations: Path
    max_connections: int | None = None
    idle_timeout: float | None = None
    tenants: str | None = None

    @property
    def folder(self) -> Path:
        """The folder of pyproject.toml: relative paths start here, and packages are imported from here."""
        return self.path.parent

    def set_up(
        self, apps: Apps = default_apps, *, instead: Mapping[str, Any] | None = None, tenants: bool = True
    ) -> None:
        """Configure the databases and routers of *apps*, then set up the applications, then add the *tenants*.

        *instead*: the settings by alias to use in place of those of the file and of the tenants, such as those of a test run. Without applications, the module `models` of the folder is imported, if there is one. Puts the folder first on `sys.path` unless it is there. Does nothing if this project is set up already.
        Raises `ConfigurationError` for routers and applications that cannot be found, for databases that are open
        with another configuration, and as `microorm.setup` and `add_tenants` do. Errors raised by modules of the project are
        passed on.
        """
        self.configure(apps.registry.databases, instead=instead)
        try:
            apps.setup(self.apps)
        except ModuleNotFoundError as error:
            index = next((i for i, app in enumerate(self.apps) if _is_parent(error.name, app)), None)
            if index is None:
                raise
            text = f"no application {self.apps[index]!r}: there is no module {error.name!r}"
            raise _error(self.path, text, "apps", index) from error
        except ConfigurationError as error:
            if type(error) is not ConfigurationError:  # raised by a module of the project
                raise
            raise _error(self.path, str(error), "apps") from error
        if not self.apps and (self.folder / "models.py").is_file():
            import_module("models")
        databases = apps.registry.databases
        if instead is None and tenants and _with_tenants.get(databases) != databases.generation:
            self.add_tenants(databases)

    def add_tenants(self, databases: Databases = default_databases) -> None:
        """Add the databases that the function *tenants* returns: a mapping as for `configure`. Do nothing without one.

        Call it again for those that have come since. Raises `ConfigurationError` if there is no such function, if it returns
        something else, and as `Databases.add` does. Errors of the function are passed on.
        """
        if self.tenants is None:
            return
        found = self._imported(self.tenants, "function", "tenants")
        listed = found() if callable(found) else found
        if not isinstance(listed, Mapping):
            text = f"{self.tenants!r} must return a mapping of aliases to URLs, not {brief(listed)}"
            raise _error(self.path, text, "tenants")
        for alias, settings in listed.items():
            databases.add(alias, settings)
        _with_tenants[databases] = databases.generation

    def configure(self, databases: Databases, *, instead: Mapping[str, Any] | None = None) -> None:
        """Configure the aliases and routers of *databases*, without setting up the applications.

        *instead*: as in `set_up`. Later calls for this project do nothing. Raises as `set_up` does.
        """
        if (folder := str(self.folder)) not in sys.path:
            sys.path.insert(0, folder)
        if instead is None and configured_by(databases) == self:
            return
        routers = [self._router(index, path) for index, path in enumerate(self.routers)]
        databases.configure(
            self.databases if instead is None else instead,
            routers=routers,
            max_connections=self.max_connections,
            idle_timeout=self.idle_timeout,
        )
        _configured[databases] = (self, databases.generation)

    def _router(self, index: int, path: str) -> object:
        router = self._imported(path, "router", "routers", index)
        if not isinstance(router, type):
            return router
        try:
            return router()
        except TypeError as cause:
            text = f"the router {path!r} cannot be created without arguments: {cause}"
            raise _error(self.path, text, "routers", index) from cause

    def _imported(self, path: str, kind: str, *keys: str | int) -> object:
        """Return what the dotted *path* of the value at *keys* names."""
        module_name, _, name = path.rpartition(".")
        try:
            module = import_module(module_name)
        except ModuleNotFoundError as cause:
            if not _is_parent(cause.name, module_name):
                raise
            text = f"no {kind} {path!r}: there is no module {cause.name!r}"
            raise _error(self.path, text, *keys) from cause
        if (found := getattr(module, name, None)) is None:
            text = f"no {kind} {path!r}: {module_name!r} has no {name!r}{nearest(name, vars(module))}"
            raise _error(self.path, text, *keys)
        return found


def configured_by(databases: Databases) -> Project | None:
    """Return the project that has configured *databases*; None if there is none, or if they were changed since."""
    project, generation = _configured.get(databases, (None, None))
    return project if generation == databases.generation else None


def read_project(start: str | Path | None = None) -> Project:
    """Read the project of *start*: a pyproject.toml, or a folder, by default the working directory.

    From a folder the search goes upward to the nearest pyproject.toml that has `[tool.microorm]`. Changes nothing in
    the process. Raises `ConfigurationError`, which names the file and the key, for a project that is missing or wrong.
    """
    path = Path.cwd() if start is None else Path(start).absolute()
    if path.is_file():
        tool = read_tool_table(path)
        if "microorm" not in tool:
            raise ConfigurationError(f"{path} has no [tool.microorm]")
        return _Reader(path, tool["microorm"]).project()
    if not path.is_dir():
        raise ConfigurationError(f"no such file or folder: {str(path)!r}")
    for folder in (path, *path.parents):
        file = folder / FILE_NAME
        if file.is_file() and "microorm" in (tool := read_tool_table(file)):
            return _Reader(file, tool["microorm"]).project()
    raise ConfigurationError(f"no {FILE_NAME} with [tool.microorm] in {str(path)!r} or its parent folders")


def read_tool_table(path: Path) -> Mapping[str, Any]:
    """Return the table `tool` of the TOML file at *path*, empty if it has none.

    Raises `ConfigurationError` for a file that cannot be read or is not valid TOML.
    """
    try:
        with path.open("rb") as file:
            tool = tomllib.load(file).get("tool", {})
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise ConfigurationError(f"{path}: not valid TOML: {error}") from None
    if not isinstance(tool, dict):
        raise ConfigurationError(f"{path}: tool: must be a table, not {_type_name(tool)}")
    return tool


class _Reader:
    """Reads the section `[tool.microorm]` of one file. No error repeats a value that may hold a secret."""

    def __init__(self, path: Path, section: Any) -> None:
        self._path = path
        self._section = section

    def project(self) -> Project:
        if not isinstance(self._section, dict):
            raise self._wrong_type("must be a table", self._section)
        for key in self._section:
            if key not in KEYS:
                known = ", ".join(map(repr, KEYS))
                raise self._error(f"unknown key; known: {known}{nearest(key, KEYS)}", key)
        return Project(
            path=self._path,
            apps=self._dotted_paths("apps", "shop"),
            databases=self._databases(),
            routers=self._dotted_paths("routers", "shop.routers.Archive"),
            migrations=self._migrations(),
            max_connections=self._limit("max_connections"),
            idle_timeout=self._limit("idle_timeout"),
            tenants=self._tenants(),
        )

    def _error(self, text: str, *keys: str | int) -> ConfigurationError:
        return _error(self._path, text, *keys)

    def _wrong_type(self, text: str, value: object, *keys: str | int) -> ConfigurationError:
        return self._error(f"{text}, not {_type_name(value)}", *keys)

    def _expand(self, value: Any, *keys: str | int, using: Callable[..., Any] | None = None) -> Any:
        try:
            return (using or expand)(value, os.environ)
        except ConfigurationError as error:
            raise self._error(str(error), *keys) from None

    def _dotted_paths(self, key: str, example: str) -> tuple[str, ...]:
        entries = self._section.get(key, [])
        if not isinstance(entries, list):
            raise self._wrong_type("must be an array of dotted paths", entries, key)
        return tuple(self._dotted_path(each, example, key, index) for index, each in enumerate(entries))

    def _dotted_path(self, entry: object, example: str, *keys: str | int) -> str:
        if not isinstance(entry, str):
            raise self._wrong_type("must be a dotted path", entry, *keys)
        path: str = self._expand(entry, *keys)
        if not _DOTTED_PATH.fullmatch(path) or ("apps" not in keys and "." not in path):
            raise self._error(f"must be a dotted path such as {example!r}, not {path!r}", *keys)
        return path

    def _tenants(self) -> str | None:
        entry = self._section.get("tenants")
        return None if entry is None else self._dotted_path(entry, "shop.tenants.databases", "tenants")

    def _limit(self, key: str) -> Any:
        value = self._section.get(key)
        try:
            Limits(**{key: value})
        except ConfigurationError as error:
            raise self._error(str(error).removeprefix(f"{key}= "), key) from None
        return value

    def _migrations(self) -> Path:
        folder = self._section.get("migrations", DEFAULT_MIGRATIONS)
        if not isinstance(folder, str) or not folder:
            raise self._wrong_type("must be the path of a folder", folder, "migrations")
        path: str = self._expand(folder, "migrations")
        return self._path.parent / path

    def _databases(self) -> Mapping[str, Mapping[str, Any]]:
        databases = self._section.get("databases")
        if databases is None:
            raise self._error("the key 'databases' is missing")
        if not isinstance(databases, dict):
            raise self._wrong_type("must be a table of aliases", databases, "databases")
        if not databases:
            raise self._error("must have at least one alias", "databases")
        read = {alias: MappingProxyType(self._database(alias, value)) for alias, value in databases.items()}
        return MappingProxyType(read)

    def _database(self, alias: str, value: object) -> dict[str, Any]:
        keys: tuple[str, ...] = ("databases", alias)
        if not ALIAS.fullmatch(alias):
            raise self._error("an alias must consist of letters, digits and underscores", *keys)
        options: dict[str, Any] = {}
        url, expected = value, "must be a URL, or a table with the key 'url'"
        if isinstance(value, dict):
            if "url" not in value:
                given = ", ".join(sorted(map(repr, value))) or "nothing"
                raise self._error(f"the key 'url' is missing; given: {given}", *keys)
            options = {name: self._expand(item, *keys, name) for name, item in value.items() if name != "url"}
            url, expected, keys = value["url"], "must be a URL", (*keys, "url")
        if not isinstance(url, str):
            raise self._wrong_type(expected, url, *keys)
        text = self._expand(url, *keys, using=expand_url)
        try:
            return {"url": _with_folder(self._path.parent, read_url(alias, text), text), **options}
        except ConfigurationError as error:
            raise self._error(str(error), *keys) from None


def expand(value: Any, environment: Mapping[str, str]) -> Any:
    """Return *value* with each `${NAME}` in its strings replaced by the variable of *environment*, and each `$$` by `$`.

    Lists and dictionaries are copied with their strings expanded. Raises `ConfigurationError` for a variable that is
    not set and for any other dollar sign; the error repeats no value.
    """
    match value:
        case str():
            return _VARIABLE.sub(lambda match: _substitute(match, environment), value)
        case list():
            return [expand(item, environment) for item in value]
        case dict():
            return {name: expand(item, environment) for name, item in value.items()}
    return value


def expand_url(url: str, environment: Mapping[str, str]) -> str:
    """Return *url* with its variables replaced by those of *environment*.

    They are percent-encoded, except in the driver, the host and the port.     A variable that is the whole URL is used
    unchanged. Raises as `expand` does.
    """
    host, scheme = _URL_HOST.match(url), url.find("://")

    def replace(match: re.Match[str]) -> str:
        value, start = _substitute(match, environment), match.start()
        if host is None or not match[1] or start < scheme or host.start(1) <= start < host.end(1):
            return value
        return quote(value, safe="/:" if start > host.end(1) and "?" not in url[:start] else "")

    return _VARIABLE.sub(replace, url)


def _substitute(match: re.Match[str], environment: Mapping[str, str]) -> str:
    name, dollar = match.groups()
    if dollar:
        return "$"
    if not name:
        raise ConfigurationError(
            "single '$'; write '${NAME}' for an environment variable, or '$$' for a dollar sign"
        )
    if name not in environment:
        raise ConfigurationError(f"the environment variable {name!r} is not set")
    return environment[name]


def _with_folder(folder: Path, url: URL, text: str) -> URL | str:
    """Return *url* with the relative path of an SQLite file put into *folder*."""
    if url.get_backend_name() != "sqlite":
        return url
    if is_memory(url) or not url.database:
        return text  # so that two projects with the same text are equal
    if url.database.startswith("file:"):
        path = url.database.removeprefix("file:")
        return url if path.startswith("/") else url.set(database=f"file:{quote(str(folder))}/{path}")
    return url.set(database=str(folder / url.database))


def _error(path: Path, text: str, *keys: str | int) -> ConfigurationError:
    """Return an error that names the file and the dotted key below `tool.microorm`."""
    key = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    return ConfigurationError(f"{path}: tool.microorm{key}: {text}")


def _is_parent(module: str | None, path: str) -> bool:
    """Return whether *module* is *path* or one of the packages that contain it."""
    return module is not None and f"{path}.".startswith(f"{module}.")


def _type_name(value: object) -> str:
    """Return the name of a value's type in TOML."""
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
