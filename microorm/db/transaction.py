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
from typing import Any, NoReturn

from sqlalchemy import Connection, RootTransaction, event
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
from microorm.db.snapshots import Image, UndoLog
from microorm.errors import (
    CommitOutcomeUnknown,
    ConfigurationError,
    TransactionError,
    TransactionSharedError,
)

_log = logging.getLogger("microorm.transactions")


class Transaction(Channel):
    """What is open on one alias: a connection, its blocks, hooks and before-images."""

    __slots__ = (
        "__weakref__",
        "_handed_out",
        "_root",
        "blocks",
        "hooks",
        "owner",
        "undo",
        "warned",
    )

    def __init__(self, database: Database, *, readonly: bool) -> None:
        self.database = database
        self.blocks: list[Block] = []
        self.hooks: list[Hook] = []
        self.owner = Owner()
        self.undo = UndoLog()
        self.warned = self._handed_out = False
        self._root: RootTransaction | None = None
        self._connection = database.spares.connect(database.engine)
        try:
            self._begin(readonly)
            self._root = self._connection.get_transaction()
            listened = database.listened(self._connection)
            self.cursor = None if listened else self._connection.connection.cursor()
        except BaseException:
            self._connection.close()
            raise
        watch(self)

    def __enter__(self) -> Transaction:
        if self.owner.thread != get_ident():
            self.owner.check(self.database.alias)
        if self._handed_out and (ended := self.ended_elsewhere()) is not None:
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

    def keep(self, image: Image) -> None:
        """As for any channel: until the block ends."""
        self.undo.record(image)

    def hand_out(self) -> Connection:
        """The connection, for statements that are not ours; in a doomed block it raises `TransactionError`."""
        self._handed_out = True
        return self.connection

    def ended_elsewhere(self) -> TransactionError | None:
        """What to raise where somebody has ended the transaction through the connection that was handed out."""
        connection, root = self.connection, self._root
        if (
            connection.closed
            or root is None
            or connection.get_transaction() is not root
            or not root.is_active
        ):
            return TransactionError(f"the block on {self.database.alias!r} was ended through its connection")
        return None

    def doom(self, error: BaseException) -> None:
        """Let the innermost block end in a rollback only, because of *error*."""
        if not self.blocks or self.blocks[-1].doomed_by is not None:
            return
        self.blocks[-1].doomed_by = error
        if self._handed_out:
            event.listen(self.connection, "before_cursor_execute", self._refuse)

    def translated(self, error: BaseException, sql: str, parameters: Any) -> BaseException:
        """As for any channel; the innermost block is doomed."""
        error = super().translated(error, sql, parameters)
        self.doom(error)
        return error

    def commit(self) -> None:
        """Commit and close. `CommitOutcomeUnknown` where nobody can know; else a failure has rolled back."""
        try:
            self.connection.commit()
        except Exception as error:
            if isinstance(error, DBAPIError) and error.connection_invalidated:
                self._close()
                raise CommitOutcomeUnknown(
                    f"the connection to {self.database.alias!r} was lost while COMMIT ran"
                ) from error
            self.roll_back()
            raise
        except BaseException:
            self.connection.invalidate()
            self._close()
            raise
        self._close()

    def roll_back(self) -> None:
        """Roll back and close; the instances are as they were before."""
        try:
            self.connection.rollback()
        except Exception as error:  # noqa: BLE001 the error that led here matters more; the connection is dropped
            _log.debug("rollback on %r failed: %s", self.database.alias, error)
            if not self.connection.closed:
                self.connection.invalidate()
        finally:
            self._close()
            self.undo.roll_back()

    def before_fork(self) -> None:
        """Nothing to do."""

    def after_fork(self) -> None:
        """In the child: let go without a word to the server, which still serves the parent."""
        connection, self.cursor, self._connection = self._connection, None, None
        self.owner.after_fork()
        if connection is None:
            return
        if self.database.is_memory:
            # The fork has copied the database, and its locks: nobody else will ever free this one.
            connection.close()
            return
        with suppress(SQLAlchemyError):  # it had lost its connection before
            connection.detach()
        _inherited.append(connection)

    def _begin(self, readonly: bool) -> None:
        connection, dialect = self.connection, self.database.dialect
        if self.database.commits_by_itself(connection.connection):
            raise ConfigurationError(
                f"the connections of {self.database.alias!r} commit each statement, and a block needs a transaction"
            )
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

    def _close(self) -> None:
        connection = self.connection
        self.cursor = self._connection = None
        forget(self)
        try:
            if (
                self.database.is_sqlite
                and self.blocks[0].readonly
                and not (connection.closed or connection.invalidated)
            ):
                connection.connection.cursor().execute("PRAGMA query_only=OFF")
        finally:
            connection.close()

    def _doomed(self, error: BaseException) -> TransactionError:
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
            if transaction.connection.invalidated:
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


_inherited: list[Connection] = []


class Borrowed(Transaction):
    """What is open on a connection that its owner commits and rolls back; blocks in it are savepoints."""

    __slots__ = ()

    def __init__(self, database: Database, connection: Connection | None) -> None:
        self.database = database
        self.blocks = []
        self.hooks = []
        self.owner = Owner()
        self.undo = UndoLog()
        self.warned = self._handed_out = False
        self._root = None
        self._connection = connection
        self.cursor = None

    def ended_elsewhere(self) -> TransactionError | None:
        """Never: its owner may end one transaction and begin another."""
        return None


class Closed(Borrowed):
    """What is open on an alias that nobody may use for a while."""

    __slots__ = ("why",)

    def __init__(self, database: Database, why: str) -> None:
        super().__init__(database, None)
        self.why = why

    def __enter__(self) -> NoReturn:
        raise TransactionError(f"{self.database.alias!r} cannot be used: {self.why}")


@contextmanager
def closed(databases: Any, why: str, but: tuple[str, ...] = ()) -> Iterator[None]:
    """Let nothing reach the databases in the `with` block, except the aliases in *but*: `TransactionError`, with *why*."""
    with ExitStack() as scopes:
        for alias in databases.aliases:
            if alias not in but:
                scopes.enter_context(_opened(databases, Closed(databases.database(alias), why)))
        yield


@contextmanager
def lent(databases: Any, aliases: tuple[str, ...], connection: Connection) -> Iterator[None]:
    """Let what models read and write in the `with` block go over *connection*, to the first of *aliases* by default.

    After an error instances are as they were before. Otherwise `on_commit` functions run at the end of the block,
    which comes after the owner's last commit.
    """
    borrowed = [Borrowed(databases.database(alias), connection) for alias in aliases]
    with ExitStack() as scopes:
        for transaction in borrowed:
            scopes.enter_context(_opened(databases, transaction))
        scopes.enter_context(Using(databases, aliases[0]))
        try:
            yield
        except BaseException:
            for transaction in borrowed:
                transaction.undo.roll_back()
            raise
    for transaction in borrowed:
        run_hooks(transaction.hooks)


def _opened(databases: Any, transaction: Transaction) -> Block:
    block = Block(Entrance(databases), transaction.database.alias, transaction, readonly=False)
    transaction.blocks.append(block)
    return block
