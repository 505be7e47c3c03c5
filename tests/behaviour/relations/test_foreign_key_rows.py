"""Rows that refer to an instance by a foreign key: added, removed and set from that instance."""

from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from microorm import (
    CrossDatabaseRelation,
    Field,
    FieldError,
    ForeignKey,
    InvalidValue,
    Related,
    Router,
    TransactionError,
    UnsavedError,
    field,
    foreign_key,
    related,
)
from microorm.mapping.state import keep_related, kept_related
from microorm.signals import post_save, post_update, pre_save, pre_update

MEMORY = pytest.mark.backends("sqlite-memory")


class Broken(Exception):
    """What the failing receivers raise."""


@pytest.fixture(name="Novel")
def novel_model(Base: Any, registry: Any) -> Any:
    class Author(Base):
        name: Field[str] = field(max_length=40)
        novels: Related["Novel"] = related("author")
        edited: Related["Novel"] = related("editor")

    class Novel(Base):
        title: Field[str] = field(max_length=40)
        author: ForeignKey[Author] = foreign_key(on_delete="cascade")
        editor: ForeignKey[Author | None] = foreign_key(default=None)

    registry.create_all()
    return Novel


@pytest.fixture(name="Author")
def author_model(Novel: Any) -> Any:
    return Novel.__schema__.relations["author"].target


@pytest.fixture
def ursula(Author: Any, Novel: Any) -> Any:
    return Author(name="U").save()


@pytest.fixture
def terry(Author: Any, Novel: Any) -> Any:
    return Author(name="T").save()


@pytest.fixture
def novels(Novel: Any, ursula: Any) -> list[Any]:
    """Three novels by Ursula, which nobody edits."""
    return [Novel(title=title, author=ursula).save() for title in "abc"]


def state(instance: Any) -> tuple[Any, ...]:
    """What a failed change must leave alone."""
    return dict(vars(instance)), instance.changes(), instance._state.adding, instance._state.db


def test_a_row_is_created_with_the_owner(Novel, ursula, wire, stored):
    with wire.record() as sent:
        novel = ursula.novels.create(title="Lathe")
    assert [each.split()[0] for each in sent] == ["INSERT"]
    assert novel.author is ursula
    assert novel.changes() == {}
    assert stored(Novel, "title", "author_id") == [("Lathe", ursula.id)]
    assert ursula.novels.all() == [novel]


def test_saved_rows_are_added_by_one_statement_and_no_save(Novel, novels, terry, wire, listen, stored):
    told = []
    for signal in (pre_save, post_save):
        listen(signal, lambda **kwargs: told.append(kwargs), sender=Novel)
    with wire.record() as sent:
        terry.edited.add(*novels[:2], novels[0])
    assert [each.split()[0] for each in sent] == ["UPDATE"]
    assert told == []
    assert stored(Novel, "editor_id") == [terry.id, terry.id, None]
    for novel in novels[:2]:
        assert novel.editor is terry
        assert novel.changed_fields == frozenset()
    assert terry.edited.order_by("title").all() == novels[:2]


@MEMORY
def test_what_else_has_changed_stays_changed(Novel, novels, terry):
    novels[0].title = "other"
    terry.edited.add(novels[0])
    assert novels[0].changes() == {"title": ("a", "other")}


@MEMORY
def test_the_signals_of_an_update_tell_of_a_bulk_change(Novel, novels, terry, listen):
    told = []
    for signal in (pre_update, post_update):
        listen(signal, lambda values, using, **kwargs: told.append((values, using)), sender=Novel)
    terry.edited.add(*novels)
    terry.edited.remove(novels[0])
    terry.edited.clear()
    assert told == [({"editor": terry.id}, "default")] * 2 + [({"editor": None}, "default")] * 4


def test_without_bulk_each_is_saved_and_told(Novel, novels, ursula, terry, listen, stored):
    told = []

    def hear(instance: Any, created: bool, update_fields: Any, **kwargs: Any) -> None:
        told.append((instance.title, created, update_fields))

    listen(post_save, hear, sender=Novel)
    new = Novel(title="new", author=ursula)
    terry.edited.add(novels[0], new, bulk=False)
    assert told == [("a", False, None), ("new", True, None)]
    assert new.editor is terry
    told.clear()
    terry.edited.remove(new, bulk=False)
    assert new.editor is None
    terry.edited.clear(bulk=False)
    assert told == [("new", False, frozenset({"editor"})), ("a", False, frozenset({"editor"}))]
    terry.edited.set([novels[1]], bulk=False)
    assert stored(Novel, "title", "editor_id") == [("a", None), ("b", terry.id), ("c", None), ("new", None)]


def test_rows_are_removed_by_one_statement(Novel, novels, terry, wire, stored):
    terry.edited.add(*novels)
    with wire.record() as sent:
        terry.edited.remove(*novels[1:])
    assert [each.split()[0] for each in sent] == ["UPDATE"]
    assert stored(Novel, "editor_id") == [terry.id, None, None]
    assert [(novel.editor, novel.changes()) for novel in novels[1:]] == [(None, {})] * 2


def test_clear_removes_all_by_one_statement(Novel, novels, ursula, terry, wire, stored):
    terry.edited.add(*novels[:2])
    ursula.edited.add(novels[2])
    with wire.record() as sent:
        terry.edited.clear()
    assert [each.split()[0] for each in sent] == ["UPDATE"]
    assert stored(Novel, "editor_id") == [None, None, ursula.id]


def test_set_removes_what_is_too_much_and_adds_what_is_missing(Novel, novels, terry, wire, stored):
    terry.edited.set(novels[:2])
    with wire.record() as sent:
        terry.edited.set(iter(novels[1:]))
    assert [each.split()[0] for each in sent] == ["SELECT", "UPDATE", "UPDATE"]
    assert stored(Novel, "editor_id") == [None, terry.id, terry.id]
    with wire.record() as sent:
        terry.edited.set(terry.edited)
    assert [each.split()[0] for each in sent] == ["SELECT"] * 2
    with wire.record() as sent:
        terry.edited.set(novels[:1], clear=True)
    assert [each.split()[0] for each in sent] == ["UPDATE", "UPDATE"]
    assert stored(Novel, "editor_id") == [terry.id, None, None]
    terry.edited.set([])
    assert stored(Novel, "editor_id") == [None] * 3


@MEMORY
def test_set_lets_those_know_that_were_related_already(Novel, novels, terry):
    terry.edited.add(novels[0])
    twin = Novel.objects.get(title="a")
    twin.editor = None
    terry.edited.set([twin])
    assert (twin.editor, twin.changes()) == (terry, {})


@MEMORY
def test_no_row_is_taken_from_a_foreign_key_that_is_never_none(Novel, novels, ursula, terry, wire):
    with wire.everything() as sent:
        for change in (
            lambda: ursula.novels.remove(novels[0]),
            lambda: ursula.novels.clear(),
            lambda: ursula.novels.set([], clear=True),
        ):
            with pytest.raises(
                FieldError,
                match=r"\(\) of Author\.novels sets foreign keys to None, and Novel\.author is never None",
            ):
                change()
    assert sent == []
    with pytest.raises(FieldError, match="never None"):
        ursula.novels.set(novels[:2])
    terry.novels.set(novels)
    ursula.novels.set([])
    assert terry.novels.count() == 3


@MEMORY
def test_a_wrong_argument_is_an_error_before_anything_is_sent(Author, Novel, novels, terry, wire):
    with wire.everything() as sent:
        for wrong in (3, None, terry, "a", [novels[0]]):
            with pytest.raises(TypeError, match=r"add\(\) of Author\.edited takes instances of Novel, not "):
                terry.edited.add(novels[0], wrong)
        with pytest.raises(TypeError, match=r"remove\(\) of Author\.edited takes"):
            terry.edited.remove(terry)
        with pytest.raises(TypeError, match="list of instances or keys"):
            terry.edited.set("abc")
        with pytest.raises(
            UnsavedError, match=r"add\(\) of Author\.edited needs saved instances; .* is not saved"
        ):
            terry.edited.add(novels[0], Novel(title="new", author=terry))
        with pytest.raises(Novel.DoesNotExist, match=r"is not among edited of Author\(id="):
            terry.edited.remove(novels[0])
        with pytest.raises(UnsavedError, match="has no key yet"):
            Author(name="new").edited.add(novels[0])
        with pytest.raises(TypeError, match=r"through_defaults="):
            terry.edited.add(novels[0], through_defaults={})
        for name in ("author", "author_id"):
            with pytest.raises(TypeError, match=rf"create\(\) of Author\.novels sets '{name}' to "):
                terry.novels.create(title="x", **{name: terry})
        terry.edited.add()
        terry.edited.add(bulk=False)
        terry.edited.remove()
    assert sent == []
    assert novels[0].changes() == {}


@MEMORY
def test_a_row_that_is_gone_is_an_error_and_nothing_is_changed(Novel, novels, terry, stored):
    Novel.objects.filter(title="b").delete()
    before = [state(novel) for novel in novels]
    with pytest.raises(Novel.NotUpdated, match="2 of 3 rows could be changed for edited of Author"):
        terry.edited.add(*novels)
    assert [state(novel) for novel in novels] == before
    assert stored(Novel, "editor_id") == [None, None]


def test_instances_and_known_rows_come_back_with_a_rollback(Novel, novels, terry, undone, stored):
    before = [state(novel) for novel in novels]
    keep_related(terry, "edited", (terry.id, []))
    with undone():
        terry.edited.add(*novels)
        assert terry.edited.count() == 3
    assert [state(novel) for novel in novels] == before
    assert kept_related(terry, "edited") == (terry.id, [])
    with undone():
        terry.edited.create(title="d", author=terry)
    assert terry.edited.all() == []
    terry.edited.add(*novels)
    before = [state(novel) for novel in novels]
    for bulk in (True, False):
        with undone():
            terry.edited.remove(novels[0], bulk=bulk)
            terry.edited.clear(bulk=bulk)
            terry.edited.set(novels[:1], bulk=bulk)
            assert terry.edited.all() == novels[:1]
        assert [state(novel) for novel in novels] == before
    assert stored(Novel, "editor_id") == [terry.id] * 3


@MEMORY
@pytest.mark.parametrize("bulk", [True, False])
def test_a_change_is_all_or_nothing(Novel, novels, ursula, terry, listen, databases, stored, bulk):
    """An error half-way dooms the caller's block."""
    before = [state(novel) for novel in novels]

    def fail(**kwargs: Any) -> None:
        if bulk or kwargs["instance"].title == "b":
            raise Broken

    listen(post_update if bulk else post_save, fail, sender=Novel)
    with pytest.raises(Broken):
        terry.edited.add(*novels, bulk=bulk)
    assert [state(novel) for novel in novels] == before
    with pytest.raises(TransactionError), databases.atomic(), pytest.raises(Broken):
        terry.edited.add(*novels, bulk=bulk)
    assert [state(novel) for novel in novels] == before
    assert stored(Novel, "editor_id") == [None] * 3


@MEMORY
def test_a_save_that_fails_after_others_dooms_the_block(Novel, novels, terry, databases, stored):
    novels[1].title = "x" * 41
    with pytest.raises(TransactionError), databases.atomic(), pytest.raises(InvalidValue):
        terry.edited.add(*novels, bulk=False)
    assert stored(Novel, "editor_id") == [None] * 3
    with databases.atomic(), pytest.raises(InvalidValue):
        terry.edited.add(novels[1], bulk=False)  # nothing had run
    assert novels[1].editor is None


@MEMORY
def test_a_block_for_reading_changes_nothing(Novel, novels, terry, databases):
    with databases.atomic(readonly=True), pytest.raises(TransactionError, match="read-only"):
        terry.edited.add(*novels)
    assert novels[0].editor is None


def test_a_row_of_another_alias_is_refused(Novel, novels, ursula, terry, databases, stored):
    terry.save(using="other")
    for change in (terry.edited.add, terry.edited.using("default").add):
        for bulk in (True, False):
            with pytest.raises(
                CrossDatabaseRelation, match=r"edited of Author.* cannot have .* of 'default'"
            ):
                change(novels[0], bulk=bulk)
    with pytest.raises(CrossDatabaseRelation, match="cannot have rows in 'default'"):
        terry.novels.using("default").create(title="x")
    assert (novels[0].editor_id, stored(Novel, "editor_id")) == (None, [None] * 3)
    new = Novel(title="new", author_id=terry.id)
    terry.edited.add(new, bulk=False)
    assert new._state.db == "other"
    assert terry.novels.create(title="y")._state.db == "other"
    assert stored(Novel, "title", alias="other") == ["new", "y"]


@MEMORY
def test_a_router_picks_where_rows_are_changed(Novel, novels, terry, databases, url, other_url):
    """It is asked for the model of the rows, with the owner as a hint."""
    asked = []

    class Picks(Router):
        def db_for_write(self, model: Any, **hints: Any) -> str:
            asked.append((model, hints["instance"]))
            return "default"

    databases.routers = (Picks(),)
    try:
        terry.edited.add(novels[0])
    finally:
        databases.routers = ()
    assert asked == [(Novel, terry)]


def test_what_the_database_refuses_is_undone(Novel, novels, Author, ursula, stored):
    gone = Author(name="G").save()
    rows = gone.edited
    Author.objects.filter(id=gone.id).delete()
    with pytest.raises(IntegrityError):
        rows.add(novels[0])
    assert (novels[0].editor_id, novels[0].changes(), stored(Novel, "editor_id")) == (None, {}, [None] * 3)


def test_a_key_of_several_fields_and_another_field_referred_to(Base, registry, stored):
    class Shelf(Base):
        code: Field[str] = field(max_length=10, unique=True)
        places: Related["Place"] = related("shelf")

    class Place(Base):
        row: Field[int] = field(primary_key=True)
        seat: Field[int] = field(primary_key=True)
        shelf: ForeignKey[Shelf | None] = foreign_key(to_field="code", default=None)

    registry.create_all()
    shelf = Shelf(code="s").save()
    places = [Place(row=1, seat=seat).save() for seat in range(3)]
    shelf.places.add(*places[1:])
    assert stored(Place, "shelf_id") == [None, "s", "s"]
    shelf.places.set(places[:2])
    assert stored(Place, "shelf_id") == ["s", "s", None]
    shelf.places.remove(places[0])
    assert shelf.places.all() == [places[1]]


@MEMORY
@pytest.mark.parametrize("bulk", [True, False])
def test_the_owner_before_forgets_what_it_knows_too(Novel, novels, ursula, terry, undone, bulk):
    keep_related(ursula, "novels", (ursula.id, novels))
    with undone():
        terry.novels.add(novels[0], bulk=bulk)
        assert ursula.novels.all() == novels[1:]
    assert kept_related(ursula, "novels") == (ursula.id, novels)
    terry.novels.add(novels[0], bulk=bulk)
    assert kept_related(ursula, "novels") is None
