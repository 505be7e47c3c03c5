"""Worker: a process that migrates, and may be killed at a statement.

python -m tests.migrations.worker FOLDER URL [STATEMENT]
"""

import os
import signal
import sys
from itertools import count
from typing import Any

from sqlalchemy import event

import microorm
from microorm import Databases, Field, ForeignKey, Registry, field, foreign_key
from microorm.migrations import Migrations


def before(base: Any) -> None:
    """The models of the first revision."""

    class Author(base):
        name: Field[str] = field(max_length=40)

    class Book(base):
        title: Field[str] = field(max_length=40)
        author: ForeignKey[Author] = foreign_key()


def after(base: Any) -> None:
    """The models of the second: tables with rows are changed, filled and made."""

    class Author(base):
        name: Field[str] = field(max_length=80)
        born: Field[int] = field(default=1900)

    class Book(base):
        title: Field[str] = field(max_length=80, index=True)
        author: ForeignKey[Author] = foreign_key()

    class Shelf(base):
        name: Field[str] = field(max_length=10, unique=True)


def migrations_of(databases: Databases, folder: str, define: Any) -> Migrations:
    """The history in *folder*, with the models that *define* makes."""

    class Base(microorm.Model, registry=Registry(databases), app="shop", abstract=True):
        pass

    define(Base)
    return Migrations(folder, Base.__options__.registry)


def main(folder: str, url: str, statement: str = "0") -> None:
    """Migrate; before the statement of that number, die."""
    counted = count(1)

    def die(*_: Any) -> None:
        if next(counted) == int(statement):
            os.kill(os.getpid(), signal.SIGKILL)

    with Databases(url) as databases:
        event.listen(databases.engine(), "before_cursor_execute", die)
        event.listen(databases.engine(), "commit", die)
        migrations_of(databases, folder, after).migrate()


def serve(folder: str, url: str) -> None:
    """For each number on standard input let a child migrate, and write how it ended: an exit status, or -9."""
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            main(folder, url, line.strip())
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:3]) if sys.argv[-1] == "each" else main(*sys.argv[1:])
