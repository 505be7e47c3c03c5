"""Routing: the rule that picks an alias. Pure functions; all they need is passed in.

Destinations: the alias that an operation goes to, and what is open on it here and now (DESIGN 4, 7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from microorm.db.connection import Channel, Lone
from microorm.db.context import (
    BLOCK,
    USING,
    Receiving,
    current_alias,
    latest,
    note_split_write,
    open_scopes,
    routed_aliases,
)
from microorm.db.engine import Database
from microorm.db.transaction import Transaction, open_transaction
from microorm.errors import TransactionError, UnknownAlias

if TYPE_CHECKING:
    from microorm.mapping.schema import Schema

DEFAULT_ALIAS = "default"


class Router:
    """Say where a model's rows are read, written, related and created; None leaves it to the next router.

    Derive from it, or pass any object that has some of these methods. The first answer that is not None
    wins (CONTRACT N2, N4).
    """

    def db_for_read(self, model: type[Any], **hints: Any) -> str | None:
        """The alias to read *model* from. Hints: `instance` where there is one, `in_atomic`."""
        return None

    def db_for_write(self, model: type[Any], **hints: Any) -> str | None:
        """The alias to write *model* to. Hints: `instance` where there is one, `in_atomic`."""
        return None

    def allow_relation(self, left: Any, right: Any, **hints: Any) -> bool | None:
        """Whether the instances *left* and *right* may refer to each other."""
        return None

    def allow_migrate(
        self, alias: str, label: str, model: type[Any] | None = None, **hints: Any
    ) -> bool | None:
        """Whether *alias* holds the table of the model labelled *label*, which may be gone by now."""
        return None


def first_answer(routers: Iterable[object], method: str, *arguments: Any, **hints: Any) -> Any:
    """The first answer of *routers* that is not None; a router without *method* is passed over.

    An error inside a router's method is its caller's to see (CONTRACT N5).
    """
    for router in routers:
        ask = getattr(router, method, None)
        if ask is not None and (answer := ask(*arguments, **hints)) is not None:
            return answer
    return None


def pick_alias(
    *,
    using: str | None,
    block: str | None,
    routed: str | None,
    loaded: str | None,
    home: str | None,
    receiver: str | None,
) -> str:
    """The alias to use: asked for, of the `using()` block, routed, loaded from, the model's home, the
    running receiver's, or `"default"`: the first that is not None (DESIGN 4, 7)."""
    for alias in (using, block, routed, loaded, home, receiver):
        if alias is not None:
            return alias
    return DEFAULT_ALIAS


def relation_allowed(
    routers: Iterable[object], left: Any, right: Any, *, left_alias: str | None, right_alias: str | None
) -> bool:
    """Whether *left* may refer to *right*: what the routers say, else whether their aliases are the same.

    An instance that has no alias yet (None) takes the other's (CONTRACT N4, N11).
    """
    answer = first_answer(routers, "allow_relation", left, right)
    if answer is not None:
        return bool(answer)
    return left_alias is None or right_alias is None or left_alias == right_alias


def migration_allowed(routers: Iterable[object], alias: str, label: str, model: type[Any] | None) -> bool:
    """Whether *alias* holds the table of *label*: what the routers say, else yes (CONTRACT N4, N18)."""
    answer = first_answer(routers, "allow_migrate", alias, label, model=model)
    return True if answer is None else bool(answer)


class Destinations:
    """Databases by their aliases, and the routers that choose among them."""

    def __init__(self) -> None:
        self._databases: dict[str, Database] = {}
        self.routers: tuple[object, ...] = ()

    def database(self, alias: str) -> Database:
        """The database of *alias*. `UnknownAlias` where there is none."""
        try:
            return self._databases[alias]
        except (KeyError, TypeError):
            raise UnknownAlias(alias, self._databases) from None

    def holds(self, database: Database) -> bool:
        """Whether *database* is one of these still: none is after `close()`."""
        return self._databases.get(database.alias) is database

    def transaction(self, database: Database) -> Transaction | None:
        """What is open on *database* here and now, or None."""
        return open_transaction(self, database.alias)

    def channel(self, database: Database, *, writes: bool) -> Channel:
        """A context manager that reaches *database*: its open transaction, or a connection for one statement.

        Raises `TransactionError` where the block is doomed, or is read-only and *writes*.
        """
        transaction = self.usable(database, writes=writes)
        return Lone(database, writes=writes) if transaction is None else transaction

    def place(
        self, schema: Schema, using: str | None = None, instance: Any = None, *, writes: bool
    ) -> tuple[Database, Transaction | None]:
        """Return the database for a read or a write of *schema*, and the transaction that is open on it here, if any.

        Where no router and no scope but plain blocks can have a say, this is a dictionary hit. Raises `UnknownAlias`,
        and `TransactionError` where the block on that alias cannot be used.
        """
        scope: Any = latest()
        if self.routers or not (scope is None or (scope.plain and scope.owner is self)):
            pick = self.for_write if writes else self.for_read
            database = pick(schema.model, schema.home, using, instance)
            return database, self.usable(database, writes=writes)
        loaded = None if instance is None else instance._row_state.alias
        alias = (loaded or schema.home or DEFAULT_ALIAS) if using is None else using
        found = self._databases.get(alias) if alias.__class__ is str else None
        database = found or self.database(alias)
        if scope is None:
            return database, None
        if scope.alias == alias and not scope.closed and not (writes and scope.readonly):
            transaction: Transaction = scope.transaction
            if transaction.database is database and transaction.blocks[-1] is scope:
                return database, transaction
        return database, self.usable(database, writes=writes)

    def usable(self, database: Database, *, writes: bool) -> Transaction | None:
        """Return what is open on *database* here and now. `TransactionError` where it does not allow the operation."""
        transaction = open_transaction(self, database.alias)
        if transaction is None:
            if writes:
                note_split_write(self, database.alias)
            return None
        if transaction.database is not database:
            raise TransactionError(f"the databases were closed while a block was open on {database.alias!r}")
        if writes and transaction.readonly:
            raise TransactionError(f"the block on {database.alias!r} is read-only")
        return transaction

    def for_write(self, model: Any, home: str | None, using: str | None, instance: Any = None) -> Database:
        """The database to write *model* to (DESIGN 4, step 2). Raises `UnknownAlias`."""
        return self._pick("db_for_write", model, home, using, instance)

    def for_read(self, model: Any, home: str | None, using: str | None, instance: Any = None) -> Database:
        """The database to read *model* from: inside a block on its write alias, that one (CONTRACT N9)."""
        asks = using is None and self.routers  # else what is read and what is written is at one place
        if asks and current_alias(self, BLOCK) is not None and current_alias(self, USING) is None:
            written = self._pick("db_for_write", model, home, None, instance)
            if open_transaction(self, written.alias) is not None:
                return written
        return self._pick("db_for_read", model, home, using, instance)

    def _pick(self, method: str, model: Any, home: str | None, using: str | None, instance: Any) -> Database:
        if using is not None:
            return self.database(using)
        loaded = None if instance is None else instance._row_state.alias
        scope = latest()
        if not self.routers and (scope is None or (scope.plain and scope.owner is self)):
            return self.database(loaded or home or DEFAULT_ALIAS)  # nothing here and now has a say
        block, receiver = routed_aliases(self)
        routed = None
        if block is None and self.routers:
            hints = {"in_atomic": current_alias(self, BLOCK) is not None}
            if instance is not None:
                hints["instance"] = instance
            routed = first_answer(self.routers, method, model, **hints)
        alias = pick_alias(
            using=None,
            block=block,
            routed=routed,
            loaded=loaded,
            home=home,
            receiver=receiver,
        )
        return self.database(alias)


def postpone(owner: object, alias: str, function: Callable[[], Any]) -> bool:
    """Run *function* after the commit of the block open on *alias*, or else at the end of the running receiver.

    False where there is neither, and so nothing to wait for.
    """
    if (transaction := open_transaction(owner, alias)) is not None:
        transaction.owner.check(alias)
        transaction.hooks.append((function, False))
        return True
    for scope in open_scopes(owner):
        if isinstance(scope, Receiving) and scope.alias == alias:
            scope.postpone(function)
            return True
    return False
