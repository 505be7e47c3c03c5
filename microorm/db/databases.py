"""Databases: aliases, routers and transactions in one object.

Instances are independent of each other; the functions of the package use `default_databases`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

from sqlalchemy import URL, Connection, Engine

from microorm.db.atomic import Atomic
from microorm.db.connection import autocommit_connection, close_committed
from microorm.db.context import BLOCK, RECEIVER, USING, current_alias, run_hooks
from microorm.db.engine import Database, connection_created
from microorm.db.reusable import Using
from microorm.db.routing import DEFAULT_ALIAS, RoutedDatabases, migration_allowed, relation_allowed
from microorm.db.transaction import open_transaction
from microorm.dispatch.receivers import is_async
from microorm.errors import ConfigurationError, TransactionError
from microorm.messages import brief

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


P = ParamSpec("P")
R = TypeVar("R")
Settings = str | URL | Engine | Mapping[str, Any]

ALIAS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Databases(RoutedDatabases):
    """Named databases, the routers that choose among them, and the transactions on them.

    *databases*: one URL, whose alias is then `default`, or a mapping from aliases to URLs, to `Engine`s, or to mappings
    of `url` and options for `create_engine`. *routers* are asked in order; the first answer counts.
    """

    def __init__(
        self, databases: Settings | Mapping[str, Settings] | None = None, routers: Sequence[object] = ()
    ) -> None:
        super().__init__()
        if databases is not None:
            self.configure(databases, routers=routers)

    def __repr__(self) -> str:
        return f"<Databases {', '.join(map(repr, self._databases.values())) or 'not configured'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def configure(
        self, databases: Settings | Mapping[str, Settings], *, routers: Sequence[object] = ()
    ) -> None:
        """Set the databases and routers, in place of earlier ones; connections are opened when they are needed.

        Raises `ConfigurationError` for invalid settings, and if a connection was opened since the last `close()`; the
        earlier configuration then remains.
        """
        if opened := sorted(alias for alias, database in self._databases.items() if database.opened):
            raise ConfigurationError(
                f"the databases are already configured, and have open connections: {', '.join(opened)}; "
                "call close() first"
            )
        if not isinstance(databases, Mapping):
            databases = {DEFAULT_ALIAS: databases}
        if isinstance(routers, (str, bytes)) or not isinstance(routers, Sequence):
            raise ConfigurationError(f"routers= must be a list of routers, not {brief(routers)}")
        if classes := [router for router in routers if isinstance(router, type)]:
            raise ConfigurationError(f"routers= must hold instances; {classes[0].__name__} is a class")
        fresh: dict[str, Database] = {}
        for alias, settings in databases.items():
            if not isinstance(alias, str) or not ALIAS.fullmatch(alias):
                raise ConfigurationError(
                    f"invalid alias {alias!r}: use ASCII letters, digits and underscores, and no digit first"
                )
            fresh[alias] = Database(alias, settings, self._announce)
        if not fresh:
            raise ConfigurationError("configure() needs at least one database")
        closing, self._databases, self.routers = self._databases, fresh, tuple(routers)
        for database in closing.values():
            database.close()

    def close(self) -> None:
        """Close all connections and drop the configuration, if there is one.

        Raises `TransactionError` inside an open block.
        """
        if (alias := current_alias(self, BLOCK)) is not None:
            raise TransactionError(f"the databases cannot be closed while a block is open on {alias!r}")
        closing, self._databases, self.routers = self._databases, {}, ()
        for database in closing.values():
            database.close()

    @property
    def aliases(self) -> tuple[str, ...]:
        """The configured aliases in order."""
        return tuple(self._databases)

    def engine(self, using: str = DEFAULT_ALIAS) -> Engine:
        """Return SQLAlchemy's engine of the alias *using*. Raises `UnknownAlias`."""
        return self.database(using).engine

    def async_engine(self, using: str = DEFAULT_ALIAS) -> AsyncEngine:
        """Return SQLAlchemy's asyncio engine of the alias *using*. Raises `UnknownAlias`."""
        return self.database(using).async_engine

    @overload
    def atomic(self, using: Callable[P, R], /) -> Callable[P, R]: ...
    @overload
    def atomic(
        self,
        using: str | None = None,
        *,
        savepoint: bool = True,
        durable: bool = False,
        readonly: bool = False,
    ) -> Atomic: ...
    def atomic(
        self, using: Any = None, *, savepoint: bool = True, durable: bool = False, readonly: bool = False
    ) -> Any:
        """Return a block that is committed as a whole or rolled back: a context manager and a decorator.

        As a decorator it may be written without parentheses.

        *using*: the alias; by default that of the innermost running receiver or `using()` block, else `default`.
        *savepoint*: set a savepoint inside an open block on the alias; if False, join that block. *durable*: raise
        `TransactionError` inside an open block. *readonly*: raise `TransactionError` for writes.

        An exception that leaves the block rolls back its rows, `on_commit` functions and instances. If an error has
        doomed the block and no exception leaves it, it raises `TransactionError`. Raises `CommitOutcomeUnknown` if the
        connection is lost during COMMIT.
        """
        if callable(using):
            return Atomic(self, self._current_database)(using)
        if using is not None and not isinstance(using, str):
            raise TypeError(f"the alias for atomic() must be a string, not {brief(using)}")

        def resolve() -> Database:
            return self._current_database() if using is None else self.database(using)

        return Atomic(self, resolve, savepoint=savepoint, durable=durable, readonly=readonly)

    def on_commit(self, function: Callable[[], Any], using: str | None = None, robust: bool = False) -> None:
        """Call *function* after the outermost block on the alias is committed; immediately if none is open.

        Functions are called in order, and all of them, even if one is interrupted. If some have failed, an
        `AfterCommitError` is raised after the last; its cause is the first error. Errors of *robust* functions are logged
        instead. A rollback discards the functions. Inside such a function no block is open, so another one is called
        immediately.

        *using*: the alias; by default that of the innermost open block, `using()` block or running receiver.
        """
        if not callable(function):
            raise TypeError(f"on_commit() needs a function, not {brief(function)}")
        if is_async(function):
            raise TypeError(f"on_commit() cannot call {brief(function)}: it is a coroutine function")
        if using is None:
            using = current_alias(self, BLOCK, USING, RECEIVER) or DEFAULT_ALIAS
        alias = self.database(using).alias
        transaction = open_transaction(self, alias)
        if transaction is None:
            run_hooks(deque([(function, robust)]), None)
        else:
            transaction.owner.check(alias)
            transaction.hooks.append((function, robust))

    def using(self, alias: str, /) -> AbstractContextManager[None]:
        """Route everything in the `with` block to *alias*, in this thread or task.

        Blocks can be nested. Raises `UnknownAlias`.
        """
        return Using(self, self.database(alias).alias)

    @contextmanager
    def connection(self, using: str | None = None) -> Iterator[Connection]:
        """Return SQLAlchemy's connection of the open block on the alias *using*, or one that commits each statement.

        *using*: by default that of the innermost open block, `using()` block or running receiver, else `default`. An
        error in a statement dooms the block. Raises `UnknownAlias`.
        """
        if using is None:
            using = current_alias(self, BLOCK, USING, RECEIVER) or DEFAULT_ALIAS
        database = self.database(using)
        transaction = open_transaction(self, database.alias)
        if transaction is not None:
            with transaction:
                yield transaction.hand_out()
            return
        connection = autocommit_connection(database)
        failed = True
        try:
            yield connection
            failed = False
        finally:
            close_committed(connection, failed=failed)

    def allows_relation(self, left: Any, right: Any) -> bool:
        """Return whether *left* may refer to *right*, according to the routers or else their aliases."""
        return relation_allowed(
            self.routers, left, right, left_alias=left._row_state.alias, right_alias=right._row_state.alias
        )

    def allows_migration(self, alias: str, label: str, model: Any = None) -> bool:
        """Return whether *alias* holds the table of *label*, according to the routers."""
        return migration_allowed(self.routers, alias, label, model)

    def drop_lost_connections(self) -> None:
        """Close the idle connections of each alias that has lost a connection since the last call."""
        for database in self._databases.values():
            database.drop_lost_connections()

    def _current_database(self) -> Database:
        return self.database(current_alias(self, USING, RECEIVER) or DEFAULT_ALIAS)

    def _announce(self, alias: str, connection: Any) -> None:
        connection_created.send(sender=self, alias=alias, connection=connection)


default_databases = Databases()
