"""Plain SQLAlchemy over the models' columns: sub-queries, sets, windows and CTEs, in queries and beside them."""

from typing import Any

import pytest
from sqlalchemy import String as Text
from sqlalchemy import (
    and_,
    bindparam,
    case,
    cast,
    exists,
    func,
    intersect,
    literal,
    not_,
    or_,
    select,
    tuple_,
    union,
    union_all,
)

from microorm import Field, FieldError, field
from tests.behaviour.shelves import titles


@pytest.fixture
def Other(Base: Any, registry: Any, shelf: Any) -> Any:
    """Another table, of pages without a relation to the books."""

    class Other(Base):
        pages: Field[int]
        word: Field[str] = field(max_length=10)

    registry.create_all("default")
    for pages, word in ((2, "two"), (3, "three"), (3, "third"), (9, "nine")):
        Other(pages=pages, word=word).save()
    return Other


def tuples(rows: Any) -> list[Any]:
    return [tuple(row) for row in rows]


def test_a_query_is_a_subquery_of_another(Book, shelf, Other, wire):
    """`statement` with other columns, in conditions, each one statement."""
    threes = Other.objects.filter(Other.word.startswith("t")).statement.with_only_columns(Other.pages)
    with wire.record() as sent:
        assert titles(shelf.filter(Book.pages.in_(threes))) == "bc"
        assert titles(shelf.exclude(Book.pages.in_(threes))) == "ade"
        assert titles(shelf.filter(Book.pages.not_in(threes), Book.pages > 1)) == "de"
        assert (
            titles(shelf.filter(tuple_(Book.pages, Book.pages).in_(select(Other.pages, Other.pages)))) == "bc"
        )
        assert Book.objects.filter(Book.pages.in_(threes)).count() == 2
        assert titles(shelf.filter(Book.pages.in_(threes)).iterate()) == "bc"
    assert len(sent) >= 5
    most = select(func.max(Other.pages)).where(Other.pages < 9).scalar_subquery()
    assert titles(shelf.filter(Book.pages == most)) == "c"
    assert titles(shelf.filter(Book.pages > most - 2)) == "bcde"
    assert titles(Book.objects.order_by(Book.pages - most, "title")) == "abcde"
    assert shelf.filter(Book.pages.in_(threes)).update(price=None) == 2
    assert shelf.filter(Book.pages.in_(threes)).order_by().delete()[0] == 2
    latest = Book.objects.order_by(Book.pages.desc()).limit(2).statement.with_only_columns(Book.id).subquery()
    assert titles(shelf.filter(Book.id.in_(select(latest.c.id)))) == "de"


def test_exists_is_correlated(Book, shelf, Other):
    """With a row of the query, in conditions and in columns."""
    matching = exists().where(Other.pages == Book.pages, Other.word.startswith("th"))
    assert titles(shelf.filter(matching)) == "c"
    assert titles(shelf.exclude(matching)) == "abde"
    assert titles(shelf.filter(not_(matching), Book.pages < 3)) == "ab"
    assert titles(shelf.filter(or_(matching, Book.title == "a"))) == "ac"
    assert titles(shelf.filter(Other.objects.filter(Other.pages > 8).statement.exists())) == "abcde"
    assert titles(shelf.filter(select(Other.id).where(Other.pages == Book.pages).exists())) == "bc"
    counted = (
        select(func.count()).where(Other.pages == Book.pages).correlate(Book.__table__).scalar_subquery()
    )
    assert tuples(shelf.values(Book.title, counted.label("others"))) == [
        ("a", 0),
        ("b", 1),
        ("c", 2),
        ("d", 0),
        ("e", 0),
    ]
    assert titles(shelf.filter(counted > 1)) == "c"
    assert shelf.aggregate(n=func.sum(case((matching, 1), else_=0))).n == 1


def test_windows_are_columns(Book, shelf):
    """In values; and by a sub-query in conditions."""
    number = func.row_number().over(order_by=Book.pages.desc()).label("number")
    running = func.sum(Book.pages).over(order_by=Book.pages).label("running")
    assert tuples(shelf.values(Book.title, number)) == [("a", 5), ("b", 4), ("c", 3), ("d", 2), ("e", 1)]
    assert [int(each) for each in shelf.scalars(running)] == [1, 3, 6, 10, 15]
    ranked = func.rank().over(partition_by=Book.pages % 2, order_by=Book.pages).label("place")
    assert tuples(shelf[:3].values(Book.title, ranked)) == [("a", 1), ("b", 1), ("c", 2)]
    within = Book.objects.statement.with_only_columns(Book.id, ranked).subquery()
    assert titles(shelf.filter(Book.id.in_(select(within.c.id).where(within.c.place == 1)))) == "ab"


def test_sets_are_subqueries(Book, shelf, Other, databases):
    """Union and intersection of statements, in a condition and through the connection."""
    small = Book.objects.filter(Book.pages < 3).statement.with_only_columns(Book.pages)
    other = Other.objects.filter(Other.pages > 2).statement.with_only_columns(Other.pages)
    both = union(small, other).subquery()
    assert titles(shelf.filter(Book.pages.in_(select(both.c.pages)))) == "abc"
    assert titles(shelf.filter(Book.pages.in_(union_all(small, other)))) == "abc"
    shared = intersect(select(Book.pages), select(Other.pages)).subquery()
    assert titles(shelf.filter(Book.pages.in_(select(shared.c.pages)))) == "bc"
    with databases.connection() as connection:
        assert sorted(connection.scalars(union(small, other))) == [1, 2, 3, 9]
    with databases.atomic(), databases.connection() as connection:
        assert sorted(connection.scalars(union(small, other))) == [1, 2, 3, 9]


def test_ctes_are_subqueries(Book, shelf, Other, databases):
    """Plain and recursive, in a condition and through the connection."""
    words = select(Other.pages, func.count().label("n")).group_by(Other.pages).cte("words")
    assert titles(shelf.filter(Book.pages.in_(select(words.c.pages).where(words.c.n > 1)))) == "c"
    numbers = select(literal(1).label("n")).cte("numbers", recursive=True)
    numbers = numbers.union_all(select(numbers.c.n + 2).where(numbers.c.n < 5))
    assert titles(shelf.filter(Book.pages.in_(select(numbers.c.n)))) == "ace"
    joined = select(Book.title, words.c.n).join(words, words.c.pages == Book.pages).order_by(Book.title)
    with databases.connection() as connection:
        assert tuples(connection.execute(joined)) == [("b", 1), ("c", 2)]
        assert tuples(connection.execute(shelf.statement.with_only_columns(Book.title).limit(1))) == [("a",)]
    with pytest.raises(FieldError, match="is a column of another table"):
        shelf.values(Book.title, words.c.n)


def test_functions_casts_and_cases_are_columns(Book, shelf):
    """And conditions, order and groups."""
    size = case((Book.pages > 3, "big"), (Book.pages > 1, "middle"), else_="small").label("size")
    assert shelf.scalars(size) == ["small", "middle", "middle", "big", "big"]
    assert tuples(Book.objects.group_by(size).order_by(size).values(size, func.count())) == [
        ("big", 2),
        ("middle", 2),
        ("small", 1),
    ]
    assert titles(shelf.filter(func.coalesce(Book.price, 0) == 0)) == "ad"
    assert shelf[:2].scalars(cast(Book.pages, Text(10)) + "!") == ["1!", "2!"]
    assert shelf.filter(Book.title.between("b", "d"), Book.title.like("%c%")).scalars("title") == ["c"]
    assert shelf.filter(
        and_(Book.title.is_distinct_from("a"), Book.price.is_not_distinct_from(None))
    ).scalars("title") == ["d"]
    assert shelf.filter(Book.pages == bindparam("n", 3)).scalars("title") == ["c"]


def test_an_alias_of_the_table_joins_in_plain_sqlalchemy(Book, shelf, databases):
    """Each book with the next one: a self join, through the connection; and as a condition."""
    later = Book.__table__.alias("later")
    pairs = select(Book.title, later.c.title).where(later.c.pages == Book.pages + 1).order_by(Book.title)
    with databases.connection() as connection:
        assert tuples(connection.execute(pairs)) == [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e")]
    assert titles(shelf.filter(exists().where(later.c.pages == Book.pages + 4))) == "a"
    with pytest.raises(FieldError, match="is a column of another table"):
        shelf.filter(later.c.pages == 3)
