"""Atomic blocks: `atomic()`, and the unit of work of a single operation.

An `Atomic` begins a transaction or a savepoint when it is entered, and commits or rolls back when it is left. A
`UnitOfWork` runs the statements and receivers of one save, delete or bulk operation; after an error it restores the
instances that the operation has changed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from microorm.db.connection import AutocommitConnection
from microorm.db.context import ReusableContext, Scope, current_scope, run_hooks
from microorm.db.engine import Database
from microorm.db.snapshots import Batch, Snapshot, apply_generated, apply_related, restore, take_snapshot
from microorm.db.transaction import AtomicBlock, Transaction, open_transaction
from microorm.errors import CommitOutcomeUnknown, TransactionError
from microorm.messages import brief

if TYPE_CHECKING:
    from microorm.db.databases import Databases

P = ParamSpec("P")
R = TypeVar("R")


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
        """Decorate *function*, so that each call runs in a block."""
        refuse_unfit(function)

        @wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return wrapper

    def __enter__(self) -> None:
        database = self._resolve()
        alias, transaction = database.alias, open_transaction(self.owner, database.alias)
        if transaction is None:
            transaction = Transaction.begin(database, readonly=self._readonly)
            block = AtomicBlock(self, alias, transaction, readonly=self._readonly)
        else:
            if self._durable:
                raise TransactionError(f"a durable block on {alias!r} cannot be inside another")
            with transaction:
                block = AtomicBlock(self, alias, transaction, readonly=self._readonly)
                if self._savepoint:
                    block.begin_savepoint()
        transaction.blocks.append(block)
        block.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        block = self.leaving()
        if block is None:
            # It was open in an unfinished generator, and has ended with the surrounding block.
            if error is None:
                raise TransactionError("this block has already ended, together with the surrounding block")
            return
        if block.transaction.owner.forked:
            block.close()
            return
        block.transaction.owner.check(block.alias)
        _end(block, error)


def end_scopes(scopes: Iterable[Scope]) -> list[str]:
    """End those of *scopes* that are still open; roll their blocks back and return the aliases of these."""
    blocks = [scope for scope in scopes if isinstance(scope, AtomicBlock) and not scope.closed]
    for scope in scopes:
        if not isinstance(scope, AtomicBlock) and not scope.closed:
            scope.close()
    ended = []
    for block in sorted(blocks, key=lambda block: block.transaction.blocks.index(block)):
        if not block.closed:  # else it has ended with the surrounding block
            _end(block, TransactionError(f"the block on {block.alias!r} was left open"))
            ended.append(block.alias)
    return ended


def _end(block: AtomicBlock, error: BaseException | None) -> None:
    while (inner := block.transaction.blocks[-1]) is not block:
        _end_left_open(inner, block, error)
    block.close()
    if block.doomed_by is None and block.transaction.handed_out:
        block.doomed_by = block.transaction.ended_elsewhere()
    if error is None and block.doomed_by is None:
        _succeed(block)
    else:
        _fail(block, error)


def _end_left_open(inner: AtomicBlock, outer: AtomicBlock, error: BaseException | None) -> None:
    """End *inner*, which an unfinished generator left open, in the same way as *outer*."""
    inner.close()
    outer.doomed_by = outer.doomed_by or inner.doomed_by
    if error is not None or outer.doomed_by is not None:
        _fail(inner, error or outer.doomed_by)
        return
    with suppress(Exception):  # it has doomed the outer block, which raises it
        _succeed(inner)


def _succeed(block: AtomicBlock) -> None:
    transaction = block.transaction
    if block.outermost:
        try:
            transaction.commit()
        finally:
            transaction.blocks.clear()
        if transaction.hooks:
            run_hooks(transaction.hooks)
        return
    try:
        if block.savepoint is not None:
            block.release()
    except BaseException as error:
        transaction.blocks.pop()
        transaction.doom(error)
        raise
    transaction.blocks.pop()


def _fail(block: AtomicBlock, error: BaseException | None) -> None:
    """Roll *block* back, or doom the block that it has joined. Raises `TransactionError` unless *error* is on its way."""
    transaction, cause = block.transaction, block.doomed_by
    if block.outermost:
        try:
            transaction.roll_back()
        finally:
            transaction.blocks.clear()
            transaction.hooks.clear()
    else:
        doom = cause or error
        try:
            if block.savepoint is not None:
                doom = _roll_back_savepoint(block, doom)
        finally:
            transaction.blocks.pop()
            if doom is not None:
                transaction.doom(doom)
    if error is None:
        raise TransactionError(
            f"the block on {block.alias!r} was rolled back because of an earlier error: {brief(cause)}"
        ) from cause


def _roll_back_savepoint(block: AtomicBlock, error: BaseException | None) -> BaseException | None:
    """Roll back to the savepoint of *block*, which *error* ends.

    Returns the error that dooms the surrounding block if the savepoint was gone, else None.
    """
    try:
        block.roll_back()
    except Exception as failure:  # noqa: BLE001 doomed_by, a deadlock for example, explains it better
        return block.doomed_by or failure
    return error if block.transaction.lost else None


def refuse_unfit(function: Any) -> None:
    """Raise `TypeError` for a coroutine or generator function, whose body runs after the call has returned."""
    if not callable(function):
        raise TypeError(f"atomic() decorates functions, not {brief(function)}")
    for called in (function, type(function).__call__):
        if inspect.iscoroutinefunction(called):
            raise TypeError(f"atomic() cannot decorate {brief(function)}: it is a coroutine function")
        if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
            raise TypeError(
                f"atomic() cannot decorate {brief(function)}: it is a generator function, which runs after the call; "
                "write `with atomic():` inside it"
            )


class UnitOfWork:
    """Write completely or not at all, and restore the changed instances after an error.

    A context manager. *database* and *transaction* may be set later, before `begin()`, which uses the open transaction,
    or begins one, or takes a connection for one statement. Set *dirty* before SQL or receivers run: from then on, an
    error also dooms the open block.
    """

    __slots__ = ("_block", "_databases", "_snapshots", "channel", "database", "dirty", "transaction")

    channel: Any
    database: Any

    def __init__(
        self,
        databases: Databases,
        database: Any = None,
        transaction: Transaction | None = None,
        *snapshots: Snapshot,
    ) -> None:
        self._databases = databases
        self.database = database
        self.transaction = transaction
        self._snapshots: list[Any] = [*snapshots]
        self._block: Atomic | None = None
        self.channel = None
        self.dirty = False

    def begin(self, *, several: bool = True) -> Any:
        """Return the channel to write to: the open transaction, a new one if *several*, or else a connection in autocommit.

        Raises `TransactionError` if the block is doomed.
        """
        transaction = self.transaction
        if transaction is None and several:
            block = self._databases.block(self.database)
            block.__enter__()
            self._block = block
            transaction = self.transaction = current_scope().transaction
        if transaction is not None:
            self.channel = transaction.__enter__()
        else:
            self.channel = AutocommitConnection(self.database, writes=True)
        for snapshot in self._snapshots:
            if snapshot[3]:  # values were replaced before there was a channel to remember it
                self.channel.keep((*snapshot[:3], dict(snapshot[3])))
        return self.channel

    def check(self) -> None:
        """Raise `TransactionError` if a receiver has doomed the block."""
        self.channel.__enter__()

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

    def _remember(self, snapshot: Snapshot) -> None:
        # A copy, since the undo log of the transaction merges the snapshots of one instance.
        self.channel.keep((*snapshot[:3], dict(snapshot[3])))
        self._snapshots.append(snapshot)

    def __enter__(self) -> UnitOfWork:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self.dirty and self.channel is not None:
            self.channel.doom(error)
        try:
            if self._block is not None:
                self._block.__exit__(kind, error, trace)
            elif self.transaction is None and self.channel is not None:
                self.channel.__exit__(kind, error, trace)
        except CommitOutcomeUnknown:
            raise  # the instances stay as they were saved
        except BaseException:
            if self._block is None:  # else its rollback has restored them, unless it was committed
                self._restore()
            raise
        if error is not None:
            self._restore()

    def _restore(self) -> None:
        for snapshot in reversed(self._snapshots):
            if snapshot.__class__ is Batch:
                snapshot.restore()
            else:
                restore(snapshot)


@contextmanager
def unit_of_work(databases: Databases, database: Database) -> Iterator[UnitOfWork]:
    """Begin a unit of several statements, in the open block on *database* or in a new transaction.

    Raises `TransactionError` if the block is doomed or read-only.
    """
    with UnitOfWork(databases, database, databases.usable(database, writes=True)) as work:
        work.begin()
        yield work
