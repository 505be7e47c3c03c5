"""A process that migrates, and may be killed at a statement; it prints how many statements there were.

python -m tests.migrations.worker FOLDER URL [STATEMENT]
"""

import os
import signal
import sys
from itertools import count
from typing import Any

from sqlalchemy import event

from microorm import Databases, Field, ForeignKey, field, foreign_key
from tests.migrations.shop import history, new_base


def before(base: Any) -> Any:
    """Define the models of the first revision."""

    class Author(base):
        name: Field[str] = field(max_length=40)

    class Book(base):
        title: Field[str] = field(max_length=40)
        author: ForeignKey[Author] = foreign_key()

    return base


def after(base: Any) -> Any:
    """Define the models of the second, which alters and fills tables with rows, and creates one."""

    class Author(base):
        name: Field[str] = field(max_length=80)
        born: Field[int] = field(default=1900)

    class Book(base):
        title: Field[str] = field(max_length=80, index=True)
        author: ForeignKey[Author] = foreign_key()

    class Shelf(base):
        name: Field[str] = field(max_length=10, unique=True)

    return base


def main(folder: Any, url: str, statement: str = "0") -> None:
    """Migrate; die before the statement of that number."""
    counted = count(1)

    def die(*_: Any) -> None:
        if next(counted) == int(statement):
            os.kill(os.getpid(), signal.SIGKILL)

    with Databases(url) as databases:
        event.listen(databases.engine(), "before_cursor_execute", die)
        event.listen(databases.engine(), "commit", die)
        history(after(new_base(databases)), folder).migrate()
    print(next(counted) - 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
