"""Report: the steps that were done, where each database is after an error, and how a database differs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import MigrateOperation, ops
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from microorm.errors import MigrationError
from microorm.migrations.history import History, name_revisions
from microorm.migrations.operations import ChangePrimaryKeyOp, altered, table_key
from microorm.migrations.targets import Target

MAX_STATEMENTS = 3  # in a message
MAX_STATEMENT_LENGTH = 80
_READING = ("SELECT", "PRAGMA", "SHOW", "DESCRIBE", "SAVEPOINT", "BEGIN")


@dataclass(frozen=True, slots=True)
class Step:
    """One *revision* of the database *alias*: applied, reverted (*down*), or planned.

    *message* is its title. *seconds*: how long it took, 0 if it is planned.
    """

    alias: str
    revision: str
    message: str
    down: bool
    seconds: float = 0.0

    @classmethod
    def of(cls, target: Target, info: Any, seconds: float = 0.0) -> Step:
        """Describe alembic's step *info* on *target*, which took so many *seconds*."""
        script = info.up_revision  # None for a stamp at base
        revision, message = (script.revision, script.doc or "") if script is not None else ("base", "")
        return cls(target.alias, revision, message, not info.is_upgrade, seconds)


class Progress:
    """The steps on one target that are done but perhaps not committed, and the statements of the current revision."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.revision = ""
        self.statements: list[str] = []
        self.steps: list[Step] = []
        self._start = time.perf_counter()

    def begin(self, info: Any) -> None:
        """Note that a revision begins."""
        self.revision = Step.of(self.target, info).revision
        self.statements.clear()

    def end(self, *, step: Any, **arguments: Any) -> None:
        """Note that a revision was executed; alembic's `on_version_apply`."""
        self.statements.clear()
        start, self._start = self._start, time.perf_counter()
        self.steps.append(Step.of(self.target, step, self._start - start))

    def note(self, connection: Any, cursor: Any, statement: str, *arguments: Any) -> None:
        """Note a statement; SQLAlchemy's `after_cursor_execute`."""
        if not statement.lstrip().upper().startswith(_READING):
            self.statements.append(" ".join(statement.split()))


def failure(
    progress: Progress, error: BaseException, targets: Iterable[Target], options: Mapping[str, Any]
) -> MigrationError:
    """Return the error to raise if a revision fails by *error*: it says at which revision each of *targets* is.

    *options* are the project's own, which may name another version table.
    """
    at = {target: _current_heads(target, options) for target in targets}
    positions = {
        target: f"the revision of {target.alias!r} cannot be read" if heads is None else target.at(heads)
        for target, heads in at.items()
    }
    failed = progress.target
    parts = [f"revision {progress.revision!r} failed on {failed.alias!r}: {first_line(error)}"]
    parts.append(positions.pop(failed))
    if failed.dialect == "mariadb":
        parts.append(_committed(progress))
    known = {alias: heads for target, heads in at.items() if heads is not None for alias in target.aliases}
    return MigrationError("; ".join([*parts, *positions.values()]), known)


def _current_heads(target: Target, options: Mapping[str, Any]) -> tuple[str, ...] | None:
    table = {name: options[name] for name in ("version_table", "version_table_schema") if name in options}
    try:
        with target.database.engine.connect() as connection:
            return MigrationContext.configure(connection, opts=table).get_current_heads()
    except SQLAlchemyError:
        return None


def _committed(progress: Progress) -> str:
    """Say what MariaDB, which commits each change of a table at once, keeps of a failed revision."""
    if not (done := progress.statements):
        return f"MariaDB has committed nothing of {progress.revision!r} in this run, but perhaps in an earlier one"
    limit = MAX_STATEMENT_LENGTH
    shown = [each if len(each) < limit else f"{each[: limit - 3]}..." for each in done[-MAX_STATEMENTS:]]
    count = f"{len(done)} statement{'s' if len(done) > 1 else ''}"
    return f"MariaDB has committed {count} of {progress.revision!r}: {'; '.join(shown)}"


def first_line(error: BaseException) -> str:
    """Return the class and the first line of *error*, without the statement that SQLAlchemy adds."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    line = (str(cause).strip().splitlines() or [""])[0]
    return line if isinstance(error, MigrationError) else f"{type(error).__name__}: {line}"


def behind(target: Target, heads: tuple[str, ...], history: History) -> str:
    """Say that *target*, which is at *heads*, is not at the newest revision; return nothing if it is."""
    if tuple(sorted(heads)) == history.heads:
        return ""
    return f"{target.at(heads)}, and the newest revision is {name_revisions(history.heads)}"


def describe(upgrade: ops.UpgradeOps) -> Iterator[str]:
    """Yield one line for each change in *upgrade*: how the database differs from the models."""
    for operation in upgrade.ops:
        for inner in operation.ops if isinstance(operation, ops.ModifyTableOps) else (operation,):
            yield _describe(inner, table_key(operation))


def _describe(operation: MigrateOperation, table: str) -> str:
    match operation:
        case ops.CreateTableOp() | ops.DropTableOp():
            subject = f"the table {table!r}"
        case ops.AddColumnOp(column=column):
            subject = f"the column '{table}.{column.name}'"
        case ops.DropColumnOp(column_name=name):
            subject = f"the column '{table}.{name}'"
        case ops.CreateIndexOp(index_name=name) | ops.DropIndexOp(index_name=name):
            subject = f"the index {str(name)!r} of {table!r}"
        case ops.AddConstraintOp():
            subject = f"the constraint {str(operation.to_constraint().name)!r} of {table!r}"
        case ops.DropConstraintOp(constraint_name=name):
            subject = f"the constraint {str(name)!r} of {table!r}"
        case ops.AlterColumnOp(column_name=name):
            return f"the column '{table}.{name}' differs in its {' and '.join(altered(operation))}"
        case ChangePrimaryKeyOp():
            return str(operation)
        case _:
            return f"the comment of {table!r} differs"
    new = isinstance(operation, ops.CreateTableOp | ops.AddColumnOp | ops.CreateIndexOp | ops.AddConstraintOp)
    return f"{subject} {'is missing' if new else 'is not in the models'}"
