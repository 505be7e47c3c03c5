"""History: the revisions in a folder, oldest first."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING, Any

from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError, to_tuple

from microorm.errors import MigrationError, nearest

if TYPE_CHECKING:
    from alembic.config import Config

MAX_NAMED = 5  # revisions in a message


def name_revisions(heads: Iterable[str]) -> str:
    """Return revisions as a message names them."""
    return " and ".join(map(repr, sorted(heads))) or "'base'"


class History:
    """The revisions of one folder, oldest first. Raises `MigrationError` if a file cannot be read."""

    def __init__(self, directory: ScriptDirectory) -> None:
        self.directory = directory
        _check_files(directory)
        with _readable(directory.dir):
            self.revisions: list[Script] = list(directory.walk_revisions())[::-1]

    @classmethod
    def of(cls, config: Config) -> History:
        """Read the history in the folder that *config* names."""
        with _readable(config.get_main_option("script_location") or ""):
            directory = ScriptDirectory.from_config(config)
        return cls(directory)

    @property
    def heads(self) -> tuple[str, ...]:
        """The newest revisions, sorted: one as a rule, none in an empty folder, several if the history has branches."""
        return tuple(sorted(self.directory.get_heads()))

    @property
    def labels(self) -> dict[str, str]:
        """The label of the model of each table that a revision names; the newest revision wins."""
        found: dict[str, str] = {}
        for script in self.revisions:
            found.update(getattr(script.module, "labels", {}))
        return found

    def applied(self, heads: Iterable[str]) -> frozenset[str]:
        """Return *heads* and all revisions before them. Raises `MigrationError` if the folder lacks one of them."""
        heads = tuple(heads)
        if unknown := set(heads) - {script.revision for script in self.revisions}:
            raise MigrationError(
                f"a database is at {name_revisions(unknown)}, but no file has this revision{self._known}"
            )
        applied = self.directory.iterate_revisions(heads, "base") if heads else ()
        return frozenset(script.revision for script in applied)

    def find(self, revision: str) -> str:
        """Return the identifier that *revision* stands for: it, its beginning, `head` or `base`.

        Raises `MigrationError` unless there is exactly one.
        """
        if not revision:
            raise MigrationError(f"no revision {revision!r}{self._known}")
        try:
            found = self.directory.get_revision(revision)
        except CommandError as error:
            if "Can't locate" not in str(error):
                raise MigrationError(str(error)) from None
            similar = nearest(revision, [each.revision for each in self.revisions])
            raise MigrationError(f"no revision {revision!r}{similar}{self._known}") from None
        return found.revision if found is not None else "base"

    def check_single_head(self) -> None:
        """Raise `MigrationError` if the history has several heads."""
        if len(self.heads) > 1:
            raise MigrationError(
                f"the history has {len(self.heads)} heads, {name_revisions(self.heads)}, which no revision joins"
            )

    def next_id(self) -> str:
        """Return the identifier of the next revision: one more than the highest number."""
        numbers = [int(each.revision) for each in self.revisions if each.revision.isdecimal()]
        return f"{max(numbers, default=0) + 1:04}"

    @property
    def _known(self) -> str:
        names = [repr(each.revision) for each in self.revisions[-MAX_NAMED:]]
        more = "…, " if len(self.revisions) > len(names) else ""
        return f"; known: {more}{', '.join(names) or 'none'}"


def _check_files(directory: ScriptDirectory) -> None:
    """Raise `MigrationError` if two files have one identifier, or a file follows a revision that does not exist.

    alembic would use the file that it reads last, and fail without naming the other one.
    """
    folders = [Path(each) for each in directory.version_locations] or [Path(directory.dir, "versions")]
    files = {path: _constants(path) for folder in folders for path in sorted(folder.glob("*.py"))}
    found: dict[str, Path] = {}
    for path, constants in files.items():
        revision = constants.get("revision")
        if isinstance(revision, str) and (other := found.setdefault(revision, path)) is not path:
            raise MigrationError(
                f"the revision {revision!r} is in two files, {other.name} and {path.name}; give the one that no "
                "database has run another number, in its name and in `revision =`; then, if both follow the same "
                "revision, join them: microorm merge"
            )
    for path, constants in files.items():
        down = constants.get("down_revision")
        for parent in to_tuple(down, ()):
            if not isinstance(parent, str) or parent not in found or parent == constants.get("revision"):
                known = ", ".join(map(repr, found))
                raise MigrationError(
                    f"{path.name}: down_revision = {down!r}: no other file has the revision {parent!r}; known: {known}"
                )


def _constants(path: Path) -> dict[str, Any]:
    """Return the constants that a revision assigns; none if the file cannot be parsed, which is an error later."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError):
        return {}
    found: dict[str, Any] = {}
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if (
            isinstance(node, ast.Assign | ast.AnnAssign)
            and node.value is not None
            and isinstance(targets[0], ast.Name)
        ):
            with suppress(ValueError):
                found[targets[0].id] = ast.literal_eval(node.value)
    return found


@contextmanager
def _readable(folder: str) -> Iterator[None]:
    """Turn errors of reading revisions into a `MigrationError` that names the file in *folder*."""
    try:
        yield
    except MigrationError:
        raise
    except (CommandError, UserWarning) as error:
        raise MigrationError(str(error)) from error
    except Exception as error:
        file, line = _origin(error, folder)
        raise MigrationError(f"{file}:{line} cannot be read: {type(error).__name__}: {error}") from error


def _origin(error: BaseException, folder: str) -> tuple[str, int | None]:
    """Return the file in *folder*, and the line, that *error* comes from."""
    if isinstance(error, SyntaxError) and error.filename:
        return error.filename, error.lineno
    inside = Path(folder).absolute()
    frames = [each for each in extract_tb(error.__traceback__) if Path(each.filename).is_relative_to(inside)]
    return (frames[-1].filename, frames[-1].lineno) if frames else (folder, None)
