"""Shelves: the titles of found books in one word, for short assertions."""

from collections.abc import Iterable
from typing import Any


def titles(found: Iterable[Any]) -> str:
    """The titles of books, in order, as one word."""
    return "".join(book.title for book in found)
