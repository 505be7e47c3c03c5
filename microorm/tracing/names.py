"""The names of signals, by which modules refer to them: a signal itself has none."""

from __future__ import annotations

import sys
from weakref import WeakKeyDictionary

from microorm import signals
from microorm.dispatch.signal import Signal

_names: WeakKeyDictionary[Signal, str | None] = WeakKeyDictionary()


def name_of(signal: Signal) -> str | None:
    """Return the name of *signal*, or None where no module has it at its top level."""
    if signal not in _names:
        for name, each in find_signals().items():
            _names[each] = name
    return _names.setdefault(signal, None)  # which is looked for once


def find_signals() -> dict[str, Signal]:
    """Return the signals by name: those of `microorm.signals`, then those at the top level of all loaded modules."""
    names = {
        f"{module}.{name}": value
        for module, loaded in list(sys.modules.items())
        if module.partition(".")[0] != "microorm"
        for name, value in list(getattr(loaded, "__dict__", {}).items())
        if _is_signal(value)
    }
    found = {name: value for name, value in vars(signals).items() if _is_signal(value)}
    known = set(map(id, found.values()))
    # Of the modules that have imported a signal, one named `signals` counts, or else the alphabetically first.
    for name in sorted(names, key=lambda name: (name.split(".")[-2] != "signals", name)):
        if id(names[name]) not in known:
            known.add(id(names[name]))
            found[name] = names[name]
    return found


def _is_signal(value: object) -> bool:
    return issubclass(type(value), Signal)  # isinstance() reads `__class__`, and lazy objects import then
