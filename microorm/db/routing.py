"""Routing: which alias an operation goes to, and which transaction is open on it.

The alias is the first of: `using=`, the innermost `using()` block, the answer of a router, the alias that the instance
was loaded from, the home of the model, the alias of the running receiver, and `default`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from microorm.db.autocommit import AutocommitConnection
from microorm.db.connection import Channel
from microorm.db.context import (
    AWAITED,
    BLOCK,
    USING,
    ReceiverScope,
    awaited_call,
    current_alias,
    current_scope,
    open_block,
    open_scopes,
    routed_aliases,
    warn_write_outside_block,
)
from microorm.db.engines.engine import Database
from microorm.db.engines.urls import cannot_await
from microorm.db.transaction import Transaction, open_transaction
from microorm.errors import CONFIGURE_FIRST, TransactionError, UnknownAlias

if TYPE_CHECKING:
    from microorm.db.aio.database import AsyncDatabase
    from microorm.db.databases import Databases
    from microorm.mapping.schema import Schema

DEFAULT_ALIAS = "default"
MAX_REMOVED = 1000
"""How many removed aliases are remembered, so that an error can say that they were removed."""
Hints = Mapping[str, Any] | None


class Router:
    """Choose the databases in which the rows of a model are read, written, related and created.

    Derive from it, or use any object that has some of these methods. Routers are asked in order, and the first answer
    that is not None counts.
    """

    def db_for_read(self, model: type[Any], **hints: Any) -> str | None:
        """Return the alias to read *model* from, or None.

        *hints*: `in_atomic`; `instance` if there is one; for a query `query`, and `values`, those that fields must have.
        """
        return None

    def db_for_write(self, model: type[Any], **hints: Any) -> str | None:
        """Return the alias to write *model* to, or None.

        *hints*: those of `db_for_read`; `instances` that are written together; `changes`, the values that an update sets;
        `reading`, where a read inside a block asks whether the block is on the alias that the model is written to.
        """
        return None

    def configured(self, databases: Databases, aliases: Mapping[str, Database]) -> None:
        """Take note of *databases*, which ask this router from now on, and of *aliases*: the database of each.

        An error that this raises comes out of `configure()`, which then changes nothing.
        """

    def allow_relation(self, left: Any, right: Any, **hints: Any) -> bool | None:
        """Return whether the instances *left* and *right* may refer to each other, or None. There are no *hints* yet."""
        return None

    def allow_migrate(
        self, alias: str, label: str, model: type[Any] | None = None, **hints: Any
    ) -> bool | None:
        """Return whether *alias* holds the table of the model *label*, or None; *model* is None if it no longer exists.

        There are no *hints* yet.
        """
        return None


def first_answer(routers: Iterable[object], method: str, *arguments: Any, **hints: Any) -> Any:
    """Return the first answer of *routers* that is not None; skip routers without *method*.

    Errors of a router are raised unchanged.
    """
    for router in routers:
        function = getattr(router, method, None)
        if function is not None and (answer := function(*arguments, **hints)) is not None:
            return answer
    return None


def pick_alias(*aliases: str | None) -> str:
    """Return the first of *aliases* that is not None, else `"default"`."""
    return next((alias for alias in aliases if alias is not None), DEFAULT_ALIAS)


def relation_allowed(
    routers: Iterable[object], left: Any, right: Any, *, left_alias: str | None, right_alias: str | None
) -> bool:
    """Return whether *left* may refer to *right*: the answer of the routers, else whether their aliases are equal.

    An instance without an alias (None) will get that of the other.
    """
    answer = first_answer(routers, "allow_relation", left, right)
    if answer is not None:
        return bool(answer)
    return left_alias is None or right_alias is None or left_alias == right_alias


def migration_allowed(routers: Iterable[object], alias: str, label: str, model: type[Any] | None) -> bool:
    """Return whether *alias* holds the table of *label*: the answer of the routers, else True."""
    answer = first_answer(routers, "allow_migrate", alias, label, model=model)
    return True if answer is None else bool(answer)


class RoutedDatabases:
    """The databases by alias, and the choice among them. *remedy*: what errors say where nothing is configured."""

    remedy = CONFIGURE_FIRST

    def __init__(self) -> None:
        self._databases: dict[str, Database] = {}
        self.routers: tuple[object, ...] = ()
        self.copied: frozenset[str] = frozenset()  # the aliases that others are copies of
        self._closed = False
        self._removed: deque[str] = deque(maxlen=MAX_REMOVED)

    def _unknown(self, alias: object) -> UnknownAlias:
        """Return the error for *alias*, which no database has."""
        return UnknownAlias(
            alias, self._databases, self._closed, removed=alias in self._removed, remedy=self.remedy
        )

    def database(self, alias: str) -> Database:
        """Return the database of *alias*; in an awaited call, that for coroutines. Raises `UnknownAlias`."""
        try:
            database: Database = self._databases[alias]
        except (KeyError, TypeError):
            raise self._unknown(alias) from None
        if current_scope() is None or awaited_call() is None:
            return database
        # Receivers that a synchronous save runs on a loop of its own belong to the transaction of that save.
        block = open_block(self, alias)
        in_synchronous_block = block is not None and block.transaction.database is database
        return database if in_synchronous_block else self.awaited(database)

    def awaited(self, database: Database) -> AsyncDatabase:
        """Return *database* as coroutines reach it. Raises `ConfigurationError` if its driver is only synchronous."""
        if database.asynchronous is not None:
            return database.asynchronous
        try:
            from microorm.db.aio.database import (  # noqa: PLC0415 greenlet is an extra, and asyncio is slow to load
                awaited,
            )
        except ModuleNotFoundError as error:
            raise cannot_await(error) from error

        return awaited(database)

    def transaction(self, database: Database) -> Transaction | None:
        """Return the transaction that this thread or task has open on *database*, or None."""
        return open_transaction(self, database.alias)

    def channel(self, database: Database, *, writes: bool) -> Channel:
        """Return a context manager for one statement: the open transaction on *database*, or an autocommit connection.

        Raises `TransactionError` if the block is doomed, or if it is read-only and *writes* is True.
        """
        transaction = self.usable(database, writes=writes)
        return AutocommitConnection(database, writes) if transaction is None else transaction

    def place(
        self,
        schema: Schema,
        using: str | None = None,
        instance: Any = None,
        *,
        writes: bool,
        hints: Hints = None,
    ) -> tuple[Database, Transaction | None]:
        """Return the database to read *schema* from, or to write it to if *writes*, and the open transaction on it or None.

        *using*: an alias that was asked for. *instance*: what routers are asked with. *hints*: what they get besides it.

        Without routers, `using()` blocks and running receivers this is one lookup in a dictionary. Raises
        `UnknownAlias`, `ModelError` to write a read-only model, and `TransactionError` if the block on that alias cannot be
        used.
        """
        if writes and schema.read_only:
            schema.refuse_write()
        scope: Any = current_scope()
        awaited = False
        if scope is None or scope.plain:
            pass  # most calls: there is no scope, or only blocks
        elif scope.kind is AWAITED and not scope.closed and scope.is_running:
            awaited, scope = True, scope.parent
        if self.routers or not (scope is None or (scope.plain and scope.owner is self)):
            pick = self.for_write if writes else self.for_read
            database = pick(schema.model, schema.home, using, instance, hints)
            return database, self.usable(database, writes=writes)
        alias: Any = using
        if alias is None:
            loaded = None if instance is None else instance._row_state.alias
            alias = loaded or schema.home or DEFAULT_ALIAS
            found = self._databases.get(alias)
        else:
            found = self._databases.get(alias) if alias.__class__ is str else None
        if awaited and found is not None:
            twin = found.asynchronous
            known = scope is None or scope.transaction.database is twin
            found = twin if known else None  # `database` knows the blocks of synchronous code, too
        database = found or self.database(alias)
        if scope is None:
            return database, None
        transaction: Transaction = scope.transaction
        innermost = not scope.closed and transaction.database is database and transaction.blocks[-1] is scope
        if not innermost or (writes and scope.readonly):
            return database, self.usable(database, writes=writes)
        return database, transaction

    def usable(self, database: Database, *, writes: bool) -> Transaction | None:
        """Return the open transaction on *database*, or None.

        Raises `TransactionError` if it is read-only and *writes* is True, or if the databases were closed meanwhile.
        """
        transaction = open_transaction(self, database.alias)
        if transaction is None:
            if writes:
                warn_write_outside_block(self, database.alias)
            return None
        if transaction.database is not database and transaction.database is not database.asynchronous:
            raise TransactionError(f"the databases were closed while a block was open on {database.alias!r}")
        if writes and transaction.readonly:
            raise TransactionError(f"the block on {database.alias!r} is read-only")
        transaction.wrote = transaction.wrote or writes
        return transaction

    def for_write(
        self, model: Any, home: str | None, using: str | None, instance: Any = None, hints: Hints = None
    ) -> Database:
        """Return the database to write *model* to.

        *home*, *using*, *instance*, *hints* and errors are those of `for_read`.
        """
        return self._pick("db_for_write", model, home, using, instance, hints)

    def for_read(
        self, model: Any, home: str | None, using: str | None, instance: Any = None, hints: Hints = None
    ) -> Database:
        """Return the database to read *model* from: inside a block on the database to write it to, that database.

        *home*: the alias of the model. *using*: an alias that was asked for. *instance*: what routers are asked with. *hints*:
        what they get besides it. Raises `UnknownAlias`.
        """
        routed = using is None and self.routers  # else reads and writes go to the same database
        if routed and current_alias(self, BLOCK) is not None and current_alias(self, USING) is None:
            primary = self._pick(
                "db_for_write", model, home, None, instance, {**(hints or {}), "reading": True}
            )
            if open_transaction(self, primary.alias) is not None:
                return primary
        return self._pick("db_for_read", model, home, using, instance, hints)

    def _pick(
        self, method: str, model: Any, home: str | None, using: str | None, instance: Any, told: Hints
    ) -> Database:
        if using is not None:
            return self.database(using)
        loaded = None if instance is None else instance._row_state.alias
        scope = current_scope()
        if not self.routers and (scope is None or (scope.plain and scope.owner is self)):
            return self.database(pick_alias(loaded, home))  # as below, without going through the scopes
        block, receiver = routed_aliases(self)
        routed = None
        if block is None and self.routers:
            hints = {"in_atomic": current_alias(self, BLOCK) is not None, **(told or {})}
            if instance is not None:
                hints["instance"] = instance
            routed = first_answer(self.routers, method, model, **hints)
        return self.database(pick_alias(block, routed, loaded, home, receiver))


def postpone(owner: object, alias: str, function: Callable[[], Any], robust: bool = False) -> bool:
    """Call *function* after the open block on *alias* is committed, or else when the running receivers have finished.

    Errors of a *robust* function are logged. Returns False if there is neither a block nor a receiver.
    """
    scope = current_scope()
    if scope.__class__ is ReceiverScope and scope.committed and scope.alias == alias and scope.owner is owner:
        scope.postpone(function, robust)
        return True
    if (transaction := open_transaction(owner, alias)) is not None:
        transaction.owner.check(alias)
        transaction.hooks.append((function, robust))
        return True
    for scope in open_scopes(owner):
        if isinstance(scope, ReceiverScope) and scope.alias == alias:
            scope.postpone(function, robust)
            return True
    return False
