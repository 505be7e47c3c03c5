"""Commands: make a revision, migrate, show, check, print SQL; and the files of a new folder."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import produce_migrations
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations.ops import UpgradeOps
from alembic.runtime.environment import EnvironmentContext
from alembic.util import CommandError, to_tuple

from microorm.apps import default_apps
from microorm.errors import MigrationError
from microorm.migrations.environment import ATTRIBUTE, Request
from microorm.migrations.history import History, name_revisions
from microorm.migrations.renames import parse_rename
from microorm.migrations.report import Step, behind, describe
from microorm.migrations.targets import Target
from microorm.registry import Registry, default_registry

ENVIRONMENT = '''"""Migrations of the models: alembic runs this file for each command, and microorm does the work."""

from microorm import migrations

migrations.run()
'''

TEMPLATE = r'''"""${message.replace("\\", r"\\").replace('"', r'\"')}"""

import sqlalchemy as sa
from alembic import op
${imports + "\n" if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}
# The models of the tables, for routers: a model may be deleted one day.
labels = ${repr(context.get("labels", {}))}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
'''


def write_environment(folder: str | Path) -> list[Path]:
    """Write `env.py`, `script.py.mako` and an empty `versions/` into *folder*, and return the two files.

    Raises `MigrationError` if one of them exists; nothing is written then.
    """
    folder = Path(folder)
    files = {folder / "env.py": ENVIRONMENT, folder / "script.py.mako": TEMPLATE}
    for path in (*files, folder / "versions"):
        if path.exists():
            raise MigrationError(f"{str(path)!r} already exists")
    (folder / "versions").mkdir(parents=True)
    for path, text in files.items():
        path.write_text(text)
    return list(files)


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision: its *id*, its *message*, and its file, *path*.

    *down*: the revisions that it follows. *applied*: whether it is, by alias.
    """

    id: str
    message: str
    down: tuple[str, ...]
    path: Path
    applied: Mapping[str, bool]


@dataclass(frozen=True, slots=True)
class Difference:
    """How the database *alias* differs from the models or from the history, as a line of *text*."""

    alias: str
    text: str


class Migrations:
    """The history of revisions in *folder*, and the databases of *registry*, or of the default one.

    Example: `Migrations("migrations").migrate()`. Raises `MigrationError` if *folder* has no `env.py`.
    """

    def __init__(self, folder: str | Path, registry: Registry | None = None) -> None:
        self.folder = Path(folder).absolute()
        self.registry = default_registry if registry is None else registry
        if not (self.folder / "env.py").is_file():
            raise MigrationError(f"no migrations in {str(folder)!r}: it has no env.py; run `microorm init`")

    def __repr__(self) -> str:
        return f"<Migrations in {str(self.folder)!r}>"

    def make(self, message: str, *, renames: Sequence[str] = (), empty: bool = False) -> Path | None:
        """Write a revision that makes the databases like the models; return its file, or None if they are already.

        *message* is its title, and a part of the name of the file. *renames* are `"old:new"` for tables and
        `"table.old:new"` for columns; without them a renamed table or column is dropped and created. *empty* writes a
        revision without operations.

        Raises `MigrationError` if a database is not at the newest revision or cannot be reached, if the
        history has two heads, and if something to rename does not exist. Nothing is written then.
        """
        history = self._history()
        history.check_single_head()
        request = self._request(renames=tuple(map(parse_rename, renames)), execute=False)
        made = self._run(
            command.revision, request, message=message, rev_id=history.next_id(), autogenerate=not empty
        )
        return Path(made.path) if made else None

    def plan(self, revision: str = "head", *, using: str | None = None) -> list[Step]:
        """Return the steps that `migrate` would take to *revision*, by database, or on that of the alias *using*.

        Raises as `migrate` does before it begins.
        """
        return self._move(revision, using, execute=False)

    def migrate(
        self,
        revision: str = "head",
        *,
        using: str | None = None,
        fake: bool = False,
        progress: Callable[[Step], object] | None = None,
    ) -> list[Step]:
        """Upgrade or downgrade every database, or that of the alias *using*, to *revision*; return the steps.

        *revision* is an identifier or its beginning, `"head"`, `"base"`, or relative to each database:
        `"+1"`, `"-1"`. *fake* records the revision without executing anything. *progress* is called after
        each step. Sends `pre_migrate` and `post_migrate` for each database. Waits for other processes that
        migrate the same database.

        Raises `UnknownAlias`. Raises `MigrationError` for an unknown revision, for two heads, if a database
        cannot be reached, if tables of the history exist though no revision is applied, and if a revision
        fails. The databases before that one are migrated then. SQLite is where it was, PostgreSQL at the
        revision before the one that failed. MariaDB commits each change of a table; the error lists the
        statements. `MigrationError.at` has the revisions.
        """
        if not fake:
            return self._move(revision, using, execute=True, progress=progress)
        self._history().find(revision)
        request = self._request(alias=using, progress=progress)
        self._run(command.stamp, request, revision)
        return request.steps

    def sql(self, revision: str = "head", *, using: str | None = None) -> str:
        """Return the SQL from an empty database to *revision*, or from the first to the second of `"from:to"`.

        It is returned for each database, or for that of the alias *using*; none is connected to. Raises
        `MigrationError` for an unknown revision.
        """
        history = self._history()
        start, colon, end = revision.rpartition(":")
        first, last = history.find(start) if colon else "base", history.find(end)
        output = StringIO()
        request = self._request(alias=using)
        backwards = first != "base" and last in {"base", *history.applied([first])} - {first}
        move = command.downgrade if backwards else command.upgrade
        self._run(move, request, revision, output=output, sql=True)
        return output.getvalue()

    def show(self) -> list[Revision]:
        """Return the revisions, oldest first. Raises `MigrationError` if a database cannot be reached."""
        history = self._history()
        heads = {alias: at for target, at in self._heads(history).items() for alias in target.aliases}
        applied = {alias: history.applied(at) for alias, at in heads.items()}
        return [
            Revision(
                script.revision,
                script.doc or "",
                to_tuple(script.down_revision, ()),
                Path(script.path),
                {alias: script.revision in done for alias, done in applied.items()},
            )
            for script in history.revisions
        ]

    def check(self) -> list[Difference]:
        """Return the databases that are not at the newest revision; if all are, how they differ from the models.

        Raises `MigrationError` if a database cannot be reached.
        """
        history = self._history()
        lagging: list[Difference] = []
        differences: list[Difference] = []

        def check(target: Target, heads: tuple[str, ...], migration: MigrationContext) -> None:
            if text := behind(target, heads, history):
                lagging.extend(Difference(alias, text) for alias in target.aliases)
            elif not lagging:
                differences.extend(self._compare(target, migration))

        self._visit(history, check)
        return lagging or differences

    def compare(self) -> list[Difference]:
        """Return how the databases differ from the models, whatever their revisions. Raises as `check` does."""
        found: list[Difference] = []
        self._visit(
            self._history(), lambda target, heads, migration: found.extend(self._compare(target, migration))
        )
        return found

    def merge(self, message: str) -> Path:
        """Write a revision with this *message* that joins all heads; return its file.

        Raises `MigrationError` if there is only one.
        """
        history = self._history()
        if len(history.heads) < 2:
            raise MigrationError(
                f"the history has one head, {name_revisions(history.heads)}; nothing to join"
            )
        revisions = list(history.heads)
        made = self._run(command.merge, self._request(), revisions, message=message, rev_id=history.next_id())
        return Path(made.path)

    def _move(
        self,
        revision: str,
        alias: str | None,
        *,
        execute: bool,
        progress: Callable[[Step], object] | None = None,
    ) -> list[Step]:
        directions = self._directions(revision, alias)
        steps: list[Step] = []
        # Everything is planned before anything is executed: a plan that fails on one database changes none.
        for executing in (False, True) if execute else (False,):
            steps.clear()
            for move, aliases in directions:
                request = self._request(alias=alias, aliases=aliases, execute=executing, progress=progress)
                self._run(move, request, revision)
                steps.extend(request.steps)
        return steps

    def _directions(
        self, revision: str, alias: str | None
    ) -> list[tuple[Callable[..., Any], frozenset[str] | None]]:
        """Return alembic's commands that lead to *revision*, each with its databases by alias; None for all."""
        history = self._history()
        if revision == "head":
            history.check_single_head()
        if revision == "base" or revision.startswith("-"):
            return [(command.downgrade, None)]
        if revision.startswith("+"):
            return [(command.upgrade, None)]
        found = history.find(revision)
        if revision == "head":
            return [(command.upgrade, None)]
        heads = self._heads(history, alias)
        down = {
            target.alias for target, at in heads.items() if found not in at and found in history.applied(at)
        }
        up = {target.alias for target in heads} - down
        both = ((command.downgrade, frozenset(down)), (command.upgrade, frozenset(up)))
        return [(move, aliases) for move, aliases in both if aliases]

    def _compare(self, target: Target, migration: MigrationContext) -> Iterator[Difference]:
        needed = produce_migrations(migration, self.registry.metadata).upgrade_ops or UpgradeOps([])
        return (Difference(target.alias, text) for text in describe(needed))

    def _heads(self, history: History, alias: str | None = None) -> dict[Target, tuple[str, ...]]:
        found: dict[Target, tuple[str, ...]] = {}
        self._visit(history, lambda target, heads, migration: found.setdefault(target, heads), alias)
        return found

    def _visit(
        self,
        history: History,
        visit: Callable[[Target, tuple[str, ...], MigrationContext], object],
        alias: str | None = None,
    ) -> None:
        """Call *visit* with each target, its revisions and alembic's context."""
        config = self._config(self._request(alias=alias, execute=False, on_visit=visit))
        with _alembic_errors(), EnvironmentContext(config, history.directory, fn=lambda heads, migration: []):
            history.directory.run_env()

    def _run(
        self,
        run: Callable[..., Any],
        request: Request,
        *arguments: Any,
        output: StringIO | None = None,
        **options: Any,
    ) -> Any:
        """Run a command of alembic."""
        with _alembic_errors():
            return run(self._config(request, output), *arguments, **options)

    def _request(self, **options: Any) -> Request:
        apps = default_apps if self.registry is default_registry else None
        return Request(self.registry, apps, **options)

    def _config(self, request: Request, output: StringIO | None = None) -> Config:
        # The project's file has the hooks that run after a revision was written, such as a formatter.
        files = (each / "pyproject.toml" for each in self.folder.parents)
        options: dict[str, Any] = {"toml_file": next((each for each in files if each.is_file()), None)}
        quiet = Namespace(quiet=True, autogenerate=True)
        config = Config(output_buffer=output, attributes={ATTRIBUTE: request}, cmd_opts=quiet, **options)
        config.set_main_option("script_location", str(self.folder).replace("%", "%%"))
        return config

    def _history(self) -> History:
        return History.of(self._config(self._request()))


@contextmanager
def _alembic_errors() -> Iterator[None]:
    """Turn the errors of alembic's commands into `MigrationError`."""
    try:
        yield
    except CommandError as error:
        raise MigrationError(str(error)) from error
