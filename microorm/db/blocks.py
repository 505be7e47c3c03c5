"""Blocks: what `atomic()` opens, and how it ends.

A block that is left commits or rolls back. Whatever an interrupt, such as Ctrl-C, has left half done is finished by
`abandon()`: before the COMMIT it rolls back, after it the functions that waited for the commit run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from sqlalchemy import Connection

from microorm.db.context import BLOCK, Scope, held_by_tasks, note_task, refuse_to_wait, run_hooks
from microorm.db.reusable import Using
from microorm.db.transaction import Forbidden, Transaction
from microorm.errors import TransactionError
from microorm.messages import brief


class AtomicBlock(Scope):
    """An entered `atomic()`: the whole transaction, a savepoint in it, or a part of the surrounding block."""

    __slots__ = ("doomed_by", "hooks_before", "nested", "readonly", "savepoint", "transaction")

    transaction: Transaction

    def __init__(
        self, owner: object, alias: str, transaction: Transaction, *, readonly: bool = False
    ) -> None:
        # The attributes of `Scope`, too, in one call, since each save with a receiver makes a block.
        self.kind = BLOCK
        self.owner = owner
        self.alias = alias
        self.closed = self.plain = False
        self.parent: Scope | None = None
        self.transaction = transaction
        self.readonly = readonly or (bool(transaction.blocks) and transaction.readonly)
        self.doomed_by: BaseException | None = None
        self.hooks_before = len(transaction.hooks)
        self.savepoint: str | None = None
        self.nested: Any = None

    def begin(self) -> None:
        """Begin the transaction with this block. After an error nothing is open."""
        transaction = self.transaction
        try:
            transaction.blocks.append(self)
            if held_by_tasks and not self.readonly:
                refuse_to_wait(transaction.database)
            transaction.begin(readonly=self.readonly)
            if transaction.owner.thread is None:
                note_task(transaction)
            self.open()
        except BaseException:
            self.abandon()
            raise

    def join(self, *, savepoint: bool) -> None:
        """Begin this block inside the innermost of the transaction, with a *savepoint* or as a part of it."""
        transaction = self.transaction.__enter__()
        try:
            transaction.blocks.append(self)
            if savepoint:
                self._begin_savepoint()
            self.open()
        except BaseException as error:
            self.doomed_by = self.doomed_by or error
            self.abandon()
            raise

    def end(self, error: BaseException | None) -> None:
        """Commit, or release the savepoint; roll back if there is an *error*, or an earlier one has doomed the block.

        Raises `TransactionError` for a doomed block unless *error* is on its way already.
        """
        transaction = self.transaction
        try:
            while (inner := transaction.blocks[-1]) is not self:
                inner._end_with(self, error)
            self.close()
            if self.doomed_by is None and transaction.handed_out:
                self.doomed_by = transaction.ended_elsewhere()
            if error is None and self.doomed_by is None:
                self._succeed()
            else:
                self._fail(error)
        except BaseException as failure:
            self.abandon(failure)
            raise

    def abandon(self, error: BaseException | None = None) -> None:
        """Finish what the interrupt *error* has left: roll back, or after the commit run the functions that wait for it."""
        transaction = self.transaction
        if self not in transaction.blocks:
            self.close()
            return
        while (inner := transaction.blocks[-1]) is not self:
            inner.abandon()
        self.close()
        if transaction.settled:
            transaction.give_up()
            self._finish_commit(error)
        else:
            self._fail(self.doomed_by or TransactionError(f"the block on {self.alias!r} was interrupted"))

    def _succeed(self) -> None:
        transaction = self.transaction
        if transaction.blocks[0] is self:
            transaction.commit()
            self._finish_commit()
            return
        try:
            if self.savepoint is not None:
                self._release()
        except BaseException as error:
            transaction.blocks.pop()
            transaction.doom(error)
            raise
        transaction.blocks.pop()

    def _finish_commit(self, error: BaseException | None = None) -> None:
        """Run the functions that waited for the commit, unless its outcome is unknown; *error* is on its way already."""
        transaction = self.transaction
        if not transaction.committed:
            transaction.hooks.clear()
        if transaction.hooks:
            run_hooks(transaction.hooks, self.alias, error)
        transaction.blocks.clear()

    def _fail(self, error: BaseException | None) -> None:
        """Roll back, or doom the block that this one has joined. Raises `TransactionError` unless *error* is on its way."""
        transaction, cause = self.transaction, self.doomed_by
        if transaction.blocks[0] is self:
            try:
                transaction.roll_back()
            finally:
                transaction.blocks.clear()
                transaction.hooks.clear()
        else:
            doom = cause or error
            try:
                if self.savepoint is not None:
                    doom = self._roll_back_savepoint(doom)
            finally:
                transaction.blocks.pop()
                if doom is not None:
                    transaction.doom(doom)
        self.doomed_by = None  # it refers to the frames that refer to this block
        if error is None:
            raise TransactionError(
                f"the block on {self.alias!r} was rolled back because of an earlier error: {brief(cause)}"
            ) from cause

    def _end_with(self, outer: AtomicBlock, error: BaseException | None) -> None:
        """End this block, which an unfinished generator left open in *outer*, in the same way."""
        self.close()
        outer.doomed_by = outer.doomed_by or self.doomed_by
        if error is not None or outer.doomed_by is not None:
            self._fail(error or outer.doomed_by)
            return
        with suppress(Exception):  # it has doomed the outer block, which raises it
            self._succeed()

    def _begin_savepoint(self) -> None:
        """Set a savepoint, on the driver's cursor if there is one."""
        transaction = self.transaction
        name = f"microorm_{len(transaction.blocks) - 1}"
        if transaction.cursor is None:
            self.nested = transaction.connection.begin_nested()
        else:
            self._run("SAVEPOINT", name)
        transaction.undo.push()
        self.savepoint = name

    def _release(self) -> None:
        """Release the savepoint, and keep its changes."""
        try:
            if self.nested is not None:
                self.nested.commit()
            else:
                self._run("RELEASE SAVEPOINT", self.savepoint)
        finally:
            self.transaction.undo.release()

    def _roll_back_savepoint(self, error: BaseException | None) -> BaseException | None:
        """Roll back to the savepoint: rows, `on_commit` functions and instances.

        Returns the error that dooms the surrounding block if the savepoint was gone, else None.
        """
        transaction = self.transaction
        while len(transaction.hooks) > self.hooks_before:
            transaction.hooks.pop()
        try:
            if not transaction.lost:
                if self.nested is not None:
                    self.nested.rollback()
                else:
                    self._run("ROLLBACK TO SAVEPOINT", self.savepoint)
                    self._run("RELEASE SAVEPOINT", self.savepoint)
        except Exception as failure:
            return self.doomed_by or failure
        finally:
            transaction.undo.roll_back()
        return error if transaction.lost else None

    def _run(self, verb: str, savepoint: str | None) -> None:
        transaction, sql = self.transaction, f"{verb} {savepoint}"
        try:
            transaction.cursor.execute(sql)
        except BaseException as error:
            raise transaction.translated(error, sql, None)


def end_scopes(scopes: Iterable[Scope]) -> list[str]:
    """End those of *scopes* that are still open; roll their blocks back and return the aliases of these."""
    blocks = [scope for scope in scopes if isinstance(scope, AtomicBlock) and not scope.closed]
    for scope in scopes:
        if not isinstance(scope, AtomicBlock) and not scope.closed:
            scope.close()
    ended = []
    for block in sorted(blocks, key=lambda block: block.transaction.blocks.index(block)):
        if not block.closed:  # else it has ended with the surrounding block
            block.end(TransactionError(f"the block on {block.alias!r} was left open"))
            ended.append(block.alias)
    return ended


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
        run_hooks(transaction.hooks, transaction.database.alias)


@contextmanager
def _opened(databases: Any, transaction: Transaction) -> Iterator[AtomicBlock]:
    block = AtomicBlock(databases, transaction.database.alias, transaction)
    transaction.blocks.append(block)
    with block:
        yield block
