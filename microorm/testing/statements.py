"""Counting statements, and refusing lazy loads, in tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from microorm.db.context import BLOCK, EAGER, RECEIVER, USING, Scope, current_alias
from microorm.db.databases import Databases, default_databases
from microorm.db.engines.engine import Database
from microorm.db.routing import DEFAULT_ALIAS
from microorm.instrumentation import STATEMENT, Step, add_watcher, remove_watcher

__all__ = ["Statements", "count_statements", "is_counted", "no_lazy_loads", "observed"]

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
        if is_counted(statement):
            self.statements.append(statement)


@contextmanager
def observed(database: Database, observer: Callable[[str], object]) -> Iterator[None]:
    """Call *observer* with each statement to *database*, from any thread or task, before it is sent."""

    def watch(step: Step) -> None:
        if step.kind is STATEMENT and database.is_same(step.subject[0]):
            observer(step.details["sql"])

    add_watcher(watch)
    try:
        yield
    finally:
        remove_watcher(watch)


def is_counted(statement: str) -> bool:
    """Return whether *statement* is about rows or tables, and not about transactions, sessions or cursors."""
    first = statement.split(maxsplit=1)[:1]
    return bool(first) and first[0].rstrip(";").upper() not in _NOT_COUNTED


@contextmanager
def count_statements(using: str | None = None, databases: Databases | None = None) -> Iterator[Statements]:
    """Count the statements that any thread sends to the alias *using* of *databases* while the block runs.

    *using*: by default that of the innermost open block, `using()` block or running receiver, else `default`.
    *databases*: by default the default ones. Statements that begin or end transactions and savepoints (`BEGIN`,
    `SAVEPOINT`, `COMMIT`) or change settings (`PRAGMA`, `SET`) are not counted, nor are those that SQLAlchemy sends on its first
    connection. One call for many rows is one statement. Raises `UnknownAlias`.
    """
    databases = default_databases if databases is None else databases
    if using is None:
        using = current_alias(databases, BLOCK, USING, RECEIVER) or DEFAULT_ALIAS
    counted = Statements()
    with observed(databases.database(using), counted._add):
        yield counted


@contextmanager
def no_lazy_loads() -> Iterator[None]:
    """Raise `LazyLoadError` if this thread or task would load an attribute lazily inside the block.

    Use it as `with no_lazy_loads(): ...`, or as a decorator. The error names the field and the instance. Values that a
    save or a bulk write loads do not count as lazy.
    """
    scope = Scope(EAGER, None, "")
    scope.open()
    try:
        yield
    finally:
        scope.close()
