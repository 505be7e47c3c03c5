"""Failed commits and doomed blocks: errors of the database at a statement or at COMMIT."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import ForeignKeyConstraint, text
from sqlalchemy.exc import IntegrityError, OperationalError

import microorm
from microorm import Field, TransactionError, field
from microorm.signals import post_save

DOOMED = r"^the block on 'default' is doomed by an earlier error: IntegrityError\("
ROLLED_BACK = r"^the block on 'default' was rolled back because of an earlier error: IntegrityError\("


def poisoned_by_a_save(databases: Any, Book: Any) -> None:
    """A save that the database refuses."""
    Book(title="kept").save()


def poisoned_by_sql(databases: Any, Book: Any) -> None:
    """SQL of the program that the database refuses."""
    with databases.connection() as connection:
        connection.execute(text("INSERT INTO book (title, pages) VALUES ('kept', 0)"))


def poisoned_by_many(databases: Any, Book: Any) -> None:
    """A bulk write with one row that the database refuses."""
    Book.objects.bulk_create([Book(title="fine"), Book(title="kept")])


POISONS: tuple[Callable[[Any, Any], None], ...] = (poisoned_by_a_save, poisoned_by_sql, poisoned_by_many)


def test_an_error_that_was_caught_poisons_the_block(
    databases: Any, Book: Any, titles: Any, look: Any
) -> None:
    """Later statements and the end raise errors whose cause is the first one; everything is rolled back."""
    kept, new, ran = Book(title="kept").save(), Book(title="new"), []
    before = [look(kept), look(new)]

    def sql() -> None:
        with databases.connection() as connection:
            connection.execute(text("SELECT 1"))

    def nested() -> None:
        with databases.atomic():
            raise AssertionError("a block in a doomed one was entered")

    for poison in POISONS:
        with pytest.raises(TransactionError, match=ROLLED_BACK) as caught, databases.atomic():
            new.save()
            databases.on_commit(lambda: ran.append("committed"))
            with databases.connection() as held, pytest.raises(IntegrityError) as first:
                poison(databases, Book)
            for further in (
                Book(title="other").save,
                kept.save,
                kept.delete,
                kept.refresh_from_db,
                lambda: Book.objects.get(title="kept"),
                lambda: Book.objects.count(),
                lambda: Book.objects.filter(title="kept").update(pages=9),
                lambda: Book.objects.filter(title="kept").delete(),
                lambda: Book.objects.bulk_create([Book(title="other")]),
                lambda: Book.objects.raw("SELECT * FROM book"),
                sql,
                nested,
                lambda: held.execute(text("SELECT 1")),
            ):
                with pytest.raises(TransactionError, match=DOOMED) as refused:
                    further()
                assert refused.value.__cause__ is first.value
        assert caught.value.__cause__ is first.value
        assert [look(kept), look(new)] == before
        assert titles() == ["kept"]
        assert ran == []
    with databases.atomic():
        new.save()
    assert titles() == ["kept", "new"]


def test_a_nested_block_keeps_the_poison_from_the_one_around_it(
    databases: Any, Book: Any, titles: Any, look: Any
) -> None:
    """It is rolled back with its `on_commit` functions, and the outer block continues."""
    Book(title="kept").save()
    first, lost, last, ran = Book(title="first"), Book(title="lost"), Book(title="last"), []
    before = look(lost)
    with databases.atomic():
        first.save()
        databases.on_commit(lambda: ran.append("outer"))
        for poison in POISONS:
            with pytest.raises(IntegrityError), databases.atomic():
                lost.save()
                databases.on_commit(lambda: ran.append("inner"))
                poison(databases, Book)
            assert look(lost) == before
        with databases.connection() as connection:
            assert connection.scalar(text("SELECT count(*) FROM book")) == 2
        last.save()
    assert titles() == ["first", "kept", "last"]
    assert ran == ["outer"]
    lost.save()
    assert titles() == ["first", "kept", "last", "lost"]


@pytest.fixture
def Author(Base: Any) -> Any:
    """The model that a `Chapter` refers to."""

    class Author(Base):
        name: Field[str] = field(max_length=40)

    return Author


@pytest.fixture
def Chapter(Base: Any, Author: Any, Book: Any, registry: microorm.Registry) -> Any:
    """A model whose foreign key is checked at COMMIT."""

    class Chapter(Base):
        author: Field[int]

    Chapter.__table__.append_constraint(
        ForeignKeyConstraint(["author"], ["author.id"], deferrable=True, initially="DEFERRED")
    )
    registry.create_all("default")
    return Chapter


deferring = pytest.mark.backends("sqlite-file", "sqlite-memory", "postgresql")


@deferring
def test_a_constraint_that_fails_at_commit_undoes_the_block(
    databases: Any, Book: Any, Author: Any, Chapter: Any, titles: Any, look: Any
) -> None:
    """Leaving the block raises the error; rows and instances are as before, and `on_commit` functions do not run."""
    ran: list[str] = []
    book, inner, chapter = Book(title="new"), Book(title="inner"), Chapter(author=5)
    kept = Book(title="kept").save()
    before = [look(each) for each in (book, inner, chapter, kept)]
    done = False
    with pytest.raises(IntegrityError, match="(?i)foreign key constraint"), databases.atomic():
        databases.on_commit(lambda: ran.append("committed"))
        book.save()
        with databases.atomic():
            inner.save()
        chapter.save()
        kept.pages = 4
        kept.save()
        done = True
    assert done
    kept.pages = 0
    assert [look(each) for each in (book, inner, chapter, kept)] == before
    assert titles() == ["kept"]
    assert ran == []
    with databases.atomic():
        chapter.save()
        author = Author(name="late").save()
        chapter.author = author.id
        chapter.save()
    assert Chapter.objects.get().author == author.id


@deferring
def test_a_save_that_fails_at_its_own_commit_is_undone(
    databases: Any, Chapter: Any, Book: Any, look: Any
) -> None:
    """Without a receiver, and with one, whose writes are rolled back, too."""
    chapter = Chapter(author=5)
    before = look(chapter)
    with pytest.raises(IntegrityError, match="(?i)foreign key constraint"):
        chapter.save()
    assert look(chapter) == before
    books: list[Any] = []

    def note(instance: Any, **kwargs: Any) -> None:
        books.append(Book(title=f"of {instance.id}").save())

    post_save.connect(note, sender=Chapter)
    with pytest.raises(IntegrityError, match="(?i)foreign key constraint"):
        chapter.save()
    post_save.disconnect(note, sender=Chapter)
    assert look(chapter) == before
    assert (len(books), books[0].id, books[0]._state.adding) == (1, None, True)
    assert (Chapter.objects.count(), Book.objects.count()) == (0, 0)
    with databases.atomic():
        Book(title="later").save()
    assert Book.objects.count() == 1


@pytest.fixture
def rivals(url: str, on_its_way: Any) -> Iterator[tuple[microorm.Databases, microorm.Databases]]:
    """Two programs on one database in serializable isolation."""
    settings = {"default": {"url": url, "isolation_level": "SERIALIZABLE"}}
    with microorm.Databases(settings) as one, microorm.Databases(settings) as other:
        yield on_its_way(one), on_its_way(other)


@pytest.mark.backends("postgresql")
def test_transactions_that_cannot_be_put_in_an_order(
    rivals: tuple[microorm.Databases, microorm.Databases], look: Any
) -> None:
    """PostgreSQL detects it at COMMIT; the later one is rolled back with an error, and succeeds at the second try."""
    models = []
    for databases in rivals:

        class Doctor(microorm.Model, registry=microorm.Registry(databases)):
            name: Field[str] = field(max_length=40)

        models.append(Doctor)
    Mine, Yours = models
    Mine.__schema__.registry.create_all()
    mine, yours, ran = Mine(name="mine"), Yours(name="yours"), []
    before = look(mine)
    with (
        pytest.raises(OperationalError, match=r"^\(psycopg\.errors\.SerializationFailure\)"),
        rivals[0].atomic(),
    ):
        rivals[0].on_commit(lambda: ran.append("mine"))
        assert Mine.objects.count() == 0
        with rivals[1].atomic():
            rivals[1].on_commit(lambda: ran.append("yours"))
            assert Yours.objects.count() == 0
            yours.save()
            mine.save()
    assert ran == ["yours"]
    assert look(mine) == before
    assert [each.name for each in Mine.objects.all()] == ["yours"]
    with rivals[0].atomic():
        assert Mine.objects.count() == 1
        mine.save()
    assert [each.name for each in Yours.objects.order_by("id")] == ["yours", "mine"]
