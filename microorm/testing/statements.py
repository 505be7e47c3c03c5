"""Testing: what tests of a program that uses microorm ask about its statements.

Loaded only by those who import it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from microorm.db.context import BLOCK, EAGER, RECEIVER, USING, Scope, current_alias
from microorm.db.databases import Databases, default_databases
from microorm.db.routing import DEFAULT_ALIAS

__all__ = ["Statements", "count_statements", "no_lazy_loads"]

# What begins and ends transactions, sets something for the session or fetches more of what a statement has found.
_NOT_ABOUT_ROWS = frozenset(
    ["BEGIN", "START", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "SET", "PRAGMA", "FETCH", "CLOSE"]
)


class Statements:
    """What `count_statements` has counted: `statements`, their SQL in the order in which they were sent."""

    def __init__(self) -> None:
        self.statements: list[str] = []

    def __repr__(self) -> str:
        return "\n".join([f"<{self.count} statements>", *self.statements])

    def __len__(self) -> int:
        return len(self.statements)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.statements)

    def _add(self, statement: str) -> None:
        first = statement.split(maxsplit=1)[:1]
        if first and first[0].rstrip(";").upper() not in _NOT_ABOUT_ROWS:
            self.statements.append(statement)


@contextmanager
def count_statements(alias: str | None = None, databases: Databases | None = None) -> Iterator[Statements]:
    """Count the statements that are sent to *alias* of *databases* while the block runs, by whatever thread.

    *alias*: else the innermost of open block, `using()` block and running receiver, else `default`. *databases*:
    else the default ones. What begins and ends transactions and savepoints (`BEGIN`, `SAVEPOINT`, `COMMIT`), or sets
    something for the session (`PRAGMA`, `SET`), is not counted; one call for many rows is one statement. What is
    counted goes through SQLAlchemy's `Connection`, not to the driver's cursor, but in a transaction that was open
    before; the same statements are sent. Opens a connection where the alias has none, since SQLAlchemy asks the
    first some questions. Raises `UnknownAlias`, and what the database raises where it cannot be reached.
    """
    databases = default_databases if databases is None else databases
    if alias is None:
        alias = current_alias(databases, BLOCK, USING, RECEIVER) or DEFAULT_ALIAS
    database = databases.database(alias)
    if not database.opened:
        database.engine.connect().close()
    counted = Statements()
    database.observers.add(database.engine, counted._add)
    try:
        yield counted
    finally:
        database.observers.remove(counted._add)


@contextmanager
def no_lazy_loads() -> Iterator[None]:
    """Raise `LazyLoadError` where an attribute would be loaded by a statement of its own, in this thread or task.

    The error names the field and the instance. What a save or a bulk write loads in order to write it is no lazy load.
    """
    scope = Scope(EAGER, None, "")
    scope.open()
    try:
        yield
    finally:
        scope.close()
