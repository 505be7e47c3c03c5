"""The writes of models as steps, for those that watch: see `microorm.instrumentation`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from microorm.instrumentation import Step, watchers
from microorm.mapping.schema import Schema
from microorm.messages import brief

P = ParamSpec("P")
R = TypeVar("R")


def as_step(kind: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a write, so that it is a step of *kind*. Its first argument is a schema, an instance or a query."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def write(*args: P.args, **named: P.kwargs) -> R:
            if not watchers:
                return function(*args, **named)
            subject: Any = args[0]
            with Step(kind, model=_schema(subject).label, **_key(subject)) as begun:
                result = function(*args, **named)
                begun.details["rows"] = _count(result)
            return result

        return write

    return decorate


def note_saved(begun: Step, instance: Any) -> None:
    """Note the key of *instance* in the step of its save, and its alias."""
    begun.details.update(_key(instance))
    if (alias := instance._row_state.alias) is not None:
        begun.details["alias"] = alias


def _schema(subject: Any) -> Schema:
    if isinstance(subject, Schema):
        return subject
    schema: Schema = subject.__schema__ if hasattr(subject, "__schema__") else subject._schema
    return schema


def _key(subject: Any) -> dict[str, Any]:
    """Return the key of an instance as a detail, unless it has none."""
    if not hasattr(subject, "_row_state"):
        return {}
    values = subject.__dict__
    key = {name: values.get(name) for name in _schema(subject).key_names}
    if None in key.values():
        return {}
    return {
        "key": {name: value if type(value) in (int, str) else _text(value) for name, value in key.items()}
    }


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 a broken __str__ must not stop a write
        return brief(value)


def _count(result: Any) -> int:
    """Return how many rows a write has changed: it returns their number, a pair that begins with it, or the instances."""
    if isinstance(result, int):
        return result
    return len(result) if isinstance(result, list) else int(result[0])
