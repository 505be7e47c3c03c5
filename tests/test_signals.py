"""Model signals: senders by class or label, delivery after the commit, subclasses, raw saves."""

import asyncio
import gc
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

import microorm.db.engines.engine
import microorm.dispatch
from microorm import (
    AfterCommitError,
    Databases,
    Field,
    ManyToMany,
    Model,
    ReceiverLostWarning,
    Registry,
    field,
    many_to_many,
    muted,
    receiver,
    signals,
    through,
)
from microorm.dispatch import Signal
from microorm.messages import brief
from microorm.signals import (
    ModelSignal,
    class_prepared,
    m2m_changed,
    post_bulk_create,
    post_delete,
    post_init,
    post_save,
    post_update,
    pre_save,
)

pytestmark = pytest.mark.backends("sqlite-memory")

MODEL_SIGNALS = {
    "class_prepared", "pre_init", "post_init", "pre_save", "post_save", "pre_delete", "post_delete", "m2m_changed",
    "pre_bulk_create", "post_bulk_create", "pre_update", "post_update",
}  # fmt: skip
PLAIN_SIGNALS = {
    "pre_migrate", "post_migrate", "connection_created", "request_started", "request_finished",
    "got_request_exception",
}  # fmt: skip
POSTPONABLE = {"post_save", "post_delete", "post_bulk_create", "post_update"}


@pytest.fixture
def Book(Base: Any, registry: Any) -> Any:
    """A model with a table on both aliases; titles are unique."""

    class Book(Base, app="shop"):
        title: Field[str] = field(max_length=40, unique=True)

    registry.create_all()
    return Book


@pytest.fixture
def listen() -> Iterator[Callable[..., Any]]:
    """Connects a function to a signal until the test is over, and gives it back."""
    connected: list[tuple[Any, Any]] = []

    def listen(signal: Any, function: Any, sender: Any = None, **options: Any) -> Any:
        options = {"weak": False, **options}
        before = set(signal.receivers)
        signal.connect(function, sender=sender, **options)
        connected.extend((signal, each) for each in set(signal.receivers) - before)
        return function

    yield listen
    for signal, connection in connected:
        if (held := connection.receiver) is not None:
            signal.disconnect(held, connection.sender)


def quiet(**kwargs: Any) -> None:
    """Hears, and says nothing."""


class Log:
    """A receiver that keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, **kwargs: Any) -> None:
        self.calls.append(kwargs)

    @property
    def senders(self) -> list[Any]:
        return [call["sender"] for call in self.calls]


def test_all_signals_have_their_name_in_one_place() -> None:
    """Model signals take models; the others are plain; a few come from where they are made."""
    assert {name for name, each in vars(signals).items() if isinstance(each, ModelSignal)} == MODEL_SIGNALS
    plain = {name for name, each in vars(signals).items() if isinstance(each, Signal)} - MODEL_SIGNALS
    assert plain == PLAIN_SIGNALS
    assert signals.connection_created is microorm.db.engines.engine.connection_created
    assert (signals.receiver, signals.muted) == (microorm.dispatch.receiver, microorm.dispatch.muted)


@pytest.mark.parametrize("name", sorted(MODEL_SIGNALS))
def test_delivery_after_the_commit_is_for_what_follows_a_write(name: str) -> None:
    """Anything else is a ValueError, and nothing is connected."""
    signal = getattr(signals, name)
    before = signal.receivers
    with pytest.raises(ValueError) as caught:
        signal.connect(quiet, delivery="later")
    assert str(caught.value) == "delivery= must be 'immediate', 'on_commit' or 'durable', not 'later'"
    assert signal.receivers == before
    if name in POSTPONABLE:
        assert signal.connect(quiet, delivery="on_commit") is quiet
        assert signal.disconnect(quiet)
    else:
        with pytest.raises(ValueError) as caught:
            signal.connect(quiet, delivery="on_commit")
        assert str(caught.value) == "delivery='on_commit' is only available for signals sent after a write"
    assert signal.connect(quiet, delivery="immediate") is quiet
    with pytest.raises(ValueError, match="robust=True needs delivery='on_commit'"):
        signal.connect(quiet, robust=True)
    assert signal.disconnect(quiet)
    assert signal.receivers == before


def test_a_sender_is_a_model_or_its_label(Book: Any) -> None:
    """An instance, say, is a mistake."""
    for wrong in (5, Book(title="a"), ["shop.Book"]):
        with pytest.raises(TypeError) as caught:
            post_save.connect(quiet, sender=wrong)
        assert (
            str(caught.value)
            == f"the sender of a model signal must be a model or its label, not {brief(wrong)}"
        )


@pytest.mark.parametrize(
    "label", ["Book", "shop.Book.title", "", "shop.", ".Book", "1shop.Book", "shop Book"]
)
def test_a_label_has_two_names(label: str, registry: Any) -> None:
    """To connect, to disconnect and to wait for; nothing is left waiting."""
    for call in (
        lambda: post_save.connect(quiet, sender=label),
        lambda: post_save.connect(quiet, sender=label, registry=registry),
        lambda: post_save.disconnect(quiet, sender=label),
        lambda: registry.when_defined(label, quiet),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert str(caught.value) == f"a label must have the form 'app.Model', not {label!r}"


def test_a_label_of_a_model_that_is_there_is_the_model(Book: Any, registry: Any, listen: Any) -> None:
    """Connected at once; a class never goes by way of a label."""
    log = Log()
    listen(post_save, log, "shop.Book", registry=registry)
    assert [each.sender for each in post_save.receivers if each.receiver is log] == [Book]
    book = Book(title="a").save()
    assert log.calls == [
        {
            "signal": post_save,
            "sender": Book,
            "instance": book,
            "created": True,
            "raw": False,
            "using": "default",
            "update_fields": None,
        }
    ]
    assert post_save.disconnect(log, sender="shop.Book", registry=registry) is True
    assert post_save.disconnect(log, sender="shop.Book", registry=registry) is False


def test_a_label_waits_for_its_model(Base: Any, registry: Any, listen: Any) -> None:
    """Connected when the model is defined, in its registry only, with its options."""
    here, elsewhere, late = Log(), Log(), Log()
    post_save.connect(here, sender="shop.Page", registry=registry, weak=False, skip_raw=True)
    post_save.connect(elsewhere, sender="shop.Page", weak=False)
    assert not any(each.receiver in (here, elsewhere) for each in post_save.receivers)

    class Page(Base, app="shop"):
        pass

    (connection,) = [each for each in post_save.receivers if each.receiver is here]
    assert (connection.sender, dict(connection.options), connection.weak) == (Page, {"skip_raw": True}, False)
    listen(post_save, late, "shop.Page", registry=registry)
    registry.create_all("default")
    Page().save()
    Page().save(raw=True)
    assert (len(here.calls), len(late.calls), elsewhere.calls) == (1, 2, [])
    assert post_save.disconnect(here, sender="shop.Page", registry=registry)
    assert post_save.disconnect(elsewhere, sender="shop.Page")
    assert post_save.disconnect(elsewhere, sender="shop.Page") is False


def test_what_waits_can_be_taken_back(Base: Any, registry: Any) -> None:
    """With a bool; connected and disconnected, nothing is left when the model comes."""
    log, other = Log(), Log()
    options: dict[str, Any] = {"sender": "shop.Page", "registry": registry}
    assert post_save.disconnect(log, **options) is False
    post_save.connect(log, **options)
    post_save.connect(other, dispatch_uid="mine", **options)
    assert post_save.disconnect(other, **options) is False
    assert post_save.disconnect(dispatch_uid="yours", **options) is False
    assert pre_save.disconnect(log, **options) is False
    assert post_save.disconnect(log, sender="shop.Pages", registry=registry) is False
    assert post_save.disconnect(log, **options) is True
    assert post_save.disconnect(log, **options) is False
    assert post_save.disconnect(dispatch_uid="mine", **options) is True

    class Page(Base, app="shop"):
        pass

    assert not post_save.has_listeners(Page)


def test_waiting_twice_is_once(Base: Any, registry: Any, listen: Any) -> None:
    """The same receiver, or uid, of the same label; the first one wins."""
    log, first, second = Log(), Log(), Log()
    for _ in range(2):
        post_save.connect(log, sender="shop.Page", registry=registry, weak=False)
    for each in (first, second):
        post_save.connect(each, sender="shop.Page", registry=registry, weak=False, dispatch_uid="uid")
    pre_save.connect(log, sender="shop.Page", registry=registry, weak=False)

    class Page(Base, app="shop"):
        pass

    assert [each.receiver for each in post_save.receivers if each.sender is Page] == [log, first]
    assert [each.receiver for each in pre_save.receivers if each.sender is Page] == [log]
    assert post_save.disconnect(log, Page)
    assert post_save.disconnect(sender=Page, dispatch_uid="uid")
    assert pre_save.disconnect(log, Page)


def test_what_waits_is_held_as_weakly_as_it_will_be(Base: Any, registry: Any) -> None:
    """One that dies meanwhile is dropped, with the warning of any other; its place is free."""
    options: dict[str, Any] = {"sender": "shop.Page", "registry": registry}

    def connect_and_lose() -> None:
        def lost(**kwargs: Any) -> None: ...

        post_save.connect(lost, dispatch_uid="uid", **options)

    connect_and_lose()
    gc.collect()
    log = Log()
    with pytest.warns(ReceiverLostWarning, match="connect_and_lose.<locals>.lost"):
        post_save.connect(log, dispatch_uid="uid", **options)
    connect_and_lose_other: list[Any] = [Log()]
    post_save.connect(connect_and_lose_other[0], **options)
    connect_and_lose_other.clear()
    gc.collect()

    class Page(Base, app="shop"):
        pass

    assert [each.receiver for each in post_save.receivers if each.sender is Page] == [log]
    assert post_save.disconnect(sender=Page, dispatch_uid="uid")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not post_save.has_listeners(Page)


def test_an_unfit_receiver_does_not_wait(registry: Any) -> None:
    """Refused at connect, not when the model comes."""
    with pytest.raises(ValueError, match=r"^receiver does not accept \*\*kwargs"):
        post_save.connect(lambda sender: None, sender="shop.Page", registry=registry)
    with pytest.raises(TypeError, match="^receiver is not callable"):
        post_save.connect(5, sender="shop.Page", registry=registry)  # type: ignore[type-var]
    assert registry.forget_waiting("shop.Page", quiet) is False
    assert not [each for each in post_save._labelled.values() if each.identity[0] is registry]


def test_functions_wait_for_a_model(Base: Any, registry: Any) -> None:
    """`when_defined` calls at once where it is there, and in order when it comes; only once."""
    called: list[Any] = []
    registry.when_defined("shop.Page", lambda model: called.append((1, model)))
    registry.when_defined("shop.Page", lambda model: called.append((2, model)))

    def never(model: Any) -> None:
        called.append((3, model))

    registry.when_defined("shop.Page", never)
    assert registry.forget_waiting("shop.Page", never) is True
    assert registry.forget_waiting("shop.Page", never) is False

    class Page(Base, app="shop"):
        pass

    assert called == [(1, Page), (2, Page)]
    registry.when_defined("shop.Page", lambda model: called.append((4, model)))
    assert called[2:] == [(4, Page)]


def test_a_base_is_a_sender_for_its_models_on_request(Base: Any, registry: Any, listen: Any) -> None:
    """By default the exact class; with `subclasses` also what derives from an abstract base."""
    exact, derived, everyone = Log(), Log(), Log()

    class Dated(Base, abstract=True, app="shop"):
        note: Field[str] = field(default="")

    class Page(Dated):
        pass

    class Other(Base):
        pass

    registry.create_all("default")
    with pytest.warns(RuntimeWarning, match="will not be called: Dated is abstract and sends no signals"):
        listen(post_save, exact, Dated)
    listen(post_save, derived, Dated, subclasses=True)
    listen(post_save, everyone, None, subclasses=True)
    for model in (Page, Other):
        model().save()
    assert (exact.senders, derived.senders, everyone.senders) == ([], [Page], [Page, Other])
    assert (post_save.has_listeners(Page), post_save.has_listeners(Dated)) == (True, True)
    itself = Log()
    listen(post_save, itself, Page, subclasses=True)
    Page().save()
    assert itself.senders == [Page]


def test_a_sender_that_never_sends_is_warned_of(Base: Any, listen: Any) -> None:
    """A class that is no model, and for `m2m_changed` a model that cannot be the through model of a relation."""

    class Post(Base):
        tags: ManyToMany["Tag"] = many_to_many()

    class Tag(Base):
        pass

    _ = Post.__schema__
    with pytest.warns(
        RuntimeWarning, match="quiet will not be called: int, to which it is connected, is not a m"
    ):
        listen(post_save, quiet, int)
    with pytest.warns(
        RuntimeWarning, match=r"by through models, and Post is not one; use through\(Post\.…\)"
    ):
        listen(m2m_changed, quiet, Post)
    listen(m2m_changed, quiet, through(Post.tags))
    listen(post_save, quiet, Post)


def test_the_declared_arguments_are_those_that_are_sent(Base: Any, registry: Any, listen: Any) -> None:
    """Of all model signals."""
    sent: dict[Any, set[str]] = {}

    def note(**kwargs: Any) -> None:
        sent.setdefault(kwargs["signal"], set()).update(kwargs)

    model_signals = [getattr(signals, name) for name in MODEL_SIGNALS]
    for each in model_signals:
        listen(each, note)

    class Tag(Base):
        name: Field[str] = field(default="")

    class Post(Base):
        tags: ManyToMany[Tag] = many_to_many()
        title: Field[str] = field(default="")

    registry.create_all("default")
    post = Post().save()
    post.tags.add(Tag().save())
    Post.objects.bulk_create([Post()])
    Post.objects.update(title="b")
    post.delete()
    assert sent == {each: {*each._arguments, "signal", "sender"} for each in model_signals}


def test_subclasses_is_about_classes(Book: Any, listen: Any) -> None:
    """A send with another sender, or with none, is not theirs."""
    log = Log()
    listen(post_save, log, Model, subclasses=True)
    post_save.send("Book", using="default")
    post_save.send(None, using="default")
    assert log.calls == []
    post_save.send(Book, using="default")
    assert log.senders == [Book]


def test_raw_saves_can_be_skipped(Book: Any, listen: Any) -> None:
    """By those who ask for it; of signals that know nothing of raw, none are."""
    heard, skipped, deleted = Log(), Log(), Log()
    listen(post_save, heard, Book)
    listen(post_save, skipped, Book, skip_raw=True)
    listen(post_delete, deleted, Book, skip_raw=True)
    book = Book(title="a").save(raw=True)
    book.save()
    book.delete()
    assert [call["raw"] for call in heard.calls] == [True, False]
    assert [call["raw"] for call in skipped.calls] == [False]
    assert len(deleted.calls) == 1


def test_what_is_delivered_after_the_commit_never_follows_a_rollback(
    databases: Any, Book: Any, listen: Any
) -> None:
    """In order, at the outermost commit of the alias that was written; a savepoint counts."""
    told: list[str] = []

    def tell(instance: Any, **kwargs: Any) -> None:
        told.append(instance.title)

    listen(post_save, tell, Book, delivery="on_commit")
    with databases.atomic():
        Book(title="a").save()
        with pytest.raises(LookupError), databases.atomic():
            Book(title="lost").save()
            raise LookupError
        Book(title="there").save(using="other")
        assert told == ["there"]
        Book(title="b").save()
    assert told == ["there", "a", "b"]
    with pytest.raises(LookupError), databases.atomic():
        Book(title="lost").save()
        raise LookupError
    with pytest.raises(IntegrityError):
        Book(title="a").save()
    Book(title="c").save()
    assert told == ["there", "a", "b", "c"]


def test_it_gets_what_was_true_at_the_send(databases: Any, Book: Any, listen: Any) -> None:
    """A copy of the instance with its key and `changes()`, although it was changed or deleted later."""
    saved, deleted = Log(), Log()
    changes: list[Any] = []

    def note(instance: Any, **kwargs: Any) -> None:
        changes.append(instance.changes())

    for function in (saved, note):
        listen(post_save, function, Book, delivery="on_commit")
    listen(post_delete, deleted, Book, delivery="on_commit")
    book = Book(title="a")
    with databases.atomic():
        book.save()
        key = book.id
        book.title = "b"
        book.save(update_fields=["title"])
        book.title = "c"
        book.delete()
        book.title = "d"
    told = [(call["instance"].title, call["instance"].id, call["created"]) for call in saved.calls]
    assert told == [("a", key, True), ("b", key, False)]
    assert [call["update_fields"] for call in saved.calls] == [None, frozenset({"title"})]
    assert changes == [{"id": (None, key), "title": (None, "a")}, {"title": ("a", "b")}]
    (call,) = deleted.calls
    assert (call["instance"].title, call["instance"].id, call["using"]) == ("c", key, "default")
    assert call["origin"] is call["instance"]
    assert call["instance"] is not book
    assert book.id is None


def test_batches_are_copied_too(databases: Any, Book: Any, listen: Any) -> None:
    """The arguments as they were at the send."""
    made, updated = Log(), Log()
    listen(post_bulk_create, made, Book, delivery="on_commit")
    listen(post_update, updated, Book, delivery="on_commit")
    with databases.atomic():
        books = Book.objects.bulk_create([Book(title="a"), Book(title="b")])
        keys = [book.id for book in books]
        query = Book.objects.filter(title="a")
        query.update(title="c")
        for book in books:
            book.title = "changed"
        books.clear()
        assert (made.calls, updated.calls) == ([], [])
    (call,) = made.calls
    assert [(book.id, book.title) for book in call["objects"]] == [(keys[0], "a"), (keys[1], "b")]
    (call,) = updated.calls
    assert (call["query"], call["values"], call["count"]) == (query, {"title": "c"}, 1)


def test_without_a_block_it_follows_the_statement(databases: Any, Book: Any, listen: Any) -> None:
    """That is committed by then; all run, and the first error is raised."""
    told: list[str] = []

    def fail(instance: Any, **kwargs: Any) -> None:
        told.append(f"fail {instance.title}")
        raise LookupError(instance.title)

    def tell(instance: Any, **kwargs: Any) -> None:
        told.append(f"tell {instance.title} {Book.objects.count()}")

    for signal in (post_save, post_delete):
        for function in (fail, tell):
            listen(signal, function, Book, delivery="on_commit")
    book = Book(title="a")
    with pytest.raises(
        AfterCommitError, match="^the rows in 'default' are committed, .*LookupError\\('a'\\)"
    ):
        book.save()
    assert (book._state.adding, Book.objects.count()) == (False, 1)
    with pytest.raises(
        AfterCommitError, match="^the rows in 'default' are committed, .*LookupError\\('a'\\)"
    ):
        book.delete()
    assert Book.objects.count() == 0
    assert told == ["fail a", "tell a 1", "fail a", "tell a 0"]


def test_its_error_is_raised_after_the_commit(databases: Any, Book: Any, listen: Any) -> None:
    """As that of any function that waited; the row is there by then."""

    def fail(**kwargs: Any) -> None:
        raise LookupError("late")

    listen(post_save, fail, Book, delivery="on_commit")
    with (
        pytest.raises(AfterCommitError, match="are committed, .*LookupError\\('late'\\)"),
        databases.atomic(),
    ):
        Book(title="a").save()
    assert Book.objects.count() == 1


def test_the_alias_that_was_written_is_the_current_one(databases: Any, Book: Any, listen: Any) -> None:
    """For `on_commit()`, `atomic()` and a model without a place of its own, at once and after the commit."""
    found: list[tuple[str, str]] = []

    def at_once(**kwargs: Any) -> None:
        with databases.atomic(), databases.connection() as connection:
            found.append(
                ("at once", "other" if connection.engine is databases.engine("other") else "default")
            )

    def later(**kwargs: Any) -> None:
        with databases.atomic(), databases.connection() as connection:
            found.append(("later", "other" if connection.engine is databases.engine("other") else "default"))
        found.append(("read", Book.objects.first()._state.db))

    listen(post_save, at_once, Book)
    listen(post_save, later, Book, delivery="on_commit")
    Book(title="a").save(using="other")
    assert found == [("at once", "other"), ("later", "other"), ("read", "other")]
    found.clear()
    with databases.atomic("other"):
        Book(title="b").save(using="other")
    assert found == [("at once", "other"), ("later", "other"), ("read", "other")]
    assert post_save.disconnect(at_once, Book)
    found.clear()
    Book(title="c").save(using="other")
    Book(title="d").save(using="other").delete()
    assert found == [("later", "other"), ("read", "other")] * 2


def test_a_weak_one_that_is_gone_by_then_is_dropped(databases: Any, Book: Any) -> None:
    """And one that was disconnected meanwhile, but lives, is called."""
    told: list[str] = []

    class Receiver:
        def __init__(self, name: str) -> None:
            self.name = name

        def __call__(self, **kwargs: Any) -> None:
            told.append(self.name)

    gone, kept = Receiver("gone"), Receiver("kept")
    for each in (gone, kept):
        post_save.connect(each, sender=Book, delivery="on_commit")
    with databases.atomic():
        Book(title="a").save()
        assert post_save.disconnect(kept, Book)
        del gone, each
        gc.collect()
    assert told == ["kept"]


def test_muting_counts_at_the_send(databases: Any, Book: Any, listen: Any) -> None:
    """Not at the commit."""
    log = Log()
    listen(post_save, log, Book, delivery="on_commit")
    with databases.atomic():
        with muted(post_save, sender=Book):
            Book(title="a").save()
        book = Book(title="b").save()
        mute = muted(post_save)
        mute.__enter__()
    mute.__exit__(None, None, None)
    assert [call["instance"] for call in log.calls] == [book]


def test_async_receivers_are_delivered_too(databases: Any, Book: Any, listen: Any) -> None:
    """After the commit in this thread, with the alias as the current one; with and without a block."""
    told: list[tuple[str, str]] = []

    async def tell(instance: Any, **kwargs: Any) -> None:
        await asyncio.sleep(0)
        told.append((instance.title, Book.objects.first()._state.db))

    def plain(instance: Any, **kwargs: Any) -> None:
        told.append((instance.title, "sync"))

    listen(post_save, tell, Book, delivery="on_commit")
    listen(post_save, plain, Book, delivery="on_commit")
    Book(title="a").save(using="other")
    assert sorted(told) == [("a", "other"), ("a", "sync")]
    told.clear()
    with databases.atomic("other"):
        Book(title="b").save(using="other")
        assert told == []
    assert sorted(told) == [("b", "other"), ("b", "sync")]


def test_an_async_receiver_cannot_be_waited_for_on_a_running_loop(
    databases: Any, Book: Any, listen: Any
) -> None:
    """An error before anything ran."""
    told: list[str] = []

    async def tell(**kwargs: Any) -> None:
        told.append("never")

    listen(pre_save, lambda **kwargs: told.append("never"), Book)
    listen(post_save, tell, Book, delivery="on_commit")
    book = Book(title="a")

    async def main() -> None:
        with pytest.raises(
            RuntimeError,
            match=r"^cannot run async receiver .* on a running event loop; await the call, as in `await book\.asave",
        ):
            book.save()

    asyncio.run(main())
    assert (told, book._state.adding, Book.objects.count()) == ([], True, 0)


def test_a_send_of_ones_own_is_delivered_at_once(databases: Any, Book: Any, listen: Any) -> None:
    """With no block and no write there is nothing to wait for; in a block it waits."""
    log, aliases = Log(), []

    def note(**kwargs: Any) -> None:
        with databases.connection() as connection:
            aliases.append("other" if connection.engine is databases.engine("other") else "default")

    async def later(**kwargs: Any) -> None:
        aliases.append("async")

    for function in (log, note, later):
        listen(post_save, function, Book, delivery="on_commit")
    book = Book(title="a")
    post_save.send(Book, instance=book, using="other")
    assert len(log.calls) == 1
    assert log.calls[0]["instance"] is not book
    assert aliases == ["other", "async"]
    with databases.atomic("other"):
        post_save.send(Book, instance=book, using="other")
        assert len(log.calls) == 1
    assert len(log.calls) == 2
    asyncio.run(post_save.asend(Book, instance=book, using="other"))
    assert (len(log.calls), aliases) == (3, ["other", "async"] * 3)


def test_the_decorator_takes_the_options_of_a_model_signal(Book: Any) -> None:
    """For one signal or several."""

    @receiver([post_save, post_delete], sender=Book, delivery="on_commit", skip_raw=True, dispatch_uid="uid")
    def tell(**kwargs: Any) -> None: ...

    for signal in (post_save, post_delete):
        (connection,) = [each for each in signal.receivers if each.sender is Book]
        assert dict(connection.options) == {"delivery": "on_commit", "skip_raw": True}
        assert connection.dispatch_uid == "uid"
        assert signal.disconnect(sender=Book, dispatch_uid="uid")


def test_class_prepared_is_sent_once_for_each_model(Base: Any, listen: Any) -> None:
    """Never for an abstract one; what waited for the label is connected by then."""
    log = Log()
    listen(class_prepared, log)

    class Dated(Base, abstract=True):
        pass

    class Page(Dated):
        pass

    assert log.calls == [{"signal": class_prepared, "sender": Page}]
    assert not post_init.has_listeners(Page)


def test_another_registry_has_labels_of_its_own(listen: Any) -> None:
    """A second application in the process starts fresh."""
    logs = [Log(), Log()]
    with Databases("sqlite://") as databases:
        registries = [Registry(databases), Registry(databases)]
        for registry, log in zip(registries, logs, strict=True):
            post_save.connect(log, sender="shop.Page", registry=registry, weak=False)

        class Page(Model, registry=registries[1], app="shop"):
            pass

        registries[1].create_all()
        Page().save()
        assert [len(log.calls) for log in logs] == [0, 1]
        for registry, log in zip(registries, logs, strict=True):
            assert post_save.disconnect(log, sender="shop.Page", registry=registry)


def test_what_waits_for_the_commit_shares_nothing_that_changes_in_place(
    databases: Any, Base: Any, registry: Any, listen: Any
) -> None:
    """Neither the objects of a bulk write nor the values of an update; a query and an expression do not change."""

    class Note(Base):
        tags: Field[list[Any]] = field(default_factory=list)
        count: Field[int] = field(default=0)

    registry.create_all()
    told: list[Any] = []
    listen(post_bulk_create, lambda objects, **kwargs: told.append(objects[0].tags), delivery="on_commit")
    listen(post_update, lambda values, query, **kwargs: told.append((values, query)), delivery="on_commit")
    note, tags, more = Note(tags=["a"]), ["b"], Note.count + 1
    query = Note.objects.filter(count=0)
    with databases.atomic():
        Note.objects.bulk_create([note])
        query.update(tags=tags, count=more)
        note.tags.append("later")
        tags.append("later")
    assert told == [["a"], ({"tags": ["b"], "count": told[1][0]["count"]}, query)]
    assert told[1][0]["count"] is more
