"""Traces as spans of OpenTelemetry, with the extra `opentelemetry`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from microorm.instrumentation import STATEMENT, TRANSACTION, Step
from microorm.tracing.printing import title
from microorm.tracing.tracer import Trace

try:
    from opentelemetry.context import Context
    from opentelemetry.trace import (
        Span,
        SpanKind,
        Status,
        StatusCode,
        Tracer,
        get_tracer,
        set_span_in_context,
    )
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "spans need OpenTelemetry: pip install 'microorm[opentelemetry]'", name=error.name
    ) from error

__all__ = ["export_spans"]

_ATTRIBUTES: Mapping[str, str] = {
    "sql": "db.query.text",
    "rows": "db.response.returned_rows",
    "many": "db.operation.batch.size",
    "file": "code.file.path",
    "line": "code.line.number",
    "receiver": "code.function.name",
    "function": "code.function.name",
}
"""The details that have a name in OpenTelemetry's conventions; others are called `microorm.…`."""


def export_spans(trace: Trace, tracer: Tracer | None = None, context: Context | None = None) -> None:
    """Make a span of each step of *trace*, with its times, inside the span of the step around it.

    *tracer*: by default that of the name `microorm` from the global provider. *context*: what the outermost spans are in; by
    default the current one, so call it inside the span of the request. Call it after the block of the trace: steps that have
    not ended end where it has.
    """
    tracer = get_tracer("microorm") if tracer is None else tracer
    last = trace.ended
    waiting: list[tuple[Step, Context | None]] = [(step, context) for step in trace.steps]
    for step, around in waiting:
        span = tracer.start_span(
            _name(step),
            around,
            kind=SpanKind.CLIENT if step.kind in (STATEMENT, TRANSACTION) else SpanKind.INTERNAL,
            attributes=_attributes(step),
            start_time=trace.moment(step),
        )
        if step.error is not None:
            _fail(span, step.error)
        inside = set_span_in_context(span, around)
        waiting += [(child, inside) for child in step.children]
        span.end(trace.moment(step) + (step.ended - step.started) if step.ended else last)


def _name(step: Step) -> str:
    """Return a name without values, by which spans are grouped."""
    details = step.details
    if step.kind in (STATEMENT, TRANSACTION):
        words = details["sql"].split(maxsplit=1)
        return f"{words[0] if words else 'statement'} {details['alias']}"
    for key in ("model", "signal", "receiver", "function"):
        if key in details:
            return f"{step.kind} {details[key]}"
    return step.kind


def _fail(span: Span, error: str) -> None:
    span.set_status(Status(StatusCode.ERROR, error))
    span.set_attribute("error.type", error.partition(":")[0])


def _attributes(step: Step) -> dict[str, Any]:
    attributes: dict[str, Any] = {"microorm.kind": step.kind, "microorm.title": title(step)}
    for name, value in step.details.items():
        if value is None:
            continue
        known = _ATTRIBUTES.get(name, f"microorm.{name}")
        attributes[known] = value if isinstance(value, (str, int)) else str(value)
    return attributes
