"""Forks: what a child process inherits and must not use, since its parent goes on using it. Standard library only."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Inheritable(Protocol):
    """What holds connections."""

    def before_fork(self) -> None:
        """Get ready, in the parent."""
        ...

    def after_fork(self) -> None:
        """Let go in the child, without a word to whom the parent is talking to."""
        ...


_watched: weakref.WeakValueDictionary[int, Inheritable] = weakref.WeakValueDictionary()
_held: list[Inheritable] = []


class _Process:
    """A token of this process: a fork replaces it, so that what was inherited is known for what it is."""

    token = object()


def process() -> object:
    """A token of this process, other than that of its parent."""
    return _Process.token


def watch(inheritable: Inheritable) -> None:
    """Tell *inheritable* of forks from now on; it is not kept alive."""
    _watched[id(inheritable)] = inheritable


def forget(inheritable: Inheritable) -> None:
    """Tell *inheritable* of forks no more."""
    _watched.pop(id(inheritable), None)


def _before() -> None:
    # Held, since in the child the other threads are gone, and with them what kept their connections: collected
    # there, these would say goodbye to a server that is serving the parent.
    _held.extend(each for known in _watched.valuerefs() if (each := known()) is not None)
    for each in _held:
        each.before_fork()


def _after_in_child() -> None:
    _Process.token = object()
    for each in _held:
        each.after_fork()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_held.clear, after_in_child=_after_in_child)
