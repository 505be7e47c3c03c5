"""Channels: connections that run statements, and the translation of the driver's errors.

A compiled statement runs on the driver's cursor if the engine has no listeners. All others run on SQLAlchemy's
`Connection`, which calls the listeners. Either way an error is SQLAlchemy's, with the same statement, parameters and
invalidation of the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from traceback import clear_frames
from typing import Any, TypeVar

from sqlalchemy import Connection, CursorResult, Executable, PoolProxiedConnection
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from microorm.db.engines.engine import Database
from microorm.db.engines.events import watched_call
from microorm.db.engines.missing import note_missing
from microorm.db.engines.pool import close_cursor, give_back, switch_autocommit
from microorm.db.snapshots import Snapshot
from microorm.errors import MicroormError, outcome_unknown
from microorm.instrumentation import note_rows, watchers

T = TypeVar("T")
Bind = Callable[[Any], Any]

_DEFINITE = (MicroormError, SQLAlchemyError, TypeError, ValueError, OverflowError)
"""Errors after which nothing was written; drivers raise the last three for values that they cannot send."""

_ROLLED_BACK = (1205, 1213)
"""The numbers by which MariaDB answers that it has ended a transaction that waited for locks."""


class Channel:
    """A connection to *database*.

    An error is raised where it is caught, and never from a function that has it as an argument or a variable: its
    traceback would refer to that function's frame, and so to itself, and keep the instance, the cursor and the connection
    until the garbage collector runs.

    *cursor*: the driver's, or None if compiled statements run on SQLAlchemy's *connection*, too. The latter is made when
    it is first needed. *sent*: whether a statement was sent, whatever came of it. *answered*: whether one was done whose rows
    could not be read.
    """

    __slots__ = (
        "_connection",
        "_deadline",
        "_raw",
        "_switched",
        "answered",
        "cursor",
        "database",
        "sent",
        "undo",
    )

    database: Database
    undo: Any  # the SnapshotLog of a transaction, or None
    cursor: Any
    _connection: Connection | None
    _raw: PoolProxiedConnection | None
    _deadline: float
    _switched: bool
    sent: bool
    answered: bool

    @property
    def connection(self) -> Connection:
        """SQLAlchemy's connection."""
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    @property
    def raw(self) -> PoolProxiedConnection:
        """The pool's proxy of the driver's connection."""
        return self._raw if self._raw is not None else self.connection.connection

    @property
    def lost(self) -> bool:
        """Whether the connection to the database was lost or invalidated."""
        if self._connection is not None and (self._connection.invalidated or self._connection.closed):
            return True
        return self._raw is not None and self._raw.dbapi_connection is None

    def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[Any]:
        """Run *statement* through SQLAlchemy's connection."""
        connection = self.connection
        return self._stoppable(statement, lambda: connection.execute(statement, parameters))

    def fetch(self, statement: Executable, parameters: Any = None) -> Sequence[Any]:
        """Run *statement* through SQLAlchemy's connection, and return all its rows."""
        connection = self.connection

        def read() -> Sequence[Any]:
            result = connection.execute(statement, parameters)
            self.answered = True
            rows: Sequence[Any] = result.fetchall()
            self.answered = False
            if watchers:
                note_rows(len(rows))
            return rows

        return self._stoppable(statement, read)

    def _stoppable(self, statement: Executable, step: Callable[[], T]) -> T:
        self.sent = True
        try:
            return self.database.stoppable(self.raw, step, reads=statement.is_select)
        except BaseException as error:
            clear_frames(error.__traceback__)  # those of SQLAlchemy, which have finished, refer to the error
            raise

    def execute_prepared(self, sql: str, row: Any, bind: Bind | None = None, cursor: Any = None) -> Any:
        """Run *sql* on the driver's *cursor*, by default that of the channel, and return it.

        *bind* makes the driver's parameters of the values of *row*. Errors are SQLAlchemy's.
        """
        cursor = cursor or self.cursor
        parameters = row
        if bind is not None:
            try:
                parameters = bind(row)
            except Exception as error:
                raise self.unbound(error, sql, row) from error
        self.sent = True
        try:
            if watchers:
                watched_call(self.database, cursor.execute, cursor, sql, parameters)
            else:
                cursor.execute(sql, parameters)
        except BaseException as error:
            raise self.translated(error, sql, parameters)
        return cursor

    def executemany_prepared(self, sql: str, rows: Sequence[Any], bind: Bind | None = None) -> int:
        """Run *sql* once for each of *rows*; return the number of rows changed. Errors are SQLAlchemy's."""
        parameters = rows
        if bind is not None:
            try:
                parameters = list(map(bind, rows))
            except Exception as error:
                raise self.unbound(error, sql, rows) from error
        self.sent = True
        try:
            sent = self.database.for_many(sql)
            if watchers:
                watched_call(self.database, self.cursor.executemany, self.cursor, sent, parameters, many=True)
            else:
                self.cursor.executemany(sent, parameters)
        except BaseException as error:
            raise self.translated(error, sql, parameters)
        return int(self.cursor.rowcount)

    def fetch_prepared(self, sql: str, row: Any, bind: Bind | None = None, cursor: Any = None) -> list[Any]:
        """Run *sql* as `execute_prepared` does, and return the driver's rows."""
        cursor = self.execute_prepared(sql, row, bind, cursor)
        try:
            rows: list[Any] = cursor.fetchall()
            if watchers:
                note_rows(len(rows))
        except BaseException as error:
            self.answered = True
            failure = self.translated(error, sql, row)
            self._replace(cursor)
            cursor = None  # the traceback refers to this frame
            raise failure
        return rows

    def doom(self, error: BaseException) -> None:
        """Mark the innermost block as doomed by *error*; do nothing outside blocks."""

    def keep(self, snapshot: Snapshot) -> None:
        """Restore the instance from *snapshot* if the transaction is rolled back; do nothing outside transactions."""
        if self.undo is not None:
            self.undo.record(snapshot)

    def translated(self, error: BaseException, sql: str, parameters: Any) -> BaseException:
        """Return SQLAlchemy's error for *error*, which *sql* has caused.

        Invalidates the connection if it was lost, or if *error* has interrupted the driver.
        """
        if self.database.is_async:
            clear_frames(error.__traceback__)  # those of the driver, which have finished, refer to the error
        dialect, raw = self.database.engine.dialect, self.raw
        driver = dialect.loaded_dbapi
        if not isinstance(error, driver.Error):
            if not isinstance(error, _DEFINITE) and sql != "COMMIT":
                # Interrupted in the middle of an exchange: the state of the connection is unknown.
                self._discard(raw, error, interrupted=True)
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
            self._discard(raw, error)
        note_missing(wrapped)
        wrapped.__cause__ = error
        return wrapped

    def _replace(self, cursor: Any) -> None:
        """Close *cursor*, which may hold a lock while rows are left, and open another if it is that of the channel."""
        raw = self.raw
        close_cursor(raw, cursor)
        if cursor is self.cursor:
            self.cursor = None
            if raw.is_valid:
                self.cursor = self.database.cursor(raw)

    def unbound(self, error: Exception, sql: str, values: Any) -> BaseException:
        """Return SQLAlchemy's error for *error*, which a column type raised for one of *values*; doom the block."""
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
        """Make SQLAlchemy's connection from the acquired one."""
        raise NotImplementedError

    def _acquire(self) -> None:
        """Take an idle connection, or one from the pool, which is switched to autocommit if that pays.

        On MySQL and MariaDB the switch costs a round trip, so it is made only for connections that may become idle.
        """
        database = self.database
        if (idle := database.idle_connections.take()) is not None:
            self._raw, self.cursor, self._deadline = idle
            self._switched = not database.autocommits
            if self.cursor is None:
                self.cursor = database.cursor(self._raw)
            return
        self._raw = database.reach(partial(_pooled_connection, database))
        try:
            self._deadline = database.idle_connections.deadline()
            if not database.autocommits and (self._deadline or database.dialect == "postgresql"):
                self._enable_autocommit(self._raw)
            self.cursor = database.cursor(self._raw)
        except BaseException:
            self._release(idle=False)
            raise

    def _release(self, *, idle: bool) -> None:
        """Give up the connection: keep it among the idle ones if *idle*, else return it to the pool."""
        raw, cursor, self._raw, self.cursor = self._raw, self.cursor, None, None
        if raw is None or (
            idle and self._deadline and self.database.idle_connections.keep(raw, cursor, self._deadline)
        ):
            return

        def give_up() -> None:
            try:
                close_cursor(raw, cursor)  # the traceback of an error may refer to it for long
            finally:
                give_back(raw)
                self.database.idle_connections.note_returned()

        self.database.complete(give_up)

    def _discard(
        self, raw: PoolProxiedConnection, error: BaseException | None, *, interrupted: bool = False
    ) -> None:
        if not raw.is_valid:  # it was invalidated before
            return
        if not (interrupted and self.database.recovers(raw, error)):
            self.database.discard(raw, error)

    def _enable_autocommit(self, raw: PoolProxiedConnection) -> None:
        """Switch to autocommit; a connection that the program has switched is left alone and never kept idle."""
        if self.database.commits_by_itself(raw):
            self._deadline = 0.0
            return
        self._switch_autocommit(raw, on=True)

    def _switch_autocommit(self, raw: PoolProxiedConnection, *, on: bool) -> None:
        try:
            switch_autocommit(raw, on=on)
        except BaseException as error:
            failure = self.translated(error, f"SET autocommit = {on:d}", None)
            self._discard(raw, error)  # its state is not certain
            raise failure
        self._switched = on


def rolled_back(error: BaseException) -> bool:
    """Whether the *error* of a COMMIT is the answer of the database that it has not committed."""
    if not isinstance(error, DBAPIError) or error.connection_invalidated:
        return isinstance(error, (MicroormError, SQLAlchemyError)) and not isinstance(error, DBAPIError)
    driver: Any = error.orig
    return (
        isinstance(error, IntegrityError)
        or getattr(driver, "sqlstate", None) is not None  # PostgreSQL's answers have one
        or bool(driver.args and driver.args[0] in _ROLLED_BACK)
    )


def unknown_commit(alias: str, failure: BaseException) -> BaseException:
    """Return the error that says that *failure* has left the outcome of the COMMIT on *alias* unknown."""
    what = f"COMMIT on {alias!r} has failed, and may have been done"
    if not isinstance(failure, DBAPIError):
        what = f"COMMIT on {alias!r} was interrupted, and may have been done"
    elif failure.connection_invalidated:
        what = f"the connection to {alias!r} was lost while COMMIT ran"
    return outcome_unknown(what, failure)


def is_definite(error: BaseException) -> bool:
    """Whether *error* says that a write has failed, rather than that its outcome is not known."""
    if isinstance(error, DBAPIError):
        return not error.connection_invalidated
    return isinstance(error, _DEFINITE)


def _pooled_connection(database: Database) -> PoolProxiedConnection:
    """Return a connection from the pool. Raises SQLAlchemy's error if the driver cannot connect."""
    engine = database.engine
    database.idle_connections.expire()
    try:
        return database.limits.opening(engine.raw_connection)
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
