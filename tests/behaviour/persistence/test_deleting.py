"""Deletes of one table: statements, signals, and the state of the instances."""

import asyncio
import contextlib
import threading
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from microorm import (
    AfterCommitError,
    Field,
    InvalidValue,
    Model,
    TransactionError,
    UnknownAlias,
    UnsavedError,
    field,
    muted,
)
from microorm.signals import post_delete, post_save, pre_delete, pre_save

MEMORY = pytest.mark.backends("sqlite-memory")


class Broken(Exception):
    """The error of failing receivers."""


@pytest.fixture
def heard(Book, listen):
    """The arguments of all delete signals that receivers of `Book` have got, in order."""
    heard: list[dict[str, Any]] = []
    listen(pre_delete, lambda **kwargs: heard.append(kwargs), sender=Book)
    listen(post_delete, lambda **kwargs: heard.append(kwargs), sender=Book)
    return heard


def look(instance: Any) -> Any:
    return dict(vars(instance)), instance._state.adding, instance._state.db, instance.changes()


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_a_delete_is_one_statement_and_counts_its_row(
    Book, listen, wire, databases, stored, told, inside, undone
):
    """It returns `(total, {label: count})`; the generated key becomes None, and other values stay."""
    book, other = Book(title="x").save(), Book(title="y").save()
    if told:
        listen(pre_delete, lambda **kwargs: None, sender=Book)
        listen(post_delete, lambda **kwargs: None, sender=Book)
    label = Book.__schema__.label
    with wire.record() as sent:
        if inside:
            with databases.atomic():
                assert book.delete() == (1, {label: 1})
        else:
            assert book.delete() == (1, {label: 1})
    assert [each.split()[0] for each in sent] == ["DELETE"]
    assert (book.id, book.pk, book.title) == (None, None, "x")
    assert (book._state.adding, book._state.db) == (False, "default")
    assert stored(Book, "id") == [other.id]


def test_a_key_that_the_database_did_not_make_stays(Base, registry, stored):
    """Natural, composite, and default keys."""

    class Token(Model[UUID], registry=registry):
        pass

    class Code(Base):
        code: Field[str] = field(primary_key=True, max_length=9)

    class Pair(Base):
        left: Field[int] = field(primary_key=True)
        right: Field[int] = field(primary_key=True)

    registry.create_all("default")
    Pair(left=1, right=3).save()
    for instance in (Token(), Code(code="c"), Pair(left=1, right=2)):
        key = instance.save().pk
        assert instance.delete() == (1, {type(instance).__schema__.label: 1})
        assert instance.pk == key
        assert instance.delete() == (0, {})
    assert (stored(Token), stored(Code), stored(Pair)) == ([], [], [(1, 3)])


def test_for_an_absent_row_post_delete_is_not_sent_and_nothing_is_counted(Book, heard, databases):
    for inside in (False, True):
        book = Book(title="x").save()
        with muted([pre_delete, post_delete]):
            Book.objects.filter(id=book.id).delete()
        if inside:
            with databases.atomic():
                assert book.delete() == (0, {})
        else:
            assert book.delete() == (0, {})
        assert book.id is None
    assert [each["signal"] for each in heard] == [pre_delete] * 2


@MEMORY
def test_after_the_commit_nothing_is_told_of_an_absent_row(Book, listen, databases):
    told = []
    listen(post_delete, lambda instance, **kwargs: told.append(instance.title), Book, delivery="on_commit")
    for inside in (False, True):
        absent, book = Book(title="absent").save(), Book(title=f"inside {inside}").save()
        Book.objects.get(id=absent.id).delete()
        told.clear()
        with databases.atomic() if inside else contextlib.nullcontext():
            assert absent.delete() == (0, {})
            book.delete()
        assert told == [f"inside {inside}"]


@MEMORY
def test_receivers_get_exactly_these_arguments(Book, heard):
    """The key is still set; `origin` is the object that delete() was called on."""
    keys = []
    book = Book(title="x").save()
    key = book.id

    def note(instance, **kwargs):
        keys.append((instance.id, instance._state.adding))

    pre_delete.connect(note, sender=Book, weak=False)
    post_delete.connect(note, sender=Book, weak=False)
    book.delete()
    pre_delete.disconnect(note, sender=Book)
    post_delete.disconnect(note, sender=Book)
    before, after = heard
    expected = {"sender": Book, "instance": book, "using": "default", "origin": book}
    assert before == {"signal": pre_delete, **expected}
    assert after == {"signal": post_delete, **expected}
    assert before["instance"] is after["instance"] is before["origin"] is after["origin"] is book
    assert keys == [(key, False)] * 2


@MEMORY
def test_delete_and_refresh_take_keywords_only(Book, stored, wire):
    book = Book(title="x").save()
    with wire.record() as sent:
        with pytest.raises(TypeError, match="positional argument"):
            book.delete("default")
        with pytest.raises(TypeError, match="positional argument"):
            book.refresh_from_db("default")
    assert (sent, stored(Book, "title")) == ([], ["x"])
    book.refresh_from_db(using="default", fields=["title"])
    assert book.delete(using="default")[0] == 1


@MEMORY
def test_the_alias_told_is_the_one_deleted_from(Book, registry, heard, databases, stored):
    """`using=`, then the `using()` block, then `_state.db`."""
    registry.create_all("other")
    book = Book(title="x").save(using="other")
    book.save(using="default")
    book.delete(using="other")
    assert (book._state.db, stored(Book, "title"), stored(Book, alias="other")) == ("default", ["x"], [])
    Book(title="y").save(using="other").delete()
    with databases.using("other"):
        Book(title="z").save().delete()
    assert [each["using"] for each in heard] == ["other"] * 6
    with pytest.raises(UnknownAlias):
        Book.objects.get().delete(using="nowhere")
    assert len(heard) == 6


@MEMORY
def test_without_a_key_there_is_nothing_to_delete(Base, registry, Book, heard, wire, databases):
    """An error before any SQL, also for an incomplete or invalid key; no block is doomed."""

    class Pair(Base):
        left: Field[int] = field(primary_key=True)
        right: Field[int] = field(primary_key=True)

    registry.create_all("default")
    wrong = Book(title="x")
    wrong.id = "7"
    expression = Book(title="x")
    expression.id = Book.id + 1
    with wire.record() as sent, databases.atomic():
        with pytest.raises(UnsavedError, match=r"^Book has no key, and a delete needs one$"):
            Book(title="x").delete()
        with pytest.raises(UnsavedError, match=r"^Pair has no key, and a delete needs one$"):
            Pair(left=1, right=None).delete()
        for instance in (wrong, expression):
            with muted(pre_delete), pytest.raises(InvalidValue):
                instance.delete()
        assert Book.objects.count() == 0
    for instance in (wrong, expression):
        with pytest.raises(InvalidValue), muted([pre_delete, post_delete]):
            instance.delete()
    assert (len(sent), heard) == (1, [])


@MEMORY
def test_all_are_told_before_the_first_row_goes_and_again_when_all_are_gone(Book, listen, wire):
    """In the order of the query."""
    order = []
    for title in ("a", "b"):
        Book(title=title).save()

    def gone():
        return sum(each.startswith("DELETE") for each in wire.texts)

    listen(
        pre_delete, lambda instance, **kwargs: order.append(("before", instance.title, gone())), sender=Book
    )
    listen(
        post_delete, lambda instance, **kwargs: order.append(("after", instance.title, gone())), sender=Book
    )
    query = Book.objects.order_by(Book.title.desc())
    assert query.delete() == (2, {Book.__schema__.label: 2})
    assert order == [("before", "b", 0), ("before", "a", 0), ("after", "b", 1), ("after", "a", 1)]


def test_a_query_deletes_by_one_statement_where_nobody_listens(Book, wire, stored):
    for number in range(5):
        Book(title="x", pages=number).save()
    with wire.record() as sent:
        assert Book.objects.filter(Book.pages > 1).delete() == (3, {Book.__schema__.label: 3})
        assert Book.objects.filter(Book.pages > 1).delete() == (0, {})
    assert [each.split()[0] for each in sent] == ["DELETE", "DELETE"]
    assert stored(Book, "pages") == [0, 1]
    Book.objects.delete()
    assert stored(Book) == []


@pytest.mark.parametrize("signal", [pre_delete, post_delete])
def test_a_query_fetches_its_rows_where_somebody_listens(Book, listen, wire, stored, signal):
    """`origin` is the query."""
    told = []
    for number in range(3):
        Book(title="x", pages=number).save()
    listen(signal, lambda instance, origin, **kwargs: told.append((instance.pages, origin)), sender=Book)
    query = Book.objects.filter(Book.pages > 0).order_by("pages")
    with wire.record() as sent:
        assert query.delete() == (2, {Book.__schema__.label: 2})
    assert [each.split()[0] for each in sent] == ["SELECT", "DELETE"]
    assert [(pages, origin is query) for pages, origin in told] == [(1, True), (2, True)]
    assert stored(Book, "pages") == [0]
    assert Book.objects.filter(Book.pages > 10).delete() == (0, {})


@pytest.mark.parametrize("step", ["before", "sql", "after"])
@pytest.mark.parametrize("inside", [False, True])
def test_a_failed_delete_leaves_rows_and_instance_as_they_were(
    Book, registry, databases, listen, stored, step, inside
):
    """Receivers and SQL share one transaction; an open block is doomed, unless the delete was in a nested one."""
    book = Book(title="x").save()

    def fail(instance, **kwargs):
        if step == "sql":
            with databases.connection() as connection:
                connection.execute(text("DELETE FROM nowhere"))
        raise Broken

    listen(post_delete if step == "after" else pre_delete, fail, sender=Book)
    before, rows = look(book), stored(Book)
    error = DBAPIError if step == "sql" else Broken
    if inside:
        with databases.atomic():
            kept = Book(title="kept").save()
            with pytest.raises(error), databases.atomic():
                book.delete()
            assert look(book) == before
        assert stored(Book, "title") == ["x", "kept"]
        assert kept.id
        with pytest.raises(TransactionError, match="was rolled back"), databases.atomic():
            with pytest.raises(error) as raised:
                book.delete()
            with pytest.raises(TransactionError, match="is doomed") as refused:
                book.save()
            assert refused.value.__cause__ is raised.value
    else:
        with pytest.raises(error):
            book.delete()
        assert stored(Book) == rows
    assert look(book) == before


@MEMORY
def test_a_receiver_that_hides_an_error_deletes_nothing(Book, databases, listen, stored):

    def hide(**kwargs):
        with pytest.raises(DBAPIError), databases.connection() as connection:
            connection.execute(text("SELECT * FROM nowhere"))

    book = Book(title="x").save()
    for signal in (pre_delete, post_delete):
        listen(signal, hide, sender=Book)
        with pytest.raises(TransactionError):
            book.delete()
        signal.disconnect(hide, sender=Book)
    assert (stored(Book, "id"), book._state.adding) == ([book.id], False)


def test_a_rollback_after_a_delete_restores_the_instance(Book, databases, stored, undone):
    """Of the open block and of a savepoint; for an instance and for a query."""
    book, other = Book(title="x").save(), Book(title="y").save()
    before = look(book)
    with undone():
        book.delete()
        assert book.id is None
    assert look(book) == before
    with databases.atomic():
        with undone():
            book.delete()
        assert look(book) == before
        with undone():
            book.delete()
            book.save()
            assert book.id not in (None, before[0]["id"])
        assert look(book) == before
        other.delete()
    assert stored(Book, "id") == [book.id]
    assert other.id is None
    with undone():
        book.delete()
        book.id = 4711
    assert book.id == 4711


@MEMORY
def test_a_muted_delete_tells_nobody_and_dooms_nothing_early(Book, heard, databases):
    book = Book(title="x").save()
    with muted([pre_delete, post_delete]):
        book.delete()
    assert (heard, Book.objects.count()) == ([], 0)


@MEMORY
def test_a_delete_sends_no_save_signals_and_a_save_no_delete_signals(Book, listen, heard):
    saves = []
    listen(pre_save, lambda **kwargs: saves.append(1), sender=Book)
    listen(post_save, lambda **kwargs: saves.append(1), sender=Book)
    book = Book(title="x").save()
    assert (len(saves), heard) == (2, [])
    book.delete()
    assert (len(saves), len(heard)) == (2, 2)


@MEMORY
def test_a_receiver_may_save_elsewhere_in_the_same_transaction(Book, registry, listen, databases, stored):
    """The alias of the delete is the current one."""

    class Audit(Model, registry=registry):
        text: Field[str]

    registry.create_all()

    def note(instance, **kwargs):
        Audit(text=f"{instance.id}").save()

    def fail(**kwargs):
        raise Broken

    book = Book(title="x").save(using="other")
    key = book.id
    listen(pre_delete, note, sender=Book)
    listen(post_delete, note, sender=Book)
    listen(post_delete, fail, sender=Book)
    with pytest.raises(Broken):
        book.delete()
    assert stored(Audit, alias="other") == []
    post_delete.disconnect(fail, sender=Book)
    book.delete()
    assert (stored(Audit, "text", alias="other"), stored(Audit)) == ([str(key)] * 2, [])


@MEMORY
class TestOnCommit:
    """`delivery="on_commit"` for deletes."""

    def test_it_gets_a_copy_that_still_has_the_key(self, Book, listen, databases, undone):
        """`origin` is that copy, too."""
        told = []

        def note(instance, origin, using, **kwargs):
            told.append((instance.id, instance.title, origin is instance, using))

        listen(post_delete, note, sender=Book, delivery="on_commit")
        alone, inside, never = (Book(title=title).save() for title in ("alone", "inside", "never"))
        keys = alone.id, inside.id
        alone.delete()
        with databases.atomic():
            inside.delete()
            inside.title = "later"
            assert len(told) == 1
        with undone():
            never.delete()
        assert told == [(keys[0], "alone", True, "default"), (keys[1], "inside", True, "default")]

    def test_with_nothing_open_the_row_is_gone_for_everybody(self, Book, listen, wire):
        """By one statement, without a transaction."""
        others = []

        def look(**kwargs):
            thread = threading.Thread(target=lambda: others.append(Book.objects.count()))
            thread.start()
            thread.join()

        book = Book(title="x").save()
        listen(post_delete, look, sender=Book, delivery="on_commit")
        with wire.everything() as sent:
            book.delete()
        assert others == [0]
        assert [each.split()[0] for each in sent] == ["DELETE", "SELECT"]

    def test_its_error_comes_when_the_row_is_gone(self, Book, listen, databases):
        """All receivers run, and the instance is deleted."""
        ran = []

        def fail(**kwargs):
            ran.append("fail")
            raise Broken

        listen(post_delete, fail, sender=Book, delivery="on_commit")
        listen(post_delete, lambda **kwargs: ran.append("next"), sender=Book, delivery="on_commit")
        alone, inside = Book(title="alone").save(), Book(title="inside").save()
        with pytest.raises(AfterCommitError) as caught:
            alone.delete()
        assert isinstance(caught.value.__cause__, Broken)
        with pytest.raises(AfterCommitError), databases.atomic():
            inside.delete()
        assert ran == ["fail", "next"] * 2
        assert (alone.id, inside.id, Book.objects.count()) == (None, None, 0)


@MEMORY
@pytest.mark.sync_only("calls without await, on a loop of its own")
def test_on_a_running_loop_async_receivers_are_an_error_before_anything_ran(Book, listen, databases, wire):
    """For an instance and for a query; the block stays usable; without a loop they run."""
    ran = []

    async def receive(**kwargs):
        ran.append("async")

    book = Book(title="x").save()
    listen(pre_delete, lambda **kwargs: ran.append("sync"), sender=Book)
    listen(post_delete, receive, sender=Book)

    async def main():
        for delete in (book.delete, Book.objects.delete):
            with pytest.raises(RuntimeError, match="on a running event loop"):
                delete()
        with databases.atomic():
            for delete in (book.delete, Book.objects.delete):
                with pytest.raises(RuntimeError, match="on a running event loop"):
                    delete()
            return Book.objects.count()

    with wire.record() as sent:
        assert asyncio.run(main()) == 1
    assert (ran, len(sent)) == ([], 1)
    book.delete()
    assert ran == ["sync", "async"]


@MEMORY
def test_a_delete_in_a_readonly_block_is_refused(Book, heard, databases):
    """For an instance and for a query; the block stays usable."""
    book = Book(title="x").save()
    with databases.atomic(readonly=True):
        for delete in (book.delete, Book.objects.delete):
            with pytest.raises(TransactionError, match="^the block on 'default' is read-only$"):
                delete()
        assert Book.objects.count() == 1
    assert heard == []


@MEMORY
@pytest.mark.parametrize("told", [False, True])
def test_a_delete_on_another_alias_than_the_open_block_is_noted(
    Book, registry, databases, listen, caplog, told
):
    registry.create_all("other")
    book, rest = Book(title="x").save(using="other"), Book(title="y").save(using="other")
    if told:
        listen(pre_delete, lambda **kwargs: None, sender=Book)
    for delete in (book.delete, Book.objects.using("other").delete):
        caplog.clear()
        with databases.atomic():
            delete()
        assert [record.getMessage() for record in caplog.records] == [
            "a write to 'other' inside a block on 'default' is not part of the block: it is committed separately"
        ]
    assert (rest.id is None, Book.objects.using("other").count()) == (False, 0)


@pytest.mark.parametrize("inside", [False, True])
def test_an_instance_that_a_receiver_saved_again_keeps_its_key(Book, listen, databases, stored, inside):
    """It has a row again, the same or a new one; other deleted instances lose their keys."""
    again, anew, gone = books = [Book(title=title).save() for title in ("again", "anew", "gone")]
    key = again.id

    def save(instance, **kwargs):
        if instance is anew:
            instance.id = None
            instance.save(force_insert=True)
        elif instance is again:
            instance.save(force_insert=True)

    listen(post_delete, save, sender=Book)
    for book in books:
        if inside:
            with databases.atomic():
                book.delete()
        else:
            book.delete()
    assert (again.id, gone.id) == (key, None)
    assert anew.id is not None
    assert stored(Book, "id") == sorted([again.id, anew.id])
    assert all(book.changes() == {} for book in (again, anew))


@pytest.mark.parametrize("delivery", ["immediate", "on_commit"])
@pytest.mark.parametrize("inside", [False, True])
def test_receivers_can_read_deferred_fields_of_what_is_deleted(Book, listen, databases, delivery, inside):
    """They are loaded before the row is gone; values that were assigned stay."""
    seen = []
    listen(
        post_delete,
        lambda instance, **kwargs: seen.append((instance.title, instance.pages)),
        sender=Book,
        delivery=delivery,
    )
    keys = [Book(title=title, pages=5).save().id for title in "abc"]
    light, changed, gone = (Book.objects.only("title").get(id=key) for key in keys)
    changed.pages = 7
    with databases.atomic() if inside else contextlib.nullcontext():
        assert light.delete()[0] == 1
        assert changed.delete()[0] == 1
    assert seen == [("a", 5), ("b", 7)]
    Book.objects.filter(id=gone.id).delete()
    del seen[:]
    assert gone.delete()[0] == 0
    assert seen == []


def test_without_receivers_of_the_deletion_nothing_is_loaded(Book, listen, wire):
    light = Book.objects.only("title").get(id=Book(title="a").save().id)
    with wire.everything() as sent:
        light.delete()
    assert [each.split()[0] for each in sent if each.split()[0] in ("SELECT", "DELETE")] == ["DELETE"]
