"""Destinations: the alias that an operation goes to, and what is open on it here and now (DESIGN 4, 7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from microorm.channels import Channel, Lone
from microorm.engines import Database
from microorm.errors import TransactionError, UnknownAlias
from microorm.hooks import Receiving
from microorm.routing import DEFAULT_ALIAS, first_answer, pick_alias
from microorm.scopes import BLOCK, USING, current_alias, latest, note_split_write, open_scopes, routed_aliases
from microorm.transactions import Transaction, open_transaction


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

    def channel(self, database: Database, *, prepared: bool, writes: bool) -> Channel:
        """A context manager that reaches *database*: its open transaction, or a connection for one statement.

        Raises `TransactionError` where the block is doomed, or is read-only and *writes*.
        """
        transaction = open_transaction(self, database.alias)
        if transaction is None:
            if writes:
                note_split_write(self, database.alias)
            return Lone(database, prepared=prepared, writes=writes)
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
        loaded = None if instance is None else instance._origin.alias
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
