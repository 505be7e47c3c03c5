"""Channels: how a statement reaches a database.

A prepared statement goes to the driver's cursor where nobody listens to the engine; otherwise, and for
statements that were not prepared, it goes through SQLAlchemy's `Connection`, whose listeners see it. Errors
are SQLAlchemy's on both ways, with the same statement, parameters and invalidation.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, Executable, PoolProxiedConnection
from sqlalchemy.exc import DBAPIError

from microorm.engines import BEGIN, Database
from microorm.errors import CommitOutcomeUnknown
from microorm.undo import Image


class Channel:
    """A connection to *database*; *cursor* is the driver's, or None where all goes through *connection*."""

    __slots__ = ("_connection", "cursor", "database")

    database: Database
    cursor: Any
    _connection: Connection | None

    @property
    def connection(self) -> Connection:
        """SQLAlchemy's connection."""
        assert self._connection is not None
        return self._connection

    def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[Any]:
        """Run *statement* through SQLAlchemy's connection."""
        return self.connection.execute(statement, parameters)

    def doom(self, error: BaseException) -> None:
        """Let the block that this channel belongs to end in a rollback only; alone, there is none."""

    def keep(self, image: Image) -> None:
        """Keep the before-image of an instance for as long as what was written can be undone; alone, it cannot."""

    def translated(self, error: BaseException, sql: str, parameters: Any) -> BaseException:
        """The error to raise for *error*, which the driver raised for *sql*; a lost connection is invalidated."""
        dialect, raw = self.database.engine.dialect, self._pooled()
        driver = dialect.loaded_dbapi
        if not isinstance(error, driver.Error):
            if not isinstance(error, Exception):
                # Interrupted half-way: nobody knows what the connection still has to say.
                _drop(raw, error)
            return error
        lost = dialect.is_disconnect(error, raw.dbapi_connection, self.cursor)
        wrapped = DBAPIError.instance(
            sql,
            parameters,
            error,
            driver.Error,
            hide_parameters=self.database.engine.hide_parameters,
            connection_invalidated=lost,
            dialect=dialect,
            ismulti=isinstance(parameters, list),
        )
        if lost:
            self.database.lost = True
            _drop(raw, error)
        wrapped.__cause__ = error
        return wrapped

    def unbound(self, error: Exception, sql: str, values: Any) -> BaseException:
        """The error to raise for *error*, which a column's type raised instead of a parameter for one of *values*."""
        engine = self.database.engine
        wrapped = DBAPIError.instance(
            sql,
            values,
            error,
            engine.dialect.loaded_dbapi.Error,
            hide_parameters=engine.hide_parameters,
            dialect=engine.dialect,
        )
        wrapped.__cause__ = error
        self.doom(wrapped)
        return wrapped

    def _pooled(self) -> PoolProxiedConnection:
        return self.connection.connection


class Lone(Channel):
    """A channel for one statement outside any block, which commits by itself.

    *prepared*: whether the statement may go to the driver's cursor; *writes*: whether there is something to
    commit.
    """

    __slots__ = ("_raw", "_set_autocommit", "_writes")

    def __init__(self, database: Database, *, prepared: bool, writes: bool) -> None:
        self.database = database
        self._writes = writes
        self._connection = self._raw = self.cursor = None
        self._set_autocommit = False
        engine = database.engine
        if not prepared or database.statements_listened(engine):
            self._connection = lone_connection(database, committing=writes)
            return
        if (spare := database.spares.take()) is not None:
            self._raw, self.cursor = spare
            return
        self._raw = _pooled_connection(engine)
        try:
            driver: Any = self._raw.dbapi_connection
            if database.dialect == "postgresql" and not driver.autocommit:
                driver.autocommit = self._set_autocommit = True
            self.cursor = self._raw.cursor()
        except BaseException:
            self._raw.close()
            raise

    def __enter__(self) -> Lone:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None and self._raw is not None and self.database.spares.keep(self._raw, self.cursor):
            return
        pooled = self._raw if self._raw is not None else self._connection
        assert pooled is not None
        lost = isinstance(error, DBAPIError) and error.connection_invalidated
        try:
            if error is None and self._writes and self._raw is not None and self.database.needs_commit:
                self._commit()
            elif self._set_autocommit and not lost:
                self._restore_autocommit()
        finally:
            pooled.close()
        # What waits for a COMMIT of its own was not stored.
        if lost and self._writes and (self._raw is None or not self.database.needs_commit):
            raise CommitOutcomeUnknown(
                f"the connection to {self.database.alias!r} was lost while a statement ran"
            ) from error

    def _restore_autocommit(self) -> None:
        connection = self._raw.dbapi_connection  # type: ignore[union-attr]
        if connection is not None and not connection.closed:
            connection.autocommit = False

    def _commit(self) -> None:
        assert self._raw is not None
        try:
            self._raw.commit()
        except BaseException as error:  # noqa: BLE001 raised below, as SQLAlchemy's
            translated = self.translated(error, "COMMIT", None)
            if isinstance(translated, DBAPIError) and translated.connection_invalidated:
                raise CommitOutcomeUnknown(
                    f"the connection to {self.database.alias!r} was lost while COMMIT ran"
                ) from translated
            raise translated from translated.__cause__

    def _pooled(self) -> PoolProxiedConnection:
        return self._raw if self._raw is not None else self.connection.connection


def lone_connection(database: Database, *, committing: bool = True) -> Connection:
    """A connection outside any transaction, each statement of which commits by itself if *committing*."""
    connection = database.engine.connect()
    try:
        if database.is_sqlite:
            connection.execution_options(**{BEGIN: ""})
        if not database.autocommits and (committing or database.dialect == "postgresql"):
            connection.execution_options(isolation_level="AUTOCOMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _pooled_connection(engine: Engine) -> PoolProxiedConnection:
    """The driver's connection from the pool; where there is none to get, the error is SQLAlchemy's."""
    try:
        return engine.raw_connection()
    except Exception as error:
        dialect = engine.dialect
        driver = dialect.loaded_dbapi
        if not isinstance(error, driver.Error):
            raise
        raise DBAPIError.instance(
            None,
            None,
            error,
            driver.Error,
            hide_parameters=engine.hide_parameters,
            connection_invalidated=dialect.is_disconnect(error, None, None),
            dialect=dialect,
        ) from error


def _drop(raw: PoolProxiedConnection, error: BaseException) -> None:
    if raw.is_valid:  # else it was dropped before
        raw.invalidate(error)
