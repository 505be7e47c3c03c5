"""Traces: which steps belong to them, what they keep, and how they are printed."""

import asyncio
import gc
import json
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from microorm import Databases, Field, ForeignKey, Registry, Signal, field, foreign_key, receiver
from microorm.instrumentation import Step, innermost, watchers
from microorm.signals import post_save
from microorm.testing import count_statements
from microorm.tracing import Trace, trace
from microorm.tracing.subjects import MAX_SQL

pytestmark = pytest.mark.backends("sqlite-memory")

told = Signal(("number",))


@pytest.fixture
def Book(Base: Any, registry: Registry) -> Iterator[Any]:
    class Book(Base):
        title: Field[str]

    registry.create_all()
    yield Book
    assert watchers == []
    assert innermost() is None


def sent(t: Trace) -> list[str]:
    return [step.details["sql"].split()[0] for step in t.find("statement")]


def shown(t: Trace) -> list[str]:
    """The lines of the printed tree without guides and places."""
    return [line.lstrip("│├└─ ").partition(" at ")[0] for line in str(t).splitlines()]


def printed(t: Trace) -> str:
    """The tree as it is printed on a wide terminal."""
    file = StringIO()
    t.print(Console(width=200, file=file))
    return file.getvalue()


def test_other_threads_are_not_in_a_trace(Book: Any) -> None:
    with trace() as t:
        thread = threading.Thread(target=lambda: Book(title="a").save())
        thread.start()
        thread.join()
    assert t.steps == []
    assert Book.objects.count() == 1


def test_a_thread_that_runs_in_a_copied_context_is(Book: Any) -> None:
    async def main() -> None:
        await asyncio.to_thread(lambda: Book(title="a").save())

    with trace() as t:
        asyncio.run(main())
    assert sent(t) == ["INSERT"]


def test_tasks_that_run_at_once_do_not_mix_their_trees(Book: Any) -> None:
    """Each in a trace of its own, and all in one around them."""

    @receiver(post_save, sender=Book)
    async def slow(instance: Any, **kwargs: Any) -> None:
        await asyncio.sleep(0)
        await Book.objects.filter(title=instance.title).acount()
        await asyncio.sleep(0)

    async def save(title: str) -> Trace:
        with trace() as own:
            await Book(title=title).asave()
            await asyncio.sleep(0)
            await Book.objects.aget(title=title)
        return own

    async def main() -> list[Trace]:
        await Book.objects.adelete()
        return [*await asyncio.gather(*[save(f"book {number}") for number in range(5)])]

    with trace(max_steps=3) as t:
        traces = asyncio.run(main())
    for own in traces:
        assert [step.kind for step in own.steps] == ["save", "query"]
        assert [step.kind for step in own.walk()] == [
            "save", "transaction", "statement", "signal", "receiver", "query", "statement", "transaction",
            "query", "statement",
        ]  # fmt: skip
        assert sent(own) == ["INSERT", "SELECT", "SELECT"]
    assert [step.kind for step in t.steps] == ["delete", "trace"]  # and the statement of the first
    assert t.left_out == 4


def test_receivers_that_run_at_once_do_not_mix_their_trees(Book: Any) -> None:
    """Those of one signal share their context variables."""

    async def count(times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(0)
            await Book.objects.acount()
            await asyncio.create_task(Book.objects.aget_or_create(title="a"))  # type: ignore[arg-type]

    async def once(**kwargs: Any) -> None:
        await count(1)

    async def twice(**kwargs: Any) -> None:
        await count(2)
        raise LookupError

    async def main() -> None:
        await Book(title="a").asave()
        with trace() as t:
            await told.asend_robust(sender=None, number=1)
        found.append(t)

    found: list[Trace] = []
    for each in (once, twice):
        told.connect(each)
    try:
        asyncio.run(main())
    finally:
        for each in (once, twice):
            told.disconnect(each)
    (signal,) = found[0].steps
    kinds = {
        step.details["receiver"].rpartition(".")[2]: [c.kind for c in step.children]
        for step in signal.children
    }
    assert kinds == {"once": ["query"] * 2, "twice": ["query"] * 4}
    assert [step.error for step in signal.children] == [None, "LookupError"]


def test_a_task_that_outlives_a_step_is_in_the_one_around(Book: Any) -> None:
    started: list[asyncio.Task[Any]] = []
    go_on = asyncio.Event()

    @receiver(post_save, sender=Book)
    async def start(**kwargs: Any) -> None:
        started.append(asyncio.create_task(later()))

    async def later() -> None:
        await go_on.wait()
        await Book.objects.acount()

    async def main() -> Trace:
        with trace() as t:
            await Book(title="a").asave()
            go_on.set()
            await started[0]
            go_on.clear()
            await Book(title="b").asave()
        go_on.set()
        await started[1]
        return t

    t = asyncio.run(main())
    assert [step.kind for step in t.steps] == ["save", "query", "save"]
    assert sent(t) == ["INSERT", "SELECT", "INSERT"]


def test_a_trace_in_a_trace_is_a_step_of_it(Book: Any) -> None:
    with trace() as outer:
        Book(title="a").save()
        with trace() as inner:
            Book(title="b").save()
        Book(title="c").save()
    assert [step.kind for step in outer.steps] == ["save", "trace", "save"]
    assert outer.steps[1].children == inner.steps
    assert sent(outer) == ["INSERT"] * 3


def test_statements_are_counted_and_traced_at_once(Book: Any, databases: Databases) -> None:
    with count_statements("default", databases) as counted, trace() as t:
        Book(title="a").save()
        Book.objects.get()
    assert counted.statements == [step.details["sql"] for step in t.find("statement")]


def test_other_aliases_and_the_connections_of_the_program_are_seen(Book: Any, databases: Databases) -> None:
    with trace(parameters=True) as t:
        with databases.connection("other") as connection:
            connection.exec_driver_sql("SELECT ?", (7,)).all()
    (statement,) = t.find("statement")
    assert statement.details == {"alias": "other", "sql": "SELECT ?", "parameters": ["7"]}


def test_prefetched_rows_are_in_the_query_that_has_asked_for_them(Base: Any, registry: Registry) -> None:
    class Author(Base):
        name: Field[str]

    class Novel(Base):
        author: ForeignKey[Author] = foreign_key()

    registry.create_all()
    Novel(author=Author(name="a").save()).save()
    with trace() as t:
        Novel.objects.prefetch_related(Novel.author).all()
    (query,) = t.steps
    assert [step.kind for step in query.children].count("statement") >= 1
    assert len(sent(t)) == 2


def test_nothing_that_was_saved_is_kept_alive(Book: Any) -> None:
    class Thing:
        """A sender and a value that is no model."""

    @receiver(post_save, sender=Book, delivery="on_commit")
    def later(instance: Any, **kwargs: Any) -> None: ...

    thing = Thing()
    told.connect(later_told := lambda **kwargs: None)
    with trace(parameters=True) as t:
        book = Book(title="a").save()
        told.send(sender=thing, number=thing)
        with pytest.raises(LookupError):
            raise LookupError(book)
        dead = [weakref.ref(book), weakref.ref(thing)]
        del book, thing
        gc.collect()
        assert [each() for each in dead] == [None, None]
    del later_told
    assert "Thing" in t.find("signal")[-1].details["sender"]
    assert all(step.subject is None for step in t.walk())


def test_an_error_is_kept_as_text(Book: Any) -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    errors = [Broken(), LookupError("x" * 1000), ValueError("first\nsecond"), KeyError()]
    with trace() as t:
        for error in errors:
            with suppress(type(error)), Step("save", model="shop.Book"):
                raise error
    broken, long, several, empty = [step.error or "" for step in t.steps]
    assert broken == "Broken: <unprintable: RuntimeError>"
    assert long.startswith("LookupError: xxx")
    assert len(long) == 300
    assert (several, empty) == ("ValueError: first", "KeyError")
    assert str(t).splitlines()[-1] == "└── save shop.Book  raised KeyError"


def test_an_error_of_a_robust_send_is_at_its_receiver_alone(Book: Any) -> None:
    def fail(**kwargs: Any) -> None:
        raise LookupError

    told.connect(fail)
    with trace() as t:
        told.send_robust(sender=None, number=1)
    told.disconnect(fail)
    assert [step.error for step in t.walk()] == [None, "LookupError"]


def test_a_long_statement_is_cut(Book: Any, databases: Databases) -> None:
    with trace() as t, databases.connection() as connection:
        connection.exec_driver_sql(f"SELECT '{'x' * 5000}'").all()
    (statement,) = t.find("statement")
    assert len(statement.details["sql"]) == MAX_SQL
    assert statement.details["sql"].endswith("x…")


def test_a_function_without_a_file_is_shown_by_its_module(Book: Any, databases: Databases) -> None:
    with trace() as t, databases.atomic():
        databases.on_commit(dict)
    assert str(t).splitlines()[-1] == "└── after the commit: function dict at builtins"


def test_a_signal_of_the_program_is_named_by_its_module(Book: Any) -> None:
    told.connect(heard := lambda **kwargs: None)
    with trace() as t:
        told.send(sender=Book, number=1)
    del heard
    assert t.steps[0].details["signal"].endswith("test_trace.told")
    assert t.steps[0].details["sender"] == Book.__schema__.label


def test_a_signal_that_no_module_has_is_shown_without_a_name(Book: Any) -> None:
    signal = Signal()
    signal.connect(heard := lambda **kwargs: None)
    with trace() as t:
        signal.send(sender="the till")
    assert shown(t)[1] == "signal (without a name) of 'the till'"
    del heard


def test_the_tree_is_printed_with_times_and_as_text_without(Book: Any) -> None:
    with trace() as t:
        Book(title="a").save()
        Book.objects.get()
    label = Book.__schema__.label
    assert str(t) == (
        "trace\n"
        f"├── save {label} id=1 on default\n"
        "│   └── default: INSERT INTO book (title) VALUES (?)  (1 row)\n"
        f"└── query {label}  (1 row)\n"
        "    └── default: SELECT book.id, book.title FROM book LIMIT ? OFFSET ?  (1 row)"
    )
    assert printed(t).count(" ms") == 5
    t.print(console := Console(width=200, file=StringIO()), times=False)
    assert isinstance(console.file, StringIO)
    assert console.file.getvalue().split("\n") == [*str(t).split("\n"), ""]
    assert repr(t) == "<Trace of 4 steps>"


def test_a_tree_is_printed_while_it_grows(Book: Any) -> None:
    with trace() as t:
        Book(title="a").save()
        assert "INSERT" in str(t)
        assert t.seconds == 0
        assert t.to_dict()["seconds"] == 0


def test_json_has_everything_that_is_known(Book: Any) -> None:
    with trace() as t:
        Book(title="a").save()
    made = json.loads(t.to_json())
    assert made == json.loads(json.dumps(t.to_dict()))
    (save,) = made["steps"]
    assert save["kind"] == "save"
    assert save["key"] == {"id": 1}
    (statement,) = save["steps"]
    assert statement["sql"].startswith("INSERT")
    assert statement["rows"] == 1
    assert 0 <= save["at"] <= statement["at"]
    assert statement["seconds"] <= save["seconds"] <= made["seconds"]
    assert made["began"].endswith("+00:00")


def test_a_tree_has_one_line_for_each_step_whatever_their_texts_are(
    Base: Any, registry: Registry, databases: Databases
) -> None:
    """A key, an error or a comment in SQL cannot forge lines or steer the terminal, and any of them can be written as UTF-8."""

    class Note(Base):
        key: Field[str] = field(primary_key=True, max_length=80)

    registry.create_all()
    hostile = "a\n└── b\x1b[2J\u202e"
    with trace() as t:
        Note(key=hostile).save(force_insert=True)
        with databases.connection() as connection:
            connection.exec_driver_sql("SELECT '\x1b[2J' -- \u202e")
        with suppress(ValueError), Step("save", model="shop.Note"):
            raise ValueError("\x1b[2J \udcff")
        with suppress(ValueError), Step("delete", model="shop.Note", key={"key": "\udcff"}):
            raise ValueError
    lines = str(t).splitlines()
    assert len(lines) == 1 + len(list(t.walk()))
    assert lines[1] == r"├── save Note key=a\n└── b\x1b[2J\u202e on default".replace(
        "Note", Note.__schema__.label
    )
    assert lines[-2:] == [
        r"├── save shop.Note  raised ValueError: \x1b[2J \udcff",
        r"└── delete shop.Note key=\udcff  raised ValueError",
    ]
    assert all(line.isprintable() for line in lines)
    assert json.loads(t.to_json().encode())["steps"][0]["key"] == {"key": hostile}
    assert json.loads(t.to_json().encode())["steps"][-1]["key"] == {"key": "\udcff"}


def test_a_trace_is_of_one_block(Book: Any) -> None:
    with trace() as t:
        pass
    with pytest.raises(RuntimeError, match="call trace"), t:
        pass
    for bad in (0, -1, True, "10"):
        with pytest.raises(ValueError, match="max_steps= must be a positive int"):
            trace(max_steps=bad)  # type: ignore[arg-type]


def test_an_interrupted_step_does_not_swallow_those_after_it(Book: Any) -> None:
    """Such as a statement whose task is cancelled, of which nothing tells."""
    with trace() as t:
        with Step("save"):
            Step("statement", (None, None), alias="default", sql="SELECT").begin()
        Book(title="a").save()
    assert [step.kind for step in t.steps] == ["save", "save"]
    assert "not ended" in printed(t)


async def _enter(t: Trace) -> None:
    t.__enter__()


def test_a_trace_is_ended_in_any_context(Book: Any) -> None:
    """A generator may be closed in another one than it was started in."""
    t = trace()
    asyncio.run(_enter(t))
    Book(title="a").save()
    t.__exit__(None, None, None)
    assert t.steps == []


@pytest.mark.backends("postgresql")
def test_a_statement_that_is_cancelled_does_not_swallow_those_after_it(Book: Any) -> None:
    async def main() -> None:
        await Book(title="a").asave()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await Book.objects.araw("SELECT id, title FROM book WHERE pg_sleep(5) IS NOT NULL")
        await Book.objects.acount()

    with trace() as t:
        asyncio.run(main())
    assert [step.kind for step in t.steps] == ["save", "query", "query"]
    assert [step.error is None for step in t.find("statement")] == [True, False, True]
    assert all(step.ended for step in t.walk())
