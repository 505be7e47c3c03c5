"""Bulk: many rows written at once, without the signals of each unless asked for (CONTRACT M).

Alike: new instances that are written in one and the same way, taken and settled in one go.

`bulk` says all that may happen on the way of many rows. Mostly the instances have just been made, by one constructor, and
differ in nothing but their values: then one generated loop takes all rows, and one image stands for the instances of
a batch. Where one instance is out of the ordinary there is nothing of this, and each goes its own way, which comes to
the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple
from weakref import ref

from sqlalchemy import insert, select
from sqlalchemy.sql import ClauseElement

from microorm.db.connection import Channel
from microorm.db.context import note_split_write
from microorm.db.databases import Databases
from microorm.db.engine import Database
from microorm.db.snapshots import Batch, Image, restore, settle
from microorm.db.transaction import Transaction
from microorm.errors import InvalidValue
from microorm.fields.field import MISSING
from microorm.mapping.codegen import ExpressionRow, Row
from microorm.mapping.schema import Schema
from microorm.mapping.state import Origin, kept
from microorm.persistence.foreign_keys import (
    refresh_all_foreign_keys,
    refresh_foreign_keys,
    restored_on_failure,
)
from microorm.persistence.refresh import complete_all
from microorm.persistence.save import tell_saved
from microorm.persistence.writing import INSERT, row_taker, write_row
from microorm.signals import ModelSignal, post_bulk_create, post_save, pre_bulk_create, pre_save
from microorm.sql import upsert as upserts
from microorm.sql.batches import Progress, batches, checked_objects, has_triggers, most_rows, multirow_of
from microorm.sql.statements import Plans, Prepared, bound, plans_of, values_of
from microorm.sql.upsert import Upsert


class Wish(NamedTuple):
    """What one call of `bulk_create()` asks for besides its objects, checked; *each*: with the signals of saves."""

    batch_size: int | None
    upsert: Upsert | None
    each: bool


Planned = tuple[Any, Row, Image]
"""One object, the row to write of it, and its before-image."""


class Part(NamedTuple):
    """Rows that one statement can write: of the same *names*, and by the same way."""

    names: tuple[str, ...]
    upsert: Upsert | None
    planned: list[Planned]


def bulk_create(
    schema: Schema, database: Database, instances: Iterable[Any], wish: Wish, progress: Any = None
) -> list[Any]:
    """Insert all of *instances* or none, in few statements; they get their keys and their state."""
    objects = checked_objects(schema, "bulk_create", instances)
    told = Progress(progress, len(objects))
    if not objects:
        return objects
    databases: Databases = schema.registry.databases
    refreshed = refresh_all_foreign_keys(schema, "bulk_create", objects)
    with restored_on_failure(databases, refreshed):
        complete_all(objects)
        for signal in (pre_save, post_save) if wish.each else (pre_bulk_create, post_bulk_create):
            signal.refuse_waiting(schema.model)
        if databases.transaction(database) is not None:
            _create_in_block(schema, database, objects, wish, told)
        else:
            note_split_write(databases, database.alias)
            with databases.block(database):
                _create_in_block(schema, database, objects, wish, told)
    return objects


def _create_in_block(
    schema: Schema, database: Database, objects: list[Any], wish: Wish, progress: Progress
) -> None:
    databases = schema.registry.databases
    with databases.channel(database, prepared=True, writes=True) as channel:
        if _create_alike(schema, channel, objects, wish, progress):
            return
        images: list[Image] = [(ref(each), each._origin, each._row, {}) for each in objects]
        half_way = bool((pre_save if wish.each else pre_bulk_create)._route(schema.model))
        try:
            if half_way:
                half_way = _tell_before(schema, database.alias, objects, wish)
                for instance, image in zip(objects, images, strict=True) if schema.foreign_keys else ():
                    refresh_foreign_keys(schema, instance, image)  # a receiver may have assigned an instance
            before = [(instance._origin, instance._row) for instance in objects if wish.each]
            parts = _parts(schema, objects, images, wish.upsert)
            for part in parts:
                for batch in batches(channel, part.planned, itemgetter(1), wish.batch_size):
                    with channel:  # which a receiver may have doomed
                        half_way = True
                        _write_batch(schema, channel, part, batch, wish.upsert)
                    progress.add(len(batch))
            _tell_after(schema, database.alias, objects, wish, before)
        except BaseException as error:
            for image in images:
                restore(image)
            if half_way:
                channel.doom(error)
            raise


def _create_alike(schema: Schema, channel: Any, objects: list[Any], wish: Wish, progress: Progress) -> bool:
    """Do all of it, if *objects* are alike and nobody is told before; else nothing, and False."""
    if wish.each or wish.upsert is not None or pre_bulk_create._route(schema.model):
        return False
    if (alike := alike_of(schema, objects)) is None:
        return False
    transaction: Transaction = channel
    try:
        for batch in batches(channel, alike.rows, tuple, wish.batch_size):
            with transaction:
                made = _insert_rows(
                    schema, plans_of(schema, transaction.database), transaction, alike.names, batch
                )
                alike.settle(transaction, batch, made)
            progress.add(len(batch))
        _tell_after(schema, transaction.database.alias, objects, wish, [])
    except BaseException as error:
        alike.restore()
        transaction.doom(error)
        raise
    return True


def _tell_before(schema: Schema, alias: str, objects: list[Any], wish: Wish) -> bool:
    """Send what comes before the SQL; whether a receiver has run."""
    if not wish.each:
        return _send(schema, alias, pre_bulk_create, objects=list(objects))
    ran = [_send(schema, alias, pre_save, instance=each, raw=False, update_fields=None) for each in objects]
    return any(ran)


def _tell_after(
    schema: Schema, alias: str, objects: list[Any], wish: Wish, before: list[tuple[Origin, Row | None]]
) -> None:
    """Send what comes after the SQL."""
    if not wish.each:
        if post_bulk_create._route(schema.model):
            _send(schema, alias, post_bulk_create, objects=list(objects))
        return
    for instance, earlier in zip(objects, before, strict=True):
        tell_saved(schema, alias, instance, INSERT, earlier, created=True)


def _send(schema: Schema, alias: str, signal: ModelSignal, **arguments: Any) -> bool:
    with schema.registry.databases.receiving(alias):
        return bool(signal.send(schema.model, using=alias, **arguments))


def _parts(schema: Schema, objects: list[Any], images: list[Image], upsert: Upsert | None) -> list[Part]:
    """What to write together, every row checked: those that have a key first, so that none is made twice."""
    alike: dict[tuple[Any, ...], Part] = {}
    met: dict[Row, int] = {}
    last: tuple[Any, ...] = ()
    part: Part | None = None
    take = row_taker(schema)
    for place, (instance, image) in enumerate(zip(objects, images, strict=True)):
        try:
            names, row = take(instance, image)
            way = None if upsert is None else _way(schema, upsert, names, row, place, met)
        except InvalidValue as error:
            error.add_note(f"in object {place} of bulk_create()")
            raise
        kind = (names, row.__class__, way)
        if part is None or kind != last:  # hardly ever, and a comparison is less than a hash
            last, part = kind, alike.setdefault(kind, Part(names, way, []))
        part.planned.append((instance, row, image))
    return sorted(alike.values(), key=lambda part: not set(schema.key_names).issubset(part.names))


def _way(
    schema: Schema, upsert: Upsert, names: tuple[str, ...], row: Row, place: int, met: dict[Row, int]
) -> Upsert | None:
    """*upsert*, or None for a row that cannot meet another. `ValueError` for one that meets an earlier one.

    *met* has the values of the unique fields that were there before.
    """
    if not names:
        return None
    values = dict(zip(names, row, strict=True))
    unique = tuple([values.get(name) for name in upsert.unique])
    for name, value in zip(upsert.unique, unique, strict=True):
        if isinstance(value, ClauseElement):
            raise InvalidValue(schema.name, {name: "is a unique field, and wants a value, not an expression"})
    if None in unique:
        return None
    if upsert.updates and (first := met.setdefault(unique, place)) != place:
        declared = [schema.reported[name] for name in upsert.unique]
        shown = ", ".join(f"{name}={value!r}" for name, value in zip(declared, unique, strict=True))
        raise ValueError(f"object {place} of bulk_create() has the {shown} of object {first}")
    return upsert


def _write_batch(
    schema: Schema, channel: Any, part: Part, batch: Sequence[Planned], asked: Upsert | None
) -> None:
    transaction: Transaction = channel
    names = part.names
    if part.upsert is not None:
        _upsert_batch(schema, transaction, part.upsert, names, batch)
    elif batch[0][1].__class__ is ExpressionRow:
        for instance, row, image in batch:
            write_row(schema, transaction, instance, INSERT, names, row, image)
    else:
        _insert_batch(schema, transaction, names, batch)
    if asked is not None and not asked.updates:
        # Nobody knows which rows were inserted, so no instance claims anything.
        for _, _, image in batch:
            restore(image)
        return
    transaction.undo.record_all([image for _, _, image in batch])


def _insert_batch(
    schema: Schema, transaction: Transaction, names: tuple[str, ...], batch: Sequence[Planned]
) -> None:
    plans = plans_of(schema, transaction.database)
    made_names = plans.insert(names).made_names
    made = _insert_rows(schema, plans, transaction, names, [row for _, row, _ in batch])
    origin = plans.origin(names + made_names)
    fields = [schema.by_name[name] for name in names + made_names]
    (name,) = made_names if len(made_names) == 1 else (None,)
    for (instance, row, image), new in zip(batch, made, strict=True):
        if name is not None:  # as `settle` does
            values, (value,) = instance.__dict__, new
            image[3][name] = (values.get(name, MISSING), value)
            values[name] = value
        elif new:
            settle(instance, image, dict(zip(made_names, new, strict=True)))
        instance._row = kept(fields, row + new) if schema.mutable else row + new
        instance._origin = origin


def _upsert_batch(
    schema: Schema, channel: Channel, upsert: Upsert, names: tuple[str, ...], batch: Sequence[Planned]
) -> None:
    """Insert or update; what an instance does not know of its row is read back."""
    upserts.run(schema, channel, upsert, names, [row for _, row, _ in batch])
    if not upsert.updates:
        return
    expressions = batch[0][1].__class__ is ExpressionRow
    written = () if expressions else upsert.updated(schema, names)
    known = [name for name in names if name in (*upsert.unique, *written)]
    unknown = tuple(name for name in schema.names if name not in known)
    places = [names.index(name) for name in upsert.unique]
    wanted = [tuple([row[place] for place in places]) for _, row, _ in batch]
    found = upserts.rows_of(schema, channel, upsert.unique, wanted, unknown) if unknown else {}
    origin = plans_of(schema, channel.database).origin((*known, *unknown))
    fields = [schema.by_name[name] for name in (*known, *unknown)]
    places = [names.index(name) for name in known]
    for (instance, row, image), unique in zip(batch, wanted, strict=True):
        new = found.get(unique, ())
        settle(instance, image, dict(zip(unknown, new, strict=True)))
        instance._row = kept(fields, (*[row[place] for place in places], *new))
        instance._origin = origin


def _insert_rows(
    schema: Schema, plans: Plans, channel: Channel, names: tuple[str, ...], rows: Sequence[Row]
) -> Sequence[Row]:
    """Insert *rows*; returns for each what the database made, in order."""
    if (multirow := multirow_of(schema, plans, channel, names)) is not None:
        return multirow.insert(channel, rows)
    prepared = plans.insert(names)
    if not prepared.made:
        prepared.run_many(channel, rows)
        return [()] * len(rows)
    if channel.database.is_sqlite and schema.generated in prepared.made and not has_triggers(schema, channel):
        return _insert_numbered(schema, plans, channel, names, rows)
    columns = [schema.by_name[name].column for name in names]
    statement = insert(schema.table).returning(
        *[f.column for f in prepared.made], sort_by_parameter_order=True
    )
    parameters = [{column.key: value for column, value in zip(columns, row, strict=True)} for row in rows]
    return [tuple(each) for each in channel.execute(statement, parameters)]


def _insert_numbered(
    schema: Schema, plans: Plans, channel: Channel, names: tuple[str, ...], rows: Sequence[Row]
) -> Sequence[Row]:
    """SQLite numbers rows one after another, and nobody else writes while this transaction does."""
    insert_in_order(schema, channel, names, rows)
    last = channel.connection.exec_driver_sql("SELECT last_insert_rowid()").scalar_one()
    first, key = last - len(rows) + 1, schema.key[0].column
    made = plans.insert(names).made
    if made == list(schema.key):
        return [(number,) for number in range(first, last + 1)]
    statement = select(*[f.column for f in made]).where(key.between(first, last)).order_by(key)
    return [tuple(each) for each in channel.execute(statement)]


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
