"""Operations: what waits in the outbox, and what to do with dead events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from microorm.db.databases import Databases
from microorm.db.engines.missing import lacks_table
from microorm.errors import ConfigurationError, OutboxError
from microorm.messages import brief
from microorm.outbox.delivery import needed_on
from microorm.outbox.tables import Milliseconds, registries_of, tables_of
from microorm.registry import Registry

_MOVED_BACK = ("event", "receiver", "signal", "label", "order_key", "body", "created_at")
_DAY = 86_400_000
_MAX_ID = 2**63 - 1
MAX_DAYS = 36_500
"""How many days `Outbox.prune` may keep: a hundred years."""


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """The events of one receiver on one alias.

    *waiting*: not claimed; *retrying*: those of them that have failed before. *claimed*: a relay works on them. *oldest*: the
    age in seconds of the oldest event that is not dead, or None.
    """

    alias: str
    receiver: str
    waiting: int
    retrying: int
    claimed: int
    dead: int
    oldest: float | None


@dataclass(frozen=True, slots=True)
class DeadEvent:
    """An event that is not tried any more; *id* is its number in `microorm_outbox_dead` on *alias*.

    *event*: its identifier, which its receiver has seen. *receiver*: the `dispatch_uid`. *signal*, *label*: what was
    sent, and by which model. *attempts*: how often it was tried. *created_at*, *died_at*: when it was stored, and when
    it was given up; None if the row has no such time. *error*: what the last attempt has raised.
    """

    alias: str
    id: int
    event: str
    receiver: str
    signal: str
    label: str
    attempts: int
    created_at: datetime | None
    died_at: datetime | None
    error: str


class Outbox:
    """The outboxes of *databases*, or of some *aliases*, also those that the last durable receiver has left behind.

    Example: `Outbox(microorm.default_databases).retry(receiver="shop.mail")`.

    Raises `UnknownAlias`, and `ConfigurationError` if no model has a durable receiver and there is no table of an outbox. Its
    methods raise `OutboxError` if a table is missing.
    """

    def __init__(self, databases: Databases, aliases: Sequence[str] | None = None) -> None:
        self.databases = databases
        registries = registries_of(databases)
        chosen = [databases.database(each).alias for each in aliases or ()]
        tables = tables_of(registries[0] if registries else Registry(Databases()), needed_on)
        self._waiting: sa.Table = tables.waiting.__table__
        self._dead: sa.Table = tables.dead.__table__
        self._done: sa.Table = tables.done.__table__
        self.aliases = (
            tuple(chosen)
            if chosen and registries
            else tuple(
                alias
                for alias in chosen or databases.aliases
                if any(needed_on(each, alias) for each in registries) or self._left_on(alias)
            )
        )
        if not self.aliases and not registries:
            raise ConfigurationError("no model has a durable receiver, so there is no outbox")

    def _left_on(self, alias: str) -> bool:
        """Return whether *alias* has the tables, although no model on it has a durable receiver now."""
        with self.databases.connection(alias) as connection:
            return sa.inspect(connection).has_table(self._waiting.name)

    def status(self) -> list[QueueStatus]:
        """Return the numbers of events by alias and receiver."""
        return [status for alias in self.aliases for status in self._status(alias)]

    def dead(self, receiver: str | None = None, limit: int | None = None) -> list[DeadEvent]:
        """Return the dead events, the newest first, of *receiver* or of all; at most *limit* of each alias.

        Raises `ValueError` for a limit that is no positive int.
        """
        if limit is not None and (type(limit) is not int or not 1 <= limit <= _MAX_ID):
            raise ValueError(f"limit= must be a positive int, not {brief(limit)}")
        table, found = self._dead, []
        columns = [each for each in table.columns if each.name not in ("body", "order_key")]
        statement = sa.select(*columns).order_by(table.c.died_at.desc(), table.c.id.desc()).limit(limit)
        if receiver is not None:
            statement = statement.where(table.c.receiver == receiver)
        for alias in self.aliases:
            with self._connection(alias) as connection:
                rows: list[dict[str, Any]] = [row._asdict() for row in connection.execute(statement)]
            for row in rows:
                row |= {name: _moment(row[name]) for name in ("created_at", "died_at")}
                found.append(DeadEvent(alias=alias, **row))
        return found

    def retry(self, receiver: str | None = None, ids: Sequence[int] | None = None) -> int:
        """Put dead events back, as if they had not been tried: those of *receiver*, with *ids*, or all; return how many.

        They come after all that waits. An event that has its effect already, with `exactly_once=True`, has none again.
        Raises `OutboxError`, and puts none back, if there is no such dead event with some of *ids*.
        """
        if ids is not None:
            self._refuse_unknown(receiver, ids)
        table, count = self._dead, 0
        chosen = self._chosen(receiver, ids)
        for alias in self.aliases:
            with self._connection(alias, block=True) as connection:
                locked = sa.select(table.c.id).where(*chosen).order_by(table.c.id).with_for_update()
                keys = list(connection.execute(locked).scalars())
                for start in range(0, len(keys), 500):
                    some = table.c.id.in_(keys[start : start + 500])
                    moved = sa.select(*[table.c[name] for name in _MOVED_BACK], sa.literal(0)).where(some)
                    moved = moved.order_by(table.c.id)
                    names = [*_MOVED_BACK, "attempts"]
                    connection.execute(
                        sa.insert(self._waiting).from_select(names, moved, include_defaults=False)
                    )
                    connection.execute(sa.delete(table).where(some))
                count += len(keys)
        return count

    def prune(self, days: float, receiver: str | None = None) -> int:
        """Delete dead events, and notes of what was done exactly once, that are older than *days*; return how many.

        *receiver*: only those of this `dispatch_uid`. Raises `ValueError` for a number of days that is not from 0 to
        36500.
        """
        if isinstance(days, bool) or not isinstance(days, (int, float)) or not 0 <= days <= MAX_DAYS:
            raise ValueError(f"days must be a number from 0 to {MAX_DAYS}, not {brief(days)}")
        count = 0
        for alias in self.aliases:
            with self._connection(alias, block=True) as connection:
                for moment in (self._dead.c.died_at, self._done.c.done_at):
                    statement = sa.delete(moment.table).where(moment <= Milliseconds() - round(days * _DAY))
                    if receiver is not None:
                        statement = statement.where(moment.table.c.receiver == receiver)
                    count += connection.execute(statement).rowcount
        return count

    def _refuse_unknown(self, receiver: str | None, ids: Sequence[int]) -> None:
        possible = [each for each in ids if 0 < each <= _MAX_ID]
        wanted = sa.select(self._dead.c.id).where(*self._chosen(receiver, possible))
        found: set[int] = set()
        for alias in self.aliases:
            with self._connection(alias) as connection:
                found.update(connection.execute(wanted).scalars())
        if unknown := sorted(set(ids) - found):
            of = "" if receiver is None else f" of {brief(receiver)}"
            raise OutboxError(
                f"no dead event{of} on {' or '.join(map(repr, self.aliases))} has the number {', '.join(map(str, unknown))}, so "
                "none was put back; `microorm outbox dead` lists them"
            )

    def _chosen(self, receiver: str | None, ids: Sequence[int] | None) -> list[Any]:
        chosen: list[Any] = [] if receiver is None else [self._dead.c.receiver == receiver]
        return chosen if ids is None else [*chosen, self._dead.c.id.in_(list(ids))]

    def _status(self, alias: str) -> Iterator[QueueStatus]:
        table, dead = self._waiting, self._dead
        count = sa.func.count

        def when(condition: Any) -> Any:
            return count(sa.case((condition, table.c.id)))

        free = table.c.claim == 0
        waiting = sa.select(
            table.c.receiver,
            when(free),
            when(sa.and_(free, table.c.attempts > 0)),
            when(table.c.claim != 0),
            sa.func.min(table.c.created_at),
            Milliseconds(),
        ).group_by(table.c.receiver)
        with self._connection(alias) as connection:
            found = {row[0]: tuple(row[1:]) for row in connection.execute(waiting)}
            buried = sa.select(dead.c.receiver, count()).group_by(dead.c.receiver)
            died = {row[0]: row[1] for row in connection.execute(buried)}
        for receiver in sorted({*found, *died}, key=str):
            free_count, retrying, claimed, oldest, now = found.get(receiver, (0, 0, 0, None, 0))
            age = max(0.0, (now - oldest) / 1000) if isinstance(oldest, int) else None
            yield QueueStatus(alias, receiver, free_count, retrying, claimed, died.get(receiver, 0), age)

    @contextmanager
    def _connection(self, alias: str, *, block: bool = False) -> Iterator[sa.Connection]:
        try:
            if block:
                with self.databases.atomic(alias), self.databases.connection(alias) as connection:
                    yield connection
            else:
                with self.databases.connection(alias) as connection:
                    yield connection
        except DBAPIError as error:
            if not lacks_table(error):
                raise
            raise OutboxError(
                f"{alias!r} has no tables of the outbox; make them by `microorm makemigrations` and `microorm migrate`, "
                "or by create_all()"
            ) from error


def _moment(milliseconds: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (TypeError, ValueError, OverflowError, OSError):  # the row was written by other means
        return None
