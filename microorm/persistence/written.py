"""What an instance has once its row is written: the row as its loaded values, and what the database has made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from microorm.db.connection import Channel
from microorm.db.snapshots import Snapshot, note_generated, note_row
from microorm.mapping.codegen import Row
from microorm.mapping.schema import Schema
from microorm.mapping.state import copied_row
from microorm.persistence.refresh import computed_rows
from microorm.sql.statements import Plans, plans_of


def mark_saved(
    schema: Schema,
    plans: Plans,
    instance: Any,
    names: tuple[str, ...],
    row: Row,
    snapshot: Snapshot,
    keep: Callable[[Snapshot], object],
) -> None:
    """Make *row* the loaded values of the fields *names*; other fields keep their loaded values, if they have any.

    *keep* records the *snapshot* of the instance for a rollback. It is called before the first change.
    """
    loaded = dict(zip(names, copied(names, schema, row), strict=True))
    layout, earlier = instance._row_state.layout, instance._row
    for name in () if earlier is None else layout.names:
        if name not in loaded:
            loaded[name] = layout.value(earlier, name)
    new = tuple(loaded.values())
    state = plans.row_state(tuple(loaded), partial=instance._row_state.partial)
    note_row(snapshot, new)
    keep(snapshot)
    instance._row = new
    instance._row_state = state


def copied(names: Iterable[str], schema: Schema, row: Row) -> Row:
    """Return *row* with copies of its mutable values."""
    return copied_row([schema.by_name[name] for name in names], row)


def mark_with_computed(
    schema: Schema, channel: Channel, instance: Any, names: tuple[str, ...], row: Row, snapshot: Snapshot
) -> None:
    """Set the values that the database has computed for the updated *row*, and make all its values the loaded ones."""
    key = row[-len(schema.key) :]
    (computed,) = computed_rows(schema, channel, [key]).values()
    note_generated(instance, snapshot, schema.computed, computed)
    plans = plans_of(schema, channel.database)
    names, row = names + schema.computed, row + computed
    mark_saved(schema, plans, instance, names, row, snapshot, channel.keep)
    instance.__dict__.update(zip(schema.computed, computed, strict=True))
