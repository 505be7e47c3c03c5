"""Delete rows: one statement for a row without receivers or dependants, else everything that `on_delete` says.

In the latter case all rows are collected first. Then: `pre_delete` for each, after which the rows are collected again,
dependent rows deleted or changed, and model by model the rows themselves, followed by the `post_delete` of those that still
existed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any
from weakref import ref

from sqlalchemy import delete as sql_delete
from sqlalchemy import update as sql_update

from microorm.db.atomic import UnitOfWork, unit_of_work
from microorm.db.autocommit import WRITES, AutocommitConnection
from microorm.db.connection import Channel
from microorm.db.context import ReceiverScope
from microorm.db.engines.engine import Database
from microorm.db.snapshots import Snapshot, apply_generated, restore, take_snapshot
from microorm.db.transaction import Transaction
from microorm.dispatch.receivers import EMPTY, Route
from microorm.errors import UnsavedError
from microorm.fields.types import MARIADB
from microorm.instrumentation import DELETE, watchers
from microorm.mapping.codegen import Row
from microorm.mapping.schema import Schema
from microorm.persistence.collector import (
    CollectedRow,
    Collection,
    NulledKeys,
    Step,
    delete_order,
    referred_to,
)
from microorm.persistence.refresh import complete, is_own_row
from microorm.persistence.save import runs_at_once
from microorm.persistence.steps import as_step
from microorm.persistence.versions import increments, read_version, stale, stale_among, version_of
from microorm.signals import post_delete, pre_delete
from microorm.sql.batches import batches
from microorm.sql.statements import Plans, key_row, plans_of

Counts = tuple[int, dict[str, int]]
Loaded = tuple[Any, Any]  # row state and loaded row of an instance, which a save replaces
MAX_ROUNDS = 100
"""How often receivers of `pre_delete` may add rows to those that are deleted."""
Find = Callable[[tuple[str, ...] | None], list[Any]]


def delete(instance: Any, *, using: str | None = None) -> Counts:
    """Delete the row of *instance*, and what depends on it, completely or not at all; return the numbers of rows.

    Raises `UnsavedError` if it has no key, `StaleUpdate` if its row has another version, `RestrictedError` if rows refer to it
    that must not be deleted.
    """
    return _watched_delete(instance, using) if watchers else _delete(instance, using)


def _delete(instance: Any, using: str | None) -> Counts:
    schema: Schema = instance.__schema__
    for name in schema.key_names:
        if instance.__dict__.get(name) is None:
            raise UnsavedError(f"{schema.name} has no key, and a delete needs one")
    databases, model = schema.registry.databases, schema.model
    database, transaction = databases.place(schema, using, instance, writes=True)
    after = post_delete._route(model) if post_delete._connections else EMPTY
    before = pre_delete._route(model) if pre_delete._connections else EMPTY
    referring = schema.registry.referring(model)
    together = before or (after and (transaction is not None or runs_at_once(after)))
    if together or (referring and referred_to(schema)):
        key_row(schema, instance)
        return delete_found(schema, database, lambda names: [instance], instance, held=instance)
    if after:
        refuse_waiting(schema)
    total = _delete_row(schema, database, transaction, instance, after)
    return total, ({schema.label: total} if total else {})


_watched_delete = as_step(DELETE)(_delete)


def _delete_row(
    schema: Schema, database: Database, transaction: Transaction | None, instance: Any, after: Route
) -> int:
    """Delete the row of *instance* by one statement, then call the receivers *after*, all of which wait for the commit.

    Returns the number of rows.
    """
    if after:
        _load_for_receivers(schema, database, instance)
    state, row = instance._row_state, instance._row
    snapshot: Snapshot = (ref(instance), state, row, {})
    # The receivers still see the key. The row of another database does not lose it.
    generated = None if after or state.alias not in (None, database.alias) else schema.generated
    channel = entered = None
    try:
        plans = schema.plans.get(database) or plans_of(schema, database)
        statement, key = plans.statements.get("delete") or plans.delete(), key_row(schema, instance)
        read = None if schema.version is None else read_version(schema, instance)
        channel = transaction or AutocommitConnection(database, WRITES)
        entered = channel.__enter__()
        if read is None:
            total = int(statement.run(channel, key).rowcount)
        else:
            total = _delete_version(schema, plans, channel, instance, key, read)
        if generated is not None:
            snapshot[3][generated.name] = (key[0], None)
        if transaction is not None:
            transaction.undo.record(snapshot)
        if generated is not None:
            instance.__dict__[generated.name] = None
        if transaction is None:
            channel.__exit__(None, None, None)
    except BaseException as error:
        try:
            work = UnitOfWork(schema.registry.databases, None, transaction, snapshot)
            work.fail(error, channel, dirty=entered is not None)
        finally:
            restore(snapshot)  # also if the outcome is unknown: the key is needed to look for the row
        raise
    if after:
        _send_deleted(schema, database, instance, total, key, snapshot)
    return total


def _delete_version(
    schema: Schema, plans: Plans, channel: Channel, instance: Any, key: Row, read: int
) -> int:
    """Delete the row of *instance* if it has the version that was *read*, and return the number of rows.

    Raises `StaleUpdate` if there is one of another version.
    """
    total = int(plans.delete(checked=True).run(channel, (*key, read)).rowcount)
    if not total and (found := version_of(schema, channel, key)) is not None:
        raise stale(schema, channel, [(instance, key, read, found)])
    return total


def _send_deleted(
    schema: Schema, database: Database, instance: Any, total: int, key: Row, snapshot: Snapshot
) -> None:
    """Send `post_delete` of *instance*, whose delete is committed, if there was a row; then it loses its *key*."""
    try:
        if total:
            ReceiverScope(schema.registry.databases, database.alias, committed=True).run(
                post_delete.send, schema.model, instance=instance, using=database.alias, origin=instance
            )
    finally:
        if schema.generated is not None:
            _forget_key(schema.generated.name, database, instance, key, snapshot, snapshot[1:3])


def counts(schema: Schema, total: int) -> Counts:
    """Return what a delete of *total* rows returns: their number, and the number by label."""
    return total, ({schema.label: total} if total else {})


def refuse_waiting(schema: Schema) -> None:
    """Raise `RuntimeError` if there are async receivers, which cannot be waited for on a running event loop."""
    pre_delete.refuse_waiting(schema.model)
    post_delete.refuse_waiting(schema.model)


def delete_found(schema: Schema, database: Database, find: Find, origin: Any, *, held: Any = None) -> Counts:
    """Delete the instances that *find* returns and what depends on them, with signals, in one transaction.

    *find* is called with the names of the fields to load, or None for all. *origin*: the object that `delete()` was
    called on. *held*: the instance that the caller has, if any.
    """
    refuse_waiting(schema)
    with unit_of_work(schema.registry.databases, database) as work:
        collection = Collection(work.channel, schema)
        collection.add(find(collection.names(schema)), held)
        return Deletion(work, collection, origin, held).run()


class Deletion:
    """The delete of a collection of rows in an open transaction."""

    def __init__(self, work: UnitOfWork, collection: Collection, origin: Any, held: Any) -> None:
        self._work = work
        self._channel: Transaction = work.channel
        self._collection = collection
        self._origin = origin
        self._held = held
        self._counts: Counter[str] = Counter()
        self._deleted: list[tuple[CollectedRow, Loaded]] = []
        # MariaDB checks foreign keys row by row, other databases at the end of the statement.
        self._row_by_row = self._channel.database.dialect in MARIADB

    def run(self) -> Counts:
        """Send `pre_delete`, delete the rows, and send `post_delete`; return the numbers of rows."""
        steps, nulled = self._announce()
        if self._held is not None and post_delete._route(type(self._held)):
            _load_for_receivers(self._held.__schema__, self._channel.database, self._held)
        if self._held is not None:
            self._refuse_stale(self._held)
        self._delete_unseen()
        self._change_references(nulled)
        for step in steps:
            self._work.check()
            deleted = self._delete_rows(step)
            self._deleted += [(row, _loaded(row.instance)) for row in self._shared_rows([step])]
            for row in self._rows_with_receivers([step], post_delete):
                if row.key in deleted:  # else another process or a receiver has deleted the row
                    self._send(post_delete, row)
        for row, loaded in self._deleted:
            snapshot: Any = row.snapshot
            if row.schema.generated is not None:
                name, database = row.schema.generated.name, self._channel.database
                _forget_key(name, database, row.instance, row.key, snapshot, loaded)
            self._channel.undo.record(snapshot)
        return sum(self._counts.values()), {label: count for label, count in self._counts.items() if count}

    def _refuse_stale(self, instance: Any) -> None:
        """Lock the row of *instance*, and raise `StaleUpdate` if it has another version than was read."""
        schema: Schema = instance.__schema__
        if (read := read_version(schema, instance)) is None:
            return
        self._work.dirty = True
        found = stale_among(schema, self._channel, [(instance, key_row(schema, instance), read)])
        if found and found[0][3] is not None:  # else it is deleted already
            raise stale(schema, self._channel, found)

    def _announce(self) -> tuple[list[Step], NulledKeys]:
        """Send `pre_delete` for each row, and return what is to be deleted after that, in order.

        Receivers may move rows away, or add some. So after they have run, the rows are collected again, until `pre_delete`
        was sent for all. Raises `RuntimeError` if there is no end to it.
        """
        for _ in range(MAX_ROUNDS):
            collection = self._collection
            for schema in collection.rows:
                if collection.has_receivers(schema):
                    refuse_waiting(schema)
            groups = {schema: list(rows.values()) for schema, rows in collection.rows.items()}
            steps, nulled = delete_order(groups, collection.dependants, row_by_row=self._row_by_row)
            for row in self._shared_rows(steps):
                row.snapshot = row.snapshot or take_snapshot(row.instance)
            waiting = [row for row in self._rows_with_receivers(steps, pre_delete) if not row.announced]
            sent = [self._send_before(row) for row in waiting]
            self._work.check()  # a receiver may have doomed the block
            if not (any(sent) and any(collection.keys_to(schema) for schema in groups)):
                return steps, nulled
            self._collection = collection.again()
        raise RuntimeError(
            f"pre_delete was sent {MAX_ROUNDS} times, and each time receivers have added rows that refer to those to delete"
        )

    def _shared_rows(self, steps: Iterable[Step]) -> Iterator[CollectedRow]:
        """Yield the rows whose instances the caller or a receiver may hold."""
        for step in steps:
            has_receivers = self._collection.has_receivers(step.schema)
            for layer in step.layers:
                yield from [row for row in layer if has_receivers or row.instance is self._held]

    def _rows_with_receivers(self, steps: Iterable[Step], signal: Any) -> Iterator[CollectedRow]:
        for step in steps:
            if self._collection.has_receivers(step.schema) and signal._route(step.schema.model):
                for layer in step.layers:
                    yield from layer

    def _send_before(self, row: CollectedRow) -> bool:
        """Send `pre_delete`, and return whether a receiver has run."""
        self._work.dirty, before = True, self._work.dirty
        row.announced = True
        sent = bool(self._send(pre_delete, row))
        self._work.dirty = before or sent
        return sent

    def _send(self, signal: Any, row: CollectedRow) -> Any:
        alias = self._channel.database.alias
        return ReceiverScope(row.schema.registry.databases, alias).run(
            signal.send, row.schema.model, instance=row.instance, using=alias, origin=self._origin
        )

    def _delete_unseen(self) -> None:
        """Delete rows without receivers or dependants, by the values of their foreign keys."""
        for key, values in self._collection.fast_deletes.items():
            schema: Schema = key.owner.__schema__
            for batch in batches(self._channel, list(values), _as_row, None):
                self._run(schema.label, sql_delete(schema.table).where(key.field.column.in_(batch)))

    def _change_references(self, nulled: NulledKeys) -> None:
        """Set foreign keys to NULL or their default: those with such an `on_delete`, and those in *nulled*."""
        for key, values in self._collection.changed.items():
            table, column = key.owner.__schema__.table, key.field.column
            value = key.action.value(key)
            for batch in batches(self._channel, list(values), _as_row, None):
                change = sql_update(table).values({column: value} | increments(key.owner.__schema__))
                self._run(None, change.where(column.in_(batch)))
        for key, rows in nulled.items():
            schema: Schema = key.owner.__schema__
            change = sql_update(schema.table).values({key.field.column: None} | increments(schema))
            for batch in batches(self._channel, [row.key for row in rows], tuple, None):
                self._run(None, change.where(schema.key_in(batch)))

    def _delete_rows(self, step: Step) -> set[Row]:
        """Delete the rows of *step*: layer by layer if the database checks each row, else all together.

        Returns the keys of the rows that existed, if `post_delete` has to be sent for them.
        """
        schema, channel = step.schema, self._channel
        deleted: set[Row] = set()
        told = any(self._rows_with_receivers([step], post_delete))
        one_by_one = told and not channel.database.engine.dialect.delete_returning
        layers = [[row.key for row in layer] for layer in step.layers]
        if not self._row_by_row:
            layers = [[key for layer in layers for key in layer]]
        for layer in layers:
            for batch in batches(channel, layer, tuple, None):
                if len(batch) == 1 or one_by_one:
                    deleted.update(self._delete_each(schema, batch))
                elif told:
                    deleted.update(self._delete_returning(schema, batch))
                else:
                    self._run(schema.label, sql_delete(schema.table).where(schema.key_in(batch)))
        return deleted

    def _delete_each(self, schema: Schema, keys: Iterable[Row]) -> Iterator[Row]:
        """Delete the rows of *keys* one by one; yield the keys of those that existed."""
        plan = plans_of(schema, self._channel.database).delete()
        for key in keys:
            self._work.dirty = True
            count = int(plan.run(self._channel, key).rowcount)
            self._counts[schema.label] += count
            if count:
                yield key

    def _delete_returning(self, schema: Schema, keys: Sequence[Row]) -> Iterable[Row]:
        """Delete the rows of *keys* together, and return the keys of those that existed."""
        statement = sql_delete(schema.table).where(schema.key_in(keys))
        self._work.dirty = True
        found = self._channel.fetch(statement.returning(*[field.column for field in schema.key]))
        self._counts[schema.label] += len(found)
        # All, if the numbers are equal: where a collation ignores case, a key may come back in other letters.
        return keys if len(found) == len(keys) else map(tuple, found)

    def _run(self, label: str | None, statement: Any) -> None:
        self._work.dirty = True
        count = int(self._channel.execute(statement).rowcount)
        if label is not None:
            self._counts[label] += count


def _as_row(value: Any) -> Row:
    return (value,)


def _loaded(instance: Any) -> Loaded:
    return instance._row_state, instance._row


def _load_for_receivers(schema: Schema, database: Database, instance: Any) -> None:
    """Load the deferred fields of *instance*: receivers of `post_delete` may read them when the row is gone."""
    if instance._row_state.partial and is_own_row(schema, database, instance):
        with suppress(schema.model.DoesNotExist):  # then there is nothing to delete
            complete(instance)


def _forget_key(
    name: str, database: Database, instance: Any, key: Row, snapshot: Snapshot, loaded: Loaded
) -> None:
    """Set the generated key *name* of an *instance* that was deleted from *database* to None.

    The key stays if the row of the instance is in another database, if a receiver has saved the instance since (its state
    is no longer *loaded*), or if it has another key than the deleted *key*.
    """
    state, row = loaded
    same = instance._row_state is state and instance._row is row and state.alias in (None, database.alias)
    if same and instance.__dict__.get(name) == key[0]:
        apply_generated(instance, snapshot, {name: None})
