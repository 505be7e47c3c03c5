"""What the errors of a query say to write instead, for what other ORMs would take."""

from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import func

from microorm import FieldError
from tests.behaviour.library import library

pytestmark = pytest.mark.backends("sqlite-memory")


@pytest.fixture
def shop(Base: Any) -> SimpleNamespace:
    """The models of a library."""
    return library(Base)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("-title", "; write Book.title.desc()"),
        ("-author", "; write Book.author_id.desc()"),
        ("-author__name", "; write Book.author.name.desc()"),
        ("title__startswith", "; write Book.title.startswith(…)"),
        ("id__in", "; write Book.id.in_([…])"),
        ("pk__gte", "; write Book.id >= …"),
        ("editor__isnull", "; write Book.editor_id.is_(None)"),
        ("author__name", "; write Book.author.name"),
        ("author.country.code", "; write Book.author.country.code"),
        ("author__country__code__iexact", "; write func.lower(Book.author.country.code) == …"),
        ("tags__name", "; write Book.tags.name"),
        ("titel", "; nearest: 'title'"),
        ("author__nme", "; nearest: 'author'"),
        ("title__foo", "; nearest: 'title'"),
        ("zzz__in", ""),
        ("-", ""),
        ("", ""),
        ("__", ""),
    ],
)
def test_a_name_of_another_orm_says_what_to_write(shop: Any, name: str, instead: str) -> None:
    told = f"Book has no field {name!r}{instead}"
    for use in (
        lambda: shop.Book.objects.order_by(name),
        lambda: shop.Book.objects.filter(**{name: 1}),
        lambda: shop.Book.objects.only(name),
    ):
        with pytest.raises(FieldError) as caught:
            use()
        assert str(caught.value) == told


def test_a_value_that_is_no_condition_says_how_to_find_the_row(shop: Any) -> None:
    books, book = shop.Book.objects, shop.Book(id=3, title="t", author_id=1)
    for use, told in (
        (
            lambda: books.get(1),
            "get() takes column expressions, not 1; the row with this key is found by pk=1",
        ),
        (
            lambda: books.filter(book),
            "filter() takes column expressions, not Book(id=3); the row with this key is found by pk=3",
        ),
        (
            lambda: books.exclude("title"),
            "exclude() takes column expressions, not 'title'; compare it, Book.title == …",
        ),
        (
            lambda: books.filter(shop.Book.author),
            "filter() takes column expressions, not <path Book.author>; compare a column, or write author=…",
        ),
        (lambda: books.get("x"), "get() takes column expressions, not 'x'"),
        (lambda: books.get(True), "get() takes column expressions, not True"),
    ):
        with pytest.raises(TypeError) as caught:
            use()
        assert str(caught.value) == told


def test_parameters_of_raw_sql_have_names(shop: Any) -> None:
    for wrong in ([1], (1,), "x", 1):
        with pytest.raises(
            TypeError, match=r"^raw\(\) takes parameters by name, raw\('… WHERE id = :id', {'id': 1}\), not "
        ):
            shop.Book.objects.raw("SELECT * FROM book WHERE id = :id", wrong)


def test_an_aggregate_needs_a_name(shop: Any) -> None:
    with pytest.raises(
        TypeError, match=r"^aggregate\(\) takes expressions by name, aggregate\(total=…\), not "
    ):
        shop.Book.objects.aggregate(func.count())
    with pytest.raises(TypeError, match=r"^aggregate\(\) needs at least one expression, such as "):
        shop.Book.objects.aggregate()
