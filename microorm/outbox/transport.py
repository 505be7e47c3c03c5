"""Transports: what takes events from the outbox to their receivers.

`LocalTransport` calls the receivers in the process of the relay. Others hand the events on, to a broker for example, and
acknowledge what that has confirmed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol

from microorm.db.context import ReceiverScope
from microorm.db.databases import Databases
from microorm.dispatch.receivers import Connection
from microorm.dispatch.signal import run_coroutine
from microorm.errors import InvalidEvent, TransactionError, UnknownReceiver, nearest
from microorm.instrumentation import NOTHING, RECEIVER, Step, watchers
from microorm.messages import brief
from microorm.outbox.delivery import durable_connections, find, largest
from microorm.outbox.event import SIGNALS, Message, load_arguments, parse
from microorm.outbox.options import options_of
from microorm.outbox.store import Store
from microorm.outbox.tables import registries_of
from microorm.signals import ModelSignal

FAILURES = (Exception, asyncio.CancelledError)
"""What a receiver that has failed raises. It is called synchronously, so that a cancellation that leaves it is its own."""


class Transport(Protocol):
    """Takes events on, and says which of them need not be sent again."""

    def publish(self, events: Iterable[Message]) -> Collection[str]:
        """Take *events* on, one after another, and return the `id` of each that was taken for good.

        *events* ends early if the relay is to stop, or its claim is over. Of those that are not acknowledged, `error` may say
        why; they are published again later.
        """
        ...

    def close(self) -> None:
        """Give up connections."""
        ...


class LocalTransport:
    """Calls the receivers in this thread, one event after another.

    Nothing that a row names is imported: the model and the receiver are found among those that the process has.
    *databases* have the rows, and *store_of* returns the outbox of an alias.
    """

    def __init__(self, databases: Databases, store_of: Callable[[str], Store]) -> None:
        self._databases = databases
        self._store_of = store_of

    def publish(self, events: Iterable[Message]) -> Collection[str]:
        """Call the receiver of each of *events*; return the `id` of those whose receiver has succeeded."""
        done, known = set(), Known(self._databases)
        for message in events:
            try:
                self.deliver(message, known)
            except FAILURES as error:
                message.error = error
            except (
                BaseException
            ) as error:  # an exit or an interrupt, after which the relay stores what is done
                message.error = error
                raise
            else:
                message.delivered = True
                done.add(message.id)
        return done

    def close(self) -> None:
        """Do nothing."""

    def deliver(self, message: Message, known: Known | None = None) -> None:
        """Call the receiver of *message*. *known*: what was looked up for its batch.

        Raises `InvalidEvent` if it can never be called, `UnknownReceiver` if this process does not have it, `IncompatibleEvent` if
        its model cannot hold the row, and what it raises.
        """
        known = known or Known(self._databases)
        # Before the body, since the version of the program that has the receiver may be able to read it.
        signal, model, connection, receiver = known.find(message)
        body = parse(message, known.max_bytes)
        options, event = options_of(connection.options), message.for_receiver()
        named = load_arguments(body, signal, model.__schema__, message.alias, options)
        named |= {"signal": signal, "sender": model, "event": event}
        connection.ran = True
        if options.exactly_once:
            self._call_once(message, connection, receiver, named)
        else:
            self._call(message, connection, receiver, named)

    def _call(self, message: Message, connection: Connection, receiver: Any, named: dict[str, Any]) -> None:
        scope = ReceiverScope(self._databases, message.alias)
        with Step(RECEIVER, connection) if watchers else NOTHING:
            if connection.is_async:
                scope.run(_run_within, options_of(connection.options).timeout, receiver, named)
            else:
                scope.run(receiver, **named)

    def _call_once(
        self, message: Message, connection: Connection, receiver: Any, named: dict[str, Any]
    ) -> None:
        """Commit the effect of *receiver* together with the row that says so, and with the end of the event.

        An event without a claim comes from a broker, and has left the outbox.
        """
        store = self._store_of(message.alias)

        def committed() -> None:
            message.settled = True

        with self._databases.atomic(message.alias, durable=True):
            self._databases.on_commit(
                committed, message.alias
            )  # before those of the receiver, which may fail
            with self._databases.connection(message.alias) as sql:
                first = store.note_done(sql, message)
            if first:
                self._call(message, connection, receiver, named)
            with self._databases.connection(message.alias) as sql:
                if message.claim and not store.acknowledge(sql, message):
                    raise TransactionError(
                        f"the claim of the event {message.id} is over, so the effect of its receiver is rolled back"
                    )
        committed()  # inside the block of a test, the functions are called later


Found = tuple[ModelSignal, Any, Connection, Any]
"""A signal, a model, a connection and its receiver."""


class Known:
    """What is looked up once for a batch: the receivers of its events, and how long an event may be."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self._found: dict[tuple[str, str, str], Found] = {}
        self.max_bytes = largest()

    def find(self, message: Message) -> Found:
        """Return what delivers *message*. Raises `InvalidEvent` and `UnknownReceiver`."""
        key = (message.signal, message.label, message.receiver)
        if (found := self._found.get(key)) is None:
            found = self._found[key] = _find(self._databases, message)
        return found


def _find(databases: Databases, message: Message) -> Found:
    signal = SIGNALS.get(message.signal) if isinstance(message.signal, str) else None
    if signal is None:
        raise InvalidEvent(f"no signal {brief(message.signal)} has durable receivers")
    models = [registry.models.get(message.label) for registry in registries_of(databases)]
    model = next((each for each in models if each is not None), None)
    if model is not None:
        connection = find(signal, model, message.receiver)
        receiver = None if connection is None else connection.reference()
        if connection is not None and receiver is not None:
            return signal, model, connection, receiver
    known = [str(each.dispatch_uid) for each in durable_connections()]
    raise UnknownReceiver(
        f"no durable receiver of {message.signal} of {brief(message.label)} has dispatch_uid="
        f"{brief(message.receiver)}{nearest(message.receiver, known)}"
    )


def _run_within(timeout: float | None, receiver: Any, named: dict[str, Any]) -> None:
    async def call() -> None:
        async with asyncio.timeout(timeout):
            await receiver(**named)

    run_coroutine(call())
