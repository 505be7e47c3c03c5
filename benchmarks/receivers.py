"""Receivers: plain functions that signals are sent to, the same for every library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def counting() -> tuple[Callable[..., None], Callable[[], int]]:
    """Return a receiver that counts its calls, and what tells how many there were."""
    calls = 0

    def receiver(*args: Any, **kwargs: Any) -> None:
        nonlocal calls
        calls += 1

    return receiver, lambda: calls


def ignoring(count: int) -> list[Callable[..., None]]:
    """Return that many distinct receivers that do nothing."""
    return [_ignoring() for _ in range(count)]


def _ignoring() -> Callable[..., None]:
    def receiver(sender: Any, **kwargs: Any) -> None:
        """Do nothing."""

    return receiver
