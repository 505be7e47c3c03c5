"""Atomic blocks: `atomic()`, and the unit of work of a single operation.

An `Atomic` begins a transaction or a savepoint when it is entered, and commits or rolls back when it is left. A
`UnitOfWork` runs the statements and receivers of one save, delete or bulk operation; after an error it restores the
instances that the operation has changed.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from microorm.db.aio import twins
from microorm.db.autocommit import WRITES, AutocommitConnection
from microorm.db.blocks import AtomicBlock, ReusableContext, is_elsewhere, warn_left_elsewhere
from microorm.db.engines.engine import Database
from microorm.db.snapshots import (
    Batch,
    Snapshot,
    SnapshotLog,
    apply_generated,
    apply_related,
    take_snapshot,
)
from microorm.db.transaction import Transaction, open_transaction
from microorm.dispatch.receivers import is_async
from microorm.errors import CommitOutcomeUnknown, TransactionError
from microorm.messages import brief

if TYPE_CHECKING:
    from microorm.db.databases import Databases

P = ParamSpec("P")
R = TypeVar("R")


_HOW_TO_HOLD = (
    "only what ran in that context was part of it. A synchronous dependency of a web framework runs in a context of its own: "
    "write `@atomic` on the function that uses the database"
)


class Atomic(ReusableContext):
    """A block that is committed as a whole or rolled back: a context manager and a decorator, reusable and re-entrant.

    On entry it begins a transaction if none is open on the alias. Inside a transaction it sets a savepoint, or joins the
    surrounding block if *savepoint* is False.
    """

    __slots__ = ("_durable", "_readonly", "_resolve", "_savepoint")

    def __init__(
        self,
        owner: object,
        resolve: Callable[[], Database],
        *,
        savepoint: bool = True,
        durable: bool = False,
        readonly: bool = False,
    ) -> None:
        super().__init__(owner)
        self._resolve = resolve
        self._savepoint = savepoint
        self._durable = durable
        self._readonly = readonly

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate *function*, so that each call, or each await of a coroutine function, runs in a block."""
        refuse_unfit(function)
        called: Any = function
        if is_async(function):

            @wraps(function)
            async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
                async with self._copy():
                    return await called(*args, **kwargs)

            return cast(Callable[P, R], awaited)

        @wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._copy():
                return function(*args, **kwargs)

        return wrapper

    def _copy(self) -> Atomic:
        """Return a block of its own for a call, which ends with it even if an interrupt skips its exit."""
        return Atomic(
            self.owner,
            self._resolve,
            savepoint=self._savepoint,
            durable=self._durable,
            readonly=self._readonly,
        )

    def __enter__(self) -> None:
        self._enter(id(sys._getframe(1)))

    def __aenter__(self) -> Awaitable[None]:
        """Begin the block, awaited."""
        return twins.run(self._enter, id(sys._getframe(1)))

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Awaitable[None]:
        """Commit or roll back, awaited; a coroutine that is being closed cannot await, so its connection is dropped."""
        frame = id(sys._getframe(1))
        if isinstance(error, GeneratorExit):
            self._leave(frame, error)
            return _nothing()
        return twins.run(self._leave, frame, error)

    def _enter(self, frame: int) -> None:
        database = self._resolve()
        transaction = open_transaction(self.owner, database.alias)
        new = transaction is None
        if transaction is not None and self._durable and not transaction.blocks[-1].of_test:
            raise TransactionError(f"a durable block on {database.alias!r} cannot be inside another")
        block = AtomicBlock(
            self.owner, database.alias, transaction or Transaction(database), readonly=self._readonly
        )
        try:
            self.entered.append((frame, block))
            if new:
                block.begin()
                if database.is_async:
                    block.end_with_task()
            else:
                block.join(savepoint=self._savepoint)
        except BaseException:
            block.abandon()
            self.left(block)
            raise

    def leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Commit, or roll back after an *error*, the block that a `with` is about to leave."""
        self._leave(id(sys._getframe(1)), error)

    def left(self, scope: Any) -> None:
        """Forget the block *scope*, which has ended."""
        super().left(scope)
        scope.leave_task()

    def _leave(self, frame: int, error: BaseException | None) -> None:
        block, elsewhere = None, False
        try:
            block = self._leaving(frame, error)
            if block is not None:
                database, home = block.transaction.database, block.transaction.home
                if error is None:
                    database.refuse_elsewhere(home)
                # The garbage collector closes the coroutines of a loop that is closed, outside of their contexts.
                elsewhere = is_elsewhere(block) and not database.is_over(home)
                block.end(error)
                self.left(block)
        except BaseException:
            block = block or self.leaving(frame)
            if block is not None:
                block.abandon()
                self.left(block)
            raise
        if elsewhere and block is not None:
            warn_left_elsewhere(f"the block on {block.alias!r}", _HOW_TO_HOLD)

    def _leaving(self, frame: int, error: BaseException | None) -> AtomicBlock | None:
        """Return the block to end; None if it has ended already, or belongs to the parent of this forked process.

        A block may be left by another thread or task than the one that entered it, which may be over: a generator is closed
        by whoever drops it.
        """
        block: AtomicBlock | None = self.leaving(frame)
        if block is None or block.closed:
            # It was open in an unfinished generator, and has ended with the surrounding block.
            if error is None:
                what = "the surrounding block"
                if block is not None and block.transaction.database.is_async:
                    what += ", its task or its event loop"
                raise TransactionError(f"this block has already ended, together with {what}")
            return None
        if block.transaction.owner.forked:
            block.close()
            self.left(block)
            return None
        return block


async def _nothing() -> None:
    pass


def refuse_unfit(function: Any) -> None:
    """Raise `TypeError` for a generator function, whose body runs after the call has returned."""
    if not callable(function):
        raise TypeError(f"atomic() decorates functions, not {brief(function)}")
    for called in (function, type(function).__call__):
        if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
            block = "async with" if inspect.isasyncgenfunction(called) else "with"
            raise TypeError(
                f"atomic() cannot decorate {brief(function)}: it is a generator function, which runs after the call; "
                f"write `{block} atomic():` inside it"
            )


class UnitOfWork:
    """Write completely or not at all, and restore the changed instances after an error.

    *database* and *transaction* may be set later, before `begin()`, which uses the open transaction, or begins one, or
    takes a connection for one statement. Set *dirty* before SQL or receivers run: from then on, an error also dooms the
    open block. Every unit ends with `succeed()`, or with `fail()`, which may follow on a `succeed()` that has raised.
    """

    __slots__ = ("_block", "_databases", "_snapshots", "channel", "database", "dirty", "transaction")

    channel: Any
    database: Any

    def __init__(
        self,
        databases: Databases,
        database: Any = None,
        transaction: Transaction | None = None,
        snapshot: Snapshot | None = None,
    ) -> None:
        self._databases = databases
        self.database = database
        self.transaction = transaction
        self._snapshots: list[Any] = [] if snapshot is None else [snapshot]
        self._block: AtomicBlock | None = None
        self.channel = None
        self.dirty = False

    def begin(self, *, several: bool = True) -> Any:
        """Return the channel to write to: the open transaction, a new one if *several*, or else a connection in autocommit.

        *several*: there will be more than one statement or snapshot. Raises `TransactionError` if the block is doomed.
        """
        transaction = self.transaction
        if transaction is None and several:
            transaction = Transaction(self.database)
            self._block = AtomicBlock(self._databases, self.database.alias, transaction)
            self._block.begin()
            self.channel = self.transaction = transaction  # which has just begun, and needs no check
            transaction.wrote = True
        else:
            # Known before it acquires a connection, so that it is given up even after an interrupt.
            self.channel = transaction or AutocommitConnection(self.database, WRITES)
            self.channel.__enter__()
        if several:
            for snapshot in self._snapshots:
                if snapshot[3]:  # values were replaced before there was a channel to remember it
                    self.channel.keep((*snapshot[:3], dict(snapshot[3])))
        return self.channel

    def check(self) -> None:
        """Raise `TransactionError` if a receiver has doomed the block."""
        if self.transaction is not None:
            self.transaction.__enter__()

    def snapshot(self, instance: Any) -> Snapshot:
        """Return a snapshot of *instance*, which is restored if an error leaves the unit."""
        snapshot = take_snapshot(instance)
        self._snapshots.append(snapshot)
        return snapshot

    def change(
        self,
        instance: Any,
        values: Mapping[str, Any],
        snapshot: Snapshot | None = None,
        *,
        related: Mapping[str, Any] | None = None,
    ) -> None:
        """Set *values* and cached *related* rows; a rollback restores *instance* from *snapshot*, or as it is now."""
        snapshot = take_snapshot(instance) if snapshot is None else snapshot
        apply_generated(instance, snapshot, dict(values))
        if related:
            apply_related(instance, snapshot, related)
        self._remember(snapshot)

    def forget(self, instance: Any, names: Iterable[str]) -> None:
        """Drop the loaded related rows *names* of *instance*; a rollback restores them."""
        snapshot = take_snapshot(instance)
        for name in names:
            if instance._related is not None and instance._related.get(name) is not None:
                apply_related(instance, snapshot, {name: None})
        if snapshot[3]:
            self._remember(snapshot)

    def keep_batch(self, batch: Batch) -> None:
        """Restore *batch* if an error leaves the unit, or the block is rolled back."""
        self.channel.undo.record_batch(batch)
        self._snapshots.append(batch)

    def succeed(self) -> None:
        """Commit what the unit has begun. Raises what the database and the `on_commit` functions raise."""
        if self._block is not None:
            self._block.end(None)
        elif self.transaction is None and self.channel is not None:
            self.channel.__exit__(None, None, None)

    def fail(self, error: BaseException, channel: Any = None, *, dirty: bool = False) -> None:
        """Roll back what the unit has begun, doom the open block, and restore the instances.

        *channel*: what a statement was to run on, if the unit has not begun it itself; *dirty*: it was ready. After a commit, or if its outcome is unknown, the instances stay as they are. Raises `CommitOutcomeUnknown` if
        *error* has interrupted a statement that is committed by itself.
        """
        if channel is not None:
            self.channel, self.dirty = channel, self.dirty or dirty
        if self._block is not None:
            transaction = self._block.transaction
            if not (transaction.settled or self._block.closed):
                self._block.end(error)
            if transaction.settled:
                return
        elif self.transaction is not None:
            if self.dirty:
                self.transaction.doom(error)
        elif self.channel is not None:
            self.channel.__exit__(type(error), error, error.__traceback__)
            if isinstance(error, CommitOutcomeUnknown):
                return
        log = SnapshotLog() if self.transaction is None else self.transaction.undo
        for snapshot in reversed(self._snapshots):
            log.undo(snapshot)

    def _remember(self, snapshot: Snapshot) -> None:
        # A copy, since the undo log of the transaction merges the snapshots of one instance.
        self.channel.keep((*snapshot[:3], dict(snapshot[3])))
        self._snapshots.append(snapshot)


@contextmanager
def unit_of_work(databases: Databases, database: Database, *, begin: bool = True) -> Iterator[UnitOfWork]:
    """Open a unit of several statements, in the open block on *database* or in a new transaction.

    *begin*: call its `begin()`. Raises `TransactionError` if the block is doomed or read-only.
    """
    work = UnitOfWork(databases, database, databases.usable(database, writes=True))
    try:
        if begin:
            work.begin()
        yield work
        work.succeed()
    except BaseException as error:
        work.fail(error)
        raise
