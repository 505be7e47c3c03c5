"""Transactions: `atomic` blocks, what runs after a commit, and what a rollback puts back.

One `Transaction` per alias and thread or task: the outermost block opens it, nested ones are savepoints in
it. A block is doomed by the first error in it; a doomed block cannot end well (CONTRACT O, DESIGN 8).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
import weakref
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from sqlalchemy.exc import DBAPIError

from microorm.channels import Channel
from microorm.engines import BEGIN, TRANSACTION, Database
from microorm.errors import CommitOutcomeUnknown, TransactionError, TransactionSharedError
from microorm.scopes import BLOCK, Scope, open_block, open_scopes
from microorm.undo import UndoLog

P = ParamSpec("P")
R = TypeVar("R")
Hook = tuple[Callable[[], Any], bool]

_log = logging.getLogger("microorm.transactions")
_inherited: list[Any] = []


class _Process:
    """A token of this process: a fork replaces it, so that inherited transactions are known for what they are."""

    token = object()


def _forked() -> None:
    _Process.token = object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def running_task() -> asyncio.Task[Any] | None:
    """The task that is running in this thread, if any."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


class Owner:
    """The thread or task that a transaction belongs to; one that has ended hands over to whoever comes."""

    __slots__ = ("_process", "_task", "_thread", "_thread_id")

    def __init__(self) -> None:
        self._take()

    def _take(self) -> None:
        self._process = _Process.token
        self._thread = threading.current_thread()
        self._thread_id = threading.get_ident()
        task = running_task()
        self._task = weakref.ref(task) if task is not None else None

    @property
    def forked(self) -> bool:
        """Whether the transaction was inherited through a fork."""
        return self._process is not _Process.token

    def check(self, alias: str) -> None:
        """Raise `TransactionSharedError` unless this thread and task may use the transaction."""
        if self._process is _Process.token and self._thread_id == threading.get_ident():
            if self._task is None:
                return
            owner = self._task()
            if owner is None or owner.done() or owner is running_task():
                return
        elif not self.forked and not self._thread.is_alive():
            self._take()
            return
        whose = "process" if self.forked else "thread" if self._thread_id != threading.get_ident() else "task"
        raise TransactionSharedError(f"the open block on {alias!r} belongs to another {whose}")


class Transaction(Channel):
    """What is open on one alias: a connection, its blocks, hooks and before-images."""

    __slots__ = ("__weakref__", "blocks", "hooks", "owner", "undo", "warned")

    def __init__(self, database: Database, *, readonly: bool) -> None:
        self.database = database
        self.blocks: list[Block] = []
        self.hooks: list[Hook] = []
        self.owner = Owner()
        self.undo = UndoLog()
        self.warned = False
        self._connection = database.engine.connect()
        try:
            self._begin(readonly)
            listened = database.listened(self._connection)
            self.cursor = None if listened else self._connection.connection.cursor()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Transaction:
        self.owner.check(self.database.alias)
        if (error := self.blocks[-1].doomed_by) is not None:
            raise TransactionError(
                f"the block on {self.database.alias!r} is doomed by an earlier error: {error!r}"
            ) from error
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    @property
    def readonly(self) -> bool:
        """Whether the innermost block, or one around it, is for reading only."""
        return self.blocks[-1].readonly

    def doom(self, error: BaseException) -> None:
        """Let the innermost block end in a rollback only, because of *error*."""
        if self.blocks and self.blocks[-1].doomed_by is None:
            self.blocks[-1].doomed_by = error

    def translated(self, error: BaseException, sql: str, parameters: Any) -> BaseException:
        """As for any channel; the innermost block is doomed."""
        error = super().translated(error, sql, parameters)
        self.doom(error)
        return error

    def _begin(self, readonly: bool) -> None:
        connection, dialect = self.connection, self.database.dialect
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

    def commit(self) -> None:
        """Commit and close. `CommitOutcomeUnknown` where nobody can know; else a failure has rolled back."""
        try:
            self.connection.commit()
        except DBAPIError as error:
            if error.connection_invalidated:
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
            self.connection.invalidate()
        finally:
            self._close()
            self.undo.roll_back()

    def abandon(self) -> None:
        """Let go without a word to the server: the connection is the parent process's."""
        # Kept for good: a connection that is collected says goodbye to a server that still serves the parent.
        _inherited.append(self.connection)
        self._connection = None

    def _close(self) -> None:
        connection = self.connection
        self.cursor = self._connection = None
        if self.database.is_sqlite and self.blocks and self.blocks[0].readonly and not connection.invalidated:
            connection.exec_driver_sql("PRAGMA query_only=OFF")
        connection.close()


class Block(Scope):
    """One `with atomic()` in progress: the whole transaction, a savepoint in it, or neither of its own."""

    __slots__ = ("atomic", "doomed_by", "hooks_before", "nested", "readonly", "savepoint", "transaction")

    def __init__(self, atomic: Atomic, alias: str, transaction: Transaction, *, readonly: bool) -> None:
        super().__init__(BLOCK, atomic.owner, alias)
        self.atomic = atomic
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
        if self.nested is not None:
            self.nested.commit()
        else:
            self._run("RELEASE SAVEPOINT")
        self.transaction.undo.release()

    def roll_back(self) -> None:
        """Undo what was done since the savepoint: rows, hooks and instances."""
        transaction = self.transaction
        del transaction.hooks[self.hooks_before :]
        try:
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
        except BaseException as error:
            raise transaction.translated(error, sql, None) from error


class Atomic:
    """A block that is done whole or not at all: a context manager and a decorator, reusable and re-entrant.

    What it does depends on the alias's state when it is entered (CONTRACT O1–O5): with nothing open it begins
    a transaction; inside one it sets a savepoint, or with `savepoint=False` joins the block around it.
    """

    __slots__ = ("_durable", "_readonly", "_resolve", "_savepoint", "owner")

    def __init__(
        self,
        owner: object,
        resolve: Callable[[], Database],
        *,
        savepoint: bool = True,
        durable: bool = False,
        readonly: bool = False,
    ) -> None:
        self.owner = owner
        self._resolve = resolve
        self._savepoint = savepoint
        self._durable = durable
        self._readonly = readonly

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate *function*: each call of it is such a block."""
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"atomic() runs functions, and {function!r} is a coroutine function")
        if inspect.isgeneratorfunction(function):
            raise TypeError(f"atomic() would end before {function!r}, a generator function, has run")

        @wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return wrapper

    def __enter__(self) -> None:
        database = self._resolve()
        transaction = open_transaction(self.owner, database.alias)
        if transaction is None:
            transaction = Transaction(database, readonly=self._readonly)
            block = Block(self, database.alias, transaction, readonly=self._readonly)
        else:
            if self._durable:
                raise TransactionError(f"a durable block on {database.alias!r} cannot be inside another")
            with transaction:
                block = Block(self, database.alias, transaction, readonly=self._readonly)
                if self._savepoint:
                    block.begin_savepoint()
        transaction.blocks.append(block)
        block.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        block = self._entered()
        transaction = block.transaction
        if transaction.owner.forked:
            block.close()
            transaction.abandon()
            return
        transaction.owner.check(block.alias)
        # A generator may leave blocks open inside this one; they end with it.
        while (inner := transaction.blocks[-1]) is not block:
            inner.close()
            transaction.blocks.pop()
            block.doomed_by = block.doomed_by or inner.doomed_by
        block.close()
        if error is None and block.doomed_by is None:
            self._succeed(block)
        else:
            self._fail(block, error)

    def _entered(self) -> Block:
        for scope in open_scopes(self.owner):
            if isinstance(scope, Block) and scope.atomic is self:
                return scope
        raise TransactionError("this block was not entered here, or has ended")

    def _succeed(self, block: Block) -> None:
        transaction = block.transaction
        if block.outermost:
            try:
                transaction.commit()
            finally:
                transaction.blocks.clear()
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

    def _fail(self, block: Block, error: BaseException | None) -> None:
        transaction, cause = block.transaction, block.doomed_by
        if block.outermost:
            try:
                transaction.roll_back()
            finally:
                transaction.blocks.clear()
                transaction.hooks.clear()
        elif block.savepoint is None:
            transaction.blocks.pop()
            transaction.doom(error or cause or TransactionError("an inner block was doomed"))
        else:
            try:
                block.roll_back()
            except Exception as failure:  # noqa: BLE001 the first error matters more; the block around is doomed
                transaction.blocks.pop()
                transaction.doom(failure)
            else:
                transaction.blocks.pop()
        if error is None:
            raise TransactionError(
                f"the block on {block.alias!r} was rolled back, since an error had doomed it: {cause!r}"
            ) from cause


def open_transaction(owner: object, alias: str) -> Transaction | None:
    """The transaction that is open on *alias* here and now, or None."""
    block: Block | None = open_block(owner, alias)
    return None if block is None else block.transaction


def note_split_write(owner: object, alias: str) -> None:
    """Log once per transaction that a write goes to *alias*, on which no block is open, while one is elsewhere."""
    for scope in open_scopes(owner):
        if scope.kind == BLOCK:
            if not scope.transaction.warned:
                scope.transaction.warned = True
                _log.warning(
                    "a write to %r inside a block on %r is a transaction of its own", alias, scope.alias
                )
            return


def run_hooks(hooks: list[Hook]) -> None:
    """Run every hook in order; the first error of those that are not robust is raised after the last."""
    failures: list[Exception] = []
    for function, robust in hooks:
        try:
            function()
        except Exception as error:
            if robust:
                name = getattr(function, "__qualname__", None) or repr(function)
                _log.error("on_commit function %s failed: %s", name, error, exc_info=True)
            else:
                failures.append(error)
    if failures:
        for other in failures[1:]:
            failures[0].add_note(f"another on_commit function failed, too: {other!r}")
        raise failures[0]
