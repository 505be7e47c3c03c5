"""Limits for all aliases of a `Databases` together: how many connections are open, and how long an unused engine stays.

A connection takes a slot before it is opened, and frees it when it is closed. If no slot is free, an idle connection of the
alias that was used longest ago is closed. If all are in use, the thread or task waits in line for the next one.

No thread looks for unused engines. Each check-out from a pool notes when its engine was used, and closes a few others
that nothing has used for long. A connection that is used all the time is checked out once a second, so a statement on
an idle connection pays nothing for this.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol, TypeVar
from weakref import ref

from sqlalchemy import Engine
from sqlalchemy.exc import TimeoutError as PoolTimeout

from microorm.db.engines.events import add_listener
from microorm.db.engines.pool import OPENED, TRUSTED
from microorm.db.owners import running_task, watch
from microorm.errors import ConfigurationError
from microorm.messages import brief

T = TypeVar("T")

PAUSE = 0.1
"""For how many seconds a waiting thread or task sleeps before it looks for idle connections once more."""
AT_ONCE = 5
"""How many unused engines one check-out closes at most, so that none takes long."""
MAX_NAMED = 10
"""How many aliases an error names."""


class Holder(Protocol):
    """An engine, and the connections that its pool has open."""

    alias: str

    def has_idle(self) -> bool:
        """Return whether a connection is open that nothing uses."""
        ...

    def shed(self) -> None:
        """Close the connections that nothing uses; those of an event loop are closed by it, soon."""
        ...

    def checked_in(self, connection: Any, record: Any) -> None:
        """Close the connection of *record* if it is not to stay in the pool to which it returns."""
        ...

    def rest(self) -> bool:
        """Close the engine, which is made again when it is needed; return False, and leave it, if it is in use."""
        ...


class Turn:
    """A place in the line for a free slot. *granted*: the connection of *record* has got one."""

    __slots__ = ("granted", "holder", "record", "token", "wake")

    def __init__(self, holder: Holder, record: Any, token: int) -> None:
        self.holder = holder
        self.record = record
        self.token = token
        self.granted = False
        self.wake: Callable[[], object] = lambda: None


Pause = Callable[[Turn, float], object]
"""Waits until the slot is granted, and some seconds at most; calls `Turn.wake` in another thread or task end it."""


def pause(turn: Turn, seconds: float) -> None:
    """Wait in this thread until *turn* is granted, *seconds* at most."""
    woken = threading.Event()
    turn.wake = woken.set
    if not turn.granted:
        woken.wait(seconds)


def thread_or_task() -> int:
    """Return the number of the running task, or else of this thread."""
    task = running_task()
    return threading.get_ident() if task is None else id(task)


class Limits:
    """At most *max_connections* open ones, and engines that are closed *idle_timeout* seconds after the last use.

    None is no limit. Raises `ConfigurationError` for another value. *waiting*: the line for a free slot.
    """

    def __init__(self, max_connections: int | None = None, idle_timeout: float | None = None) -> None:
        if max_connections is not None and (type(max_connections) is not int or max_connections < 1):
            raise ConfigurationError(
                f"max_connections= must be an int from 1 on, or None, not {brief(max_connections)}"
            )
        valid = not isinstance(idle_timeout, bool) and isinstance(idle_timeout, (int, float))
        if idle_timeout is not None and not (valid and 0 < idle_timeout < float("inf")):
            raise ConfigurationError(
                f"idle_timeout= must be a number of seconds above 0, or None, not {brief(idle_timeout)}"
            )
        self.max_connections = max_connections
        self.idle_timeout = idle_timeout
        self.waiting: deque[Turn] = deque()
        self._lock = threading.Lock()
        self._used: dict[Holder, float] = {}  # by last use, the oldest first
        self._slots: dict[ref[Any], tuple[Holder, int]] = {}  # by the record of a pool
        self._dead: deque[ref[Any]] = deque()  # records that were dropped with their pool
        if self.apply:
            watch(self, dies=True)

    @property
    def apply(self) -> bool:
        """Whether there is a limit."""
        return self.max_connections is not None or self.idle_timeout is not None

    def count(self, engine: Engine, holder: Holder, timeout: float, pause: Pause) -> None:
        """Let the connections of *engine* count; the listeners stay, for connections that return after it was closed."""
        add_listener(
            engine, "do_connect", lambda dialect, record, *_: self.acquire(holder, record, timeout, pause)
        )
        add_listener(engine, "close", lambda connection, record: self.release(record))
        add_listener(engine, "detach", lambda connection, record: self.release(record))
        add_listener(engine, "checkout", lambda *_: self.touch(holder))

    def touch(self, holder: Holder) -> None:
        """Note that a connection of *holder* was checked out, and close a few engines that were not used for long."""
        now = monotonic()
        due: list[Holder] = []
        with self._lock:
            self._used.pop(holder, None)
            self._used[holder] = now
            if self.idle_timeout is not None:
                # The last check-out was up to TRUSTED seconds before the last use.
                before = now - self.idle_timeout - TRUSTED
                for each, used in self._used.items():
                    if used >= before or len(due) == AT_ONCE:
                        break
                    due.append(each)
            for each in due:
                del self._used[each]
        for each in due:
            if not each.rest():
                with self._lock:
                    self._used.setdefault(each, now)

    def forget(self, holder: Holder) -> None:
        """Forget *holder*, whose engine was closed; its open connections keep their slots until they are closed."""
        with self._lock:
            self._used.pop(holder, None)

    def acquire(self, holder: Holder, record: Any, timeout: float, pause: Pause) -> None:
        """Take a slot for the connection of *record*, which *holder* is about to open.

        Closes an idle connection of another alias if no slot is free, or waits in line, by *pause*, *timeout* seconds at most.
        Raises SQLAlchemy's `TimeoutError`, which names the aliases that have the connections.
        """
        record.info[OPENED] = monotonic()  # the pool may be disposed while this waits
        if self.max_connections is None:
            return
        turn = Turn(holder, record, thread_or_task())
        with self._lock:
            self._drop_failed(turn.token)
            self.waiting.append(turn)
            self._grant()
        if turn.granted:
            return
        deadline = monotonic() + timeout
        try:
            while not turn.granted:
                left = deadline - monotonic()
                if (idle := self._with_idle(holder)) is not None:
                    idle.shed()
                elif left <= 0:
                    raise self._exhausted(holder, timeout)
                pause(turn, min(PAUSE, max(left, 0.0)))
                with self._lock:
                    self._grant()  # slots of records that were dropped
                if left <= 0 and not turn.granted:
                    raise self._exhausted(holder, timeout)
        except BaseException:
            with self._lock:
                if turn.granted:
                    self._slots.pop(ref(record), None)
                else:
                    self.waiting.remove(turn)
                self._grant()
            raise

    def release(self, record: Any) -> None:
        """Free the slot of the connection of *record*, which is about to be closed."""
        with self._lock:
            if self._slots.pop(ref(record), None) is not None:
                self._grant()

    def opening(self, connect: Callable[[], T]) -> T:
        """Return what *connect* returns; if it fails, free the slot of the connection that this thread or task could not open."""
        try:
            return connect()
        except BaseException:
            if self._slots:
                with self._lock:
                    self._drop_failed(thread_or_task())
                    self._grant()
            raise

    def before_fork(self) -> None:
        """Do nothing: the child forgets the connections."""

    def after_fork(self) -> None:
        """In the child: forget the parent's connections."""
        self._lock = threading.Lock()  # another thread may have held it
        self._slots.clear()
        self.waiting.clear()

    def _grant(self) -> None:
        """Give free slots to those that wait longest."""
        while self._dead:
            self._slots.pop(self._dead.popleft(), None)
        while self.waiting and len(self._slots) < (self.max_connections or 0):
            turn = self.waiting.popleft()
            # A dropped record only adds itself to a list: the lock may be held by this thread when it is dropped.
            self._slots[ref(turn.record, self._dead.append)] = turn.holder, turn.token
            turn.granted = True
            turn.wake()

    def _drop_failed(self, token: int) -> None:
        """Free the slots of connections that the thread or task *token* has failed to open."""
        for reference, (_, opener) in list(self._slots.items()):
            if opener == token and ((record := reference()) is None or record.dbapi_connection is None):
                del self._slots[reference]

    def _with_idle(self, holder: Holder) -> Holder | None:
        """Return the engine that was used longest ago of those that have an idle connection, except *holder*."""
        with self._lock:
            holders = {each for each, _ in self._slots.values()} - {holder}
            ordered = sorted(holders, key=lambda each: self._used.get(each, 0.0))
        return next((each for each in ordered if each.has_idle()), None)

    def _exhausted(self, holder: Holder, timeout: float) -> PoolTimeout:
        with self._lock:
            held = Counter(each.alias for each, _ in self._slots.values())
        named = ", ".join(f"{alias!r} {count}" for alias, count in held.most_common(MAX_NAMED))
        more = f" and {len(held) - MAX_NAMED:,} other aliases" if len(held) > MAX_NAMED else ""
        return PoolTimeout(
            f"no connection to {holder.alias!r} within {timeout:g} seconds: all {self.max_connections:,} of max_connections are "
            f"in use, by {named}{more}"
        )


UNLIMITED = Limits()
