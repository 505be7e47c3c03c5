"""The options of a durable receiver, and how often a failed event is tried again."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from microorm.errors import nearest
from microorm.messages import brief
from microorm.serialization import MAX_BYTES

if TYPE_CHECKING:
    from typing import TypedDict

    class DurableArguments(TypedDict, total=False):
        """The options of a durable receiver as `connect` takes them."""

        payload: Literal["row", "key"]
        ordered: bool
        retry: Retry
        timeout: float | None
        exactly_once: bool
        max_bytes: int


MAX_UID = 200
"""How many characters a `dispatch_uid` may have: it is a part of an index."""


LONGEST = 366 * 86_400.0
"""How many seconds a lease, a timeout or a pause may have: a year."""


def check_seconds(name: str, value: object, *, zero: bool = False) -> None:
    """Raise `ValueError` if *value* is no positive number of seconds, a year at most. *zero*: 0 is allowed, too."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not (0 <= value <= LONGEST) or (value == 0 and not zero):  # type: ignore[operator]
        kind = "number" if zero else "positive number"
        raise ValueError(
            f"{name}= must be a {kind} of seconds, at most {LONGEST:.0f} (a year), not {brief(value)}"
        )


@dataclass(frozen=True, slots=True)
class Retry:
    """How often an event is tried, and when: after about *base*, 2 × *base*, 4 × *base* seconds, at most *cap* each.

    After *max_attempts* the event is dead. Raises `ValueError` for other than positive numbers.
    """

    max_attempts: int = 10
    base: float = 1.0
    cap: float = 3600.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if type(self.max_attempts) is not int or self.max_attempts < 1:
            raise ValueError(f"max_attempts= must be a positive int, not {brief(self.max_attempts)}")
        for name in ("base", "cap"):
            check_seconds(name, getattr(self, name), zero=True)

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait after the failed *attempt*, the first of which is 1.

        From half to the whole of the time, at random, so that events that have failed together do not come back together.
        """
        longest = min(self.cap, self.base * 2.0 ** min(attempt - 1, 64))
        return longest * random.uniform(0.5, 1.0)


@dataclass(frozen=True, slots=True)
class DurableOptions:
    """The checked options of one durable receiver; see `microorm.outbox`."""

    payload: Literal["row", "key"] = "row"
    ordered: bool = False
    retry: Retry = Retry()
    timeout: float | None = None
    exactly_once: bool = False
    max_bytes: int = MAX_BYTES


DEFAULTS = DurableOptions()
NAMES = tuple(DurableOptions.__dataclass_fields__)
OPTIONS = "durable"
"""The key under which a connection has its `DurableOptions`."""


def checked(given: Mapping[str, Any]) -> DurableOptions:
    """Return the options *given* to `connect`. Raises `TypeError` for an unknown one, `ValueError` for an invalid one."""
    for name in given:
        if name not in NAMES:
            raise TypeError(f"a durable receiver has no option {name!r}{nearest(name, NAMES)}")
    options = DurableOptions(**given)
    if options.payload not in ("row", "key"):
        raise ValueError(f"payload= must be 'row' or 'key', not {brief(options.payload)}")
    for name in ("ordered", "exactly_once"):
        if not isinstance(getattr(options, name), bool):
            raise ValueError(f"{name}= must be a bool, not {brief(getattr(options, name))}")
    if not isinstance(options.retry, Retry):
        raise ValueError(f"retry= must be a Retry, not {brief(options.retry)}")
    if options.timeout is not None:
        check_seconds("timeout", options.timeout)
    if type(options.max_bytes) is not int or options.max_bytes < 1:
        raise ValueError(f"max_bytes= must be a positive int, not {brief(options.max_bytes)}")
    return options


def options_of(connection_options: Mapping[str, Any]) -> DurableOptions:
    """Return the options of a durable connection."""
    found: DurableOptions = connection_options.get(OPTIONS, DEFAULTS)
    return found
