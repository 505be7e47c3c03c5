"""Stores events for durable receivers, in the transaction of the write; what `delivery="durable"` does.

All events of one save are written by one `executemany`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import insert, literal_column
from sqlalchemy.exc import DBAPIError

from microorm.db.atomic import unit_of_work
from microorm.db.connection import Channel
from microorm.db.engines.engine import Database
from microorm.db.engines.missing import lacks_table
from microorm.dispatch.receivers import Connection, source_location
from microorm.dispatch.stored import register_delivery
from microorm.errors import OutboxError
from microorm.mapping.codegen import Row
from microorm.mapping.schema import Schema
from microorm.messages import brief
from microorm.outbox.event import SIGNALS, dump_event, name_of, new_id, order_key
from microorm.outbox.options import MAX_UID, OPTIONS, DurableOptions, checked, options_of
from microorm.outbox.tables import existing_tables, tables_of
from microorm.registry import Registry
from microorm.signals import ModelSignal, post_delete
from microorm.sql.statements import CompiledStatement, parameters_of, placeholders, plans_of

CHANNEL = "microorm_outbox"
"""The channel of PostgreSQL by which a commit wakes a waiting relay."""

WAITS = "1835623282, 'microorm_outbox'::regclass::oid::integer"
"""The advisory lock of PostgreSQL that a relay holds while it waits; one for each table. The number stands for "micr"."""

READABLE = 2**20
"""How many bytes an event may have at least, so that it is read, whatever the receivers of this process allow."""

AT_ONCE = 1000
"""How many events are written by one `executemany` at most."""

_WRITTEN = ("event", "receiver", "signal", "label", "order_key", "body")


class DurableDelivery:
    """Stores the calls of durable receivers in the outbox of the alias that is written to."""

    arguments = frozenset({"event"})

    def check(
        self,
        signal: ModelSignal,
        receiver: Callable[..., Any],
        dispatch_uid: object,
        options: Mapping[str, Any],
    ) -> Mapping[str, Any]:
        """Return the options of a connection. Raises `TypeError` and `ValueError` if it cannot be made."""
        if name_of(signal) is None:
            raise ValueError(
                f"delivery='durable' is only available for {' and '.join(SIGNALS)}; "
                "bulk_create() sends post_save for each row with signals='each'"
            )
        if not isinstance(dispatch_uid, str) or not dispatch_uid or len(dispatch_uid) > MAX_UID:
            raise ValueError(
                f"a durable receiver needs dispatch_uid=, a string of at most {MAX_UID} characters by which a stored event "
                f"finds its receiver again, not {brief(dispatch_uid)}"
            )
        if not dispatch_uid.isprintable():
            raise ValueError(f"dispatch_uid= must be printable, not {brief(dispatch_uid)}")
        _refuse_taken(receiver, dispatch_uid)
        durable = checked(options)
        if durable.payload == "key" and signal is post_delete:
            raise ValueError(
                "payload='key' loads the row at the delivery, and post_delete has deleted it by then"
            )
        return {OPTIONS: durable}

    def connected(self, registry: Registry) -> None:
        """Give *registry* the tables of the outbox."""
        tables_of(registry, needed_on)

    def store(
        self,
        signal: ModelSignal,
        connections: Sequence[Connection],
        sender: Any,
        calls: Sequence[Mapping[str, Any]],
    ) -> None:
        """Write an event for each of *calls* and *connections*, in the open transaction, or in one of its own.

        All *calls* are for one alias. Raises `OutboxError` for what cannot be stored, and if there is no table.
        """
        schema: Schema = sender.__schema__
        rows: list[Row] = []
        alias = calls[0]["using"]
        for named in calls:
            rows += _rows(signal, connections, schema.label, named)
            if len(rows) >= AT_ONCE:
                _write(schema, alias, rows)
                rows = []
        if rows:
            _write(schema, alias, rows)


def _write(schema: Schema, alias: str, rows: Sequence[Row]) -> None:
    """Write *rows* to the outbox of *alias*, where a model with *schema* was written."""
    databases = schema.registry.databases
    database = databases.database(alias)
    statement: CompiledStatement | None = plans_of(schema, database).statements.get("enqueue")
    if statement is None:
        statement = _insert(schema, database)
    transaction = databases.usable(database, writes=True)
    try:
        if transaction is not None:
            _run(statement, transaction.__enter__(), rows)
        else:
            with unit_of_work(databases, database) as work:
                work.dirty = True
                _run(statement, work.channel, rows)
    except BaseException as error:
        if transaction is not None:
            transaction.doom(error)
        if not isinstance(error, DBAPIError) or not lacks_table(error):
            raise
        raise OutboxError(
            f"{schema.name} has durable receivers, and {alias!r} has no table 'microorm_outbox' for their "
            "events; make it by `microorm makemigrations` and `microorm migrate`, or by create_all()"
        ) from error


def _run(statement: CompiledStatement, channel: Channel, rows: Sequence[Row]) -> None:
    if len(rows) == 1:  # the drivers of servers need a round trip less
        statement.run(channel, rows[0])
    else:
        statement.run_many(channel, rows)


def durable_connections() -> Iterator[Connection]:
    """Yield the connections of all durable receivers, including those to a label that no model has yet."""
    for signal in SIGNALS.values():
        yield from (each for each in signal.receivers if each.stored)
        yield from (held for _, held in signal.waiting if held.stored)


def options_by_uid() -> dict[str, DurableOptions]:
    """Return the options of all durable receivers, by `dispatch_uid`."""
    return {str(each.dispatch_uid): options_of(each.options) for each in [*durable_connections()][::-1]}


def largest() -> int:
    """Return how many bytes an event that is read may have.

    More than most receivers allow, since another version of the program, whose receivers allow more, may have written it.
    """
    return max([READABLE, *(options_of(each.options).max_bytes for each in durable_connections())])


def find(signal: ModelSignal, model: Any, dispatch_uid: str) -> Connection | None:
    """Return the durable connection of *signal* and *model* with this *dispatch_uid*, or None."""
    for each in signal._route(model).stored:
        if each.dispatch_uid == dispatch_uid:
            return each
    return None


def needed_on(registry: Registry, alias: str) -> bool:
    """Return whether *alias* holds a model of *registry* that has durable receivers."""
    if not any(True for _ in durable_connections()):
        return False
    own, databases = existing_tables(registry) or (), registry.databases
    return any(
        any(signal._route(model).stored for signal in SIGNALS.values())
        and databases.allows_migration(alias, label, model)
        for label, model in list(registry.models.items())
        if model not in own
    )


def _refuse_taken(receiver: Callable[..., Any], dispatch_uid: str) -> None:
    """Raise `ValueError` if another receiver has *dispatch_uid*; a reload may define one again."""
    module, name, _, _ = source_location(receiver)
    for each in durable_connections():
        if each.dispatch_uid == dispatch_uid and (each.module, each.qualname) != (module, name):
            raise ValueError(
                f"dispatch_uid={brief(dispatch_uid)} belongs to {each.module}.{each.qualname} ({each.location}); stored events would "
                f"not find {module}.{name}: give it another"
            )


def _rows(
    signal: ModelSignal, connections: Iterable[Connection], label: str, named: Mapping[str, Any]
) -> list[Row]:
    event, name = new_id(), name_of(signal)
    bodies: dict[tuple[str, int], str] = {}
    rows: list[Row] = []
    for connection in connections:
        options = options_of(connection.options)
        kind = (options.payload, options.max_bytes)
        try:
            if (body := bodies.get(kind)) is None:
                body = bodies[kind] = dump_event(named, *kind)
        except (TypeError, ValueError) as error:
            raise OutboxError(
                f"the event of {brief(named['instance'])} for the durable receiver {brief(connection.dispatch_uid)} cannot be "
                f"stored: {error}"
            ) from error
        uid: Any = connection.dispatch_uid
        key = order_key(named["instance"], uid) if options.ordered else None
        rows.append((event, uid, name, label, key, body))
    return rows


def _insert(schema: Schema, database: Database) -> CompiledStatement:
    """Return the INSERT of events of a model with *schema*, which is compiled once for all models."""
    waiting: Schema = tables_of(schema.registry, needed_on).waiting.__schema__

    def make() -> CompiledStatement:
        fields = [waiting.by_name[name] for name in _WRITTEN]
        values = placeholders(fields) | {waiting.by_name["attempts"].column: _no_attempts(database)}
        statement = insert(waiting.table).inline().values(values)
        return CompiledStatement(statement, parameters_of(fields), database.engine.dialect)

    made = plans_of(waiting, database).cached("enqueue", make)
    return plans_of(schema, database).cached("enqueue", lambda: made)


def _no_attempts(database: Database) -> Any:
    """Return 0 as SQL; on PostgreSQL the commit notifies the relays if one of them waits, and so holds the lock.

    Not otherwise: the server commits transactions that notify one after the other.
    """
    if database.dialect != "postgresql":
        return literal_column("0")
    notified = f"(SELECT 0 FROM pg_notify('{CHANNEL}', ''))"
    return literal_column(f"CASE WHEN pg_try_advisory_xact_lock_shared({WAITS}) THEN 0 ELSE {notified} END")


register_delivery("durable", DurableDelivery())
