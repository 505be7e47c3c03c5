"""The details of a step that is recorded: names and places of what it is about, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from microorm.dispatch.receivers import Connection, source_location
from microorm.instrumentation import ON_COMMIT, RECEIVER, SIGNAL, STATEMENT, STORE, Step
from microorm.messages import brief, brief_value
from microorm.tracing.names import name_of

MAX_SQL = 1000
"""How many characters of one statement are kept."""
MAX_PARAMETERS = 20
"""How many parameters of one row are kept."""
MAX_ROWS = 3
"""Of how many rows the parameters are kept, where a statement runs once for each of many."""


def describe(step: Step, *, parameters: bool) -> None:
    """Add to the details of *step* what its subject is; *parameters*: also the values that a statement is sent with."""
    details = step.details
    subject: Any = step.subject
    if step.kind == SIGNAL:
        details["signal"], details["sender"] = name_of(subject[0]), _sender(subject[1])
    elif step.kind == RECEIVER:
        details.update(_receiver(subject))
    elif step.kind == STORE:
        details["receivers"] = [_receiver(each) for each in subject]
    elif step.kind == ON_COMMIT:
        details.update(_function(subject))
    elif step.kind == STATEMENT:
        details["sql"] = shortened(details["sql"])
        if parameters and subject[1]:
            several = "many" in details
            details["parameters"] = _rows(subject[1]) if several else _values(subject[1])


def shortened(sql: Any) -> Any:
    """Return *sql* as it is kept, or None."""
    return sql if sql is None or len(sql) <= MAX_SQL else f"{sql[: MAX_SQL - 1]}…"


def _receiver(connection: Connection) -> dict[str, Any]:
    return {
        "receiver": connection.qualname,
        "module": connection.module,
        "file": connection.file,
        "line": connection.line,
        "delivery": connection.options.get("delivery", "immediate"),
    }


def _function(function: Any) -> dict[str, Any]:
    """Return what is known of a function that waited for a commit, which may be the call of a receiver."""
    connection = getattr(function, "connection", None)
    if isinstance(connection, Connection):
        return _receiver(connection)
    module, name, file, line = source_location(function)
    return {"function": name, "module": module, "file": file, "line": line}


def _sender(sender: Any) -> str | None:
    if sender is None:
        return None
    if not isinstance(sender, type):
        return brief(sender)
    schema = vars(sender).get("__schema__")
    return sender.__qualname__ if schema is None else str(schema.label)


def _rows(rows: Sequence[Any]) -> list[Any]:
    return [_values(row) for row in islice(rows, MAX_ROWS)]


def _values(row: Any) -> Any:
    if isinstance(row, Mapping):
        return {name: brief_value(value) for name, value in islice(row.items(), MAX_PARAMETERS)}
    shown = [brief_value(value) for value in islice(row, MAX_PARAMETERS)]
    return shown if len(row) <= MAX_PARAMETERS else [*shown, f"… {len(row) - MAX_PARAMETERS} more"]
