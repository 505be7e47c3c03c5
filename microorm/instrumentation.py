"""Steps: what the program does that can be watched, such as saves, statements and receivers. Standard library only.

While nothing is watched, `watchers` is empty, and a step costs the test of it. Otherwise each step is a `Step`: it knows the
step in which it happens, which a context variable holds. So threads and tasks do not mix up their steps, and a task begins
in the step that has started it.

`Token.reset` is not used, since a generator may be closed in another context than the one it was started in. A step that
has ended is skipped instead, when the step around the next one is looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from time import perf_counter_ns
from typing import Any, Final, Self, TypeVar
from weakref import ReferenceType, ref

from microorm.messages import printable

T = TypeVar("T")

TRACE: Final = "trace"
SAVE: Final = "save"
DELETE: Final = "delete"
UPDATE: Final = "update"
BULK_CREATE: Final = "bulk_create"
BULK_UPDATE: Final = "bulk_update"
QUERY: Final = "query"
SIGNAL: Final = "signal"
RECEIVER: Final = "receiver"
STORE: Final = "store"
ON_COMMIT: Final = "on_commit"
STATEMENT: Final = "statement"
TRANSACTION: Final = "transaction"

MAX_ERROR = 300
"""How many characters of the message of an error are kept."""


class Step:
    """One thing that the program does, with the steps inside it.

    *kind*: one of the constants above. *details*: what is known, as plain values. *subject*: the objects that it is about,
    for the watchers; they are dropped at its end. *children*: the steps inside it that were recorded, in order. *left_out*:
    how many were not, since the trace was full. *started*, *ended*: in nanoseconds, by a clock that is not that of the day;
    *ended* is 0 until the end. *error*: class and message of the error that has left it.

    *around*: the step in which it happens. *trace*: what records it. *place*: the innermost step, this one or one around it,
    that is recorded.
    """

    __slots__ = (
        "__weakref__",
        "around",
        "children",
        "details",
        "ended",
        "error",
        "kind",
        "left_out",
        "place",
        "started",
        "subject",
        "trace",
    )

    def __init__(self, kind: str, subject: Any = None, /, **details: Any) -> None:
        self.kind = kind
        self.subject: Any = subject
        self.details: dict[str, Any] = details
        self.children: list[Step] = []
        self.left_out = 0
        self.started = self.ended = 0
        self.error: str | None = None
        self.around: Step | None = None
        self.trace: Any = None
        self.place: Step | None = None

    def __repr__(self) -> str:
        return f"<Step {self.kind} {self.details}>"

    @property
    def seconds(self) -> float:
        """How long it has taken; 0 until it has ended."""
        return max(0, self.ended - self.started) / 1e9

    def begin(self) -> Self:
        """Begin inside the innermost step of this context, and call the watchers. Raises what they raise."""
        around = self.around = innermost()
        if around is not None:
            self.trace, self.place = around.trace, around.place
        self.started = perf_counter_ns()
        try:
            for watch in tuple(watchers):
                watch(self)
        except BaseException as error:
            self.end(error)
            raise
        _current.set(self)
        self.started = perf_counter_ns()
        return self

    def end(self, error: BaseException | None = None) -> None:
        """End; *error* is what has left the step."""
        self.ended = perf_counter_ns()
        if error is not None:
            self.error = described(error)
        self.subject = None
        step = _current.get()
        while step is not None and step is not self:
            step = step.around  # one that an interrupt has left open
        if step is self:
            _current.set(self.around)
        if self.kind is STATEMENT:
            _statement.set(ref(self))

    def __enter__(self) -> Self:
        return self.begin()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.end(error)


def transaction_step(alias: str, sql: str) -> Step:
    """Return the step in which a transaction or a savepoint begins or ends on *alias*."""
    return Step(TRANSACTION, alias=alias, sql=sql)


Watcher = Callable[[Step], object]

watchers: list[Watcher] = []
"""What is called as each step begins, in any thread; empty while nothing is watched."""

exceptions: set[object] = set()
"""Whatever a signal has to look at before it calls plain receivers: watchers, and the `muted` blocks that are open."""

before_watching: list[Callable[[], object]] = []
"""What is called before a watcher is added."""

NOTHING: Final[AbstractContextManager[None]] = nullcontext()
"""What a step is while nothing is watched, where it need not be fast: `with Step(…) if watchers else NOTHING:`."""

_current: ContextVar[Step | None] = ContextVar("microorm_step", default=None)
_statement: ContextVar[ReferenceType[Step] | None] = ContextVar("microorm_statement", default=None)


def add_watcher(watcher: Watcher) -> None:
    """Call *watcher* with each step that begins from now on, in any thread. What it raises comes out of the step."""
    for prepare in before_watching:
        prepare()
    watchers.append(watcher)
    exceptions.add(watcher)


def remove_watcher(watcher: Watcher) -> None:
    """Stop calling *watcher*."""
    watchers.remove(watcher)
    exceptions.discard(watcher)


def innermost() -> Step | None:
    """Return the innermost step of this context that has not ended, or None."""
    step = _current.get()
    while step is not None and step.ended:
        step = step.around
    return step


def note(**details: Any) -> None:
    """Add *details* to the innermost step, if there is one."""
    if (step := innermost()) is not None:
        step.details.update(details)


def note_rows(count: int) -> None:
    """Note how many rows the last statement of this context has returned; reading them was a part of it.

    What the driver has said before stays: the rows may be those of several statements, of which this is the last.
    """
    reference = _statement.get()
    if reference is not None and (step := reference()) is not None:
        step.details["rows"] = step.details.get("rows") or count
        step.ended = perf_counter_ns()


def described(error: BaseException) -> str:
    """Return the class of *error* and the first line of its message, cut."""
    try:
        lines = str(error).splitlines()
    except Exception as broken:  # noqa: BLE001 a broken __str__ must not hide the error
        lines = [f"<unprintable: {type(broken).__name__}>"]
    name = type(error).__name__
    text = f"{name}: {printable(lines[0])}" if lines and lines[0] else name
    return text if len(text) <= MAX_ERROR else f"{text[: MAX_ERROR - 1]}…"


async def separately(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await *coroutine*, whose steps are inside the innermost one, beside others that run in the same context."""
    result: T = await _Separate(coroutine)
    return result


class _Separate:
    """Awaits a coroutine, and puts its innermost step in place whenever it goes on."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._coroutine.__await__()
        own, value, error = _current.get(), None, None
        while True:
            others = _current.get()
            _current.set(own)
            try:
                awaited = steps.send(value) if error is None else steps.throw(error)
            except StopIteration as done:
                return done.value
            finally:
                value = error = None  # its traceback refers to this frame
                own = _current.get()
                _current.set(others)
            try:
                value, error = (yield awaited), None
            except BaseException as thrown:  # noqa: BLE001 raised in the coroutine
                value, error = None, thrown
