"""Databases: aliases, routers and transactions as one thing.

An instance stands alone; `default_databases` is the one behind the package's functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

from sqlalchemy import URL, Connection, Engine

from microorm.db.atomic import Atomic
from microorm.db.connection import lone_connection
from microorm.db.context import BLOCK, RECEIVER, USING, Receiving, Scope, Using, current_alias, run_hooks
from microorm.db.engine import Database, connection_created
from microorm.db.routing import DEFAULT_ALIAS, Destinations, migration_allowed, relation_allowed
from microorm.db.transaction import open_transaction
from microorm.dispatch.receivers import is_async
from microorm.errors import ConfigurationError, TransactionError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


P = ParamSpec("P")
R = TypeVar("R")
Settings = str | URL | Engine | Mapping[str, Any]

ALIAS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Databases(Destinations):
    """Named databases, the routers that choose among them, and the transactions on them.

    *databases* is one URL (then its alias is `default`) or maps an alias to a URL, an `Engine`, or a mapping
    of `url` and `create_engine` options. *routers* are asked in order (DESIGN 2, 7).
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
        """Name the databases; nothing is opened yet.

        Raises `ConfigurationError` for settings that cannot be used, and where a connection was opened since
        the last `close()`; what was configured before then holds.
        """
        if opened := sorted(alias for alias, database in self._databases.items() if database.opened):
            raise ConfigurationError(f"databases are configured already, and open: {', '.join(opened)}")
        if not isinstance(databases, Mapping):
            databases = {DEFAULT_ALIAS: databases}
        if isinstance(routers, (str, bytes)) or not isinstance(routers, Sequence):
            raise ConfigurationError(f"routers= wants a list of routers, not {routers!r}")
        if classes := [router for router in routers if isinstance(router, type)]:
            raise ConfigurationError(f"routers= wants instances; {classes[0].__name__} is a class")
        fresh: dict[str, Database] = {}
        for alias, settings in databases.items():
            if not isinstance(alias, str) or not ALIAS.fullmatch(alias):
                raise ConfigurationError(f"an alias wants letters, digits and underscores, not {alias!r}")
            fresh[alias] = Database(alias, settings, self._announce)
        if not fresh:
            raise ConfigurationError("no database is named")
        for database in self._databases.values():
            database.close()
        self._databases = fresh
        self.routers = tuple(routers)

    def close(self) -> None:
        """Close all connections and forget the configuration; does nothing where there is none.

        Raises `TransactionError` while a block is open here.
        """
        if (alias := current_alias(self, BLOCK)) is not None:
            raise TransactionError(f"the databases cannot be closed while a block is open on {alias!r}")
        closing, self._databases, self.routers = self._databases, {}, ()
        for database in closing.values():
            database.close()

    @property
    def aliases(self) -> tuple[str, ...]:
        """The configured aliases, in order."""
        return tuple(self._databases)

    def engine(self, using: str = DEFAULT_ALIAS) -> Engine:
        """SQLAlchemy's engine of the alias *using*. `UnknownAlias` where there is none."""
        return self.database(using).engine

    def async_engine(self, using: str = DEFAULT_ALIAS) -> AsyncEngine:
        """SQLAlchemy's asyncio engine of the same database. `UnknownAlias` where there is none."""
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
        self,
        using: Any = None,
        *,
        savepoint: bool = True,
        durable: bool = False,
        readonly: bool = False,
    ) -> Any:
        """A block that is done whole or not at all, as a context manager or a decorator, bare or called.

        *using*: the alias, else the innermost of running receiver and `using()` block, else `default`. Inside
        an open block on the alias it is a savepoint; with *savepoint=False* it joins that block; with
        *durable* it refuses to be inside one (`TransactionError`). In a *readonly* block a write is a
        `TransactionError`. An exception rolls back what was done in the block, rows, `on_commit` functions and
        instances. A block that an error has doomed ends in `TransactionError` when it is left without an
        exception. `CommitOutcomeUnknown` where the connection was lost during COMMIT (CONTRACT O1–O9).
        """
        if callable(using):
            return Atomic(self, self._current_database)(using)
        if using is not None and not isinstance(using, str):
            raise TypeError(f"atomic() wants an alias, not {using!r}")

        def resolve() -> Database:
            return self._current_database() if using is None else self.database(using)

        return Atomic(self, resolve, savepoint=savepoint, durable=durable, readonly=readonly)

    def on_commit(self, function: Callable[[], Any], using: str | None = None, robust: bool = False) -> None:
        """Run *function* after the outermost commit of the alias, in order; never after a rollback.

        *using*: the alias, else the innermost of open block, `using()` block and running receiver. With
        nothing open there it runs now. All functions run; the first error is raised after the last, by then
        the rows are committed; a *robust* function's error is logged instead (CONTRACT O10–O18).
        """
        if not callable(function):
            raise TypeError(f"on_commit() wants a callable, not {function!r}")
        if is_async(function):
            raise TypeError(f"on_commit() calls functions, and {function!r} is a coroutine function")
        if using is None:
            using = current_alias(self, BLOCK, USING, RECEIVER) or DEFAULT_ALIAS
        alias = self.database(using).alias
        transaction = open_transaction(self, alias)
        if transaction is None:
            run_hooks([(function, robust)])
        else:
            transaction.owner.check(alias)
            transaction.hooks.append((function, robust))

    def using(self, alias: str, /) -> AbstractContextManager[None]:
        """Route everything in the `with` block to *alias*; nests; this thread or task only.

        Raises `UnknownAlias`.
        """
        return Using(self, self.database(alias).alias)

    @contextmanager
    def connection(self, using: str | None = None) -> Iterator[Connection]:
        """SQLAlchemy's connection of the block open on the alias *using*, or one that commits each statement.

        *using*: else the innermost of open block, `using()` block and running receiver, else `default`. An
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
        connection = lone_connection(database)
        try:
            yield connection
        finally:
            connection.close()

    def block(self, database: Database) -> Atomic:
        """A block that joins the one open on *database*, or else is a transaction of its own."""
        return Atomic(self, lambda: database, savepoint=False)

    def receiving(self, alias: str) -> Scope:
        """The scope of a receiver that runs because of a write to *alias*."""
        return Receiving(self, alias)

    def allows_relation(self, left: Any, right: Any) -> bool:
        """Whether *left* may refer to *right* (CONTRACT N4)."""
        return relation_allowed(
            self.routers, left, right, left_alias=left._row_state.alias, right_alias=right._row_state.alias
        )

    def allows_migration(self, alias: str, label: str, model: Any = None) -> bool:
        """Whether *alias* holds the table of *label* (CONTRACT N18)."""
        return migration_allowed(self.routers, alias, label, model)

    def drop_lost_connections(self) -> None:
        """Close the idle connections of each alias that has lost one since the last call (CONTRACT R8)."""
        for database in self._databases.values():
            database.drop_lost_connections()

    def _current_database(self) -> Database:
        return self.database(current_alias(self, USING, RECEIVER) or DEFAULT_ALIAS)

    def _announce(self, alias: str, connection: Any) -> None:
        connection_created.send(sender=self, alias=alias, connection=connection)


default_databases = Databases()
