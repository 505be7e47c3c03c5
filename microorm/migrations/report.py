"""Failures: where a database stands when a revision of it has failed, in words and for programs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import MigrateOperation
from alembic.operations.ops import (
    AddColumnOp,
    AddConstraintOp,
    AlterColumnOp,
    CreateIndexOp,
    CreateTableOp,
    DropColumnOp,
    DropConstraintOp,
    DropIndexOp,
    DropTableOp,
    ModifyTableOps,
    UpgradeOps,
)
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from microorm.errors import MigrationError
from microorm.migrations.operations import ChangedKey
from microorm.migrations.targets import Target

_MANY = 3
_QUESTIONS = ("SELECT", "PRAGMA", "SHOW", "DESCRIBE", "SAVEPOINT", "BEGIN")


class Progress:
    """What is being done to *target*: the revision, and the statements of it that are done."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.revision = ""
        self.statements: list[str] = []
        self._since = time.perf_counter()

    def begin(self, revision: str) -> None:
        """A revision begins."""
        self.revision = revision
        self.statements.clear()

    def end(self) -> float:
        """It has ended well; the seconds that it took."""
        self.statements.clear()
        before, self._since = self._since, time.perf_counter()
        return self._since - before

    def note(self, connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        """A statement was done."""
        if not statement.lstrip().upper().startswith(_QUESTIONS):
            self.statements.append(" ".join(statement.split()))


def failure(
    progress: Progress, error: BaseException, targets: Iterable[Target], options: Mapping[str, Any]
) -> MigrationError:
    """The error to raise for *error*, by which the revision in *progress* failed: it says where each target is.

    *options* are the project's own, which may name the table that says it.
    """
    target = progress.target
    at = {each: _heads(each, options) for each in targets}
    parts = [f"revision {progress.revision!r} failed on {target.alias!r}: {first_line(error)}"]
    heads = at[target]
    if heads is None:
        parts.append(f"{target.alias!r} cannot be asked where it is")
    else:
        parts.append(target.at(heads))
    if target.dialect == "mariadb":
        parts.append(_left_behind(progress))
    for each, others in at.items():
        if each is not target:
            parts.append(f"{each.alias!r} cannot be asked where it is" if others is None else each.at(others))
    known = {alias: heads for each, heads in at.items() if heads is not None for alias in each.aliases}
    return MigrationError("; ".join(parts), known)


def first_line(error: BaseException) -> str:
    """What *error* says first, without the statement, which SQLAlchemy adds."""
    said = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    lines = str(said).strip().splitlines() or [""]
    kind = "" if isinstance(error, MigrationError) else f"{type(error).__name__}: "
    return f"{kind}{lines[0]}"


def _left_behind(progress: Progress) -> str:
    """What MariaDB, which commits each statement that changes a table, keeps of a revision that failed."""
    done = progress.statements
    if not done:
        return (
            f"nothing of {progress.revision!r} was done in this run, and MariaDB undoes no change of a table"
        )
    shown = "; ".join(each if len(each) < 80 else f"{each[:77]}..." for each in done[-_MANY:])
    more = f"{len(done)} statements" if len(done) > 1 else "1 statement"
    return f"{more} of {progress.revision!r} stay done, since MariaDB undoes no change of a table: {shown}"


def current_heads(connection: Connection, options: Mapping[str, Any]) -> tuple[str, ...]:
    """The revisions that a database is at, by the table that *options* name, or else alembic's own."""
    where = {name: options[name] for name in ("version_table", "version_table_schema") if name in options}
    return MigrationContext.configure(connection, opts=where).get_current_heads()


def _heads(target: Target, options: Mapping[str, Any]) -> tuple[str, ...] | None:
    try:
        with target.database.engine.connect() as connection:
            return current_heads(connection, options)
    except SQLAlchemyError:
        return None


def described(upgrade: UpgradeOps) -> Iterator[str]:
    """One line for each change in *upgrade*, as what the database has or lacks."""
    for operation in upgrade.ops:
        if isinstance(operation, ModifyTableOps):
            for inner in operation.ops:
                yield _described(inner, operation.table_name)
        else:
            yield _described(operation, str(getattr(operation, "table_name", "")))


def _described(operation: MigrateOperation, table: str) -> str:
    match operation:
        case CreateTableOp():
            return f"the table {table!r} is missing"
        case DropTableOp():
            return f"the table {table!r} is left over"
        case AddColumnOp():
            return f"the column '{table}.{operation.column.name}' is missing"
        case DropColumnOp():
            return f"the column '{table}.{operation.column_name}' is left over"
        case AlterColumnOp():
            return f"the column '{table}.{operation.column_name}' differs in its {_altered(operation)}"
        case CreateIndexOp():
            return f"the index {operation.index_name!r} of {table!r} is missing"
        case DropIndexOp():
            return f"the index {str(operation.index_name)!r} of {table!r} is left over"
        case AddConstraintOp():
            return f"the constraint {str(operation.to_constraint().name)!r} of {table!r} is missing"
        case DropConstraintOp():
            return f"the constraint {str(operation.constraint_name)!r} of {table!r} is left over"
        case ChangedKey(stored=stored, wanted=wanted):
            return f"the primary key of {table!r} is {stored!r}, and {wanted!r} in the models"
    return f"the comment of {table!r} differs"


def _altered(operation: AlterColumnOp) -> str:
    changed = {
        "type": operation.modify_type is not None,
        "nullability": operation.modify_nullable is not None,
        "default": operation.modify_server_default is not False,
        "comment": operation.modify_comment is not False,
    }
    return " and ".join(name for name, differs in changed.items() if differs)
