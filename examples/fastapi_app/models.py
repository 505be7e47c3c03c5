"""Models: books, their authors, and news about them."""

from __future__ import annotations

from microorm import Field, ForeignKey, Model, Related, field, foreign_key, related


class Author(Model):
    """An author, who is known by the name."""

    name: Field[str] = field(max_length=100, unique=True)
    books: Related[Book] = related("author")


class Book(Model):
    """A book, and how many copies of it are on the shelf."""

    title: Field[str] = field(max_length=200)
    copies: Field[int] = field(default=1)
    author: ForeignKey[Author] = foreign_key()


class News(Model):
    """A line about a book that is new. A receiver writes it."""

    text: Field[str] = field(max_length=300)
