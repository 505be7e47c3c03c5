"""Transactions: one for each alias, and the blocks in them.

A thread or task has at most one `Transaction` on each alias. The outermost block begins it; nested blocks are savepoints
in it, or join the surrounding block. The first error in a block dooms it: it refuses further statements, and can only
be rolled back.

`adopted` lets models use an open connection of the program; `forbidden` makes aliases unusable for a while.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import get_ident
from typing import Any

from sqlalchemy import Connection, PoolProxiedConnection, RootTransaction, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from microorm.db.connection import Channel
from microorm.db.context import (
    BLOCK,
    ContextScope,
    Hook,
    Owner,
    ReusableContext,
    Using,
    forget,
    open_block,
    run_hooks,
    watch,
)
from microorm.db.engine import BEGIN, TRANSACTION, Database
from microorm.db.snapshots import SnapshotLog
from microorm.errors import CommitOutcomeUnknown, ConfigurationError, TransactionError, TransactionSharedError
from microorm.messages import brief

_log = logging.getLogger("microorm.transactions")


class Transaction(Channel):
    """A transaction on one alias: its connection, blocks, `on_commit` functions and snapshots."""

    __slots__ = ("__weakref__", "_root", "blocks", "handed_out", "hooks", "owner", "warned")

    def __init__(self, database: Database) -> None:
        self.database = database
        self.blocks: list[AtomicBlock] = []
        self.hooks: list[Hook] = []
        self.owner = Owner()
        self.undo = SnapshotLog()
        self.warned = self.handed_out = self._switched = False
        self._root: RootTransaction | None = None
        self._connection = self._raw = self.cursor = None
        self._deadline = 0.0

    @classmethod
    def begin(cls, database: Database, *, readonly: bool) -> Transaction:
        """Begin a transaction by the driver, on an idle connection if there is one.

        If it is *readonly*, if the engine has listeners, or if it was made by the program, SQLAlchemy begins it.
        """
        self = cls(database)
        try:
            if readonly or not database.begins_on_cursor or database.listened(database.engine):
                self._begin_through_sqlalchemy(readonly)
            else:
                self._acquire()
                self._begin_on_cursor()
        except BaseException:
            self._close()
            raise
        watch(self)
        return self

    @classmethod
    def adopt(cls, database: Database, connection: Connection) -> Transaction:
        """Return a transaction on *connection*, which its owner commits or rolls back; blocks in it are savepoints."""
        self = cls(database)
        self._connection = connection
        return self

    def __enter__(self) -> Transaction:
        if self.owner.thread != get_ident():
            self.owner.check(self.database.alias)
        if self.handed_out and (ended := self.ended_elsewhere()) is not None:
            self.doom(ended)
        if (error := self.blocks[-1].doomed_by) is not None:
            raise self._doomed(error) from error
        if self.database.observers.told:
            self.cursor = self.database.observers.watched(self.cursor)
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

        Raises `CommitOutcomeUnknown` if the connection is lost during COMMIT.
        """
        try:
            if self._connection is not None:
                self._connection.commit()
            else:
                self._driver().commit()
        except Exception as error:  # noqa: BLE001 raised below, as SQLAlchemy's
            failure = error if self._connection is not None else self.translated(error, "COMMIT", None)
            if isinstance(failure, DBAPIError) and failure.connection_invalidated:
                self._close()
                raise CommitOutcomeUnknown(
                    f"the connection to {self.database.alias!r} was lost while COMMIT ran"
                ) from failure
            self.roll_back()
            raise failure from failure.__cause__
        except BaseException:
            self._invalidate()
            self._close()
            raise
        self._close(idle=True)

    def roll_back(self) -> None:
        """Roll back, give up the connection, and restore the instances."""
        idle = False
        try:
            if self._connection is not None:
                self._connection.rollback()
            elif not self.lost:
                self._driver().rollback()
            idle = True
        except Exception as error:  # noqa: BLE001 the error that caused the rollback matters more
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
        connection, raw = self._connection, self._raw
        self.cursor = self._connection = self._raw = None
        self.owner.after_fork()
        inherited: Any = raw if raw is not None else connection
        if inherited is None:
            return
        if self.database.is_memory:
            # The fork has copied the database with its locks; only closing this connection frees them.
            inherited.close()
            return
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
        except BaseException as error:  # noqa: BLE001 raised below, as SQLAlchemy's
            raise (failed := self.translated(error, sql, None)) from failed.__cause__

    def _begin_through_sqlalchemy(self, readonly: bool) -> None:
        database, dialect = self.database, self.database.dialect
        connection = self._connection = database.idle_connections.connect(database.engine)
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
                connection.exec_driver_sql("PRAGMA query_only=ON")
        self._root = connection.get_transaction()
        if not database.listened(connection):
            self.cursor = connection.connection.cursor()

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

    def _driver(self) -> Any:
        """Return the driver's connection; the pool's proxy is slower, since it looks up each method in Python."""
        return self.raw.dbapi_connection

    def _invalidate(self) -> None:
        """Invalidate the connection, whose state is unknown."""
        if self._connection is not None and not self._connection.closed:
            self._connection.invalidate()
        elif self._raw is not None and self._raw.is_valid:
            self._raw.invalidate()

    def _try_autocommit(self, raw: PoolProxiedConnection, *, on: bool) -> bool:
        """Switch autocommit and return True; invalidate the connection if that fails, and return False."""
        try:
            self._switch_autocommit(raw, on=on)
        except Exception as error:  # noqa: BLE001 it must not hide that the transaction was committed
            _log.debug("autocommit of %r cannot be switched: %s", self.database.alias, error)
            if raw.is_valid:
                raw.invalidate()
            return False
        return True

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
            if self._switched and raw.is_valid:
                self._try_autocommit(raw, on=False)
            self._raw = None
        self.cursor = None
        if connection is None:
            return
        try:
            if (
                self.database.is_sqlite
                and self.blocks
                and self.blocks[0].readonly
                and not (connection.closed or connection.invalidated)
            ):
                connection.connection.cursor().execute("PRAGMA query_only=OFF")
        finally:
            connection.close()

    def _doomed(self, error: BaseException) -> TransactionError:
        if isinstance(error, Forbidden):
            return TransactionError(f"{self.database.alias!r} cannot be used: {error}")
        return TransactionError(
            f"the block on {self.database.alias!r} is doomed by an earlier error: {brief(error)}"
        )

    def _refuse_statement(self, *arguments: Any) -> None:
        block = self.blocks[-1]
        # A closed block is being rolled back, which may take a statement.
        if block.doomed_by is not None and not block.closed:
            raise self._doomed(block.doomed_by) from block.doomed_by


class AtomicBlock(ContextScope):
    """An entered `atomic()`: the whole transaction, a savepoint in it, or a part of the surrounding block."""

    __slots__ = ("doomed_by", "hooks_before", "nested", "readonly", "savepoint", "transaction")

    def __init__(
        self, entrance: ReusableContext, alias: str, transaction: Transaction, *, readonly: bool
    ) -> None:
        super().__init__(BLOCK, entrance, alias)
        self.transaction = transaction
        self.readonly = readonly or (bool(transaction.blocks) and transaction.readonly)
        self.doomed_by: BaseException | None = None
        self.hooks_before = len(transaction.hooks)
        self.savepoint: str | None = None
        self.nested: Any = None

    @property
    def outermost(self) -> bool:
        """Whether the transaction begins and ends with this block."""
        return self.transaction.blocks[0] is self

    def begin_savepoint(self) -> None:
        """Set a savepoint, on the driver's cursor if there is one."""
        transaction = self.transaction
        self.savepoint = f"microorm_{len(transaction.blocks)}"
        if transaction.cursor is None:
            self.nested = transaction.connection.begin_nested()
        else:
            self._run("SAVEPOINT")
        transaction.undo.push()

    def release(self) -> None:
        """Release the savepoint, and keep its changes."""
        try:
            if self.nested is not None:
                self.nested.commit()
            else:
                self._run("RELEASE SAVEPOINT")
        finally:
            self.transaction.undo.release()

    def roll_back(self) -> None:
        """Roll back to the savepoint: rows, `on_commit` functions and instances."""
        transaction = self.transaction
        del transaction.hooks[self.hooks_before :]
        try:
            if transaction.lost:
                return
            if self.nested is not None:
                self.nested.rollback()
            else:
                self._run("ROLLBACK TO SAVEPOINT")
                self._run("RELEASE SAVEPOINT")
        finally:
            transaction.undo.roll_back()

    def _run(self, verb: str) -> None:
        transaction, sql = self.transaction, f"{verb} {self.savepoint}"
        try:
            transaction.cursor.execute(sql)
        except BaseException as error:  # noqa: BLE001 raised below, as SQLAlchemy's
            raise (failed := transaction.translated(error, sql, None)) from failed.__cause__


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


@contextmanager
def forbidden(databases: Any, reason: str, but: tuple[str, ...] = ()) -> Iterator[None]:
    """Make all aliases except *but* unusable in the `with` block: `TransactionError` with the *reason*."""
    with ExitStack() as scopes:
        for alias in databases.aliases:
            if alias not in but:
                block = scopes.enter_context(_opened(databases, Transaction(databases.database(alias))))
                block.doomed_by = Forbidden(reason)
        yield


@contextmanager
def adopted(databases: Any, aliases: tuple[str, ...], connection: Connection) -> Iterator[None]:
    """Use *connection* for all *aliases* in the `with` block, and the first of them by default.

    An error restores the instances. Otherwise the `on_commit` functions run at the end of the block, so leave it after
    the last commit on *connection*.
    """
    adopted = [Transaction.adopt(databases.database(alias), connection) for alias in aliases]
    with ExitStack() as scopes:
        for transaction in adopted:
            scopes.enter_context(_opened(databases, transaction))
        scopes.enter_context(Using(databases, aliases[0]))
        try:
            yield
        except BaseException:
            for transaction in adopted:
                transaction.undo.roll_back()
            raise
    for transaction in adopted:
        run_hooks(transaction.hooks)


@contextmanager
def _opened(databases: Any, transaction: Transaction) -> Iterator[AtomicBlock]:
    block = AtomicBlock(ReusableContext(databases), transaction.database.alias, transaction, readonly=False)
    transaction.blocks.append(block)
    with block:
        yield block
