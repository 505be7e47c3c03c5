"""What a broker carries: an event as a message, and what the process does that gets it.

A message holds the columns of an event. Its consumer finds the model and the receiver among those that the process has;
nothing that a message names is imported. An event whose receiver has failed goes back to the outbox of its database,
which has it published again after a pause, or to the dead events there. So a broker needs neither delays nor a count of
attempts, and `microorm outbox` shows the failed events of all transports.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal
from urllib.parse import quote
from uuid import NAMESPACE_OID, uuid5

from microorm.db.databases import Databases, default_databases
from microorm.errors import InvalidEvent, PublishError, RedeliveredError, UnknownReceiver
from microorm.messages import brief
from microorm.outbox.delivery import largest, options_by_uid
from microorm.outbox.event import Delivered, Message
from microorm.outbox.options import MAX_UID
from microorm.outbox.outcomes import WEEK, Recorder
from microorm.outbox.store import Outcome, Store, store_of
from microorm.outbox.tables import MAX_LABEL
from microorm.outbox.transport import FAILURES, LocalTransport
from microorm.serialization import decode

_log = logging.getLogger("microorm.outbox")

Verdict = Literal["done", "discard", "keep"]
"""What a broker is to do with a message: forget it, discard it as one that cannot be read, or deliver it again."""

PAUSE = 1.0
"""Seconds before a message is given back to its broker, which may deliver it again at once."""

ON_THE_WIRE = 8 * 2**20
"""How many bytes the body of a message may have, whatever this process can deliver: a longer one goes back to the outbox."""

VERSION = 1
_TEXTS = {"event": 36, "receiver": MAX_UID, "signal": 40, "label": MAX_LABEL, "order_key": 32, "alias": 200}
_NUMBERS = {"attempt": 2**31 - 1, "created_at": 2**53, "claimed_at": 2**53}
_FIELDS = frozenset({"version", "body", *_TEXTS, *_NUMBERS})
_BESIDE_THE_BODY = 8_192  # bytes
_SURROGATES = re.compile("[\ud800-\udfff]")
_MAX_ID = 255  # bytes, in AMQP


class Consumer:
    """Calls the receivers of the events that a broker delivers to this process.

    *databases*: by default the default ones. *unknown_for*: for how many seconds from when this consumer first missed a
    receiver its events are published again, before they are dead. *observe* is called with a `Delivered` after each attempt.
    """

    def __init__(
        self,
        databases: Databases | None = None,
        *,
        unknown_for: float = WEEK,
        observe: Callable[[Delivered], object] | None = None,
    ) -> None:
        self.databases = default_databases if databases is None else databases
        self._recorder = Recorder(unknown_for, observe)
        self._local = LocalTransport(self.databases, self._store)

    def receive(self, data: str | bytes, *, redelivered: bool = False) -> None:
        """Call the receiver of the event in *data*; if it fails, put the event back into the outbox of its database.

        The broker may forget the message when this returns. *redelivered*: the broker has delivered it before. Such an event is not
        delivered but put back, as after a failure, so that one that kills its process is tried after pauses, and dies in the end.

        Raises `InvalidEvent` if *data* is no event: the broker is to discard it. After any other error, such as that of a
        database which cannot be reached, the broker is to keep it.
        """
        message = load_message(data, max(ON_THE_WIRE, largest()))
        self.databases.database(message.alias)
        try:
            if redelivered:
                raise RedeliveredError("its process was killed, or took longer than the broker waits")
            self._local.deliver(message)
        except FAILURES as error:
            message.error = error
        outcome = Outcome()
        if message.error is None or message.settled:
            self._recorder.delivered(message, outcome)
        else:
            self._recorder.refused(message, outcome)
            self._store(message.alias).settle(outcome, [message])
        self._recorder.report(outcome)

    def take(self, data: str | bytes, *, redelivered: bool = False) -> Verdict:
        """Call `receive`; return what the broker is to do with the message. Logs why it is not to forget it."""
        try:
            self.receive(data, redelivered=redelivered)
        except InvalidEvent as error:
            _log.error("a message is discarded: %s", error)
            return "discard"
        except Exception as error:  # noqa: BLE001 of the database, most of all
            _log.error("an event stays with the broker: %s", brief(error), exc_info=error)
            return "keep"
        return "done"

    def _store(self, alias: str) -> Store:
        return store_of(self.databases, alias)


def message_id(message: Message) -> str:
    """Return the `id` of *message* as a broker takes it: ASCII, and not too long for a header."""
    identifier = quote(message.id, safe=":")
    return identifier if len(identifier) <= _MAX_ID else str(uuid5(NAMESPACE_OID, message.id))


def dump_message(message: Message) -> str:
    """Return the JSON that carries *message*. Raises `InvalidEvent` for a row that no save has written.

    Raises `UnknownReceiver` for an event that was too long to be read by this process, which does not have its receiver.
    """
    if message.body is None and message.receiver not in options_by_uid():
        raise UnknownReceiver(
            f"the event is longer than {largest():,} bytes, and no durable receiver has its dispatch_uid"
        )
    found: dict[str, Any] = {name: getattr(message, name) for name in sorted(_FIELDS - {"version"})}
    if (problem := _problem(found)) is not None:
        raise InvalidEvent(f"the event cannot be published: {problem}")
    return json.dumps({"version": VERSION} | found, ensure_ascii=False, separators=(",", ":"))


def unconfirmed(error: BaseException) -> PublishError:
    """Return the error of an event that a broker has not confirmed because of *error*, which may hold an address."""
    if isinstance(error, PublishError):
        return error
    made = PublishError(f"the broker has not confirmed it: {type(error).__name__}")
    made.__cause__ = error
    return made


def load_message(data: str | bytes, max_bytes: int) -> Message:
    """Return the event in *data*, whose body has at most *max_bytes*. Raises `InvalidEvent` for anything else."""
    try:
        text = data.decode() if isinstance(data, bytes) else data
        found = decode(text, max_bytes=2 * max_bytes + _BESIDE_THE_BODY)
    except (ValueError, RecursionError) as error:
        raise InvalidEvent(f"the message is no event: {error}") from None
    if not isinstance(found, dict) or found.keys() != _FIELDS or found["version"] != VERSION:
        raise InvalidEvent(f"the message is no event: it is not an object of version {VERSION}")
    problem = _problem(found)
    if problem is None and len(found["body"].encode()) > max_bytes:
        problem = f"its body has more than {max_bytes:,} bytes"
    if problem is not None:
        raise InvalidEvent(f"the message is no event: {problem}")
    del found["version"]
    return Message(row=0, claim=0, **found)


def _problem(found: Mapping[str, Any]) -> str | None:
    """Return what keeps *found* from being written to an outbox, or None."""
    for name, longest in _TEXTS.items():
        value = found[name]
        if value is None and name == "order_key":
            continue
        if not isinstance(value, str) or not value.isprintable() or len(value) > longest:
            return f"{name!r} must be a text of at most {longest} characters, not {brief(value)}"
    for name, largest_number in _NUMBERS.items():
        if type(found[name]) is not int or not 0 <= found[name] <= largest_number:
            return f"{name!r} must be a number from 0 to {largest_number}, not {brief(found[name])}"
    body = found["body"]
    if not isinstance(body, str) or "\0" in body or _SURROGATES.search(body):
        return "'body' must be a text without null characters and surrogates"
    return None
