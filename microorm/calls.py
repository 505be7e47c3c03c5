"""Calls: the receivers of a send, called in a loop that is generated for the names it is sent with. Standard library only.

A keyword that is spelled out costs half of one that comes out of `**named`. A signal is sent with the same names each
time, so it keeps the loop of its last send, which looks whether they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from keyword import iskeyword
from typing import Any

from microorm.receivers import Connection, Receiver

__all__ = ["Loop", "call_by_names"]

Responses = list[tuple[Receiver, Any]]
Loop = Callable[[Any, Iterable[Connection], object, dict[str, Any]], Responses]

LOOP = """\
def call(signal, connections, sender, named):
    if len(named) != {count}:
        return otherwise(signal, connections, sender, named)
    try:
        {values}
    except KeyError:
        return otherwise(signal, connections, sender, named)
    responses = []
    for connection in connections:
        receiver = connection.reference()
        if receiver is not None:
            connection.ran = True
            responses.append((receiver, receiver(signal=signal, sender=sender{keywords})))
    return responses
"""
MOST_LOOPS = 1000  # a program that sends names made from data must not grow with them

loops: dict[tuple[str, ...], Loop] = {}


def call_by_names(
    signal: Any, connections: Iterable[Connection], sender: object, named: dict[str, Any]
) -> Responses:
    """Call the receivers of *connections* by the loop for the names in *named*, which *signal* keeps; the responses.

    Where there is no such loop, by the signal's own `call_each`.
    """
    names = tuple(named)
    loop = loops.get(names) or _make_loop(names)
    if loop is None:
        each: Responses = signal.call_each(connections, sender, named)
        return each
    signal._loop = loop
    return loop(signal, connections, sender, named)


def _make_loop(names: tuple[str, ...]) -> Loop | None:
    """The loop for *names*; None where they cannot be spelled out, or where there are too many loops."""
    ordinary = all(name.isascii() and name.isidentifier() and not iskeyword(name) for name in names)
    if not ordinary or "signal" in names or len(loops) >= MOST_LOOPS:
        return None
    values = "; ".join(f"v{place} = named[{name!r}]" for place, name in enumerate(names)) or "pass"
    keywords = "".join(f", {name}=v{place}" for place, name in enumerate(names))
    source = LOOP.format(count=len(names), values=values, keywords=keywords)
    namespace: dict[str, Any] = {"otherwise": call_by_names}
    exec(compile(source, "<call of a receiver>", "exec"), namespace)
    return loops.setdefault(names, namespace["call"])
