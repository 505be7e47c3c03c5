"""Deliveries that store the calls of receivers, by name. Each is registered by a package of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

from microorm.dispatch.receivers import Connection

STORED: Mapping[str, str] = {"durable": "microorm.outbox.delivery"}
"""The module that registers each delivery, which is loaded when it is first used."""


class StoredDelivery(Protocol):
    """Stores what receivers will be called with later, maybe by another process.

    *arguments*: what receivers get besides the arguments of the signal.
    """

    arguments: frozenset[str]

    def check(
        self, signal: Any, receiver: Callable[..., Any], dispatch_uid: object, options: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Return the options of a connection. Raises `TypeError` and `ValueError` if it cannot be made."""
        ...

    def connected(self, registry: Any) -> None:
        """Prepare *registry*, some of whose models have such receivers now."""
        ...

    def store(
        self,
        signal: Any,
        connections: Sequence[Connection],
        sender: Any,
        calls: Sequence[Mapping[str, Any]],
    ) -> None:
        """Store *calls*, each the arguments of a send, for each of *connections*, in the open transaction on their alias."""
        ...


_registered: dict[str, StoredDelivery] = {}


def register_delivery(name: str, delivery: StoredDelivery) -> None:
    """Make *delivery* what `connect(delivery=name)` uses."""
    _registered[name] = delivery


def stored_delivery(name: str) -> StoredDelivery:
    """Return the delivery *name*, whose module is loaded at the first call."""
    if name not in _registered:
        import_module(STORED[name])
    return _registered[name]
