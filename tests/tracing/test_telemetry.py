"""Spans of OpenTelemetry: one for each step, inside the span of the step around it, with its times."""

import subprocess
import sys
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from microorm import Databases, Field, Registry, receiver
from microorm.signals import post_save
from microorm.tracing import Step, Trace, trace
from microorm.tracing.telemetry import export_spans

pytestmark = pytest.mark.backends("sqlite-memory")


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Any:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("test")


@pytest.fixture
def traced(Base: Any, registry: Registry) -> Trace:
    """A save whose receiver saves as well, and another that fails."""

    class Entry(Base):
        text: Field[str]

    class Book(Base):
        title: Field[str]

    @receiver(post_save, sender=Book)
    def note(instance: Any, **kwargs: Any) -> None:
        Entry(text=instance.title).save()
        if instance.title == "bad":
            raise LookupError("no such shelf")

    registry.create_all()
    with trace() as t:
        Book(title="a").save()
        with pytest.raises(LookupError):
            Book(title="bad").save()
    return t


def test_spans_have_the_parents_and_the_times_of_their_steps(
    traced: Trace, tracer: Any, exporter: InMemorySpanExporter
) -> None:
    with tracer.start_as_current_span("request"):
        export_spans(traced, tracer)
    *spans, request = exporter.get_finished_spans()
    steps = list(traced.walk())
    assert len(spans) == len(steps)
    by_start = {(span.start_time, span.attributes["microorm.title"]): span for span in spans}

    def check(step: Step, around: ReadableSpan) -> None:
        span = next(s for (start, _), s in by_start.items() if start == traced.moment(step))
        assert span.parent is not None
        assert span.parent.span_id == around.context.span_id
        assert span.context.trace_id == request.context.trace_id
        assert span.end_time is not None
        assert span.start_time is not None
        assert span.end_time - span.start_time == step.ended - step.started
        for child in step.children:
            check(child, span)

    for step in traced.steps:
        check(step, request)


def test_spans_say_what_they_are(traced: Trace, tracer: Any, exporter: InMemorySpanExporter) -> None:
    export_spans(traced, tracer)
    spans = exporter.get_finished_spans()
    label = traced.steps[0].details["model"]
    assert spans[0].name == f"save {label}"
    assert spans[0].parent is None
    insert = next(span for span in spans if span.name == "INSERT default")
    assert insert.kind is SpanKind.CLIENT
    assert insert.attributes is not None
    assert insert.attributes["db.query.text"] == "INSERT INTO book (title) VALUES (?)"
    assert insert.attributes["db.response.returned_rows"] == 1
    assert insert.attributes["microorm.alias"] == "default"
    receiver = next(span for span in spans if span.name.startswith("receiver "))
    assert receiver.attributes is not None
    assert receiver.attributes["code.file.path"] == __file__
    failed = [span for span in spans if span.status.status_code is StatusCode.ERROR]
    assert [span.name.split()[0] for span in failed] == ["save", "signal", "receiver"]
    assert failed[0].attributes is not None
    assert failed[0].attributes["error.type"] == "LookupError"
    assert failed[0].status.description == "LookupError: no such shelf"


def test_a_statement_without_a_word_has_a_span(
    databases: Databases, tracer: Any, exporter: InMemorySpanExporter
) -> None:
    with trace() as t, databases.connection() as connection:
        connection.exec_driver_sql(" ")
    export_spans(t, tracer)
    assert [span.name for span in exporter.get_finished_spans()] == ["statement default"]


def test_a_step_that_has_not_ended_ends_with_the_trace(tracer: Any, exporter: InMemorySpanExporter) -> None:
    with trace() as t:
        Step("save", model="shop.Book").begin()
    export_spans(t, tracer)
    (span,) = exporter.get_finished_spans()
    assert span.end_time == t.ended


@pytest.mark.slow
def test_without_opentelemetry_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import microorm.tracing\n"
        "try:\n    import microorm.tracing.telemetry\n"
        "except ModuleNotFoundError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "spans need OpenTelemetry: pip install 'microorm[opentelemetry]'\n"


@pytest.mark.slow
def test_neither_rich_nor_opentelemetry_is_loaded_before_it_is_used() -> None:
    code = (
        "import sys, microorm, microorm.tracing\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('rich', 'opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
