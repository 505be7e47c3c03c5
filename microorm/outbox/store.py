"""Claims: how relays share the events of one database, and what becomes of an event.

A claim gives an event a token and a moment until which no other relay takes it, by the clock of the database. Whatever
is done with the event afterwards names the token, so that a relay whose time is over changes nothing that another has.
The attempt is counted by the claim: an event that kills its relay dies, too. It is claimed alone from then on, so that
it takes no others with it.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from microorm.db.databases import Databases
from microorm.errors import ConfigurationError
from microorm.fields.types import MARIADB
from microorm.outbox.delivery import needed_on
from microorm.outbox.event import Delivered, Message
from microorm.outbox.tables import DUE, Milliseconds, Tables, registries_of, tables_of

_log = logging.getLogger("microorm.outbox")

T = TypeVar("T")

_MOVED = ("id", "event", "receiver", "signal", "label", "order_key", "attempts", "body", "created_at")
_RETURNED = ("event", "receiver", "signal", "label", "order_key", "body", "created_at", "claim")
_ISOLATION = "READ COMMITTED"
_TRIES = 10
_CONFLICTS = (1213, 1205, 1020)  # MariaDB: a deadlock, a wait for a lock, a row that has changed meanwhile


@dataclass(slots=True)
class Outcome:
    """What became of some claimed events.

    *done*: delivered. *failed*: to be tried again, each after some milliseconds. *dead*: each with the error to keep.
    *released*: not tried, so that the attempt does not count; each may be claimed after some milliseconds. *attempts*: what
    `observe=` is called with when all that is stored.
    """

    done: list[Message] = field(default_factory=list)
    failed: list[tuple[Message, int]] = field(default_factory=list)
    dead: list[tuple[Message, str]] = field(default_factory=list)
    released: list[tuple[Message, int]] = field(default_factory=list)
    attempts: list[Delivered] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Return whether there is any event."""
        return bool(self.done or self.failed or self.dead or self.released)


class Store:
    """The outbox of *alias*."""

    def __init__(self, databases: Databases, alias: str, tables: Tables) -> None:
        self.databases = databases
        self.alias = alias
        self.dialect = databases.database(alias).dialect
        self.waiting: sa.Table = tables.waiting.__table__
        self.dead: sa.Table = tables.dead.__table__
        self.done: sa.Table = tables.done.__table__
        self._statements: dict[tuple[Any, ...], Any] = {}

    def claim(self, limit: int, lease: float, max_characters: int, *, lost: bool = False) -> list[Message]:
        """Claim up to *limit* due events for *lease* seconds, and return them in the order in which they were written.

        *lost*: those that a relay has claimed, and neither acknowledged nor released in time; else only others. The body of
        one that is longer than *max_characters* is not read. Of the ordered events of one row and receiver, only the
        first that is left is claimed.
        """
        _, messages = self.settle_and_claim(Outcome(), limit, lease, max_characters, lost=lost)
        return messages

    def settle_and_claim(
        self, outcome: Outcome, limit: int, lease: float, max_characters: int, *, lost: bool = False
    ) -> tuple[int, list[Message]]:
        """Do what `settle` and then `claim` do, in one transaction, and return what they return."""
        token = new_token()
        values = {
            "token": token,
            "lease": round(lease * 1000),
            "most": limit,
            "characters": max_characters,
        }

        def both() -> tuple[int, Sequence[Any]]:
            with self._transaction() as connection:
                count = self._settled(connection, outcome, ())
                return count, self._claimed(connection, values, lost=lost)

        count, found = self._retried(both)
        messages = [self._message(row, token) for row in found]
        messages.sort(key=attrgetter("row"))
        return count, messages

    def _claimed(self, connection: sa.Connection, values: dict[str, Any], *, lost: bool) -> Sequence[Any]:
        if self.dialect in ("sqlite", "postgresql"):
            return connection.execute(self._statement("claim", lost), values).fetchall()
        rows = connection.execute(self._statement("due", lost), values).fetchall()
        rows = self._first(connection, rows)
        if rows:
            taken = {"token": values["token"], "lease": values["lease"], "rows": [row.id for row in rows]}
            connection.execute(self._statement("take"), taken)
        return rows

    def _statement(self, name: str, *flags: bool) -> Any:
        """Return the statement *name*, which is built at its first use."""
        if (found := self._statements.get((name, *flags))) is None:
            found = self._statements[name, *flags] = getattr(self, f"_make_{name}")(*flags)
        return found

    def _make_claim(self, lost: bool) -> Any:
        """Return the UPDATE that claims, and returns what `_claimed_columns` has."""
        due = self._due(sa.bindparam("most", type_=sa.Integer()), lost=lost, columns=[self.waiting.c.id])
        ids = due.cte("due") if self.dialect == "postgresql" else due.subquery("due")
        update = self._take().where(self.waiting.c.id.in_(sa.select(ids.c.id)))
        return update.returning(*self._claimed_columns(self.waiting.c.attempts))

    def _make_due(self, lost: bool) -> Any:
        """Return the SELECT of MariaDB, after which the rows that it has locked are claimed."""
        columns = self._claimed_columns(self.waiting.c.attempts + 1)
        return self._due(sa.bindparam("most", type_=sa.Integer()), lost=lost, columns=columns)

    def _make_take(self) -> Any:
        return self._take().where(self.waiting.c.id.in_(sa.bindparam("rows", expanding=True)))

    def _take(self) -> sa.Update:
        until = Milliseconds() + sa.bindparam("lease", type_=sa.BigInteger())
        token: Any = sa.bindparam("token", type_=sa.BigInteger())
        values = {"claim": token, "due_at": until, "attempts": self.waiting.c.attempts + 1}
        return sa.update(self.waiting).values(values)

    def _claimed_columns(self, attempts: Any) -> list[Any]:
        """Return what is read of a claimed event, in the order of `Message`, without its alias and its claim."""
        c = self.waiting.c
        long = sa.func.length(c.body) > sa.bindparam("characters", type_=sa.Integer())
        body = sa.case((long, sa.null()), else_=c.body).label("body")
        now = sa.type_coerce(Milliseconds(), sa.BigInteger()).label("now")
        first = [c.id, c.event, c.receiver, c.signal, c.label, body, attempts.label("attempt")]
        return [*first, c.created_at, now, c.order_key]

    def _due(self, limit: Any, *, lost: bool, columns: Sequence[Any]) -> Any:
        """Return the SELECT of the events that may be claimed, which locks them where rows can be locked."""
        table, earlier = self.waiting, self.waiting.alias("earlier")
        first = ~sa.exists().where(
            earlier.c.order_key == table.c.order_key,
            earlier.c.id < table.c.id,
        )
        statement: Any = sa.select(*columns).where(
            table.c.due_at <= Milliseconds(),
            table.c.claim > 0 if lost else table.c.claim == 0,
            sa.or_(table.c.order_key.is_(None), first),
        )
        statement = statement.order_by(table.c.due_at, table.c.id).limit(limit)
        for name in MARIADB:
            # Else it may read and sort all that are due, however few are taken.
            statement = statement.with_hint(table, f"FORCE INDEX ({DUE})", name)
        return (
            statement if self.dialect == "sqlite" else statement.with_for_update(of=table, skip_locked=True)
        )

    def _first(self, connection: sa.Connection, rows: Sequence[Any]) -> Sequence[Any]:
        """Return those of *rows*, which are locked, that have no earlier event of the same row and receiver.

        MariaDB reads the rows that it locks as they are now, but the others, in the condition, as they were when the statement
        began. A second statement sees all that was committed before the locked rows were.
        """
        ordered = [row for row in rows if row.order_key is not None]
        if not ordered:
            return rows
        table = self.waiting
        statement = (
            sa.select(sa.func.min(table.c.id))
            .where(table.c.order_key.in_([row.order_key for row in ordered]))
            .group_by(table.c.order_key)
        )
        first = set(connection.execute(statement).scalars())
        return [row for row in rows if row.order_key is None or row.id in first]

    def _message(self, row: Any, token: int) -> Message:
        number, event, receiver, signal, label, body, attempt, created_at, now, order_key = row
        return Message(
            number,
            event,
            receiver,
            signal,
            label,
            body,
            attempt,
            created_at,
            self.alias,
            token,
            now,
            order_key,
        )

    def settle(self, outcome: Outcome, returned: Sequence[Message] = ()) -> int:
        """Store what became of claimed events, in one transaction; return how many of the done ones were still claimed.

        Rows that another relay has claimed since are left as they are. *returned*: those of the events that have left the
        outbox, to which they come back first.
        """
        if not outcome:
            return 0

        def settled() -> int:
            with self._transaction() as connection:
                return self._settled(connection, outcome, returned)

        return self._retried(settled)

    def _settled(self, connection: sa.Connection, outcome: Outcome, returned: Sequence[Message]) -> int:
        for message in returned:
            self._insert(connection, message)
        count = self._delete(connection, outcome.done) if outcome.done else 0
        back = [(message, wait, 0) for message, wait in outcome.failed]
        back += [(message, wait, 1) for message, wait in outcome.released]
        if back:
            self._give_back(connection, back)
        for message, error in outcome.dead:
            self._bury(connection, message, error)
        return count

    def _insert(self, connection: sa.Connection, message: Message) -> None:
        """Write *message* as a row that is claimed."""
        message.claim = new_token()
        values = {name: getattr(message, name) for name in _RETURNED}
        values |= {"attempts": message.attempt, "due_at": Milliseconds()}
        (message.row,) = connection.execute(sa.insert(self.waiting).values(values)).inserted_primary_key or (
            0,
        )

    def acknowledge(self, connection: sa.Connection, message: Message) -> bool:
        """Delete the row of *message* in the transaction of *connection*; return False if its claim is over."""
        return bool(self._delete(connection, [message]))

    def note_done(self, connection: sa.Connection, message: Message) -> bool:
        """Note in the transaction of *connection* that *message* has its effect; return False if it had it before."""
        done = self.done
        known = sa.select(done.c.event).where(
            done.c.event == message.event, done.c.receiver == message.receiver
        )
        if connection.execute(known).first() is not None:
            return False
        connection.execute(sa.insert(done).values(event=message.event, receiver=message.receiver))
        return True

    def extend(self, messages: Sequence[Message], lease: float) -> None:
        """Keep *messages* claimed for *lease* seconds from now."""
        if messages:
            values = _rows_of(messages) | {"lease": round(lease * 1000)}
            self._retried(lambda: self._run(self._statement("extend"), values))

    def is_due(self) -> bool:
        """Return whether an event is due, without a lock that others would wait for."""
        c = self.waiting.c
        free, claimed = [
            sa.exists().where(whose, c.due_at <= Milliseconds()) for whose in (c.claim == 0, c.claim > 0)
        ]
        with self.databases.connection(self.alias) as connection:
            return bool(connection.execute(sa.select(sa.or_(free, claimed))).scalar())

    def next_due(self) -> float | None:
        """Return in how many seconds the next event is due, at least 0; None if there is none."""
        statement = sa.select(sa.func.min(self.waiting.c.due_at), Milliseconds())
        with self.databases.connection(self.alias) as connection:
            due, now = connection.execute(statement).one()
        return max(0.0, (due - now) / 1000) if isinstance(due, int) else None

    def _make_extend(self) -> Any:
        until = Milliseconds() + sa.bindparam("lease", type_=sa.BigInteger())
        return sa.update(self.waiting).values(due_at=until).where(self._mine())

    def _make_delete(self) -> Any:
        return sa.delete(self.waiting).where(self._mine())

    def _run(self, statement: Any, values: dict[str, Any]) -> None:
        with self._transaction() as connection:
            connection.execute(statement, values)

    def _delete(self, connection: sa.Connection, messages: Sequence[Message]) -> int:
        return connection.execute(self._statement("delete"), _rows_of(messages)).rowcount

    def _mine(self) -> sa.ColumnElement[bool]:
        """Return the condition for the rows of `_rows_of`."""
        c = self.waiting.c
        tokens: Any = sa.bindparam("tokens", expanding=True)
        rows: Any
        if self.dialect == "postgresql":  # one parameter, so that the driver prepares the statement once
            rows = c.id == sa.any_(sa.bindparam("rows", type_=sa.ARRAY(sa.BigInteger())))
        else:
            rows = c.id.in_(sa.bindparam("rows", expanding=True))
        return sa.and_(rows, c.claim.in_(tokens))

    def _give_back(self, connection: sa.Connection, back: Iterable[tuple[Message, int, int]]) -> None:
        table = self.waiting
        statement = (
            sa.update(table)
            .values(
                claim=0,
                due_at=Milliseconds() + sa.bindparam("wait", type_=sa.BigInteger()),
                attempts=table.c.attempts - sa.bindparam("uncounted", type_=sa.BigInteger()),
            )
            .where(table.c.id == sa.bindparam("row"), table.c.claim == sa.bindparam("token"))
        )
        rows = [
            {"row": message.row, "token": message.claim, "wait": wait, "uncounted": uncounted}
            for message, wait, uncounted in back
        ]
        connection.execute(statement, rows)

    def _bury(self, connection: sa.Connection, message: Message, error: str) -> None:
        table, mine, values = self.waiting, self._mine(), _rows_of([message])
        columns = [table.c[name] for name in _MOVED]
        moved = sa.select(*columns, sa.literal(error, self.dead.c.error.type)).where(mine)
        done = connection.execute(
            sa.insert(self.dead).from_select([*_MOVED, "error"], moved, include_defaults=False), values
        )
        if done.rowcount:
            self._delete(connection, [message])

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """Open a transaction of this store alone.

        Servers read what is committed: with a stricter isolation MariaDB locks the gaps between rows, so that claims and saves
        would wait for each other. Inside the block of a test, it is a savepoint there.
        """
        opened = self.databases.transaction(self.databases.database(self.alias))
        if self.dialect == "sqlite" or (opened is not None and opened.blocks[-1].of_test):
            with (
                self.databases.atomic(self.alias, durable=True),
                self.databases.connection(self.alias) as connection,
            ):
                yield connection
            return
        with self.databases.engine(self.alias).connect() as connection:
            if self.dialect == "postgresql":
                connection.execution_options(isolation_level=_ISOLATION)
            else:  # as an option it takes MariaDB five round trips, to set it and to set it back
                connection.exec_driver_sql(f"SET TRANSACTION ISOLATION LEVEL {_ISOLATION}")
            yield connection
            connection.commit()

    def _retried(self, function: Callable[[], T]) -> T:
        """Call *function*, again after a conflict with another transaction of MariaDB."""
        for number in range(1, _TRIES):
            try:
                return function()
            except DBAPIError as error:
                if not _is_conflict(error):
                    raise
                _log.debug("a transaction on %r is tried again: %s", self.alias, error.orig)
                time.sleep(0.005 * number)
        return function()


def new_token() -> int:
    """Return the token of a claim, which is not 0."""
    return secrets.randbits(62) + 1


def _rows_of(messages: Sequence[Message]) -> dict[str, Any]:
    """Return the keys and the claims of *messages*, as parameters of `Store._mine`."""
    return {
        "rows": [message.row for message in messages],
        "tokens": sorted({message.claim for message in messages}),
    }


def store_of(databases: Databases, alias: str) -> Store:
    """Return the outbox of *alias*. Raises `ConfigurationError` if no model has a durable receiver."""
    registries = registries_of(databases)
    if not registries:
        raise ConfigurationError("no model of these databases has a durable receiver, so there is no outbox")
    return Store(databases, alias, tables_of(registries[0], needed_on))


def _is_conflict(error: DBAPIError) -> bool:
    driver: Any = error.orig
    return bool(getattr(driver, "args", ())) and driver.args[0] in _CONFLICTS
