"""URLs of databases: reading and showing them, and the messages for schemes, drivers and files that are not there.

Passwords and other secrets of a URL never appear in messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from microorm.errors import ConfigurationError, TransactionError, nearest

_SCHEMES = {
    "sqlite": ("sqlite", ""),
    "postgresql": ("postgresql+psycopg", "postgres"),
    "postgres": ("postgresql+psycopg", "postgres"),
    "mysql": ("mariadb+pymysql", "mariadb"),
    "mariadb": ("mariadb+pymysql", "mariadb"),
}
FORMS = "a URL begins with sqlite:///, postgresql+psycopg:// or mariadb+pymysql://"
_OURS = ("sqlite", "postgresql+psycopg", "mariadb+pymysql")
_SYNCHRONOUS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
_ASYNCHRONOUS = {"sqlite": "sqlite+aiosqlite", "mysql": "mysql+asyncmy", "mariadb": "mariadb+asyncmy"}
_AWAITED = (
    "sqlite+aiosqlite",
    "postgresql",
    "postgresql+psycopg",
    "postgresql+psycopg_async",
    "mysql+asyncmy",
    "mariadb+asyncmy",
)
_INSTEAD = {
    "sqlite": "sqlite:///",
    "postgresql": "postgresql+psycopg://",
    "mysql": "mariadb+pymysql://",
    "mariadb": "mariadb+pymysql://",
}
_ASYNC = ("aiosqlite", "greenlet")  # the modules of the extra "async"

_SECRET = ("pass", "pwd", "secret", "token", "key", "credential", "auth")
_PUBLIC = frozenset({"auth_plugin", "require_auth"})
_MASK = "***"


def instead_of(scheme: str) -> str:
    """Return what to write instead of the unknown *scheme* of a URL, as the end of a message."""
    backend = scheme.partition("+")[0]
    known = _SCHEMES.get(backend)
    if known is None or known[0] == scheme:
        return nearest(scheme, _OURS)
    return f"; write {known[0]}://"


def how_to_install(url: URL, error: ModuleNotFoundError) -> str:
    """Return what to install or write, as the end of a message, where the import of the driver of *url* has failed."""
    if error.name in _ASYNC:
        return "; pip install 'microorm[async]'"
    scheme, extra = _SCHEMES.get(url.get_backend_name(), ("", ""))
    if not extra:
        return ""
    driver = scheme.partition("+")[2]
    install = f"pip install 'microorm[{extra}]'"
    if error.name == driver:
        return f"; {install}"
    if _ASYNCHRONOUS.get(url.get_backend_name(), "").endswith(f"+{error.name}"):
        return f"; pip install 'microorm[async,{extra}]'"
    # Another driver than ours may be meant, so that its name stays in the message.
    return f"; install it, or write {scheme}:// and {install}"


def cannot_await(error: ModuleNotFoundError) -> ConfigurationError:
    """Return the error for *error*, by which the import of a module that awaited calls need has failed."""
    return ConfigurationError(
        f"{error.name} is not installed, without which nothing can be awaited; pip install 'microorm[async]'"
    )


def refuse_host(alias: str, url: URL) -> None:
    """Raise `ConfigurationError` if *url* names a host for SQLite, as two slashes in front of a file do."""
    if url.get_backend_name() == "sqlite" and url.host:
        raise ConfigurationError(
            f"the URL of database {alias!r} names a host, which SQLite does not have; "
            "write three slashes before a relative path, sqlite:///shop.db, and four before an absolute one"
        )


def refuse_missing_folder(alias: str, url: URL, *connecting: object) -> None:
    """Raise `ConfigurationError` if the SQLite file of *url*, which is not in memory, is in a folder that does not exist."""
    database = (url.database or "").removeprefix("file:")
    folder = Path(database).absolute().parent
    if not folder.is_dir():
        raise ConfigurationError(
            f"database {alias!r} is the file {database!r}, and the folder {str(folder)!r} does not exist; create it first"
        )


_inherited_files: set[Path] = set()


def note_inherited(url: URL) -> None:
    """In a forked child: note that a transaction was open on the SQLite file of *url* in the parent."""
    _inherited_files.add(_file(url))


def refuse_inherited(alias: str, url: URL, *connecting: object) -> None:
    """Raise `TransactionError` in a forked child if a transaction was open on the SQLite file of *url* in the parent.

    SQLite keeps in memory which locks a process has. The child has a copy of that, but not the locks: it would find the
    file locked for ever, or read without a lock.
    """
    if _inherited_files and _file(url) in _inherited_files:
        raise TransactionError(
            f"this process cannot use the file of {alias!r}: it was forked while a block was open on it, in some thread, "
            "and SQLite allows no use after that; fork outside blocks, or start the process by 'spawn'"
        )


def _file(url: URL) -> Path:
    return Path((url.database or "").removeprefix("file:")).resolve()


def read_settings(alias: str, settings: Any) -> tuple[URL, dict[str, Any]]:
    """Return the URL and the options of the *settings* of a database. Raises `ConfigurationError`."""
    options: dict[str, Any] = {}
    if isinstance(settings, Engine):
        return settings.url, options
    if isinstance(settings, Mapping):
        options = dict(settings)
        if "url" not in options:
            given = ", ".join(sorted(map(repr, options))) or "nothing"
            raise ConfigurationError(f"database {alias!r} has no 'url'; given: {given}")
        settings = options.pop("url")
    if not isinstance(settings, (str, URL)):
        raise ConfigurationError(
            f"database {alias!r} must be a URL, an Engine or a mapping, not {type(settings).__name__}"
        )
    return read_url(alias, settings), options


def read_url(alias: str, given: str | URL) -> URL:
    """Return *given* as SQLAlchemy's URL; give a database in memory a name, by which all connections share it.

    Raises `ConfigurationError` for an invalid URL and for an unknown dialect, without showing *given*, which may hold a
    password.
    """
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            f"the URL of database {alias!r} cannot be read by SQLAlchemy; {FORMS}"
        ) from None
    try:
        url.get_dialect()
    except NoSuchModuleError:
        raise ConfigurationError(
            f"the URL of database {alias!r} names {url.drivername!r}, which SQLAlchemy does not know"
            f"{instead_of(url.drivername)}"
        ) from None
    refuse_host(alias, url)
    if is_memory(url):
        # Each connection to ":memory:" would have a database of its own; one with a name is shared.
        name = (url.database or "").removeprefix("file:").strip("/:")
        name = f"microorm-{uuid4().hex}" if name in ("", "memory") else name
        return url.set(database=f"file:/{name}", query={"vfs": "memdb", "uri": "true"})
    return url


def synchronous(url: URL) -> URL:
    """Return *url* with a synchronous driver in place of one for asyncio."""
    backend = url.get_backend_name()
    if backend not in _SYNCHRONOUS or not url.get_dialect().is_async:
        return url
    return url.set(drivername=_SYNCHRONOUS[backend])


def asynchronous(alias: str, url: URL) -> URL:
    """Return *url* with a driver for asyncio. Raises `ConfigurationError` if microorm cannot await its driver."""
    backend, is_async = url.get_backend_name(), url.get_dialect().is_async
    if url.drivername in _AWAITED:
        return url
    if not is_async and backend in _ASYNCHRONOUS:
        # An option of PyMySQL that says what asyncmy does by default.
        return url.set(drivername=_ASYNCHRONOUS[backend]).difference_update_query(["ssl_disabled"])
    # How a statement is stopped, and a connection dropped, is different for each driver.
    written = _INSTEAD.get(backend)
    raise ConfigurationError(
        f"the URL of database {alias!r} names {url.drivername!r}, which "
        + ("is a driver that microorm does not know how to await" if is_async else "cannot be awaited")
        + (f"; write {written}, which can" if written else "")
    )


def is_memory(url: URL) -> bool:
    """Return whether *url* names an SQLite database in memory."""
    if url.get_backend_name() != "sqlite":
        return False
    database = url.database or ""
    return (
        database in ("", ":memory:", "file::memory:")
        or url.query.get("mode") == "memory"
        or url.query.get("vfs") == "memdb"
    )


def refuse_isolation(alias: str, connect_args: Mapping[str, Any]) -> None:
    """Raise `ConfigurationError` for options by which `sqlite3` would begin and end transactions itself."""
    for option in ("isolation_level", "autocommit"):
        if connect_args.get(option) is not None:
            raise ConfigurationError(
                f"the connect_args of database {alias!r} set {option!r} to {connect_args[option]!r}; "
                "leave it out, since microorm begins its transactions itself"
            )


def masked(url: URL) -> str:
    """Return *url* as text, without its password and without secrets in its query."""
    if url.get_backend_name() != "sqlite" and "@" in f"{url.host}{url.database}":
        # The rest of a password with an unescaped @ is read as the host.
        url = url.set(host=_MASK, port=None, database=_MASK)
    query = {name: _MASK if _is_secret(name) else value for name, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True).replace("%2A%2A%2A", _MASK)


def _is_secret(name: str) -> bool:
    return name not in _PUBLIC and any(word in name.lower() for word in _SECRET)
