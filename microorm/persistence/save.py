"""Save: write an instance and send its signals.

All saves have one order: check the arguments, choose the alias, send `pre_save`, set `on_update` values, check the
values, run the SQL, set the state of the instance, send `post_save`. An error restores the instance; after a receiver or
SQL has run, it also dooms the open block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from weakref import ref

from sqlalchemy import insert, select, update
from sqlalchemy.sql import ClauseElement

from microorm.db.atomic import UnitOfWork
from microorm.db.connection import Channel
from microorm.db.context import ReceiverScope
from microorm.db.engine import Database
from microorm.db.snapshots import ROW, Snapshot, apply_generated, note_generated, note_row
from microorm.dispatch.receivers import EMPTY, Route
from microorm.errors import InvalidValue, NotUpdated
from microorm.fields.field import MISSING, Field
from microorm.mapping.codegen import ExpressionRow, Row
from microorm.mapping.path import refuse_columns, refuse_foreign
from microorm.mapping.schema import Schema
from microorm.mapping.state import NOTHING, RowState, copied_row
from microorm.messages import brief
from microorm.persistence.foreign_keys import refresh_foreign_keys, refuse_elsewhere
from microorm.persistence.options import (
    PLAIN,
    SaveOptions,
    field_names,
    options_of_partial,
    refuse_conflict,
    refuse_unsaved,
)
from microorm.persistence.refresh import check_results, computed_rows, refuse_computed
from microorm.signals import post_save, pre_save
from microorm.sql.hydration import entries_of, fetched
from microorm.sql.statements import (
    MAX_STATEMENTS,
    CompiledInsert,
    CompiledStatement,
    Plans,
    assigned,
    plans_of,
    supplied_names,
)

Before = tuple[RowState, Row | None]
"""RowState and loaded row of an instance as they were before a save."""


NOTHING_MADE: tuple[tuple[str, ...], Row] = ((), ())


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

    def insert_row(self, channel: Channel, row: Row) -> tuple[RowState, tuple[str, ...], Row]:
        """Insert *row*; return the state of its instance, and names and values of what the database has made."""
        statement = self.insert
        if statement is None:
            statement = self.insert = self._plans.insert(self.names)
            self.inserted = self._plans.row_state(self.names + statement.made_names)
        return self.inserted, statement.made_names, statement.insert(channel, row)

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
        refuse_conflict(fields, force_insert=force_insert, force_update=force_update)
        if fields is not None and not fields:
            return
        options = SaveOptions(fields, raw=raw, force_insert=force_insert, force_update=force_update)
        if force_update or fields is not None:
            refuse_unsaved(schema, instance)
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
        if schema.foreign_keys and instance._related and not options.raw:
            refresh_foreign_keys(schema, instance, snapshot)
        database, transaction = databases.place(schema, using, instance, writes=True)
        work.database, work.transaction = database, transaction
        if schema.foreign_keys and instance._related and not options.raw:
            refuse_elsewhere(schema, instance, database.alias)
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
        refuse_elsewhere(schema, instance, database.alias)
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
    saved = instance._row_state
    with_before = saved.after_insert if before == NOTHING else None
    instance._row_state = with_before = with_before or saved.with_before(before)
    fields = None if options.fields is None else schema.reported_names(options.fields)
    try:
        ReceiverScope(schema.registry.databases, alias, committed=committed).run(
            post_save.send,
            schema.model,
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
        refuse_computed(instance)
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
    if not created and schema.computed:
        _mark_with_computed(schema, channel, instance, plan.names, row, snapshot)
        return False
    if options.fields is not None:
        mark_saved(schema, plans, instance, plan.names, row, snapshot, channel.keep)
        return False
    values = instance.__dict__
    state, made, generated = plan.updated, *NOTHING_MADE
    if created:
        state, made, generated = plan.insert_row(channel, row)
        for name, value in zip(made, generated):  # noqa: B905 a keyword costs more than the loop
            snapshot[3][name] = (values.get(name, MISSING), value)
    row += generated
    if schema.mutable:
        row = copied(plan.names + made, schema, row)
    snapshot[3][ROW] = (snapshot[2], row)
    # Recorded before the first change, so that a rollback restores the instance even after an interrupt.
    if channel.undo is not None:
        channel.undo.record(snapshot)
    for name, value in zip(made, generated):  # noqa: B905
        values[name] = value
    instance._row, instance._row_state = row, state
    return created


def _mark_with_computed(
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


def _inserts(schema: Schema, instance: Any, options: SaveOptions) -> bool:
    """Return whether to insert a row that has a key without trying an UPDATE first."""
    if options.force_insert:
        return True
    if options.force_update:
        return False
    return instance._row_state.adding and schema.key_has_default and not options.raw


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
        if not channel.execute(update(schema.table).values(assigned(written)).where(*conditions)).rowcount:
            if options.fields is not None or options.force_update:
                raise _not_updated(schema, row, channel)
            created = True
    if created:
        refuse_columns(schema, names, row)
        result = channel.execute(insert(schema.table).values(assigned(columns)))
        made = dict(zip(schema.table.primary_key.columns, result.inserted_primary_key or (), strict=True))
        key = {column: made[column] if value is None else value for column, value in key.items()}
    unread = {*expressions, *schema.computed}
    unknown = [f for f in schema.fields if f.name in unread or (created and f.name not in values)]
    generated = _read_back(schema, channel, unknown, key)
    if channel.database.is_sqlite:
        check_results(schema, expressions, [[generated[name] for name in expressions]])
    note_generated(instance, snapshot, generated, generated.values())
    values.update(generated)
    plans, new = plans_of(schema, channel.database), tuple(values.values())
    mark_saved(schema, plans, instance, tuple(values), new, snapshot, channel.keep)
    instance.__dict__.update(generated)
    return created


def _read_back(
    schema: Schema, channel: Channel, fields: list[Field[Any]], key: dict[Any, Any]
) -> dict[str, Any]:
    """Return the values of *fields* in the row with the *key*."""
    columns = [field.column for field in fields]
    statement = select(*columns).where(*[column == value for column, value in key.items()])
    (found,) = fetched(channel, statement, entries_of(schema, fields))
    return dict(zip([field.name for field in fields], found, strict=True))


def _not_updated(schema: Schema, row: Row, channel: Channel) -> NotUpdated:
    key = row[-len(schema.key) :]
    shown = ", ".join(f"{f.name}={brief(value)}" for f, value in zip(schema.key, key, strict=True))
    error: NotUpdated = schema.model.NotUpdated(
        f"{schema.name} with {shown} is not in {channel.database.alias!r}"
    )
    return error
