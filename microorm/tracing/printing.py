"""Traces on a terminal, and as text."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from microorm.instrumentation import ON_COMMIT, RECEIVER, SIGNAL, STATEMENT, STORE, TRACE, TRANSACTION, Step
from microorm.messages import printable

if TYPE_CHECKING:
    from microorm.tracing.tracer import Trace

_WIDTH = 100_000  # no line of a text is broken
_STYLES = {
    SIGNAL: "magenta",
    RECEIVER: "green",
    ON_COMMIT: "green",
    STORE: "green",
    TRANSACTION: "blue",
    STATEMENT: "",
}


def text(trace: Trace) -> str:
    """Return the tree as text, without times."""
    written = StringIO()
    console = Console(
        file=written, width=_WIDTH, color_system=None, force_terminal=False, legacy_windows=False
    )
    console.print(tree(trace, times=False))
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines())


def tree(trace: Trace, *, times: bool = True) -> Tree:
    """Return the tree for rich."""
    return _tree(trace._root, times=times)


def _tree(step: Step, *, times: bool) -> Tree:
    made = Tree(_label(step, times=times))
    waiting = [(step, made)]
    while waiting:
        step, branch = waiting.pop()
        waiting += [(child, branch.add(_label(child, times=times))) for child in tuple(step.children)]
        if step.left_out:
            branch.add(Text(f"… {_counted(step.left_out, 'more step')}", style="dim"))
    return made


def _label(step: Step, *, times: bool) -> Text:
    label = Text(title(step), style=_STYLES.get(step.kind, "bold"))
    if step.error is not None:
        label.append(f"  raised {step.error}", style="bold red")
    if times and step.ended:
        label.append(f"  {step.seconds * 1000:.2f} ms", style="dim")
    elif times and step.started:
        label.append("  not ended", style="dim")
    return label


def title(step: Step) -> str:
    """Return one line that says what *step* does, without its error and its time.

    It can have text from anywhere, such as a key or a comment in the SQL.
    """
    return printable(_title(step))


def _title(step: Step) -> str:
    details = step.details
    if step.kind == TRACE:
        return "trace"
    if step.kind == SIGNAL:
        sender = details.get("sender")
        of = "" if sender is None else f" of {sender}"
        return f"signal {details.get('signal') or '(without a name)'}{of}{', muted' if 'muted' in details else ''}"
    if step.kind == STORE:
        return "stored for " + ", ".join(
            f"{each['receiver']} at {_place(each)}" for each in details["receivers"]
        )
    if step.kind in (RECEIVER, ON_COMMIT):
        return _called(step.kind, details)
    alias = details.get("alias")
    if step.kind in (STATEMENT, TRANSACTION):
        return f"{alias}: {' '.join(details['sql'].split())}{_result(details)}"
    key = "".join(f" {name}={value}" for name, value in details.get("key", {}).items())
    return (
        f"{step.kind} {details.get('model')}{key}{'' if alias is None else f' on {alias}'}{_result(details)}"
    )


def _called(kind: str, details: Mapping[str, Any]) -> str:
    what = f"receiver {details['receiver']}" if "receiver" in details else f"function {details['function']}"
    if kind == ON_COMMIT:
        return f"after the commit: {what} at {_place(details)}"
    return f"{what} at {_place(details)}{', waits for the commit' if 'waits' in details else ''}"


def _result(details: Mapping[str, Any]) -> str:
    parts = []
    if "many" in details:
        parts.append(f"for {_counted(details['many'], 'row')}")
    elif "rows" in details:
        parts.append(_counted(details["rows"], "row"))
    if "parameters" in details:
        parts.append(f"with {_parameters(details['parameters'])}")
    return f"  ({', '.join(parts)})" if parts else ""


def _parameters(given: Any) -> str:
    if isinstance(given, Mapping):
        return ", ".join(f"{name}={value}" for name, value in given.items())
    if given and not isinstance(given[0], str):
        return "; ".join(map(_parameters, given))
    return ", ".join(given)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _place(details: Mapping[str, Any]) -> str:
    """Return file and line; the file as it is seen from the working directory, or the module where there is no file."""
    if not details["file"]:
        return str(details["module"])
    path, here = Path(details["file"]), Path.cwd()
    shown = path.relative_to(here) if path.is_relative_to(here) else path
    return f"{shown}:{details['line']}"
