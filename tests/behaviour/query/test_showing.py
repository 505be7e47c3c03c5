"""What a notebook, a debugger and a copy see: the repr of instances and queries, `dir()` of paths, copies of queries."""

import copy
import dataclasses
import pickle
from types import SimpleNamespace
from typing import Any

import pytest

import microorm
from microorm import LazyLoadError, Prefetch, UnsavedError
from microorm.mapping.state import kept_related
from microorm.testing import no_lazy_loads
from tests.behaviour.library import fill, library

MEMORY = pytest.mark.backends("sqlite-memory")
pytestmark = MEMORY


@pytest.fixture
def shop(Base: Any, registry: Any) -> SimpleNamespace:
    """The models of a library, and its rows."""
    models = library(Base)
    registry.create_all()
    fill(models)
    return models


def test_an_instance_shows_its_key_and_its_fields(Book: Any, shelf: Any) -> None:
    book = Book(title="a", pages=3)
    assert repr(book) == "Book(id=None, title='a', pages=3, price=None, tags=[])"
    assert repr(shelf.first()) == "Book(id=1, title='a', pages=1, price=None, tags=[])"
    assert repr(shelf.only("title").first()) == "Book(id=1, title='a')"


def test_long_values_are_cut_and_cycles_end(Book: Any) -> None:
    book = Book(title="x" * 10_000, tags=["y"] * 10_000)
    book.tags[0] = book
    assert len(repr(book)) < 250
    assert "tags=[Book(id=None), 'y'" in repr(book)


def test_an_expression_is_shown_as_sql(Book: Any) -> None:
    book = Book(title="a")
    book.pages = Book.pages + 1
    assert "pages=<SQL book.pages + :pages_1>" in repr(book)


def test_showing_an_instance_sends_nothing(Book: Any, shelf: Any, wire: Any) -> None:
    partial = shelf.only("title").first()
    with wire.everything() as sent:
        assert "pages" not in repr(partial)
    assert sent == []


def test_a_repr_that_follows_relations_hides_no_error(shop: Any) -> None:
    """The error names the instance by its key, and does not run its `__repr__`."""
    shop.Author.__repr__ = lambda self: f"<{self.profile.text}>"
    shop.Book.__repr__ = lambda self: f"<{self.author.name}>"
    book = shop.Book.objects.first()
    assert repr(book) == "<isabel>"
    book.author_id = 99
    with pytest.raises(
        shop.Author.DoesNotExist, match=r"^Book\.author of Book\(id=1\): no Author with id=99$"
    ):
        _ = book.author
    with no_lazy_loads(), pytest.raises(LazyLoadError, match=r"Book\.author of Book\(id=2\)"):
        _ = shop.Book.objects.get(id=2).author
    with pytest.raises(UnsavedError, match=r"^Book\.author: Author\(id=None\) has no key"):
        shop.Book(title="t", author=shop.Author(name="n")).save()


def test_a_query_shows_its_sql_without_values(Book: Any, wire: Any) -> None:
    query = Book.objects.filter(Book.pages > 3, title="secret").order_by("id").only("title")
    with wire.everything() as sent:
        assert repr(query) == (
            "<Query of Book: SELECT book.id, book.title FROM book "
            "WHERE book.pages > :pages_1 AND book.title = :title_1 ORDER BY book.id>"
        )
        assert str(query) == str(query.statement)
        assert str(Book.objects.filter(Book.pages.in_([1, 2]))).endswith("IN (:pages_1)")
    assert sent == []


def test_a_query_that_has_no_sql_can_be_shown(Book: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Book.objects.__class__, "statement", property(lambda self: 1 / 0))
    assert repr(Book.objects) == "<Query of Book: no SQL: ZeroDivisionError>"


def test_a_path_lists_what_is_at_its_end(shop: Any) -> None:
    assert dir(shop.Book.author) == [
        "books", "country", "country_id", "edited", "id", "name", "pk", "profile",
    ]  # fmt: skip
    assert "code" in dir(shop.Book.author.country)


def test_the_package_lists_its_public_names() -> None:
    assert dir(microorm) == sorted([*microorm.__all__, "__version__"])


@dataclasses.dataclass
class Report:
    """A user's dataclass: `asdict` deep-copies what it holds."""

    rows: Any


def test_a_copy_of_a_query_is_the_query(Book: Any, shelf: Any) -> None:
    query = Book.objects.filter(Book.pages > 3)
    for twin in (copy.copy(query), copy.deepcopy(query), dataclasses.asdict(Report(query))["rows"]):
        assert twin is query
    assert [each.title for each in query.order_by("title")] == ["d", "e"]
    assert Book.objects.filter(Book.pages > 4).count() == 1


def test_copies_of_prefetches_and_paths_find_the_same(shop: Any) -> None:
    wanted = copy.deepcopy(Prefetch(shop.Author.books, shop.Book.objects.filter(title="a")))
    isabel = shop.Author.objects.prefetch_related(wanted).get(name="isabel")
    assert [each.title for each in isabel.books.all()] == ["a"]
    path = shop.Book.author.country
    assert copy.copy(path) is copy.deepcopy(path) is path


def test_a_query_is_not_pickled(Book: Any) -> None:
    with pytest.raises(TypeError, match=r"^<Query of Book> cannot be pickled; pickle its instances"):
        pickle.dumps(Book.objects)


def test_related_rows_are_no_attributes_of_the_dictionary(shop: Any) -> None:
    """What reads `vars()`, such as a serializer, finds the fields alone."""
    fields = set(shop.Book.__schema__.names)
    for book in (
        shop.Book.objects.first(),
        shop.Book.objects.select_related("author").first(),
        shop.Book.objects.prefetch_related("tags", "author").first(),
        shop.Book(title="t", author=shop.Author.objects.first()),
    ):
        assert book.author.name == "isabel"
        assert kept_related(book, "author") is not None
        assert set(vars(book)) - {"id"} == fields - {"id"}
