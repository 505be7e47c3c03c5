"""Blocks: what `atomic()` and `using()` open, and how it ends.

A scope belongs to the context in which it was entered. Whoever leaves it ends it: a generator may be closed by another
thread or task, or by the garbage collector. What has run outside of that context meanwhile was not in the scope, so this
is warned of (`ScopeWarning`).

A block of `atomic()` that is left commits or rolls back. Whatever an interrupt, such as Ctrl-C, has left half done is finished by
`abandon()`: before the COMMIT it rolls back, after it the functions that waited for the commit run.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from traceback import clear_frames
from types import TracebackType
from typing import TYPE_CHECKING, Any
from weakref import ref

from sqlalchemy import Connection

from microorm.db.context import BLOCK, USING, Scope, current_scope, open_scopes
from microorm.db.hooks import run_hooks
from microorm.db.owners import held_by_tasks, note_task, refuse_to_wait, running_task
from microorm.db.transaction import Forbidden, Transaction, how_to_go_on
from microorm.errors import TransactionError
from microorm.instrumentation import NOTHING, transaction_step, watchers
from microorm.messages import brief

if TYPE_CHECKING:
    import asyncio

_log = logging.getLogger("microorm.transactions")


class ScopeWarning(UserWarning):
    """A `using()` or `atomic()` block was left in another context than it was entered in.

    What ran outside of that context meanwhile was not in the block: not routed by it, or not part of its transaction.
    """


class _Exit:
    """The `__exit__` of a `ReusableContext`; a `with` statement that begins on it is noted."""

    def __get__(self, context: ReusableContext | None, owner: type[ReusableContext]) -> Any:
        if context is None:
            return owner.leave
        context.in_with = True
        return context.leave


class ReusableContext:
    """A context manager that opens a scope at each entry, so it can be reused, shared and nested in itself.

    *entered*: its scopes, each with the id of the frame of its `with`, in the order in which they were opened. An
    interrupt, such as Ctrl-C, may come in the first step of `__exit__`, before anything of it has run. So if a `with` has
    begun on the object, and the last reference to the object is gone, the scopes that are still open are ended.
    """

    __slots__ = ("entered", "in_with", "owner")

    def __init__(self, owner: object) -> None:
        self.owner = owner
        self.in_with = False
        self.entered: list[tuple[int, Any]] = []

    def leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Leave the scope, at the end of a `with`."""
        raise NotImplementedError

    if TYPE_CHECKING:

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None: ...

    else:
        __exit__ = _Exit()

    def __del__(self) -> None:
        if getattr(self, "in_with", False):  # missing if the interrupt came in `__init__`
            for _, scope in self.entered:
                scope.abandon()

    def leaving(self, frame: int) -> Any:
        """Return the scope that the `with` of *frame*, an id, has opened, which may have ended; None if it has opened none.

        The frame is not enough if a function such as `ExitStack.enter_context` has entered. The scopes that are open here
        are not if a generator is closed in another context than the one it was started in.
        """
        entered = self.entered[::-1]
        if entered and entered[0][0] == frame and entered[0][1] is current_scope():
            return entered[0][1]
        here = [*open_scopes(self.owner)]
        for entries in ([entry for entry in entered if entry[0] == frame], entered):
            for _, scope in entries:
                if scope in here:
                    return scope
            if len(entries) == 1:
                return entries[0][1]
        return None

    def left(self, scope: Scope) -> None:
        """Forget *scope*, which has ended."""
        self.entered[:] = [entry for entry in self.entered if entry[1] is not scope]


_HOW_TO_USE = (
    "what ran outside that context was not routed by it. A synchronous dependency of a web framework runs in a context of "
    "its own: write it as `async def`, or put the `with` into the function that uses the database"
)


def is_elsewhere(scope: Scope) -> bool:
    """Whether *scope* is still open and this thread or task is not in it."""
    if scope.closed or scope is current_scope():
        return False
    return scope not in open_scopes(scope.owner)


def warn_left_elsewhere(what: str, how: str) -> None:
    """Warn the caller's caller that *what* was left in another context than it was entered in; *how* to avoid it."""
    warnings.warn(
        f"{what} was left in another context than it was entered in: {how}; see the page 'Requests'",
        ScopeWarning,
        stacklevel=3,
    )


class Using(ReusableContext):
    """`with using(alias)`: route everything in the block to *alias*. Reusable, in several threads at once as well."""

    __slots__ = ("alias",)

    kind = USING
    name = "using"

    def __init__(self, owner: object, alias: str) -> None:
        super().__init__(owner)
        self.alias = alias

    def __enter__(self) -> None:
        scope = Scope(self.kind, self.owner, self.alias)
        self.entered.append((id(sys._getframe(1)), scope))
        scope.open()

    def leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """End the scope."""
        if (scope := self.leaving(id(sys._getframe(1)))) is not None:
            elsewhere = is_elsewhere(scope)
            scope.close()
            self.left(scope)
            if elsewhere:
                warn_left_elsewhere(f"{self.name}({self.alias!r})", _HOW_TO_USE)


class AtomicBlock(Scope):
    """An entered `atomic()`: the whole transaction, a savepoint in it, or a part of the surrounding block."""

    __slots__ = ("doomed_by", "hooks_before", "nested", "readonly", "savepoint", "task", "transaction")

    transaction: Transaction

    def __init__(
        self, owner: object, alias: str, transaction: Transaction, *, readonly: bool = False
    ) -> None:
        # The attributes of `Scope`, too, in one call, since each save with a receiver makes a block.
        self.kind = BLOCK
        self.owner = owner
        self.alias = alias
        self.closed = self.plain = self.of_test = False
        self.parent: Scope | None = None
        self.transaction = transaction
        self.readonly = readonly or (bool(transaction.blocks) and transaction.readonly)
        self.doomed_by: BaseException | None = None
        self.hooks_before = len(transaction.hooks)
        self.savepoint: str | None = None
        self.nested: Any = None
        self.task: ref[asyncio.Task[Any]] | None = None

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

    def end_with_task(self) -> None:
        """Roll this block back if the running task is cancelled and leaves it open: nothing can use it after that."""
        task = running_task()
        if task is not None:
            self.task = ref(
                task
            )  # a task that is dropped has this block open, and must not be kept alive by it
            task.add_done_callback(self._task_done)
            loop: Any = self.transaction.home
            loop.blocks.add(self)

    def leave_task(self) -> None:
        """Undo `end_with_task`, at the end of the block."""
        if self.task is not None:
            if (task := self.task()) is not None:
                task.remove_done_callback(self._task_done)
            loop: Any = self.transaction.home
            loop.blocks.discard(self)
            self.task = None

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self.leave_task()
        if task.cancelled():
            self.abandon_left_open(f"the task {task.get_name()!r} was cancelled")

    def abandon_left_open(self, why: str) -> None:
        """Roll this block back if it is still open, and log *why*."""
        if not self.closed:
            _log.warning("a block on %r was left open, and is rolled back: %s", self.alias, why)
            self.abandon()

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
        transaction.report()
        if not transaction.committed:
            transaction.hooks.clear()
        if transaction.hooks:
            run_hooks(transaction.hooks, self.alias, error)
        transaction.blocks.clear()

    def _fail(self, error: BaseException | None) -> None:
        """Roll back, or doom the block that this one has joined. Raises `TransactionError` unless *error* is on its way."""
        transaction, cause = self.transaction, self.doomed_by
        if cause is not None and transaction.lost:
            # A cursor in its frames would keep an SQLite file locked, although the connection is closed.
            clear_frames(cause.__traceback__)
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
                f"{how_to_go_on(cause)}"
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
        with self._step("SAVEPOINT", name):
            if transaction.cursor is None:
                self.nested = transaction.database.complete(transaction.connection.begin_nested)
            else:
                self._run("SAVEPOINT", name)
        transaction.undo.push()
        self.savepoint = name

    def _release(self) -> None:
        """Release the savepoint, and keep its changes."""
        try:
            with self._step("RELEASE SAVEPOINT", self.savepoint):
                if self.nested is not None:
                    self.transaction.database.complete(self.nested.commit)
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
                with self._step("ROLLBACK TO SAVEPOINT", self.savepoint):
                    if self.nested is not None:
                        transaction.database.complete(self.nested.rollback)
                    else:
                        self._run("ROLLBACK TO SAVEPOINT", self.savepoint)
                        self._run("RELEASE SAVEPOINT", self.savepoint)
        except Exception as failure:
            return self.doomed_by or failure
        finally:
            transaction.undo.roll_back()
        return error if transaction.lost else None

    def _step(self, verb: str, savepoint: str | None) -> AbstractContextManager[object]:
        return transaction_step(self.alias, f"{verb} {savepoint}") if watchers else NOTHING

    def _run(self, verb: str, savepoint: str | None) -> None:
        transaction, sql = self.transaction, f"{verb} {savepoint}"
        try:
            transaction.database.complete(partial(transaction.cursor.execute, sql))
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
        transaction.report()
        run_hooks(transaction.hooks, transaction.database.alias)


@contextmanager
def _opened(databases: Any, transaction: Transaction) -> Iterator[AtomicBlock]:
    block = AtomicBlock(databases, transaction.database.alias, transaction)
    transaction.blocks.append(block)
    with block:
        yield block
