"""Recording: the SQL of a migration on SQLite, which nobody can write without a database.

SQLite changes a table by building another from what it knows of the old one. So the revisions are run on an empty
database in memory, and what they send there is written down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from alembic import context
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import ClauseElement, Connection, Insert, Select, TextClause, create_engine, event
from sqlalchemy.schema import ExecutableDDLElement

from microorm.db.transaction import adopted, forbidden
from microorm.migrations.restriction import restrict
from microorm.migrations.targets import Target

Asked = Callable[[tuple[str, ...], MigrationContext], Iterable[Any]]


WRITING = "SQL is written, and no database is asked"


def record(target: Target, asked: Asked, options: dict[str, Any], write: Callable[[str], object]) -> None:
    """Give *write* the statements of the revisions that alembic is *asked* for, on a database like *target*."""
    start = context.get_starting_revision_argument()
    engine = create_engine("sqlite://")
    databases = target.databases
    with (
        engine.connect() as connection,
        forbidden(databases, WRITING, but=target.aliases),
        adopted(databases, target.aliases, connection),
    ):
        _prepare(target, connection, start, options)
        write("PRAGMA foreign_keys=OFF;\n\nBEGIN;\n")

        def note(
            conn: Connection, clauseelement: Any, multiparams: Any, params: Any, execution_options: Any
        ) -> None:
            for sql in _written(clauseelement, multiparams or [params], conn):
                write(f"{sql};\n")

        event.listen(connection, "before_execute", note)
        _run(target, connection, asked, options)
        write("COMMIT;\n\nPRAGMA foreign_keys=ON;\n")
        connection.rollback()
    engine.dispose()


def _prepare(target: Target, connection: Connection, start: Any, options: dict[str, Any]) -> None:
    """Bring the database to where the SQL begins."""
    if start in (None, "base", ()):
        return
    script = context.script
    before = list(script.iterate_revisions(start, "base"))[::-1]
    migration = _configured(connection, lambda heads, migration: [], options)
    with Operations.context(migration) as operations:
        restrict(operations, target)
        for revision in before:
            revision.module.upgrade()
    migration.stamp(script, start)


def _run(target: Target, connection: Connection, asked: Asked, options: dict[str, Any]) -> None:
    migration = _configured(connection, asked, options)
    with Operations.context(migration) as operations:
        restrict(operations, target)
        migration.run_migrations()


def _configured(connection: Connection, asked: Asked, options: dict[str, Any]) -> MigrationContext:
    """A context beside that of the environment, which stays one without a database."""
    return MigrationContext.configure(connection, opts={**options, "fn": asked, "script": context.script})


def _written(statement: Any, rows: list[Any], connection: Connection) -> Iterable[str]:
    """*statement* as text, once for each of *rows*; nothing for a question."""
    if isinstance(statement, Select) or not isinstance(statement, ClauseElement):
        return
    if isinstance(statement, TextClause) and statement.text.lstrip().upper().startswith(("SELECT", "PRAGMA")):
        return
    for row in rows:
        each: Any = statement
        if row and isinstance(statement, TextClause):
            each = statement.bindparams(**row)
        elif isinstance(statement, Insert):
            each = (statement.values(row) if row else statement).inline()  # else it would ask for its key
        literal = {} if isinstance(statement, ExecutableDDLElement) else {"literal_binds": True}
        yield str(each.compile(dialect=connection.dialect, compile_kwargs=literal)).strip()
