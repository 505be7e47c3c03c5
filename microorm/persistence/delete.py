"""Deleting: the order in which a delete happens (DESIGN 4, CONTRACT J)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sqlalchemy import delete as sql_delete
from sqlalchemy import update as sql_update

from microorm.db.atomic import UnitOfWork, unit_of_work
from microorm.db.context import Receiving
from microorm.db.engine import Database
from microorm.db.snapshots import Image, apply_generated, image_of
from microorm.db.transaction import Transaction
from microorm.dispatch.receivers import EMPTY
from microorm.errors import UnsavedError
from microorm.fields.types import MARIADB
from microorm.mapping.codegen import Row
from microorm.mapping.schema import Schema
from microorm.persistence.collector import Collection, Cut, Leaving, Step, delete_order, referred_to
from microorm.persistence.save import runs_at_once
from microorm.signals import post_delete, pre_delete
from microorm.sql.batches import batches
from microorm.sql.statements import key_row, plans_of

Counts = tuple[int, dict[str, int]]
Loaded = tuple[Any, Any]  # an instance's state and row, which a save replaces
Find = Callable[[tuple[str, ...] | None], list[Any]]


def delete(instance: Any, *, using: str | None = None) -> Counts:
    """Delete the row of *instance* from the alias that the routing picks; all of it happens or nothing."""
    schema: Schema = instance.__schema__
    for name in schema.key_names:
        if instance.__dict__.get(name) is None:
            raise UnsavedError(f"{schema.name} has no key, and a delete needs one")
    databases, model = schema.registry.databases, schema.model
    database, transaction = databases.place(schema, using, instance, writes=True)
    after = post_delete._route(model) if post_delete._connections else EMPTY
    before = pre_delete._route(model) if pre_delete._connections else EMPTY
    if before or (after and (transaction is not None or runs_at_once(after))) or referred_to(schema):
        key_row(schema, instance)
        return delete_found(schema, database, lambda names: [instance], instance, held=instance)
    if after:
        refuse_waiting(schema)
    with UnitOfWork(databases, database, transaction) as work:
        key = key_row(schema, instance)
        snapshot, loaded = work.snapshot(instance), _loaded(instance)
        channel = work.begin(several=False)
        work.dirty = True
        total = int(plans_of(schema, database).delete().run(channel, key).rowcount)
        if transaction is not None:
            _forget_key(schema, instance, key, snapshot, loaded)
            channel.keep(snapshot)
    if transaction is None:  # the delete is committed: the receivers, which wait for that, run now
        try:
            if after:
                with Receiving(databases, database.alias):
                    post_delete.send(model, instance=instance, using=database.alias, origin=instance)
        finally:
            _forget_key(schema, instance, key, snapshot, loaded)
    return counts(schema, total)


def counts(schema: Schema, total: int) -> Counts:
    """What a delete of *total* rows returns: their number, and the same by label (CONTRACT J9)."""
    return total, ({schema.label: total} if total else {})


def refuse_waiting(schema: Schema) -> None:
    """RuntimeError where a delete would have to wait for async receivers on a running event loop."""
    pre_delete.refuse_waiting(schema.model)
    post_delete.refuse_waiting(schema.model)


def delete_found(schema: Schema, database: Database, find: Find, origin: Any, *, held: Any = None) -> Counts:
    """Delete the instances that *find* gives and all that goes along, with their signals, in one transaction.

    *find* is given the names of the fields that it has to load, None for all. *origin* is what `delete()` was called
    on; *held* is the instance that the caller has.
    """
    refuse_waiting(schema)
    with unit_of_work(schema.registry.databases, database) as work:
        collection = Collection(work.channel, schema)
        collection.add(find(collection.names(schema)), held)
        for each in collection.rows:
            if collection.has_receivers(each):
                refuse_waiting(each)
        return Deletion(work, collection, origin, held).run()


class Deletion:
    """One delete of all that was collected, in an open transaction."""

    def __init__(self, work: UnitOfWork, collection: Collection, origin: Any, held: Any) -> None:
        self._work = work
        self._channel: Transaction = work.channel
        self._collection = collection
        self._origin = origin
        self._held = held
        self._counts: Counter[str] = Counter()
        self._gone: list[tuple[Leaving, Image, Loaded]] = []
        self._row_by_row = self._channel.database.dialect in MARIADB  # else at the end of a statement

    def run(self) -> Counts:
        """Send `pre_delete`, delete, and send `post_delete`; an error on the way dooms the block."""
        collection, work = self._collection, self._work
        groups = {schema: list(rows.values()) for schema, rows in collection.rows.items()}
        steps, cut = delete_order(groups, collection.dependants, row_by_row=self._row_by_row)
        images = {id(row): image_of(row.instance) for row in self._known(steps)}
        for row in self._rows_told(steps, pre_delete):
            self._tell_before(row)
        work.check()  # a receiver may have doomed the block
        self._delete_unseen()
        self._change_references(cut)
        for step in steps:
            work.check()
            self._delete_rows(step)
            self._gone += [(row, images[id(row)], _loaded(row.instance)) for row in self._known([step])]
            for row in self._rows_told([step], post_delete):
                self._send(post_delete, row)
        for row, image, loaded in self._gone:
            _forget_key(row.schema, row.instance, row.key, image, loaded)
            self._channel.undo.record(image)
        return sum(self._counts.values()), {label: count for label, count in self._counts.items() if count}

    def _known(self, steps: Iterable[Step]) -> Iterator[Leaving]:
        """The rows whose instances somebody else may have: the caller or a receiver."""
        for step in steps:
            told = self._collection.has_receivers(step.schema)
            for layer in step.layers:
                yield from [row for row in layer if told or row.instance is self._held]

    def _rows_told(self, steps: Iterable[Step], signal: Any) -> Iterator[Leaving]:
        for step in steps:
            if self._collection.has_receivers(step.schema) and signal._route(step.schema.model):
                for layer in step.layers:
                    yield from layer

    def _tell_before(self, row: Leaving) -> None:
        self._work.dirty, before = True, self._work.dirty
        sent = self._send(pre_delete, row)
        self._work.dirty = before or bool(sent)

    def _send(self, signal: Any, row: Leaving) -> Any:
        alias = self._channel.database.alias
        with Receiving(row.schema.registry.databases, alias):
            return signal.send(row.schema.model, instance=row.instance, using=alias, origin=self._origin)

    def _delete_unseen(self) -> None:
        """Delete the rows that nobody is told of and no table refers to, by what they refer to."""
        for key, values in self._collection.unseen.items():
            schema: Schema = key.owner.__schema__
            for batch in batches(self._channel, list(values), _one, None):
                self._run(schema.label, sql_delete(schema.table).where(key.field.column.in_(batch)))

    def _change_references(self, cut: Cut) -> None:
        """Set the keys to NULL or to their default that refer to rows which go, and those that *cut* names to NULL."""
        for key, values in self._collection.changed.items():
            table, column = key.owner.__schema__.table, key.field.column
            value = key.action.value(key)
            for batch in batches(self._channel, list(values), _one, None):
                self._run(None, sql_update(table).values({column: value}).where(column.in_(batch)))
        for key, rows in cut.items():
            schema: Schema = key.owner.__schema__
            change = sql_update(schema.table).values({key.field.column: None})
            for batch in batches(self._channel, [row.key for row in rows], tuple, None):
                self._run(None, change.where(schema.key_in(batch)))

    def _delete_rows(self, step: Step) -> None:
        """Delete the rows of *step*, in their order: layer by layer where each row is checked as it goes."""
        schema, channel = step.schema, self._channel
        layers = [[row.key for row in layer] for layer in step.layers]
        if not self._row_by_row:
            layers = [[key for layer in layers for key in layer]]
        for layer in layers:
            for batch in batches(channel, layer, tuple, None):
                if len(batch) > 1:
                    self._run(schema.label, sql_delete(schema.table).where(schema.key_in(batch)))
                    continue
                self._work.dirty = True
                plan = plans_of(schema, channel.database).delete()
                self._counts[schema.label] += plan.run(channel, batch[0]).rowcount

    def _run(self, label: str | None, statement: Any) -> None:
        self._work.dirty = True
        count = int(self._channel.execute(statement).rowcount)
        if label is not None:
            self._counts[label] += count


def _one(value: Any) -> Row:
    return (value,)


def _loaded(instance: Any) -> Loaded:
    return instance._row_state, instance._row


def _forget_key(schema: Schema, instance: Any, key: Row, image: Image, loaded: Loaded) -> None:
    """A key that the database made is None after a delete; the others stay (CONTRACT J4).

    An instance that a receiver has saved since it was deleted, when it was *loaded*, has a row again, and keeps its
    key; so does one that has got another key than it was deleted by.
    """
    if (generated := schema.generated) is None:
        return
    state, row = loaded
    same = instance._row_state is state and instance._row is row
    if same and instance.__dict__.get(generated.name) == key[0]:
        apply_generated(instance, image, {generated.name: None})
