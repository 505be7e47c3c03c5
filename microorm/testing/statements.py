"""Counting statements, and refusing lazy loads, in tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from microorm.db.context import BLOCK, EAGER, RECEIVER, USING, Scope, current_alias
from microorm.db.databases import Databases, default_databases
from microorm.db.routing import DEFAULT_ALIAS

__all__ = ["Statements", "count_statements", "no_lazy_loads"]

# Statements about transactions, sessions and cursors are not counted.
_NOT_COUNTED = frozenset(
    ["BEGIN", "START", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "SET", "PRAGMA", "FETCH", "CLOSE"]
)


class Statements:
    """The result of `count_statements`: the SQL of the counted `statements`, in order."""

    def __init__(self) -> None:
        self.statements: list[str] = []

    def __repr__(self) -> str:
        return "\n".join([f"<{self.count} statements>", *self.statements])

    def __len__(self) -> int:
        return len(self.statements)

    @property
    def count(self) -> int:
        """The number of statements."""
        return len(self.statements)

    def _add(self, statement: str) -> None:
        first = statement.split(maxsplit=1)[:1]
        if first and first[0].rstrip(";").upper() not in _NOT_COUNTED:
            self.statements.append(statement)


@contextmanager
def count_statements(using: str | None = None, databases: Databases | None = None) -> Iterator[Statements]:
    """Count the statements that any thread sends to the alias *using* of *databases* while the block runs.

    *using*: by default that of the innermost open block, `using()` block or running receiver, else `default`.
    *databases*: by default the default ones. Statements that begin or end transactions and savepoints (`BEGIN`,
    `SAVEPOINT`, `COMMIT`) or change settings (`PRAGMA`, `SET`) are not counted. One call for many rows is one statement.
    Counted statements are sent through SQLAlchemy's `Connection` rather than the driver's cursor, except in a transaction
    that is already open; the statements are the same. Connects to the database first, since SQLAlchemy sends some
    statements on its first connection. Raises `UnknownAlias`, and errors of the connection.
    """
    databases = default_databases if databases is None else databases
    if using is None:
        using = current_alias(databases, BLOCK, USING, RECEIVER) or DEFAULT_ALIAS
    database = databases.database(using)
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
    """Raise `LazyLoadError` if this thread or task would load an attribute lazily inside the block.

    The error names the field and the instance. Values that a save or a bulk write loads do not count as lazy.
    """
    scope = Scope(EAGER, None, "")
    scope.open()
    try:
        yield
    finally:
        scope.close()
