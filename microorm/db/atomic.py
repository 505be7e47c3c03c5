"""Blocks: `atomic()`, what happens when it is entered, and how it ends.

Units: several writes that happen together or not at all, and what they change in instances meanwhile.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from microorm.db.connection import Lone
from microorm.db.context import Entrance, Scope, latest, run_hooks
from microorm.db.engine import Database
from microorm.db.snapshots import Batch, Image, apply_generated, image_of, restore
from microorm.db.transaction import Block, Transaction, open_transaction
from microorm.errors import CommitOutcomeUnknown, TransactionError
from microorm.fields.field import MISSING

if TYPE_CHECKING:
    from microorm.db.databases import Databases

P = ParamSpec("P")
R = TypeVar("R")


class Atomic(Entrance):
    """A block that is done whole or not at all: a context manager and a decorator, reusable and re-entrant.

    What it does depends on the alias's state when it is entered (CONTRACT O1 to O5): with nothing open it begins
    a transaction; inside one it sets a savepoint, or with `savepoint=False` joins the block around it.
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
        """Decorate *function*: each call of it is such a block."""
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
            block = Block(self, alias, transaction, readonly=self._readonly)
        else:
            if self._durable:
                raise TransactionError(f"a durable block on {alias!r} cannot be inside another")
            with transaction:
                block = Block(self, alias, transaction, readonly=self._readonly)
                if self._savepoint:
                    block.begin_savepoint()
        transaction.blocks.append(block)
        block.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        block = self.leaving()
        if block is None:
            # The block around it has ended, and this one with it: a generator was left open.
            if error is None:
                raise TransactionError("this block has ended already, with the one around it")
            return
        if block.transaction.owner.forked:
            block.close()
            return
        block.transaction.owner.check(block.alias)
        _end(block, error)


def end_scopes(scopes: Iterable[Scope]) -> list[str]:
    """End those of *scopes* that somebody left open; blocks are rolled back, and their aliases returned."""
    blocks = [scope for scope in scopes if isinstance(scope, Block) and not scope.closed]
    for scope in scopes:
        if not isinstance(scope, Block) and not scope.closed:
            scope.close()
    ended = []
    for block in sorted(blocks, key=lambda each: each.transaction.blocks.index(each)):
        if not block.closed:  # else it has ended with the one around it
            _end(block, TransactionError(f"the block on {block.alias!r} was left open"))
            ended.append(block.alias)
    return ended


def _end(block: Block, error: BaseException | None) -> None:
    while (inner := block.transaction.blocks[-1]) is not block:
        _end_left_open(inner, block, error)
    block.close()
    if block.doomed_by is None and block.transaction.handed_out:
        block.doomed_by = block.transaction.ended_elsewhere()
    if error is None and block.doomed_by is None:
        _succeed(block)
    else:
        _fail(block, error)


def _end_left_open(inner: Block, around: Block, error: BaseException | None) -> None:
    """End a block that a generator left open: it shares the fate of the one *around* it."""
    inner.close()
    around.doomed_by = around.doomed_by or inner.doomed_by
    if error is not None or around.doomed_by is not None:
        _fail(inner, error or around.doomed_by)
        return
    with suppress(Exception):  # it has doomed the block around, and is raised there
        _succeed(inner)


def _succeed(block: Block) -> None:
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


def _fail(block: Block, error: BaseException | None) -> None:
    """Roll *block* back, or doom the one that it has joined; without an *error* raise what happened."""
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
                doom = _undone(block, doom)
        finally:
            transaction.blocks.pop()
            if doom is not None:
                transaction.doom(doom)
    if error is None:
        raise TransactionError(
            f"the block on {block.alias!r} was rolled back, since an error had doomed it: {cause!r}"
        ) from cause


def _undone(block: Block, error: BaseException | None) -> BaseException | None:
    """Roll back to the savepoint; what dooms the block around, if the database had forgotten the savepoint.

    *error* is what ends the block.
    """
    try:
        block.roll_back()
    except Exception as failure:  # noqa: BLE001 a deadlock, say, that rolled back everything: it says more
        return block.doomed_by or failure
    return error if block.transaction.lost else None


def refuse_unfit(function: Any) -> None:
    """Raise `TypeError` unless *function* has done its work when it returns."""
    if not callable(function):
        raise TypeError(f"atomic() wants a function, not {function!r}")
    for each in (function, type(function).__call__):
        if inspect.iscoroutinefunction(each):
            raise TypeError(f"atomic() runs functions, and {function!r} is a coroutine function")
        if inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each):
            raise TypeError(f"atomic() would end before {function!r}, a generator function, has run")


class UnitOfWork:
    """Writes that happen together or not at all, and the instances that they change.

    A context manager. *database* and *transaction*, where they go, may be set later, before `begin()`, which takes the open transaction, or else opens one, or a connection for one statement.
    An error that leaves the unit puts the instances back; once the unit is *dirty*, when a receiver or SQL of it may
    have run, the error dooms the open block as well.
    """

    __slots__ = ("_block", "_databases", "_snapshots", "channel", "database", "dirty", "transaction")

    channel: Any
    database: Any

    def __init__(
        self,
        databases: Databases,
        database: Any = None,
        transaction: Transaction | None = None,
        *snapshots: Image,
    ) -> None:
        self._databases = databases
        self.database = database
        self.transaction = transaction
        self._snapshots: list[Any] = [*snapshots]
        self._block: Atomic | None = None
        self.channel = None
        self.dirty = False

    def begin(self, *, several: bool = True) -> Any:
        """Begin to write: in the open transaction, or in one of its own if there are *several* statements.

        Returns the channel. Raises `TransactionError` where the block is doomed.
        """
        transaction = self.transaction
        if transaction is None and several:
            block = self._databases.block(self.database)
            block.__enter__()
            self._block = block
            transaction = self.transaction = latest().transaction
        if transaction is not None:
            self.channel = transaction.__enter__()
        else:
            self.channel = Lone(self.database, writes=True)
        for snapshot in self._snapshots:
            if snapshot[3]:  # values were replaced before there was a channel to remember it
                self.channel.keep((*snapshot[:3], dict(snapshot[3])))
        return self.channel

    def check(self) -> None:
        """Raise `TransactionError` where a receiver has doomed the block."""
        self.channel.__enter__()

    def snapshot(self, instance: Any) -> Image:
        """Return what *instance* is now, to be put back if an error leaves the unit."""
        snapshot = image_of(instance)
        self._snapshots.append(snapshot)
        return snapshot

    def change(self, instance: Any, values: Mapping[str, Any], image: Image | None = None) -> None:
        """Give *instance* the *values*, until a rollback, which makes it what it is now, or in *image*."""
        image = image_of(instance) if image is None else image
        apply_generated(instance, image, dict(values))
        self._remember(image)

    def forget(self, instance: Any, names: Iterable[str]) -> None:
        """Drop the rows that *instance* knows as related by *names*, until a rollback."""
        image = image_of(instance)
        for name in names:
            if (known := instance.__dict__.pop(name, MISSING)) is not MISSING:
                image[3][name] = (known, MISSING)
        if image[3]:
            self._remember(image)

    def keep_batch(self, batch: Batch) -> None:
        """Remember *batch* for an error that leaves the unit, and for a rollback of the block."""
        self.channel.undo.record_batch(batch)
        self._snapshots.append(batch)

    def _remember(self, image: Image) -> None:
        # The transaction makes one image of several of an instance, so that this list has images of its own.
        self.channel.keep((*image[:3], dict(image[3])))
        self._snapshots.append(image)

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
            if self._block is None:  # else its rollback has put them back, unless it was committed
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
    """Begin a unit of several statements: in the block that is open on *database*, or in a transaction of its own.

    Raises `TransactionError` where the block is doomed or read-only.
    """
    with UnitOfWork(databases, database, databases.usable(database, writes=True)) as work:
        work.begin()
        yield work
