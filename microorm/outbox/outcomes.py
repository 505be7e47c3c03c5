"""What becomes of an event that was delivered or not: the same in a relay, and in the consumers of a broker."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from traceback import extract_tb
from typing import Any

from microorm.errors import IncompatibleEvent, InvalidEvent, PublishError, UnknownReceiver
from microorm.messages import brief
from microorm.outbox.delivery import durable_connections
from microorm.outbox.event import Delivered, Kind, Message
from microorm.outbox.options import DurableOptions, Retry, options_of
from microorm.outbox.store import Outcome

_log = logging.getLogger("microorm.outbox")

_SECOND, _HOUR = 1.0, 3600.0
WEEK = 7 * 86_400.0
_MISSED = 10_000  # receivers
_OF_ANOTHER_VERSION = (UnknownReceiver, IncompatibleEvent)
_PUBLISHED_AGAIN = 60.0  # seconds at most, while a broker does not answer


class Recorder:
    """Decides what becomes of events, and logs it; calls *observe* when that is stored.

    *unknown_for*: for how many seconds, from when this recorder first missed it, events wait for a receiver that is not there,
    or for a model that can hold their row.
    """

    def __init__(self, unknown_for: float, observe: Callable[[Delivered], object] | None) -> None:
        if isinstance(unknown_for, bool) or not isinstance(unknown_for, (int, float)) or not unknown_for >= 0:
            raise ValueError(f"unknown_for= must be a number of seconds, not {brief(unknown_for)}")
        self.unknown_for = unknown_for
        self._observe = observe
        self._missed: dict[tuple[str, ...], tuple[float, float]] = {}  # since when, and when at last

    def delivered(self, message: Message, outcome: Outcome) -> None:
        """Note that *message* was delivered. Its `error` is of what followed the commit of its effect."""
        self._missed.pop(_missing(message, UnknownReceiver), None)
        if message.error is not None:
            _log.error(
                "the event %s for %s on %r has its effect, and then: %s",
                brief(message.event),
                brief(message.receiver),
                message.alias,
                brief(message.error),
                exc_info=message.error,
            )
        self._note(message, "done", outcome)

    def exhausted(self, message: Message, outcome: Outcome) -> None:
        """Add to *outcome* that *message* is dead."""
        outcome.dead.append((message, described(message.error)))
        self._note(message, "dead", outcome)

    def refused(self, message: Message, outcome: Outcome) -> None:
        """Add to *outcome* what becomes of *message*, which was not delivered because of its `error`."""
        retry, error = options_for(message).retry, message.error
        if isinstance(error, PublishError):
            pause = min(max(message.age, retry.base), retry.cap, _PUBLISHED_AGAIN)
            self._release(message, pause, "failed", outcome)
        elif isinstance(error, _OF_ANOTHER_VERSION):
            if (missed := self._missed_for(message, retry)) < self.unknown_for:
                pause = max(min(max(missed, retry.base), retry.cap), _SECOND)
                self._release(message, pause, "unknown", outcome)
            else:
                self.exhausted(message, outcome)
        elif isinstance(error, InvalidEvent) or message.attempt >= retry.max_attempts:
            self.exhausted(message, outcome)
        else:
            outcome.failed.append((message, round(retry.delay(message.attempt) * 1000)))
            self._note(message, "failed", outcome)

    def _release(self, message: Message, pause: float, kind: Kind, outcome: Outcome) -> None:
        outcome.released.append((message, round(pause * 1000)))
        self._note(message, kind, outcome)

    def _missed_for(self, message: Message, retry: Retry) -> float:
        """Return for how many seconds the receiver of *message*, or a model that can hold such rows, has been missed.

        Not from the save on: the event may be an old one that was retried, or its relay may have been stopped for long. Nor
        from an earlier time, which is over if nothing was missed for longer than the pauses are.
        """
        now, missing = monotonic(), _missing(message, type(message.error))
        if len(self._missed) >= _MISSED:  # of rows that no save has written
            self._missed.clear()
        since, last = self._missed.get(missing, (now, now))
        if now - last > 2 * max(retry.cap, _HOUR):
            since = now
        self._missed[missing] = since, now
        return now - since

    def report(self, outcome: Outcome) -> None:
        """Call *observe* for each attempt of *outcome*, which is stored. What it raises is logged."""
        if (observe := self._observe) is None:
            return
        for delivered in outcome.attempts:
            try:
                observe(delivered)
            except Exception as error:  # noqa: BLE001 whatever a callback of the program raises
                _log.error("observe= has failed: %s", brief(error), exc_info=error)

    def _note(self, message: Message, kind: Kind, outcome: Outcome) -> None:
        if kind != "done":
            error: Any = message.error
            _log.log(
                logging.ERROR if kind == "dead" else logging.WARNING,
                "attempt %s of the event %s for %s on %r: %s",
                message.attempt,
                brief(message.event),
                brief(message.receiver),
                message.alias,
                kind,
                exc_info=error if kind != "unknown" else None,
            )
        if self._observe is not None:
            outcome.attempts.append(
                Delivered(message.alias, message.receiver, kind, message.attempt, message.age)
            )


def _missing(message: Message, kind: type[object]) -> tuple[str, ...]:
    return message.alias, message.label, message.receiver, kind.__name__


def options_for(message: Message) -> DurableOptions:
    """Return the options of the receiver of *message*; the default ones if this process does not have it."""
    found = (each for each in durable_connections() if each.dispatch_uid == message.receiver)
    connection = next(found, None)
    return options_of({} if connection is None else connection.options)


def described(error: BaseException | None) -> str:
    """Return a text for the dead table: the class of *error*, and where it was raised, without values.

    The messages of microorm about an event are kept: they name models, fields, receivers and limits.
    """
    if error is None:
        return "not acknowledged by the transport"
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    if isinstance(error, (InvalidEvent, *_OF_ANOTHER_VERSION)):
        return f"{type(error).__name__}: {error}"
    places = extract_tb(error.__traceback__)
    return f"{kind} in {places[-1].filename}:{places[-1].lineno}" if places else kind
