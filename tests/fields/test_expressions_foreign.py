"""Expressions: a column of another table is refused before anything is sent, wherever an expression is taken."""

from typing import Any

import pytest
from sqlalchemy import func, select

from microorm import Field, FieldError, field

pytestmark = pytest.mark.backends("sqlite-memory")


def test_no_expression_joins_another_table(Base: Any, registry: Any) -> None:
    """It would join all of its rows; with UPDATE and DELETE, change or delete too many."""

    class Author(Base):
        name: Field[str] = field(max_length=20)

    class Book(Base):
        title: Field[str] = field(default="", max_length=20)

    registry.create_all("default")
    Author(name="Le Guin").save()
    book = Book(title="Lathe").save()
    words = "Book: author.name is a column of another table"
    for attempt in (
        lambda: Book.objects.filter(Author.name == "Le Guin").delete(),
        lambda: Book.objects.exclude(func.lower(Author.name) == "le guin"),
        lambda: Book.objects.order_by(Author.name),
        lambda: Book.objects.update(title=Author.name),
    ):
        with pytest.raises(FieldError) as caught:
            attempt()
        assert str(caught.value) == words
    alias = Author.__table__.alias("a")
    with pytest.raises(FieldError, match=r"^Book: a\.name is a column of another table$"):
        Book.objects.filter(alias.c.name == "Le Guin")
    book.title = Author.name
    with pytest.raises(FieldError) as caught:
        book.save()
    assert str(caught.value) == words
    assert Book.objects.get().title == "Lathe"
    book.title = select(Author.name).scalar_subquery()
    book.save()
    assert book.title == "Le Guin"
    assert Book.objects.filter(Book.title.in_(select(Author.name))).count() == 1
