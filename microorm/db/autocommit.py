"""Connections outside any block: each statement is committed at once."""

from __future__ import annotations

import logging
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from microorm.db.connection import Channel, is_definite, rolled_back, unknown_commit
from microorm.db.engines.engine import BEGIN, Database
from microorm.db.engines.pool import close_connection
from microorm.db.owners import held_by_tasks, refuse_to_wait
from microorm.errors import outcome_unknown
from microorm.instrumentation import NOTHING, transaction_step, watchers

READS, WRITES = False, True
"""*writes* of an `AutocommitConnection`, to be passed by position: a keyword takes as long as all the rest of making it."""


class AutocommitConnection(Channel):
    """A connection for one statement outside any block, which is committed at once.

    *writes*: whether the statement needs a commit.
    """

    __slots__ = ("_writes",)

    def __init__(self, database: Database, writes: bool) -> None:
        self.database = database
        self._writes = writes
        self._connection = self._raw = self.cursor = self.undo = None
        self._deadline = 0.0
        self._switched = self.sent = self.answered = False

    def __enter__(self) -> AutocommitConnection:
        if held_by_tasks and (self._writes or self.database.is_memory):
            refuse_to_wait(self.database)
        try:
            if not self.database.statements_listened():
                self._acquire()
            else:
                self._connection = autocommit_connection(self.database, committing=self._writes)
        except Exception as error:
            instead = self._instead(error)
            if instead is None:
                raise
            self.database = instead
        else:
            return self
        return self.__enter__()

    def _instead(self, error: Exception) -> Database | None:
        """Return where to read after *error* has prevented a connection; None to raise it."""
        return None if self._writes else self.database.instead(error)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        raw, connection = self._raw, self._connection
        separate_commit = raw is not None and self.database.needs_commit and not self._switched
        try:
            if error is None and separate_commit and self._writes:
                self._commit()
        finally:
            if self._writes and self.sent and self.database.guard is not None:
                self.database.guard.written()
            if raw is not None:
                self._release(idle=error is None)
            elif connection is not None:
                close_committed(connection, failed=error is not None)
        # With a separate commit the outcome is known: the statement was not committed.
        if (
            error is not None
            and self._writes
            and self.sent
            and not separate_commit
            and (self.answered or not is_definite(error))
        ):
            what = f"the connection to {self.database.alias!r} was lost while a statement ran"
            if self.answered:
                what = f"a write to {self.database.alias!r} was done, and its answer could not be read"
            elif not isinstance(error, DBAPIError):
                what = f"a write to {self.database.alias!r} was interrupted, and may have been committed"
            unknown = outcome_unknown(what, error)
            if unknown is not error:
                raise unknown

    def _connect(self) -> Connection:
        """Make SQLAlchemy's connection from the acquired one, without beginning a transaction."""
        connection = Connection(self.database.engine, self._raw)
        connection.execution_options(**{BEGIN: ""})
        return connection

    def _commit(self) -> None:
        assert self._raw is not None
        try:
            with transaction_step(self.database.alias, "COMMIT") if watchers else NOTHING:
                self._raw.commit()
        except BaseException as error:
            raise self._commit_failure(error)

    def _commit_failure(self, error: BaseException) -> BaseException:
        failure = self.translated(error, "COMMIT", None)
        return failure if rolled_back(failure) else unknown_commit(self.database.alias, failure)


def autocommit_connection(database: Database, *, committing: bool = True) -> Connection:
    """Return a connection outside any transaction; if *committing*, it commits each statement."""
    if held_by_tasks and database.is_memory:
        refuse_to_wait(database)
    connection = database.connect()
    try:
        if database.is_sqlite:
            connection.execution_options(**{BEGIN: ""})
        if not database.autocommits and (committing or database.dialect == "postgresql"):
            connection.execution_options(isolation_level="AUTOCOMMIT")
    except BaseException:
        close_connection(connection)
        raise
    return connection


def close_committed(connection: Connection, *, failed: bool) -> None:
    """Close *connection*, whose statements were committed one by one unless one has *failed*.

    If statements are logged, SQLAlchemy's own transaction around them is ended by a commit, which changes nothing. Else
    the log would show a rollback, as if they had been undone.
    """
    try:
        if not failed and connection.engine.logger.isEnabledFor(logging.INFO):
            connection.commit()
    except Exception as error:  # the connection is lost, not what was written
        connection.invalidate(error)
    finally:
        close_connection(connection)
