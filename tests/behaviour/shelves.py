"""Shelves: what the five books of the fixture `shelf` are called, and how they are told."""

from collections.abc import Iterable
from typing import Any


def titles(found: Iterable[Any]) -> str:
    """The titles of books, in order, as one word."""
    return "".join(book.title for book in found)
