"""Transactions: what is open on one alias, and the blocks in it, each of which can be undone.

One `Transaction` per alias and thread or task. The outermost block opens it, nested ones are savepoints in it.
A block is doomed by the first error in it; a doomed block cannot end well (CONTRACT O, DESIGN 8).

Lending: somebody else's open connection, for a while the one that models use.
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
    Entered,
    Entrance,
    Hook,
    Owner,
    Using,
    forget,
    open_block,
    run_hooks,
    watch,
)
from microorm.db.engine import BEGIN, TRANSACTION, Database
from microorm.db.snapshots import UndoLog
from microorm.errors import (
    CommitOutcomeUnknown,
    ConfigurationError,
    TransactionError,
    TransactionSharedError,
)

_log = logging.getLogger("microorm.transactions")


class Transaction(Channel):
    """What is open on one alias: a connection, its blocks, hooks and before-images."""

    __slots__ = ("__weakref__", "_root", "blocks", "handed_out", "hooks", "owner", "warned")

    def __init__(self, database: Database) -> None:
        self.database = database
        self.blocks: list[Block] = []
        self.hooks: list[Hook] = []
        self.owner = Owner()
        self.undo: UndoLog = UndoLog()
        self.warned = self.handed_out = self._switched = False
        self._root: RootTransaction | None = None
        self._connection = self._raw = self.cursor = None
        self._deadline = 0.0

    @classmethod
    def begin(cls, database: Database, *, readonly: bool) -> Transaction:
        """Begin a transaction: on an idle connection if it can, else through SQLAlchemy's connection.

        The latter where listeners are to hear of it, or the transaction is *readonly*.
        """
        self = cls(database)
        try:
            if readonly or not database.begins_on_cursor or database.listened(database.engine):
                self._begin_through_sqlalchemy(readonly)
            else:
                self._acquire()
                self._begin_on_cursor()
        except BaseException:
            self._let_go()
            raise
        watch(self)
        return self

    @classmethod
    def adopt(cls, database: Database, connection: Connection) -> Transaction:
        """Treat what is open on *connection*, which its owner commits and rolls back, as a transaction.

        Blocks in it are savepoints.
        """
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
        """Whether the innermost block, or one around it, is for reading only."""
        return self.blocks[-1].readonly

    def hand_out(self) -> Connection:
        """The connection, for statements that are not ours; in a doomed block it raises `TransactionError`."""
        self.handed_out = True
        return self.connection

    def ended_elsewhere(self) -> TransactionError | None:
        """What to raise where somebody has ended the transaction through the connection that was handed out."""
        connection, root = self._connection, self._root
        if connection is None or root is None:  # nothing but our statements, or its owner may begin another
            return None
        if connection.closed or connection.get_transaction() is not root or not root.is_active:
            return TransactionError(f"the block on {self.database.alias!r} was ended through its connection")
        return None

    def doom(self, error: BaseException) -> None:
        """Let the innermost block end in a rollback only, because of *error*."""
        if not self.blocks or self.blocks[-1].doomed_by is not None:
            return
        self.blocks[-1].doomed_by = error
        if self.handed_out:
            event.listen(self.connection, "before_cursor_execute", self._refuse)

    def translated(self, error: BaseException, sql: str, parameters: Any) -> BaseException:
        """As for any channel; the innermost block is doomed."""
        error = super().translated(error, sql, parameters)
        self.doom(error)
        return error

    def commit(self) -> None:
        """Commit and close. `CommitOutcomeUnknown` where the outcome cannot be known; else a failure has rolled back."""
        try:
            if self._connection is not None:
                self._connection.commit()
            else:
                self._driver().commit()
        except Exception as error:  # noqa: BLE001 raised below, as SQLAlchemy's
            failure = error if self._connection is not None else self.translated(error, "COMMIT", None)
            if isinstance(failure, DBAPIError) and failure.connection_invalidated:
                self._let_go()
                raise CommitOutcomeUnknown(
                    f"the connection to {self.database.alias!r} was lost while COMMIT ran"
                ) from failure
            self.roll_back()
            raise failure from failure.__cause__
        except BaseException:
            self._drop()
            self._let_go()
            raise
        self._let_go(idle=True)

    def roll_back(self) -> None:
        """Roll back and close; the instances are as they were before."""
        idle = False
        try:
            if self._connection is not None:
                self._connection.rollback()
            elif not self.lost:
                self._driver().rollback()
            idle = True
        except Exception as error:  # noqa: BLE001 the error that led here matters more; the connection is dropped
            _log.debug("rollback on %r failed: %s", self.database.alias, error)
            self._drop()
        except BaseException:
            self._drop()
            raise
        finally:
            try:
                self._let_go(idle=idle)
            finally:
                self.undo.roll_back()

    def before_fork(self) -> None:
        """Nothing to do."""

    def after_fork(self) -> None:
        """In the child: let go without a word to the server, which still serves the parent."""
        connection, raw = self._connection, self._raw
        self.cursor = self._connection = self._raw = None
        self.owner.after_fork()
        held: Any = raw if raw is not None else connection
        if held is None:
            return
        if self.database.is_memory:
            # The fork has copied the database, and its locks: nothing else will ever free this one.
            held.close()
            return
        with suppress(SQLAlchemyError):  # it had lost its connection before
            held.detach()
        _inherited.append((connection, raw))

    def _begin_on_cursor(self) -> None:
        """Begin by the driver, on a connection that may be in autocommit."""
        assert self._raw is not None
        if not (self._switched or self.database.autocommits):
            self._refuse_autocommit(self._raw)
        if self.database.dialect == "postgresql":
            # The driver begins with the first statement, at the isolation level that it was given.
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
        connection = self._connection = database.spares.connect(database.engine)
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
                f"the connections of {self.database.alias!r} commit each statement, and a block needs a transaction"
            )

    def _connect(self) -> Connection:
        """Make SQLAlchemy's connection of the one on which the transaction has begun."""
        connection = Connection(self.database.engine, self._raw)
        connection.execution_options(**{TRANSACTION: self, BEGIN: ""})
        self._root = connection.begin()
        return connection

    def _driver(self) -> Any:
        """Return the driver's connection; the pool's would look each method up in Python."""
        return self.raw.dbapi_connection

    def _drop(self) -> None:
        """Close the connection instead of giving it back: its state is not known."""
        if self._connection is not None and not self._connection.closed:
            self._connection.invalidate()
        elif self._raw is not None and self._raw.is_valid:
            self._raw.invalidate()

    def _try_autocommit(self, raw: PoolProxiedConnection, *, on: bool) -> bool:
        """Switch autocommit, or drop the connection; what was committed stays so."""
        try:
            self._switch_autocommit(raw, on=on)
        except Exception as error:  # noqa: BLE001 the transaction has ended well
            _log.debug("autocommit of %r cannot be switched: %s", self.database.alias, error)
            if raw.is_valid:
                raw.invalidate()
            return False
        return True

    def _let_go(self, *, idle: bool = False) -> None:
        """Give the connection back; *idle* after a commit or a rollback that went well."""
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
            f"the block on {self.database.alias!r} is doomed by an earlier error: {error!r}"
        )

    def _refuse(self, *statement: Any) -> None:
        block = self.blocks[-1]
        # What ends the block is a statement, too.
        if block.doomed_by is not None and not block.closed:
            raise self._doomed(block.doomed_by) from block.doomed_by


class Block(Entered):
    """One `with atomic()` in progress: the whole transaction, a savepoint in it, or neither of its own."""

    __slots__ = ("doomed_by", "hooks_before", "nested", "readonly", "savepoint", "transaction")

    def __init__(self, entrance: Entrance, alias: str, transaction: Transaction, *, readonly: bool) -> None:
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
        """Set a savepoint, by the driver's cursor where nobody listens."""
        transaction = self.transaction
        self.savepoint = f"microorm_{len(transaction.blocks)}"
        if transaction.cursor is None:
            self.nested = transaction.connection.begin_nested()
        else:
            self._run("SAVEPOINT")
        transaction.undo.push()

    def release(self) -> None:
        """End the savepoint, keeping what was done in it."""
        try:
            if self.nested is not None:
                self.nested.commit()
            else:
                self._run("RELEASE SAVEPOINT")
        finally:
            self.transaction.undo.release()

    def roll_back(self) -> None:
        """Undo what was done since the savepoint: rows, hooks and instances."""
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
    """The transaction that is open on *alias* here and now, or None.

    Raises `TransactionSharedError` where a block in it is open in another context: a task that this thread runs.
    """
    block: Block | None = open_block(owner, alias)
    if block is None:
        return None
    if block.transaction.blocks[-1] is not block:
        raise TransactionSharedError(
            f"inside the open block on {alias!r} is one that belongs to another task"
        )
    return block.transaction


_inherited: list[Any] = []


class Forbidden(Exception):
    """Why an alias cannot be used for a while: it dooms the block that stands for it."""


@contextmanager
def forbidden(databases: Any, reason: str, but: tuple[str, ...] = ()) -> Iterator[None]:
    """Refuse every use of the databases in the `with` block, except the aliases in *but*.

    What is refused raises `TransactionError` with the *reason*.
    """
    with ExitStack() as scopes:
        for alias in databases.aliases:
            if alias not in but:
                block = scopes.enter_context(_opened(databases, Transaction(databases.database(alias))))
                block.doomed_by = Forbidden(reason)
        yield


@contextmanager
def adopted(databases: Any, aliases: tuple[str, ...], connection: Connection) -> Iterator[None]:
    """Read and write models over *connection* in the `with` block, on the first of *aliases* by default.

    After an error instances are as they were before. Otherwise `on_commit` functions run at the end of the block,
    which comes after the last commit of the connection's owner.
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
def _opened(databases: Any, transaction: Transaction) -> Iterator[Block]:
    block = Block(Entrance(databases), transaction.database.alias, transaction, readonly=False)
    transaction.blocks.append(block)
    with block:
        yield block
