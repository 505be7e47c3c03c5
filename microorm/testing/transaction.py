"""The transaction of a test: blocks on several aliases that end with a rollback, and the aliases a test must not touch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

from microorm.db.aio.twins import run
from microorm.db.blocks import AtomicBlock, end_scopes
from microorm.db.context import open_block
from microorm.db.databases import Databases
from microorm.db.engines.engine import Database
from microorm.db.owners import Owner
from microorm.db.transaction import Forbidden, Transaction
from microorm.errors import ConfigurationError, TransactionError, TransactionSharedError
from microorm.testing.statements import is_counted, observed

__all__ = ["AliasNotAllowed", "allowed_aliases", "arolled_back", "rolled_back"]


class AliasNotAllowed(TransactionError, AssertionError):
    """A test has sent a statement to an alias that it does not name."""


@contextmanager
def rolled_back(databases: Databases, aliases: Iterable[str] | None = None) -> Iterator[None]:
    """Begin a transaction on each alias of *databases*, or on *aliases*, and roll all of them back at the end.

    Blocks inside are savepoints, durable ones as well. Functions of `on_commit` wait for a commit that never comes; see
    `Commits`. The instances get back the values that they had before. Raises `UnknownAlias`, `TransactionError` if a block is
    open already, `ConfigurationError` for two aliases of one SQLite file, and errors of the connections.
    """
    blocks: list[AtomicBlock] = []
    try:
        for database in _chosen(databases, aliases):
            _begin(databases, database, blocks)
        yield
    finally:
        end_scopes(blocks)


@asynccontextmanager
async def arolled_back(databases: Databases, aliases: Iterable[str] | None = None) -> AsyncIterator[None]:
    """Do what `rolled_back` does with *databases* and *aliases*, for coroutines on the running event loop.

    Use it by `async with`.
    """
    blocks: list[AtomicBlock] = []
    try:
        for database in _chosen(databases, aliases):
            await run(_begin, databases, databases.awaited(database), blocks)
        yield
    finally:
        await run(end_scopes, blocks)


def _chosen(databases: Databases, aliases: Iterable[str] | None) -> list[Database]:
    named = [databases.database(alias) for alias in (databases.aliases if aliases is None else aliases)]
    chosen = [each for each in named if each.row_alias == each.alias]  # copies are not read meanwhile
    by_file: dict[object, str] = {}
    for database in chosen:
        if (
            other := by_file.setdefault(database.url, database.alias)
        ) != database.alias and database.is_sqlite:
            raise ConfigurationError(
                f"{other!r} and {database.alias!r} are one SQLite file, which cannot have two transactions; let the test "
                "name one of them, or use microorm_transactional_db"
            )
    return chosen


def _begin(databases: Databases, database: Database, blocks: list[AtomicBlock]) -> None:
    outer = open_block(databases, database.alias)
    if outer is not None and not isinstance(outer.doomed_by, Forbidden):
        raise TransactionError(f"a block is open on {database.alias!r} already")
    block = AtomicBlock(databases, database.alias, Transaction(database))
    block.transaction.owner = _OwnerOfTest()
    block.of_test = True
    block.begin()
    blocks.append(block)


@contextmanager
def allowed_aliases(databases: Databases, aliases: Iterable[str]) -> Iterator[None]:
    """Raise `AliasNotAllowed`, which names alias and statement, for each statement to another alias than *aliases*.

    This holds for *databases* in any thread or task. Raises `UnknownAlias`.
    """
    allowed = [databases.database(alias).alias for alias in aliases]
    refused = [databases.database(alias) for alias in databases.aliases if alias not in allowed]
    with ExitStack() as observing:
        for database in refused:
            observing.enter_context(observed(database, _refusal(database, allowed)))
        yield


class _OwnerOfTest(Owner):
    """The owner of a transaction that a test rolls back; its error says how a test can use several threads."""

    __slots__ = ()

    def check(self, alias: str) -> None:
        """Raise `TransactionSharedError` unless this thread and task may use the transaction on *alias*."""
        try:
            super().check(alias)
        except TransactionSharedError as error:
            raise TransactionSharedError(
                f"{error}: to the test, which rolls it back; take the fixture microorm_transactional_db instead of microorm_db"
            ) from None


def _refusal(database: Database, allowed: list[str]) -> Callable[[str], None]:
    names = ", ".join(map(repr, allowed)) or "no alias"

    def refuse(statement: str) -> None:
        if is_counted(statement):
            raise AliasNotAllowed(
                f"the test may touch {names}, and this is a statement to {database.alias!r}: {' '.join(statement.split())}; "
                f"add {database.alias!r} to the mark microorm_aliases of the test, or send it elsewhere"
            )

    return refuse
