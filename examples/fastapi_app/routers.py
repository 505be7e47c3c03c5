"""The router: reads go to a replica, writes to the database that it copies."""

from typing import Any

from microorm import Model, Router


class ReadFromReplica(Router):
    """Read from the alias `replica`, write to `default`.

    A replica may be a moment behind. So what an open block reads comes from `default`, where its own writes are.
    """

    def db_for_read(self, model: type[Model[Any]], **hints: Any) -> str:
        return "default" if hints["in_atomic"] else "replica"

    def db_for_write(self, model: type[Model[Any]], **hints: Any) -> str:
        return "default"

    def allow_relation(self, left: Any, right: Any, **hints: Any) -> bool:
        """Let a book from one of the two have an author from the other: they are the same rows."""
        return True

    def allow_migrate(
        self, alias: str, label: str, model: type[Model[Any]] | None = None, **hints: Any
    ) -> bool:
        """Create tables in `default` only. The replica gets them as it gets the rows: from the server."""
        return alias == "default"
