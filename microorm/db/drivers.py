"""What to write in a URL and to install: messages for schemes, drivers and files that are not there."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL

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


def instead_of(scheme: str) -> str:
    """Return what to write instead of the unknown *scheme* of a URL, as the end of a message."""
    backend = scheme.partition("+")[0]
    known = _SCHEMES.get(backend)
    if known is None or known[0] == scheme:
        return nearest(scheme, _OURS)
    return f"; write {known[0]}://"


def how_to_install(url: URL, error: ModuleNotFoundError) -> str:
    """Return what to install or write, as the end of a message, where the import of the driver of *url* has failed."""
    scheme, extra = _SCHEMES.get(url.get_backend_name(), ("", ""))
    if not extra:
        return ""
    driver = scheme.partition("+")[2]
    install = f"pip install 'microorm[{extra}]'"
    if error.name == driver:
        return f"; {install}"
    # Another driver than ours may be meant, so that its name stays in the message.
    return f"; install it, or write {scheme}:// and {install}"


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
