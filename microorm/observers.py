"""Observers: who is told of the statements that are sent to one database, on whatever way.

SQLAlchemy's `Connection` tells by an event of the engine. It is listened to once and for good, since SQLAlchemy's
lists of listeners must not change while another thread goes through them. The driver's cursor of a transaction that
was open before is watched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, event

Observer = Callable[[str], object]


class Observers:
    """The functions that are told of each statement to one database; *listening* is how many listeners are ours."""

    __slots__ = ("_engine", "listening", "told")

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self.listening = 0
        self.told: list[Observer] = []

    def add(self, engine: Engine, observer: Observer) -> None:
        """Tell *observer* the text of every statement that is sent through *engine* from now on."""
        if self._engine is not engine:
            event.listen(engine, "before_cursor_execute", self._hear)
            self._engine, self.listening = engine, 1
        self.told.append(observer)

    def remove(self, observer: Observer) -> None:
        """Tell *observer* no more."""
        self.told.remove(observer)

    def close(self) -> None:
        """Let go of the engine."""
        engine, self._engine, self.listening = self._engine, None, 0
        if engine is not None:
            event.remove(engine, "before_cursor_execute", self._hear)

    def tell(self, statement: str) -> None:
        """Tell everybody that *statement* is being sent."""
        for observer in tuple(self.told):
            observer(statement)

    def watched(self, cursor: Any) -> Any:
        """The driver's *cursor*, so that its statements are told, too; None stays None."""
        return cursor if cursor is None or cursor.__class__ is WatchedCursor else WatchedCursor(cursor, self)

    def _hear(self, connection: Any, cursor: Any, statement: str, *others: Any) -> None:
        self.tell(statement)


class WatchedCursor:
    """A driver's cursor whose statements are told."""

    __slots__ = ("_cursor", "_observers")

    def __init__(self, cursor: Any, observers: Observers) -> None:
        self._cursor = cursor
        self._observers = observers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def execute(self, statement: str, *parameters: Any) -> Any:
        """Tell of *statement* and send it."""
        self._observers.tell(statement)
        return self._cursor.execute(statement, *parameters)

    def executemany(self, statement: str, parameters: Any) -> Any:
        """Tell of *statement*, once, and send it for each of *parameters*."""
        self._observers.tell(statement)
        return self._cursor.executemany(statement, parameters)
