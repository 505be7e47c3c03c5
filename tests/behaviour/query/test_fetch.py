"""`fetch`: a query whose SQL was compiled before finds what it found the first time, on the driver's cursor and through `Connection`."""

from typing import Any

import pytest
from sqlalchemy import and_, or_, select

from microorm.sql.statements import plans_of


def titles(query: Any) -> list[str]:
    return [book.title for book in query.all()]


QUERIES = [
    lambda Book, n: Book.objects.filter(Book.pages == n),
    lambda Book, n: Book.objects.filter(Book.pages >= n, Book.title != "c"),
    lambda Book, n: Book.objects.filter(or_(Book.pages < n, Book.title == "e")).order_by(Book.title.desc()),
    lambda Book, n: Book.objects.filter(Book.price == n),
    lambda Book, n: Book.objects.filter(Book.price > n, title="c"),
    lambda Book, n: Book.objects.filter(Book.pages > 1, price=None).order_by("title"),
    lambda Book, n: Book.objects.exclude(Book.price > n).order_by("id"),
    lambda Book, n: Book.objects.filter(Book.pages > n).order_by("pages").limit(2),
    lambda Book, n: Book.objects.order_by("pages").offset(n),
    lambda Book, n: Book.objects.order_by("pages")[n : n + 2],
    lambda Book, n: Book.objects.order_by("pages").only("title").limit(n),
    lambda Book, n: Book.objects.filter(and_(Book.pages >= n, Book.title.like("%"))).order_by("title"),
    lambda Book, n: Book.objects.filter(Book.pages > n).distinct().order_by("pages"),
    lambda Book, n: Book.objects.filter(Book.pages.in_([n, 5])).order_by("pages"),
]


def test_a_known_shape_finds_what_its_select_finds(
    Book: Any, shelf: Any, databases: Any, subtests: pytest.Subtests
) -> None:
    for place, make in enumerate(QUERIES):
        with subtests.test(query=place):
            for number in (1, 2, 3, 1):
                query = make(Book, number)
                with databases.connection() as connection:
                    rows = connection.execute(query.statement).mappings().all()
                assert titles(query) == [row["title"] for row in rows]
                assert [book.id for book in query.all()] == [row["id"] for row in rows]


def test_values_of_one_shape_share_one_statement(Book: Any, shelf: Any, databases: Any, way: str) -> None:
    made = plans_of(Book.__schema__, databases.database("default")).statements
    Book.objects.filter(Book.pages == 1).all()
    before = len(made)
    for number in range(20):
        assert len(Book.objects.filter(Book.pages == number).all()) == (1 <= number <= 5)
    assert len(made) == before
    assert any(key[0] == "select" for key in made) == (way != "listened")


def test_shapes_without_end_do_not_fill_the_memory(
    Book: Any, shelf: Any, databases: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("microorm.sql.statements.MAX_STATEMENTS", 20)
    made = plans_of(Book.__schema__, databases.database("default")).statements
    for count in range(30):
        Book.objects.filter(or_(*[Book.pages == 1] * (count + 1))).first()
    assert 0 < len(made) <= 20


def test_what_was_loaded_is_known_and_one_statement_was_sent(Book: Any, shelf: Any, wire: Any) -> None:
    with wire.record() as sent:
        (book,) = Book.objects.filter(Book.title == "b").all()
    assert len(sent) == 1
    assert book.changes() == {}
    book.tags.append("new")
    assert book.changes() == {"tags": ([], ["new"])}


def test_a_get_by_an_expression_stops_at_two(Book: Any, shelf: Any) -> None:
    assert Book.objects.get(Book.pages == 2).title == "b"
    with pytest.raises(Book.MultipleObjectsReturned):
        Book.objects.get(Book.pages > 2)
    with pytest.raises(Book.DoesNotExist, match="pages"):
        Book.objects.get(Book.pages == 77)


def test_a_sub_select_is_left_to_sqlalchemy(Book: Any, shelf: Any) -> None:
    longest = select(Book.pages).order_by(Book.pages.desc()).limit(1).scalar_subquery()
    assert titles(Book.objects.filter(Book.pages == longest)) == ["e"]
