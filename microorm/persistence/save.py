"""Save: write an instance and send its signals.

All saves have one order: check the arguments, choose the alias, send `pre_save`, set `on_update` values, check the
values, run the SQL, set the state of the instance, send `post_save`. An error restores the instance; after a receiver or
SQL has run, it also dooms the open block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from weakref import ref

from microorm.db.atomic import UnitOfWork
from microorm.db.autocommit import WRITES, AutocommitConnection
from microorm.db.connection import Channel
from microorm.db.context import ReceiverScope
from microorm.db.engines.engine import Database
from microorm.db.snapshots import ROW, Snapshot, apply_generated
from microorm.dispatch.receivers import EMPTY, Route
from microorm.fields.field import MISSING
from microorm.instrumentation import SAVE, Step, watchers
from microorm.mapping.codegen import ExpressionRow, Row
from microorm.mapping.schema import Schema
from microorm.mapping.state import NOTHING, RowState
from microorm.persistence.expressions import check_expressions, write_expressions
from microorm.persistence.foreign_keys import refresh_foreign_keys, refuse_elsewhere
from microorm.persistence.options import (
    PLAIN,
    SaveOptions,
    field_names,
    inserts_at_once,
    options_of_partial,
    refuse_conflict,
    refuse_unsaved,
)
from microorm.persistence.refresh import refuse_computed
from microorm.persistence.steps import note_saved
from microorm.persistence.versions import options_of_version, row_to_insert, set_version
from microorm.persistence.written import copied, mark_saved, mark_with_computed
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


NOTHING_MADE: Row = ()


class SavePlan:
    """The collector and the statements for a row of the fields *names*; the key comes last, if it is among them.

    Statements are compiled when they are first needed. *checked*: the UPDATE compares the version. *inserted*, *updated*: the row state after an INSERT or UPDATE.
    """

    __slots__ = (
        "_update",
        "_written",
        "checked",
        "collect",
        "has_key",
        "insert",
        "inserted",
        "names",
        "plans",
        "updated",
    )

    inserted: RowState

    def __init__(
        self, schema: Schema, plans: Plans, names: tuple[str, ...], *, checked: bool = False
    ) -> None:
        self.plans = plans
        self.checked = checked
        self.insert: CompiledInsert | None = None
        self._update: CompiledStatement | None = None
        self.names = names
        self.collect = schema.writer(names)
        self.has_key = names[-len(schema.key) :] == schema.key_names
        self._written = names[: -len(schema.key)] if self.has_key else names
        self.updated = plans.row_state(names)

    def compile_insert(self) -> CompiledInsert:
        """Compile and return the INSERT; set `inserted`."""
        statement = self.plans.insert(self.names)
        self.inserted = self.plans.row_state(self.names + statement.made_names)
        self.insert = statement
        return statement

    def update(self, channel: Channel, row: Row) -> bool:
        """Update *row* by its key, and return whether it exists; without fields besides the key, only check that."""
        if self._update is None:
            self._update = (
                self.plans.update(self._written, checked=self.checked)
                if self._written
                else self.plans.exists()
            )
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
    if (before and before.asynchronous) or (after and after.asynchronous):
        pre_save.refuse_waiting(model)
        post_save.refuse_waiting(model)
    if watchers:
        with Step(SAVE, model=schema.label) as step:
            try:
                write(schema, instance, using, options, before, after)
            finally:
                note_saved(step, instance)
    else:
        write(schema, instance, using, options, before, after)


def write(
    schema: Schema, instance: Any, using: str | None, options: SaveOptions, before: Route, after: Route
) -> None:
    """Write *instance*, and send `pre_save` and `post_save` to the receivers *before* and *after*.

    A unit of work is made where it has something to begin or to undo: most saves need none.
    """
    state, databases = instance._row_state, schema.registry.databases
    snapshot: Snapshot = (ref(instance), state, instance._row, {})
    work = transaction = channel = entered = None
    try:
        if schema.foreign_keys and instance._related and not options.raw:
            refresh_foreign_keys(schema, instance, snapshot)
        database, transaction = databases.place(schema, using, instance, writes=True)
        inside, given_options = transaction is not None, options
        if instance._related or not state.plain or schema.version is not None:
            options = _options_for(schema, database, instance, options)
        if before or (after and not inside and runs_at_once(after)):
            work, inside = UnitOfWork(databases, database, transaction, snapshot), True
            transaction = work.begin()
            if before:
                options = _send_before(schema, work, instance, options, given_options, snapshot)
        earlier = (instance._row_state, instance._row)
        plan, row = collect(schema, database, instance, options, snapshot)
        if transaction is None and row.__class__ is ExpressionRow:  # read back by a second statement
            work = UnitOfWork(databases, database, None, snapshot)
            transaction = work.begin()
        channel = transaction or AutocommitConnection(database, WRITES)
        entered = channel.__enter__() if work is None else channel  # a unit has entered it
        created = write_row(schema, channel, instance, options, plan, row, snapshot)
        if inside and after:
            send_post_save(schema, database.alias, instance, options, earlier, created=created)
        if inside and state.before is not None and not state.copied:
            instance._row_state = instance._row_state.with_before(state.before)
        if work is not None:
            work.succeed()
        elif not inside:
            channel.__exit__(None, None, None)
    except BaseException as error:
        work = work or UnitOfWork(databases, None, transaction, snapshot)
        work.fail(error, channel, dirty=entered is not None)
        raise
    if after and not inside:  # all of them wait for the commit, which is done
        send_post_save(schema, database.alias, instance, options, earlier, created=created, committed=True)


def _options_for(schema: Schema, database: Database, instance: Any, options: SaveOptions) -> SaveOptions:
    """Return what is to be written of *instance*, which has related instances, a state that is not plain, or a version.

    Raises an error for a related instance in another database.
    """
    if schema.foreign_keys and instance._related and not options.raw:
        refuse_elsewhere(schema, instance, database.alias)
    if instance._row_state.before is not None:  # a receiver of post_save saves the same instance
        instance._row_state = instance._row_state.without_before()
    if instance._row_state.partial:
        options = options_of_partial(schema, database, instance, options)
    if schema.version is not None:
        options = options_of_version(schema, schema.version, instance, options)
    return options


def runs_at_once(route: Route) -> bool:
    """Return whether at least one receiver runs, or its call is stored, during the send, rather than after the commit."""
    return not route.optional or any(each.options.get("delivery") != "on_commit" for each in route)


def _send_before(
    schema: Schema,
    work: UnitOfWork,
    instance: Any,
    options: SaveOptions,
    given: SaveOptions,
    snapshot: Snapshot,
) -> SaveOptions:
    """Send `pre_save`, and return what is to be written then, of what the caller has *given*.

    A receiver may have assigned an instance, or given values that were not loaded.
    """
    alias = work.database.alias
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
    if schema.foreign_keys and not given.raw:
        refresh_foreign_keys(schema, instance, snapshot)
    return _options_for(schema, work.database, instance, given)


def send_post_save(
    schema: Schema,
    alias: str,
    instance: Any,
    options: SaveOptions,
    before: Before,
    *,
    created: bool,
    committed: bool = False,
    send: Callable[..., object] = post_save.send,
) -> None:
    """Send `post_save` by *send*. While its receivers run, `changes()` compares with the state *before* the save."""
    saved = instance._row_state
    with_before = saved.after_insert if before == NOTHING else None
    instance._row_state = with_before = with_before or saved.with_before(before)
    scope = ReceiverScope(schema.registry.databases, alias, committed)  # a keyword costs more
    try:
        scope.open()
        send(
            schema.model,
            instance=instance,
            created=created,
            raw=options.raw,
            using=alias,
            update_fields=None if options.fields is None else schema.reported_names(options.fields),
        )
        scope.finish()
    except BaseException as error:
        scope.abandon(error)
        raise
    finally:
        if instance._row_state is with_before:
            instance._row_state = saved
        elif instance._row_state.before is not None:
            instance._row_state = instance._row_state.without_before()


def collect(
    schema: Schema, database: Database, instance: Any, options: SaveOptions, snapshot: Snapshot
) -> tuple[SavePlan, Row]:
    """Set the `on_update` values and the version of *instance*, and return the plan for its row and the row, checked.

    Raises `InvalidValue`.
    """
    values, plans = instance.__dict__, schema.plans.get(database) or plans_of(schema, database)
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
        if schema.version is not None:
            set_version(schema, schema.version, database, instance, options, snapshot)
        refuse_computed(instance)
        plan = _plan_of_some(schema, plans, options, values)
    row = plan.collect(values)
    if row.__class__ is ExpressionRow:
        check_expressions(schema, values, row)
    return plan, row


def _plan_of_some(schema: Schema, plans: Plans, options: SaveOptions, values: dict[str, Any]) -> SavePlan:
    """Return the plan for the fields of *options*, or for those that the database does not generate."""
    if options.fields is not None:
        names = (*(n for n in schema.plain_names if n in options.fields), *schema.key_names)
    else:
        key = schema.key[0]
        keyless = key.generated and values.get(key.name) is None
        names = supplied_names(schema, schema.plain_names if keyless else schema.written_names, values)
    kind = (names, options.checked)
    plan: SavePlan | None = plans.save_plans.get(kind)
    if plan is None:
        if len(plans.save_plans) >= MAX_STATEMENTS:
            plans.save_plans.clear()
        plan = plans.save_plans[kind] = SavePlan(schema, plans, names, checked=options.checked)
    return plan


def write_row(
    schema: Schema,
    channel: Channel,
    instance: Any,
    options: SaveOptions,
    plan: SavePlan,
    row: Row,
    snapshot: Snapshot,
) -> bool:
    """Insert or update the *row* of *instance* by *plan*, and set generated values and state.

    The snapshot is recorded before the first change, so that a rollback restores the instance even after an interrupt.
    Returns True for an INSERT.
    """
    if row.__class__ is ExpressionRow:
        return write_expressions(schema, channel, instance, options, plan.names, row, snapshot)
    new = options.force_insert or instance._row_state.adding
    created = not plan.has_key or (new and inserts_at_once(schema, instance, options))
    if not created:
        created = not plan.update(channel, row)
        if created:
            row = row_to_insert(schema, channel, instance, options, plan.names, row, snapshot)
        if not created and schema.computed:
            mark_with_computed(schema, channel, instance, plan.names, row, snapshot)
            return False
        if options.fields is not None:
            mark_saved(schema, plan.plans, instance, plan.names, row, snapshot, channel.keep)
            return False
    values, changed, state = instance.__dict__, snapshot[3], plan.updated
    made = generated = NOTHING_MADE
    if created:
        statement = plan.insert or plan.compile_insert()
        made, generated, state = statement.made_names, statement.insert(channel, row), plan.inserted
        for name, value in zip(made, generated):  # noqa: B905 a keyword costs more than the loop
            changed[name] = (values.get(name, MISSING), value)
        row += generated
    if schema.mutable:
        row = copied(plan.names + made, schema, row)
    changed[ROW] = (snapshot[2], row)
    if channel.undo is not None:
        channel.undo.record(snapshot)
    for name, value in zip(made, generated) if created else ():  # noqa: B905
        values[name] = value
    instance._row, instance._row_state = row, state
    return created
