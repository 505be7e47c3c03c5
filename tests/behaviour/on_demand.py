"""On demand: tables on `other`, which few tests read, are made on a server when something first connects to it.

Making and dropping tables takes a server longer than most of these tests take for all the rest.
"""

from threading import Lock
from typing import Any

from sqlalchemy import NullPool, create_engine, event

import microorm
from tests.awaited import not_awaited

OTHER = "other"


class PatientRegistry(microorm.Registry):
    """A registry whose `create_all` leaves the tables of `other`, a database at *url*, until they are needed."""

    def __init__(self, databases: microorm.Databases, url: str) -> None:
        super().__init__(databases)
        self._other_url = url
        self._other_tables: list[list[Any]] = []
        self._other_reached = False
        self._other_lock = Lock()
        for engine in {databases.engine(OTHER), not_awaited(lambda: databases.engine(OTHER))}:
            event.listen(engine, "do_connect", self._make)

    def create_all(self, using: str | None = None) -> None:
        """Create the tables, those on `other` as soon as something connects to it."""
        aliases = self.databases.aliases if using is None else (using,)
        if self._other_reached or OTHER not in aliases or self.databases.database(OTHER).row_alias != OTHER:
            super().create_all(using)
            return
        for alias in aliases:
            if alias == OTHER:
                self._other_tables += [tables for _, tables in self.tables_by_alias(OTHER)]
            else:
                super().create_all(alias)

    def _make(self, *connecting: Any) -> None:
        with self._other_lock:
            self._other_reached = True
            engine = create_engine(
                self._other_url, poolclass=NullPool
            )  # that nothing in the test counts or listens to
            while self._other_tables:
                self.tables.create_all(engine, tables=self._other_tables.pop(0))
