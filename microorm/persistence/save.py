"""Save: write an instance and send its signals.

All saves have one order: check the arguments, choose the alias, send `pre_save`, set `on_update` values, check the
values, run the SQL, set the state of the instance, send `post_save`. An error restores the instance; after a receiver or
SQL has run, it also dooms the open block.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from weakref import ref

from sqlalchemy import insert, select, update
from sqlalchemy.sql import ClauseElement

from microorm.db.atomic import UnitOfWork
from microorm.db.connection import Channel
from microorm.db.context import ReceiverScope
from microorm.db.engine import Database
from microorm.db.snapshots import Snapshot, apply_generated, note_generated
from microorm.dispatch.receivers import EMPTY, Route
from microorm.errors import FieldError, InvalidValue, NotUpdated, UnsavedError
from microorm.fields.field import MISSING
from microorm.mapping.codegen import ExpressionRow, Row
from microorm.mapping.path import refuse_foreign
from microorm.mapping.schema import Schema
from microorm.mapping.state import NOTHING, RowState, copied_row
from microorm.messages import brief
from microorm.persistence.foreign_keys import refresh_foreign_keys
from microorm.persistence.refresh import complete, is_own_row, load_replaced, missing
from microorm.signals import post_save, pre_save
from microorm.sql.statements import (
    MAX_STATEMENTS,
    CompiledInsert,
    CompiledStatement,
    Plans,
    plans_of,
    supplied_names,
)

Before = tuple[RowState, Row | None]
"""RowState and loaded row of an instance as they were before a save."""


class SaveOptions:
    """The checked arguments of one call of `save()`."""

    __slots__ = ("fields", "force_insert", "force_update", "raw")

    def __init__(
        self,
        fields: frozenset[str] | None = None,
        *,
        raw: bool = False,
        force_insert: bool = False,
        force_update: bool = False,
    ) -> None:
        self.fields = fields
        self.raw = raw
        self.force_insert = force_insert
        self.force_update = force_update


PLAIN = SaveOptions()
INSERT = SaveOptions(force_insert=True)


class SavePlan:
    """The collector and the statements for a row of the fields *names*; the key comes last, if it is among them.

    Statements are compiled when they are first needed. *inserted*, *updated*: the row state after an INSERT or UPDATE.
    """

    __slots__ = (
        "_plans",
        "_update",
        "_written",
        "collect",
        "has_key",
        "insert",
        "inserted",
        "names",
        "updated",
    )

    inserted: RowState

    def __init__(self, schema: Schema, plans: Plans, names: tuple[str, ...]) -> None:
        self._plans = plans
        self.insert: CompiledInsert | None = None
        self._update: CompiledStatement | None = None
        self.names = names
        self.collect = schema.collector(names)
        self.has_key = names[-len(schema.key) :] == schema.key_names
        self._written = names[: -len(schema.key)] if self.has_key else names
        self.updated = plans.row_state(names)

    def prepare_insert(self) -> CompiledInsert:
        """Compile the INSERT of the row."""
        statement = self._plans.insert(self.names)
        self.inserted = self._plans.row_state(self.names + statement.made_names)
        self.insert = statement
        return statement

    def update(self, channel: Channel, row: Row) -> bool:
        """Update *row* by its key, and return whether it exists; without fields besides the key, only check that."""
        if self._update is None:
            self._update = self._plans.update(self._written) if self._written else self._plans.exists()
        if self._written:
            return bool(self._update.run(channel, row).rowcount)
        return bool(self._update.fetch(channel, row)[0][0])


def save(
    instance: Any,
    using: str | None,
    update_fields: Iterable[Any] | None,
    raw: bool,
    force_insert: bool,
    force_update: bool,
) -> None:
    """Write *instance* to the alias that the routing picks, completely or not at all, and send the signals."""
    schema: Schema = instance.__schema__
    if update_fields is None and not (raw or force_insert or force_update):
        options = PLAIN
    else:
        fields = None if update_fields is None else field_names(schema, update_fields)
        _refuse_conflict(fields, force_insert=force_insert, force_update=force_update)
        if fields is not None and not fields:
            return
        options = SaveOptions(fields, raw=raw, force_insert=force_insert, force_update=force_update)
        if force_update or fields is not None:
            _refuse_unsaved(schema, instance)
    model = schema.model
    before = pre_save._route(model) if pre_save._connections else EMPTY
    after = post_save._route(model) if post_save._connections else EMPTY
    if before.asynchronous or after.asynchronous:
        pre_save.refuse_waiting(model)
        post_save.refuse_waiting(model)
    write(schema, instance, using, options, before, after)


def write(
    schema: Schema, instance: Any, using: str | None, options: SaveOptions, before: Route, after: Route
) -> None:
    """Write *instance*, and send `pre_save` and `post_save` to the receivers *before* and *after*."""
    state = instance._row_state
    snapshot: Snapshot = (ref(instance), state, instance._row, {})
    databases = schema.registry.databases
    work = UnitOfWork(databases, None, None, snapshot)
    try:
        if schema.foreign_keys and not options.raw:
            refresh_foreign_keys(schema, instance, snapshot)
        database, transaction = databases.place(schema, using, instance, writes=True)
        work.database, work.transaction = database, transaction
        inside, given_options = transaction is not None, options
        if not state.plain:
            if state.before is not None:  # a receiver of post_save saves the same instance
                instance._row_state = state.without_before()
            if state.partial:
                options = options_of_partial(schema, database, instance, given_options)
        if before or (after and not inside and runs_at_once(after)):
            inside = True
            work.begin()
            if before:
                _send_before(schema, work, instance, options, database.alias)
                # A receiver may have assigned an instance, or given values that were not loaded.
                options = _prepared(schema, database, instance, given_options, snapshot)
        earlier = (instance._row_state, instance._row)
        created = write_row(schema, work, instance, options, snapshot)
        if inside:
            if after:
                send_post_save(schema, database.alias, instance, options, earlier, created=created)
            if state.before is not None and not state.copied:
                instance._row_state = instance._row_state.with_before(state.before)
        work.succeed()
    except BaseException as error:
        work.fail(error)
        raise
    if after and not inside:  # all of them wait for the commit, which is done
        send_post_save(schema, database.alias, instance, options, earlier, created=created, committed=True)


def _prepared(
    schema: Schema, database: Database, instance: Any, options: SaveOptions, snapshot: Snapshot
) -> SaveOptions:
    """Return what is to be written of *instance* once it has the present keys of related instances."""
    if schema.foreign_keys and not options.raw:
        refresh_foreign_keys(schema, instance, snapshot)
    if instance._row_state.partial:
        return options_of_partial(schema, database, instance, options)
    return options


def runs_at_once(route: Route) -> bool:
    """Return whether at least one receiver runs during the send, rather than after the commit."""
    return not route.optional or any("delivery" not in each.options for each in route)


def _send_before(schema: Schema, work: UnitOfWork, instance: Any, options: SaveOptions, alias: str) -> None:
    work.dirty = True
    sent = ReceiverScope(schema.registry.databases, alias).run(
        pre_save.send,
        schema.model,
        instance=instance,
        raw=options.raw,
        using=alias,
        update_fields=None if options.fields is None else schema.reported_names(options.fields),
    )
    work.dirty = bool(sent)
    work.check()  # a receiver may have doomed the block


def send_post_save(
    schema: Schema,
    alias: str,
    instance: Any,
    options: SaveOptions,
    before: Before,
    *,
    created: bool,
    committed: bool = False,
) -> None:
    """Send `post_save`. While its receivers run, `changes()` compares with the state *before* the save."""
    model = schema.model
    if not post_save._route(model):
        return
    saved = instance._row_state
    with_before = saved.after_insert if before == NOTHING else None
    instance._row_state = with_before = with_before or saved.with_before(before)
    fields = None if options.fields is None else schema.reported_names(options.fields)
    try:
        ReceiverScope(schema.registry.databases, alias, committed=committed).run(
            post_save.send,
            model,
            instance=instance,
            created=created,
            raw=options.raw,
            using=alias,
            update_fields=fields,
        )
    finally:
        if instance._row_state is with_before:
            instance._row_state = saved
        elif instance._row_state.before is not None:
            instance._row_state = instance._row_state.without_before()


def collect(
    schema: Schema, plans: Plans, instance: Any, options: SaveOptions, snapshot: Snapshot
) -> tuple[SavePlan, Row]:
    """Set the `on_update` values of *instance*, and return the plan for its row and the row, checked.

    Raises `InvalidValue`.
    """
    values = instance.__dict__
    if options.fields is None and schema.same_columns:
        key = schema.generated
        keyless = key is not None and values.get(key.name) is None
        plan: SavePlan | None = plans.save_plans.get(keyless)
        if plan is None:
            names = schema.plain_names if keyless else schema.written_names
            plan = plans.save_plans[keyless] = SavePlan(schema, plans, names)
    else:
        if schema.updating and not options.raw:
            updating = [f for f in schema.updating if options.fields is None or f.name in options.fields]
            generated = {f.name: f.on_update() for f in updating if f.on_update is not None}
            apply_generated(instance, snapshot, generated)
        plan = _plan_of_some(schema, plans, options, values)
    row = plan.collect(values)
    if row.__class__ is ExpressionRow:
        _check_expressions(schema, values, row)
    return plan, row


def _plan_of_some(schema: Schema, plans: Plans, options: SaveOptions, values: dict[str, Any]) -> SavePlan:
    """Return the plan for the fields of *options*, or for those that the database does not generate."""
    if options.fields is not None:
        names = (*(n for n in schema.plain_names if n in options.fields), *schema.key_names)
    else:
        key = schema.key[0]
        keyless = key.generated and values.get(key.name) is None
        names = supplied_names(schema, schema.plain_names if keyless else schema.written_names, values)
    plan: SavePlan | None = plans.save_plans.get(names)
    if plan is None:
        if len(plans.save_plans) >= MAX_STATEMENTS:
            plans.save_plans.clear()
        plan = plans.save_plans[names] = SavePlan(schema, plans, names)
    return plan


def _check_expressions(schema: Schema, values: dict[str, Any], row: Row) -> None:
    """Raise `InvalidValue` for a key that is an expression, `FieldError` for a column of another table."""
    for name in schema.key_names:
        if isinstance(values.get(name), ClauseElement):
            problem = "is the primary key, and must be a value, not an expression"
            raise InvalidValue(schema.name, {name: problem})
    for value in row:
        if isinstance(value, ClauseElement):
            refuse_foreign(schema, value)


def write_row(
    schema: Schema, work: UnitOfWork, instance: Any, options: SaveOptions, snapshot: Snapshot
) -> bool:
    """Check the values of *instance*, insert or update its row, and set generated values and state.

    Returns True for an INSERT.
    """
    plans = schema.plans.get(work.database) or plans_of(schema, work.database)
    plan, row = collect(schema, plans, instance, options, snapshot)
    if row.__class__ is ExpressionRow:
        channel = work.channel or work.begin()
        work.dirty = True
        return write_expressions(schema, channel, instance, options, plan.names, row, snapshot)
    channel = work.channel or work.begin(several=False)
    work.dirty = True
    created = not plan.has_key or _inserts(schema, instance, options)
    if not created and not plan.update(channel, row):
        if options.fields is not None or options.force_update:
            raise _not_updated(schema, row, channel)
        created = True
    if options.fields is not None:
        channel.keep(snapshot)
        mark_saved(schema, plans, instance, plan.names, row)
        return False
    values, state = instance.__dict__, plan.updated
    made: tuple[str, ...] = ()
    generated: Row = ()
    if created:
        statement = plan.insert or plan.prepare_insert()
        state, made, generated = plan.inserted, statement.made_names, statement.insert(channel, row)
        for name, value in zip(made, generated):  # noqa: B905 a keyword costs more than the loop
            snapshot[3][name] = (values.get(name, MISSING), value)
    # Recorded before the first change, so that a rollback restores the instance even after an interrupt.
    if channel.undo is not None:
        channel.undo.record(snapshot)
    for name, value in zip(made, generated):  # noqa: B905
        values[name] = value
    row += generated
    instance._row = copied(plan.names + made, schema, row) if schema.mutable else row
    instance._row_state = state
    return created


def _inserts(schema: Schema, instance: Any, options: SaveOptions) -> bool:
    """Return whether to insert a row that has a key without trying an UPDATE first."""
    if options.force_insert:
        return True
    if options.force_update:
        return False
    return instance._row_state.adding and schema.key_has_default and not options.raw


def mark_saved(schema: Schema, plans: Plans, instance: Any, names: tuple[str, ...], row: Row) -> None:
    """Make *row* the loaded values of the fields *names*; other fields keep their loaded values, if they have any."""
    loaded = dict(zip(names, copied(names, schema, row), strict=True))
    layout, earlier = instance._row_state.layout, instance._row
    for name in () if earlier is None else layout.names:
        if name not in loaded:
            loaded[name] = layout.value(earlier, name)
    instance._row = tuple(loaded.values())
    instance._row_state = plans.row_state(tuple(loaded), partial=instance._row_state.partial)


def copied(names: Iterable[str], schema: Schema, row: Row) -> Row:
    """Return *row* with copies of its mutable values."""
    return copied_row([schema.by_name[name] for name in names], row)


def write_expressions(
    schema: Schema,
    channel: Channel,
    instance: Any,
    options: SaveOptions,
    names: tuple[str, ...],
    row: Row,
    snapshot: Snapshot,
) -> bool:
    """Insert or update a *row* with SQL expressions, and read their results; return True for an INSERT."""
    values = dict(zip(names, row, strict=True))
    expressions = [name for name, value in values.items() if isinstance(value, ClauseElement)]
    columns = {schema.by_name[name].column: value for name, value in values.items()}
    key = {field.column: values.get(field.name) for field in schema.key}
    keyed = names[-len(schema.key) :] == schema.key_names
    created = options.fields is None and (not keyed or _inserts(schema, instance, options))
    if not created:
        written = {column: value for column, value in columns.items() if column not in key}
        conditions = [column == value for column, value in key.items()]
        if not channel.execute(update(schema.table).values(written).where(*conditions)).rowcount:
            if options.fields is not None or options.force_update:
                raise _not_updated(schema, row, channel)
            created = True
    if created:
        result = channel.execute(insert(schema.table).values(columns))
        key = dict(zip(schema.table.primary_key.columns, result.inserted_primary_key or (), strict=True))
    unknown = [f for f in schema.fields if f.name in expressions or (created and f.name not in values)]
    found = channel.execute(
        select(*[f.column for f in unknown]).where(*[column == value for column, value in key.items()])
    ).one()
    generated = dict(zip([f.name for f in unknown], found, strict=True))
    note_generated(instance, snapshot, generated, generated.values())
    channel.keep(snapshot)
    instance.__dict__.update(generated)
    values.update(generated)
    mark_saved(schema, plans_of(schema, channel.database), instance, tuple(values), tuple(values.values()))
    return created


def _not_updated(schema: Schema, row: Row, channel: Channel) -> NotUpdated:
    key = row[-len(schema.key) :]
    shown = ", ".join(f"{f.name}={brief(value)}" for f, value in zip(schema.key, key, strict=True))
    error: NotUpdated = schema.model.NotUpdated(
        f"{schema.name} with {shown} is not in {channel.database.alias!r}"
    )
    return error


def options_of_partial(
    schema: Schema, database: Database, instance: Any, options: SaveOptions
) -> SaveOptions:
    """Return the options for the save of an instance with deferred fields.

    A save to the row that it was loaded from writes the other fields, as with `update_fields`. Any other save writes all
    fields, so the deferred ones are loaded here.
    """
    if post_save._connections and post_save._route(schema.model):
        load_replaced(instance)  # the row has other values when the receivers ask for the changes
    if options.fields is not None:
        complete(instance, tuple(options.fields))
        return options
    deferred = missing(instance)
    if deferred and not options.force_insert and is_own_row(schema, database, instance):
        updating = () if options.raw else [field.name for field in schema.updating]
        names = frozenset(name for name in schema.plain_names if name not in deferred or name in updating)
        if names:
            return SaveOptions(names, raw=options.raw, force_update=options.force_update)
    complete(instance)
    return options


def field_names(schema: Schema, given: Iterable[Any], argument: str = "update_fields") -> frozenset[str]:
    """Return the names of the fields *given* by name or column.

    Raises `TypeError` for a single name or column, `FieldError` for an unknown field and for the primary key.
    """
    if isinstance(given, (str, bytes, ClauseElement)):
        raise TypeError(f"{argument} must be a list of names or columns, not {brief(given)}")
    names = frozenset(schema.field(name).name for name in given)
    for field in schema.key:
        if field.name in names:
            raise FieldError(
                f"{schema.name}.{field.name} is the primary key, which an update does not change"
            )
    return names


def _refuse_conflict(fields: frozenset[str] | None, *, force_insert: bool, force_update: bool) -> None:
    if force_insert and force_update:
        raise ValueError("force_insert and force_update contradict each other")
    if force_insert and fields is not None:
        raise ValueError("force_insert and update_fields contradict each other")


def _refuse_unsaved(schema: Schema, instance: Any) -> None:
    if any(instance.__dict__.get(field.name) is None for field in schema.key):
        raise UnsavedError(f"{schema.name} has no key yet, and an update needs one")
