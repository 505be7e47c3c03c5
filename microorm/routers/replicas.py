"""Replicas: writes go to the primary, reads to its replicas, and what a task has written is read back."""

from __future__ import annotations

import logging
import math
import random
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import text

from microorm.db.autocommit import READS, AutocommitConnection
from microorm.db.context import open_block
from microorm.db.engines.engine import Database
from microorm.db.engines.guards import Guard
from microorm.db.routing import DEFAULT_ALIAS, Router
from microorm.errors import ConfigurationError, nearest
from microorm.messages import brief
from microorm.routers.bounded import pause
from microorm.routers.circuit import UNREACHABLE, UP, Replica, ReplicaGuard
from microorm.routers.sessions import HeldSession, Session

if TYPE_CHECKING:
    from microorm.db.databases import Databases

_WITH_CONNECT_TIMEOUT = ("psycopg", "psycopg_async", "psycopg2", "pymysql", "mysqldb", "asyncmy", "aiomysql")
FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.02
"""Seconds between two questions whether a replica has a write; each pause is twice as long as the one before."""
_log = logging.getLogger("microorm.routers")


@dataclass(frozen=True)
class ReplicaStats:
    """What a `PrimaryReplica` has done since it was configured.

    *reads*: by alias; those inside a block on the primary are not counted, and a read that is repeated elsewhere, since its
    replica could not be reached, counts for both. *sticky*: reads that went to
    the primary because of a write before. *fallbacks*: reads that went to the primary because no replica could be read.
    *failures*: attempts to connect, by replica. *states*: "up", "down" or "unknown", by replica.
    """

    reads: dict[str, int]
    sticky: int
    fallbacks: int
    failures: dict[str, int]
    states: dict[str, str]


class PrimaryGuard(Guard):
    """Tells the router of each COMMIT on the primary."""

    def __init__(self, router: PrimaryReplica) -> None:
        self._router = router

    def written(self) -> None:
        """Begin the time in which this task reads from the primary."""
        self._router._note_write()


class _Question(AutocommitConnection):
    """A connection for a question to one server, which no other can answer."""

    __slots__ = ()

    def _instead(self, error: Exception) -> Database | None:
        return None


class PrimaryReplica(Router):
    """Read from replicas, write to the primary, and read from the primary what was just written.

    *replicas*: aliases, or a mapping from aliases to weights. *choose*: `"random"` or `"round_robin"`. *sticky*: for how many
    seconds after a COMMIT a task reads from the primary. *causal*: read from a replica as soon as it has replayed the COMMIT,
    instead; only PostgreSQL knows. A read waits *causal_wait* seconds for that, once for each write.

    A replica that cannot be reached in *connect_timeout* seconds is passed over, and asked again after *retry_after* seconds.
    Without a replica, reads go to the primary. Raises `ConfigurationError` for options that cannot be.
    """

    def __init__(
        self,
        primary: str = DEFAULT_ALIAS,
        replicas: str | Sequence[str] | Mapping[str, float] = ("replica",),
        *,
        sticky: float = 2.0,
        choose: Literal["random", "round_robin"] = "random",
        causal: bool = False,
        causal_wait: float = 0.1,
        connect_timeout: float = 2.0,
        retry_after: float = 5.0,
    ) -> None:
        self.primary = primary
        weights = _weights(primary, replicas)
        if choose not in ("random", "round_robin"):
            raise ConfigurationError(f"choose= must be 'random' or 'round_robin', not {brief(choose)}")
        self.sticky = _seconds("sticky", sticky)
        self.causal = causal
        self._causal_wait = _seconds("causal_wait", causal_wait)
        self._connect_timeout = _seconds("connect_timeout", connect_timeout, positive=True)
        again = _seconds("retry_after", retry_after)
        self._ordered = self._at_random if choose == "random" else self._in_turn
        self._replicas = {
            alias: Replica(alias, weight, self._connect_timeout, again) for alias, weight in weights.items()
        }
        self._databases: Databases | None = None
        self._session: ContextVar[Session | None] = ContextVar(f"microorm_session_{primary}", default=None)
        self._lock = threading.Lock()
        self._reads: Counter[str] = Counter()
        self._sticky_reads = self._fallbacks = 0
        self._alone = False

    def __repr__(self) -> str:
        return f"<PrimaryReplica {self.primary!r}: {', '.join(map(repr, self._replicas))}>"

    def configured(self, databases: Databases, aliases: Mapping[str, Database]) -> None:
        """Watch the aliases. Raises `ConfigurationError` for one that is missing, or of another kind of database."""
        mine = self._databases
        if mine is not None and mine is not databases and self in mine.routers:
            raise ConfigurationError(f"{self!r} belongs to other databases already; make one for each")
        for alias in (self.primary, *self._replicas):
            if alias not in aliases:
                raise ConfigurationError(
                    f"{self!r}: no database named {alias!r}; configured: "
                    f"{', '.join(map(repr, sorted(aliases)))}{nearest(alias, aliases)}"
                )
            if aliases[alias].dialect != aliases[self.primary].dialect:
                raise ConfigurationError(
                    f"{self!r}: {alias!r} is {aliases[alias].dialect}, and no replica of {brief(self.primary)}, which is "
                    f"{aliases[self.primary].dialect}"
                )
        if self.causal and aliases[self.primary].dialect != "postgresql":
            raise ConfigurationError(
                f"{self!r}: causal=True needs PostgreSQL, and {brief(self.primary)} is {aliases[self.primary].dialect}"
            )
        aliases[self.primary].guard = PrimaryGuard(self)
        for alias, replica in self._replicas.items():
            aliases[alias].guard = ReplicaGuard(replica, self.primary, self._instead)
            _limit_connecting(aliases[alias], self._connect_timeout)
            replica.reset(aliases[alias])
        self._databases = databases
        with self._lock:
            self._reads.clear()
            self._sticky_reads = self._fallbacks = 0
            self._alone = False

    def db_for_read(self, model: type[Any], **hints: Any) -> str | None:
        """Return the alias of a replica, or of the primary where a replica could be behind a write of this task."""
        if not self._covers(model, hints):
            return None
        if (
            open_block(self._configured, self.primary) is not None
        ):  # of a test, which nothing copies to the replicas
            return self._counted(self.primary)
        session = self._session.get()
        if session is not None and not self.causal and self._sticks(session):
            return self._counted(self.primary, sticky=1)
        behind = False
        for replica in self._reachable(session):
            if session is not None and session.written is not None and not self._has_all(replica, session):
                behind = behind or replica.state is UP
                continue
            if session is not None and session.shared:
                session.reads_from = replica.alias
            self._note_alone(alone=False)
            return self._counted(replica.alias)
        if behind:
            return self._counted(self.primary, sticky=1)
        return self._fall_back()

    def db_for_write(self, model: type[Any], **hints: Any) -> str | None:
        """Return the primary."""
        return self.primary if self._covers(model, hints) else None

    def allow_relation(self, left: Any, right: Any, **hints: Any) -> bool | None:
        """Return True between rows of the primary, and None for others."""
        same = {left._row_state.alias, right._row_state.alias} <= {None, self.primary, *self._replicas}
        return True if same else None

    def allow_migrate(
        self, alias: str, label: str, model: type[Any] | None = None, **hints: Any
    ) -> bool | None:
        """Return False for a replica, which gets its tables from the primary."""
        return False if alias in self._replicas else None

    def session(self, token: str | None = None) -> HeldSession:
        """Return a context manager that holds what is written in it, and continues the session that *token* is from."""
        return HeldSession(self._session, token, self._refreshed)

    def stats(self) -> ReplicaStats:
        """Return what was counted so far."""
        with self._lock:
            return ReplicaStats(
                reads=dict(self._reads),
                sticky=self._sticky_reads,
                fallbacks=self._fallbacks,
                failures={alias: each.failures for alias, each in self._replicas.items()},
                states={alias: each.state for alias, each in self._replicas.items()},
            )

    @property
    def _configured(self) -> Databases:
        if self._databases is None:
            raise ConfigurationError(f"{self!r} belongs to no databases; pass it to configure(routers=[…])")
        return self._databases

    def _covers(self, model: Any, hints: Mapping[str, Any]) -> bool:
        """Return whether *model*, or the instance of a hint, is of the primary."""
        if model.__schema__.home not in (None, self.primary):
            return False
        instance = hints.get("instance")
        return instance is None or instance._row_state.alias in (None, self.primary)

    def _sticks(self, session: Session) -> bool:
        age = session.age()
        return age is not None and age < self.sticky

    def _note_write(self) -> None:
        session = self._session.get()
        if session is None or not session.shared:
            # Not changed in place: a task shares it with the tasks that it has started.
            session = Session()
            self._session.set(session)
        session.wrote()

    def _at_random(self, session: Session | None) -> Iterable[Replica]:
        # Each weighted draw without replacement is a sort by these keys.
        found = sorted(
            self._replicas.values(),
            key=lambda each: math.log(1.0 - random.random()) / each.weight,
            reverse=True,
        )
        return self._kept_first(found, session)

    def _in_turn(self, session: Session | None) -> Iterable[Replica]:
        # Each gains its weight, and the one that is chosen loses the sum: with weights 2 and 1, the order is a, b, a.
        replicas = list(self._replicas.values())
        with self._lock:
            for each in replicas:
                each.turn += each.weight
            found = sorted(replicas, key=lambda each: -each.turn)
            found[0].turn -= sum(each.weight for each in replicas)
        return self._kept_first(found, session)

    def _kept_first(self, replicas: list[Replica], session: Session | None) -> list[Replica]:
        kept = None if session is None else session.reads_from
        return replicas if kept is None else sorted(replicas, key=lambda each: each.alias != kept)

    def _reachable(self, session: Session | None, *, without: Replica | None = None) -> Iterator[Replica]:
        """Yield the replicas that can be reached, in the order in which to try them, until a request has waited long for one."""
        for replica in self._ordered(session):
            begun = monotonic()
            if replica is not without and replica.ready(partial(self._configured.database, replica.alias)):
                yield replica
            if replica.has_kept_waiting(begun):
                return

    def _has_all(self, replica: Replica, session: Session) -> bool:
        """Return whether *replica* has what was written in *session*; wait for that, once for each write."""
        if not self.causal:
            return True
        position = self._position(session)
        if position is None:
            return not self._sticks(session)
        until = monotonic() + (0.0 if session.waited else self._causal_wait)
        seconds = FIRST_PAUSE
        while replica.replayed < position:
            found = self._ask(replica.alias, "SELECT pg_last_wal_replay_lsn()::text")
            if found is None:
                return False
            replica.replayed = max(replica.replayed, found)
            if found < position and monotonic() >= until:
                session.waited = True
                return False
            if found < position:
                pause(seconds)
                seconds = min(2 * seconds, LONGEST_PAUSE)
        return True

    def _position(self, session: Session) -> int | None:
        """Return the position of the primary's log that holds what was written in *session*; None if it does not say.

        It is asked once, at the first read after the write, or for a token.
        """
        if session.position is None:
            session.position = self._ask(self.primary, "SELECT pg_current_wal_insert_lsn()::text")
        return session.position

    def _ask(self, alias: str, sql: str) -> int | None:
        """Return the position in the log that *sql* selects on *alias*; None if that cannot be told."""
        database = self._configured.database(alias)
        try:
            with _Question(database, READS) as channel:
                found = channel.fetch(text(sql))[0][0]
        except UNREACHABLE as error:
            _log.debug("%r does not say its position in the log: %s", alias, error)
            return None
        if found is None:  # it is no standby
            return None
        high, _, low = str(found).partition("/")
        return (int(high, 16) << 32) + int(low, 16)

    def _refreshed(self, session: Session) -> bool:
        """Return whether the next request has to know of *session*, and complete it."""
        if session.written is None:
            return False
        if not self.causal:
            return self._sticks(session)
        position = self._position(session)
        return position is None or any(each.replayed < position for each in self._replicas.values())

    def _instead(self, failed: Replica, waited: bool) -> Database:
        """Return where to read instead of *failed*, which could not be reached for a read that was routed to it.

        *waited*: that has taken long, so that no other replica is tried.
        """
        session = self._session.get()
        may_lag = not self.causal or session is None or session.written is None
        others = self._reachable(None, without=failed) if may_lag and not waited else iter(())
        other = next(others, None)
        return self._configured.database(self._fall_back() if other is None else self._counted(other.alias))

    def _counted(self, alias: str, sticky: int = 0) -> str:
        with self._lock:
            self._reads[alias] += 1
            self._sticky_reads += sticky
        return alias

    def _fall_back(self) -> str:
        with self._lock:
            self._reads[self.primary] += 1
            self._fallbacks += 1
        self._note_alone(alone=True)
        return self.primary

    def _note_alone(self, *, alone: bool) -> None:
        """Log once whenever it changes whether the primary is *alone*: all replicas are known to be down."""
        alone = alone and all(each.state == "down" for each in self._replicas.values())
        if alone == self._alone:
            return
        with self._lock:
            changed, self._alone = self._alone != alone, alone
        if changed and alone:
            _log.error(
                "no replica of %r can be reached: all reads go to it",
                self.primary,
            )
        elif changed:
            _log.warning("a replica of %r can be reached again", self.primary)


def _weights(primary: str, replicas: str | Sequence[str] | Mapping[str, float]) -> dict[str, float]:
    if not isinstance(replicas, (Sequence, Mapping)) or isinstance(replicas, bytes):
        raise ConfigurationError(
            f"replicas= must be a list of aliases, or a mapping to weights, not {brief(replicas)}"
        )
    names = [replicas] if isinstance(replicas, str) else list(replicas)
    weights = dict(replicas) if isinstance(replicas, Mapping) else dict.fromkeys(names, 1.0)
    if not weights:
        raise ConfigurationError("PrimaryReplica needs at least one replica")
    if len(weights) < len(names) or primary in weights:
        twice = primary if primary in weights else next(each for each in names if names.count(each) > 1)
        raise ConfigurationError(f"PrimaryReplica was given {brief(twice)} twice")
    for alias, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < math.inf:
            raise ConfigurationError(f"the weight of {alias!r} must be a number above 0, not {brief(weight)}")
    return weights


def _seconds(option: str, value: Any, *, positive: bool = False) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value < math.inf or (positive and not value):
        raise ConfigurationError(f"{option}= must be a number of seconds, not {brief(value)}")
    return float(value)


def _limit_connecting(database: Database, seconds: float) -> None:
    """Let the driver end an attempt to connect, too, which is not waited for any more; a time-out of the program's stays."""
    if database.given is not None or database.url.get_driver_name() not in _WITH_CONNECT_TIMEOUT:
        return
    if "connect_timeout" not in database.url.query:
        given = {"connect_timeout": max(2, math.ceil(seconds))}
        database.options["connect_args"] = given | dict(database.options.get("connect_args", {}))
