"""What a piece of code does, as a tree: saves, signals, receivers, statements, transactions. See `trace`."""

from microorm.instrumentation import Step
from microorm.tracing.tracer import Trace, trace

__all__ = ["Step", "Trace", "trace"]
