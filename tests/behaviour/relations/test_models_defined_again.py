"""Relations from and to models that are defined again, by a reload or in a notebook."""

from collections.abc import Callable
from typing import Any

import pytest

from microorm import (
    Field,
    ForeignKey,
    ManyToMany,
    ModelError,
    Related,
    field,
    foreign_key,
    many_to_many,
    prefetch,
    related,
    through,
)
from microorm.signals import class_prepared

pytestmark = [
    pytest.mark.backends(
        "sqlite-memory"
    ),  # which model takes the place of another is no matter of the database
    pytest.mark.filterwarnings("ignore:the model .* is defined again:RuntimeWarning"),
]


@pytest.fixture
def author(Base) -> Callable[[], Any]:
    def defined():
        class Author(Base):
            name: Field[str] = field(max_length=20)
            born: Field[int] = field(default=1929)
            books: Related["Book"] = related("author")
            readers: Related["Reader"] = related("authors")
            prizes: ManyToMany["Prize"] = many_to_many()

        return Author

    return defined


@pytest.fixture
def book(Base) -> Callable[[], Any]:
    def defined():
        class Book(Base):
            title: Field[str] = field(max_length=20)
            pages: Field[int] = field(default=3)
            author: ForeignKey["Author"] = foreign_key(on_delete="cascade")

        return Book

    return defined


@pytest.fixture
def reader(Base) -> Callable[[], Any]:
    def defined():
        class Reader(Base):
            name: Field[str] = field(max_length=20)
            authors: ManyToMany["Author"] = many_to_many()

        return Reader

    return defined


@pytest.fixture
def prize(Base) -> Callable[[], Any]:
    def defined():
        class Prize(Base):
            name: Field[str] = field(max_length=20)
            authors: Related["Author"] = related("prizes")

        return Prize

    return defined


@pytest.mark.parametrize("again", ["author", "book", "reader", "prize", "prize author book reader"])
def test_relations_lead_to_the_model_that_has_taken_the_place(
    request, registry, author, book, reader, prize, again
):
    Prize, Author, Book, Reader = prize(), author(), book(), reader()
    _ = Book.author.name, Author.books.title, Author.prizes.name, Prize.authors.name, Reader.authors.name
    _ = Author.readers.name, through(Author.prizes), through(Reader.authors)
    for name in again.split():
        request.getfixturevalue(name)()
    Prize, Author, Book, Reader = [
        {model.__name__: model for model in registry.models.values()}[name]
        for name in ("Prize", "Author", "Book", "Reader")
    ]
    registry.create_all()
    ursula = Author(name="Ursula").save()
    lathe = Book(title="Lathe", author=ursula).save()
    hugo = Prize(name="Hugo").save()
    ursula.prizes.add(hugo)
    ada = ursula.readers.create(name="Ada")

    assert type(ada) is Reader
    assert type(Book.objects.get().author) is Author
    assert type(Book.objects.select_related("author").get().author) is Author
    for rows, model in (
        (ursula.books, Book),
        (ursula.readers, Reader),
        (ursula.prizes, Prize),
        (hugo.authors, Author),
        (ada.authors, Author),
    ):
        assert [type(each) for each in rows.all()] == [model]
    assert Book.objects.filter(Book.author.born == 1929, author=ursula).get() == lathe
    assert Author.objects.filter(Author.books.pages == 3, Author.prizes.name == "Hugo").get() == ursula
    assert Prize.objects.filter(Prize.authors.born == 1929).get() == hugo
    assert Reader.objects.filter(Reader.authors.born == 1929).get() == ada
    prefetch([ursula], Author.books, Author.prizes.authors, Author.readers)
    assert [type(each) for each in ursula.books.all()] == [Book]
    assert ursula.delete()[1] == {
        label: 1
        for label in registry.models
        if label.rpartition(".")[2] in ("Author", "Book", "Author_prizes", "Reader_authors")
    }


def test_a_constraint_refers_to_the_table_that_has_taken_the_place(registry, author, book, reader, prize):
    prize(), author()
    Book, Reader = book(), reader()
    before = {constraint.name for constraint in Book.__table__.constraints}
    Author = author()
    for table in (Book.__table__, through(Reader.authors).__table__):
        (key,) = [key for key in table.foreign_keys if key.parent.name == "author_id"]
        assert key.column is Author.__table__.c.id
        assert table.c.author_id.foreign_keys == {key}
    assert {constraint.name for constraint in Book.__table__.constraints} == before


def test_a_class_statement_that_fails_late_leaves_relations_to_the_model_it_would_replace(
    Base, registry, author, book, reader, prize, listen
):
    prize(), reader()
    Author, Book = author(), book()
    assert Author.books.title is not None

    def refuse(sender, **kwargs):
        if sender.__name__ == "Author":
            raise OSError("refused")

    listen(class_prepared, refuse)
    with pytest.raises(OSError, match="refused"):
        author()
    registry.create_all()
    ursula = Author(name="Ursula").save()
    lathe = Book(title="Lathe", author=ursula).save()
    assert ursula.books.all() == [lathe]
    assert Book.objects.filter(Book.author.name == "Ursula").all() == [lathe]


def test_a_class_statement_that_fails_leaves_the_model_between_that_it_would_replace(
    Base, registry, author, book, reader, prize
):
    prize(), reader(), book()
    Author = author()

    def refused():
        class Author(Base):
            prizes: ManyToMany["Prize"] = many_to_many()
            name: Field[object]

        return Author

    def refused_late():
        class Author(Base, table="prize"):
            prizes: ManyToMany["Prize"] = many_to_many()

        return Author

    for statement in (refused, refused_late):
        with pytest.raises(ModelError):
            statement()
    registry.create_all()
    assert Author(name="Ursula").save().prizes.create(name="Hugo").authors.count() == 1
