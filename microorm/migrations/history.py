"""History: the revisions in a folder, oldest first."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING

from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError

from microorm.errors import MigrationError, nearest

if TYPE_CHECKING:
    from alembic.config import Config

MAX_NAMED = 5  # revisions in a message

_IDENTIFIER = re.compile(r"^revision(?:\s*:\s*str)?\s*=\s*[\"']([^\"']+)[\"']", re.MULTILINE)


def name_revisions(heads: Iterable[str]) -> str:
    """Return revisions as a message names them."""
    return " and ".join(map(repr, sorted(heads))) or "'base'"


class History:
    """The revisions of one folder, oldest first. Raises `MigrationError` if a file cannot be read."""

    def __init__(self, directory: ScriptDirectory) -> None:
        self.directory = directory
        with _readable(directory.dir), warnings.catch_warnings():
            # If two files have one identifier, alembic uses the one that it reads last.
            warnings.filterwarnings("error", "Revision .* is present more than once")
            try:
                self.revisions: list[Script] = list(directory.walk_revisions())[::-1]
            except UserWarning as warning:
                raise MigrationError(_duplicates(directory) or str(warning)) from None

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


def _duplicates(directory: ScriptDirectory) -> str:
    """Name two files that have one identifier, and say what to do; return nothing if there are none."""
    folders = [Path(each) for each in directory.version_locations] or [Path(directory.dir, "versions")]
    found: dict[str, Path] = {}
    for path in sorted(path for folder in folders for path in folder.glob("*.py")):
        match = _IDENTIFIER.search(path.read_text())
        if match is not None and found.setdefault(match[1], path) is not path:
            return (
                f"the revision {match[1]!r} is in two files, {found[match[1]].name} and {path.name}; give the one that "
                "no database has run another number, in its name and in `revision =`; then, if both follow the same "
                "revision, join them: microorm merge"
            )
    return ""


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
