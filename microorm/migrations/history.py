"""History: the revisions in a folder, and what they say of tables whose models may be gone."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError

from microorm.errors import MigrationError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.config import Config


class History:
    """The revisions of one folder, oldest first. `MigrationError` where a file of it cannot be read."""

    def __init__(self, directory: ScriptDirectory) -> None:
        self.directory = directory
        with readable(directory.dir), warnings.catch_warnings():
            # Of two files with one identifier alembic would keep the one that it reads last.
            warnings.filterwarnings("error", "Revision .* is present more than once")
            self.revisions: list[Script] = list(directory.walk_revisions())[::-1]

    @classmethod
    def of(cls, config: Config) -> History:
        """The history that *config* speaks of."""
        with readable(config.get_main_option("script_location") or ""):
            directory = ScriptDirectory.from_config(config)
        return cls(directory)

    @property
    def heads(self) -> tuple[str, ...]:
        """The revisions that none follows: one, none before the first, several where two were made side by side."""
        return tuple(sorted(self.directory.get_heads()))

    @property
    def labels(self) -> dict[str, str]:
        """For each table that a revision touches the label of its model, as the newest says."""
        found: dict[str, str] = {}
        for script in self.revisions:
            found.update(getattr(script.module, "labels", {}))
        return found

    def applied(self, heads: Iterable[str]) -> frozenset[str]:
        """*heads* and all revisions before them. `MigrationError` where one of them is not in the folder."""
        by_id = {script.revision: script for script in self.revisions}
        found: set[str] = set()
        waiting = list(heads)
        while waiting:
            revision = waiting.pop()
            if revision not in by_id:
                raise MigrationError(
                    f"the database is at {revision!r}, and no file has this revision{self.known}"
                )
            if revision not in found:
                found.add(revision)
                waiting.extend((*parents(by_id[revision]), *depended_on(by_id[revision])))
        return frozenset(found)

    def find(self, revision: str) -> str:
        """The whole identifier that *revision* begins. `MigrationError` where there is no such revision, or several."""
        if not revision:
            raise MigrationError(f"no revision {revision!r}{self.known}")
        try:
            found = self.directory.get_revision(revision)
        except CommandError as error:
            raise MigrationError(
                f"no revision {revision!r}{nearest(revision, [each.revision for each in self.revisions])}{self.known}"
                if "Can't locate" in str(error)
                else str(error)
            ) from None
        return found.revision if found is not None else "base"

    def single_head(self) -> None:
        """Raise `MigrationError` where two revisions claim to be the newest."""
        if len(self.heads) > 1:
            names = " and ".join(map(repr, self.heads))
            raise MigrationError(f"the history has {len(self.heads)} heads, {names}, which no revision joins")

    def next_id(self) -> str:
        """The identifier of the next revision: one more than the highest number among them."""
        numbers = [int(each.revision) for each in self.revisions if each.revision.isdecimal()]
        return f"{max(numbers, default=0) + 1:04}"

    @property
    def known(self) -> str:
        """The newest revisions, for a message."""
        names = [repr(each.revision) for each in self.revisions[-5:]]
        more = "…, " if len(self.revisions) > len(names) else ""
        return f"; known: {more}{', '.join(names) or 'none'}"


def parents(script: Script) -> tuple[str, ...]:
    """The revisions that *script* follows."""
    down = script.down_revision
    return () if down is None else (down,) if isinstance(down, str) else tuple(down)


def depended_on(script: Script) -> tuple[str, ...]:
    """The revisions that *script* depends on beside."""
    needed = script.dependencies
    return () if needed is None else (needed,) if isinstance(needed, str) else tuple(needed)


@contextmanager
def readable(folder: object) -> Iterator[None]:
    """Turn what reading revisions raises into a `MigrationError` that names the file."""
    try:
        yield
    except MigrationError:
        raise
    except (CommandError, UserWarning) as error:
        raise MigrationError(str(error)) from error
    except Exception as error:
        file, line = _place_of(error, str(folder))
        raise MigrationError(f"{file}:{line} cannot be read: {type(error).__name__}: {error}") from error


def _place_of(error: BaseException, folder: str) -> tuple[str, int | None]:
    """The file and line in *folder* where *error* comes from."""
    if isinstance(error, SyntaxError) and error.filename:
        return error.filename, error.lineno
    found: tuple[str, int | None] = (folder, None)
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if Path(file).is_relative_to(Path(folder).absolute()):
            found = file, trace.tb_lineno
        trace = trace.tb_next
    return found
