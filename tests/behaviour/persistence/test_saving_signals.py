"""The signals of a save: their arguments, their order, and what receivers may do."""

import asyncio
import contextlib
import copy
import logging
import threading
from contextvars import ContextVar
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from microorm import (
    AfterCommitError,
    Field,
    FieldError,
    InvalidValue,
    Model,
    TransactionError,
    UnknownAlias,
    field,
    muted,
)
from microorm.signals import post_save, pre_save

pytestmark = pytest.mark.backends("sqlite-memory")

BEFORE = {"signal", "sender", "instance", "raw", "using", "update_fields"}


@pytest.fixture
def heard(Book, listen):
    """The arguments of all save signals that receivers of `Book` have got, in order."""
    heard: list[dict[str, Any]] = []
    listen(pre_save, lambda **kwargs: heard.append(kwargs), sender=Book)
    listen(post_save, lambda **kwargs: heard.append(kwargs), sender=Book)
    return heard


def test_receivers_get_exactly_these_arguments(Book, heard):
    """`using` is the alias, never None."""
    book = Book(title="x").save()
    before, after = heard
    assert before == {
        "signal": pre_save,
        "sender": Book,
        "instance": book,
        "raw": False,
        "using": "default",
        "update_fields": None,
    }
    assert after == {**before, "signal": post_save, "created": True}
    assert before["instance"] is after["instance"] is book
    book.save(raw=True)
    assert [(each["raw"], each.get("created")) for each in heard[2:]] == [(True, None), (True, False)]
    assert type(heard[2]["raw"]) is type(heard[3]["created"]) is bool


def test_the_alias_told_is_the_one_written(Book, registry, heard, databases):
    """By `using=`, by a `using()` block, and by `_state.db`."""
    registry.create_all("other")
    book = Book(title="x").save(using="other")
    book.save()
    with databases.using("other"):
        Book(title="y").save()
    Book(title="z").save()
    assert [each["using"] for each in heard] == ["other"] * 6 + ["default"] * 2


def test_update_fields_are_told_as_a_frozenset_of_declared_names(registry, listen):
    """For names, columns, or both, in any iterable."""
    told = []

    class Entry(Model, registry=registry):
        head: Field[str] = field(column="headline")
        body: Field[str] = field(default="")
        views: Field[int] = field(default=0)

    registry.create_all("default")
    entry = Entry(head="x").save()
    listen(pre_save, lambda update_fields, **kwargs: told.append(update_fields), sender=Entry)
    listen(post_save, lambda update_fields, **kwargs: told.append(update_fields), sender=Entry)
    for given in (
        ["head", "body"],
        [Entry.head, "body"],
        {Entry.head, Entry.body},
        (name for name in ("body", "head", "head")),
        {"head": 1, "body": 2},
    ):
        entry.save(update_fields=given)
    assert told == [frozenset({"head", "body"})] * 10
    assert {type(each) for each in told} == {frozenset}
    with pytest.raises(FieldError, match=r"^Entry has no field 'headline'; nearest: 'head'$"):
        entry.save(update_fields=["headline"])


def test_a_bare_string_for_update_fields_is_a_type_error_that_says_why(Book, heard):
    """It would be split into letters."""
    book = Book(title="x")
    for given in ("title", b"title", Book.title):
        with pytest.raises(TypeError) as raised:
            book.save(update_fields=given)
        assert str(raised.value) == f"update_fields must be a list of names or columns, not {given!r}"
    with pytest.raises(TypeError):
        book.save(update_fields=3)
    assert heard == []


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        (
            {"force_insert": True, "force_update": True},
            ValueError,
            "force_insert and force_update contradict each other",
        ),
        (
            {"force_insert": True, "update_fields": []},
            ValueError,
            "force_insert and update_fields contradict each other",
        ),
        ({"update_fields": ["titel"]}, FieldError, "Book has no field 'titel'; nearest: 'title'"),
        (
            {"update_fields": ["title", "id"]},
            FieldError,
            "Book.id is the primary key, which an update does not change",
        ),
        ({"force_update": True}, ValueError, "Book has no key yet, and an update needs one"),
        (
            {"using": "nowhere"},
            UnknownAlias,
            "no database named 'nowhere'; configured: 'default', 'other'; nearest: 'other'",
        ),
    ],
)
def test_a_wrong_argument_is_an_error_and_nobody_is_told(Book, heard, wire, databases, flags, error, message):
    """Arguments are checked first; the open block is not affected."""
    book = Book(title="x")
    with wire.record() as sent, databases.atomic():
        with pytest.raises(error) as raised:
            book.save(**flags)
        assert Book.objects.count() == 0
    assert str(raised.value) == message
    assert (heard, len(sent), book.id) == ([], 1, None)


def test_flags_are_keyword_only(Book):
    with pytest.raises(TypeError):
        Book(title="x").save(True)


def test_a_save_happens_in_this_order(registry, listen, wire, databases):
    """Checks, pre_save, on_update, values, SQL, state, post_save."""
    order = []

    class Entry(Model, registry=registry):
        title: Field[str] = field(max_length=5)
        stamp: Field[int] = field(default=0, on_update=lambda: order.append("on_update") or 7)

    registry.create_all("default")

    def before(instance, **kwargs):
        order.append(("pre_save", instance.stamp, instance._state.adding, instance._state.db, instance.id))
        assert not [text for text in wire.texts if text.startswith("INSERT")]

    def after(instance, **kwargs):
        order.append(("post_save", instance.stamp, instance._state.adding, instance._state.db, instance.id))
        assert [text for text in wire.texts if text.startswith("INSERT")]

    listen(pre_save, before, sender=Entry)
    listen(post_save, after, sender=Entry)
    with pytest.raises(InvalidValue):
        Entry(title="too long").save()
    assert order == [("pre_save", 0, True, None, None), "on_update"]
    order.clear()
    Entry(title="x").save()
    assert order == [
        ("pre_save", 0, True, None, None),
        "on_update",
        ("post_save", 7, False, "default", 1),
    ]


def test_on_update_fills_what_is_saved_unless_raw(registry):
    """Not in a raw save, and no field outside update_fields."""
    ticks = iter(range(1, 10))

    class Entry(Model, registry=registry):
        title: Field[str] = field(default="")
        stamp: Field[int] = field(default=0, on_update=lambda: next(ticks))

    registry.create_all("default")
    entry = Entry().save(raw=True)
    assert entry.stamp == 0
    entry.save()
    assert entry.stamp == 1
    entry.save(update_fields=["title"])
    assert entry.stamp == 1
    entry.save(update_fields=["stamp"])
    assert (entry.stamp, Entry.objects.get(id=entry.id).stamp) == (2, 2)
    assert entry.changes() == {}


def test_what_pre_save_changes_is_written_if_its_column_is(Book, listen):

    def change(instance, **kwargs):
        instance.title, instance.pages = instance.title.upper(), 77

    book = Book(title="x").save()
    listen(pre_save, change, sender=Book)
    book.title = "y"
    book.save(update_fields=["title"])
    row = Book.objects.get(id=book.id)
    assert (row.title, row.pages) == ("Y", 0)
    assert (book.pages, book.changes()) == (77, {"pages": (0, 77)})
    assert Book(title="new").save().changes() == {}
    assert Book.objects.filter(title="NEW", pages=77).exists()


def test_pre_save_may_choose_the_key(Book, listen):
    """Whether the row exists is checked after the receivers."""

    def choose(instance, **kwargs):
        instance.id = 42

    listen(pre_save, choose, sender=Book)
    assert Book(title="x").save().id == 42
    created = []
    listen(post_save, lambda created, _made=created, **kwargs: _made.append(created), sender=Book)
    Book(title="y").save()
    assert (created, Book.objects.get().title) == ([False], "y")


def test_an_error_in_pre_save_prevents_the_sql(Book, listen, wire):
    """Later receivers do not run."""
    ran = []

    def fail(**kwargs):
        raise LookupError("no")

    listen(pre_save, fail, sender=Book)
    listen(pre_save, lambda **kwargs: ran.append(1), sender=Book)
    listen(post_save, lambda **kwargs: ran.append(2), sender=Book)
    with wire.record() as sent, pytest.raises(LookupError, match="^no$"):
        Book(title="x").save()
    assert (sent, ran) == ([], [])


def test_an_error_of_the_database_comes_after_pre_save_and_instead_of_post_save(Book, heard):
    book = Book(title="x").save()
    twin = Book(title="y")
    twin.id = book.id
    heard.clear()
    with pytest.raises(IntegrityError):
        twin.save(force_insert=True)
    assert [each["signal"] for each in heard] == [pre_save]
    assert (twin.id, twin._state.adding, twin._state.db) == (book.id, True, None)


def test_receivers_see_what_the_save_changes(Book, listen):
    """`changes()` and `changed_fields` are the same in both signals; afterwards nothing is changed."""
    seen = []
    listen(pre_save, lambda instance, **kwargs: seen.append(instance.changes()), sender=Book)
    listen(post_save, lambda instance, **kwargs: seen.append(instance.changes()), sender=Book)
    book = Book(title="x", pages=1).save()
    everything = {"title": (None, "x"), "pages": (None, 1), "price": (None, None), "tags": (None, [])}
    assert seen == [{"id": (None, None), **everything}, {"id": (None, 1), **everything}]
    assert (book.changes(), book.changed_fields) == ({}, frozenset())
    seen.clear()
    book.pages = 2
    book.save()
    assert seen == [{"pages": (1, 2)}] * 2
    assert book.changes() == {}
    seen.clear()
    book.pages, book.title = 3, "z"
    book.save(update_fields=["pages"])
    assert seen == [{"title": ("x", "z"), "pages": (2, 3)}] * 2
    assert book.changes() == {"title": ("x", "z")}


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")  # in memory a reader waits for the writer
def test_post_save_runs_before_the_commit(Book, listen, databases):
    """Other connections do not see the row yet; writes of the receiver are in the same transaction."""
    others = []

    def look(instance, **kwargs):
        assert Book.objects.get(id=instance.id) == instance
        thread = threading.Thread(target=lambda: others.append(Book.objects.count()))
        thread.start()
        thread.join()

    listen(post_save, look, sender=Book)
    Book(title="x").save()
    with databases.atomic():
        Book(title="y").save()
    assert others == [0, 1]


def test_what_receivers_wrote_goes_with_the_save_that_failed(Book, registry, listen, databases):
    """Their saves of other models are rolled back, too."""

    class Audit(Model, registry=registry):
        text: Field[str]

    registry.create_all("default")
    audits = []

    def note(instance, **kwargs):
        audits.append(Audit(text=instance.title).save())

    def fail(instance, **kwargs):
        raise LookupError

    listen(pre_save, note, sender=Book)
    listen(post_save, note, sender=Book)
    Book(title="x").save()
    assert Audit.objects.count() == 2
    listen(post_save, fail, sender=Book)
    with pytest.raises(LookupError):
        Book(title="y").save()
    assert (Audit.objects.count(), Book.objects.count()) == (2, 1)
    assert [(audit.id, audit._state.adding) for audit in audits[2:]] == [(None, True)] * 2


def test_while_a_receiver_runs_its_alias_is_the_current_one(Book, registry, listen, databases):
    """For models, atomic() and on_commit() without an alias."""

    class Audit(Model, registry=registry):
        text: Field[str]

    registry.create_all()
    order = []

    def note(instance, **kwargs):
        audit = Audit(text=instance.title).save()
        with databases.atomic():
            order.append(audit._state.db)
        databases.on_commit(lambda: order.append("hook"))

    def end(**kwargs):
        order.append("end")

    listen(pre_save, note, sender=Book)
    listen(post_save, note, sender=Book)
    listen(post_save, end, sender=Book)
    Book(title="x").save(using="other")
    assert order == ["other", "other", "end", "hook", "hook"]
    assert (Audit.objects.using("other").count(), Audit.objects.count()) == (2, 0)
    Audit(text="outside").save()
    assert Audit.objects.count() == 1


def test_create_tells_as_a_save_does(Book, heard):
    """`update_fields` is None."""
    book = Book.objects.create(title="x")
    assert [(each["instance"] is book, each["update_fields"]) for each in heard] == [(True, None)] * 2
    assert heard[1]["created"] is True


def test_a_save_in_post_save_recurses(Book, listen):
    """With `created` True, then False; the receiver has to stop it; each level has its own `changes()`."""
    seen = []

    def again(instance, created, **kwargs):
        seen.append((created, instance.title, sorted(instance.changed_fields)))
        if created:
            instance.title = "again"
            instance.save()
            seen.append(("back", instance.title, sorted(instance.changed_fields)))

    def late(instance, created, **kwargs):
        seen.append(("late", created, sorted(instance.changed_fields)))
        states.append((instance._state.adding, instance._state.db))

    def early(instance, **kwargs):
        seen.append(("early", sorted(instance.changed_fields)))
        states.append((instance._state.adding, instance._state.db))

    states = []
    listen(pre_save, early, sender=Book)
    listen(post_save, again, sender=Book)
    listen(post_save, late, sender=Book)
    book = Book(title="x").save()
    every = ["id", "pages", "price", "tags", "title"]
    assert states == [(True, None), *[(False, "default")] * 3]
    assert (book._state.adding, book._state.db) == (False, "default")
    assert seen == [
        ("early", every),
        (True, "x", every),
        ("early", ["title"]),
        (False, "again", ["title"]),
        ("late", False, ["title"]),
        ("back", "again", every),
        ("late", True, every),
    ]
    assert (book.changes(), Book.objects.get().title) == ({}, "again")


def test_a_partial_save_in_post_save_keeps_what_was_loaded(Book, listen):
    """What the outer save has written counts as loaded in the inner save and afterwards."""
    inner = []

    def count(instance, update_fields, **kwargs):
        if update_fields is None:
            instance.pages += 1
            instance.save(update_fields=["pages"])
            inner.append(instance.changes())

    listen(post_save, count, sender=Book)
    book = Book(title="x", pages=1).save()
    assert book.changes() == {}
    assert inner == [{n: (None, v) for n, v in vars(book).items()}]
    assert Book.objects.get().pages == 2
    book.title = "y"
    assert book.changes() == {"title": ("x", "y")}
    with muted([pre_save, post_save]):
        book.save()
    assert book.changes() == {}


def test_a_save_in_pre_save_makes_the_outer_one_an_update(Book, listen, stored):
    """The save of the receiver has inserted the row."""
    created = []

    def first(instance, **kwargs):
        if instance._state.adding:
            with muted([pre_save]):
                instance.save()

    listen(pre_save, first, sender=Book)
    listen(post_save, lambda created, _made=created, **kwargs: _made.append(created), sender=Book)
    Book(title="x").save()
    assert created == [True, False]
    assert stored(Book, "title") == ["x"]


def test_a_nested_save_that_fails_and_was_caught_leaves_the_outer_one_telling(Book, listen, databases):
    """In a nested block; `changes()` of the outer save are as before."""
    seen = []

    def nested(instance, created, **kwargs):
        if created:
            instance.title = "y" * 99
            with pytest.raises(InvalidValue), databases.atomic():
                instance.save()
            instance.title = "x"
            seen.append(sorted(instance.changed_fields))

    listen(post_save, nested, sender=Book)
    book = Book(title="x").save()
    assert seen == [["id", "pages", "price", "tags", "title"]]
    assert (book.changes(), Book.objects.get().title) == ({}, "x")


def test_a_receiver_that_refreshes_sees_no_changes_any_more(Book, listen):
    """A refresh counts as a load."""
    seen = []

    def refresh(instance, **kwargs):
        instance.refresh_from_db()
        seen.append(instance.changes())

    listen(post_save, refresh, sender=Book)
    book = Book(title="x").save()
    assert (seen, book.changes(), book.title) == ([{}], {}, "x")


def test_a_muted_signal_is_not_sent(Book, heard):
    """The row is saved."""
    with muted(pre_save, sender=Book):
        Book(title="x").save()
    assert [each["signal"] for each in heard] == [post_save]
    with muted([pre_save, post_save]):
        Book(title="y").save()
    assert len(heard) == 1
    assert Book.objects.count() == 2


def test_skip_raw_receivers_do_not_hear_raw_saves(Book, listen):
    heard = []
    for signal in (pre_save, post_save):
        listen(signal, lambda raw, **kwargs: heard.append(raw), sender=Book, skip_raw=True)
    Book(title="x").save(raw=True)
    Book(title="y").save(raw=False)
    assert heard == [False, False]
    assert Book.objects.count() == 2


def test_receivers_of_an_abstract_base_hear_its_models_on_request(Base, registry, listen):
    """With `subclasses=True`; the sender is the model itself."""
    heard = []

    class Named(Base, abstract=True):
        name: Field[str] = field(default="")

    class Cat(Named):
        pass

    class Dog(Named):
        pass

    registry.create_all("default")
    listen(post_save, lambda sender, **kwargs: heard.append(sender), sender=Named, subclasses=True)
    with pytest.warns(RuntimeWarning, match="Named is abstract and sends no signals"):
        listen(pre_save, lambda sender, **kwargs: heard.append("never"), sender=Named)
    Cat().save()
    Dog().save()
    assert heard == [Cat, Dog]


def test_nobody_else_is_told(Base, registry, Book, heard):

    class Cat(Base):
        pass

    registry.create_all("default")
    Cat().save()
    assert heard == []


def test_operations_on_many_rows_tell_no_single_saves(Book, heard):
    """bulk_create, update, and raw SQL."""
    Book.objects.bulk_create([Book(title="a"), Book(title="b")])
    Book.objects.update(pages=3)
    Book.objects.filter(title="a").update(pages=Book.pages + 1)
    Book.objects.raw("SELECT * FROM book")
    assert heard == []


class TestAsync:
    """Async receivers of model signals run one after another, in the thread and transaction of the save."""

    def test_they_run_in_order_after_the_sync_ones_in_thread_and_transaction(self, Book, listen, databases):
        """They see the uncommitted rows of the block."""
        order: list[Any] = []
        turn = ContextVar("turn", default=0)

        async def slow(instance, **kwargs):
            order.append(("slow", threading.get_ident(), await Book.objects.acount()))
            turn.set(turn.get() + 1)
            for _ in range(3):
                await asyncio.sleep(0)
            order.append("slow ends")

        async def quick(instance, **kwargs):
            order.append(
                ("quick", threading.get_ident(), await Book.objects.aget(id=instance.id) == instance)
            )

        listen(post_save, slow, sender=Book)
        listen(post_save, quick, sender=Book)
        listen(post_save, lambda **kwargs: order.append("sync"), sender=Book)
        Book(title="x").save()
        here = threading.get_ident()
        assert order == ["sync", ("slow", here, 1), "slow ends", ("quick", here, True)]
        assert turn.get() == 1

    @pytest.mark.sync_only("its receiver calls without await")
    def test_of_a_save_that_is_not_awaited_they_may_call_without_await(self, Book, listen, databases):
        """They are in its transaction as well."""
        counts = []

        async def count(**kwargs):
            counts.append(Book.objects.count())

        listen(post_save, count, sender=Book)
        Book(title="x").save()
        with databases.atomic():
            Book(title="y").save()
        assert counts == [1, 2]

    def test_their_error_undoes_the_save(self, Book, listen):
        """Later receivers do not run."""
        ran = []

        async def fail(**kwargs):
            await asyncio.sleep(0)
            raise LookupError("async")

        async def later(**kwargs):
            ran.append(1)

        listen(post_save, fail, sender=Book)
        listen(post_save, later, sender=Book)
        book = Book(title="x")
        with pytest.raises(LookupError, match="^async$"):
            book.save()
        assert (Book.objects.count(), book.id, ran) == (0, None, [])

    @pytest.mark.sync_only("calls without await, on a loop of its own")
    @pytest.mark.parametrize("signal", [pre_save, post_save])
    def test_on_a_running_loop_it_is_an_error_before_anything_ran(
        self, Book, listen, wire, databases, signal
    ):
        """No receiver, no SQL, and the block stays usable."""
        ran = []

        async def receive(**kwargs):
            ran.append("async")

        listen(pre_save, lambda **kwargs: ran.append("sync"), sender=Book)
        listen(signal, receive, sender=Book)
        book = Book(title="x")

        async def main():
            with pytest.raises(RuntimeError, match="on a running event loop"):
                book.save()
            with databases.atomic():
                with pytest.raises(RuntimeError, match="on a running event loop"):
                    book.save()
                return Book.objects.count()

        with wire.record() as sent:
            assert asyncio.run(main()) == 0
        assert (len(sent), ran, book._state.adding) == (1, [], True)
        book.save()
        assert sorted(ran) == ["async", "sync"]

    @pytest.mark.sync_only("calls without await, on a loop of its own")
    def test_on_a_running_loop_sync_receivers_are_no_trouble(self, Book, heard):
        """As in notebooks."""

        async def main():
            Book(title="x").save()

        asyncio.run(main())
        assert len(heard) == 2


class TestOnCommit:
    """`delivery="on_commit"`: after the commit of the alias, and never after a rollback."""

    def test_with_nothing_open_it_runs_when_the_row_is_committed(self, Book, listen, wire):
        """The save is one statement, without a transaction for the receiver."""
        seen = []

        def look(instance, created, using, **kwargs):
            thread = threading.Thread(target=lambda: seen.append(Book.objects.filter(id=instance.id).count()))
            thread.start()
            thread.join()
            seen.append((created, using, instance.title))

        listen(post_save, look, sender=Book, delivery="on_commit")
        with wire.everything() as sent:
            Book(title="x").save()
        assert seen == [1, (True, "default", "x")]
        assert [text.split()[0] for text in sent] == ["INSERT", "SELECT"]

    def test_in_a_block_it_waits_for_the_outermost_commit(self, Book, listen, databases, undone):
        """In order; discarded with the savepoint of its save."""
        seen = []
        listen(
            post_save,
            lambda instance, **kwargs: seen.append(instance.title),
            sender=Book,
            delivery="on_commit",
        )
        with databases.atomic():
            Book(title="a").save()
            with databases.atomic():
                Book(title="b").save()
            with undone():
                Book(title="dropped").save()
            Book(title="c").save()
            assert seen == []
        assert seen == ["a", "b", "c"]
        with undone():
            Book(title="never").save()
        assert seen == ["a", "b", "c"]

    def test_an_immediate_receiver_that_fails_takes_it_along(self, Book, listen):
        seen = []

        def fail(**kwargs):
            raise LookupError

        listen(post_save, lambda **kwargs: seen.append(1), sender=Book, delivery="on_commit")
        listen(post_save, fail, sender=Book)
        with pytest.raises(LookupError):
            Book(title="x").save()
        assert seen == []

    def test_it_gets_everything_as_it_was_at_the_send(self, Book, listen, databases):
        """In a copy with its key and `changes()`; later changes of the instance and of its lists do not affect it."""
        seen = []

        def look(signal, sender, instance, created, raw, using, update_fields):
            seen.append((instance, instance.pk, instance.title, instance.changes(), update_fields, created))

        def receive(**kwargs):
            assert kwargs.keys() == BEFORE | {"created"}
            look(**kwargs)

        listen(post_save, receive, sender=Book, delivery="on_commit")
        book = Book(title="x").save()
        assert seen[0][3] == {name: (None, value) for name, value in vars(book).items()}
        seen.clear()
        book.pages = 3
        book.save()
        assert seen[0][3] == {"pages": (0, 3)}
        seen.clear()
        with databases.atomic():
            book.title = "y"
            book.save(update_fields=["title"])
            book.title = "z"
            book.tags.append("later")
            book.save(update_fields=["title"])
            book.delete()
        (first, *one), (second, *two) = seen
        assert one == [1, "y", {"title": ("x", "y")}, frozenset({"title"}), False]
        assert two == [1, "z", {"title": ("y", "z"), "tags": ([], ["later"])}, frozenset({"title"}), False]
        assert first is not book
        assert second is not first
        assert (first.tags, second.tags) == ([], ["later"])
        assert (book.pk, book.title) == (None, "z")

    def test_what_a_copy_has_changed_ends_with_its_save(self, Book, listen):
        """Whether immediate receivers make a transaction of the save or not; so with a copy of the program."""
        seen = []

        def count(instance, created, **kwargs):
            if created:
                instance.pages += 1
                instance.save()
                seen.append(instance.changes())

        listen(post_save, count, sender=Book, delivery="on_commit")
        Book(title="x").save()
        copies = []
        listen(post_save, lambda instance, **kwargs: copies.append(copy.copy(instance)), sender=Book)
        book = Book(title="y").save()
        assert seen == [{}, {}]
        for each in copies[:1]:
            assert each.changes()["title"] == (None, "y")
            each.title = "z"
            each.save()
            assert each.changes() == {}
        assert book.changes() == {}

    def test_a_copy_that_the_receiver_saves_partly_knows_what_is_loaded(self, Book, listen):
        """It can be saved like any other instance."""
        seen = []

        def count(instance, created, **kwargs):
            if created:
                instance.pages += 1
                instance.save(update_fields=["pages"])
                instance.title = "z"
                seen.append(instance.changes())

        listen(post_save, count, sender=Book, delivery="on_commit")
        Book(title="x", pages=1).save()
        assert seen == [{"title": ("x", "z")}]
        assert (Book.objects.get().pages, Book.objects.get().title) == (2, "x")

    def test_it_runs_with_the_saved_alias_as_the_current_one(self, Book, registry, listen, databases):
        """Outside blocks and after a block."""
        registry.create_all("other")
        aliases = []

        def look(instance, **kwargs):
            with databases.connection() as connection:
                aliases.append(connection.engine is databases.engine("other"))

        listen(post_save, look, sender=Book, delivery="on_commit")
        Book(title="x").save(using="other")
        with databases.atomic("other"):
            Book(title="x").save(using="other")
        assert aliases == [True, True]

    def test_the_commit_it_waits_for_is_that_of_the_alias(self, Book, registry, listen, databases, caplog):
        """A block on another alias does not delay it."""
        registry.create_all("other")
        seen = []
        listen(
            post_save,
            lambda instance, **kwargs: seen.append(instance.title),
            sender=Book,
            delivery="on_commit",
        )
        with databases.atomic(), caplog.at_level(logging.WARNING, "microorm.transactions"):
            Book(title="x").save(using="other")
            assert seen == ["x"]
        assert seen == ["x"]

    def test_its_error_comes_when_the_row_is_committed(self, Book, listen, databases):
        """All run; the first error is the cause, the others are notes; the instance stays saved."""
        ran = []

        def fail(instance, **kwargs):
            ran.append("first")
            raise LookupError("first")

        def fail_too(instance, **kwargs):
            ran.append("second")
            raise LookupError("second")

        listen(post_save, fail, sender=Book, delivery="on_commit")
        listen(post_save, fail_too, sender=Book, delivery="on_commit")
        listen(post_save, lambda **kwargs: ran.append("third"), sender=Book, delivery="on_commit")
        alone, inside = Book(title="alone"), Book(title="inside")
        with pytest.raises(AfterCommitError) as raised:
            alone.save()
        assert ran == ["first", "second", "third"]
        assert (raised.value.alias, raised.value.function) == ("default", fail.__qualname__)
        assert isinstance(raised.value.__cause__, LookupError)
        assert raised.value.__notes__ == [
            f"the on_commit function {fail_too.__qualname__} failed as well: LookupError('second')"
        ]
        with pytest.raises(AfterCommitError), databases.atomic():
            inside.save()
        assert ran == ["first", "second", "third"] * 2
        for book in (alone, inside):
            assert (Book.objects.get(id=book.id), book.changes(), book._state.db) == (book, {}, "default")

    @pytest.mark.parametrize("alone", [True, False])
    def test_an_error_of_a_robust_one_is_logged_and_the_others_run(
        self, Book, listen, databases, caplog, alone
    ):
        ran = []

        def fail(instance, **kwargs):
            raise LookupError("no mail")

        listen(post_save, fail, sender=Book, delivery="on_commit", robust=True)
        listen(post_save, lambda **kwargs: ran.append(1), sender=Book, delivery="on_commit")
        with contextlib.nullcontext() if alone else databases.atomic():
            book = Book(title="x").save()
        assert (ran, book._state.adding) == ([1], False)
        (record,) = caplog.records
        assert record.getMessage() == f"on_commit function {fail.__qualname__} failed: no mail"

    def test_a_weak_receiver_that_is_gone_by_then_is_dropped(self, Book, databases):
        seen = []

        class Listener:
            def hear(self, instance, **kwargs):
                seen.append(instance.title)

        gone, kept = Listener(), Listener()
        post_save.connect(gone.hear, sender=Book, delivery="on_commit")
        post_save.connect(kept.hear, sender=Book, delivery="on_commit")
        with databases.atomic():
            Book(title="x").save()
            del gone
        assert seen == ["x"]

    def test_muting_counts_at_the_send(self, Book, listen, databases):
        seen = []
        listen(
            post_save,
            lambda instance, **kwargs: seen.append(instance.title),
            sender=Book,
            delivery="on_commit",
        )
        with databases.atomic():
            with muted(post_save):
                Book(title="muted").save()
            Book(title="heard").save()
            silence = muted(post_save)
            silence.__enter__()
        silence.__exit__(None, None, None)
        assert seen == ["heard"]

    def test_async_receivers_are_awaited_after_the_commit(self, Book, listen, databases):
        """After the sync ones."""
        seen = []

        async def receive(instance, **kwargs):
            await asyncio.sleep(0)
            seen.append(("async", instance.title))

        listen(post_save, receive, sender=Book, delivery="on_commit")
        listen(
            post_save,
            lambda instance, **kwargs: seen.append(instance.title),
            sender=Book,
            delivery="on_commit",
        )
        Book(title="alone").save()
        with databases.atomic():
            Book(title="inside").save()
            assert len(seen) == 2
        assert seen == ["alone", ("async", "alone"), "inside", ("async", "inside")]

    def test_skip_raw_counts_here_too(self, Book, listen):
        seen = []
        listen(
            post_save,
            lambda raw, **kwargs: seen.append(raw),
            sender=Book,
            delivery="on_commit",
            skip_raw=True,
        )
        Book(title="x").save(raw=True)
        Book(title="y").save()
        assert seen == [False]


def test_writing_in_a_readonly_block_is_refused_before_anybody_is_told(Book, heard, databases):
    """The block stays usable."""
    book = Book(title="x")
    with databases.atomic(readonly=True):
        with pytest.raises(TransactionError, match="^the block on 'default' is read-only$"):
            book.save()
        assert Book.objects.count() == 0
    assert (heard, book._state.adding) == ([], True)


@pytest.mark.parametrize("kind", ["told", "silent", "expression", "on_commit"])
def test_a_save_on_another_alias_than_the_open_block_is_noted_once(
    Book, registry, databases, listen, caplog, kind
):
    """It is not part of the block."""
    registry.create_all("other")
    book = Book(title="x").save(using="other")
    if kind in ("told", "on_commit"):
        delivery = "immediate" if kind == "told" else "on_commit"
        listen(post_save, lambda **kwargs: None, sender=Book, delivery=delivery)
    with databases.atomic(), caplog.at_level(logging.WARNING, "microorm.transactions"):
        for _ in range(2):
            book.pages = Book.pages + 1 if kind == "expression" else 7
            book.save()
    assert [record.getMessage() for record in caplog.records] == [
        "a write to 'other' inside a block on 'default' is not part of the block: it is committed separately"
    ]
