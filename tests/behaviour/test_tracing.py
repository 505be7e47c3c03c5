"""Traces: the tree of what a piece of code does is the same on every database, and on whatever way statements go."""

from typing import Any

import pytest

from microorm import AfterCommitError, Field, InvalidValue, field
from microorm.dispatch import muted
from microorm.instrumentation import Step
from microorm.signals import post_bulk_create, post_delete, post_save, pre_save
from microorm.tracing import Trace, trace

Outline = list[Any]


@pytest.fixture
def Book(Base: Any, registry: Any, way: str) -> Any:
    class Book(Base):
        title: Field[str] = field(max_length=20)

    class Entry(Base):
        text: Field[str] = field(max_length=20)

    registry.create_all()
    return Book


@pytest.fixture
def Entry(Book: Any, registry: Any) -> Any:
    return registry.models[Book.__schema__.label.replace("Book", "Entry")]


@pytest.fixture
def connect() -> Any:
    """Connect receivers that are disconnected after the test."""
    connected: list[tuple[Any, Any, Any]] = []

    def connect(signal: Any, function: Any, sender: Any, **options: Any) -> None:
        signal.connect(function, sender=sender, weak=False, **options)
        connected.append((signal, function, sender))

    yield connect
    for signal, function, sender in connected:
        signal.disconnect(function, sender=sender)


def outline(found: Trace | Step) -> Outline:
    """The kinds and the first words of all steps; those that have steps inside are lists."""
    steps = found.steps if isinstance(found, Trace) else found.children
    return [[word(each), *outline(each)] if each.children else word(each) for each in steps]


def word(step: Step) -> str:
    details = step.details
    name = details.get("sql") or details.get("signal") or details.get("receiver") or details.get("function")
    text = step.kind if name is None else str(name).split(maxsplit=1)[0].rpartition(".")[2]
    if "delivery" in details and details["delivery"] != "immediate":
        text += f" {details['delivery']}{' waits' if 'waits' in details else ''}"
    return text + (f" {step.error.partition(':')[0]}" if step.error else "")


def test_a_save_is_a_tree_of_its_signals_receivers_and_statements(Book, Entry, connect):
    def note(instance: Any, **kwargs: Any) -> None:
        Entry(text=instance.title).save()

    def check(instance: Any, **kwargs: Any) -> None:
        Entry.objects.filter(text=instance.title).all()

    connect(pre_save, check, Book)
    connect(post_save, note, Book)
    with trace() as t:
        Book(title="a").save()
    assert outline(t) == [
        [
            "save",
            "BEGIN",
            ["pre_save", ["check", ["query", "SELECT"]]],
            "INSERT",
            ["post_save", ["note", ["save", "INSERT"]]],
            "COMMIT",
        ]
    ]
    (save,) = t.steps
    (note_step,) = [step for step in t.find("receiver") if "note" in step.details["receiver"]]
    assert save.details == {"model": Book.__schema__.label, "key": {"id": 1}, "alias": "default"}
    assert note_step.details["file"] == __file__
    assert note_step.details["line"] == note.__code__.co_firstlineno
    assert note_step.details["delivery"] == "immediate"
    assert all(step.ended >= step.started > 0 and step.error is None for step in t.walk())
    for step in t.walk():
        assert all(step.started <= child.started and child.ended <= step.ended for child in step.children)


def test_statements_have_their_alias_and_the_number_of_rows(Book, databases):
    with trace() as t:
        book = Book(title="a").save()
        Book(title="b").save(using="default")
        assert Book.objects.count() == 2
        assert len(Book.objects.order_by("id").all()) == 2
        assert not Book.objects.filter(title="c").exists()
        Book.objects.update(title="c")
        book.delete()
        assert Book.objects.using("default").get().title == "c"
    rows = [(step.details["alias"], step.details["rows"]) for step in t.find("statement")]
    assert rows == [("default", number) for number in (1, 1, 1, 2, 1, 2, 1, 1)]
    assert [step.details.get("rows") for step in t.find("query", "update", "delete")] == [
        None,
        2,
        None,
        2,
        1,
        1,
    ]


def test_blocks_are_seen_to_begin_and_to_end(Book, databases):
    with trace() as t:
        with databases.atomic():
            Book(title="a").save()
            with databases.atomic():
                Book(title="b").save()
            with pytest.raises(LookupError):
                with databases.atomic():
                    Book(title="c").save()
                    raise LookupError
        with pytest.raises(LookupError):
            with databases.atomic():
                Book(title="d").save()
                raise LookupError
        with databases.atomic(readonly=True):
            Book.objects.all()
    sent = [step.details["sql"] for step in t.find("transaction")]
    assert sent == [
        "BEGIN",
        "SAVEPOINT microorm_1",
        "RELEASE SAVEPOINT microorm_1",
        "SAVEPOINT microorm_1",
        "ROLLBACK TO SAVEPOINT microorm_1",
        "COMMIT",
        "BEGIN",
        "ROLLBACK",
        "BEGIN READ ONLY",
        "COMMIT",
    ]
    assert {step.details["alias"] for step in t.find("transaction")} == {"default"}
    assert [word(step) for step in t.find("statement")] == ["INSERT"] * 4 + ["SELECT"]


def test_what_waits_for_the_commit_is_shown_where_it_is_sent_and_where_it_runs(
    Book, Entry, connect, databases
):
    def mail(instance: Any, **kwargs: Any) -> None:
        Entry(text=instance.title).save()

    connect(post_save, mail, Book, delivery="on_commit")
    with trace() as t:
        with databases.atomic():
            Book(title="a").save()
            databases.on_commit(lambda: Entry(text="b").save())
        Book(title="c").save()
    mail_step, function = "mail on_commit", "<lambda>"
    assert outline(t) == [
        "BEGIN",
        ["save", "INSERT", ["post_save", "mail on_commit waits"]],
        "COMMIT",
        [mail_step, ["save", "INSERT"]],
        [function, ["save", "INSERT"]],
        ["save", "INSERT", ["post_save", "mail on_commit waits"], [mail_step, ["save", "INSERT"]]],
    ]
    assert all(step.details["file"] == __file__ for step in t.find("on_commit", "receiver"))


def test_an_error_is_shown_at_each_step_that_it_has_left(Book, Entry, connect):
    def refuse(instance: Any, **kwargs: Any) -> None:
        Entry(text="a").save()
        raise LookupError("no such shelf")

    connect(post_save, refuse, Book)
    with pytest.raises(LookupError), trace() as t:
        Book(title="a").save()
    assert outline(t) == [
        [
            "save LookupError",
            "BEGIN",
            "INSERT",
            ["post_save LookupError", ["refuse LookupError", ["save", "INSERT"]]],
            "ROLLBACK",
        ]
    ]
    assert t.error == t.steps[0].error == "LookupError: no such shelf"


def test_an_error_of_the_database_is_at_its_statement(Book):
    book = Book(title="a").save()
    with trace() as t, pytest.raises(Exception, match="book"):
        Book.objects.create(id=book.id, title="b")
    (statement,) = t.find("statement")
    assert statement.error is not None
    assert statement.error.startswith(
        ("IntegrityError: ", "UniqueViolation: ")
    )  # the driver's, or SQLAlchemy's
    assert "rows" not in statement.details
    with trace() as t, pytest.raises(InvalidValue):
        Book(title="x" * 21).save()
    assert [step.kind for step in t.walk()] == ["save"]
    assert "InvalidValue" in str(t)


def test_an_error_after_the_commit_is_at_what_has_raised_it(Book, connect):
    def mail(instance: Any, **kwargs: Any) -> None:
        raise ConnectionError("no mail server")

    connect(post_save, mail, Book, delivery="on_commit", robust=True)
    with trace() as t:
        Book(title="a").save()
    assert [step.error for step in t.find("on_commit")] == ["ConnectionError: no mail server"]
    assert t.steps[0].error is None
    post_save.disconnect(mail, sender=Book)
    connect(post_save, mail, Book, delivery="on_commit")
    with trace() as t, pytest.raises(AfterCommitError):
        Book(title="a").save()
    assert outline(t)[0][-1] == "mail on_commit ConnectionError"


def test_a_muted_signal_is_shown_without_receivers(Book, connect):
    connect(post_save, lambda **kwargs: None, Book)
    with trace() as t, muted(post_save, sender=Book):
        Book(title="a").save()
    (signal,) = t.find("signal")
    assert signal.details["muted"] is True
    assert not signal.children
    assert "signal post_save of " in str(t)
    assert "muted" in str(t)


def test_a_bulk_of_many_rows_is_few_steps_without_their_values(Book, connect):
    connect(post_bulk_create, lambda **kwargs: None, Book)
    with trace(parameters=True) as t:
        Book.objects.bulk_create([Book(title=f"book {number}") for number in range(10_000)])
    (bulk,) = t.steps
    assert (bulk.kind, bulk.details["rows"]) == ("bulk_create", 10_000)
    assert 1 <= t.to_json().count("'book ") <= 300
    assert word(bulk.children[0]) == "BEGIN"
    assert word(bulk.children[-1]) == "COMMIT"


def test_steps_beyond_the_limit_are_counted_where_they_happened(Book, connect):
    connect(post_delete, lambda **kwargs: None, Book)
    Book.objects.bulk_create([Book(title=f"book {number}") for number in range(30)])
    with trace() as whole:
        Book.objects.delete()
    Book.objects.bulk_create([Book(title=f"book {number}") for number in range(30)])
    with trace(max_steps=10) as t:
        Book.objects.delete()
    assert len([*t.walk()]) == 10
    assert 10 + t.left_out == len([*whole.walk()])
    assert sum(step.left_out for step in t.walk()) == t.left_out
    assert f"… {t.steps[0].left_out} more steps" in str(t)
    assert t.to_dict()["steps"][0]["left_out"] == t.steps[0].left_out


def test_values_are_hidden_unless_they_are_asked_for(Book):
    with trace() as hidden:
        Book(title="secret").save()
    with trace(parameters=True) as shown:
        Book(title="secret").save()
    assert "secret" not in hidden.to_json() + str(hidden)
    assert "secret" in shown.to_json()
    assert "secret" in str(shown)


def test_what_ran_before_and_after_is_not_in_a_trace(Book, databases):
    Book(title="a").save()
    with databases.atomic():
        Book(title="b").save()
        with trace() as t:
            Book(title="c").save()
            with databases.atomic():
                Book(title="d").save()
        Book(title="e").save()
    assert outline(t) == [["save", "INSERT"], "SAVEPOINT", ["save", "INSERT"], "RELEASE"]


def test_models_that_are_received_twice_show_what_each_does(Book, Entry, connect):
    """Depth: a receiver that saves, whose receivers save."""

    def deeper(instance: Any, **kwargs: Any) -> None:
        if instance.title < "d":
            Book(title=chr(ord(instance.title) + 1)).save()

    connect(post_save, deeper, Book)
    with trace() as t:
        Book(title="a").save()
    depth, step = 0, t.steps[0]
    while nested := [each for each in step.children if each.kind in ("signal", "receiver", "save")]:
        depth, step = depth + 1, nested[0]
    assert depth == 11  # three signals, receivers and saves, and the signal and receiver that save nothing
    assert [step.details["key"]["id"] for step in t.find("save")] == [1, 2, 3, 4]
