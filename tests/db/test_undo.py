"""The undo log: snapshots by level, restored newest first, which keep no instance alive."""

import gc
from typing import Any

import pytest

from microorm import Field, field
from microorm.db.snapshots import Batch, SnapshotLog, apply_generated, note_row, restore, take_snapshot


@pytest.fixture
def Book(Base: Any) -> Any:
    """A model whose rows are never stored here."""

    class Book(Base):
        title: Field[str] = field(default="")
        pages: Field[int] = field(default=0)

    return Book


pytestmark = pytest.mark.backends("sqlite-memory")


def test_what_was_made_goes_back_to_what_was_there(Book: Any) -> None:
    book = Book(title="a")
    image = take_snapshot(book)
    apply_generated(book, image, {"id": 5, "title": "made"})
    assert (book.id, book.title) == (5, "made")
    restore(image)
    assert (book.id, book.title) == (None, "a")


def test_what_was_not_there_is_gone_again(Book: Any) -> None:
    book = Book()
    del book.__dict__["pages"]
    image = take_snapshot(book)
    apply_generated(book, image, {"pages": 7})
    restore(image)
    assert "pages" not in vars(book)


def test_what_the_user_has_set_since_stays(Book: Any) -> None:
    """A rollback does not overwrite it."""
    book = Book(title="a")
    image = take_snapshot(book)
    apply_generated(book, image, {"id": 5000, "title": "made"})
    book.title = "mine"
    restore(image)
    assert (book.id, book.title) == (None, "mine")


def test_origin_and_loaded_row_go_back(Book: Any) -> None:
    book = Book()
    image = take_snapshot(book)
    before = (book._row_state, book._row)
    row = ("x",)
    note_row(image, row)
    book._row_state, book._row = object(), row
    restore(image)
    assert (book._row_state, book._row) == before


def test_settling_twice_remembers_the_first(Book: Any) -> None:
    book = Book(title="a")
    image = take_snapshot(book)
    apply_generated(book, image, {"title": "b"})
    apply_generated(book, image, {"title": "c"})
    restore(image)
    assert book.title == "a"


def test_an_image_keeps_nothing_alive(Book: Any) -> None:
    """One entry per instance, with a weak reference."""
    log, book = SnapshotLog(), Book()
    image = take_snapshot(book)
    log.record(image)
    del book
    gc.collect()
    assert image[0]() is None
    log.roll_back()


def test_two_saves_in_one_level_are_one_image(Book: Any) -> None:
    """A rollback restores the state before the first save."""
    log, book = SnapshotLog(), Book(title="a")
    for number, made in enumerate(({"id": 5000}, {"title": "made", "id": 6000})):
        image = take_snapshot(book)
        apply_generated(book, image, made)
        log.record(image)
        assert book.id == (5000, 6000)[number]
    log.roll_back()
    assert (book.id, book.title) == (None, "a")


def test_what_the_user_set_between_two_saves_stays(Book: Any) -> None:
    log, book = SnapshotLog(), Book(title="a")
    for made in ("first", "second"):
        image = take_snapshot(book)
        apply_generated(book, image, {"title": made})
        log.record(image)
        if made == "first":
            book.title = "mine"
    log.roll_back()
    assert book.title == "mine"


def test_an_inner_level_is_undone_alone(Book: Any) -> None:
    """As with a savepoint: what was saved before it stays saved."""
    log, book = SnapshotLog(), Book(title="a")
    outer = take_snapshot(book)
    apply_generated(book, outer, {"id": 5000})
    log.record(outer)
    log.push()
    inner = take_snapshot(book)
    apply_generated(book, inner, {"title": "made"})
    log.record(inner)
    log.roll_back()
    assert (book.id, book.title) == (5000, "a")
    log.roll_back()
    assert book.id is None


def test_a_released_level_belongs_to_the_one_around(Book: Any) -> None:
    log, book, other = SnapshotLog(), Book(title="a"), Book(title="b")
    outer = take_snapshot(book)
    apply_generated(book, outer, {"id": 5000})
    log.record(outer)
    log.push()
    for each in (book, other):
        inner = take_snapshot(each)
        apply_generated(each, inner, {"title": "made"})
        log.record(inner)
    log.release()
    log.roll_back()
    assert (book.id, book.title, other.title) == (None, "a", "b")


def test_a_new_instance_at_a_dead_ones_address_has_its_own_image(Book: Any) -> None:
    """Snapshots are found by id, which may be reused after an instance is collected."""
    log = SnapshotLog()
    for _ in range(50):
        book = Book(title="a")
        image = take_snapshot(book)
        apply_generated(book, image, {"title": "made"})
        log.record(image)
        last = book
        del book
    log.roll_back()
    assert last.title == "a"


def settled(log: SnapshotLog, books: list[Any], first: int) -> None:
    """Set the keys of *books* from *first* on, and record them in *log* as one batch."""
    numbers = list(range(first, first + len(books)))
    rows = [(number,) for number in numbers]
    log.record_batch(Batch(books, books[0]._row_state, rows, "id", numbers))
    for book, number, row in zip(books, numbers, rows, strict=True):
        book.id, book._row, book._row_state = number, row, object()


def test_a_batch_goes_back_as_its_instances_would(Book: Any) -> None:
    """Row state, loaded row and key; what the user has set since stays."""
    log, books = SnapshotLog(), [Book() for _ in range(3)]
    new = books[0]._row_state
    settled(log, books, 5000)
    books[1].id, books[2].title = 7, "mine"
    log.roll_back()
    assert [book.id for book in books] == [None, 7, None]
    assert [(book._row_state, book._row) for book in books] == [(new, None)] * 3
    assert books[2].title == "mine"


def test_a_batch_keeps_nothing_alive(Book: Any) -> None:
    log, books = SnapshotLog(), [Book(), Book()]
    batch = Batch(books, books[0]._row_state, [(5000,), (6000,)], "id", [5000, 6000])
    log.record_batch(batch)
    del books[1]
    gc.collect()
    assert len(list(batch.snapshots())) == 1
    log.roll_back()


@pytest.mark.parametrize("released", [False, True])
def test_a_batch_and_what_came_before_and_after_go_back_together(Book: Any, released: bool) -> None:
    """One instance was written and deleted before, one is deleted after; also with a savepoint around these."""
    log, books = SnapshotLog(), [Book(), Book(), Book()]
    image = take_snapshot(books[0])
    apply_generated(books[0], image, {"id": 4000})
    apply_generated(books[0], image, {"id": None})
    log.record(image)
    if released:
        log.push()
    settled(log, books, 5000)
    for book in books[:2]:
        image = take_snapshot(book)
        apply_generated(book, image, {"id": None})
        log.record(image)
    if released:
        log.release()
    log.roll_back()
    assert [book.id for book in books] == [None] * 3
    assert [book._row for book in books] == [None] * 3


def test_a_batch_of_a_released_level_is_kept_whole(Book: Any) -> None:
    log, books = SnapshotLog(), [Book(), Book()]
    log.push()
    settled(log, books, 5000)
    log.release()
    assert [book.id for book in books] == [5000, 5001]
    log.roll_back()
    assert [book.id for book in books] == [None, None]
