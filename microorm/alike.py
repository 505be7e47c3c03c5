"""Alike: new instances that are written in one and the same way, taken and settled in one go.

`bulk` says all that may happen on the way of many rows. Mostly the instances have just been made, by one constructor, and
differ in nothing but their values: then one generated loop takes all rows, and one image stands for the instances of
a batch. Where one instance is out of the ordinary there is nothing of this, and each goes its own way, which comes to
the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from sqlalchemy import insert

from microorm.db.connection import Channel
from microorm.db.engine import Database
from microorm.db.snapshots import Batch
from microorm.db.transaction import Transaction
from microorm.mapping.codegen import Row
from microorm.mapping.schema import Schema
from microorm.mapping.state import Origin
from microorm.sql.batches import most_rows
from microorm.sql.statements import Prepared, bound, plans_of, values_of

ROWS_PER_STATEMENT = 20
"""On SQLite: to begin and end a statement costs more than a row, and to compile a long one costs milliseconds, once."""
WORTH_IT = 1000
"""How many rows of one batch it takes for such a statement to be compiled."""


class Alike:
    """*instances* that are alike, and the *rows* to write of them: of *names*, in order, checked."""

    __slots__ = ("_batches", "_done", "_former", "_instances", "_schema", "names", "rows")

    def __init__(self, schema: Schema, instances: Sequence[Any], former: Origin, rows: list[Row]) -> None:
        self._schema = schema
        self._instances = instances
        self._former = former
        self._done = 0
        self._batches: list[Batch] = []
        self.names = schema.written_names if schema.generated is None else schema.plain_names
        self.rows = rows

    def settle(self, transaction: Transaction, rows: Sequence[Row], made: Sequence[Row]) -> None:
        """Give the next instances, of which *rows* were written, the keys that were *made*, and their state."""
        instances = self._instances[self._done : self._done + len(rows)]
        self._done += len(rows)
        generated = self._schema.generated
        key = None if generated is None else generated.name
        names = self.names if key is None else (*self.names, key)
        origin = plans_of(self._schema, transaction.database).origin(names)
        numbers = [] if key is None else [number for (number,) in made]
        batch = Batch(instances, self._former, key, numbers)
        # Kept before anything is changed, so that an interrupt leaves nothing that a rollback does not know.
        self._batches.append(batch)
        transaction.undo.record_batch(batch)
        if key is None:
            for instance, row in zip(instances, rows, strict=True):
                instance._row = row
                instance._origin = origin
            return
        for instance, row, new in zip(instances, rows, made, strict=True):
            (instance.__dict__[key],) = new
            instance._row = row + new
            instance._origin = origin

    def restore(self) -> None:
        """Put back the instances that were settled."""
        for batch in reversed(self._batches):
            batch.restore()


def alike_of(schema: Schema, instances: Sequence[Any]) -> Alike | None:
    """*instances*, which are some, with the rows to write of them; None where they are not alike, or a value is not taken."""
    if not schema.plain_names or schema.server_made or schema.updating or schema.mutable:
        return None
    former = instances[0]._origin
    rows = schema.gatherer()(instances, former)
    return None if rows is None else Alike(schema, instances, former, rows)


def insert_in_order(schema: Schema, channel: Channel, names: tuple[str, ...], rows: Sequence[Row]) -> None:
    """Insert *rows* of *names* one after another, several at once where they go to the driver's cursor."""
    plans, size = plans_of(schema, channel.database), 1
    if channel.cursor is not None and names and len(rows) >= WORTH_IT:
        size = min(most_rows(channel, len(names)), ROWS_PER_STATEMENT)
    whole = 0 if size == 1 else len(rows) - len(rows) % size
    if whole:
        several = plans.kept(
            ("insert several", names, size), lambda: _several(schema, channel.database, names, size)
        )
        for start in range(0, whole, size):
            several.run(channel, tuple(chain.from_iterable(rows[start : start + size])))
    if rest := rows[whole:]:
        plans.insert_only(names).run_many(channel, rest)


def _several(schema: Schema, database: Database, names: tuple[str, ...], count: int) -> Prepared:
    """The INSERT of *count* rows; its row is all of them, one after another."""
    fields = [schema.by_name[name] for name in names]
    rows = [bound(fields, place * len(fields)) for place in range(count)]
    statement = insert(schema.table).inline().values(rows)
    return Prepared(statement, values_of(fields * count), database.engine.dialect)
