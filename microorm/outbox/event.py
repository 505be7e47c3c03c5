"""Events: what is stored of a signal, and the arguments that a receiver gets from it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Literal, NamedTuple
from uuid import UUID

from microorm.errors import FieldError, IncompatibleEvent, InvalidEvent, InvalidValue, OutboxError
from microorm.mapping.schema import Schema
from microorm.messages import brief
from microorm.outbox.options import DurableOptions
from microorm.serialization import decode, dump_key, encode, encode_row, load_key, load_row, within
from microorm.signals import ModelSignal, post_delete, post_save

SIGNALS: Mapping[str, ModelSignal] = {"post_save": post_save, "post_delete": post_delete}
"""The signals whose receivers may be durable, by the name that is stored."""

_NAMES = {id(signal): name for name, signal in SIGNALS.items()}

VERSION = 1
_NAMED = 5  # fields in a message
_FLAGS = ("created", "raw")


@dataclass(frozen=True, slots=True)
class Event:
    """The argument `event` of a durable receiver.

    *id*: of the save, and the same in each attempt. *attempt*: 1 for the first. *created_at*: when the row was written, by
    the clock of the database. *alias*: the database of the row.
    """

    id: UUID
    attempt: int
    created_at: datetime
    alias: str


@dataclass(slots=True)
class Message:
    """An event for one receiver, as a relay has claimed it and a transport publishes it.

    *row* is its key in the outbox of *alias*, *claim* the token of a claim, which a relay made at *claimed_at*; the
    first two are 0 once it has left the outbox. *event*: its identifier. *receiver*: the `dispatch_uid`. *signal*,
    *label*: what was sent, and by which model, at *created_at*; moments are milliseconds. *attempt*: 1 for the first.
    *order_key*: events with the same one come one after another. *body*: None if it was too long to be read. *error*:
    why a transport has not acknowledged it. *delivered*: a transport has taken it for good, whatever happens to the
    rest of its batch. *settled*: its row is gone already, together with the effect of its receiver.
    """

    row: int
    event: str
    receiver: str
    signal: str
    label: str
    body: str | None
    attempt: int
    created_at: int
    alias: str
    claim: int
    claimed_at: int
    order_key: str | None = None
    error: BaseException | None = None
    delivered: bool = False
    settled: bool = False

    @property
    def age(self) -> float:
        """The seconds from the save to the claim, by the clock of the database; 0 if the row does not say."""
        known = isinstance(self.created_at, int) and isinstance(self.claimed_at, int)
        return max(0.0, (self.claimed_at - self.created_at) / 1000) if known else 0.0

    @property
    def id(self) -> str:
        """What is the same in each attempt, and for no other event and receiver."""
        return f"{self.event}:{self.receiver}"

    def for_receiver(self) -> Event:
        """Return what the receiver gets. Raises `InvalidEvent` for an invalid identifier or moment."""
        try:
            created_at = datetime.fromtimestamp(self.created_at / 1000, UTC)
            return Event(UUID(self.event), self.attempt, created_at, self.alias)
        except (ValueError, TypeError, OverflowError, OSError, AttributeError) as error:
            raise InvalidEvent(
                f"the event {brief(self.event)} has an invalid identifier or moment"
            ) from error


Kind = Literal["done", "failed", "dead", "unknown"]


class Delivered(NamedTuple):
    """What `observe=` is called with after each attempt; *seconds*: from the save to the claim.

    "done" means that the receiver has succeeded, or with another transport than the local one that its broker has the event;
    "unknown" that this process does not have the receiver, or has a model that cannot hold the row, and the event waits.
    """

    alias: str
    receiver: str
    outcome: Kind
    attempt: int
    seconds: float


def name_of(signal: ModelSignal) -> str | None:
    """Return the name in `SIGNALS` of *signal*, or None."""
    return _NAMES.get(id(signal))


def new_id() -> str:
    """Return a UUID of version 7 as text: its order is about that of time."""
    random, milliseconds = os.urandom(10).hex(), f"{time.time_ns() // 1_000_000:012x}"
    variant = "89ab"[int(random[3], 16) & 3]
    return f"{milliseconds[:8]}-{milliseconds[8:]}-7{random[:3]}-{variant}{random[4:7]}-{random[7:19]}"


def order_key(instance: Any, receiver: str) -> str:
    """Return a text that is the same for all events of one row and *receiver*, of a fixed length."""
    return blake2b(
        f"{receiver} {instance.__schema__.label} {encode(dump_key(instance))}".encode(), digest_size=16
    ).hexdigest()


def dump_event(named: Mapping[str, Any], payload: str, max_bytes: int) -> str:
    """Return the JSON of the arguments *named* of a signal. *payload*: `"row"`, or `"key"` alone.

    Raises `InvalidValue` for a value that JSON cannot hold, `ValueError` for more than *max_bytes*.
    """
    instance = named["instance"]
    parts = [f'"created":{_bool(named["created"])}'] if "created" in named else []
    if payload == "key":
        parts.append(f'"key":{encode(dump_key(instance), max_bytes=max_bytes)}')
    if (origin := named.get("origin")) is not None and hasattr(origin, "_row_state"):
        parts.append(f'"origin":{"true" if origin is instance else _dump_origin(origin)}')
    if "raw" in named:
        parts.append(f'"raw":{_bool(named["raw"])}')
    if payload == "row":
        parts.append(f'"row":{encode_row(instance)}')
    if "update_fields" in named:
        fields = named["update_fields"]
        parts.append(f'"update_fields":{"null" if fields is None else encode(sorted(fields))}')
    parts.append(f'"version":{VERSION}')
    return within(f"{{{','.join(parts)}}}", max_bytes)


def _bool(value: object) -> str:
    return "true" if value else "false"


def _dump_origin(origin: Any) -> str:
    return f'{{"label":{encode(origin.__schema__.label)},"row":{encode_row(origin)}}}'


def parse(message: Message, max_bytes: int) -> Mapping[str, Any]:
    """Return the content of *message*.

    Raises `InvalidEvent` for what `dump_event` has not written, and `IncompatibleEvent` if a later version of it may have.
    """
    if message.body is None:
        raise InvalidEvent(f"the event has more than {max_bytes:,} bytes")
    if not isinstance(message.body, str):
        raise InvalidEvent("the event cannot be read: its body is no text")
    try:
        body = decode(message.body, max_bytes=max_bytes)
    except ValueError as error:
        raise InvalidEvent(f"the event cannot be read: {error}") from error
    version = body.get("version") if isinstance(body, dict) else None
    if type(version) is int and version > VERSION:
        raise IncompatibleEvent(
            f"the event cannot be read: it has version {brief(version)}, and this is version {VERSION}"
        )
    if not isinstance(body, dict) or version != VERSION:
        raise InvalidEvent(f"the event cannot be read: it is not an object of version {VERSION}")
    return body


def load_arguments(
    body: Mapping[str, Any], signal: ModelSignal, schema: Schema, alias: str, options: DurableOptions
) -> dict[str, Any]:
    """Return the arguments of *signal* that are in *body*, with the instance of *schema* as it was written to *alias*.

    With `payload="key"` the row is read now. Raises `InvalidEvent` if it is gone, and for what is no row; `IncompatibleEvent`
    for values that the model cannot hold, since the model of the process that has stored them can.
    """
    named: dict[str, Any] = {"using": alias}
    try:
        if "row" in body:
            named["instance"] = load_row(schema, body["row"], alias, unknown="ignore")
        else:
            named["instance"] = _stored(schema, load_key(schema, body.get("key")), alias)
    except FieldError as error:
        raise _unreadable(schema, error, body.get("row", body.get("key"))) from error
    if signal is post_delete:
        named["origin"] = _origin(body.get("origin"), named["instance"], schema, alias)
        return named
    for name in _FLAGS:
        if not isinstance(body.get(name), bool):
            raise InvalidEvent(f"the event cannot be read: {name!r} is no bool")
        named[name] = body[name]
    fields = body.get("update_fields")
    if fields is not None and not (
        isinstance(fields, list) and all(isinstance(each, str) for each in fields)
    ):
        raise InvalidEvent("the event cannot be read: 'update_fields' is no list of names")
    named["update_fields"] = None if fields is None else frozenset(fields)
    return named


def _unreadable(schema: Schema, error: FieldError, given: Any) -> OutboxError:
    """Return the error of an event whose row, *given*, does not fit *schema*: without its values, since the text is stored."""
    kind = IncompatibleEvent if isinstance(given, dict) else InvalidEvent
    if not isinstance(error, InvalidValue):
        return kind(f"the event cannot be read: it holds no row of {schema.name}")
    names = ", ".join(map(brief, [*error.problems][:_NAMED]))
    return kind(f"the event cannot be read: {schema.name} cannot hold its value of {names}")


def _stored(schema: Schema, key: dict[str, Any], alias: str) -> Any:
    model = schema.model
    try:
        return model._all_rows.using(alias).get(**key)
    except model.DoesNotExist as error:
        raise InvalidEvent(f"the row of {schema.name} was deleted before its event was delivered") from error


def _origin(given: Any, instance: Any, schema: Schema, alias: str) -> Any:
    """Return the instance whose delete has deleted *instance*; None if it was a query."""
    if given is None or given is True:
        return instance if given else None
    if not isinstance(given, dict) or not isinstance(given.get("label"), str):
        raise InvalidEvent("the event cannot be read: 'origin' is no row")
    model = schema.registry.models.get(given["label"])
    return None if model is None else load_row(model.__schema__, given.get("row"), alias, unknown="ignore")
