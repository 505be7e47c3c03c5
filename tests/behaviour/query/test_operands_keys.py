"""Instances and queries that stand for keys in expressions: only where they are keys, and of the alias that is read."""

from typing import Any

import pytest
from sqlalchemy import and_, case, func, or_, tuple_

from microorm import CrossDatabaseRelation, Field, FieldError, ForeignKey, field, foreign_key
from microorm.testing import count_statements


@pytest.fixture
def Author(Base: Any) -> Any:
    class Author(Base):
        name: Field[str] = field(max_length=9)

    return Author


@pytest.fixture
def Pair(Base: Any) -> Any:
    class Pair(Base):
        a: Field[int] = field(primary_key=True)
        b: Field[int] = field(primary_key=True)

    return Pair


@pytest.fixture
def Book(Base: Any, registry: Any, Author: Any, Pair: Any) -> Any:
    class Tag(Base):
        pass

    class Book(Base):
        pages: Field[int]
        author: ForeignKey[Author | None] = foreign_key()

    registry.create_all("default")
    registry.create_all("other")
    Book.__test_tag__ = Tag
    Book(pages=1, author=Author(name="here").save()).save()
    Author(name="there").save(using="other")
    return Book


WRONG: dict[str, Any] = {
    "of another model": lambda b, author, pair: b.author_id.in_(b.__test_tag__.objects),
    "of another model, refused": lambda b, author, pair: b.author_id.not_in(b.__test_tag__.objects),
    "for no key": lambda b, author, pair: b.pages.in_(author.objects),
    "for a sum": lambda b, author, pair: (b.author_id + 1).in_(author.objects),
    "for a function": lambda b, author, pair: func.abs(b.author_id).in_(author.objects),
    "for the key of another model": lambda b, author, pair: b.id.in_(author.objects),
    "for another column of its model": lambda b, author, pair: b.author.name.in_(author.objects),
    "of a composite key": lambda b, author, pair: b.pages.in_(pair.objects),
    "of a single key": lambda b, author, pair: tuple_(b.id, b.pages).in_(author.objects),
    "of two columns for three": lambda b, author, pair: tuple_(b.id, b.pages, b.id).in_(pair.objects),
    "of a part of a key": lambda b, author, pair: pair.a.in_(pair.objects),
}


@pytest.mark.backends("sqlite-memory", "mariadb")  # what is refused before any SQL
def test_a_query_that_has_no_keys_for_a_column_is_an_error_before_any_sql(
    Book: Any, Author: Any, Pair: Any, registry: Any, subtests
) -> None:
    for what, condition in WRONG.items():
        model = Pair if what == "of a part of a key" else Book
        with subtests.test(what), count_statements(databases=registry.databases) as sent:
            with pytest.raises(FieldError):
                model.objects.filter(condition(Book, Author, Pair)).all()
        assert sent.count == 0, what


def test_a_query_stands_for_a_composite_key(Book: Any, Author: Any, Pair: Any) -> None:
    Pair(a=1, b=1).save()
    assert Book.objects.filter(tuple_(Book.id, Book.pages).in_(Pair.objects)).count() == 1
    assert Pair.objects.filter(tuple_(Pair.a, Pair.b).not_in(Pair.objects)).count() == 0
    assert Book.objects.filter(Book.author.id.in_(Author.objects)).count() == 1


ELSEWHERE: dict[str, Any] = {
    "an instance": lambda b, author, there: b.author_id == there,
    "an instance in a list": lambda b, author, there: b.author_id.in_([1, there]),
    "an instance among others": lambda b, author, there: or_(b.pages == 2, and_(b.author_id != there)),
    "an instance in a case": lambda b, author, there: case((b.author_id == there, 1), else_=2) == 1,
    "an instance in a row": lambda b, author, there: tuple_(b.author_id, b.pages).in_([(there, 1)]),
    "an instance in a query": lambda b, author, there: b.author_id.in_(
        author.objects.filter(author.id == there)
    ),
    "a query": lambda b, author, there: b.author_id.in_(author.objects.using("other")),
    "a query, refused": lambda b, author, there: ~b.author_id.in_(author.objects.using("other")),
}


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
def test_what_is_of_another_alias_is_refused_in_an_expression_as_by_keyword(
    Book: Any, Author: Any, registry: Any, subtests
) -> None:
    there = Author.objects.using("other").get()
    for what, condition in ELSEWHERE.items():
        with subtests.test(what):
            check_elsewhere(Book, registry, condition(Book, Author, there))


def check_elsewhere(Book: Any, registry: Any, condition: Any) -> None:
    for query in (Book.objects.filter(condition), Book.objects.exclude(condition)):
        with count_statements(databases=registry.databases) as sent:
            for send in (query.all, query.count, query.delete, lambda query=query: query.update(pages=2)):
                with pytest.raises(CrossDatabaseRelation, match="of 'other'"):
                    send()
        assert sent.count == 0
    for send in (
        lambda: Book.objects.order_by(case((condition, 1), else_=2)).all(),
        lambda: Book.objects.scalars(case((condition, 1), else_=2)),
        lambda: Book.objects.aggregate(n=func.max(case((condition, 1), else_=2))),
        lambda: (
            Book.objects.group_by(Book.id).having(func.max(case((condition, 1), else_=2)) == 1).values("id")
        ),
    ):
        with pytest.raises(CrossDatabaseRelation):
            send()
    assert Book.objects.using("other").filter(condition).count() == 0


def test_an_instance_of_the_alias_that_is_read_stands_for_its_key(Book: Any, Author: Any) -> None:
    here, condition = Author.objects.get(), Book.author_id == Author.objects.get()
    for _ in range(2):  # also when the expression is used again
        assert Book.objects.filter(condition).count() == 1
        assert Book.objects.filter(Book.author_id.in_([here])).get().pages == 1
        with pytest.raises(CrossDatabaseRelation):
            Book.objects.using("other").filter(condition).count()
