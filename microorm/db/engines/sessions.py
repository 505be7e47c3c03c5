"""Sessions: the SQL that a new connection begins with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from microorm.errors import ConfigurationError
from microorm.messages import brief

_log = logging.getLogger("microorm.engines")
# MariaDB stores the server's time without its zone, and PostgreSQL returns times in the zone of the session. By default
# MariaDB stores another key instead of 0, and an UPDATE of several columns uses the new values of those it has set already.
_MARIADB_SESSION = (
    "SET time_zone = '+00:00', sql_mode = CONCAT_WS(',', NULLIF(@@sql_mode, ''), "
    "'NO_AUTO_VALUE_ON_ZERO', 'SIMULTANEOUS_ASSIGNMENT')"
)
_SESSION = {
    "sqlite": "PRAGMA foreign_keys=ON",
    "postgresql": "SET TIME ZONE 'UTC'",
    "mysql": _MARIADB_SESSION,
    "mariadb": _MARIADB_SESSION,
}
# The milliseconds are a number, never text of a user.
_STATEMENT_TIMEOUT: Mapping[str, Callable[[int], str]] = {
    "postgresql": lambda milliseconds: f"SET statement_timeout = {milliseconds}",
    "mysql": lambda milliseconds: f"SET max_execution_time = {milliseconds}",
    "mariadb": lambda milliseconds: f"SET max_statement_time = {milliseconds / 1000:.3f}",
}


def session_settings(alias: str, dialect: str, timeout: Any) -> tuple[str, ...]:
    """Return the SQL that sets up a session on *alias*; *timeout*: the seconds that a statement may take, or None.

    Raises `ConfigurationError` for an invalid timeout, and where *dialect* has none.
    """
    settings = (_SESSION[dialect],) if dialect in _SESSION else ()
    if timeout is None:
        return settings
    where = f"statement_timeout of database {alias!r}"
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0.001 <= timeout < 2**20:
        raise ConfigurationError(f"the {where} must be a number of seconds above 0, not {brief(timeout)}")
    if dialect not in _STATEMENT_TIMEOUT:
        raise ConfigurationError(
            f"{dialect} has no timeout of statements, so the {where} cannot be set; "
            "connect_args={'timeout': ...} says how long SQLite waits for a lock"
        )
    return (*settings, _STATEMENT_TIMEOUT[dialect](round(timeout * 1000)))


def begin_session(connection: Any, alias: str, settings: Iterable[str], *, commit: bool, wal: bool) -> None:
    """Run the SQL *settings* on the driver's new *connection*, and *commit* them.

    *wal*: let SQLite write the file with a log of its own.
    """
    cursor = connection.cursor()
    for statement in settings:
        cursor.execute(statement)
    if commit:
        connection.commit()
    if wal:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except Exception as error:  # noqa: BLE001 the drivers' errors share no class
            # Another connection has locked the file. The mode is stored in the file, so a later connection can set it.
            _log.debug("WAL not set on %r: %s", alias, error)
    cursor.close()
