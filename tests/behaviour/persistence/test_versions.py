"""`version_field`: an instance that others have overtaken is neither saved nor deleted, and nothing is written for it."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

import microorm
from microorm import (
    Field,
    FieldError,
    ForeignKey,
    InvalidValue,
    Related,
    StaleUpdate,
    TransactionError,
    field,
    foreign_key,
    related,
    version_field,
)
from microorm.serialization import load_row
from microorm.signals import post_delete, post_save, pre_delete, pre_save

MEMORY = pytest.mark.backends("sqlite-memory")


@pytest.fixture
def Page(Base, registry) -> Any:
    class Page(Base):
        title: Field[str] = field(max_length=40, unique=True)
        visits: Field[int] = field(default=0)
        version: Field[int] = version_field()

    registry.create_all()
    return Page


@pytest.fixture
def page(Page) -> Any:
    return Page(title="home").save()


@pytest.fixture
def overtaken(Page, page) -> Any:
    """An instance that has read version 1 of a row that is in version 2 now, with a change that is not saved."""
    Page.objects.get().save()
    page.visits = 5
    return page


def test_each_save_increments_the_version(Page, wire, stored):
    page = Page(title="home")
    assert page.version is None
    with wire.record() as sent:
        page.save()
        assert page.version == 1
        page.visits = 1
        page.save()
        page.visits = 2
        page.save(update_fields=["visits"])
    assert [each.split()[0] for each in sent] == ["INSERT", "UPDATE", "UPDATE"]
    assert (page.version, page.changes()) == (3, {})
    assert stored(Page, "visits", "version") == [(2, 3)]


STALE_WRITES: dict[str, Any] = {
    "save": lambda page: page.save(),
    "force_update": lambda page: page.save(force_update=True),
    "update_fields": lambda page: page.save(update_fields=["visits"]),
    "bulk_update": lambda page: type(page).objects.bulk_update([page], ["visits"]),
    "delete": lambda page: page.delete(),
}


def test_a_stale_instance_is_not_written(Page, stored, subtests):
    """The error is the model's, and names the versions. The row and the instance are as they were."""
    for name, write in STALE_WRITES.items():
        with subtests.test(name):
            Page.objects.delete()
            overtaken = Page(title="home").save()
            Page.objects.get().save()
            overtaken.visits = 5
            check_stale(Page, overtaken, write, stored)


def check_stale(Page: Any, overtaken: Any, write: Any, stored: Any) -> None:
    with pytest.raises(Page.StaleUpdate) as raised:
        write(overtaken)
    assert isinstance(raised.value, StaleUpdate)
    assert str(raised.value) == f"Page with id={overtaken.id} has version 2 in 'default', not 1"
    assert raised.value.objects == (overtaken,)
    assert stored(Page, "title", "visits", "version") == [("home", 0, 2)]
    assert (overtaken.version, overtaken.changes()) == (1, {"visits": (0, 5)})
    overtaken.refresh_from_db()
    overtaken.visits = 6
    overtaken.save()
    assert stored(Page, "visits", "version") == [(6, 3)]


def test_an_expression_is_not_written_by_a_stale_instance_either(Page, overtaken, stored):
    overtaken.visits = Page.visits + 1
    with pytest.raises(Page.StaleUpdate, match="has version 2"):
        overtaken.save()
    with pytest.raises(Page.StaleUpdate, match="has version 2"):
        Page.objects.bulk_update([overtaken], ["visits"])
    assert overtaken.version == 1
    overtaken.version = 2
    overtaken.save()
    assert (overtaken.visits, overtaken.version) == (1, 3)
    assert stored(Page, "visits", "version") == [(1, 3)]


def test_a_row_that_was_deleted_is_not_inserted_again(Page, page, stored):
    Page.objects.delete()
    for save in (page.save, lambda: Page.objects.bulk_update([page], ["visits"])):
        with pytest.raises(Page.StaleUpdate) as raised:
            save()
        assert str(raised.value) == f"Page with id={page.id} is no longer in 'default', and had version 1"
    assert page.delete() == (0, {})
    assert stored(Page) == []


def test_a_stale_save_dooms_its_block_as_a_failed_save_does(Page, overtaken, databases):
    with pytest.raises(TransactionError) as raised, databases.atomic():
        with suppress(StaleUpdate):
            overtaken.save()
    assert isinstance(raised.value.__cause__, StaleUpdate)
    with databases.atomic():
        with suppress(StaleUpdate), databases.atomic():
            overtaken.save()
        assert Page.objects.get().version == 2


def test_a_rollback_restores_the_version_of_the_instance(Page, page, undone, stored):
    with undone():
        page.visits = 1
        page.save()
        page.save(update_fields=["visits"])
        Page.objects.bulk_update([page], ["visits"])
        assert page.version == 4
        new = Page(title="new").save()
    assert (page.version, page.changes(), new.version) == (1, {"visits": (0, 1)}, None)
    page.save()
    assert stored(Page, "visits", "version") == [(1, 2)]


def test_receivers_see_the_version_before_and_after(Page, page, listen):
    seen: list[Any] = []
    listen(pre_save, lambda instance, **_: seen.append((instance.version, instance.changes())), sender=Page)
    listen(post_save, lambda instance, **_: seen.append((instance.version, instance.changes())), sender=Page)
    page.visits = 1
    page.save()
    assert seen == [(1, {"visits": (0, 1)}), (2, {"visits": (0, 1), "version": (1, 2)})]


def test_a_receiver_that_saves_the_instance_again_counts_too(Page, page, listen, stored):
    def again(instance: Any, **_: Any) -> None:
        if instance.visits < 3:
            instance.visits += 1
            instance.save()

    listen(post_save, again, sender=Page)
    page.save()
    assert (page.visits, page.version) == (3, 5)
    assert stored(Page, "visits", "version") == [(3, 5)]


def test_no_post_save_follows_a_stale_save(Page, overtaken, listen):
    sent: list[str] = []
    listen(pre_save, lambda **_: sent.append("pre_save"), sender=Page)
    listen(post_save, lambda **_: sent.append("post_save"), sender=Page)
    with pytest.raises(StaleUpdate):
        overtaken.save()
    assert sent == ["pre_save"]


def test_a_stale_delete_with_receivers_writes_nothing(Page, overtaken, listen, stored):
    sent: list[str] = []
    listen(pre_delete, lambda **_: sent.append("pre_delete"), sender=Page)
    listen(post_delete, lambda **_: sent.append("post_delete"), sender=Page)
    with pytest.raises(Page.StaleUpdate, match="has version 2 in 'default', not 1"):
        overtaken.delete()
    assert sent == ["pre_delete"]
    assert overtaken.id is not None
    assert len(stored(Page)) == 1
    assert Page.objects.get().delete() == (1, {Page.__schema__.label: 1})
    assert overtaken.delete() == (0, {})


def test_bulk_update_names_all_stale_instances_and_writes_none(Page, stored):
    pages = Page.objects.bulk_create([Page(title=str(number)) for number in range(6)])
    assert {page.version for page in pages} == {1}
    Page.objects.get(title="1").save()
    Page.objects.filter(title="4").delete()
    for page in pages:
        page.visits = 1
    with pytest.raises(Page.StaleUpdate) as raised:
        Page.objects.bulk_update(pages, ["visits"], batch_size=2)
    assert raised.value.objects == (pages[1], pages[4])
    assert f"Page with id={pages[1].id} has version 2" in str(raised.value)
    assert f"id={pages[4].id} is no longer in 'default'" in str(raised.value)
    assert [page.version for page in pages] == [1] * 6
    assert stored(Page, "visits") == [0] * 5
    pages[1].refresh_from_db()
    del pages[4]
    pages[1].visits = 2
    assert Page.objects.bulk_update(pages, ["visits"], batch_size=2) == 5
    assert stored(Page, "visits", "version") == [(1, 2), (2, 3), (1, 2), (1, 2), (1, 2)]
    assert [page.version for page in pages] == [2, 3, 2, 2, 2]


def test_the_message_names_three_stale_instances_at_most(Page):
    pages = Page.objects.bulk_create([Page(title=str(number)) for number in range(5)])
    Page.objects.update(visits=1)
    with pytest.raises(Page.StaleUpdate, match="; and 2 more$") as raised:
        Page.objects.bulk_update(pages, ["visits"])
    assert raised.value.objects == tuple(pages)


def test_a_query_increments_the_versions_of_its_rows(Page, page, stored):
    Page(title="other").save()
    assert Page.objects.filter(title="home").update(visits=Page.visits + 1) == 1
    assert stored(Page, "visits", "version") == [(1, 2), (0, 1)]
    with pytest.raises(StaleUpdate):
        page.save()
    with pytest.raises(FieldError, match=r"^Page\.version is the version, which each update increments$"):
        Page.objects.update(version=9)


def test_an_upsert_increments_the_version_of_a_row_that_is_there(Page, page, stored):
    rows = Page.objects.bulk_create(
        [Page(title="home", visits=7), Page(title="new")], on_conflict="update", unique_fields=["title"]
    )
    assert [row.version for row in rows] == [2, 1]
    assert stored(Page, "title", "visits", "version") == [("home", 7, 2), ("new", 0, 1)]
    Page.objects.bulk_create(
        [Page(title="home", visits=8)],
        on_conflict="update",
        unique_fields=["title"],
        update_fields=["visits"],
    )
    Page.objects.bulk_create([Page(title="home", visits=9)], on_conflict="ignore")
    assert stored(Page, "visits", "version") == [(8, 3), (0, 1)]
    with pytest.raises(StaleUpdate):
        page.save()
    rows[0].refresh_from_db()
    assert rows[0].save().version == 4


def test_update_or_create_locks_the_row_and_compares_a_version_that_it_is_given(Page, page):
    updated, new = Page.objects.update_or_create(title="home", defaults={"visits": 3})
    assert (updated.version, new) == (2, False)
    assert Page.objects.get_or_create(title="home")[0].version == 2
    assert Page.objects.get_or_create(title="other")[0].version == 1
    with pytest.raises(Page.StaleUpdate, match="has version 2 in 'default', not 1"):
        Page.objects.update_or_create(title="home", defaults={"visits": 9, "version": 1})
    assert Page.objects.update_or_create(title="home", defaults={"visits": 9, "version": 2})[0].version == 3
    for method in (Page.objects.get_or_create, Page.objects.update_or_create):
        with pytest.raises(
            FieldError, match=r"^Page\.version is the version, and a new row begins with its own"
        ):
            method(title="home", version=2)  # would insert a second row, of version 1
    assert Page.objects.filter(title="home").count() == 1


def test_the_version_of_a_form_is_compared_as_one_that_was_read(Page, page, stored):
    """The instance is made of what a browser has sent back, with the version that it was given."""
    sent = page.to_dict()
    allow = ["id", "title", "visits", "version"]
    assert Page.from_dict(sent | {"visits": 1}, allow=allow).save().version == 2
    with pytest.raises(Page.StaleUpdate, match="has version 2 in 'default', not 1"):
        Page.from_dict(sent | {"visits": 2}, allow=allow).save()
    assert stored(Page, "visits", "version") == [(1, 2)]
    absent = Page.from_dict({"id": 77, "title": "x", "version": 5}, allow=allow)
    with pytest.raises(Page.NotUpdated):
        copy.copy(absent).save(force_update=True)
    assert absent.save().version == 1


def test_an_instance_that_has_read_no_version_is_inserted(Page, page, stored):
    """It would overwrite a row that it has not seen."""
    with pytest.raises(IntegrityError):
        Page(id=page.id, title="x").save()
    for options in ({"force_update": True}, {"update_fields": ["title"]}):
        with pytest.raises(InvalidValue) as raised:
            Page(id=page.id, title="x").save(**options)
        assert str(raised.value) == "Page.version is None, and an update needs the version that was read"
    new = Page(id=page.id + 10, title="x").save()
    assert (new.version, stored(Page, "title", "version")) == (1, [("home", 1), ("x", 1)])
    assert Page(id=new.id, title="x").delete()[0] == 1


@MEMORY
@pytest.mark.parametrize("wrong", ["1", True, 1.5])
def test_a_version_that_is_no_int_is_refused_before_any_sql(Page, page, wire, wrong):
    page.version = wrong
    with wire.record() as sent:
        with pytest.raises(InvalidValue, match=r"^Page\.version must be int, not"):
            page.save()
        with pytest.raises(InvalidValue, match=r"^Page\.version must be int, not"):
            page.delete()
    assert sent == []
    assert page.version is wrong


def test_a_new_key_makes_a_new_row_of_the_first_version(Page, page):
    page.save()
    for key in (None, page.id + 5):
        twin = copy.copy(page)
        twin.id, twin.title = key, f"copy {key}"
        twin.save(force_insert=key is not None)
        assert twin.version == 1
    moved = copy.copy(page)
    moved.id, moved.title = page.id + 9, "moved"
    assert (moved.save().version, page.version) == (1, 2)


def test_a_raw_save_writes_the_version_as_it_is(Page, overtaken, stored):
    overtaken.save(raw=True)
    assert stored(Page, "visits", "version") == [(5, 1)]
    overtaken.version = 30
    overtaken.save(raw=True)
    assert stored(Page, "version") == [30]
    overtaken.visits = 6
    overtaken.save(raw=True, update_fields=["visits"])
    assert stored(Page, "visits", "version") == [(6, 30)]
    assert Page(title="new").save(raw=True).version == 1


def test_a_copy_to_another_alias_keeps_the_version_and_is_compared_there(Page, page, registry, stored):
    registry.create_all("other")
    page.save().save()
    page.save(using="other")
    assert (page.version, stored(Page, "version", alias="other")) == (3, [3])
    first = Page.objects.using("default").get()
    first.save()
    with pytest.raises(Page.StaleUpdate, match="has version 3 in 'other', not 4"):
        first.save(using="other")
    first.save(using="other", raw=True)
    assert stored(Page, "version", alias="other") == [4]


def test_the_version_is_loaded_with_each_instance(Page, page, wire):
    with wire.record() as sent:
        for query in (Page.objects.only("visits"), Page.objects.defer("version", "title")):
            part = query.get()
            part.visits += 1
            part.save()
    assert [each.split()[0] for each in sent] == ["SELECT", "UPDATE"] * 2
    with pytest.raises(StaleUpdate):
        page.save()


def test_a_version_that_is_not_known_is_loaded_before_the_save(Page, page):
    """As of an event that was stored before the model had a version."""
    part = load_row(Page.__schema__, {"id": page.id, "visits": 3}, "default")
    part.visits = 9
    assert part.save().version == 2


def test_a_refresh_of_other_fields_does_not_hide_that_the_instance_is_stale(Page, overtaken):
    overtaken.refresh_from_db(fields=["title"])
    with pytest.raises(StaleUpdate):
        overtaken.save()


def test_related_rows_count_as_updated(Base, registry, stored):
    """Also those whose foreign key is set to NULL by a delete. The instances that were given go on."""

    class Shelf(Base):
        label: Field[str] = field(max_length=10)
        books: Related["Book"] = related("shelf")

    class Book(Base):
        title: Field[str] = field(max_length=10)
        shelf: ForeignKey[Shelf | None] = foreign_key(default=None, on_delete="set_null")
        version: Field[int] = version_field(start=10)

    registry.create_all()
    shelf = Shelf(label="a").save()
    books = Book.objects.bulk_create([Book(title=title) for title in "abc"])
    shelf.books.add(*books)
    shelf.books.remove(books[0])
    shelf.books.set(books[1:])
    assert [book.version for book in books] == stored(Book, "version") == [12, 11, 11]
    assert books[1].save().version == 12
    read = Book.objects.get(title="c")
    shelf.delete()
    assert stored(Book, "shelf_id", "version") == [(None, 12), (None, 13), (None, 12)]
    with pytest.raises(Book.StaleUpdate, match="has version 12 in 'default', not 11"):
        read.save()


def test_composite_keys_and_abstract_bases_have_versions(Base, registry, stored):
    class Versioned(Base, abstract=True):
        revision: Field[int] = version_field(column="rev", start=0)

    class Seat(Versioned):
        row: Field[int] = field(primary_key=True)
        letter: Field[str] = field(primary_key=True, max_length=1)
        guest: Field[str] = field(max_length=10, default="")

    registry.create_all()
    seats = Seat.objects.bulk_create([Seat(row=1, letter=letter) for letter in "ab"])
    stale = Seat.objects.get(pk=(1, "a"))
    seats[0].guest = "Ann"
    seats[0].save()
    with pytest.raises(Seat.StaleUpdate, match=r"^Seat with row=1, letter='a' has version 1 in"):
        stale.save()
    with pytest.raises(Seat.StaleUpdate):
        Seat.objects.bulk_update([stale, seats[1]], ["guest"])
    with pytest.raises(Seat.StaleUpdate):
        stale.delete()
    assert Seat.objects.bulk_update(seats, ["guest"]) == 2
    assert stored(Seat, "letter", "guest", "rev") == [("a", "Ann", 2), ("b", "", 1)]
    assert seats[0].delete()[0] == 1


def test_keys_are_found_in_the_letters_that_a_collation_holds_for_equal(Base, registry):
    class Word(Base):
        text: Field[str] = field(primary_key=True, max_length=10)
        count: Field[int] = field(default=0)
        version: Field[int] = version_field()

    registry.create_all()
    word = Word(text="ab").save()
    word.text = "AB" if Word.objects.filter(text="AB").exists() else "ab"
    assert Word.objects.bulk_update([word], ["count"]) == 1


def test_a_rollback_restores_the_versions_of_related_rows(Base, registry, undone, stored):
    class Shelf(Base):
        books: Related["Book"] = related("shelf")

    class Book(Base):
        shelf: ForeignKey[Shelf | None] = foreign_key(default=None)
        version: Field[int] = version_field()

    registry.create_all()
    shelf, book = Shelf().save(), Book().save()
    with undone():
        shelf.books.add(book)
        assert book.version == 2
        shelf.books.clear()
    assert (book.version, book.shelf_id) == (1, None)
    assert book.save().version == 2
    assert stored(Book, "version") == [2]


def test_a_version_that_is_no_int_does_not_doom_a_block(Page, page, databases):
    """Since nothing has been sent."""
    page.version = "1"
    with databases.atomic():
        for write in (page.save, page.delete):
            with suppress(InvalidValue):
                write()
        assert Page.objects.get().version == 1


@MEMORY
def test_a_version_is_declared_once_as_an_int(Base):
    with pytest.raises(microorm.ModelError, match="first and second are both versions; a row has one"):

        class Twice(Base):
            first: Field[int] = version_field()
            second: Field[int] = version_field()

    with pytest.raises(
        microorm.ModelError, match=r"^Text\.version: a version_field\(\) must be annotated Field\[int\]$"
    ):

        class Text(Base):
            version: Field[str] = version_field()

    with pytest.raises(microorm.ModelError, match="must be annotated"):

        class Nullable(Base):
            version: Field[int | None] = version_field()

    with pytest.raises(TypeError, match="takes an int"):
        version_field(start="1")  # type: ignore[arg-type]


@MEMORY
def test_the_error_can_be_pickled(Page, overtaken):
    error = microorm.StaleUpdate("Page with id=1 has version 2", [1])
    assert pickle.loads(pickle.dumps(error)).objects == (1,)


def test_the_column_has_a_default_for_the_rows_that_are_there(Page, page, databases):
    table = Page.__table__
    with databases.connection() as connection:
        connection.execute(table.insert().values(title="older", visits=0))
    assert Page.objects.get(title="older").save().version == 2


@pytest.mark.sync_only("the threads have connections of their own")
@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
@pytest.mark.parametrize("how", ["save", "expression", "bulk_update", "delete"])
def test_of_two_threads_exactly_one_wins(Page, page, databases, how):
    """Both have read the same version, and write at the same time."""
    rounds, together = 3, Barrier(2)

    def write(number: int) -> bool:
        mine = Page.objects.get(id=page.id)
        together.wait(timeout=30)
        mine.visits = number if how != "expression" else Page.visits + number
        try:
            if how == "bulk_update":
                Page.objects.bulk_update([mine], ["visits"])
            elif how == "delete" and number == 1:
                mine.delete()
            else:
                mine.save()
        except StaleUpdate:
            return False
        return True

    with ThreadPoolExecutor(2) as threads:
        for turn in range(1, rounds + 1):
            won = [*threads.map(write, (1, 2))]
            assert sorted(won) == [False, True]
            if how == "delete":
                assert Page.objects.filter(id=page.id).exists() is not won[0]
                Page.objects.delete()
                page = Page(title="home").save()
            else:
                assert Page.objects.get(id=page.id).version == turn + 1


def test_no_lock_is_needed_to_compare_a_version(Page, page, databases, wire):
    """A save sends one statement; the row is not read first."""
    with wire.record() as sent:
        page.save()
        page.delete()
    assert [each.split()[0] for each in sent] == ["UPDATE", "DELETE"]
    with databases.connection() as connection:
        assert connection.execute(select(Page.__table__)).all() == []
