"""Documents: values that are stored as JSON, and the text they are stored as."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

from microorm.values import Check, Refused, encodable, shown

# MariaDB takes no deeper nesting; Python writes and reads no longer integer by default.
JSON_LEVELS = 31
JSON_BIGGEST = 10**4000


def json_problem(value: Any, levels: int = JSON_LEVELS) -> str | None:
    """What JSON, or one of the databases, would change or refuse in *value*, or None.

    *levels*: how deep lists and dicts may be nested; a circle is deeper than that.
    """
    kind = type(value)
    if value is None or kind is bool:
        return None
    if kind is str:
        return "a NUL character" if "\0" in value else None if encodable(value) else "a lone surrogate"
    if kind is int:
        return None if abs(value) < JSON_BIGGEST else "an int of too many digits"
    if kind is float:
        return None if math.isfinite(value) else str(value)
    if kind is not list and kind is not dict:
        return shown(value)
    if not levels:
        return f"more than {JSON_LEVELS} levels"
    for key in value if kind is dict else ():
        if type(key) is not str:
            return f"the key {shown(key)}"
        if found := json_problem(key):
            return found
    for item in value.values() if kind is dict else value:
        if found := json_problem(item, levels - 1):
            return found
    return None


def json_check(container: type) -> Check:
    """A `dict` or `list` that comes back from JSON as it was."""
    expected = container.__name__

    def admit(value: Any) -> Any:
        if type(value) is not container:
            raise Refused(f"wants {expected}, not {shown(value)}")
        if (found := json_problem(value)) is not None:
            raise Refused(f"wants {expected} that JSON can hold, not one with {found}")
        return value

    names = {"container": container, "problem": json_problem}
    return Check(expected, "{v}.__class__ is {container} and {problem}({v}) is None", admit, names)


def json_text(value: Any) -> str:
    """*value* as JSON whose text is the same for equal values, and whose floats JSONB leaves floats.

    Keys are in order, since SQLite and MariaDB compare texts. JSONB keeps a number as its digits: of 1e+23 it
    makes an integer, of 100000000000000000000000.0 it does not. It knows no -0.0, which is 0.0 everywhere.
    """
    text = json.dumps(value, sort_keys=True)
    return _spelled_out(value) if "e+" in text or "-0.0" in text else text


def _spelled_out(value: Any) -> str:
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {_spelled_out(value[key])}" for key in sorted(value)]
        return "{" + ", ".join(parts) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_spelled_out, value)) + "]"
    if isinstance(value, float) and not value:
        return "0.0"
    text = json.dumps(value)
    return f"{Decimal(text):f}.0" if isinstance(value, float) and "e+" in text else text
