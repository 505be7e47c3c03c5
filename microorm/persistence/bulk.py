"""Bulk create: insert many instances by few statements.

All rows are checked before the first statement. A generated loop collects the rows of new objects that hold plain
values; other rows are collected one by one. Rows of the same fields form a group, which is written in batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql import ClauseElement

from microorm.db.atomic import UnitOfWork, unit_of_work
from microorm.db.connection import Bind, Channel
from microorm.db.context import ReceiverScope
from microorm.db.engines.engine import Database
from microorm.db.snapshots import Batch, Snapshot, apply_generated, note_row, restore
from microorm.errors import InvalidValue
from microorm.instrumentation import BULK_CREATE
from microorm.mapping.codegen import ExpressionRow, Row, validate_row
from microorm.mapping.path import refuse_columns
from microorm.mapping.schema import Schema
from microorm.mapping.state import RowState, copied_row
from microorm.messages import brief
from microorm.persistence.conflicts import note_object
from microorm.persistence.expressions import write_expressions
from microorm.persistence.foreign_keys import refresh_all_foreign_keys
from microorm.persistence.options import INSERT
from microorm.persistence.refresh import check_results, complete_all
from microorm.persistence.save import Before, collect, send_post_save
from microorm.persistence.steps import as_step
from microorm.signals import ModelSignal, post_bulk_create, post_save, pre_bulk_create, pre_save
from microorm.sql import upsert as upserts
from microorm.sql.batches import (
    Progress,
    batches,
    check_instances,
    has_triggers,
    max_rows,
    multirow_insert,
    sliced,
)
from microorm.sql.statements import Plans, plans_of
from microorm.sql.upsert import Upsert


class BulkOptions(NamedTuple):
    """The checked arguments of one call of `bulk_create()`. *each*: send `pre_save` and `post_save` for each object."""

    batch_size: int | None
    upsert: Upsert | None
    each: bool


class Group(NamedTuple):
    """Objects that one statement can write: their *rows* have the same fields *names* and the same *upsert*.

    *snapshots* is None for new objects without a row or a key, which share the row state *state*: a batch of them needs
    one snapshot only.
    """

    names: tuple[str, ...]
    upsert: Upsert | None
    state: RowState
    objects: list[Any]
    rows: list[Row]
    snapshots: list[Snapshot] | None


@as_step(BULK_CREATE)
def bulk_create(
    schema: Schema, database: Database, instances: Iterable[Any], options: BulkOptions, progress: Any = None
) -> list[Any]:
    """Insert all *instances* or none; set their generated keys and their state, and return them."""
    objects = check_instances(schema, "bulk_create", instances)
    written = Progress(progress, len(objects))
    if not objects:
        return objects
    model, alias = schema.model, database.alias
    databases = schema.registry.databases
    with unit_of_work(databases, database, begin=False) as work:
        refresh_all_foreign_keys(schema, work, alias, "bulk_create", objects)
        complete_all(objects)
        for signal in (pre_save, post_save) if options.each else (pre_bulk_create, post_bulk_create):
            signal.refuse_waiting(model)
        work.begin()
        if (pre_save if options.each else pre_bulk_create)._route(model):
            _send_before(schema, work, objects, options, alias)
            refresh_all_foreign_keys(
                schema, work, alias, "bulk_create", objects
            )  # a receiver may have assigned one
        before = [(instance._row_state, instance._row) for instance in objects if options.each]
        try:
            for group in _groups(schema, work, objects, options.upsert):
                _write_group(schema, work, group, options, written)
        except IntegrityError as error:
            note_object(error, schema, "bulk_create", objects)
            raise
        if options.each and post_save._route(model):
            _send_after_each(schema, alias, objects, before)
        elif not options.each and post_bulk_create._route(model):
            work.dirty = True
            _send(schema, alias, post_bulk_create, objects=list(objects))
    return objects


def _write_group(
    schema: Schema, work: UnitOfWork, group: Group, options: BulkOptions, written: Progress
) -> None:
    """Write the rows of *group*, in as many statements as needed."""
    start = 0
    for rows in batches(work.channel, group.rows, tuple, options.batch_size):
        work.check()  # a receiver or the progress function may have doomed the block
        work.dirty = True
        _write_batch(schema, work, group, start, rows, options.upsert)
        start += len(rows)
        written.add(len(rows))


def _send_before(
    schema: Schema, work: UnitOfWork, objects: list[Any], options: BulkOptions, alias: str
) -> None:
    """Take a snapshot of each object, then send `pre_save` for each or `pre_bulk_create` for all."""
    for instance in objects:
        work.snapshot(instance)
    work.dirty = True
    if options.each:
        sent = [
            _send(schema, alias, pre_save, instance=instance, raw=False, update_fields=None)
            for instance in objects
        ]
        work.dirty = any(sent)
    else:
        work.dirty = _send(schema, alias, pre_bulk_create, objects=list(objects))


def _send_after_each(schema: Schema, alias: str, objects: list[Any], before: Sequence[Before]) -> None:
    """Store the calls of durable receivers for all *objects* at once, then send `post_save` to the others for each."""
    shared = {"created": True, "raw": False, "using": alias, "update_fields": None}
    post_save._store_calls(schema.model, [{"instance": instance} | shared for instance in objects])
    route = post_save._route(schema.model)
    if not (route.sync or route.asynchronous):
        return
    for instance, earlier in zip(objects, before, strict=True):
        send_post_save(schema, alias, instance, INSERT, earlier, created=True, send=post_save._send_unstored)


def _send(schema: Schema, alias: str, signal: ModelSignal, **arguments: Any) -> bool:
    scope = ReceiverScope(schema.registry.databases, alias)
    return bool(scope.run(signal.send, schema.model, using=alias, **arguments))


def _groups(schema: Schema, work: UnitOfWork, objects: list[Any], upsert: Upsert | None) -> Iterable[Group]:
    """Collect and check all rows, and return them in groups.

    Rows with a key come first, so that the database does not generate one of their keys for another row.
    """
    state = objects[0]._row_state
    if (
        upsert is None
        and schema.plain_names
        and not (schema.server_made or schema.updating or schema.mutable)
    ):
        rows = schema.gatherer()(objects, state)
        if rows is not None:  # all objects are new and hold plain values
            names = schema.written_names if schema.generated is None else schema.plain_names
            if schema.validated:
                _validate(schema, names, rows)
            return [Group(names, None, state, objects, rows, None)]
    groups: dict[tuple[Any, ...], Group] = {}
    indexes: dict[Row, int] = {}
    for index, instance in enumerate(objects):
        snapshot = work.snapshot(instance)
        try:
            plan, row = collect(schema, work.database, instance, INSERT, snapshot)
            if row.__class__ is ExpressionRow:
                refuse_columns(schema, plan.names, row)
            row_upsert = (
                None if upsert is None else _upsert_of(schema, upsert, plan.names, row, index, indexes)
            )
        except InvalidValue as error:
            error.add_note(f"in object {index} of bulk_create()")
            raise
        kind = (plan.names, row.__class__, row_upsert)
        if (group := groups.get(kind)) is None:
            group = groups[kind] = Group(plan.names, row_upsert, state, [], [], [])
        group.objects.append(instance)
        group.rows.append(row)
        group.snapshots.append(snapshot)  # type: ignore[union-attr]
    return sorted(groups.values(), key=lambda group: not set(schema.key_names).issubset(group.names))


def _validate(schema: Schema, names: tuple[str, ...], rows: Sequence[Row]) -> None:
    """Call the validators with the values of *rows*, which have the fields *names*."""
    fields = [schema.by_name[name] for name in names]
    for index, row in enumerate(rows):
        try:
            validate_row(schema.name, fields, row)
        except InvalidValue as error:
            error.add_note(f"in object {index} of bulk_create()")
            raise


def _upsert_of(
    schema: Schema, upsert: Upsert, names: tuple[str, ...], row: Row, index: int, indexes: dict[Row, int]
) -> Upsert | None:
    """Return *upsert*, or None for a row that cannot conflict with another.

    *indexes*: the index of each earlier row by the values of its unique fields; the row is added. Raises `ValueError`
    for a row that would update an earlier one.
    """
    if not names:
        return None
    values = dict(zip(names, row, strict=True))
    unique = tuple([values.get(name) for name in upsert.unique])
    for name, value in zip(upsert.unique, unique, strict=True):
        if isinstance(value, ClauseElement):
            raise InvalidValue(
                schema.name, {name: "is a unique field, and must be a value, not an expression"}
            )
    if None in unique:
        return None
    if upsert.updates and (first := indexes.setdefault(unique, index)) != index:
        declared = [schema.reported[name] for name in upsert.unique]
        shown = ", ".join(f"{name}={brief(value)}" for name, value in zip(declared, unique, strict=True))
        raise ValueError(f"object {index} of bulk_create() has the same {shown} as object {first}")
    return upsert


def _write_batch(
    schema: Schema, work: UnitOfWork, group: Group, start: int, rows: Sequence[Row], upsert: Upsert | None
) -> None:
    """Write *rows*, which are those of *group* from the index *start* on."""
    channel, names = work.channel, group.names
    objects = group.objects[start : start + len(rows)]
    if group.snapshots is None:
        generated = insert_rows(schema, plans_of(schema, channel.database), channel, names, rows)
        _mark_new(schema, work, group.state, names, objects, rows, generated)
        return
    snapshots = group.snapshots[start : start + len(rows)]
    if group.upsert is not None:
        _upsert_batch(schema, channel, group.upsert, names, objects, rows, snapshots)
    elif rows[0].__class__ is ExpressionRow:
        for instance, row, snapshot in zip(objects, rows, snapshots, strict=True):
            write_expressions(schema, channel, instance, INSERT, names, row, snapshot)
    else:
        _insert_batch(schema, channel, names, objects, rows, snapshots)
    if upsert is not None and not upsert.updates:
        # It is unknown which rows were inserted, so all instances keep their state.
        for snapshot in snapshots:
            restore(snapshot)
        return
    channel.undo.record_all(snapshots)


def _mark_new(
    schema: Schema,
    work: UnitOfWork,
    former: RowState,
    names: tuple[str, ...],
    objects: Sequence[Any],
    rows: Sequence[Row],
    generated: Sequence[Row],
) -> None:
    """Set the state, and the *generated* keys, of new *objects* whose *rows* were inserted."""
    key = None if schema.generated is None else schema.generated.name
    state = plans_of(schema, work.channel.database).row_state(names if key is None else (*names, key))
    keys = [] if key is None else [value for (value,) in generated]
    # Recorded before the first change, so that a rollback restores the objects even after an interrupt.
    whole = rows if key is None else [row + new for row, new in zip(rows, generated, strict=True)]
    work.keep_batch(Batch(objects, former, whole, key, keys))
    if key is not None:
        for instance, value in zip(objects, keys, strict=True):
            instance.__dict__[key] = value
    for instance, row in zip(objects, whole, strict=True):
        instance._row = row
        instance._row_state = state


def _insert_batch(
    schema: Schema,
    channel: Channel,
    names: tuple[str, ...],
    objects: Sequence[Any],
    rows: Sequence[Row],
    snapshots: Sequence[Snapshot],
) -> None:
    plans = plans_of(schema, channel.database)
    made_names = plans.insert(names).made_names
    generated = insert_rows(schema, plans, channel, names, rows)
    state = plans.row_state(names + made_names)
    fields = [schema.by_name[name] for name in names + made_names]
    for instance, row, snapshot, new in zip(objects, rows, snapshots, generated, strict=True):
        if new:
            apply_generated(instance, snapshot, dict(zip(made_names, new, strict=True)))
        row += new
        if schema.mutable:
            row = copied_row(fields, row)
        note_row(snapshot, row)
        instance._row = row
        instance._row_state = state


def _upsert_batch(
    schema: Schema,
    channel: Channel,
    upsert: Upsert,
    names: tuple[str, ...],
    objects: Sequence[Any],
    rows: Sequence[Row],
    snapshots: Sequence[Snapshot],
) -> None:
    """Insert or update *rows*; after an update, read the values that the instances do not have."""
    upserts.run(schema, channel, upsert, names, rows)
    if not upsert.updates:
        return
    expressions = rows[0].__class__ is ExpressionRow
    written = () if expressions else upsert.updated(schema, names)
    known = [name for name in names if name in (*upsert.unique, *written)]
    unknown = tuple(name for name in schema.names if name not in known)
    indexes = [names.index(name) for name in upsert.unique]
    uniques = [tuple([row[index] for index in indexes]) for row in rows]
    found = upserts.rows_of(schema, channel, upsert.unique, uniques, unknown) if unknown else {}
    state = plans_of(schema, channel.database).row_state((*known, *unknown))
    fields = [schema.by_name[name] for name in (*known, *unknown)]
    indexes = [names.index(name) for name in known]
    for instance, row, snapshot, unique in zip(objects, rows, snapshots, uniques, strict=True):
        new = found.get(unique, ())
        read = dict(zip(unknown, new, strict=True))
        if expressions and channel.database.is_sqlite:
            given = zip(names, row, strict=True)
            results = [name for name, value in given if isinstance(value, ClauseElement)]
            check_results(schema, results, [[read[name] for name in results]])
        apply_generated(instance, snapshot, read)
        row = copied_row(fields, (*[row[index] for index in indexes], *new))
        note_row(snapshot, row)
        instance._row = row
        instance._row_state = state


def insert_rows(
    schema: Schema, plans: Plans, channel: Channel, names: tuple[str, ...], rows: Sequence[Row]
) -> Sequence[Row]:
    """Insert *rows*, and return the generated values of each, in the same order."""
    if (multirow := multirow_insert(schema, plans, channel, names)) is not None:
        return multirow.insert(channel, rows)
    compiled = plans.insert(names)
    if not compiled.made:
        compiled.run_many(channel, rows)
        return [()] * len(rows)
    if channel.database.is_sqlite and schema.generated in compiled.made and not has_triggers(schema, channel):
        return _insert_numbered(schema, plans, channel, names, rows)
    if not names:  # SQLAlchemy would write DEFAULT for each key, which is 0 where MariaDB stores zeros
        return [compiled.insert(channel, row) for row in rows]
    columns = [schema.by_name[name].column for name in names]
    statement = insert(schema.table).returning(
        *[field.column for field in compiled.made], sort_by_parameter_order=True
    )
    parameters = [{column.key: value for column, value in zip(columns, row, strict=True)} for row in rows]
    return [tuple(row) for row in channel.fetch(statement, parameters)]


def _insert_numbered(
    schema: Schema, plans: Plans, channel: Channel, names: tuple[str, ...], rows: Sequence[Row]
) -> Sequence[Row]:
    """Insert *rows* on SQLite, and return their generated values by way of `last_insert_rowid()`.

    SQLite gives consecutive keys to the rows, since this transaction is the only one that writes.
    """
    insert_in_order(schema, channel, names, rows)
    if channel.cursor is not None:
        last = channel.fetch_prepared("SELECT last_insert_rowid()", ())[0][0]
    else:
        last = channel.connection.exec_driver_sql("SELECT last_insert_rowid()").scalar_one()
    first, key = last - len(rows) + 1, schema.key[0].column
    made = plans.insert(names).made
    if made == list(schema.key):
        return [(number,) for number in range(first, last + 1)]
    statement = select(*[field.column for field in made]).where(key.between(first, last)).order_by(key)
    return [tuple(row) for row in channel.fetch(statement)]


ROWS_PER_STATEMENT = 20
"""The size of a multi-row INSERT on SQLite. It saves time per row, and takes a fraction of a millisecond to make."""
WORTH_IT = 1000
"""How many rows of a model have to be inserted before its multi-row INSERT is made."""


def insert_in_order(schema: Schema, channel: Channel, names: tuple[str, ...], rows: Sequence[Row]) -> None:
    """Insert *rows* of the fields *names* in order, several by one statement if the channel has a driver's cursor."""
    plans, size = plans_of(schema, channel.database), 1
    if channel.cursor is not None and names and channel.database.engine.dialect.paramstyle == "qmark":
        plans.inserted_rows += len(rows)
        if plans.inserted_rows >= WORTH_IT:
            size = min(max_rows(channel, len(names)), ROWS_PER_STATEMENT)
    whole = 0 if size == 1 else len(rows) - len(rows) % size
    if whole:
        sql, bind = plans.cached(("insert several", names, size), lambda: _insert_of(plans, names, size))
        channel.executemany_prepared(sql, [*sliced(rows[:whole], size)], bind)
    if rest := rows[whole:]:
        plans.insert_only(names).run_many(channel, rest)


def _insert_of(plans: Plans, names: tuple[str, ...], count: int) -> tuple[str, Bind]:
    """Return the INSERT of *count* rows, and a function that makes its parameters of them.

    Only the INSERT of two rows is compiled: what it has more than that of one row is repeated.
    """
    one = plans.insert_only(names)
    sql = one.sql + plans.insert_only(names, 2).sql[len(one.sql) :] * (count - 1)
    if (bind := one.bind) is None:
        return sql, lambda rows: tuple(chain.from_iterable(rows))
    return sql, lambda rows: tuple(chain.from_iterable(map(bind, rows)))
