"""Annotations against plain Python: whatever the rows, each number is that of the rows of its own path."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, and_, cast, func, or_

from microorm import Field, ForeignKey, ManyToMany, Related, field, foreign_key, many_to_many, related
from tests.thorough import examples

EXAMPLES = settings(
    max_examples=examples(12),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SMALL = st.integers(0, 4)
MAYBE = st.none() | SMALL


class Rows(NamedTuple):
    """Rows as tuples, whose key is their place, from 1 on."""

    authors: list[tuple[int | None, int]]  # mentor, rate
    books: list[tuple[int, int | None]]  # author, price
    awards: list[tuple[int, int]]  # author, year
    reviews: list[tuple[int, int | None]]  # book, stars
    tags: list[int]  # weight
    tagged: list[tuple[int, int]]  # book, tag


@st.composite
def rows(draw: Any) -> Rows:
    number = draw(st.integers(1, 4))
    author = st.integers(1, number)
    authors = [(draw(st.none() | author), draw(SMALL)) for _ in range(number)]
    authors = [(mentor if mentor != place else None, rate) for place, (mentor, rate) in enumerate(authors, 1)]
    books = draw(st.lists(st.tuples(author, MAYBE), max_size=5))
    tags = draw(st.lists(SMALL, max_size=3))
    book, tag = st.integers(1, len(books) or 1), st.integers(1, len(tags) or 1)
    return Rows(
        authors,
        books,
        draw(st.lists(st.tuples(author, SMALL), max_size=4)),
        draw(st.lists(st.tuples(book, MAYBE), max_size=5)) if books else [],
        tags,
        draw(st.lists(st.tuples(book, tag), max_size=6, unique=True)) if books and tags else [],
    )


class Number(NamedTuple):
    """An expression of an author, and what it is in Python of the values at the end of a path."""

    sql: Callable[[Any], Any]
    values: Callable[[Rows, int], Iterable[Any]]
    made: Callable[[list[Any]], Any]


def count(values: list[Any]) -> int:
    return len([each for each in values if each is not None])


def distinct(values: list[Any]) -> int:
    return len({each for each in values if each is not None})


def total(values: list[Any]) -> int | None:
    known = [each for each in values if each is not None]
    return sum(known) if known else None


def highest(values: list[Any]) -> int | None:
    return max((each for each in values if each is not None), default=None)


def summed(column: Any) -> Any:
    return cast(func.sum(column), BigInteger)


def prices(data: Rows, author: int) -> list[Any]:
    return [price for owner, price in data.books if owner == author]


def years(data: Rows, author: int) -> list[Any]:
    return [year for owner, year in data.awards if owner == author]


def stars(data: Rows, author: int) -> list[Any]:
    return [each for book, each in data.reviews if data.books[book - 1][0] == author]


def weights(data: Rows, author: int) -> list[Any]:
    return [data.tags[tag - 1] for book, tag in data.tagged if data.books[book - 1][0] == author]


def of_pupils(data: Rows, author: int) -> list[Any]:
    pupils = [place for place, (mentor, _) in enumerate(data.authors, 1) if mentor == author]
    return [price for each in pupils for price in prices(data, each)]


def of_mentor(data: Rows, author: int) -> list[Any]:
    mentor = data.authors[author - 1][0]
    return [] if mentor is None else prices(data, mentor)


def dear(data: Rows, author: int) -> list[Any]:
    return [price for price in prices(data, author) if price is not None and price > 2]


def rated(data: Rows, author: int) -> list[Any]:
    rate = data.authors[author - 1][1]
    return [None if price is None else price * rate for price in prices(data, author)]


def times(data: Rows, author: int) -> list[Any]:
    pairs = [(data.books[book - 1], each) for book, each in data.reviews]
    return [
        None if price is None or each is None else price * each
        for (owner, price), each in pairs
        if owner == author
    ]


NUMBERS = [
    Number(lambda a: func.count(a.books.id), lambda d, k: [0] * len(prices(d, k)), count),
    Number(lambda a: func.count(a.books.price), prices, count),
    Number(lambda a: func.count(a.books.price.distinct()), prices, distinct),
    Number(lambda a: summed(a.books.price), prices, total),
    Number(lambda a: func.max(a.books.price), prices, highest),
    Number(lambda a: func.count(a.awards.year), years, count),
    Number(lambda a: summed(a.awards.year), years, total),
    Number(lambda a: func.count(a.books.reviews.stars), stars, count),
    Number(lambda a: summed(a.books.reviews.stars), stars, total),
    Number(lambda a: func.count(a.books.tags.weight), weights, count),
    Number(lambda a: summed(a.books.tags.weight), weights, total),
    Number(lambda a: func.count(a.books.tags.weight.distinct()), weights, distinct),
    Number(lambda a: summed(a.pupils.books.price), of_pupils, total),
    Number(lambda a: func.count(a.mentor.books.price), of_mentor, count),
    Number(lambda a: func.count(a.books.id).filter(a.books.price > 2), dear, count),
    Number(lambda a: func.count().filter(a.books.price > 2), dear, count),
    Number(lambda a: summed(a.books.price * a.rate), rated, total),
    Number(lambda a: summed(a.books.price * a.books.reviews.stars), times, total),
]


@pytest.fixture
def models(Base: Any, registry: Any) -> list[Any]:
    class Author(Base):
        mentor: ForeignKey["Author | None"] = foreign_key(default=None, on_delete="set_null")
        rate: Field[int]
        pupils: Related["Author"] = related("mentor")
        books: Related["Book"] = related("author")
        awards: Related["Award"] = related("author")

    class Tag(Base):
        weight: Field[int]

    class Book(Base):
        author: ForeignKey[Author] = foreign_key(on_delete="cascade")
        price: Field[int | None] = field(default=None)
        tags: ManyToMany[Tag] = many_to_many()
        reviews: Related["Review"] = related("book")

    class Award(Base):
        author: ForeignKey[Author] = foreign_key(on_delete="cascade")
        year: Field[int]

    class Review(Base):
        book: ForeignKey[Book] = foreign_key(on_delete="cascade")
        stars: Field[int | None] = field(default=None)

    registry.create_all("default")
    return [Author, Book, Award, Review, Tag, Book.__schema__.relations["tags"].through]


def fill(models: list[Any], data: Rows) -> None:
    author, book, award, review, tag, tagged = models
    author.objects.update(mentor_id=None)
    for model in reversed(models):
        model.objects.delete()
    made: list[tuple[Any, list[dict[str, Any]]]] = [
        (author, [{"rate": rate} for _, rate in data.authors]),
        (tag, [{"weight": weight} for weight in data.tags]),
        (book, [{"author_id": owner, "price": price} for owner, price in data.books]),
        (award, [{"author_id": owner, "year": year} for owner, year in data.awards]),
        (review, [{"book_id": of, "stars": number} for of, number in data.reviews]),
        (tagged, [{"book_id": one, "tag_id": other} for one, other in data.tagged]),
    ]
    for model, values in made:
        instances = [model(**each) for each in values]
        for place, each in enumerate(instances, 1):
            each.id = place
        model.objects.bulk_create(instances)
    for place, (mentor, _) in enumerate(data.authors, 1):
        if mentor is not None:
            author.objects.filter(pk=place).update(mentor_id=mentor)


@given(
    data=rows(), chosen=st.lists(st.sampled_from(NUMBERS), min_size=2, max_size=4), least=st.integers(0, 3)
)
@EXAMPLES
def test_each_number_is_that_of_its_own_rows(
    models: list[Any], data: Rows, chosen: list[Number], least: int
) -> None:
    author = models[0]
    fill(models, data)
    keys = range(1, len(data.authors) + 1)
    expected = {key: tuple(each.made(list(each.values(data, key))) for each in chosen) for key in keys}
    sql = [each.sql(author) for each in chosen]
    query = author.objects.annotate(**{f"n{place}": each for place, each in enumerate(sql)})
    loaded = {each.id: tuple(getattr(each, f"n{n}") for n in range(len(sql))) for each in query}
    assert loaded == expected
    assert {key: tuple(found) for key, *found in author.objects.values(author.id, *sql)} == expected

    def enough(key: int, place: int) -> bool:
        value = expected[key][place]
        return value is not None and value >= least

    both = [key for key in keys if enough(key, 0) and enough(key, 1)]
    either = [key for key in keys if enough(key, 0) or enough(key, 1)]
    first, second = (each >= least for each in sql[:2])
    found = query.filter(first).filter(second)
    assert sorted(each.id for each in found) == both
    assert sorted(author.objects.filter(and_(first, second)).scalars("id")) == both
    assert sorted(author.objects.exclude(or_(first, second)).scalars("id")) == [
        k for k in keys if k not in either
    ]
    assert found.count() == len(both)
    assert found.exists() is bool(both)
    ordered = query.order_by(func.coalesce(sql[0], -1).desc(), "id").scalars("id")
    assert ordered == sorted(
        keys, key=lambda key: (-(-1 if expected[key][0] is None else expected[key][0]), key)
    )
    numbers = [expected[key][0] for key in keys if expected[key][0] is not None]
    assert author.objects.aggregate(all=summed(sql[0])).all == (sum(numbers) if numbers else None)
    assert author.objects.filter(first).update(rate=4) == len([key for key in keys if enough(key, 0)])
