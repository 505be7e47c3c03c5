"""URLs: where a database is, as its owner wrote it, and how much of that may be shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from microorm.errors import ConfigurationError

_SECRET = ("pass", "pwd", "secret", "token", "key", "credential", "auth")
_PUBLIC = frozenset({"auth_plugin", "require_auth"})
_MASK = "***"


def read_url(alias: str, given: str | URL) -> URL:
    """*given* as SQLAlchemy's URL; one of a memory database gets a name that all its connections share.

    Raises `ConfigurationError` for what is no URL and for a dialect that is not there, without repeating *given*,
    which may hold a password.
    """
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            f"the URL of database {alias!r} is not a URL that SQLAlchemy can read"
        ) from None
    try:
        is_async = url.get_dialect().is_async
    except NoSuchModuleError:
        raise ConfigurationError(
            f"the URL of database {alias!r} names {url.drivername!r}, which SQLAlchemy does not know"
        ) from None
    if is_async:
        raise ConfigurationError(
            f"the URL of database {alias!r} names {url.drivername!r}, a driver for asyncio alone"
        )
    if is_memory(url):
        # One database for all threads and both engines, which ":memory:" is not; two URLs of one name are one.
        name = (url.database or "").removeprefix("file:").strip("/:")
        name = f"microorm-{uuid4().hex}" if name in ("", "memory") else name
        return url.set(database=f"file:/{name}", query={"vfs": "memdb", "uri": "true"})
    return url


def is_memory(url: URL) -> bool:
    """Whether *url* names an SQLite database that lives in memory."""
    if url.get_backend_name() != "sqlite":
        return False
    database = url.database or ""
    return (
        database in ("", ":memory:", "file::memory:")
        or url.query.get("mode") == "memory"
        or url.query.get("vfs") == "memdb"
    )


def refuse_isolation(alias: str, connect_args: Mapping[str, Any]) -> None:
    """Raise `ConfigurationError` where `sqlite3` would begin and end transactions by itself."""
    for option in ("isolation_level", "autocommit"):
        if connect_args.get(option) is not None:
            raise ConfigurationError(
                f"the {option!r} of database {alias!r} is {connect_args[option]!r}: microorm begins its transactions itself"
            )


def masked(url: URL) -> str:
    """*url* as text without its password and without secrets in its query."""
    if url.get_backend_name() != "sqlite" and "@" in f"{url.host}{url.database}":
        # A password with an @ that was not escaped ends too early; its rest looks like the host.
        url = url.set(host=_MASK, port=None, database=_MASK)
    query = {name: _MASK if _is_secret(name) else value for name, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True).replace("%2A%2A%2A", _MASK)


def _is_secret(name: str) -> bool:
    return name not in _PUBLIC and any(word in name.lower() for word in _SECRET)
