"""The tables of the outbox, as models of the registry whose models have durable receivers.

So they are created and migrated as all other tables are, on the aliases that hold a model with a durable receiver.
Their rows are written and read by statements; no signal is sent for them.

Moments are milliseconds since 1970, by the clock of the database: each database adds a lease to them in the same way,
and whatever else has been written there cannot keep the other rows from being read.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any, NamedTuple
from weakref import WeakSet, ref

from sqlalchemy import BigInteger, Index, literal_column, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from microorm.db.databases import Databases
from microorm.fields.field import Field, field
from microorm.fields.types import MARIADB
from microorm.model import Model
from microorm.outbox.options import MAX_UID
from microorm.registry import Registry

APP = "microorm"
WAITING, DEAD, DONE = f"{APP}.Outbox", f"{APP}.OutboxDead", f"{APP}.OutboxDone"
MAX_LABEL = 200
DUE = "ix_microorm_outbox_due"
"""The index by which a claim finds the events that are due: first those that are free, then those that a relay has."""


class Milliseconds(FunctionElement[int]):
    """The time of the database when the statement began, in milliseconds since 1970.

    It is constant in a statement, so that an index finds the rows that are due.
    """

    inherit_cache = True
    name = "epoch_milliseconds"
    type = BigInteger()


@compiles(Milliseconds)
def _now(element: Milliseconds, compiler: SQLCompiler, **options: Any) -> str:
    return "(CAST(EXTRACT(epoch FROM statement_timestamp()) * 1000 AS BIGINT))"


@compiles(Milliseconds, "sqlite")
def _now_on_sqlite(element: Milliseconds, compiler: SQLCompiler, **options: Any) -> str:
    return "(CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))"


@compiles(Milliseconds, *MARIADB)
def _now_on_mariadb(element: Milliseconds, compiler: SQLCompiler, **options: Any) -> str:
    return "(CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED))"


class Tables(NamedTuple):
    """The models of one registry: *waiting* events, *dead* ones, and what was *done* exactly once."""

    waiting: Any
    dead: Any
    done: Any


_with_tables: WeakSet[Registry] = WeakSet()
_lock = RLock()

Needed = Callable[[Registry, str], bool]


def tables_of(registry: Registry, needed: Needed) -> Tables:
    """Return the tables of *registry*, which get them at the first call. *needed*: whether an alias is to have them."""
    if (found := existing_tables(registry)) is not None:
        return found
    with _lock:
        found = existing_tables(registry) or _define(registry, needed)
        _with_tables.add(registry)
        return found


def existing_tables(registry: Registry) -> Tables | None:
    """Return the tables of *registry*, or None if it has none."""
    models = registry.models
    if DONE not in models:  # the one that is defined last
        return None
    return Tables(models[WAITING], models[DEAD], models[DONE])


def registries_of(databases: Databases) -> list[Registry]:
    """Return the registries over *databases* that have the tables."""
    with _lock:
        return [registry for registry in _with_tables if registry.databases is databases]


def _define(registry: Registry, needed: Needed) -> Tables:
    """Define the models, which are on the aliases that are *needed*."""
    held = ref(registry)

    def needed_on(alias: str) -> bool:
        living = held()
        return living is not None and needed(living, alias)

    made: tuple[Any, ...] = (*_events(registry), _done(registry))
    for model in made:
        model.__held_on__ = needed_on
    return Tables(*made)


def _events(registry: Registry) -> tuple[Any, Any]:
    class StoredEvent(Model, registry=registry, app=APP, abstract=True):
        """What an event is, whatever becomes of it."""

        event: Field[str] = field(max_length=36)
        receiver: Field[str] = field(max_length=MAX_UID)
        signal: Field[str] = field(max_length=40)
        label: Field[str] = field(max_length=MAX_LABEL)
        order_key: Field[str | None] = field(max_length=32, default=None)
        attempts: Field[int] = field(default=0)
        body: Field[str]

    class Outbox(StoredEvent, registry=registry, app=APP, table="microorm_outbox", table_args=_indexes()):
        """An event that waits for its receiver, or that a relay works on until *due_at*.

        *claim* is 0 or the token of the relay: a number, so that a claim does not change the length of the row.
        """

        created_at: Field[int] = field(server_default=Milliseconds())
        due_at: Field[int] = field(server_default=Milliseconds())
        claim: Field[int] = field(server_default=text("0"))

    class OutboxDead(StoredEvent, registry=registry, app=APP, table="microorm_outbox_dead"):
        """An event that has failed too often, or that cannot be delivered."""

        created_at: Field[int]
        died_at: Field[int] = field(server_default=Milliseconds())
        error: Field[str]

    return Outbox, OutboxDead


def _done(registry: Registry) -> Any:
    class OutboxDone(Model, registry=registry, app=APP, table="microorm_outbox_done"):
        """An event whose effect is in the same database, and was committed with this row."""

        event: Field[str] = field(max_length=36, primary_key=True)
        receiver: Field[str] = field(max_length=MAX_UID, primary_key=True)
        done_at: Field[int] = field(server_default=Milliseconds())

    return OutboxDone


def _indexes() -> tuple[Index, ...]:
    ordered: Any = literal_column(
        "order_key IS NOT NULL"
    )  # most events are not, and need no place in this index
    return (
        Index(DUE, "claim", "due_at", "id"),
        Index(
            "ix_microorm_outbox_order",
            "order_key",
            "id",
            postgresql_where=ordered,
            sqlite_where=ordered,
        ),
    )
