"""Environment: what `env.py` runs, which is alembic's command on every database of the project, each once.

alembic runs a command by running `env.py`. `Migrations` passes a `Request` with the configuration. If there
is none, because plain `alembic` was called, the project's configuration says which databases and models there
are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alembic import context
from alembic.migration import MigrationContext
from alembic.operations.ops import MigrationScript, UpgradeOps
from alembic.util import CommandError
from sqlalchemy import ClauseElement, Connection, Insert, Select, TextClause, create_engine, event, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import ExecutableDDLElement

from microorm.apps import Apps, default_apps
from microorm.db.blocks import adopted, forbidden
from microorm.errors import ConfigurationError, MigrationError
from microorm.migrations.compare import compare_options
from microorm.migrations.dialects import NAMED, print_all_literals
from microorm.migrations.history import History
from microorm.migrations.plan import merge
from microorm.migrations.renames import Rename, check_renames, remove_followed_keys, suspend_foreign_keys
from microorm.migrations.report import Progress, Step, behind, failure, first_line
from microorm.migrations.targets import (
    Target,
    labels_by_table,
    locked,
    models_by_table,
    restricted,
    targets,
    unmanaged_tables,
)
from microorm.project import read_project
from microorm.registry import OUTBOX_TABLES, Registry, default_registry
from microorm.signals import post_migrate, pre_migrate

ATTRIBUTE = "microorm"  # of alembic's configuration, for the request
PRINTING = "SQL is printed, not executed"

Command = Callable[[tuple[str, ...], MigrationContext], Iterable[Any]]


@dataclass(slots=True)
class Request:
    """What a command asks of the environment, and what the environment returns in *steps*.

    *alias* limits the command to one database, and *aliases* to some of those. *on_visit* is called with each
    target, its revisions and alembic's context. The steps are executed only if *execute* is true, and
    *progress* is called after each.
    """

    registry: Registry
    apps: Apps | None = None
    alias: str | None = None
    aliases: frozenset[str] | None = None
    renames: tuple[Rename, ...] = ()
    execute: bool = True
    on_visit: Callable[[Target, tuple[str, ...], MigrationContext], object] | None = None
    progress: Callable[[Step], object] | None = None
    steps: list[Step] = field(default_factory=list)
    needs: list[tuple[Target, UpgradeOps]] = field(default_factory=list)
    present: dict[Target, frozenset[str]] = field(default_factory=dict)  # the tables that a database has

    def add(self, step: Step) -> None:
        """Note a step that is done."""
        self.steps.append(step)
        if self.progress is not None:
            self.progress(step)

    def senders(self) -> Iterable[object]:
        """Return the senders of `pre_migrate` and `post_migrate`: the applications with models, or the registry."""
        configs = self.apps.configs if self.apps is not None else {}
        owners = {label.partition(".")[0] for label in self.registry.models}
        return [config for label, config in configs.items() if label in owners] or [self.registry]


def known_tables(history: History, registry: Registry, *, check: bool = False) -> frozenset[str]:
    """Return the tables that belong or belonged to a model.

    Before the first revision, which creates all tables, there is none, unless databases are *check*ed. The tables of the
    outbox belong to no model when the last durable receiver is gone, and are kept, since they may hold events.
    """
    known = frozenset({*(history.labels.keys() - OUTBOX_TABLES), *models_by_table(registry)})
    return known if history.revisions or check else frozenset()


def default_for_rows(registry: Registry, table: str, column: str) -> tuple[bool, Any]:
    """Return whether *column* has a default for rows that exist, and the value to store."""
    model = models_by_table(registry).get(table)
    for each in model.__schema__.fields if model is not None else ():
        if each.column.name == column:
            found: tuple[bool, Any] = each.default_in_rows()
            return found
    return False, None


def run(**options: Any) -> None:
    """Run alembic's command on every database of the project, each once; all that `env.py` has to call.

    *options* are passed on to `alembic.context.configure`, and override microorm's.

    Raises `MigrationError` if a database cannot be reached or a revision fails. The databases before that one
    are done, and the error says at which revision each is.
    """
    request = context.config.attributes.get(ATTRIBUTE)
    if not isinstance(request, Request):  # plain `alembic`
        read_project(Path(context.script.dir)).set_up()
        request = Request(default_registry, default_apps)
    history = History(context.script)
    context.configure(dialect_name="sqlite")
    command: Command = context.get_context().opts["fn"]
    places = targets(request.registry, history.labels, request.alias)
    environment = Environment(request, history, command, places, options)
    for target in places:
        if context.is_offline_mode():
            environment.print_sql(target)
        elif request.aliases is None or target.alias in request.aliases:
            with _connect(target) as connection, _expected_warnings_ignored():
                environment.visit(target, connection)


@dataclass(frozen=True, slots=True)
class Environment:
    """One run of one command."""

    request: Request
    history: History
    command: Command
    targets: list[Target]
    options: dict[str, Any]

    def print_sql(self, target: Target) -> None:
        """Print the SQL of the command for *target*, without connecting to it."""
        options = {**self._options(target), **self.options}
        options = {"dialect_opts": NAMED, **options}
        context.configure(url=target.database.url, literal_binds=True, fn=self.command, **options)
        print_all_literals(context.get_context().dialect)
        context.static_output(f"-- {', '.join(target.aliases)} ({target.dialect})\n")
        with _expected_warnings_ignored():
            if target.dialect == "sqlite":
                print_sqlite(target, self.command, options, context.static_output)
                return
            migration = context.get_context()
            with (
                restricted(migration, target),
                forbidden(target.databases, PRINTING),
                context.begin_transaction(),
            ):
                migration.run_migrations()

    def visit(self, target: Target, connection: Connection) -> None:
        """Run the command on *target*."""
        request, progress = self.request, Progress(target)
        migration = self._configure(target, connection, progress)
        heads = self._heads(target, migration)
        if request.on_visit is not None:
            request.on_visit(target, heads, migration)
        try:
            infos = [step.info for step in self.command(heads, migration)]
        except CommandError as error:
            lag = behind(target, heads, self.history) if "revision_context" in migration.opts else ""
            raise MigrationError(lag or f"{target.at(heads)}: {error}") from error
        connection.rollback()
        steps = [Step.of(target, info) for info in infos]
        if not request.execute:
            request.steps.extend(steps)
            return
        migrates = "destination_rev" in migration.opts
        plan = [(step.revision, step.down) for step in steps]
        if migrates:
            if not heads and infos and not any(info.is_stamp for info in infos):
                self._refuse_existing_tables(target, connection)
            self._send(pre_migrate, target, plan)
        if steps:
            with locked(target, connection):
                self._execute(migration, connection, progress)
        if migrates:
            self._send(post_migrate, target, plan)

    def _configure(self, target: Target, connection: Connection, progress: Progress) -> MigrationContext:
        def command(heads: tuple[str, ...], migration: MigrationContext) -> Iterator[Any]:
            for step in self.command(heads, migration):
                if target.dialect != "sqlite":  # which does all steps in one transaction
                    self._note_committed(progress)
                progress.begin(step.info)
                yield step

        options = {**self._options(target, connection), "on_version_apply": progress.end, **self.options}
        context.configure(connection=connection, fn=command, **options)
        return context.get_context()

    def _heads(self, target: Target, migration: MigrationContext) -> tuple[str, ...]:
        try:
            return migration.get_current_heads()
        except DBAPIError as error:
            raise MigrationError(
                f"the revision of {target.alias!r} cannot be read: {first_line(error)}"
            ) from error

    def _refuse_existing_tables(self, target: Target, connection: Connection) -> None:
        """Raise `MigrationError` if *target*, which has no revision, has tables that the history creates."""
        existing = set(inspect(connection).get_table_names())
        connection.rollback()
        tables = sorted(table for table in self.history.labels.keys() & existing if target.allows(table))
        if tables:
            raise MigrationError(
                f"{target.alias!r} is at 'base', but has tables of the history: {', '.join(map(repr, tables))}; "
                "if they match the models, record the revision with fake=True or --fake"
            )

    def _send(self, signal: Any, target: Target, plan: list[tuple[str, bool]]) -> None:
        for sender in self.request.senders():
            signal.send(sender, using=target.alias, plan=plan)

    def _execute(self, migration: MigrationContext, connection: Connection, progress: Progress) -> None:
        """Execute the steps: on SQLite in one transaction, on other databases each in its own."""
        target = progress.target
        event.listen(connection, "after_cursor_execute", progress.note)
        try:
            with (
                restricted(migration, target),
                adopted(target.databases, target.aliases, connection),
                context.begin_transaction(),
            ):
                dangling = _dangling_references(target, connection)
                migration.run_migrations()
                _refuse_dangling(target, connection, dangling)
        except BaseException as error:
            connection.rollback()
            failed = failure(progress, error, self.targets, self.options)
            if isinstance(error, Exception):
                raise failed from error
            error.add_note(str(failed))
            raise
        finally:
            event.remove(connection, "after_cursor_execute", progress.note)
        self._note_committed(progress)

    def _note_committed(self, progress: Progress) -> None:
        while progress.steps:
            self.request.add(progress.steps.pop(0))

    def _options(self, target: Target, connection: Connection | None = None) -> dict[str, Any]:
        request = self.request
        known = known_tables(self.history, request.registry, check=request.on_visit is not None)
        ignored = set(unmanaged_tables(request.registry))
        if connection is not None:
            ignored.update(inspect(connection).get_view_names())
            connection.rollback()  # alembic begins its transactions itself
        return {
            **compare_options(target, request.registry.metadata, known - ignored, ignored, request.renames),
            "transactional_ddl": target.dialect in ("sqlite", "postgresql"),
            "transaction_per_migration": target.dialect != "sqlite",
            "process_revision_directives": lambda migration, revision, scripts: self._gather(
                target, migration, scripts
            ),
        }

    def _gather(self, target: Target, migration: MigrationContext, scripts: list[MigrationScript]) -> None:
        """Collect what *target* needs. After the last target, merge it into one script, or remove an empty one."""
        request, script = self.request, scripts[0]
        registry, upgrade = request.registry, script.upgrade_ops_list[-1]
        remove_followed_keys(upgrade, request.renames)
        request.needs.append((target, upgrade))
        if migration.bind is not None:
            suspend_foreign_keys(upgrade, migration.bind, registry.metadata, request.renames)
            request.present[target] = frozenset(inspect(migration.bind).get_table_names())
        if target is not self.targets[-1]:
            return
        check_renames(request.renames, [needed for _, needed in request.needs], registry.metadata)
        upgrade, script.downgrade_ops = merge(
            request.needs,
            registry.metadata,
            lambda table, column: default_for_rows(registry, table, column),
            request.present,
        )
        script.upgrade_ops = upgrade
        if "template_args" in migration.opts:
            changed = {change.table_name for _, needed in request.needs for change in needed.ops}  # type: ignore[attr-defined]
            labels = {table: label for table, label in labels_by_table(registry).items() if table in changed}
            migration.opts["template_args"]["labels"] = labels
        # `alembic check` needs a script; `revision --autogenerate` would write an empty one.
        if upgrade.is_empty() and getattr(context.config.cmd_opts, "autogenerate", False):
            scripts[:] = []


@contextmanager
def _connect(target: Target) -> Iterator[Connection]:
    """Open a connection that is not used again, so that the settings that a revision changes end with it."""
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
            # Not detached, because `autocommit_block` cannot set the isolation level of a detached connection.
            if target.dialect != "sqlite":
                connection.invalidate()


@contextmanager
def _expected_warnings_ignored() -> Iterator[None]:
    with warnings.catch_warnings():
        # Tables that refer to each other are sorted when a revision is made.
        warnings.filterwarnings("ignore", "Cannot correctly sort tables")
        # Indexes on expressions are compared by name, and kept when a table is rebuilt.
        warnings.filterwarnings("ignore", "Skipped unsupported reflection of expression-based index")
        # A type that SQLAlchemy does not know is not compared.
        warnings.filterwarnings("ignore", "Did not recognize type")
        warnings.filterwarnings("ignore", "autogenerate skipping metadata-specified expression-based index")
        yield


def _dangling_references(target: Target, connection: Connection) -> set[Any]:
    if target.dialect != "sqlite":
        return set()
    return {tuple(row) for row in connection.exec_driver_sql("PRAGMA foreign_key_check")}


def _refuse_dangling(target: Target, connection: Connection, before: set[Any]) -> None:
    """Raise `MigrationError` if rows refer to missing rows, and did not *before*."""
    if dangling := _dangling_references(target, connection) - before:
        table, row, other, _ = min(dangling, key=repr)
        raise MigrationError(f"row {row} of {table!r} would refer to a missing row of {other!r}")


@contextmanager
def _empty_database() -> Iterator[Connection]:
    """Give a connection to a database in memory, which is gone at the end; its literals can be printed."""
    engine = create_engine("sqlite://")
    print_all_literals(engine.dialect)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def print_sqlite(
    target: Target, command: Command, options: dict[str, Any], write: Callable[[str], object]
) -> None:
    """Pass the statements of *command* to *write*, by running it on an empty database in memory.

    SQLite changes a table by building a new one from what it knows of the old one, so a database is needed.
    """
    start: Any = context.get_starting_revision_argument()
    script = context.script

    def configure(connection: Connection, command: Command) -> MigrationContext:
        return MigrationContext.configure(connection, opts={**options, "fn": command, "script": script})

    def note(connection: Connection, statement: Any, many: Any, one: Any, execution_options: Any) -> None:
        for sql in _literal(statement, many or [one], connection):
            write(f"{sql};\n")

    with (
        _empty_database() as connection,
        forbidden(target.databases, PRINTING, but=target.aliases),
        adopted(target.databases, target.aliases, connection),
    ):
        if start not in (None, "base", ()):
            migration = configure(connection, lambda heads, migration: [])
            with restricted(migration, target):
                for revision in list(script.iterate_revisions(start, "base"))[::-1]:
                    revision.module.upgrade()
            migration.stamp(script, start)
        write("PRAGMA foreign_keys=OFF;\n\nBEGIN;\n")
        event.listen(connection, "before_execute", note)
        migration = configure(connection, command)
        with restricted(migration, target, printed=True):
            migration.run_migrations()
        write("COMMIT;\n\nPRAGMA foreign_keys=ON;\n")
        connection.rollback()


def _literal(statement: Any, rows: list[Any], connection: Connection) -> Iterator[str]:
    """Yield the text of *statement* for each of *rows*; nothing if it only reads."""
    if isinstance(statement, Select) or not isinstance(statement, ClauseElement):
        return
    if isinstance(statement, TextClause) and statement.text.lstrip().upper().startswith(("SELECT", "PRAGMA")):
        return
    for row in rows:
        each: Any = statement
        if row and isinstance(statement, TextClause):
            each = statement.bindparams(**row)
        elif isinstance(statement, Insert):
            each = (statement.values(row) if row else statement).inline()  # otherwise it would return its key
        literal = {} if isinstance(statement, ExecutableDDLElement) else {"literal_binds": True}
        yield str(each.compile(dialect=connection.dialect, compile_kwargs=literal)).strip()
