"""Models: books, their authors and news about them, and the receiver that writes the news."""

from __future__ import annotations

from typing import Any

from microorm import Field, ForeignKey, Model, Related, field, foreign_key, receiver, related
from microorm.signals import post_save


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


@receiver(post_save, sender=Book, delivery="on_commit")
def tell(instance: Book, *, created: bool, **kwargs: Any) -> None:
    """Write a line about a new book, after the commit: there is no news about a book that was rolled back."""
    if created:
        News(text=f"new: {instance.title}").save()
