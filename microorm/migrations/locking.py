"""Locking: two processes that migrate one database take turns.

A server lends a lock to a session and takes it back when that ends, so a process that is killed leaves none behind.
On SQLite the transaction is the lock: it begins by writing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from microorm.db.engine import BEGIN
from microorm.errors import MigrationError
from microorm.migrations.targets import Target

PATIENCE = 60.0  # seconds
_PAUSE = 0.2
_log = logging.getLogger("microorm.migrations")

_TAKE = {
    "postgresql": "SELECT pg_try_advisory_lock(hashtext('microorm migrations of ' || current_schema()))",
    "mariadb": "SELECT GET_LOCK(CONCAT('microorm_', MD5(DATABASE())), 0)",
}
_GIVE_BACK = {
    "postgresql": "SELECT pg_advisory_unlock(hashtext('microorm migrations of ' || current_schema()))",
    "mariadb": "SELECT RELEASE_LOCK(CONCAT('microorm_', MD5(DATABASE())))",
}


@contextmanager
def locked(target: Target, connection: Connection, patience: float = PATIENCE) -> Iterator[None]:
    """Let nobody else migrate *target* meanwhile; on SQLite the foreign keys are off, too.

    Raises `MigrationError` where another process holds the lock for *patience* seconds.
    """
    if target.dialect == "sqlite":
        with _unchecked(connection, patience):
            yield
        return
    if target.dialect not in _TAKE:
        yield
        return
    _take(target, connection, patience)
    try:
        yield
    finally:
        with suppress(SQLAlchemyError):  # a connection that was lost has lost its lock, too
            connection.rollback()
            connection.execute(text(_GIVE_BACK[target.dialect]))
            connection.commit()


def _take(target: Target, connection: Connection, patience: float) -> None:
    deadline = time.monotonic() + patience
    waited = False
    while True:
        taken = connection.execute(text(_TAKE[target.dialect])).scalar()
        connection.commit()
        if taken:
            return
        if time.monotonic() >= deadline:
            raise MigrationError(
                f"{target.alias!r} is being migrated by another process, for {patience:g} seconds at least"
            )
        if not waited:
            waited = True
            _log.info("waiting for another process that migrates %r", target.alias)
        time.sleep(_PAUSE)


@contextmanager
def _unchecked(connection: Connection, patience: float) -> Iterator[None]:
    """Foreign keys off and a long patience, both of which SQLite takes outside a transaction only.

    With them on, taking the place of a table deletes the rows that refer to it.
    """
    connection.rollback()
    cursor = connection.connection.cursor()
    (checked,) = cursor.execute("PRAGMA foreign_keys").fetchone()
    (timeout,) = cursor.execute("PRAGMA busy_timeout").fetchone()
    cursor.execute("PRAGMA foreign_keys=OFF")
    cursor.execute(f"PRAGMA busy_timeout={int(patience * 1000)}")
    connection.execution_options(**{BEGIN: "BEGIN IMMEDIATE"})
    try:
        yield
    finally:
        connection.rollback()
        connection.execution_options(**{BEGIN: "BEGIN"})
        cursor.execute(f"PRAGMA busy_timeout={timeout:d}")
        cursor.execute(f"PRAGMA foreign_keys={checked:d}")
        cursor.close()
