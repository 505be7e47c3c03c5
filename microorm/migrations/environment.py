"""Environment: what a project's `env.py` calls, whoever runs it: alembic's command, on every database, each once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alembic import context
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.operations.ops import MigrationScript, UpgradeOps
from alembic.util import CommandError
from sqlalchemy import ClauseElement, Connection, Insert, Select, TextClause, create_engine, event, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import ExecutableDDLElement

from microorm.apps import Apps, default_apps
from microorm.errors import ConfigurationError, MigrationError
from microorm.lending import closed, lent
from microorm.migrations.compare import Rename, comparison, forget_followers, refuse_unused
from microorm.migrations.history import History
from microorm.migrations.plan import merged
from microorm.migrations.report import Progress, current_heads, failure, first_line
from microorm.migrations.targets import Target, locked, restrict, targets
from microorm.project import read_project
from microorm.registry import Registry, default_registry
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


ATTRIBUTE = "microorm"


@dataclass(frozen=True, slots=True)
class Step:
    """One revision of one database: applied, taken back, or planned to be."""

    alias: str
    revision: str
    message: str
    down: bool
    seconds: float = 0.0


@dataclass(slots=True)
class Request:
    """What one command wants. *seen* is called with each database, the revisions it is at, and alembic's context.

    *wanted*: whether the command is for a database that is at these revisions. Unless it *acts*, steps are noted and
    not done. *progress* is called after each step.
    """

    registry: Registry
    apps: Apps | None = None
    alias: str | None = None
    renames: tuple[Rename, ...] = ()
    acts: bool = True
    wanted: Callable[[Target, tuple[str, ...]], bool] = lambda target, heads: True
    seen: Callable[[Target, tuple[str, ...], MigrationContext], object] | None = None
    progress: Callable[[Step], object] | None = None
    steps: list[Step] = field(default_factory=list)
    needs: list[tuple[Target, UpgradeOps]] = field(default_factory=list)
    elsewhere: set[str] = field(default_factory=set)  # tables in databases that do not hold them, or no more

    @classmethod
    def of_project(cls, folder: Path) -> Request:
        """What plain `alembic` wants of the project that *folder* is in."""
        read_project(folder).set_up()
        return cls(default_registry, default_apps)

    def note(self, step: Step) -> None:
        """Keep a step, and tell of it."""
        self.steps.append(step)
        if self.progress is not None:
            self.progress(step)

    def senders(self) -> Iterable[object]:
        """Who sends `pre_migrate` and `post_migrate`: each application that has models, or else the registry."""
        configs = self.apps.configs if self.apps is not None else {}
        owners = {label.partition(".")[0] for label in self.registry.models}
        return [config for label, config in configs.items() if label in owners] or [self.registry]


def known_tables(history: History, registry: Registry, heads: tuple[str, ...]) -> frozenset[str]:
    """The tables that belong to models, or did; none in a database that no migration has touched.

    Before the first revision a database counts as empty, so that the first one makes all its tables, whoever has made
    those that are there.
    """
    if not heads and not history.revisions:
        return frozenset()
    _ = registry.metadata
    return frozenset({*history.labels, *(model.__table__.name for model in registry.models.values())})


def labels_of(registry: Registry) -> Mapping[str, str]:
    """The label of each model's table."""
    _ = registry.metadata
    return {model.__table__.name: label for label, model in registry.models.items()}


def stored_default(registry: Registry, table: str, column: str) -> tuple[bool, Any]:
    """Whether the model of *table* has a value for rows without one in *column*, and which."""
    for model in registry.models.values():
        if model.__table__.name == table:
            for each in model.__schema__.fields:
                if each.column.name == column:
                    found: tuple[bool, Any] = each.default_in_rows()
                    return found
    return False, None


WRITING = "SQL is written, and no database is asked"


def record(target: Target, asked: Asked, options: dict[str, Any], write: Callable[[str], object]) -> None:
    """Give *write* the statements of the revisions that alembic is *asked* for, on a database like *target*."""
    start = context.get_starting_revision_argument()
    engine = create_engine("sqlite://")
    databases = target.databases
    with (
        engine.connect() as connection,
        closed(databases, WRITING, but=target.aliases),
        lent(databases, target.aliases, connection),
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
