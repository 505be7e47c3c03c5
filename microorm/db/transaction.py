"""Transactions: one for each alias, and the blocks in them.

A thread or task has at most one `Transaction` on each alias. The outermost block begins it; nested blocks are savepoints
in it, or join the surrounding block. The first error in a block dooms it: it refuses further statements, and can only
be rolled back.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import closing, suppress
from functools import partial
from threading import get_ident
from traceback import clear_frames
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, PoolProxiedConnection, RootTransaction, event
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from microorm.db.connection import Channel, rolled_back, unknown_commit
from microorm.db.context import open_block
from microorm.db.engines.engine import BEGIN, TRANSACTION, Database
from microorm.db.engines.pool import close_connection, switch_readonly
from microorm.db.hooks import Hook
from microorm.db.owners import Owner, forget, watch
from microorm.db.snapshots import SnapshotLog
from microorm.errors import ConfigurationError, TransactionError, TransactionSharedError
from microorm.instrumentation import NOTHING, transaction_step, watchers
from microorm.messages import brief

if TYPE_CHECKING:
    from microorm.db.blocks import AtomicBlock

_log = logging.getLogger("microorm.transactions")


class Transaction(Channel):
    """A transaction on one alias: its connection, blocks, `on_commit` functions and snapshots.

    *settled*: it was committed, or the outcome of its COMMIT is unknown; the instances keep their state, then. *wrote*: a
    write was routed to it, or its connection handed out.
    """

    __slots__ = (
        "__weakref__",
        "_root",
        "blocks",
        "committed",
        "handed_out",
        "home",
        "hooks",
        "owner",
        "settled",
        "warned",
        "wrote",
    )

    def __init__(self, database: Database) -> None:
        self.database = database
        self.blocks: list[AtomicBlock] = []
        self.hooks: deque[Hook] = deque()
        self.owner = Owner()
        self.home = database.here()
        self.undo = SnapshotLog()
        self.warned = self.wrote = self.handed_out = self._switched = self.sent = self.answered = (
            self.committed
        ) = self.settled = False
        self._root: RootTransaction | None = None
        self._connection = self._raw = self.cursor = None
        self._deadline = 0.0

    def begin(self, *, readonly: bool = False) -> None:
        """Begin the transaction by the driver, on an idle connection if there is one.

        If it is *readonly*, if the engine has listeners, or if it was made by the program, SQLAlchemy begins it. After
        an error nothing is held.
        """
        database = self.database
        step = None
        if watchers:
            step = transaction_step(database.alias, "BEGIN READ ONLY" if readonly else "BEGIN").begin()
        try:
            if readonly or not database.begins_on_cursor or database.listened():
                self._begin_through_sqlalchemy(readonly)
            else:
                self._acquire()
                self._begin_on_cursor()
            watch(self)
        except BaseException as error:
            if step is not None:
                step.end(error)
            self._close()
            raise
        if step is not None:
            step.end()

    @classmethod
    def adopt(cls, database: Database, connection: Connection) -> Transaction:
        """Return a transaction on *connection*, which its owner commits or rolls back; blocks in it are savepoints."""
        self = cls(database)
        self._connection = connection
        return self

    def __enter__(self) -> Transaction:
        if self.owner.thread != get_ident():
            self.database.refuse_elsewhere(self.home)
            self.owner.check(self.database.alias)
            if self.database.is_async:
                self.owner.thread = None  # the next user is checked, too
        if self.handed_out and (ended := self.ended_elsewhere()) is not None:
            self.doom(ended)
        if (error := self.blocks[-1].doomed_by) is not None:
            raise self._doomed(error) from error
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    @property
    def readonly(self) -> bool:
        """Whether the innermost block, or a block around it, is read-only."""
        return self.blocks[-1].readonly

    def hand_out(self) -> Connection:
        """Return the connection, for statements of the program; in a doomed block these raise `TransactionError`."""
        self.handed_out = True
        self.wrote = self.wrote or not self.readonly
        return self.connection

    def ended_elsewhere(self) -> TransactionError | None:
        """Return an error if the program has ended the transaction on the connection that was handed out, else None."""
        connection, root = self._connection, self._root
        if connection is None or root is None:  # never handed out, or adopted from an owner who may end it
            return None
        if connection.closed or connection.get_transaction() is not root or not root.is_active:
            return TransactionError(
                f"the transaction of the block on {self.database.alias!r} was ended through its connection"
            )
        return None

    def doom(self, error: BaseException) -> None:
        """Mark the innermost block as doomed by *error*, unless an earlier error has doomed it."""
        if not self.blocks or self.blocks[-1].doomed_by is not None:
            return
        self.blocks[-1].doomed_by = error
        if self.handed_out:
            event.listen(self.connection, "before_cursor_execute", self._refuse_statement)

    def translated(self, error: BaseException, sql: str, parameters: Any) -> BaseException:
        """Return SQLAlchemy's error for *error*, and doom the innermost block."""
        error = super().translated(error, sql, parameters)
        self.doom(error)
        return error

    def commit(self) -> None:
        """Commit, and give up the connection; roll back if that fails.

        Raises `CommitOutcomeUnknown` if the connection is lost, or the program interrupted, during COMMIT.
        """
        if watchers:
            with transaction_step(self.database.alias, "COMMIT"):
                self.database.complete(self._commit)
        else:
            self.database.complete(self._commit)

    def _commit(self) -> None:
        try:
            if (
                self.database.is_async and self.raw.driver_connection is None
            ):  # a commit on SQLite would do nothing
                raise TransactionError(
                    f"the block on {self.database.alias!r} cannot be committed: the database was closed"
                )
            if self._connection is not None:
                self._connection.commit()
            else:
                self.raw.dbapi_connection.commit()  # type: ignore[union-attr]
            self.committed = self.settled = True
        except BaseException as error:
            raise self._commit_failure(error)
        self._close(idle=True)

    def _commit_failure(self, error: BaseException) -> BaseException:
        """Roll back, unless the commit was done; return SQLAlchemy's error for *error*, or `CommitOutcomeUnknown`."""
        if self._connection is None:
            failure = self.translated(error, "COMMIT", None)
        else:
            clear_frames(error.__traceback__)  # those of SQLAlchemy refer to the error
            failure = error
        lost = isinstance(failure, DBAPIError) and failure.connection_invalidated
        still_open = None if lost else self._still_open()
        if still_open or rolled_back(failure):
            self.roll_back()
            return failure
        self.settled = True
        if still_open is False and not isinstance(failure, DBAPIError):  # interrupted after the COMMIT
            self.committed = True
            self._close()
            return failure
        self._invalidate()
        self._close()
        return unknown_commit(self.database.alias, failure)

    def _still_open(self) -> bool | None:
        """Ask the driver whether the transaction is still open after an interrupted COMMIT; None if it cannot tell."""
        if self.lost:
            return None
        try:
            driver: Any = self.raw.driver_connection
            if self.database.is_sqlite:
                return bool(driver.in_transaction)
            if self.database.dialect == "postgresql":
                # libpq: 0 is idle, 2 and 3 are in a transaction; 1 waits for an answer
                return {0: False, 2: True, 3: True}.get(int(driver.info.transaction_status))
            with closing(self.raw.cursor()) as cursor:
                cursor.execute("SELECT @@in_transaction")
                # The answer to the COMMIT may still be there; it has no row.
                row = cursor.fetchone()
                return None if row is None else bool(row[0])
        except Exception as error:
            _log.debug("the outcome of COMMIT on %r cannot be found out: %s", self.database.alias, error)
            return None

    def report(self) -> None:
        """Tell the guard of the database that something was written here and is committed, if that is so."""
        guard = self.database.guard
        if guard is not None and self.wrote:
            guard.written()

    def roll_back(self) -> None:
        """Roll back, give up the connection, and restore the instances. Can be repeated after an interrupt."""
        with transaction_step(self.database.alias, "ROLLBACK") if watchers else NOTHING:
            self.database.complete(self._roll_back)

    def _roll_back(self) -> None:
        idle = False
        try:
            if self._connection is not None and not self.lost and not self.database.can_wait():
                self._discard(self.raw, None)
            elif self._connection is not None:
                ended = self._root is not None and not self._root.is_active
                self._connection.rollback()
                if ended and not self.lost:
                    # SQLAlchemy sends no ROLLBACK after a COMMIT that has failed or was interrupted.
                    self.raw.dbapi_connection.rollback()  # type: ignore[union-attr]
            elif self._raw is not None and not self.lost:
                self._raw.dbapi_connection.rollback()  # type: ignore[union-attr]
            idle = True
        except Exception as error:
            _log.debug("rollback on %r failed: %s", self.database.alias, error)
            self._invalidate()
        except BaseException:
            self._invalidate()
            raise
        finally:
            try:
                self._close(idle=idle)
            finally:
                self.undo.roll_back()

    def before_fork(self) -> None:
        """Do nothing."""

    def after_fork(self) -> None:
        """In the child: drop the connection without closing it on the server, since the parent uses it."""
        connection, raw, lost = self._connection, self._raw, self.lost
        self.cursor = self._connection = self._raw = None
        self.owner.after_fork()
        inherited: Any = raw if raw is not None else connection
        if inherited is None:
            return
        if self.database.is_memory:
            # The fork has copied the database with its locks; only closing this connection frees them.
            inherited.close()
            return
        if not lost:
            self.database.note_inherited()
        with suppress(SQLAlchemyError):  # the connection was lost before
            inherited.detach()
        _inherited.append((connection, raw))

    def _begin_on_cursor(self) -> None:
        """Begin on the driver's cursor, whose connection may be in autocommit."""
        assert self._raw is not None
        if not (self._switched or self.database.autocommits):
            self._refuse_autocommit(self._raw)
        if self.database.dialect == "postgresql":
            # The driver begins at the first statement, with its isolation level.
            if self._switched:
                self._switch_autocommit(self._raw, on=False)
            return
        sql = "BEGIN IMMEDIATE" if self.database.is_sqlite else "BEGIN"
        try:
            self.cursor.execute(sql)
        except BaseException as error:
            raise self.translated(error, sql, None)

    def _begin_through_sqlalchemy(self, readonly: bool) -> None:
        database, dialect = self.database, self.database.dialect
        connection = self._connection = database.connect()
        self._refuse_autocommit(connection.connection)
        options: dict[str, Any] = {TRANSACTION: self}
        if dialect == "sqlite":
            options[BEGIN] = "BEGIN" if readonly else "BEGIN IMMEDIATE"
        elif dialect == "postgresql" and readonly:
            options["postgresql_readonly"] = True
        connection.execution_options(**options)
        if readonly and dialect not in ("sqlite", "postgresql"):
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        else:
            connection.begin()
            if readonly and dialect == "sqlite":
                switch_readonly(connection)
        self._root = connection.get_transaction()
        if not database.listened(connection):
            self.cursor = database.cursor(connection.connection)

    def _refuse_autocommit(self, raw: PoolProxiedConnection) -> None:
        if self.database.commits_by_itself(raw):
            raise ConfigurationError(
                f"the connections of {self.database.alias!r} are in autocommit mode, and a block needs a transaction"
            )

    def _connect(self) -> Connection:
        """Make SQLAlchemy's connection from the one on which the transaction has begun."""
        connection = Connection(self.database.engine, self._raw)
        connection.execution_options(**{TRANSACTION: self, BEGIN: ""})
        self._root = connection.begin()
        return connection

    def _invalidate(self) -> None:
        """Invalidate the connection, whose state is unknown."""
        connection = self._connection
        if connection is not None and not connection.closed:
            self.database.complete(connection.invalidate)
        elif self._raw is not None:
            self._discard(self._raw, None)

    def _try_autocommit(self, raw: PoolProxiedConnection, *, on: bool) -> bool:
        """Switch autocommit and return True; invalidate the connection if that fails, and return False."""
        try:
            self._switch_autocommit(raw, on=on)
        except Exception as error:
            _log.debug("autocommit of %r cannot be switched: %s", self.database.alias, error)
            return False
        return True

    def give_up(self) -> None:
        """Give up the connection, if an interrupt has left it here."""
        self._close(idle=False)

    def _close(self, *, idle: bool = False) -> None:
        """Give up the connection; *idle*: it was committed or rolled back without an error."""
        forget(self)
        connection, self._connection = self._connection, None
        if (raw := self._raw) is not None:
            if idle and self._deadline and self.database.dialect == "postgresql":
                idle = self._try_autocommit(raw, on=True)
            if connection is None or not self.handed_out:
                self._release(idle=idle and raw.dbapi_connection is not None)
                return
            self._raw = None
        self.cursor = None
        if connection is not None:
            self.database.complete(partial(close_connection, connection))

    def _doomed(self, error: BaseException) -> TransactionError:
        if isinstance(error, Forbidden):
            return TransactionError(f"{self.database.alias!r} cannot be used: {error}")
        return TransactionError(
            f"the block on {self.database.alias!r} is doomed by an earlier error: {brief(error)}{how_to_go_on(error)}"
        )

    def _refuse_statement(self, *arguments: Any) -> None:
        block = self.blocks[-1]
        # A closed block is being rolled back, which may take a statement.
        if block.doomed_by is not None and not block.closed:
            raise self._doomed(block.doomed_by) from block.doomed_by


def how_to_go_on(error: BaseException | None) -> str:
    """Return how a block can go on after *error*, as the end of a message; nothing for an error that no program expects."""
    if not isinstance(error, IntegrityError):
        return ""
    return "; to go on after such an error, put what may raise it into an atomic() of its own"


def open_transaction(owner: object, alias: str) -> Transaction | None:
    """Return the transaction that this thread or task has open on *alias*, or None.

    Raises `TransactionSharedError` while a task of this thread has a block open in it.
    """
    block: AtomicBlock | None = open_block(owner, alias)
    if block is None:
        return None
    if block.transaction.blocks[-1] is not block:
        raise TransactionSharedError(f"another task has opened a block inside the open block on {alias!r}")
    return block.transaction


_inherited: list[Any] = []


class Forbidden(Exception):
    """The reason why an alias is unusable; it dooms a block that `forbidden` opens on the alias."""
