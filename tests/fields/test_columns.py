"""Conditions have no truth value, so that none is dropped by `and`, `or`, `not` and `in`."""

import copy
from typing import Any

import pytest
from sqlalchemy import String, and_, func, or_, select

from microorm import Field, ForeignKey, Model, Registry, field, foreign_key


@pytest.fixture
def Book() -> Any:
    class Base(Model, registry=Registry(), abstract=True):
        pass

    class Author(Base):
        name: Field[str]

    class Book(Base):
        title: Field[str]
        code: Field[str] = field(type_=String(5))
        extra: Field[dict[str, Any]]
        done: Field[bool] = field(default=False)
        author: ForeignKey[Author] = foreign_key()

    return Book


def test_a_condition_has_no_truth_value_and_says_what_to_write(Book) -> None:
    conditions = [
        Book.title == "x",
        Book.title != "x",
        Book.title == Book.code,
        Book.title.is_(None),
        Book.title > "x",
        Book.title.in_(["x"]),
        Book.id + 1 == 2,
        Book.id + 1 + 1 == 3,
        Book.extra["a"] == 1,
        Book.extra["a"].as_string() == "x",
        1 + Book.id != 2,
        ~(Book.title == "x"),
        Book.author.name == "x",
        Book.author_id == 1,
        Book.code == "x",
        Book.done,
    ]
    for condition in conditions:
        with pytest.raises(TypeError, match=r"`a \| b` or or_\(a, b\)"):
            _ = condition or conditions[0]
        with pytest.raises(TypeError, match=r"`a & b` or and_\(a, b\)"):
            _ = condition and conditions[0]
        with pytest.raises(TypeError, match="`~a` or not_"):
            _ = not condition
    with pytest.raises(TypeError, match=r"column\.in_\("):
        _ = "x" in [Book.title]


def test_columns_are_looked_up_as_before(Book) -> None:
    """By identity, in dictionaries, sets and tables, and they are copied with their tables."""
    columns = [getattr(Book, name) for name in ("id", "title", "code")]
    assert {column: n for n, column in enumerate(columns)}[Book.code] == 2
    assert Book.code in {*columns}
    assert Book.id in columns  # the same object comes first
    assert Book.__table__.c.contains_column(Book.code)
    assert Book.title is Book.__table__.c.title


def test_conditions_are_compiled_as_those_of_sqlalchemy(Book) -> None:
    table = select(Book.__table__).subquery()
    assert str((table.c.id == 1) & (Book.id == 2)) == "anon_1.id = :id_1 AND book.id = :id_2"
    both = or_(and_(Book.id == 1, ~(Book.title == "x")), func.length(Book.title + "y") == 2)
    assert str(both).startswith("book.id = :id_1 AND book.title != :title_1 OR length(book.title || ")
    assert str(copy.copy(Book.id == 1)) == str(Book.id == 1)
