"""Environment: what a project's `env.py` calls, whoever runs it: alembic's command, on every database, each once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import context
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.operations.ops import MigrationScript
from alembic.util import CommandError
from sqlalchemy import Connection, event, inspect
from sqlalchemy.exc import DBAPIError

from microorm.errors import ConfigurationError, MigrationError
from microorm.lending import closed, lent
from microorm.migrations.compare import forget_followers, refuse_unused
from microorm.migrations.comparison import comparison
from microorm.migrations.failures import Progress, current_heads, failure, first_line
from microorm.migrations.history import History
from microorm.migrations.locking import locked
from microorm.migrations.merging import merged
from microorm.migrations.recording import WRITING, record
from microorm.migrations.requests import (
    ATTRIBUTE,
    Request,
    Step,
    known_tables,
    labels_of,
    stored_default,
)
from microorm.migrations.restriction import restrict
from microorm.migrations.targets import Target, targets
from microorm.signals import post_migrate, pre_migrate

Asked = Callable[[tuple[str, ...], MigrationContext], Iterable[Any]]


def run(**options: Any) -> None:
    """Run the command that alembic was called for, on every database of the project, each once.

    The whole of an `env.py`. *options* go to `alembic.context.configure`, for what a project wants otherwise.
    Raises `MigrationError` where a database cannot be reached and where a revision fails; the databases before that
    one are done by then, and each is at a revision that the error names.
    """
    request = context.config.attributes.get(ATTRIBUTE)
    if not isinstance(request, Request):
        request = Request.of_project(Path(context.script.dir))
    history = History(context.script)
    context.configure(dialect_name="sqlite")
    asked: Asked = context.get_context().opts["fn"]
    places = targets(request.registry, history.labels, request.alias)
    environment = Environment(request, history, asked, places, options)
    for target in places:
        if context.is_offline_mode():
            environment.write(target)
        else:
            environment.visit(target)


class Environment:
    """One run of one command."""

    def __init__(
        self, request: Request, history: History, asked: Asked, places: list[Target], options: dict[str, Any]
    ) -> None:
        self.request = request
        self.history = history
        self.asked = asked
        self.targets = places
        self.options = options

    def write(self, target: Target) -> None:
        """Write the SQL for *target*, which is not asked for anything."""
        context.configure(
            url=target.database.url,
            literal_binds=True,
            fn=self.asked,
            **self._options(target, ()),
            **self.options,
        )
        context.static_output(f"-- {', '.join(target.aliases)} ({target.dialect})\n")
        with _quiet():
            if target.dialect == "sqlite":
                options = {**self._options(target, ()), **self.options}
                record(target, self.asked, options, context.static_output)
                return
            with Operations.context(context.get_context()) as operations, closed(target.databases, WRITING):
                restrict(operations, target)
                with context.begin_transaction():
                    context.get_context().run_migrations()

    def visit(self, target: Target) -> None:
        """Run the command on *target*."""
        with _connected(target) as connection, _quiet():
            self._run(target, connection)

    def _run(self, target: Target, connection: Connection) -> None:
        migration = self._configured(target, connection, self.asked)
        heads = migration.get_current_heads()
        if self.request.seen is not None:
            self.request.seen(target, heads, migration)
        if not self.request.wanted(target, heads):
            return
        try:
            steps = list(self.asked(heads, migration))
        except CommandError as error:
            raise MigrationError(f"{target.at(heads)}: {error}") from error
        connection.rollback()
        if not self.request.acts:
            self.request.steps.extend(_step(target, each.info, 0.0) for each in steps)
            return
        moves = "destination_rev" in migration.opts
        plan = [(_step(target, each.info, 0.0).revision, not each.info.is_upgrade) for each in steps]
        if moves:
            self._refuse_strange_tables(target, connection, heads, steps)
            self._tell(pre_migrate, target, plan)
        if steps:
            with locked(target, connection):
                self._do(target, connection)
        if moves:
            self._tell(post_migrate, target, plan)

    def _refuse_strange_tables(
        self, target: Target, connection: Connection, heads: tuple[str, ...], steps: list[Any]
    ) -> None:
        """Raise `MigrationError` where tables of the history are in a database that no revision has touched."""
        if heads or not steps or any(step.info.is_stamp for step in steps):
            return
        there = set(inspect(connection).get_table_names())
        connection.rollback()
        strange = sorted(table for table in self.history.labels.keys() & there if target.allows(table))
        if strange:
            raise MigrationError(
                f"{target.alias!r} is at 'base', and has tables that no revision made to its end: "
                f"{', '.join(map(repr, strange))}"
            )

    def _tell(self, signal: Any, target: Target, plan: list[tuple[str, bool]]) -> None:
        for sender in self.request.senders():
            signal.send(sender, using=target.alias, plan=plan)

    def _do(self, target: Target, connection: Connection) -> None:
        """Do the steps: on SQLite all in one transaction, else each in one of its own."""
        progress = Progress(target)
        done: list[Step] = []  # and not yet committed

        def asked(heads: tuple[str, ...], migration: MigrationContext) -> Iterator[Any]:
            for step in self.asked(heads, migration):
                if target.dialect != "sqlite":
                    self._note(done)
                progress.begin(_step(target, step.info, 0.0).revision)
                yield step

        def applied(*, step: Any, **_: Any) -> None:
            done.append(_step(target, step, progress.end()))

        migration = self._configured(target, connection, asked, on_version_apply=applied)
        event.listen(connection, "after_cursor_execute", progress.note)
        try:
            with (
                Operations.context(migration) as operations,
                lent(target.databases, target.aliases, connection),
            ):
                restrict(operations, target)
                with context.begin_transaction():
                    broken = _broken_references(target, connection)
                    migration.run_migrations()
                    _refuse_broken(target, connection, broken)
        except BaseException as error:
            connection.rollback()
            failed = failure(progress, error, self.targets, self.options)
            if isinstance(error, Exception):
                raise failed from error
            error.add_note(str(failed))
            raise
        finally:
            event.remove(connection, "after_cursor_execute", progress.note)
        self._note(done)

    def _note(self, done: list[Step]) -> None:
        while done:
            self.request.note(done.pop(0))

    def _configured(
        self, target: Target, connection: Connection, asked: Asked, **more: Any
    ) -> MigrationContext:
        settings = self._options(target, self._heads(connection))
        context.configure(connection=connection, fn=asked, **settings, **more, **self.options)
        return context.get_context()

    def _options(self, target: Target, heads: tuple[str, ...]) -> dict[str, Any]:
        request = self.request
        known = known_tables(self.history, request.registry, heads)
        return {
            **comparison(target, request.registry.metadata, known, request.renames),
            "transactional_ddl": target.dialect in ("sqlite", "postgresql"),
            "transaction_per_migration": target.dialect != "sqlite",
            "process_revision_directives": lambda migration, revision, scripts: self._gather(
                target, migration, scripts
            ),
        }

    def _heads(self, connection: Connection) -> tuple[str, ...]:
        try:
            return current_heads(connection, self.options)
        except DBAPIError as error:
            raise MigrationError(f"no revision could be read: {first_line(error)}") from error
        finally:
            connection.rollback()

    def _gather(self, target: Target, migration: MigrationContext, scripts: list[MigrationScript]) -> None:
        """Keep what *target* needs; with the last one make one script of all of it, or none where nothing is needed."""
        request, script = self.request, scripts[0]
        forget_followers(script.upgrade_ops_list[-1], request.renames)
        request.needs.append((target, script.upgrade_ops_list[-1]))
        if migration.bind is not None:
            there = inspect(migration.bind).get_table_names()
            request.elsewhere.update(table for table in there if not target.allows(table))
        if target is not self.targets[-1]:
            return
        refuse_unused(request.renames, [needed for _, needed in request.needs], request.registry.metadata)
        upgrade, downgrade = merged(
            request.needs,
            request.registry.metadata,
            lambda table, column: stored_default(request.registry, table, column),
            frozenset(request.elsewhere),
        )
        script.upgrade_ops, script.downgrade_ops = upgrade, downgrade
        if "template_args" in migration.opts:
            touched = {change.table_name for _, needed in request.needs for change in needed.ops}  # type: ignore[attr-defined]
            labels = {
                table: label for table, label in labels_of(request.registry).items() if table in touched
            }
            migration.opts["template_args"]["labels"] = labels
        # `alembic check` wants a script to look at; `revision --autogenerate` would write one that does nothing.
        if upgrade.is_empty() and getattr(context.config.cmd_opts, "autogenerate", False):
            scripts[:] = []


def _step(target: Target, info: Any, seconds: float) -> Step:
    revision = info.up_revision
    if revision is None:  # a stamp at base
        return Step(target.alias, "base", "", not info.is_upgrade, seconds)
    return Step(target.alias, revision.revision, revision.doc or "", not info.is_upgrade, seconds)


@contextmanager
def _connected(target: Target) -> Iterator[Connection]:
    """A connection that nobody has after, so that what a revision sets in it is gone with it."""
    try:
        opened = target.database.engine.connect()
    except ConfigurationError:
        raise
    except Exception as error:
        raise MigrationError(f"{target.alias!r} cannot be reached: {first_line(error)}") from error
    with opened as connection:
        try:
            yield connection
        finally:
            # Not detached: of such a one SQLAlchemy cannot set the isolation level, as `autocommit_block` does.
            if target.dialect != "sqlite":
                connection.invalidate()


@contextmanager
def _quiet() -> Iterator[None]:
    """Let nobody be warned of what is taken care of."""
    with warnings.catch_warnings():
        # Tables that refer to each other in a circle are sorted when a revision is made.
        warnings.filterwarnings("ignore", "Cannot correctly sort tables")
        # An index on an expression is nobody's but the database's; a table that is built anew keeps it.
        warnings.filterwarnings("ignore", "Skipped unsupported reflection of expression-based index")
        warnings.filterwarnings("ignore", "autogenerate skipping metadata-specified expression-based index")
        yield


def _broken_references(target: Target, connection: Connection) -> set[Any]:
    if target.dialect != "sqlite":
        return set()
    return {tuple(row) for row in connection.exec_driver_sql("PRAGMA foreign_key_check")}


def _refuse_broken(target: Target, connection: Connection, before: set[Any]) -> None:
    """Raise `MigrationError` where rows refer to rows that are not there, and did not before."""
    if broken := _broken_references(target, connection) - before:
        table, row, other, _ = min(broken, key=repr)
        raise MigrationError(f"row {row} of {table!r} would refer to no row of {other!r}")
