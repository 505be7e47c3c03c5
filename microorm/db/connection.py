"""Channels: how a statement reaches a database.

A prepared statement goes to the driver's cursor where nobody listens to the engine; otherwise, and for
statements that were not prepared, it goes through SQLAlchemy's `Connection`, whose listeners see it. Errors
are SQLAlchemy's on both ways, with the same statement, parameters and invalidation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, Executable, PoolProxiedConnection
from sqlalchemy.exc import DBAPIError

from microorm.db.engine import BEGIN, Database
from microorm.db.pool import give_back, switch_autocommit
from microorm.db.snapshots import Image, UndoLog
from microorm.errors import CommitOutcomeUnknown


class Channel:
    """A connection to *database*.

    *cursor* is the driver's, or None where statements go through SQLAlchemy's *connection*. That one is made when a
    statement needs it.
    """

    __slots__ = ("_connection", "_deadline", "_raw", "_switched", "cursor", "database", "undo")

    database: Database
    undo: UndoLog | None
    cursor: Any
    _connection: Connection | None
    _raw: PoolProxiedConnection | None
    _deadline: float
    _switched: bool

    @property
    def connection(self) -> Connection:
        """SQLAlchemy's connection."""
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    @property
    def raw(self) -> PoolProxiedConnection:
        """The pool's connection, around that of the driver."""
        return self._raw if self._raw is not None else self.connection.connection

    @property
    def lost(self) -> bool:
        """Whether the connection to the database was lost, or dropped."""
        if self._connection is not None and (self._connection.invalidated or self._connection.closed):
            return True
        return self._raw is not None and self._raw.dbapi_connection is None

    def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[Any]:
        """Run *statement* through SQLAlchemy's connection."""
        return self.connection.execute(statement, parameters)

    def execute_prepared(self, sql: str, parameters: Any, cursor: Any = None) -> Any:
        """Run *sql* on the driver's *cursor*, by default that of the channel, and return it. Errors are SQLAlchemy's."""
        cursor = cursor or self.cursor
        try:
            cursor.execute(sql, parameters)
        except BaseException as error:  # noqa: BLE001 raised below, as SQLAlchemy's
            raise (failed := self.translated(error, sql, parameters)) from failed.__cause__
        return cursor

    def executemany_prepared(self, sql: str, parameters: Sequence[Any]) -> int:
        """Run *sql* once for each of *parameters*; return the number of rows changed. Errors are SQLAlchemy's."""
        try:
            self.cursor.executemany(sql, parameters)
        except BaseException as error:  # noqa: BLE001 raised below, as SQLAlchemy's
            raise (failed := self.translated(error, sql, parameters)) from failed.__cause__
        return int(self.cursor.rowcount)

    def fetch_prepared(self, sql: str, parameters: Any, cursor: Any = None) -> list[Any]:
        """Run *sql* as `execute_prepared` does, and return the driver's rows."""
        cursor = cursor or self.cursor
        try:
            cursor.execute(sql, parameters)
            rows: list[Any] = cursor.fetchall()
        except BaseException as error:  # noqa: BLE001 raised below, as SQLAlchemy's
            raise (failed := self.translated(error, sql, parameters)) from failed.__cause__
        return rows

    def doom(self, error: BaseException) -> None:
        """Let the block that this channel belongs to end in a rollback only; alone, there is none."""

    def keep(self, image: Image) -> None:
        """Keep the snapshot of an instance for as long as what was written can be rolled back, if it can."""
        if self.undo is not None:
            self.undo.record(image)

    def translated(self, error: BaseException, sql: str, parameters: Any) -> BaseException:
        """The error to raise for *error*, which the driver raised for *sql*; a lost connection is invalidated."""
        dialect, raw = self.database.engine.dialect, self.raw
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
            self.database.note_lost()
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

    def _connect(self) -> Connection:
        """Make SQLAlchemy's connection of the one that is held."""
        raise NotImplementedError

    def _acquire(self) -> None:
        """Hold an idle connection, or else one from the pool, which commits each statement by itself if it can.

        On a server that takes a round trip, so it is done where the connection stays idle between two statements.
        """
        database = self.database
        if (idle := database.spares.take()) is not None:
            self._raw, self.cursor, self._deadline = idle
            self._switched = not database.autocommits
            return
        self._raw = _pooled_connection(database.engine)
        try:
            self._deadline = database.spares.deadline()
            if not database.autocommits and (self._deadline or database.dialect == "postgresql"):
                self._let_commit(self._raw)
            self.cursor = self._raw.cursor()
        except BaseException:
            self._release(idle=False)
            raise

    def _release(self, *, idle: bool) -> None:
        """Let go of the connection: *idle*, it may stay ready for the next statement, else the pool has it back."""
        raw, cursor, self._raw, self.cursor = self._raw, self.cursor, None, None
        if raw is None or (
            idle and self._deadline and self.database.spares.keep(raw, cursor, self._deadline)
        ):
            return
        give_back(raw, switched=self._switched)

    def _let_commit(self, raw: PoolProxiedConnection) -> None:
        """Switch to autocommit; a connection that the program has switched itself stays as it is, and is never idle."""
        if self.database.commits_by_itself(raw):
            self._deadline = 0.0
            return
        self._switch_autocommit(raw, on=True)

    def _switch_autocommit(self, raw: PoolProxiedConnection, *, on: bool) -> None:
        self._switched = True  # until it is certain that it is not
        try:
            switch_autocommit(raw, on=on)
        except BaseException as error:  # noqa: BLE001 raised below, as SQLAlchemy's
            raise (failed := self.translated(error, f"SET autocommit = {on:d}", None)) from failed.__cause__
        self._switched = on


class Lone(Channel):
    """A connection outside any block: its one statement commits by itself.

    *writes*: whether there is something to commit.
    """

    __slots__ = ("_writes",)

    def __init__(self, database: Database, *, writes: bool) -> None:
        self.database = database
        self._writes = writes
        self._connection = self._raw = self.cursor = self.undo = None
        self._deadline, self._switched = 0.0, False
        if not database.statements_listened():
            self._acquire()
        else:
            self._connection = lone_connection(database, committing=writes)

    def __enter__(self) -> Lone:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        commits_apart = self._raw is not None and self.database.needs_commit and not self._switched
        try:
            if error is None and self._writes and commits_apart:
                self._commit()
        finally:
            if self._raw is not None:
                self._release(idle=error is None)
            else:
                self.connection.close()
        lost = isinstance(error, DBAPIError) and error.connection_invalidated
        # A statement that was to be committed apart was not stored.
        if lost and self._writes and not commits_apart:
            raise CommitOutcomeUnknown(
                f"the connection to {self.database.alias!r} was lost while a statement ran"
            ) from error

    def _connect(self) -> Connection:
        """Make SQLAlchemy's connection of the one that is held, which commits each statement by itself."""
        connection = Connection(self.database.engine, self._raw)
        connection.execution_options(**{BEGIN: ""})
        return connection

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


def lone_connection(database: Database, *, committing: bool = True) -> Connection:
    """A connection outside any transaction, each statement of which commits by itself if *committing*."""
    connection = database.spares.connect(database.engine)
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
