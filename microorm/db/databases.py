"""Databases: aliases, routers and transactions in one object.

Instances are independent of each other; the functions of the package use `default_databases`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from functools import wraps
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

from sqlalchemy import URL, Connection, Engine

from microorm.db.aio.twins import run, twin
from microorm.db.atomic import Atomic
from microorm.db.autocommit import autocommit_connection, close_committed
from microorm.db.blocks import Using
from microorm.db.context import BLOCK, RECEIVER, USING, current_alias, open_block, open_scopes
from microorm.db.engines.engine import Database, connection_created
from microorm.db.engines.guards import attach
from microorm.db.engines.limits import Limits
from microorm.db.hooks import run_hooks
from microorm.db.routing import DEFAULT_ALIAS, RoutedDatabases, migration_allowed, relation_allowed
from microorm.db.transaction import Forbidden, open_transaction
from microorm.dispatch.receivers import is_async
from microorm.dispatch.signal import refuse_running_loop, run_coroutine
from microorm.errors import ConfigurationError, TransactionError
from microorm.messages import brief

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


P = ParamSpec("P")
R = TypeVar("R")
Settings = str | URL | Engine | Mapping[str, Any]

ALIAS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_generations = count(1)  # of all instances, which may exchange theirs
_EXCHANGED = ("_databases", "routers", "copied", "_limits", "_closed", "_removed", "generation", "_kept")


class Databases(RoutedDatabases):
    """Named databases, the routers that choose among them, and the transactions on them.

    *databases*: one URL, whose alias is then `default`, or a mapping from aliases to URLs, to `Engine`s, or to mappings
    of `url` and options for `create_engine`. *routers*, *max_connections* and *idle_timeout* are as in `configure`. *generation*: another one after each `configure()`
    and `close()`. *reserved*: URLs that cannot be configured.

    A context manager, which closes them: `with Databases({"default": "sqlite:///shop.db"}) as databases: ...`. Raises
    `ConfigurationError` for invalid settings.
    """

    def __init__(
        self,
        databases: Settings | Mapping[str, Settings] | None = None,
        routers: Sequence[object] = (),
        *,
        max_connections: int | None = None,
        idle_timeout: float | None = None,
    ) -> None:
        super().__init__()
        self.generation = 0
        self.reserved: frozenset[URL] = frozenset()
        self._kept = False
        self._limits = Limits(max_connections, idle_timeout)
        if databases is not None:
            self.configure(
                databases, routers=routers, max_connections=max_connections, idle_timeout=idle_timeout
            )

    def __repr__(self) -> str:
        return f"<Databases {', '.join(map(repr, self._databases.values())) or 'not configured'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def configure(
        self,
        databases: Settings | Mapping[str, Settings],
        *,
        routers: Sequence[object] = (),
        max_connections: int | None = None,
        idle_timeout: float | None = None,
    ) -> None:
        """Set the databases and routers, in place of earlier ones; connections are opened when they are needed.

        *routers* are asked in order; the first answer counts. *max_connections*: how many connections of all aliases together may
        be open; at the limit, idle ones of other aliases are closed, or else a new one waits for `pool_timeout` seconds, and raises
        SQLAlchemy's `TimeoutError` after that. *idle_timeout*: the engine of an alias that was not used for so many seconds is
        closed, and made again at the next use. Engines that were given count for neither.

        Does nothing for aliases that are `kept`. Raises `ConfigurationError` for invalid settings, and if a connection was opened
        since the last `close()`; the earlier configuration then remains.
        """
        if not isinstance(databases, Mapping):
            databases = {DEFAULT_ALIAS: databases}
        if self._kept:
            self._refuse_others(databases)
            return
        if opened := sorted(alias for alias, database in list(self._databases.items()) if database.opened):
            raise ConfigurationError(
                f"the databases are already configured, and have open connections: {', '.join(opened)}; "
                "call close() first"
            )
        if isinstance(routers, (str, bytes)) or not isinstance(routers, Sequence):
            raise ConfigurationError(f"routers= must be a list of routers, not {brief(routers)}")
        if classes := [router for router in routers if isinstance(router, type)]:
            raise ConfigurationError(f"routers= must hold instances; {classes[0].__name__} is a class")
        limits = Limits(max_connections, idle_timeout)
        fresh = {alias: self._made(alias, settings, limits) for alias, settings in databases.items()}
        if not fresh:
            raise ConfigurationError("configure() needs at least one database")
        for router in routers:
            attach(router, self, fresh)
        closing, self._databases, self.routers = self._databases, fresh, tuple(routers)
        self._limits = limits
        copies = (each for each in fresh.values() if each.row_alias != each.alias)
        self.copied = frozenset(each.row_alias for each in copies)
        self._closed = False
        self.generation = next(_generations)
        self._removed.clear()
        for database in list(closing.values()):
            database.close()

    def _refuse_others(self, aliases: Iterable[str]) -> None:
        """Raise `ConfigurationError` unless all *aliases* are configured."""
        if others := [alias for alias in aliases if alias not in self._databases]:
            raise ConfigurationError(
                f"the databases are kept open by a test, and {', '.join(map(repr, others))} is not among them; configure it in "
                "conftest.py, or add it by add()"
            )

    def _made(self, alias: Any, settings: Settings, limits: Limits) -> Database:
        if not isinstance(alias, str) or not ALIAS.fullmatch(alias):
            raise ConfigurationError(
                f"invalid alias {alias!r}: use ASCII letters, digits and underscores, and no digit first"
            )
        database = Database(alias, settings, self._announce, limits)
        if database.url in self.reserved:
            raise ConfigurationError(
                f"{alias!r} cannot be {database!r}, which the tests leave alone: {self.remedy}"
            )
        return database

    def add(self, alias: str, /, settings: Settings) -> None:
        """Add a database under *alias*, also while other threads and tasks use the others; see `configure` for *settings*.

        Does nothing if the alias has the same settings already. Raises `ConfigurationError` if it has others, for invalid ones,
        and if the databases were closed.
        """
        known, fresh = self._databases, self._made(alias, settings, self._limits)
        found = fresh if self._closed else known.setdefault(alias, fresh)
        if (
            self._closed or known is not self._databases
        ):  # which another thread may have closed at this moment
            raise ConfigurationError(
                f"{alias!r} cannot be added, since the databases were closed or configured again; call configure() first"
            )
        if not _same_settings(found, fresh):
            raise ConfigurationError(f"{alias!r} has other settings already; remove it first")

    def remove(self, alias: str, /) -> None:
        """Remove the database of *alias*, and close its connections; its rows stay.

        What uses the alias after that raises `UnknownAlias`, and so does saving an instance that was loaded from it. A call that waits
        for a connection at this moment raises `ConfigurationError`, of which that is a kind. Connections
        that coroutines have used are dropped without a farewell to the server; `aremove` closes those of its event loop in order.
        An engine that was given stays open. Raises `UnknownAlias`, `ConfigurationError` for an alias that a router watches, such as
        a primary or a replica, and `TransactionError` while a block or a statement of any thread or task uses a connection
        to the alias.
        """
        self.database(alias)  # raises `UnknownAlias`
        database = self._databases.get(alias)
        if database is not None and database.guard is not None:
            # Another database of this alias would not be watched, so that its writes would go unnoticed.
            raise ConfigurationError(
                f"{alias!r} cannot be removed, since a router watches it; call close() and configure() for other databases"
            )
        if database is not None and (database.in_use() or open_block(self, alias) is not None):
            raise TransactionError(
                f"{alias!r} cannot be removed while a block is open on it, or a statement uses it"
            )
        if database is None or self._databases.pop(alias, None) is None:
            raise self._unknown(alias)  # another thread has removed it at this moment
        self._removed.append(alias)
        database.close()

    aremove = twin(remove)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def close(self) -> None:
        """Close all connections and drop the configuration, if there is one.

        Those that coroutines have used are dropped without a farewell to the server; `aclose` closes them in order. Does nothing
        while they are `kept`. Raises `TransactionError` inside an open block.
        """
        for scope in open_scopes(self):
            if scope.kind is BLOCK and not (
                self._kept and (scope.of_test or isinstance(scope.doomed_by, Forbidden))
            ):
                raise TransactionError(
                    f"the databases cannot be closed while a block is open on {scope.alias!r}"
                )
        if self._kept:
            return
        closing, self._databases, self.routers = self._databases, {}, ()
        self.copied = frozenset()
        self._closed = self._closed or bool(closing)
        self.generation = next(_generations)
        for database in list(closing.values()):
            database.close()

    aclose = twin(close)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Leave the databases configured and open in the `with` block, whatever calls `close` or `configure`.

        This is for tests of programs that do so as they start and stop.
        """
        before, self._kept = self._kept, True
        try:
            yield
        finally:
            self._kept = before

    def exchange(self, other: Databases) -> None:
        """Give the configuration, with its open connections, to *other*, and take that of *other*."""
        for name in _EXCHANGED:
            mine = getattr(self, name)
            setattr(self, name, getattr(other, name))
            setattr(other, name, mine)

    @property
    def aliases(self) -> tuple[str, ...]:
        """The configured aliases in order."""
        return tuple(self._databases)

    def engine(self, using: str = DEFAULT_ALIAS) -> Engine:
        """Return SQLAlchemy's engine of the alias *using*. Raises `UnknownAlias`."""
        return self.database(using).engine

    def async_engine(self, using: str = DEFAULT_ALIAS) -> AsyncEngine:
        """Return SQLAlchemy's asyncio engine of the alias *using*, that of the running event loop.

        Raises `UnknownAlias`, and `ConfigurationError` if the driver is not installed, or only synchronous.
        """
        return self.awaited(self.database(using)).async_engine

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
        connection is lost during COMMIT, and `TypeError` for a first argument that is neither a function nor an alias.
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
        immediately. A coroutine function is awaited: by the task whose block was `async with`, else by a loop of this thread.

        *using*: the alias; by default that of the innermost open block, `using()` block or running receiver. Raises
        `RuntimeError` for a coroutine function that would have to wait for the running event loop, and `TypeError` for
        what cannot be called.
        """
        if not callable(function):
            raise TypeError(f"on_commit() needs a function, not {brief(function)}")
        if using is None:
            using = current_alias(self, BLOCK, USING, RECEIVER) or DEFAULT_ALIAS
        alias = self.database(using).alias
        transaction = open_transaction(self, alias)
        if is_async(function):
            if transaction is None or not transaction.database.is_async:
                refuse_running_loop(
                    f"the on_commit function {brief(function)}", "; open the block by `async with atomic():`"
                )
            function = _awaiting(function)
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
            if database.guard is not None:
                database.guard.written()
            close_committed(connection, failed=failed)

    @asynccontextmanager
    async def aconnection(self, using: str | None = None) -> AsyncIterator[AsyncConnection]:
        """Return SQLAlchemy's asyncio connection to the alias *using*, as `connection` returns the synchronous one.

        Raises `TransactionError` inside a block that was not begun by `async with`.
        """

        def enter() -> AsyncConnection:
            database = self.database(alias)
            if not database.is_async:
                raise TransactionError(f"the open block on {alias!r} was not begun by `async with`")
            return self.awaited(database).async_connection(opened.__enter__())

        alias = using or current_alias(self, BLOCK, USING, RECEIVER) or DEFAULT_ALIAS
        opened = self.connection(alias)
        connection = await run(enter)
        try:
            yield connection
        except BaseException as error:
            await run(opened.__exit__, type(error), error, error.__traceback__)
            raise
        await run(opened.__exit__, None, None, None)

    def allows_relation(self, left: Any, right: Any) -> bool:
        """Return whether *left* may refer to *right*, according to the routers or else their aliases."""
        return relation_allowed(
            self.routers, left, right, left_alias=left._row_state.alias, right_alias=right._row_state.alias
        )

    def allows_migration(self, alias: str, label: str, model: Any = None) -> bool:
        """Return whether *alias* holds the table of *label*, according to the routers.

        A model of microorm itself, which follows others, says so by its `__held_on__`.
        """
        if (held_on := getattr(model, "__held_on__", None)) is not None:
            return bool(held_on(alias))
        return migration_allowed(self.routers, alias, label, model)

    def drop_lost_connections(self) -> None:
        """Close the idle connections of each alias that has lost a connection since the last call.

        Those of coroutines are closed in an awaited call only.
        """
        for database in list(self._databases.values()):
            database.drop_lost_connections()
            if database.asynchronous is not None:
                database.asynchronous.drop_lost_connections()

    def lost_in_coroutines(self) -> bool:
        """Return whether coroutines have lost a connection, so that `drop_lost_connections` has to be awaited."""
        return any(
            database.asynchronous is not None and database.asynchronous.lost
            for database in list(self._databases.values())
        )

    def _current_database(self) -> Database:
        return self.database(current_alias(self, USING, RECEIVER) or DEFAULT_ALIAS)

    def _announce(self, alias: str, connection: Any) -> None:
        connection_created.send(sender=self, alias=alias, connection=connection)


def _same_settings(one: Database, other: Database) -> bool:
    given = [s if isinstance(s, Mapping) else {"url": s} for s in (one.settings, other.settings)]
    if given[0] == given[1]:  # of a database in memory, whose URL gets a name of its own
        return True
    same_engine = one.given is other.given
    return same_engine and (one.configured_url, one.options) == (other.configured_url, other.options)


def _awaiting(function: Callable[[], Any]) -> Callable[[], Any]:
    """Return a function that runs the coroutine function *function*."""

    @wraps(function)
    def call() -> Any:
        return run_coroutine(function())

    return call


default_databases = Databases()
