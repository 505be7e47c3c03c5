"""Query: how to read rows as instances, and how to write those that a condition names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from sqlalchemy import delete as sql_delete
from sqlalchemy import update as sql_update

from microorm.bulk import bulk_create
from microorm.conditions import assignments, key_values
from microorm.constructor import create_instance
from microorm.deleting import counts, delete_found, heard
from microorm.results import Results
from microorm.updating import update_found

M = TypeVar("M", bound="Any")


class Query(Results[M]):
    """The rows of a model that fulfil conditions, in an order: immutable, lazy, sent by its ends.

    Each method returns a new query; `all`, `get`, `first`, iteration and their like send it. It reads from the
    alias that `using()` says, else where the routing goes at that moment.
    """

    __slots__ = ()

    def create(self, /, **values: Any) -> M:
        """Make an instance of *values*, which may set the key, and insert it. Raises what a save raises."""
        schema = self._schema
        if "pk" in values:
            values.update({field.name: value for field, value in key_values(schema, values.pop("pk"))})
        instance = create_instance(schema, values)
        saved: M = instance.save(using=self._write_database().alias, force_insert=True)
        return saved

    def bulk_create(self, objects: Iterable[M], *, batch_size: int | None = None) -> list[M]:
        """Insert all of *objects* or none, in few statements, at most *batch_size* rows in one.

        They get their keys and their state. `pre_bulk_create` and `post_bulk_create` are sent, the signals of
        single saves are not. Returns the list. Raises `TypeError` for other models' instances, `ValueError` for
        one given twice, `InvalidValue` (a note says which), and the database's errors; nothing was written then.
        """
        return bulk_create(self._schema, self._write_database(), objects, batch_size=batch_size)

    def update(self, /, **values: Any) -> int:
        """Set *values*, which may be expressions, in every row of the query; returns how many there were.

        `pre_update` and `post_update` are sent, the signals of single saves are not. Raises `FieldError`,
        `InvalidValue`, and `TypeError` where the query is sliced.
        """
        schema = self._schema
        self._refuse_sliced("update")
        columns = assignments(schema, values)
        if not columns:
            raise TypeError("update() wants at least one value")
        statement = self._targeted(sql_update(schema.table).values(columns))
        return update_found(schema, self._write_database(), statement, self, values)

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete every row of the query: by one statement where nobody listens, else one by one, with signals.

        Returns the number of rows, and by label. Raises `TypeError` where the query is sliced.
        """
        schema = self._schema
        self._refuse_sliced("delete")
        database, databases = self._write_database(), schema.registry.databases
        if heard(schema):
            return delete_found(schema, database, lambda: self._load_by(database, self.statement), self)
        statement = self._targeted(sql_delete(schema.table))
        with databases.channel(database, prepared=False, writes=True) as channel:
            total = int(channel.execute(statement).rowcount)
        return counts(schema, total)

    def _refuse_sliced(self, method: str) -> None:
        if self._limited:
            raise TypeError(f"{method}() is for whole queries, and this one is limited or distinct")
