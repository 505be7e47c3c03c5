"""The relay: claims events, has them delivered, and stores what became of them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

from sqlalchemy.exc import DBAPIError

from microorm.db.databases import Databases, default_databases
from microorm.dispatch.signal import refuse_running_loop
from microorm.errors import InvalidEvent, TransactionError, UnknownAlias
from microorm.messages import brief
from microorm.outbox.delivery import durable_connections, largest, needed_on, options_by_uid
from microorm.outbox.event import Delivered, Message
from microorm.outbox.options import DEFAULTS, DurableOptions, check_seconds
from microorm.outbox.outcomes import WEEK, Recorder
from microorm.outbox.store import Outcome, Store, store_of
from microorm.outbox.tables import registries_of
from microorm.outbox.transport import LocalTransport, Transport
from microorm.outbox.waiting import Waiter

_log = logging.getLogger("microorm.outbox")

LARGEST_BATCH = 10_000
"""How many events may be claimed at once: drivers take only so many parameters."""

_LOOK_FOR_LOST = 4  # times in a lease, even if there are others
_MARGIN = 0.5  # of the lease that has to be left before a receiver is called


@dataclass(slots=True)
class _Batch:
    """Claimed events, until when they are claimed, and which of them were published."""

    messages: list[Message]
    until: float
    published: list[Message] = field(default_factory=list)
    done: set[str] = field(default_factory=set)


class Relay:
    """Delivers the stored events of *databases*, by default those of the default ones.

    *aliases*: by default all that have durable receivers. *batch*: how many events are claimed at once. *lease*: for
    how many seconds; a relay that is killed holds its events for so long. The whole batch is extended until its last
    event is called, but a single receiver that takes longer may be called by another relay, too, unless its `timeout=`
    says that it may take longer. *idle*: the longest pause, in seconds, between two looks at an empty outbox.
    *unknown_for*: for how many seconds from when this relay first missed a receiver its events wait, before they are
    dead. *transport*: by default the receivers are called here; `run()` and `start()` close another at their end.
    *observe* is called with a `Delivered` after each attempt. Raises `ValueError` for a number that cannot be, and
    `UnknownAlias`.
    """

    def __init__(
        self,
        databases: Databases | None = None,
        aliases: Sequence[str] | None = None,
        *,
        batch: int = 100,
        lease: float = 60.0,
        idle: float = 1.0,
        unknown_for: float = WEEK,
        transport: Transport | None = None,
        observe: Callable[[Delivered], object] | None = None,
    ) -> None:
        if type(batch) is not int or not 1 <= batch <= LARGEST_BATCH:
            raise ValueError(f"batch= must be an int from 1 to {LARGEST_BATCH}, not {brief(batch)}")
        check_seconds("lease", lease)
        check_seconds("idle", idle)
        self.databases = default_databases if databases is None else databases
        self._aliases = (
            None if aliases is None else tuple(self.databases.database(each).alias for each in aliases)
        )
        self.batch, self.lease, self.idle = batch, lease, idle
        self._recorder = Recorder(unknown_for, observe)
        self._transport = transport or LocalTransport(self.databases, self.store)
        self._stores: dict[str, Store] = {}
        self._look_for_lost: dict[str, float] = {}
        self._empty: set[str] = set()  # aliases where the last claim has found nothing
        self._ahead: dict[str, _Batch] = {}  # claimed together with the end of the batch before
        self._options_by_uid: dict[str, DurableOptions] = {}  # of each batch
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._waiter = Waiter(self.databases)

    def __repr__(self) -> str:
        return f"<Relay of {', '.join(map(repr, self.aliases)) or 'nothing'}>"

    @property
    def aliases(self) -> tuple[str, ...]:
        """The aliases whose events are delivered."""
        if self._aliases is not None:
            return self._aliases
        registries = registries_of(self.databases)
        return tuple(a for a in self.databases.aliases if any(needed_on(each, a) for each in registries))

    def store(self, using: str) -> Store:
        """Return the outbox of the alias *using*. Raises `ConfigurationError` if no model has a durable receiver."""
        if (found := self._stores.get(using)) is None:
            found = store_of(self.databases, using)
            self._stores[using] = found
        return found

    def run_once(self) -> int:
        """Claim and deliver one batch of each alias; return how many events were claimed.

        Raises what the database raises, and `TransactionError` inside an open block. Raises `RuntimeError` on a running event
        loop if a receiver is a coroutine function; write `await asyncio.to_thread(relay.drain)` there.
        """
        return self._run_once(ahead=False)

    def _run_once(self, *, ahead: bool) -> int:
        """Do what `run_once` does. *ahead*: claim the next batch already where this one is full; the caller releases it."""
        self._refuse_running_loop()
        return sum(self._run_alias(alias, ahead=ahead) for alias in self.aliases)

    def drain(self) -> int:
        """Deliver until no event is due, or `stop()` is called; return how many attempts were made.

        Events that wait to be tried again are left. Raises as `run_once` does.
        """
        total = 0
        try:
            while not self._stopping.is_set() and (count := self._run_once(ahead=True)):
                total += count
        finally:
            self._release_ahead()
        return total

    def run(self, progress: Callable[[int], object] | None = None) -> None:
        """Deliver until `stop()` is called, as this thread's work; *progress* is called with the size of each batch.

        Errors, such as those of the databases, are logged, and the relay goes on later. A receiver that raises `SystemExit` or
        `KeyboardInterrupt` ends it, when what is delivered has been stored.
        """
        self._refuse_running_loop()
        failures = 0
        try:
            while not self._stopping.is_set():
                try:
                    count = self._run_once(ahead=True)
                    if count and progress is not None:
                        progress(count)
                    if not count:
                        self._waiter.wait(self.aliases, self.idle, self._stopping)
                    failures = 0
                except Exception as error:  # noqa: BLE001 of a database, a router, a transport: it may pass
                    failures += 1
                    _log.error("the relay cannot use the outbox: %s", brief(error), exc_info=error)
                    self._stopping.wait(min(30.0, self.idle * 2.0 ** min(failures, 10)))
        except BaseException as error:
            _log.critical("the relay ends: %s", brief(error), exc_info=error)
            raise
        finally:
            try:
                self._release_ahead()
            except Exception as error:  # noqa: BLE001 of the database; they are free when the lease is over
                _log.error("claimed events are not released: %s", brief(error), exc_info=error)
            self._waiter.close()
            self._transport.close()

    def start(self) -> None:
        """Deliver in a thread beside the program, until `stop()`. Raises `RuntimeError` if it is running."""
        if self._thread is not None and self._thread.is_alive():
            raise RuntimeError("the relay is running already")
        self._stopping.clear()
        self._thread = threading.Thread(target=self.run, name="microorm relay", daemon=True)
        self._thread.start()

    def stop(self, timeout: float | None = None) -> bool:
        """Let the running receiver finish, and release the other events; return whether the thread has ended.

        *timeout*: how many seconds to wait for that. May be called from a signal handler, where no thread is waited for.
        """
        self._stopping.set()
        self._waiter.wake()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout)
        return not thread.is_alive()

    def _refuse_running_loop(self) -> None:
        """Raise `RuntimeError` if the receivers are called here, and some would have to wait for the running event loop."""
        if isinstance(self._transport, LocalTransport):
            waiting = (each for each in durable_connections() if each.is_async)
            if (first := next(waiting, None)) is not None:
                refuse_running_loop(
                    f"the durable receiver {brief(first.dispatch_uid)}",
                    "; let the relay have a thread: await asyncio.to_thread(relay.drain)",
                )

    def _release_ahead(self) -> None:
        while self._ahead:
            alias, batch = self._ahead.popitem()
            with suppress(
                UnknownAlias
            ):  # the alias was removed; another process finds them when the lease is over
                self.store(alias).settle(Outcome(released=[(message, 0) for message in batch.messages]))

    def _run_alias(self, alias: str, *, ahead: bool) -> int:
        """Deliver one batch of *alias*. If that is removed meanwhile, another process finds the events when the lease is over."""
        try:
            return self._run_store(alias, ahead=ahead)
        except UnknownAlias as error:
            if not (error.removed and error.alias == alias):
                raise
            self._stores.pop(alias, None)
            self._ahead.pop(alias, None)
            return 0

    def _run_store(self, alias: str, *, ahead: bool) -> int:
        database = self.databases.database(alias)
        transaction = self.databases.transaction(database)
        if transaction is not None and not transaction.blocks[-1].of_test:
            raise TransactionError(f"a relay cannot run inside the open block on {alias!r}")
        store, now = self.store(alias), monotonic()
        due = self._look_for_lost.setdefault(alias, now + self.lease / _LOOK_FOR_LOST)
        if alias in self._empty and not store.is_due():
            return 0
        batch = self._ahead.pop(alias, None) or self._claim(store, lost=False)
        count = self._handle(store, batch, ahead=ahead and len(batch.messages) == self.batch)
        if not self._stopping.is_set() and (not count or now >= due):
            lost = self._handle(store, self._claim(store, lost=True))
            self._look_for_lost[alias] = now if lost else now + self.lease / _LOOK_FOR_LOST
            count += lost
        (self._empty.discard if count else self._empty.add)(alias)
        return count

    def _claim(self, store: Store, *, lost: bool) -> _Batch:
        until = monotonic() + self.lease  # before the database has counted from later on
        self._options_by_uid = options_by_uid()
        messages = store.claim(1 if lost else self.batch, self.lease, largest(), lost=lost)
        return _Batch(messages, until)

    def _handle(self, store: Store, batch: _Batch, *, ahead: bool = False) -> int:
        """Publish *batch*, and store what became of it, even if an interrupt stops it. *ahead*: claim the next one, too."""
        if not batch.messages:
            return 0
        exhausted = [each for each in batch.messages if each.attempt > self._options(each).retry.max_attempts]
        for message in exhausted:
            message.error = InvalidEvent(
                f"it was claimed {message.attempt - 1} times, and neither acknowledged nor refused: the process was killed, or its "
                "receiver took longer than the lease"
            )
        published = False
        try:
            batch.done |= set(self._transport.publish(self._allowed(store, batch, exhausted)))
            published = True
        finally:
            outcome = self._outcome(batch, exhausted)
            count = self._settle(store, outcome, ahead=ahead and published and not self._stopping.is_set())
            if count < len(outcome.done):
                _log.warning(
                    "%d events of %r were delivered after their lease, and may be delivered again",
                    len(outcome.done) - count,
                    store.alias,
                )
            self._recorder.report(outcome)
        return len(batch.messages)

    def _settle(self, store: Store, outcome: Outcome, *, ahead: bool) -> int:
        """Store *outcome*. *ahead*: also claim the next batch in the same transaction, whose commit is what takes longest."""
        if not ahead:
            return store.settle(outcome)
        until = monotonic() + self.lease
        self._options_by_uid = options_by_uid()
        try:
            count, messages = store.settle_and_claim(outcome, self.batch, self.lease, largest())
        except DBAPIError as error:  # of the claim, as it may be, which must not undo what was delivered
            _log.warning("no batch is claimed ahead: %s", brief(error))
            return store.settle(outcome)
        if messages:
            self._ahead[store.alias] = _Batch(messages, until)
        return count

    def _allowed(self, store: Store, batch: _Batch, exhausted: Sequence[Message]) -> Iterator[Message]:
        """Yield the events while they are claimed and the relay is not to stop; extend the lease where it is needed."""
        taken = {id(message) for message in exhausted}
        left = deque(each for each in batch.messages if id(each) not in taken)
        while left and not self._stopping.is_set():
            message = left[0]
            needed = (self._options(message).timeout or 0.0) + self.lease * _MARGIN
            remaining = batch.until - monotonic()
            if remaining <= 0:
                return
            if remaining < needed:
                longer = max(self.lease, needed)
                until = monotonic() + longer
                # Those that were called, too: they are stored as done or failed at the end of the batch.
                store.extend(batch.messages, longer)
                batch.until = until
            batch.published.append(left.popleft())
            yield message

    def _options(self, message: Message) -> DurableOptions:
        found = self._options_by_uid.get(message.receiver)
        if found is None:  # the receiver may have been connected since the claim
            self._options_by_uid = options_by_uid()
            found = self._options_by_uid.get(message.receiver, DEFAULTS)
        return found

    def _outcome(self, batch: _Batch, exhausted: Iterable[Message]) -> Outcome:
        outcome = Outcome()
        finished = {id(message) for message in exhausted}
        published = {id(message) for message in batch.published}
        for message in batch.messages:
            if id(message) in finished:
                self._recorder.exhausted(message, outcome)
            elif id(message) not in published:
                outcome.released.append((message, 0))
            elif message.settled or message.delivered or message.id in batch.done:
                if not message.settled:
                    outcome.done.append(message)
                self._recorder.delivered(message, outcome)
            else:
                self._recorder.refused(message, outcome)
        return outcome
