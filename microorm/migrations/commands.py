"""Commands: what can be done with a history: make a revision, migrate, show, check, write SQL."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.autogenerate import produce_migrations
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations.ops import UpgradeOps
from alembic.runtime.environment import EnvironmentContext
from alembic.util import CommandError

from microorm.apps import default_apps
from microorm.errors import MigrationError
from microorm.migrations.compare import read_rename
from microorm.migrations.environment import ATTRIBUTE, Request, Step
from microorm.migrations.history import History, parents
from microorm.migrations.report import described
from microorm.migrations.targets import Target
from microorm.registry import Registry, default_registry

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision: its file, what it follows (*down*), and whether each database, by its alias, has it."""

    id: str
    message: str
    down: tuple[str, ...]
    path: Path
    applied: Mapping[str, bool]


@dataclass(frozen=True, slots=True)
class Difference:
    """Something in which the database *alias* is not what the models say."""

    alias: str
    text: str


class Migrations:
    """One history of revisions in *folder*, and the databases of *registry* (else the default one) it is applied to.

    Raises `MigrationError` where *folder* holds no `env.py`.
    """

    def __init__(self, folder: str | Path, registry: Registry | None = None) -> None:
        self.folder = Path(folder).absolute()
        self.registry = default_registry if registry is None else registry
        if not (self.folder / "env.py").is_file():
            raise MigrationError(f"no migrations in {str(folder)!r}: it has no env.py")

    def __repr__(self) -> str:
        return f"<Migrations in {str(self.folder)!r}>"

    def make(self, message: str, *, renames: Sequence[str] = (), empty: bool = False) -> Path | None:
        """Write a revision with what the databases lack of the models; its file, or None where they lack nothing.

        Each database is compared as it is. *renames*: `"old:new"` for tables, `"table.old:new"` for columns, which
        are otherwise dropped and added. *empty*: a revision without changes, to be written by hand.

        Raises `MigrationError` where a database is behind the newest revision or cannot be reached, where the history
        has two heads, and for a rename of what is not there; nothing is written then.
        """
        history = self._history()
        history.single_head()
        options: dict[str, Any] = {"message": message, "rev_id": history.next_id()}
        if empty:
            return self._written(command.revision(self._config(self._request()), **options))
        request = self._request(renames=tuple(map(read_rename, renames)), acts=False)
        self._refuse_behind(history)
        with _told():
            made = command.revision(self._config(request), autogenerate=True, **options)
        return self._written(made)

    def plan(self, revision: str = "head", *, alias: str | None = None) -> list[Step]:
        """The steps that `migrate` would do, database by database. Raises as `migrate` does before it begins."""
        return self._move(revision, alias, acts=False)

    def migrate(
        self,
        revision: str = "head",
        *,
        alias: str | None = None,
        fake: bool = False,
        progress: Callable[[Step], object] | None = None,
    ) -> list[Step]:
        """Bring every database, or that of *alias*, to *revision*, up or down; the steps that were done.

        *revision*: an identifier or the beginning of one, `"head"`, `"base"`, or `"+1"`, `"-1"` from where each is.
        *fake*: only note that it is there. *progress* is called after each step. Sends `pre_migrate` and
        `post_migrate` for each database (CONTRACT Q1, Q2). Who else migrates a database meanwhile is waited for.

        Raises `UnknownAlias`, and `MigrationError`: for an unknown revision, two heads, a database that cannot be
        reached, tables that are there though no revision made them, and a revision that fails. The databases before
        it are done then; PostgreSQL is at the revision before the one that failed, SQLite where it was; of MariaDB,
        which commits each change of a table, the error says which statements are done (`MigrationError.at`).
        """
        if not fake:
            return self._move(revision, alias, acts=True, progress=progress)
        self._history().find(revision)
        request = self._request(alias=alias, progress=progress)
        with _told():
            command.stamp(self._config(request), revision)
        return request.steps

    def sql(self, revision: str = "head", *, alias: str | None = None) -> str:
        """The SQL that brings an empty database, or one at the first of `"from:to"`, to *revision*; for each database.

        No database is asked. Raises `MigrationError` for an unknown revision.
        """
        history = self._history()
        start, colon, end = revision.rpartition(":")
        for each in (start, end) if colon else (end,):
            history.find(each)
        written = StringIO()
        config = self._config(self._request(alias=alias), written)
        down = bool(start) and history.find(end) not in _after(history, start)
        with _told():
            if down:
                command.downgrade(config, f"{start}:{end}", sql=True)
            else:
                command.upgrade(config, revision, sql=True)
        return written.getvalue()

    def show(self) -> list[Revision]:
        """The revisions, oldest first. Raises `MigrationError` where a database cannot be reached."""
        history = self._history()
        applied = {target: history.applied(heads) for target, heads in self._heads().items()}
        return [
            Revision(
                script.revision,
                script.doc or "",
                parents(script),
                Path(script.path),
                {
                    alias: script.revision in done
                    for target, done in applied.items()
                    for alias in target.aliases
                },
            )
            for script in history.revisions
        ]

    def check(self) -> list[Difference]:
        """What is not as it should be: databases that are behind, else in what they differ from the models.

        Nothing where all agree. Raises `MigrationError` where a database cannot be reached.
        """
        history = self._history()
        behind = [
            Difference(alias, f"{target.at(heads)}, and the newest is {_named(history)}")
            for target, heads in self._heads().items()
            for alias in target.aliases
            if tuple(sorted(heads)) != history.heads
        ]
        return behind or self.compare()

    def compare(self) -> list[Difference]:
        """In what the databases differ from the models as they are now, whatever revision they are at.

        Raises as `check` does.
        """
        found: list[Difference] = []

        def compare(target: Target, heads: tuple[str, ...], migration: MigrationContext) -> None:
            needed = produce_migrations(migration, self.registry.metadata).upgrade_ops or UpgradeOps([])
            found.extend(Difference(target.alias, text) for text in described(needed))

        self._visit(compare)
        return found

    def merge(self, message: str) -> Path:
        """Write the revision that joins all heads; its file. `MigrationError` where there is nothing to join."""
        history = self._history()
        if len(history.heads) < 2:
            raise MigrationError(f"the history has one head, {_named(history)}, and nothing to join")
        with _told():
            made = command.merge(
                self._config(self._request()), list(history.heads), message=message, rev_id=history.next_id()
            )
        path = self._written(made)
        assert path is not None
        return path

    def _move(
        self,
        revision: str,
        alias: str | None,
        *,
        acts: bool,
        progress: Callable[[Step], object] | None = None,
    ) -> list[Step]:
        history = self._history()
        if revision == "head":
            history.single_head()
        if revision[:1] not in ("+", "-"):
            history.find(revision)
        if acts:  # what cannot be done somewhere is not begun anywhere
            self._move(revision, alias, acts=False)
        heads = self._heads(alias)
        down = {target.alias for target, at in heads.items() if _goes_down(history, revision, at)}
        steps: list[Step] = []
        for going, move in ((True, command.downgrade), (False, command.upgrade)):
            aliases = {target.alias for target in heads if (target.alias in down) is going}
            if not aliases:
                continue
            request = self._request(alias=alias, acts=acts, progress=progress)
            request.wanted = lambda target, at, aliases=aliases: target.alias in aliases  # type: ignore[misc]
            with _told():
                move(self._config(request), revision)
            steps.extend(request.steps)
        return steps

    def _refuse_behind(self, history: History) -> None:
        for target, heads in self._heads().items():
            if tuple(sorted(heads)) != history.heads:
                raise MigrationError(f"{target.at(heads)}, and the newest revision is {_named(history)}")

    def _heads(self, alias: str | None = None) -> dict[Target, tuple[str, ...]]:
        found: dict[Target, tuple[str, ...]] = {}
        self._visit(lambda target, heads, migration: found.setdefault(target, heads), alias)
        return found

    def _visit(
        self, seen: Callable[[Target, tuple[str, ...], MigrationContext], object], alias: str | None = None
    ) -> None:
        request = self._request(alias=alias, acts=False, seen=seen)
        config = self._config(request)
        with _told():
            history = History.of(config)
            with EnvironmentContext(config, history.directory, fn=lambda heads, migration: []):
                history.directory.run_env()

    def _request(self, **wanted: Any) -> Request:
        apps = default_apps if self.registry is default_registry else None
        return Request(self.registry, apps, **wanted)

    def _config(self, request: Request, output: StringIO | None = None) -> Config:
        # What runs after a revision was written, a formatter say, stands in the project's file.
        files = (each / "pyproject.toml" for each in self.folder.parents)
        options: dict[str, Any] = {"toml_file": next((each for each in files if each.is_file()), None)}
        quiet = Namespace(quiet=True, autogenerate=True)
        config = Config(output_buffer=output, attributes={ATTRIBUTE: request}, cmd_opts=quiet, **options)
        config.set_main_option("script_location", str(self.folder).replace("%", "%%"))
        return config

    def _history(self) -> History:
        return History.of(self._config(self._request()))

    def _written(self, made: Any) -> Path | None:
        scripts = made if isinstance(made, list) else [made]
        return Path(scripts[0].path) if scripts and scripts[0] else None


def _goes_down(history: History, revision: str, heads: tuple[str, ...]) -> bool:
    if revision == "base" or revision.startswith("-"):
        return True
    if revision in ("head", "heads") or revision.startswith("+"):
        return False
    wanted = history.find(revision)
    return wanted not in heads and wanted in history.applied(heads)


def _after(history: History, start: str) -> frozenset[str]:
    """The revisions that follow *start*, and itself."""
    first = history.find(start)
    return frozenset(
        each.revision
        for each in history.revisions
        if first == "base" or first in history.applied([each.revision])
    ) | {"base" if first == "base" else first}


def _named(history: History) -> str:
    return " and ".join(map(repr, history.heads)) or "'base'"


@contextmanager
def _told() -> Iterator[None]:
    """Turn what alembic refuses into a `MigrationError`."""
    try:
        yield
    except CommandError as error:
        raise MigrationError(str(error)) from error


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
# Whose tables these are, for routers: a model may be gone one day.
labels = ${repr(context.get("labels", {}))}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
'''


def write_environment(folder: str | Path) -> list[Path]:
    """Write `env.py`, `script.py.mako` and an empty `versions/` into *folder*, made if it is not there; the files.

    Raises `MigrationError` where one of them is there already; nothing is written then.
    """
    folder = Path(folder)
    files = {folder / "env.py": ENVIRONMENT, folder / "script.py.mako": TEMPLATE}
    for path in (*files, folder / "versions"):
        if path.exists():
            raise MigrationError(f"{str(path)!r} is there already")
    (folder / "versions").mkdir(parents=True)
    for path, text in files.items():
        path.write_text(text)
    return list(files)
