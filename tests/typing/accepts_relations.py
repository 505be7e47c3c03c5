"""Relations as mypy --strict and pyright infer them, with no plugin: paths, other sides, what may be None.

Never run, only checked. The models stand in `rejects_relations.py` once more, since that file is judged by itself.
"""

from decimal import Decimal
from typing import assert_type

from sqlalchemy import ColumnElement

from microorm import (
    Field,
    ForeignKey,
    ManyToMany,
    Model,
    Query,
    Related,
    RelatedOne,
    field,
    foreign_key,
    many_to_many,
    related,
)
from microorm.relations.related_query import RelatedQuery


class Country(Model):
    name: Field[str]


class Author(Model):
    name: Field[str] = field(max_length=100, unique=True)
    country: ForeignKey[Country | None] = foreign_key(default=None)
    books: Related["Book"] = related("author")
    profile: RelatedOne["Profile"] = related("author")
    note: RelatedOne["Note | None"] = related("author")


class Profile(Model):
    author: ForeignKey[Author] = foreign_key(unique=True)


class Note(Model):
    author: ForeignKey[Author] = foreign_key(unique=True)


class Tag(Model):
    name: Field[str]
    books: Related["Book"] = related("tags")


class Book(Model, table="books"):
    title: Field[str]
    author: ForeignKey[Author] = foreign_key(on_delete="cascade")
    author_id: Field[int] = field(init=False)
    tags: ManyToMany[Tag] = many_to_many()
    price: Field[Decimal] = field(default=Decimal(0), max_digits=8, decimal_places=2)


class Loan(Model):
    book: ForeignKey[Book] = foreign_key(default=...)
    book_id: Field[int] = field(default=...)
    reader: ForeignKey[Author | None] = foreign_key(default=None)
    reader_id: Field[int | None] = field(default=None)


class Node(Model):
    parent: ForeignKey["Node | None"] = foreign_key(default=None)
    children: Related["Node"] = related("parent")


def attributes(ursula: Author, lathe: Book, node: Node, tag: Tag) -> None:
    assert_type(lathe.author, Author)
    assert_type(lathe.author_id, int)
    assert_type(lathe.author.country, Country | None)
    assert_type(ursula.profile, Profile)
    assert_type(ursula.note, Note | None)
    assert_type(node.parent, Node | None)
    assert_type(lathe.author.profile.author.name, str)


def keys(ursula: Author, lathe: Book) -> None:
    loan = Loan(book_id=3, reader_id=None)
    assert_type(loan.book_id, int)
    assert_type(loan.reader_id, int | None)
    assert_type(loan.book, Book)
    assert_type(Loan.reader_id, ColumnElement[int | None])
    loan.reader_id = 4
    Loan(book=lathe, reader=ursula)
    Loan(book=lathe)
    Loan.objects.create(book_id=3)
    Loan.objects.filter(Loan.book_id.in_([1, 2]), reader_id=4)


def assignments(ursula: Author, lathe: Book, node: Node) -> None:
    Book(title="x", author=ursula)
    Author(name="x", country=None)
    Author(name="x")
    Node(parent=node)
    graph = Book(title="x", author=Author(name="x", country=Country(name="x")))
    graph.author = Author(name="y")
    lathe.author = ursula
    node.parent = None


def paths() -> None:
    assert_type(Book.author.name, ColumnElement[str])
    assert_type(Book.author.country.name, ColumnElement[str])
    assert_type(Book.author.id, ColumnElement[int])
    assert_type(Book.author_id, ColumnElement[int])
    assert_type(Author.books.title, ColumnElement[str])
    assert_type(Author.books.price, ColumnElement[Decimal])
    assert_type(Author.profile.id, ColumnElement[int])
    assert_type(Author.note.id, ColumnElement[int])
    assert_type(Book.tags.name, ColumnElement[str])
    assert_type(Tag.books.author.country.name, ColumnElement[str])
    assert_type(Node.parent.parent.id, ColumnElement[int])


def other_sides(ursula: Author, lathe: Book, node: Node, tag: Tag) -> None:
    every: Query[Book] = ursula.books
    assert_type(ursula.books, RelatedQuery[Book])
    assert_type(ursula.books.all(), list[Book])
    assert_type(ursula.books.filter(Book.price < 20).first(), Book | None)
    assert_type(lathe.tags.all(), list[Tag])
    assert_type(tag.books.get(title="x"), Book)
    assert_type(node.children.order_by(Node.id).all(), list[Node])
    print(every)


async def awaited_rows(ursula: Author, lathe: Book, tag: Tag) -> None:
    assert_type(await ursula.books.aall(), list[Book])
    assert_type(await ursula.books.filter(Book.price < 20).afirst(), Book | None)
    assert_type([tag async for tag in lathe.tags], list[Tag])
    assert_type(await ursula.books.acreate(title="x"), Book)
    assert_type(await lathe.tags.aadd(tag, 3), None)
    assert_type(await lathe.tags.aremove(tag), None)
    assert_type(await lathe.tags.aset([tag], clear=True), None)
    assert_type(await ursula.books.aclear(bulk=False), None)
    await lathe.aload("author")
    assert_type(lathe.author, Author)


def queries(ursula: Author) -> None:
    chilean = Book.objects.filter(Book.author.country.name == "Chile", author=ursula)
    assert_type(chilean.order_by(Book.author.name.desc(), "title").all(), list[Book])
    assert_type(Author.objects.filter(Author.books.title == "x").exclude(Author.books.price < 3).count(), int)
    assert_type(Book.objects.filter(Book.author.name.startswith("Le")).update(author=ursula), int)
    assert_type(Book.objects.get(Book.author.id == ursula.id).author, Author)
