"""Routing: which alias an operation goes to, and which transaction is open on it.

The alias is the first of: `using=`, the innermost `using()` block, the answer of a router, the alias that the instance
was loaded from, the home of the model, the alias of the running receiver, and `default`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from microorm.db.connection import AutocommitConnection, Channel
from microorm.db.context import (
    BLOCK,
    USING,
    ReceiverScope,
    current_alias,
    current_scope,
    open_scopes,
    routed_aliases,
    warn_write_outside_block,
)
from microorm.db.engine import Database
from microorm.db.transaction import Transaction, open_transaction
from microorm.errors import TransactionError, UnknownAlias

if TYPE_CHECKING:
    from microorm.mapping.schema import Schema

DEFAULT_ALIAS = "default"


class Router:
    """Choose the databases in which the rows of a model are read, written, related and created.

    Derive from it, or use any object that has some of these methods. Routers are asked in order, and the first answer
    that is not None counts.
    """

    def db_for_read(self, model: type[Any], **hints: Any) -> str | None:
        """Return the alias to read *model* from, or None. Hints: `in_atomic`, and `instance` if there is one."""
        return None

    def db_for_write(self, model: type[Any], **hints: Any) -> str | None:
        """Return the alias to write *model* to, or None. Hints: `in_atomic`, and `instance` if there is one."""
        return None

    def allow_relation(self, left: Any, right: Any, **hints: Any) -> bool | None:
        """Return whether the instances *left* and *right* may refer to each other, or None."""
        return None

    def allow_migrate(
        self, alias: str, label: str, model: type[Any] | None = None, **hints: Any
    ) -> bool | None:
        """Return whether *alias* holds the table of the model *label*, or None; *model* is None if it no longer exists."""
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
    """The databases by alias, and the choice among them."""

    def __init__(self) -> None:
        self._databases: dict[str, Database] = {}
        self.routers: tuple[object, ...] = ()

    def database(self, alias: str) -> Database:
        """Return the database of *alias*. Raises `UnknownAlias`."""
        try:
            return self._databases[alias]
        except (KeyError, TypeError):
            raise UnknownAlias(alias, self._databases) from None

    def transaction(self, database: Database) -> Transaction | None:
        """Return the transaction that this thread or task has open on *database*, or None."""
        return open_transaction(self, database.alias)

    def channel(self, database: Database, *, writes: bool) -> Channel:
        """Return a context manager for one statement: the open transaction on *database*, or an autocommit connection.

        Raises `TransactionError` if the block is doomed, or if it is read-only and *writes* is True.
        """
        transaction = self.usable(database, writes=writes)
        return AutocommitConnection(database, writes=writes) if transaction is None else transaction

    def place(
        self, schema: Schema, using: str | None = None, instance: Any = None, *, writes: bool
    ) -> tuple[Database, Transaction | None]:
        """Return the database for a read or a write of *schema*, and the open transaction on it or None.

        Without routers, `using()` blocks and running receivers this is one lookup in a dictionary. Raises
        `UnknownAlias`, and `TransactionError` if the block on that alias cannot be used.
        """
        scope: Any = current_scope()
        if self.routers or not (scope is None or (scope.plain and scope.owner is self)):
            pick = self.for_write if writes else self.for_read
            database = pick(schema.model, schema.home, using, instance)
            return database, self.usable(database, writes=writes)
        alias: Any = using
        if alias is None:
            loaded = None if instance is None else instance._row_state.alias
            alias = loaded or schema.home or DEFAULT_ALIAS
        found = self._databases.get(alias) if alias.__class__ is str else None
        database = found or self.database(alias)
        if scope is None:
            return database, None
        transaction: Transaction = scope.transaction
        if scope.closed or transaction.database is not database or transaction.blocks[-1] is not scope:
            return database, self.usable(database, writes=writes)
        if writes and scope.readonly:
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
        if transaction.database is not database:
            raise TransactionError(f"the databases were closed while a block was open on {database.alias!r}")
        if writes and transaction.readonly:
            raise TransactionError(f"the block on {database.alias!r} is read-only")
        return transaction

    def for_write(self, model: Any, home: str | None, using: str | None, instance: Any = None) -> Database:
        """Return the database to write *model* to. Raises `UnknownAlias`."""
        return self._pick("db_for_write", model, home, using, instance)

    def for_read(self, model: Any, home: str | None, using: str | None, instance: Any = None) -> Database:
        """Return the database to read *model* from: inside a block on the database to write it to, that database.

        Raises `UnknownAlias`.
        """
        routed = using is None and self.routers  # else reads and writes go to the same database
        if routed and current_alias(self, BLOCK) is not None and current_alias(self, USING) is None:
            primary = self._pick("db_for_write", model, home, None, instance)
            if open_transaction(self, primary.alias) is not None:
                return primary
        return self._pick("db_for_read", model, home, using, instance)

    def _pick(self, method: str, model: Any, home: str | None, using: str | None, instance: Any) -> Database:
        if using is not None:
            return self.database(using)
        loaded = None if instance is None else instance._row_state.alias
        scope = current_scope()
        if not self.routers and (scope is None or (scope.plain and scope.owner is self)):
            return self.database(pick_alias(loaded, home))  # as below, without going through the scopes
        block, receiver = routed_aliases(self)
        routed = None
        if block is None and self.routers:
            hints = {"in_atomic": current_alias(self, BLOCK) is not None}
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
