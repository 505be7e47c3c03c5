"""Rows of a bulk write get their own keys, even if a trigger inserts others."""

from typing import Any

import pytest
from sqlalchemy import text

from microorm import Databases, Field, field


@pytest.mark.backends("sqlite-file", "sqlite-memory")
def test_a_trigger_that_inserts_takes_no_keys_of_others(Book: Any, databases: Databases) -> None:
    with databases.connection() as connection:
        connection.execute(
            text(
                "CREATE TRIGGER copy AFTER INSERT ON book WHEN new.title NOT LIKE 'copy%' BEGIN"
                " INSERT INTO book (title, pages, tags) VALUES ('copy of ' || new.title, 0, '[]'); END"
            )
        )
        connection.commit()
    books = Book.objects.bulk_create([Book(title=title) for title in "abc"])
    for book in books:
        assert Book.objects.get(pk=book.pk).title == book.title
    assert Book.objects.count() == 6


@pytest.mark.backends("postgresql", "mariadb", "sqlite-file")
def test_names_with_a_percent_sign_take_many_rows(Base: Any, registry: Any) -> None:
    class Rate(Base, table="per%cent"):
        value: Field[int] = field(column="rate%")

    registry.create_all("default")
    rates = Rate.objects.bulk_create([Rate(value=number) for number in range(5)])
    assert [each.value for each in Rate.objects.order_by(Rate.id)] == [0, 1, 2, 3, 4]
    assert [Rate.objects.get(pk=each.pk).value for each in rates] == [0, 1, 2, 3, 4]
    assert "INSERT INTO" in Rate.__schema__.explain()
