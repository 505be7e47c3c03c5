"""Lending: somebody else's open connection, for a while the one that models use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

from sqlalchemy import Connection

from microorm.engines import Database
from microorm.errors import TransactionError
from microorm.hooks import run_hooks
from microorm.owners import Owner
from microorm.scopes import Entrance, Using
from microorm.transactions import Block, Transaction
from microorm.undo import UndoLog


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
