"""A save is all or nothing: after any error, the row and the instance are as before."""

from typing import Any

import pytest
from sqlalchemy import ForeignKeyConstraint, func, literal, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from microorm import Field, InvalidValue, Model, TransactionError, field, muted
from microorm.signals import post_save, pre_save


class Broken(Exception):
    """The error of failing receivers."""


def look(instance: Any) -> dict[str, Any]:
    """Return everything that a failed save must not change."""
    return {
        "values": dict(vars(instance)),
        "pk": instance.pk,
        "state": (instance._state.adding, instance._state.db),
        "changes": instance.changes(),
    }


STEPS = ("pre_save", "on_update", "value", "sql", "not updated", "post_save")


@pytest.fixture
def breaks():
    """The steps at which saves fail from now on."""
    return set()


@pytest.fixture
def Event(Base, registry, breaks, listen):
    """A model with an on_update field, a server default, and receivers before and after the save."""
    ticks = iter(range(1, 1000))

    def tick():
        if "on_update" in breaks:
            raise Broken("on_update")
        return next(ticks)

    class Event(Base):
        name: Field[str] = field(max_length=40, unique=True)
        note: Field[str | None] = field(default=None, max_length=5)
        stamp: Field[int] = field(on_update=tick)
        made: Field[int] = field(server_default="7")

    registry.create_all("default")

    def before(instance, **kwargs):
        if "pre_save" in breaks:
            raise Broken("pre_save")

    def after(instance, **kwargs):
        if "post_save" in breaks:
            raise Broken("post_save")

    listen(pre_save, before, sender=Event)
    listen(post_save, after, sender=Event)
    return Event


def fail(Event, step, breaks) -> tuple[Any, dict[str, Any], type[Exception]]:
    """Return an instance whose save fails at *step*, the flags of that save, and the error."""
    instance = Event.objects.get(name="kept")
    instance.note = "new"
    breaks.add(step)
    if step == "value":
        instance.note = "too long"
        return instance, {}, InvalidValue
    if step == "sql":
        instance.name = "taken"
        return instance, {}, IntegrityError
    if step == "not updated":
        instance.id = 10**6
        return instance, {"force_update": True}, Event.NotUpdated
    return instance, {}, Broken


@pytest.fixture
def rows(Event):
    return rows_again(Event)


def rows_again(Event) -> list[Any]:
    """The two rows that a failure is tried on, and no others."""
    Event.objects.delete()
    return [Event(name="kept").save(), Event(name="taken").save()]


def test_a_failed_save_leaves_row_and_instance_as_they_were(Event, breaks, stored, subtests):
    """Outside a block, receivers and SQL share one transaction, which an error rolls back."""
    for step in STEPS:
        with subtests.test(step):
            check_a_failed_save(Event, rows_again(Event), breaks, stored, step)


def check_a_failed_save(Event, rows, breaks, stored, step) -> None:
    instance, flags, error = fail(Event, step, breaks)
    before, table = look(instance), stored(Event)
    with pytest.raises(error):
        instance.save(**flags)
    assert look(instance) == before
    assert stored(Event) == table
    breaks.clear()
    instance.id, instance.name, instance.note = rows[0].id, "other", "fine"
    instance.save()
    assert stored(Event, "name", "note")[0] == ("other", "fine")


def test_a_failed_insert_leaves_the_instance_new(Event, breaks, stored, subtests):
    """Without a key and an alias, and still adding; a later save inserts it."""
    for step in STEPS:
        with subtests.test(step):
            Event.objects.delete()
            check_a_failed_insert(Event, breaks, stored, step)


def check_a_failed_insert(Event, breaks, stored, step) -> None:
    Event(name="taken").save()
    instance = Event(name="taken" if step == "sql" else "new", note="too long" if step == "value" else "x")
    breaks.add(step)
    before = look(instance)
    if step == "not updated":
        with pytest.raises(ValueError):
            instance.save(force_update=True)
    else:
        with pytest.raises((Broken, InvalidValue, IntegrityError)):
            instance.save()
    assert look(instance) == before
    assert (instance.id, instance.made, instance.stamp) == (None, None, None)
    assert instance._state.adding
    assert stored(Event, "name") == ["taken"]
    breaks.clear()
    instance.name, instance.note = "new", "x"
    instance.save()
    assert stored(Event, "name") == ["taken", "new"]
    assert (instance.made, instance._state.adding, instance.changes()) == (7, False, {})


def test_in_a_block_a_failed_save_dooms_it(Event, databases, breaks, stored, subtests):
    """Later statements and a normal end raise an error whose cause is the first one."""
    for step in STEPS:
        with subtests.test(step):
            check_a_doomed_block(Event, rows_again(Event), databases, breaks, stored, step)


def check_a_doomed_block(Event, rows, databases, breaks, stored, step) -> None:
    table, first = stored(Event), Event(name="first")
    block = databases.atomic()
    block.__enter__()
    first.save()
    instance, flags, error = fail(Event, step, breaks)
    before = look(instance)
    with pytest.raises(error) as raised:
        instance.save(**flags)
    assert look(instance) == before
    breaks.clear()
    for statement in (
        instance.save,
        Event(name="later").save,
        instance.delete,
        instance.refresh_from_db,
        lambda: Event.objects.get(name="kept"),
        lambda: Event.objects.filter(Event.id > 0).all(),
        Event.objects.count,
        lambda: Event.objects.update(note="x"),
        lambda: Event.objects.bulk_create([Event(name="bulk")]),
    ):
        with pytest.raises(TransactionError, match=r"^the block on 'default' is doomed by") as refused:
            statement()
        assert refused.value.__cause__ is raised.value
    with pytest.raises(TransactionError) as left:
        block.__exit__(None, None, None)
    assert left.value.__cause__ is raised.value
    assert str(left.value).startswith("the block on 'default' was rolled back because of an earlier error: ")
    assert stored(Event) == table
    assert (first.id, first._state.adding) == (None, True)
    instance.id, instance.name, instance.note = rows[0].id, "other", "fine"
    instance.save()
    assert stored(Event, "name") == ["other", "taken"]


def save_both(Event, instance, breaks, flags) -> None:
    """Save another instance, and then the one that fails."""
    failing = set(breaks)
    breaks.clear()
    Event(name="inner").save()
    breaks |= failing
    instance.save(**flags)


def test_a_nested_block_is_the_way_to_catch_and_go_on(Event, databases, breaks, stored, subtests):
    """The savepoint rolls back the failed save alone."""
    for step in STEPS:
        with subtests.test(step):
            rows_again(Event)
            check_a_nested_block(Event, databases, breaks, stored, step)


def check_a_nested_block(Event, databases, breaks, stored, step) -> None:
    with databases.atomic():
        first = Event(name="first").save()
        instance, flags, error = fail(Event, step, breaks)
        before = look(instance)
        with pytest.raises(error), databases.atomic():
            save_both(Event, instance, breaks, flags)
        assert look(instance) == before
        breaks.clear()
        last = Event(name="last").save()
    assert stored(Event, "name", "note") == [("kept", None), ("taken", None), ("first", None), ("last", None)]
    assert [first.id, last.id] == stored(Event, "id")[2:]


@pytest.mark.backends("sqlite-memory")
def test_a_save_that_nothing_ran_for_dooms_no_block(Book, databases, listen, stored):
    """A value or argument that is refused before receivers or SQL ran."""
    with databases.atomic():
        first = Book(title="first").save()
        for wrong in (
            lambda: Book(title=3).save(),
            lambda: first.save(update_fields=["titel"]),
            lambda: Book(title="x").save(force_update=True),
        ):
            with pytest.raises(ValueError):
                wrong()
        unsent = Book(title="x")
        unsent.id = Book.id + 1
        with pytest.raises(InvalidValue) as raised:
            unsent.save()
        assert str(raised.value) == "Book.id is the primary key, and must be a value, not an expression"
        listen(post_save, lambda **kwargs: None, sender=Book)
        with pytest.raises(InvalidValue):
            Book(title=3).save()
        assert isinstance(unsent.id, type(Book.id + 1))
        Book(title="last").save()
    assert stored(Book, "title") == ["first", "last"]


@pytest.mark.backends("sqlite-memory")
def test_an_update_that_found_no_row_dooms_the_block_although_nobody_listens(Book, databases):
    """SQL has run; the error is the cause."""
    book = Book(title="x").save()
    Book.objects.delete()
    with pytest.raises(TransactionError) as left, databases.atomic():
        with pytest.raises(Book.NotUpdated) as raised:
            book.save(force_update=True)
    assert left.value.__cause__ is raised.value


@pytest.mark.backends("sqlite-memory")
def test_receivers_that_did_not_run_doom_no_block(Book, databases, listen, stored):
    """Muted receivers, and those that skip raw saves."""
    listen(pre_save, lambda **kwargs: None, sender=Book, skip_raw=True)
    with databases.atomic():
        with pytest.raises(InvalidValue):
            Book(title=3).save(raw=True)
        with muted(pre_save), pytest.raises(InvalidValue):
            Book(title=3).save()
        Book(title="last").save()
    assert stored(Book, "title") == ["last"]


def test_a_receiver_that_hides_an_error_saves_nothing(Book, databases, listen, stored):
    """The receiver has doomed the block, so the save sends no SQL and raises an error."""

    def hide(instance, **kwargs):
        with pytest.raises(DBAPIError), databases.connection() as connection:
            connection.execute(text("SELECT * FROM nowhere"))

    told = []
    listen(pre_save, hide, sender=Book)
    listen(post_save, lambda **kwargs: told.append(kwargs), sender=Book)
    book = Book(title="x")
    with pytest.raises(TransactionError, match="is doomed by an earlier error") as raised:
        book.save()
    assert isinstance(raised.value.__cause__, DBAPIError)
    assert (told, book.id, book._state.adding, stored(Book)) == ([], None, True, [])


def test_a_post_save_receiver_that_hides_an_error_saves_nothing(Book, databases, listen, stored):
    """The rollback is reported."""

    def hide(instance, **kwargs):
        with pytest.raises(DBAPIError), databases.connection() as connection:
            connection.execute(text("SELECT * FROM nowhere"))

    listen(post_save, hide, sender=Book)
    book = Book(title="x")
    with pytest.raises(TransactionError, match="was rolled back because of an earlier error"):
        book.save()
    assert (book.id, book._state.adding, stored(Book)) == (None, True, [])


@pytest.mark.backends("sqlite-memory")
@pytest.mark.parametrize("signal", [pre_save, post_save])
def test_an_interruption_undoes_a_save_as_any_error_does(Book, databases, listen, stored, signal):
    """KeyboardInterrupt is not an Exception."""

    def interrupt(**kwargs):
        raise KeyboardInterrupt

    listen(signal, interrupt, sender=Book)
    book = Book(title="x")
    with pytest.raises(KeyboardInterrupt):
        book.save()
    with pytest.raises(TransactionError), databases.atomic(), pytest.raises(KeyboardInterrupt):
        book.save()
    assert (book.id, book._state.adding, stored(Book)) == (None, True, [])


def test_a_rollback_restores_every_instance_of_the_block(Event, rows, stored, undone):
    """Key, `_state`, on_update and server values, and loaded values, however the row was written."""
    kept, taken = (Event.objects.get(name=name) for name in ("kept", "taken"))
    new, keyed, many = Event(name="new"), Event(name="keyed"), [Event(name="a"), Event(name="b")]
    keyed.id = 500
    kept.note = "u"
    partly = Event.objects.get(name="kept")
    partly.note, partly.name = "part", "changed"
    gone = Event.objects.get(name="kept")
    everybody = [kept, taken, new, keyed, *many, partly, gone]
    before, table = [look(each) for each in everybody], stored(Event)
    with undone():
        new.save()
        keyed.save()
        kept.save()
        partly.save(update_fields=["note"])
        Event.objects.bulk_create(many)
        taken.save(raw=True)
        gone.delete()
        assert (gone.id, new.made, keyed._state.db, kept.changes()) == (None, 7, "default", {})
        assert partly.changed_fields == {"name"}
    assert [look(each) for each in everybody] == before
    assert stored(Event) == table


def test_what_the_caller_set_stays_and_counts_as_changed_again(Event, rows, undone):
    """A rollback undoes what microorm has set, not what the caller has set."""
    instance = Event.objects.get(name="kept")
    stamp = instance.stamp
    instance.note = "saved"
    with undone():
        instance.save()
        assert instance.changes() == {}
        assert instance.stamp != stamp
        instance.name = "later"
    assert (instance.note, instance.name, instance.stamp) == ("saved", "later", stamp)
    assert instance.changes() == {"note": (None, "saved"), "name": ("kept", "later")}
    instance.save()
    assert instance.changes() == {}


@pytest.mark.backends("sqlite-memory")
def test_a_made_value_that_the_caller_replaced_stays_replaced(Event, undone):
    """A key or on_update value that the caller has set after the save."""
    instance = Event(name="x")
    with undone():
        instance.save()
        instance.id, instance.stamp = 4711, -1
    assert (instance.id, instance.stamp, instance.made) == (4711, -1, None)
    assert instance._state.adding


def test_each_savepoint_restores_the_instance_to_what_it_was_at_its_beginning(
    Event, databases, stored, undone
):
    """An instance that was saved at several levels is restored level by level."""
    instance = Event(name="zero")
    levels = [look(instance)]
    with undone():
        instance.save()
        instance.name = "one"
        instance.save()
        levels.append(look(instance))
        with undone():
            instance.note = "two"
            instance.save()
            inner = look(instance)
            with undone():
                instance.delete()
            assert look(instance) == inner
            with databases.atomic():
                instance.save()
        instance.note = None
        assert look(instance) == levels[1]
        instance.note = "three"
        with databases.atomic():
            instance.save()
        assert Event.objects.get(name="one").note == "three"
    instance.name, instance.note = "zero", None
    assert look(instance) == levels[0]
    assert stored(Event) == []


def test_a_kept_savepoint_hands_its_instances_to_the_block_around_it(Event, databases, stored, undone):
    """A released savepoint is not committed yet."""
    inner, both = Event(name="inner"), Event(name="both")
    before = [look(inner), look(both)]
    with undone():
        both.save()
        with databases.atomic():
            inner.save()
            both.save()
    assert [look(inner), look(both)] == before
    with databases.atomic():
        with databases.atomic():
            inner.save()
        both.save()
    assert stored(Event, "name") == ["inner", "both"]


@pytest.mark.backends("sqlite-memory")
def test_an_instance_that_died_is_no_trouble_for_a_rollback(Event, databases, stored, undone):
    """The undo log keeps no instance alive."""
    with undone():
        for number in range(50):
            Event(name=f"n{number}").save()
        with databases.atomic():
            Event(name="inner").save()
    assert stored(Event) == []


@pytest.mark.backends("sqlite-file", "sqlite-memory", "postgresql")  # MariaDB defers no constraint
def test_a_commit_that_the_database_refuses_restores_the_instances(databases, registry, listen, stored):
    """Outside a block, with receivers, and in a block."""

    class Node(
        Model,
        registry=registry,
        table_args=(ForeignKeyConstraint(["parent"], ["node.id"], deferrable=True, initially="DEFERRED"),),
    ):
        parent: Field[int | None] = field(default=None)

    registry.create_all("default")
    node = Node(parent=4711)
    before = look(node)
    with pytest.raises(IntegrityError):
        node.save()
    assert look(node) == before
    with pytest.raises(IntegrityError), databases.atomic():
        node.save()
    assert look(node) == before
    listen(post_save, lambda **kwargs: None, sender=Node)
    with pytest.raises(IntegrityError):
        node.save()
    assert look(node) == before
    assert stored(Node) == []


def test_an_expression_is_readable_after_the_save(Book, databases, stored, wire):
    """Its result is read, outside and inside a block; other values stay."""
    book = Book(title="x", pages=10).save()
    book.pages = Book.pages + 1
    assert book.changed_fields == {"pages"}
    with wire.record() as sent:
        book.save()
    assert [text.split()[0] for text in sent] == ["UPDATE", "SELECT"]
    assert (book.pages, book.changes()) == (11, {})
    with databases.atomic():
        book.pages, book.title = Book.pages * 2, func.upper("abc")
        book.save()
        assert (book.pages, book.title) == (22, "ABC")
    book.pages, book.title = Book.pages - 2, "unsaved"
    book.save(update_fields=["pages"])
    assert (book.pages, book.title, book.changes()) == (20, "unsaved", {"title": ("ABC", "unsaved")})
    assert stored(Book, "pages", "title") == [(20, "ABC")]


def test_an_expression_is_inserted_and_read_back_with_what_the_database_made(Event, stored, wire):
    """Key, server default and expression; a row that does not exist is inserted."""
    event = Event(name=func.lower("NEW"))
    with wire.record() as sent:
        event.save()
    assert [each.split()[0] for each in sent] == ["INSERT", "SELECT"]
    assert (event.name, event.made, event._state.adding, event.changes()) == ("new", 7, False, {})
    assert stored(Event, "id", "name") == [(event.id, "new")]
    keyed = Event(name=select(literal("from a query")).scalar_subquery())
    keyed.id = 900
    with wire.record() as sent:
        keyed.save()
    assert [each.split()[0] for each in sent] == ["UPDATE", "INSERT", "SELECT"]
    assert (keyed.name, keyed.made, keyed.id) == ("from a query", 7, 900)
    forced = Event(name=func.lower("FORCED"))
    forced.id = 901
    with wire.record() as sent:
        forced.save(force_insert=True)
    assert [each.split()[0] for each in sent] == ["INSERT", "SELECT"]
    assert stored(Event, "name")[1:] == ["from a query", "forced"]


@pytest.mark.parametrize("inside", [False, True])
def test_an_expression_that_is_not_saved_is_an_expression_still(Event, rows, breaks, undone, inside):
    """It is restored after an error and after a rollback, so that the next save evaluates it again."""
    event = Event.objects.get(name="kept")
    double = event.stamp * 0 + Event.id * 2
    event.note = "x"
    event.made = double
    before = look(event)["values"]
    if inside:
        with undone():
            event.save()
            assert event.made == event.id * 2
    else:
        breaks.add("post_save")
        with pytest.raises(Broken):
            event.save()
        breaks.clear()
    assert event.made is double
    assert vars(event) == before
    assert event.changed_fields == {"note", "made"}
    event.save()
    assert event.made == event.id * 2


def test_an_expression_for_a_row_that_is_gone_is_not_updated(Book):
    """With the same errors as for plain values."""
    book = Book(title="x").save()
    Book.objects.delete()
    book.pages = Book.pages + 1
    expression = book.pages
    for flags in ({"force_update": True}, {"update_fields": ["pages"]}):
        with pytest.raises(Book.NotUpdated, match=rf"^Book with id={book.id} is not in 'default'$"):
            book.save(**flags)
        assert book.pages is expression


@pytest.mark.backends("sqlite-memory")
def test_on_update_is_called_once_for_a_save(Base, registry):
    """Also if an expression needs a transaction."""
    calls = []

    class Counter(Base):
        hits: Field[int] = field(default=0)
        stamp: Field[int] = field(on_update=lambda: calls.append(1) or len(calls))

    registry.create_all("default")
    counter = Counter().save()
    counter.hits = Counter.hits + 1
    counter.save()
    assert (counter.hits, counter.stamp, len(calls)) == (1, 2, 2)


def test_a_change_in_place_is_noticed(Book, stored):
    """The loaded state has a copy of each mutable value; after load, save and partial save."""
    book = Book(title="x", tags=["a"]).save()
    book.tags.append("b")
    assert book.changes() == {"tags": (["a"], ["a", "b"])}
    book.save(update_fields=book.changed_fields)
    assert book.changes() == {}
    book.tags.append("c")
    assert book.changes() == {"tags": (["a", "b"], ["a", "b", "c"])}
    for loaded in (Book.objects.get(id=book.id), Book.objects.filter(Book.id > 0)[0]):
        loaded.tags.append("d")
        assert loaded.changes() == {"tags": (["a", "b"], ["a", "b", "d"])}
    loaded.save()
    loaded.tags.append("e")
    assert loaded.changed_fields == {"tags"}
    assert stored(Book, "tags") == [["a", "b", "d"]]


def test_a_deleted_instance_is_inserted_again(Base, registry, Book, stored):
    """With a new key if the database generates it, else with its own."""

    class Code(Base):
        code: Field[str] = field(primary_key=True, max_length=9)

    registry.create_all("default")
    for instance, model in ((Book(title="x").save(), Book), (Code(code="c").save(), Code)):
        instance.delete()
        instance.save()
        assert model.objects.get(pk=instance.pk) == instance
    assert (stored(Book, "title"), stored(Code)) == (["x"], ["c"])


def test_a_save_to_another_alias_copies_the_row_and_moves_the_instance(Book, registry, listen, stored):
    """UPDATE, then INSERT; the instance then belongs to the other alias; the old row stays."""
    registry.create_all("other")
    created = []
    book = Book(title="x").save()
    listen(
        post_save, lambda created, using, _made=created, **kwargs: _made.append((created, using)), sender=Book
    )
    book.save(using="other")
    assert (book._state.db, created) == ("other", [(True, "other")])
    book.title = "y"
    book.save()
    assert (book._state.db, created[1:]) == ("other", [(False, "other")])
    assert (stored(Book, "title"), stored(Book, "title", alias="other")) == (["x"], ["y"])


def test_a_failed_copy_leaves_the_instance_where_it_was(Book, registry, databases, stored, undone):
    """After an error, and after a rollback on the other alias; the first alias is not affected."""
    book = Book(title="x").save()
    with pytest.raises(DBAPIError):
        book.save(using="other")  # it has no table there
    assert book._state.db == "default"
    registry.create_all("other")
    with databases.atomic("default"):
        with undone("other"):
            book.save(using="other")
            assert book._state.db == "other"
        assert book._state.db == "default"
        book.title = "y"
        book.save()
    assert (stored(Book, "title"), stored(Book, alias="other")) == (["y"], [])
