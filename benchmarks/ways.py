"""Ways: by whose code each statement was handed to the driver.

microorm sends prepared statements to the driver's cursor itself and all others through SQLAlchemy's
`Connection`. Rather than believe it, the calls into `sqlite3` and psycopg are watched and the caller is looked at. Other drivers
are not watched.
"""

from __future__ import annotations

import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

CALLS = {"execute", "executemany"}
COMPILED: tuple[type, ...] = (sqlite3.Cursor, sqlite3.Connection)
WRITTEN = "psycopg"  # whose cursors are written in Python


@contextmanager
def watched(senders: Counter[str]) -> Iterator[None]:
    """Count into *senders* the statements of this thread, by the package that sent them; no block to clock."""

    def see(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call":
            if called.__name__ in CALLS and isinstance(called.__self__, COMPILED):
                senders[_package(frame)] += 1
        elif event == "call" and frame.f_code.co_name in CALLS and _package(frame) == WRITTEN:
            # Its Connection calls its own Cursor, which is not to be counted twice.
            senders.update({_package(frame.f_back)} - {WRITTEN})

    earlier = sys.getprofile()
    sys.setprofile(see)
    try:
        yield
    finally:
        sys.setprofile(earlier)


def _package(frame: FrameType | None) -> str:
    # Generated code may run in a namespace without a name; whoever called it has one.
    while frame is not None and "__name__" not in frame.f_globals:
        frame = frame.f_back
    return "unknown" if frame is None else str(frame.f_globals["__name__"]).partition(".")[0]
