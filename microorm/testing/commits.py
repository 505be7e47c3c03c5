"""Functions that wait for the commit of a transaction which a test rolls back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import wraps
from types import TracebackType
from typing import Any, NamedTuple, Self

from microorm.db.aio.twins import run, twin
from microorm.db.blocks import AtomicBlock
from microorm.db.context import open_block
from microorm.db.databases import Databases
from microorm.db.hooks import Hook, run_hooks
from microorm.errors import TransactionError
from microorm.messages import brief

__all__ = ["Commits"]


class _Mark(NamedTuple):
    """The block that was open on an alias at the beginning, and how many functions waited there already."""

    block: AtomicBlock
    before: int


class Commits:
    """`with Commits(databases) as hooks:` collects the functions that would run if the transactions were committed now.

    Those of `on_commit`, and the calls of receivers with `delivery="on_commit"`. What is rolled back with a savepoint is not
    among them. `len(hooks)` and `list(hooks)` show them, at any time; `hooks.run()` runs them.

    *using*: one alias; by default all that have a transaction. *execute*: run them at the end of the `with` block, unless an
    error leaves it. It is `async with` in a coroutine, where the functions are awaited, and `await hooks.arun()`.

    Entering raises `UnknownAlias`, and `TransactionError` where no transaction is open.
    """

    def __init__(self, databases: Databases, using: str | None = None, *, execute: bool = False) -> None:
        self._databases = databases
        self._using = using
        self._execute = execute
        self._marks: dict[str, _Mark] = {}
        self._left: dict[str, list[Hook]] | None = None

    def __enter__(self) -> Self:
        databases, using = self._databases, self._using
        aliases = databases.aliases if using is None else (databases.database(using).alias,)
        for alias in aliases:
            if (block := open_block(databases, alias)) is not None:
                self._marks[alias] = _Mark(block, len(block.transaction.hooks))
        if not self._marks:
            where = "any alias" if using is None else repr(using)
            raise TransactionError(
                f"no transaction is open on {where}, so functions of on_commit run at once; take the fixture microorm_db, or "
                "rolled_back()"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await run(self._leave, error)

    def __len__(self) -> int:
        return sum(len(self._waiting(alias)) for alias in self._marks)

    def __iter__(self) -> Iterator[Callable[[], Any]]:
        return (function for alias in self._marks for function, _ in self._waiting(alias))

    def __repr__(self) -> str:
        return f"<Commits {', '.join(map(_name, self)) or 'nothing waits'}>"

    def run(self) -> int:
        """Run the functions that wait, alias after alias, and return how many.

        Each runs in a savepoint. What it hands to `on_commit` itself runs after it. An error is an `AfterCommitError`, after
        the last function, as after a real commit. Raises `TransactionError` inside a block that was begun since.
        """
        count = 0
        for alias, mark in self._marks.items():
            transaction = mark.block.transaction
            if mark.block.closed:
                continue
            if self._left is None and transaction.blocks[-1] is not mark.block:
                raise TransactionError(
                    f"the block on {alias!r} is still open: its functions wait for its end"
                )
            waiting = self._waiting(alias)
            kept = [each for each in transaction.hooks if not _among(each, waiting)]
            transaction.hooks.clear()
            transaction.hooks.extend(kept)
            count += len(waiting)
            run_hooks(deque(map(self._in_savepoint, waiting)), alias)
        return count

    arun = twin(run)

    def _leave(self, error: BaseException | None) -> None:
        if error is None and self._execute:
            self.run()
        self._left = {alias: self._waiting(alias) for alias in self._marks}

    def _waiting(self, alias: str) -> list[Hook]:
        """Return the functions that wait on *alias*; after the end of the `with` block, those of them that are left."""
        block, before = self._marks[alias]
        hooks = list(block.transaction.hooks)
        return (
            hooks[before:]
            if self._left is None
            else [each for each in hooks if _among(each, self._left[alias])]
        )

    def _in_savepoint(self, hook: Hook) -> Hook:
        function, robust = hook

        @wraps(function)
        def call() -> None:
            transactions = {
                alias: mark.block.transaction for alias, mark in self._marks.items() if not mark.block.closed
            }
            before = {each: len(transaction.hooks) for each, transaction in transactions.items()}
            with ExitStack() as savepoints:
                for each, transaction in transactions.items():
                    savepoints.enter_context(self._databases.atomic(each))
                    transaction.blocks[-1].of_test = True
                function()
            for each, transaction in transactions.items():
                later = [transaction.hooks.pop() for _ in range(len(transaction.hooks) - before[each])]
                run_hooks(deque(map(self._in_savepoint, reversed(later))), None)

        call.__qualname__ = _name(function)
        return call, robust


def _among(hook: Hook, hooks: list[Hook]) -> bool:
    return any(each is hook for each in hooks)


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or brief(function)
